"""Teach a bank one task: read the pictures, train, keep; resumable after a kill at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perdure.adapters import Token
from perdure.bank import Bank, TaskRecord
from perdure.bank_names import composed
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.session import Session
from perdure.hosts.training import Diverged
from perdure.learning.advice import (
    advised,
    make_settings,
    seed_for_concepts,
    smaller,
    templates_of,
)
from perdure.learning.composition import learn_composition
from perdure.learning.divergence import eaten
from perdure.learning.drawn import prior, replayed
from perdure.learning.latents import Latents, cache, reconstruction
from perdure.learning.loop import CHECKPOINT, LOG, Progress, token_of, train
from perdure.learning.moments import moments
from perdure.learning.optimizers import check_optimizer
from perdure.learning.photos import Pictures
from perdure.learning.previews import SHEET, Previews
from perdure.learning.request import MANY, REQUEST, Task, refuse_unfinished
from perdure.learning.settings import LearnSettings
from perdure.learning.sources import digest_of, read_source
from perdure.learning.tracking import EVENTS, check_tracker, tracked
from perdure.learning.weighted import Given, Source
from perdure.methods import DEFAULT, METHODS, Composed, Kept, Method, build
from perdure.totals import kept_of

__all__ = ["at_once", "bank_for", "build_method", "kept_files", "learn", "resume"]


def build_method(name: str, base: Base, options: Mapping[str, Any] | None = None) -> Method:
    """A method by name; the user's options overrule what the base advises for it.

    Raises PerdureError for an unknown method or option.
    """
    advice = base.hints.get("methods", {}).get(name, {})
    try:
        return build(name, **{**advice, **(options or {})})
    except ValueError as error:
        raise PerdureError(f"{error}") from error


def learn(
    base: Base,
    bank: Bank | Path | str,
    concepts: Mapping[str, Given],
    *,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    nouns: Mapping[str, str] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda sentence: None,
    wait: float = 0,
    apart: bool = False,
    **settings: Any,
) -> TaskRecord:
    """Teach the bank the concepts of one task from their pictures.

    Args:
        base: the frozen model; a new bank is bound to it.
        bank: a bank or its folder, which is made where it is missing.
        concepts: name -> a folder of pictures, or picture files, or several folders; with a
            `Source` for one that counts more or less.
        method: name of the method. Defaults to the bank's own, for a new bank to `gated`.
        options: the method's options; defaults to the bank's own.
        nouns: concept -> class noun, kept for measuring; training prompts never hold it.
        report: told the progress after every step.
        note: told sentences for the user (pictures left out, a base that does not fit).
        wait: seconds to wait for another writer.
        apart: leave out what the method trains for the whole bank: see `learn_many`.
        **settings: fields of `LearnSettings`.

    Raises PerdureError for anything that the user can mend; the bank is then what it was.
    """
    concepts = {composed(name): source for name, source in concepts.items()}
    nouns = {composed(name): noun for name, noun in (nouns or {}).items()}
    bank = bank_for(bank, base, method, options)
    base_method = build(bank.method, **bank.config)
    chosen = make_settings(advised(base.hints, bank.method), settings)
    check_optimizer(chosen.optimizer)
    check_tracker(chosen.track)
    with bank.lock(wait, verb="learn"):
        refuse_unfinished(bank)
        bank.check_base(base.identity)
        bank.check_new(list(concepts))
        pictures = {
            name: read_source(base, name, source, chosen) for name, source in concepts.items()
        }
        task = Task(
            sources={
                name: tuple(_as_text(read, k) for read in groups for k in range(len(read)))
                for name, groups in pictures.items()
            },
            method=bank.method,
            config=bank.config,
            settings=chosen,
            digests={name: digest_of(groups) for name, groups in pictures.items()},
            nouns=nouns,
            fingerprint=bank.fingerprint,
            dtype=base.dtype_name,
            apart=apart,
        )
        bank.clear_workspace()
        bank.workspace.mkdir(parents=True, exist_ok=True)
        task.save(bank.workspace / REQUEST)
        if said := base.family.distilled(base.pipeline):
            note(said)
        if "lr" in settings and not base_method.trains_weights:
            note(f"lr has no effect: {bank.method} trains the token alone; its rate is token_lr.")
        return _run(base, bank, base_method, task, pictures, report, note)


def resume(
    base: Base,
    bank: Bank | Path | str,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda sentence: None,
    wait: float = 0,
) -> TaskRecord:
    """Go on with the learn that was interrupted; it ends in the same weights, bit for bit.

    Raises PerdureError where nothing was interrupted, or the pictures or the bank have changed.
    """
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    with bank.lock(wait, verb="learn"):
        bank.check_base(base.identity)
        path = bank.workspace / REQUEST
        if (bank.workspace / MANY).exists():
            raise PerdureError(
                f"Several concepts were learned at once in {bank.path}: go on with `resume_many`."
            )
        if not path.exists():
            raise PerdureError(
                f"Nothing was interrupted in {bank.path}: start with `perdure learn`."
            )
        task = Task.load(path)
        if task.fingerprint != bank.fingerprint:
            if set(task.sources) <= set(bank.concepts):  # killed after it was kept
                bank.clear_workspace()
                return next(t for t in bank.tasks if set(t.concepts) == set(task.sources))
            raise PerdureError(
                f"The bank {bank.path} has changed since that learn began: start it again with "
                "`perdure learn --discard`."
            )
        if task.dtype not in ("", base.dtype_name):
            raise PerdureError(
                f"That learn began with the base in {task.dtype}, and now it is in "
                f"{base.dtype_name}: resume it with --dtype {task.dtype}."
            )
        pictures = {
            name: read_source(base, name, files, task.settings)
            for name, files in task.sources.items()
        }
        for name, groups in pictures.items():
            if digest_of(groups) != task.digests[name]:
                raise PerdureError(
                    f"The pictures of <{name}> are not those that the learn began with: put them "
                    "back, or start again with `perdure learn --discard`."
                )
        return _run(base, bank, build(task.method, **task.config), task, pictures, report, note)


def _as_text(read: Pictures, k: int) -> str:
    """A picture and its weight, as `Source.of` reads them."""
    return str(Source(read.files[k].resolve(), read.weights[k] if read.weights else 1.0))


def bank_for(
    bank: Bank | Path | str, base: Base, method: str | None, options: Mapping[str, Any] | None
) -> Bank:
    """The bank to learn into, made where it is missing; `method` and `options` must be its own."""
    if not isinstance(bank, Bank):
        path = Path(bank)
        if not (path / "bank.json").exists():
            made = build_method(method or DEFAULT, base, options)
            check_suits(base, made)
            config = made.describe()["config"]
            return Bank.open_or_create(path, base=base.identity, method=made.name, config=config)
        bank = Bank.open(path)
    check_suits(base, build(bank.method, **bank.config))
    if method is not None or options:
        asked = method or bank.method
        known = bank.config if asked == bank.method else {}
        made = build_method(asked, base, {**known, **(options or {})})
        if made.describe() != build(bank.method, **bank.config).describe():
            bank.check_method(made.name, made.describe()["config"])
    return bank


def check_suits(base: Base, method: Method) -> None:
    """PerdureError where the method needs layers that read the prompt, and the base has none."""
    if not base.readers and (why := method.needs_prompt_layers()):
        raise PerdureError(
            f"{method.name} cannot learn on {base.family.title}, whose text is a stream that every "
            f"block changes: {why}."
        )


def at_once(bank: Path | str, method: str | None = None) -> bool:
    """Does the bank's method, or `method` for a new bank, learn all concepts in one task?"""
    path = Path(bank)
    name = Bank.open(path).method if (path / "bank.json").exists() else method
    return name in METHODS and METHODS[name].all_at_once


