"""A bank for other programs: a folded folder, LoRAs and textual inversions; each is loaded with the
stock loader, and its pictures are compared with the bank's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch

from perdure.bank import Bank
from perdure.drawing.export import export as export_folded
from perdure.drawing.painter import Painter
from perdure.drawing.stock import prompts_of
from perdure.durable import whole_folder, writing
from perdure.errors import PerdureError
from perdure.exchange.checking import Stock, difference
from perdure.exchange.factors import check_fixed, factors_of
from perdure.exchange.lora import PEFT_FILE, need_peft, write_comfyui, write_kohya, write_peft
from perdure.exchange.settings import ExportSettings
from perdure.exchange.ungated import ungated
from perdure.hosts.diffusion.host import Base
from perdure.hosts.diffusion.inversions import inversion
from perdure.hosts.diffusion.lora_files import Modules, by_module, check_loads
from perdure.hosts.diffusion.tokens import check_words
from perdure.outputs import output_folder

__all__ = ["Exported", "Part", "export"]

SPEAKING, SILENT = "a photo of <{}> next to a house", "two dogs next to a tree"
"""Prompts that what comes near a gate was not fitted to."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A LoRA that was written, or the tokens, and how pictures compare."""

    name: str
    """Of the concept, or of the bank."""
    concepts: tuple[str, ...]
    files: tuple[Path, ...]
    """First what the stock loader is given."""
    rank: int | None = None
    """The largest of a layer; None where there is no LoRA."""
    error: float = 0.0
    """The share of the delta that was cut away, in its Frobenius norm."""
    difference: int | None = None
    """The largest of a colour value, of 255, between the bank's pictures of these concepts and
    those of the stock pipeline with the files; None where nothing was compared."""
    mean: float | None = None
    """The mean of the same."""
    silent: float | None = None
    """Of a method that acts at its concepts' tokens alone: by how much, in the mean, a picture
    changes whose prompt speaks of no concept."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how its pictures compare with the bank's."""

    folder: Path
    pipeline: str
    """The class of diffusers that opens or loads it."""
    compared: tuple[str, ...]
    """Concepts that both drew; none where nothing was compared."""
    difference: int | None
    """The largest of a colour value, of 255; a few come of another order of additions."""
    parts: tuple[Part, ...] = ()
    """One, or one a concept; of a folded folder none."""


def export(
    base: Base,
    bank: Bank | Path | str,
    folder: Path | str,
    *,
    concepts: Sequence[str] = (),
    **settings: Any,
) -> Exported:
    """Write a bank, or some of its concepts, for other programs.

    Args:
        base: the bank's base.
        bank: what was learned.
        folder: must not exist, or be empty.
        concepts: which; all by default. Where a method keeps concepts apart each gets a LoRA of its
            own, unless it is named here: then those that fold together are one.
        **settings: fields of `ExportSettings`.

    Raises PerdureError for what no such file can hold, and where the stock loader reads a file
    otherwise than it was meant; that file is removed.
    """
    chosen = ExportSettings.of(settings)
    if chosen.rank is not None and chosen.format in ("diffusers", "embeddings"):
        raise PerdureError(f"rank has no effect on --format {chosen.format}: leave it out.")
    if chosen.format == "diffusers":
        made = export_folded(base, bank, folder, concepts=concepts, check=chosen.check)
        return Exported(
            folder=made.folder,
            pipeline=made.pipeline,
            compared=made.compared,
            difference=made.difference,
        )
    bank = bank if isinstance(bank, Bank) else Bank.open(bank)
    painter = Painter(base, bank)
    for name in concepts:
        if name not in painter.tokens:
            raise PerdureError(f"The bank has no concept <{name}>: `perdure list` shows them.")
    if not bank.concepts:
        raise PerdureError(f"The bank {bank.path} has no concept yet: learn one first.")
    spoken = list(dict.fromkeys(concepts or bank.concepts))
    groups = [(bank.path.resolve().name, spoken)]
    if chosen.format != "embeddings":
        check_fixed(painter.method, concepts)
        check_loads(base)
        if chosen.check:
            need_peft()
        groups = _groups(painter, bank, concepts)
    check_words({name: painter.tokens[name] for name in spoken})
    parts = [
        _Planned(name, tuple(own), *_modules(base, bank, painter, own, chosen))
        for name, own in groups
    ]
    folder = output_folder(folder)
    if any(folder.iterdir()):
        raise PerdureError(f"{folder} is not empty: choose another folder for the export.")
    try:
        with writing(folder), whole_folder(folder) as partial:
            written = _written(painter, partial, parts, spoken, chosen)
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # where nothing is in it
        raise
    return replace(
        written,
        folder=folder,
        parts=tuple(
            replace(part, files=tuple(folder / one.relative_to(partial) for one in part.files))
            for part in written.parts
        ),
    )


