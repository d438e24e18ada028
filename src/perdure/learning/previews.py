"""Drawings of the new concepts and of some old ones while a task is learned, on one growing sheet.

Nothing of it reaches what is learned: a copy of the learner is kept as it would be now, drawn with,
and thrown away; every drawing has a generator of its own.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from perdure.adapters import PromptDelta, Prompts, Token
from perdure.durable import replace_file
from perdure.hosts.diffusion.session import Session
from perdure.learning.loop import Step, token_of
from perdure.methods import Composed, Deltas, Kept, Method
from perdure.sheet import contact_sheet, stacked
from perdure.untrusted import open_picture

__all__ = ["SHEET", "Previews"]

SHEET = "while-learning.png"
"""In the task's folder; while it is learned, in the bank's `.learning`."""
_OLD = 3
"""Old concepts on the sheet: the first, the last and one between, where there are more."""
_EACH = 2
"""Drawings of each concept, always of the same seeds."""
_SEED = 500


@dataclass(frozen=True, kw_only=True)
class Previews:
    """What a task's previews are drawn with beside its learner."""

    session: Session
    method: Method
    kept: Sequence[Kept]
    """Every earlier task."""
    tokens: Mapping[str, Token]
    """Of the earlier concepts."""
    templates: Mapping[str, Sequence[str]]
    """Of every concept, the prompts that it was taught with."""
    composition: Mapping[str, torch.Tensor]
    past: Deltas
    """What is folded while the task trains."""
    folder: Path
    """Gets a row a preview, `previews/00000100.png`, and the sheet of all rows so far."""

    def draw(self, step: Step, made: int) -> None:
        """Add the row of ``made`` steps to the sheet, while no delta of the learner runs live."""
        twin = copy.deepcopy(step.learner).eval()
        own = Step(step.session, twin, step.latents, step.settings, None, {})
        with torch.no_grad():
            if twin.concepts:
                twin.see(own.speaking())
            twin.look_back(())
        kind = step.settings.token
        new = {
            name: token_of(self.session, kind, row.detach().cpu())
            for name, row in twin.tokens().items()
        }
        task = Kept(concepts=tuple(step.latents), tensors=self.method.keep(twin))
        old = _spread(list(self.tokens))
        names = [*step.latents, *old]
        # a module that a method makes anew begins with numbers of torch's own generator
        with (
            torch.random.fork_rng([]),
            self.session.aside({**{name: self.tokens[name] for name in old}, **new}),
        ):
            kept = [*self.kept, task]
            pictures = [picture for name in names for picture in self._drawn(name, kept)]
        self.session.fold(self.past)
        label = f"after {made} steps: " + ", ".join(f"<{name}>" for name in names)
        self._add(made, contact_sheet(pictures, [label]))

    def _drawn(self, name: str, kept: Sequence[Kept]) -> list[Image.Image]:
        """EACH pictures of a concept, as `Painter` draws them."""
        session, method = self.session, self.method
        prompt = self.templates[name][0].format(f"<{name}>")
        advice = session.base.hints.get("drawing", {})
        with torch.no_grad():
            said = session.conditioning([prompt])
            states = said.prompts.states[0].float() if method.mixes_by == "prompt" else None
            if isinstance(method, Composed):
                session.fold(method.mix_composed(kept, self.composition, [name], states))
            else:
                session.fold(method.mix(kept, [name], states))
            by_layer = None
            if method.layerwise:
                with session.base.autocast():
                    by_layer = session.conditioning([prompt]).by_layer

        def acting(prompts: Prompts) -> Sequence[PromptDelta]:
            return method.in_prompts(kept, prompts)

        found = []
        for k in range(_EACH):
            found += session.draw(
                [prompt],
                seeds=[_SEED + k],
                said=acting if method.acts_in_prompts else None,
                by_layer=by_layer,
                num_inference_steps=int(advice.get("steps", 30)),
                guidance_scale=float(advice.get("guidance", 7.5)),
            )
        return found

    def _add(self, made: int, row: Image.Image) -> None:
        """A row that a run before a crash has drawn already is replaced by the same one."""
        rows = self.folder / "previews"
        rows.mkdir(exist_ok=True)
        replace_file(rows / f"{made:08d}.png", _png(row))
        shown = []
        for path in sorted(rows.glob("*.png")):
            with open_picture(path) as picture:
                shown.append(picture.convert("RGB"))
        replace_file(self.folder / SHEET, _png(stacked(shown)))


def _spread(names: Sequence[str]) -> list[str]:
    """At most OLD of them, the first and the last among them."""
    if len(names) <= _OLD:
        return list(names)
    return [names[round(k * (len(names) - 1) / (_OLD - 1))] for k in range(_OLD)]


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