def _run(
    base: Base,
    bank: Bank,
    method: Method,
    task: Task,
    pictures: Mapping[str, Sequence[Pictures]],
    report: Callable[[Progress], None],
    note: Callable[[str], None],
) -> TaskRecord:
    """Encode, train and keep; the same from the start and from any checkpoint."""
    try:
        return _kept(base, bank, method, task, pictures, report, note)
    except Diverged:
        bank.clear_workspace()  # a resume would end alike
        raise
    except torch.OutOfMemoryError as error:
        begun = (bank.workspace / CHECKPOINT).exists()
        if not begun:
            bank.clear_workspace()
        how = f"give it up with `perdure learn --discard --bank {bank.path}` and " if begun else ""
        raise PerdureError(
            f"Memory ran out while learning: {how}learn again with an option that needs less: "
            f"{smaller(base, task.settings)}."
        ) from error


def _kept(
    base: Base,
    bank: Bank,
    method: Method,
    task: Task,
    pictures: Mapping[str, Sequence[Pictures]],
    report: Callable[[Progress], None],
    note: Callable[[str], None],
) -> TaskRecord:
    began = time.monotonic()
    settings = task.settings
    if method.independent:
        settings = replace(settings, seed=seed_for_concepts(settings.seed, list(pictures)))
    cache = base.cache(bank.prompts, write=True)
    with base.session(targets=method.targets, cache=cache) as session:
        latents, facts = _encoded(base, pictures, settings, note)
        kept = kept_of(bank, method, write=True)
        tensors, tokens, trained = _trained(
            session, bank, method, kept, latents, settings, report, began
        )
        facts |= trained
        composition = None
        if isinstance(method, Composed) and not task.apart:
            composition, facts["composition"] = learn_composition(
                session,
                method,
                [*kept, Kept(concepts=tuple(pictures), tensors=tensors)],
                {**bank.tokens(), **tokens},
                bank.composition(),
                {**templates_of(bank.tasks), **dict.fromkeys(pictures, settings.templates)},
                latents,
                settings,
                folder=bank.workspace / "composition",
                report=report,
            )
            facts["seconds"] = round(facts["seconds"] + facts["composition"].get("seconds", 0.0), 3)
    if (times := eaten(bank.workspace / LOG)) is not None:
        note(
            f"The penalty of {method.name} is {times:.0f} times the loss at the end, and what was"
            f" learned has a norm of {facts['norm']:.3g}: if it draws nothing like its pictures,"
            " learn it again with a lower penalty (`perdure methods` names the options)."
        )
    facts |= {"nouns": dict(task.nouns), "settings": task.settings.to_json()}
    logs = {LOG: (bank.workspace / LOG).read_bytes(), **kept_files(bank.workspace)}
    record = bank.commit(
        concepts=list(pictures),
        tensors=tensors,
        tokens=tokens,
        facts=facts,
        method=method.name,
        config=bank.config,
        extra_files=logs,
        composition=composition,
    )
    bank.clear_workspace()
    return record


