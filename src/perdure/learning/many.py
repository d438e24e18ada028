"""Teach a bank many concepts at once, each in its own process, where none depends on another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from perdure.bank import Bank, TaskRecord
from perdure.bank_names import composed
from perdure.cluster import cause, on_cluster
from perdure.durable import replace_file
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.learning.advice import (
    advised,
    make_settings,
    seed_for_concepts,
    templates_of,
)
from perdure.learning.composition import learn_composition
from perdure.learning.latents import cache
from perdure.learning.learn import bank_for, build_method, kept_files, learn, resume
from perdure.learning.loop import LOG
from perdure.learning.request import (
    MANY,
    interrupted,
    refuse_unfinished,
    sources_in,
    unreadable,
)
from perdure.learning.sources import read_source
from perdure.learning.weighted import Given, Source
from perdure.methods import DEFAULT, Composed, Kept, build
from perdure.processes import pool_of
from perdure.settings import Count, checked
from perdure.untrusted import read_json

__all__ = ["learn_many", "resume_many"]

Opener = Callable[[], Base]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for: enough to go on with it after a kill."""

    sources: Mapping[str, tuple[str, ...]]
    """Concept -> its picture folder, or its picture files, in the order of the tasks."""
    nouns: Mapping[str, str]
    settings: Mapping[str, Any]
    """The loop's options as they were given."""

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        replace_file(path, json.dumps(asdict(self)).encode())


@dataclass(frozen=True, kw_only=True)
class Job:
    """One concept for one process: a bank of its own, from which the task is taken over."""

    base: str | Path | Opener
    bank: Path
    concept: str
    source: tuple[str, ...]
    noun: str
    threads: int
    settings: Mapping[str, Any]


def learn_many(
    base: str | Path | Opener,
    bank: Path | str,
    concepts: Mapping[str, Given],
    *,
    processes: int = 2,
    ray: str | None = None,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    nouns: Mapping[str, str] | None = None,
    note: Callable[[str], None] = lambda sentence: None,
    wait: float = 0,
    **settings: Any,
) -> list[TaskRecord]:
    """Teach the bank one task a concept, several at a time; committed in the order given.

    The tasks are the same, bit for bit, as learned one by one or in another order. What the
    method trains for the whole bank comes last, once, with the pictures of all of them.

    Args:
        base: the base's name, or a function of a module that opens it: every process does.
        bank: the bank's folder, which is made where it is missing.
        concepts: name -> a folder of pictures, or picture files, as for `learn`.
        processes: how many learn at a time; torch's threads are divided among them.
        ray: a Ray cluster to learn on instead (`pip install perdure[ray]`). Bank, pictures
            and base must lie on a file system that all its nodes see.
        method, options, nouns, note, wait, settings: as for `learn`.

    Raises PerdureError for anything that the user can mend, a method whose tasks depend on one
    another, and where a process fails or is killed: what was committed stays, and `resume_many`
    learns the rest.
    """
    checked("processes", processes, Count)
    opened = _open(base)
    there = (Path(bank) / "bank.json").exists()
    name = method or (Bank.open(bank).method if there else DEFAULT)
    wanted = build_method(name, opened)
    if not wanted.independent:
        one = "all concepts in one task"
        how = one if wanted.all_at_once else "every task on top of the ones before"
        raise PerdureError(
            f"{name} learns {how}, so not in several processes: leave --processes out, or take a "
            "method whose tasks are independent."
        )
    make_settings(advised(opened.hints, name), settings)
    known = bank_for(Path(bank), opened, method, options)
    with known.lock(wait, verb="learn"):
        refuse_unfinished(known)
        known.check_base(opened.identity)
        known.check_new([composed(name) for name in concepts])
        request = Request(
            sources={composed(name): _files(source) for name, source in concepts.items()},
            nouns={composed(name): noun for name, noun in (nouns or {}).items()},
            settings=settings,
        )
        known.clear_workspace()
        known.workspace.mkdir(parents=True, exist_ok=True)
        request.save(known.workspace / MANY)
        return _run(opened, base, known, request, processes, ray, note)


def resume_many(
    base: str | Path | Opener,
    bank: Path | str,
    *,
    processes: int = 2,
    ray: str | None = None,
    note: Callable[[str], None] = lambda sentence: None,
    wait: float = 0,
) -> list[TaskRecord]:
    """Go on with a `learn_many` that was interrupted: only what is missing is learned.

    Raises PerdureError where none was, and as `learn_many`.
    """
    opened, known = _open(base), Bank.open(bank)
    with known.lock(wait, verb="learn"):
        known.check_base(opened.identity)
        path = known.workspace / MANY
        if not path.exists():
            raise PerdureError(
                f"Nothing was interrupted in {known.path}: start with `perdure learn`."
            )
        with unreadable(path):
            values = read_json(path)
            request = Request(**{**values, "sources": sources_in(values)})
            dict(request.settings), dict(request.nouns)
        return _run(opened, base, known, request, processes, ray, note)