@dataclass(frozen=True, eq=False)
class _Planned:
    name: str
    concepts: tuple[str, ...]
    modules: Modules
    rank: int | None
    error: float


def _groups(painter: Painter, bank: Bank, concepts: Sequence[str]) -> list[tuple[str, list[str]]]:
    """A LoRA's name and concepts, for each LoRA."""
    method, named = painter.method, list(dict.fromkeys(concepts))
    if method.acts_in_prompts or (method.mixes_by == "concepts" and not named):
        return [(name, [name]) for name in named or bank.concepts]
    return [("+".join(named) or bank.path.resolve().name, named or list(bank.concepts))]


def _modules(
    base: Base, bank: Bank, painter: Painter, concepts: Sequence[str], chosen: ExportSettings
) -> tuple[Modules, int | None, float]:
    if chosen.format == "embeddings":
        return {}, None, 0.0
    method = painter.method
    factors = factors_of(bank, method, concepts, chosen.rank)
    if method.acts_in_prompts:
        factors = ungated(painter, factors, concepts[0])
    modules = by_module(base, base.named(method.targets), factors.pairs)
    return modules, factors.rank, factors.error


def _written(
    painter: Painter,
    folder: Path,
    parts: Sequence[_Planned],
    spoken: Sequence[str],
    chosen: ExportSettings,
) -> Exported:
    base, lora = painter.base, chosen.format != "embeddings"
    home = folder / "embeddings" if lora else folder
    home.mkdir(exist_ok=True)
    words = {name: home / f"{name}.safetensors" for name in spoken}
    for name, file in words.items():
        safetensors.torch.save_file(inversion(base, name, painter.tokens[name]), file)
    stock = Stock(painter) if chosen.check else None
    made = []
    try:
        if stock is not None:
            for name, file in words.items():
                with _removing([file], folder):
                    stock.speak(file, name)
        for part in parts:
            own = folder / part.name if len(parts) > 1 else folder
            files = _write(base, part, own, chosen.format) if lora else list(words.values())
            with _removing(files, folder):
                compared = _compare(stock, part, files) if stock is not None else {}
            made.append(
                Part(
                    name=part.name,
                    concepts=part.concepts,
                    files=tuple(files),
                    rank=part.rank,
                    error=part.error,
                    **compared,
                )
            )
    except PerdureError:
        for file in words.values():  # without what failed they are of no use
            file.unlink(missing_ok=True)
        with suppress(OSError):
            home.rmdir()
        raise
    largest = [part.difference for part in made if part.difference is not None]
    return Exported(
        folder=folder,
        pipeline=type(base.pipeline).__name__,
        compared=tuple(spoken) if largest else (),
        difference=max(largest, default=None),
        parts=tuple(made),
    )


def _write(base: Base, part: _Planned, folder: Path, form: str) -> list[Path]:
    if form == "peft":
        return write_peft(base, part.modules, folder)[::-1]
    write = {"kohya": write_kohya, "comfyui": write_comfyui}[form]
    return write(base, part.modules, folder / f"{part.name}.safetensors")


def _compare(stock: Stock, part: _Planned, files: Iterable[Path]) -> Mapping[str, Any]:
    """How pictures compare, of every file that a stock loader is given."""
    acts = stock.painter.method.acts_in_prompts and part.rank is not None
    prompts = prompts_of(stock.painter, part.concepts)
    if acts:
        prompts = [SPEAKING.format(name) for name in part.concepts]
    ours, theirs, silent = stock.ours(prompts), [], None
    if part.rank is None:
        theirs.append(stock.draw(prompts))
    for file in files if part.rank is not None else ():
        if file.name != PEFT_FILE:  # which is read with its configuration
            with stock.loaded(file, part.modules):
                theirs.append(stock.draw(prompts))
                if acts:
                    silent = difference(stock.ours([SILENT]), stock.draw([SILENT]))[1]
    found = [difference(ours, one) for one in theirs]
    largest, mean = max(found)
    return {"difference": largest, "mean": mean, "silent": silent}


class _removing:
    """A block in which an error of a stock loader removes the files, and is one sentence."""

    def __init__(self, files: Sequence[Path], folder: Path) -> None:
        self.files, self.folder = files, folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return
        for file in self.files:
            file.unlink(missing_ok=True)
            if file.parent != self.folder:
                with suppress(OSError):
                    file.parent.rmdir()
        if isinstance(error, PerdureError):
            return
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PerdureError(
            f"The stock loader does not read {self.files[0]} as it was meant ({said}), so it was "
            "removed: choose another --format."
        ) from error
