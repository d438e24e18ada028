"""What `perdure doctor` says: the machine, the base, and how good smallworld is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.memory import fitting
from perdure.measuring.features import MetricEncoder
from perdure.outputs import output_folder, possible_folder
from perdure.smallworld.card import model_facts, write_card
from perdure.smallworld.quality import measure_quality

__all__ = ["describe", "quality"]

_CARD = ("smallworld.md", "smallworld.json", "smallworld.png")
"""What the model card is made of."""


def describe(name: str, **opening: Any) -> Iterator[tuple[str, str]]:
    """(what, value) lines about the machine and a base, opened with
    ``opening`` as by `Base.open`; PerdureError where the base cannot open."""
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores"
    yield "diffusers", diffusers.__version__
    yield "transformers", transformers.__version__
    base = Base.open(name, **opening)
    bf16 = "yes" if base.fast_bf16 else "no"
    yield "device", str(base.device)
    yield "dtype", str(base.dtype).removeprefix("torch.")
    yield "bf16 autocast", bf16
    yield "base", str(base.identity)
    yield "family", base.family.title
    yield "prediction", base.objective.prediction
    yield "pictures", "{} x {}".format(*base.size)
    weights = sum(d_out * d_in for d_out, d_in in base.shapes.values())
    yield "target layers", f"{len(base.layers)} with {weights:,} weights"
    yield "metric encoder", base.encoder
    yield from fitting(base, base.size)
    if said := base.family.distilled(base.pipeline):
        yield "distilled", said


def quality(
    name: str,
    *,
    pictures: int = 512,
    out: Path | None = None,
    progress: Callable[[str], None] | None = None,
    **opening: Any,
) -> list[str]:
    """Measure smallworld on held-out identities and prompts; a line a figure, with its aim.

    With ``out`` also writes `smallworld.md`, the model card, with `smallworld.json` and
    `smallworld.png` (renders above drawings). Raises PerdureError for another base: only the drawn
    world's ground truth is known.
    """
    base = Base.open(name, **opening)
    if not base.hints.get("smallworld"):
        raise PerdureError(
            f"The quality of {name!r} cannot be measured: that needs a base of the drawn world."
        )
    if out is not None:
        possible_folder(out)
        for name in _CARD:
            if (out / name).exists():
                raise PerdureError(f"{out} has a {name} in it already: choose another folder.")
    encoder = MetricEncoder.of(base)
    advice = base.hints.get("drawing", {})
    result = measure_quality(
        base.pipeline,
        encoder,
        pictures=pictures,
        steps=int(advice.get("steps", 25)),
        guidance=float(advice.get("guidance", 3.0)),
        autocast=base.fast_bf16,
        progress=progress,
    )
    if out is not None:
        output_folder(out)
        result.grid.save(out / "smallworld.png")
        weights = Path(base.encoder).parent
        facts = {
            **json.loads((weights / "recipe.json").read_text()),
            "parts": model_facts(base.pipeline, encoder),
            "bytes": sum(path.stat().st_size for path in weights.rglob("*") if path.is_file()),
            "command": f"perdure doctor --measure --pictures {pictures} --out {out}",
            "hardware": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
            "grid": "smallworld.png",
        }
        content = {"quality": result.to_json(), "facts": facts}
        (out / "smallworld.json").write_text(json.dumps(content, indent=1) + "\n")
        write_card(out / "smallworld.md", quality=result, facts=facts)
    marks = {True: "ok", False: "MISSED", None: ""}
    return [
        f"{row.name:>44}  {row.value:>14}  {row.aim:>12}  {marks[row.ok]}" for row in result.rows()
    ]