def _run(
    opened: Base,
    base: str | Path | Opener,
    bank: Bank,
    request: Request,
    processes: int,
    ray: str | None,
    note: Callable[[str], None],
) -> list[TaskRecord]:
    """Learn what the bank lacks, commit it in order, then the second step."""
    missing = [name for name in request.sources if name not in bank.concepts]
    threads = torch.get_num_threads() if ray else torch.get_num_threads() // processes
    jobs = []
    for name in missing:
        path = bank.workspace / "apart" / name
        Bank.open_or_create(path, base=bank.base, method=bank.method, config=bank.config)
        jobs.append(
            Job(
                base=base,
                bank=path.resolve(),
                concept=name,
                source=request.sources[name],
                noun=request.nouns.get(name, ""),
                threads=max(1, threads),
                settings=request.settings,
            )
        )
    finished = _on_cluster(jobs, ray) if ray else _in_processes(jobs, processes)
    for job, sentences in finished:
        for sentence in sentences:
            note(sentence)
        _take_over(bank, job)
    method = build(bank.method, **bank.config)
    if isinstance(method, Composed):
        _compose(opened, bank, method, request)
    bank.clear_workspace()
    return [task for task in bank.tasks if task.concepts[0] in request.sources]


def learn_alone(job: Job) -> list[str]:
    """One job, in whatever process this is: from the start, or from where it was stopped.

    Returns sentences for the user.
    """
    torch.set_num_threads(job.threads)
    bank, notes = Bank.open(job.bank), list[str]()
    if job.concept in bank.concepts:
        return notes
    base = _open(job.base)
    if interrupted(bank):
        resume(base, bank, note=notes.append)
    else:
        nouns = {job.concept: job.noun} if job.noun else {}
        learn(
            base,
            bank,
            {job.concept: _source(job.source)},
            nouns=nouns,
            note=notes.append,
            apart=True,
            **job.settings,
        )
    return notes


def _in_processes(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, list[str]]]:
    """The jobs as they are done, in their own order, each in a fresh process."""
    pool = pool_of(processes)
    try:
        futures = [pool.submit(learn_alone, job) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            yield job, future.result()
    except BrokenProcessPool as error:
        raise PerdureError(
            "A process that was learning has been killed (often for want of memory): go on with "
            "`perdure learn --resume` and fewer --processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _on_cluster(jobs: Sequence[Job], address: str) -> Iterator[tuple[Job, list[str]]]:
    """The jobs as a Ray cluster does them, in their own order."""
    futures = on_cluster(learn_alone, [(job,) for job in jobs], address)
    for job, future in zip(jobs, futures, strict=True):
        error = future.exception()
        if error is not None:
            raise cause(error)
        yield job, future.result()


def _take_over(bank: Bank, job: Job) -> None:
    """Commit what a job learned, unchanged."""
    done = Bank.open(job.bank)
    record = done.tasks[0]
    tensors, tokens = done.read(record)
    bank.commit(
        concepts=record.concepts,
        tensors=tensors,
        tokens=tokens,
        facts=record.facts,
        method=bank.method,
        config=bank.config,
        extra_files={
            LOG: (done.task_folder(record) / LOG).read_bytes(),
            **kept_files(done.task_folder(record)),
        },
    )
    shutil.rmtree(job.bank)


def _compose(base: Base, bank: Bank, method: Composed, request: Request) -> None:
    """The second step, with the pictures of all concepts of the request."""
    settings = make_settings(advised(base.hints, bank.method), request.settings)
    with base.session(targets=method.targets) as session:
        latents = {
            name: [
                cache(base, read, flip=settings.flip)
                for read in read_source(base, name, _source(files), settings)
            ]
            for name, files in request.sources.items()
        }
        composition, _ = learn_composition(
            session,
            method,
            [Kept(concepts=names, tensors=tensors) for names, tensors in bank.kept()],
            bank.tokens(),
            bank.composition(),
            templates_of(bank.tasks),
            latents,
            replace(settings, seed=seed_for_concepts(settings.seed, list(request.sources))),
            folder=bank.workspace / "composition",
        )
    if composition is not None:
        bank.set_composition(composition)


def _open(base: str | Path | Opener) -> Base:
    return base() if callable(base) else Base.open(base)


def _files(source: Given) -> tuple[str, ...]:
    several = [Source.of(one) for one in ([source] if isinstance(source, str | Path) else source)]
    return tuple(str(Source(one.pictures.resolve(), one.weight)) for one in several)


def _source(files: Sequence[str]) -> str | list[str]:
    return files[0] if len(files) == 1 else list(files)
