"""Draw prompts with what a bank has learned, and write the folded model as a diffusers folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from perdure.adapters import adding
from perdure.bank import Bank
from perdure.base.base import Base
from perdure.base.layerwise import layer_states, reading, typical
from perdure.base.tokens import known_in, spoken_in
from perdure.drawing.regions import Region, RegionKeys, attending, keys_and_values
from perdure.errors import PerdureError
from perdure.limits import SEEDS, check_number, check_whole
from perdure.methods import Deltas, Together, build
from perdure.outputs import output_folder
from perdure.quiet import quietly
from perdure.totals import kept_of

__all__ = ["Painter", "draw", "grid"]


class Painter:
    """Draws with the first ``upto`` tasks of a bank (all of them by default).

    A plain sum is folded once; a mixture that depends on the prompt is folded once for each set of
    concepts that prompts speak of, or for each prompt; what a method adds to keys and values is
    computed once a prompt. Either way a step costs what the base's own step costs. A concept's file
    is read when it is first needed, its tokens' rows when a prompt first speaks of it.
    """

    def __init__(self, base: Base, bank: Bank | Path | str, *, upto: int | None = None) -> None:
        bank = bank if isinstance(bank, Bank) else Bank.open(bank)
        bank.check_base(base.identity)
        self.base = base
        self.method = build(bank.method, **bank.config)
        self.kept = kept_of(bank, self.method, upto=upto)
        self.together = bank.together()
        self.rows: Mapping[str, Tensor] = bank.rows(upto)

    def draw(
        self,
        prompts: str | Sequence[str],
        *,
        seeds: int | Sequence[int],
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        regions: Sequence[Region] = (),
        batch_size: int = 16,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[Image.Image]:
        """One picture for each prompt and its seed; the same picture whatever its neighbours are.

        Args:
            prompts: one or several; concepts are spoken of as ``<name>``.
            seeds: as many as prompts.
            steps: denoising steps; default: what the base advises, else 30.
            guidance: classifier-free guidance; default: what the base advises, else 7.5.
            negative: what the pictures should not show.
            regions: boxes of every picture that attend to phrases of their own.
            batch_size: pictures in one pass.
            progress: told how many of how many pictures are drawn.

        Raises PerdureError for a concept that the bank has not learned, for one that stands behind
        the end of what the base reads, for weights in prompts, for numbers out of range and for
        unequal lengths.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        seeds = [seeds] if isinstance(seeds, int) else seeds
        advice = self.base.hints.get("drawing", {})
        steps = int(advice.get("steps", 30)) if steps is None else steps
        guidance = float(advice.get("guidance", 7.5)) if guidance is None else guidance
        check_whole("steps", steps, 1, self.base.pipeline.scheduler.config.num_train_timesteps)
        check_number("guidance", guidance, 0)
        check_whole("batch_size", batch_size, 1)
        for seed in seeds:
            check_whole("seed", seed, 0, SEEDS)
        if len(prompts) != len(seeds):
            raise PerdureError(
                f"{len(prompts)} prompts came with {len(seeds)} seeds: give as many."
            )
        self._prepare([*prompts, negative, *(region.phrase for region in regions)])
        groups: dict[object, list[int]] = {}
        for place, prompt in enumerate(prompts):
            spoken = known_in(prompt, self.rows)
            shared = {"bank": None, "concepts": frozenset(spoken), "prompt": prompt}
            groups.setdefault(shared[self.method.mixes_by], []).append(place)
        pictures: dict[int, Image.Image] = {}
        try:
            boxes = [RegionKeys(region, self._keys_and_values(region.phrase)) for region in regions]
            for places in groups.values():
                self._fold_for(prompts[places[0]])
                for start in range(0, len(places), batch_size):
                    batch = places[start : start + batch_size]
                    added = self._added([prompts[i] for i in batch])
                    with (
                        torch.no_grad(),
                        self.base.autocast(),
                        adding(self.base.layers, added),
                        self._reading([prompts[i] for i in batch]),
                        attending(self.base.denoiser, boxes, len(batch)),
                    ):
                        out = self.base.pipeline(
                            [prompts[i] for i in batch],
                            negative_prompt=[negative] * len(batch),
                            generator=[torch.Generator().manual_seed(int(seeds[i])) for i in batch],
                            height=self.base.size,
                            width=self.base.size,
                            num_inference_steps=steps,
                            guidance_scale=float(guidance),
                        )
                    pictures |= dict(zip(batch, out.images, strict=True))
                    progress(len(pictures), len(prompts))
        finally:
            self.base.fold({})
        return [pictures[i] for i in range(len(prompts))]

    @torch.no_grad()
    def fingerprint(self, prompt: str) -> str:
        """Of all that decides how a prompt is drawn, but for seeds and settings.

        SHA-256 of the text's states, the folded deltas and what is added to keys and values: on one
        machine equal fingerprints draw equal pictures, whatever else the banks hold.
        """
        self._prepare([prompt])
        decides = {"states": self._states([prompt]), **self._mixed(prompt)}
        decides |= {f"added {layer}": extra for layer, extra in self._added([prompt]).items()}
        digest = hashlib.sha256()
        for name, tensor in sorted(decides.items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _prepare(self, texts: Iterable[str]) -> None:
        """Target layers as this bank needs them, and the tokens that these texts speak of.

        Raises PerdureError for a text that cannot be drawn as it stands.
        """
        texts = list(texts)
        for text in texts:
            known_in(text, self.rows)
        self.base.aim(self.method.targets)
        self.base.tokens.set(self._rows(texts))
        for text in texts:
            self.base.tokens.ids([text])  # refuses a concept that would be cut off

    def _rows(self, texts: Iterable[str]) -> dict[str, Tensor]:
        spoken = {name for text in texts for name in spoken_in(text)}
        return {name: self.rows[name] for name in self.rows if name in spoken}

    @torch.no_grad()
    def _fold_for(self, prompt: str) -> None:
        self.base.fold(self._mixed(prompt))

    @cached_property
    def _of_bank(self) -> Deltas:
        return self.method.mix(self.kept, ())

    def _mixed(self, prompt: str) -> Deltas:
        spoken, states = known_in(prompt, self.rows), None
        if self.method.mixes_by == "bank":
            return self._of_bank
        if self.method.mixes_by == "prompt":
            states = typical(self._states([prompt]))[0].float()
        if isinstance(self.method, Together):
            return self.method.mix_together(self.kept, self.together, sorted(spoken), states)
        return self.method.mix(self.kept, sorted(spoken), states)

    @torch.no_grad()
    def _states(self, prompts: Sequence[str]) -> Tensor:
        """What every cross-attention reads (L, N, P, d), once a prompt; L is 1 where all agree."""
        return layer_states(self.base, self.base.tokens.ids(prompts), self._rows(prompts))

    def _reading(self, prompts: Sequence[str]) -> AbstractContextManager[None]:
        """A block in which each layer reads these prompts its own way, where tokens ask for it."""
        if not self.method.layerwise:
            return nullcontext()
        return reading(self.base, self._states(prompts))

    @torch.no_grad()
    def _added(self, prompts: Sequence[str]) -> Deltas:
        if not self.method.adds_to_prompts:
            return {}
        ids = self.base.tokens.ids(prompts)
        return self.method.added(self.kept, self.base.prompts(ids, self.base.states(ids).float()))

    @torch.no_grad()
    def _keys_and_values(self, phrase: str) -> dict[str, tuple[Tensor, Tensor]]:
        self._fold_for(phrase)
        states = self._states([phrase])[:, 0]
        return keys_and_values(self.base.denoiser, states, self._added([phrase]))

    def save_folded(self, folder: Path | str, *, spoken: Sequence[str] = ()) -> None:
        """Write an ordinary diffusers folder: deltas folded in, concept tokens in the tokenizer.

        Args:
            folder: must not exist, or be empty.
            spoken: for a method whose mixture depends on the prompt, the concepts to fold for.

        Raises PerdureError where the folder is in use or cannot be made, or such a method is given
        no concept.
        """
        for name in spoken:
            if name not in self.rows:
                raise PerdureError(f"The bank has no concept <{name}>: `perdure list` shows them.")
        method = self.method
        if method.adds_to_prompts or method.mixes_by == "prompt":
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
        folder = output_folder(folder)
        if any(folder.iterdir()):
            raise PerdureError(f"{folder} is not empty: choose another folder for the export.")
        self._prepare(f"<{name}>" for name in self.rows)
        self.base.fold(method.mix(self.kept, list(spoken)))
        try:
            with quietly():
                self.base.pipeline.save_pretrained(folder, safe_serialization=True)
        finally:
            self.base.fold({})


def draw(
    base: Base, bank: Bank | Path | str, prompts: str | Sequence[str], **options: Any
) -> list[Image.Image]:
    """Draw prompts with a bank: see `Painter.draw`. ``seeds`` default to 0, 1, 2, ..."""
    prompts = [prompts] if isinstance(prompts, str) else prompts
    options.setdefault("seeds", range(len(prompts)))
    return Painter(base, bank).draw(prompts, **options)


def grid(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size in rows, as one picture."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k % columns * width, k // columns * height))
    return sheet
