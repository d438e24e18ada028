"""Draw prompts with what a bank has learned, and write the folded model as a diffusers folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from perdure.adapters import PromptDelta, Prompts, Token
from perdure.bank import Bank
from perdure.drawing.closeup import put_back, schedule, shared_out
from perdure.drawing.facts import Facts, with_facts
from perdure.drawing.layout import PULL, Layout, NoNounError, laid_out
from perdure.drawing.regions import Region
from perdure.drawing.settings import DrawSettings
from perdure.drawing.settled import Settled, settled
from perdure.durable import whole_folder, writing
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.rooms import Phrased
from perdure.hosts.diffusion.session import Begun, Boxed, Place, Session
from perdure.hosts.diffusion.tokens import check_words, known_in
from perdure.hosts.size import Size
from perdure.machine import environment
from perdure.methods import Composed, Deltas, build
from perdure.outputs import output_folder
from perdure.totals import kept_of

__all__ = ["Painter", "draw"]


class Painter:
    """Draws with the first ``upto`` tasks of a bank (all of them by default).

    A plain sum is folded once; a mixture that depends on the prompt is folded once for each set of
    concepts that prompts speak of, or for each prompt; what a method adds to keys and values is
    computed once a prompt. Either way a step costs what the base's own step costs. A concept's file
    is read when it is first needed, its tokens' rows when a prompt first speaks of it. A bank keeps
    only the last of what a `Composed` method trains for all tasks: `composition` may be another.
    """

    def __init__(
        self,
        base: Base,
        bank: Bank | Path | str,
        *,
        upto: int | None = None,
        composition: Mapping[str, Tensor] | None = None,
    ) -> None:
        bank = bank if isinstance(bank, Bank) else Bank.open(bank)
        bank.check_base(base.identity)
        self.base, self.bank = base, bank
        self.tasks = len(bank.tasks[:upto])
        self.method = build(bank.method, **bank.config)
        self.kept = kept_of(bank, self.method, upto=upto)
        self.composition = bank.composition() if composition is None else composition
        self.tokens: Mapping[str, Token] = bank.tokens(upto)
        self.cache = base.cache(bank.prompts)

    def draw(
        self,
        prompts: str | Sequence[str],
        *,
        seeds: int | Sequence[int] | None = None,
        regions: Sequence[Region] = (),
        init: Path | str | Image.Image | None = None,
        progress: Callable[[int, int], None] = lambda done, of: None,
        note: Callable[[str], None] = lambda sentence: None,
        **settings: Any,
    ) -> list[Image.Image]:
        """Draw prompts; the same picture, to the bit, whatever else is drawn.

        With a `batch_size` above 1 neighbours change how numbers are rounded. Each picture knows
        how it was drawn: see `save_picture` and `facts_of`.

        Args:
            prompts: one or several; concepts are spoken of as ``<name>``.
            seeds: one a prompt, for one picture of each, in place of `seed` and `count`.
            regions: boxes of every picture that attend to phrases of their own. Without any, a
                prompt that speaks of several subjects is laid out: see `layout`. What stands in
                them is drawn over by itself at the end, as much as `closeup` says.
            init: a picture to begin with, cut to size; `strength` says how much is drawn over.
            progress: told how many of how many pictures are drawn.
            note: told how each prompt is laid out, or why it is not.
            **settings: fields of `DrawSettings`.

        Returns `count` pictures of the first prompt, then of the next one.

        Raises PerdureError for a concept that the bank has not learned, for one that stands behind
        the end of what the base reads, for weights in prompts, for an option that does not exist or
        fit, for unequal lengths, and for `init` or a `closeup` where the base's family has no
        pipeline that begins with a picture.
        """
        chosen = DrawSettings.of(settings)
        prompts = [prompts] if isinstance(prompts, str) else prompts
        if seeds is None:
            seeds = [chosen.seed + k for _ in prompts for k in range(chosen.count)]
            prompts = [prompt for prompt in prompts for _ in range(chosen.count)]
        elif useless := sorted({"seed", "count"} & settings.keys()):
            raise PerdureError(f"{useless[0]} has no effect beside seeds: leave one of them out.")
        seeds = [seeds] if isinstance(seeds, int) else seeds
        seeds = [DrawSettings.of({"seed": seed}).seed for seed in seeds]
        if len(prompts) != len(seeds):
            raise PerdureError(
                f"{len(prompts)} prompts came with {len(seeds)} seeds: give as many."
            )
        how = settled(self.base, chosen, init)
        laid = {} if regions or how.layout == "none" else self._laid(prompts, note, how.size)
        shown = [
            (one.prompt, one.regions) if (one := laid.get(prompt)) else (prompt, tuple(regions))
            for prompt in prompts
        ]
        phrases = dict.fromkeys(one.phrase for _, own in shown for one in own)
        texts = [*prompts, how.negative, *(whole for whole, _ in shown), *phrases]
        family = self.base.family
        groups: dict[object, list[int]] = {}
        for place, (whole, own) in enumerate(shown):
            alike = whole if own and not family.keys_apart else self.shared(whole)
            groups.setdefault((alike, own), []).append(place)
        pictures: dict[int, Image.Image] = {}
        told = self._told(how, regions)
        with self._session(texts) as session:
            for places in groups.values():
                first, own = shown[places[0]]
                pull = PULL if own and not regions and family.guides(self.base.pipeline) else 1.0
                boxes = [self._region(session, region) for region in own]
                if not family.keys_apart:  # one fold serves the prompt and all phrases
                    first = " ".join([first, *(region.phrase for region in own)])
                mixed = self._mixed(session, first)
                for start in range(0, len(places), chosen.batch_size):
                    batch = places[start : start + chosen.batch_size]
                    common = {"seeds": [seeds[i] for i in batch], "negative": how.negative}
                    if start == 0 or how.windows(own):  # close-ups fold what is theirs
                        session.fold(mixed)
                    out = self._drawn(
                        session,
                        [shown[i][0] for i in batch],
                        size=how.size,
                        regions=boxes,
                        begun=[how.begun] * len(batch) if how.begun else (),
                        num_inference_steps=how.steps_of_the_whole(own),
                        guidance_scale=how.guidance * pull,
                        **common,
                    )
                    out = self._closer(session, out, own, how, **common)
                    for i, picture in zip(batch, out, strict=True):
                        facts = Facts(prompt=prompts[i], seed=seeds[i], at_once=len(batch), **told)
                        pictures[i] = with_facts(picture, facts)
                    progress(len(pictures), len(prompts))
        return [pictures[i] for i in range(len(prompts))]

    def _drawn(self, session: Session, prompts: Sequence[str], **drawing: Any) -> list[Image.Image]:
        """What the session draws of prompts by what is folded, with all that acts in them."""
        pictures: list[Image.Image] = session.draw(
            prompts,
            said=self.in_prompts if self.method.acts_in_prompts else None,
            by_layer=self._by_layer(session, prompts),
            **drawing,
        )
        return pictures

    def _closer(
        self,
        session: Session,
        pictures: list[Image.Image],
        regions: Sequence[Region],
        how: Settled,
        **drawing: Any,
    ) -> list[Image.Image]:
        """The pictures with what stands in each region drawn over by itself: see `closeup`."""
        _, steps = shared_out(how.steps)
        for k, window in how.windows(regions).items():
            session.fold(self._mixed(session, regions[k].phrase))
            cut = [window.cut(picture, how.full) for picture in pictures]
            parts = self._drawn(
                session,
                [regions[k].phrase] * len(cut),
                size=how.full,
                begun=[Begun(picture=one, strength=how.closeup) for one in cut],
                num_inference_steps=schedule(steps, how.closeup, self.base.most_steps),
                guidance_scale=how.guidance,
                **drawing,
            )
            pictures = [
                put_back(picture, part, window, regions, k)
                for picture, part in zip(pictures, parts, strict=True)
            ]
        return pictures

    def layout(self, prompt: str) -> Layout | None:
        """Where the subjects of a prompt stand, by what it says and what the bank knows of them:
        see `laid_out`."""
        known_in(prompt, self.tokens)
        nouns: dict[str, str] = {}
        styles: set[str] = set()
        for task in self.bank.tasks[: self.tasks]:
            nouns |= task.facts.get("nouns", {})
            templates = task.facts.get("settings", {}).get("templates", ())
            if templates and all("style" in text for text in templates):
                styles |= set(task.concepts)
        return laid_out(prompt, nouns, styles)

    def _laid(
        self, prompts: Sequence[str], note: Callable[[str], None], size: Size
    ) -> dict[str, Layout]:
        """The layouts of the prompts that have one, of pictures of a size."""
        laid: dict[str, Layout] = {}
        for prompt in dict.fromkeys(prompts):
            try:
                layout = self.layout(prompt)
            except NoNounError as error:
                note(str(error))
                continue
            if layout is not None:
                laid[prompt] = layout
                note(f"{prompt!r} is laid out: {layout}.")
                if (count := layout.abreast) > 2 and 2 * size[0] < count * size[1]:
                    unit = self.base.family.multiple(self.base.pipeline)
                    width = -(-count * size[1] // (2 * unit)) * unit
                    note(
                        f"For {count} side by side a wider picture is better: --size "
                        f"{width}x{size[1]}."
                    )
        return laid

    def shared(self, prompt: str) -> object:
        """What prompts have in common that are drawn with one and the same fold."""
        spoken = known_in(prompt, self.tokens)
        shared = {"bank": None, "concepts": frozenset(spoken), "prompt": prompt}
        return shared[self.method.mixes_by]

    @torch.no_grad()
    def fingerprint(self, prompt: str) -> str:
        """Of all that decides how a prompt is drawn, but for seeds and settings.

        SHA-256 of the text's states, the folded deltas and what acts in the prompt: on one machine
        equal fingerprints draw equal pictures, whatever else the banks hold.
        """
        with self._session([prompt]) as session:
            said = session.conditioning([prompt])
            decides = {"states": said.by_layer, **self._mixed(session, prompt)}
        for task, delta in enumerate(self.in_prompts(said.prompts)):
            decides[f"gate {task}"] = delta.gate
            for layer, (A, B) in delta.factors.items():
                decides |= {f"A {task} {layer}": A, f"B {task} {layer}": B}
        digest = hashlib.sha256()
        for name, tensor in sorted(decides.items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def prompts(self, texts: Sequence[str]) -> Prompts:
        """What the method sees of prompts, states in fp32."""
        with self._session(texts) as session:
            return Prompts.joined([session.conditioning([text]).prompts for text in texts])

    def _told(self, how: Settled, regions: Sequence[Region]) -> dict[str, Any]:
        """What all pictures of a drawing know."""
        made_on = environment(self.base.device)
        libraries = [f"{name} {made_on[name]}" for name in ("torch", "diffusers", "transformers")]
        return {
            "negative": how.negative,
            "steps": how.steps,
            "guidance": how.guidance,
            "size": how.size,
            "boxes": tuple(str(region) for region in regions),
            "layout": how.layout,
            "closeup": how.closeup,
            "init": None if how.begun is None else how.begun.digest,
            "strength": None if how.begun is None else how.begun.strength,
            "base": self.base.identity.name,
            "base_hash": self.base.identity.hash,
            "sampler": self.base.sampler,
            "dtype": self.base.dtype_name,
            "quantize": self.base.quantize,
            "method": self.method.name,
            "bank": self.bank.fingerprint_at(self.tasks),
            "tasks": self.tasks,
            "version": made_on["perdure"],
            "environment": ", ".join([*libraries, self.base.device.type, made_on["precision"]]),
        }

    def _session(self, texts: Iterable[str]) -> AbstractContextManager[Session]:
        """The base with this bank's target layers, and the tokens that these texts speak of.

        Raises PerdureError for a text that cannot be drawn as it stands.
        """
        spoken = {name for text in texts for name in known_in(text, self.tokens)}
        tokens = {name: self.tokens[name] for name in self.tokens if name in spoken}
        return self.base.session(targets=self.method.targets, tokens=tokens, cache=self.cache)

    @cached_property
    def _of_bank(self) -> Deltas:
        return self.method.mix(self.kept, ())

    @torch.no_grad()
    def _mixed(self, session: Session, prompt: str) -> Deltas:
        """What is folded for a prompt."""
        spoken, states = known_in(prompt, self.tokens), None
        if self.method.mixes_by == "bank":
            return self._of_bank
        if self.method.mixes_by == "prompt":
            states = session.conditioning([prompt]).prompts.states[0].float()
        if isinstance(self.method, Composed):
            return self.method.mix_composed(self.kept, self.composition, sorted(spoken), states)
        return self.method.mix(self.kept, sorted(spoken), states)

    @torch.no_grad()
    def _by_layer(self, session: Session, prompts: Sequence[str]) -> Tensor | None:
        """What each reader reads, where tokens have a row for each of them."""
        if not self.method.layerwise:
            return None
        with self.base.autocast():
            return session.conditioning(prompts).by_layer

    def in_prompts(self, prompts: Prompts) -> Sequence[PromptDelta]:
        """What acts at some positions of these prompts."""
        return self.method.in_prompts(self.kept, prompts)

    @torch.no_grad()
    def _region(self, session: Session, region: Region) -> Boxed | Phrased:
        """A box that attends to its own phrase, by what is folded for that."""
        session.fold(self._mixed(session, region.phrase))
        place = Place(box=region.box, depth=region.depth, since=region.since)
        return session.region(place, region.phrase, self.in_prompts)

    def save_folded(self, folder: Path | str, *, spoken: Sequence[str] = ()) -> None:
        """Write an ordinary diffusers folder: deltas folded in, concept tokens in the tokenizer.

        Args:
            folder: must not exist, or be empty.
            spoken: for a method whose mixture depends on the prompt, the concepts to fold for.

        Raises PerdureError where the folder is in use or cannot be made, a token is a state, or
        such a method is given no concept.
        """
        for name in spoken:
            if name not in self.tokens:
                raise PerdureError(f"The bank has no concept <{name}>: `perdure list` shows them.")
        method = self.method
        if method.acts_in_prompts or method.mixes_by == "prompt":
            raise PerdureError(
                f"What {method.name} adds depends on the words of each prompt, so no one model "
                "holds it: draw from the bank itself."
            )
        if spoken and method.mixes_by == "bank":
            raise PerdureError(
                f"{method.name} folds all concepts into one model: leave --concept out."
            )
        if method.mixes_by == "concepts" and not spoken:
            raise PerdureError(
                f"What {method.name} draws depends on the concepts in the prompt, so it "
                "cannot be folded for all of them: name the concepts to fold with --concept."
            )
        check_words(self.tokens)
        folder = output_folder(folder)
        if any(folder.iterdir()):
            raise PerdureError(f"{folder} is not empty: choose another folder for the export.")
        with self._session(f"<{name}>" for name in self.tokens) as session:
            session.fold(method.mix(self.kept, list(spoken)))
            with writing(folder), whole_folder(folder) as partial:
                session.save(partial)


def draw(
    base: Base, bank: Bank | Path | str, prompts: str | Sequence[str], **options: Any
) -> list[Image.Image]:
    """Draw prompts with a bank, one picture of each unless asked otherwise: see `Painter.draw`."""
    return Painter(base, bank).draw(prompts, **options)