def kept_files(folder: Path) -> dict[str, bytes]:
    """What a run leaves beside its log, for its task's folder: the previews' sheet, events."""
    files = [folder / SHEET, *(folder / EVENTS).rglob("*")]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if f.is_file()}


def _trained(
    session: Session,
    bank: Bank,
    method: Method,
    kept: Sequence[Kept],
    latents: Mapping[str, Sequence[Latents]],
    settings: LearnSettings,
    report: Callable[[Progress], None],
    began: float,
) -> tuple[dict[str, Tensor], dict[str, Token], dict[str, Any]]:
    """What is kept of the task, its concepts' tokens, and facts about the run."""
    words, kind = session.base.tokens, settings.token
    generator = torch.Generator().manual_seed(settings.seed)
    layers = session.base.readers if method.layerwise else 1
    rows = {name: words.random(kind, generator, layers=layers) for name in latents}
    own = prior(session, settings) if settings.prior else None
    of_past = bank if method.moments_of_past else None
    features = (
        moments(session, of_past, gather=method.moments_are) if method.needs_moments else None
    )
    old = bank.tokens() if method.replays else {}  # of the concepts that a batch can speak of
    session.speak({**old, **{name: token_of(session, kind, row) for name, row in rows.items()}})
    try:
        learner = method.start(session.shapes, kept, rows, generator, moments=features)
    except ValueError as error:
        bank.clear_workspace()  # nothing has begun, so there is nothing to resume
        raise PerdureError(f"{method.name} cannot start: {error}.") from error
    again = replayed(session, method, kept, templates_of(bank.tasks), settings)
    past = method.past(kept)
    session.fold(past)
    previews = Previews(
        session=session,
        method=method,
        kept=kept,
        tokens=bank.tokens(),
        templates={**templates_of(bank.tasks), **dict.fromkeys(latents, settings.templates)},
        composition=bank.composition(),
        past=past,
        folder=bank.workspace,
    )
    before = time.monotonic() - began
    with tracked(settings.track, list(latents), bank.workspace, report) as told:
        facts: dict[str, Any] = train(
            session,
            learner,
            latents,
            settings,
            folder=bank.workspace,
            prior=own,
            replay=again,
            preview=previews.draw if settings.preview_every else None,
            report=told,
        )
    facts["seconds"] = round(before + facts["seconds"], 3)
    facts["parameters"] = sum(parameter.numel() for parameter in learner.parameters())
    tokens = {
        name: token_of(session, kind, row.detach().cpu()) for name, row in learner.tokens().items()
    }
    return method.keep(learner), tokens, facts


def _encoded(
    base: Base,
    pictures: Mapping[str, Sequence[Pictures]],
    settings: LearnSettings,
    note: Callable[[str], None],
) -> tuple[dict[str, list[Latents]], dict[str, Any]]:
    """Every concept's latents; how many pictures they are of, and what the autoencoder reaches."""
    latents: dict[str, list[Latents]] = {}
    facts: dict[str, Any] = {"pictures": {}, "psnr": {}}
    for name, groups in pictures.items():
        count, total, warning = sum(map(len, groups)), 0.0, ""
        for read in groups:
            for sentence in read.notes:
                note(sentence)
            own = cache(base, read, flip=settings.flip)
            latents.setdefault(name, []).append(own)
            psnr, said = reconstruction(base, read, own)
            total, warning = total + psnr * len(read), warning or said
        facts["pictures"][name], facts["psnr"][name] = count, round(total / count, 2)
        if warning:
            note(warning)
    return latents, facts
