"""Is a bank whole? Every file that it lists, and everything else that lies in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from perdure.adapters.prompts import Token
from perdure.bank import Bank
from perdure.bank_leftovers import orphans
from perdure.bank_writing import MARKER
from perdure.durable import is_partial
from perdure.errors import PerdureError
from perdure.hosts.diffusion.host import Base
from perdure.methods import Kept, Shapes, build
from perdure.methods.protocol import SHARED

__all__ = ["Finding", "check_bank"]

Widths = Mapping[str, int]
"""Part of a token (`state`, `word/<encoder>`) -> how wide it is."""

_TOP = {"bank.json", ".lock", MARKER, "concepts", "tasks", ".derived", ".learning", "evaluation"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a bank that its owner should know."""

    kind: Literal["hurt", "interrupted", "leftover", "foreign"]
    """A bank is sound as long as nothing in it is `hurt`."""
    file: str
    """Relative to the bank's folder."""
    says: str
    """A sentence: what is wrong, and the mend."""


def check_bank(path: Path | str, base: Base | None = None) -> list[Finding]:
    """Read and verify every file of the bank, against ``base`` where it is given; writes nothing.

    Raises PerdureError where there is no folder. A bank.json that cannot be read is a finding.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise PerdureError(f"There is no bank at {path}: check --bank.")
    try:
        bank = Bank.open(path)
    except PerdureError as error:
        return [Finding(kind="hurt", file="bank.json", says=f"{error}")]
    shapes, widths = None, None
    if base is not None:
        try:
            bank.check_base(base.identity)
        except PerdureError as error:
            return [Finding(kind="hurt", file="bank.json", says=f"{error}")]
        with base.session(targets=build(bank.method, **bank.config).targets) as session:
            shapes, widths = session.shapes, base.tokens.widths
    found = [*_hurt(bank, shapes, widths), *_interrupted(bank)]
    left = {file.relative_to(path).as_posix() for file in orphans(path, bank.state)}
    left |= {file.relative_to(path).as_posix() for file in path.rglob("*") if is_partial(file)}
    for name in sorted(left):
        said = f"{path / name} is not listed: a crash left it, and the next write sweeps it away."
        found.append(Finding(kind="leftover", file=name, says=said))
    for name in sorted(_foreign(bank) - left):
        said = f"{path / name} is not the bank's: it is neither read nor touched."
        found.append(Finding(kind="foreign", file=name, says=said))
    return found


def _hurt(bank: Bank, shapes: Shapes | None, widths: Widths | None) -> Iterator[Finding]:
    def hurt(file: Path, sentence: object) -> Finding:
        name = file.relative_to(bank.path).as_posix()
        return Finding(kind="hurt", file=name, says=f"{sentence}")

    for task in bank.tasks:
        for name in task.concepts:
            file = bank.concept_file(name)
            try:
                factors, token, _ = bank.load(name)
                _check_finite({**factors, **token.parts}, file)
                own = Kept(concepts=task.concepts, tensors=factors)
                _check_fits(file, own, token, shapes, widths)
            except PerdureError as error:
                yield hurt(file, error)
        if not bank.task_folder(task).is_dir():
            yield hurt(
                bank.task_folder(task),
                f"{bank.task_folder(task)} is missing: its log is lost, its concepts are not.",
            )
    composition = bank.state.composition
    shared = bank.path / (composition.name if composition else "bank.json")
    try:
        _check_finite(bank.composition(), shared)
    except PerdureError as error:
        yield hurt(shared, error)


def _check_finite(tensors: Mapping[str, Tensor], file: Path) -> None:
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise PerdureError(
                f"{file} holds numbers that are not finite ({key}): remove its concept and learn it"
                " again."
            )


def _check_fits(
    file: Path, kept: Kept, token: Token, shapes: Shapes | None, widths: Widths | None
) -> None:
    sizes = list[tuple[str, object, object]]()
    for part, rows in token.parts.items() if widths is not None else ():
        sizes.append((part, rows.shape[1], (widths or {}).get(part)))
    for layer, factors in kept.factors().items() if shapes is not None else ():
        d_out, d_in = (shapes or {}).get(layer, (None, None))
        for name, factor in factors.items() if layer != SHARED else ():
            shape = tuple(factor.shape)
            sides: dict[str, tuple[object, object]] = {
                "A": (shape[0], d_out),
                "B": (shape[-1], d_in),
                "dW": (shape, (d_out, d_in)),
            }
            own, of_base = sides.get(name, (d_out is not None, True))
            sizes.append((f"{layer}/{name}", own, of_base))
    for name, own, of_base in sizes:
        if own != of_base:
            raise PerdureError(
                f"{file} does not fit the base ({name} is of the size {own}, not {of_base}): open"
                " the bank with its own base."
            )


def _interrupted(bank: Bank) -> Iterator[Finding]:
    for name in ("request.json", "many.json"):
        if (bank.workspace / name).exists():
            said = (
                f"A learn was interrupted in {bank.path}: go on with `perdure learn --resume"
                f" --bank {bank.path}`, or give it up with --discard."
            )
            yield Finding(kind="interrupted", file=f".learning/{name}", says=said)


def _foreign(bank: Bank) -> set[str]:
    """What lies in the bank's folder and is none of its files."""
    path, composition = bank.path, bank.state.composition
    own = _TOP | ({composition.name} if composition else set())
    found = {file for file in path.iterdir() if file.name not in own}
    listed = {bank.concept_file(name) for name in bank.concepts}
    folders = {bank.task_folder(task) for task in bank.tasks}
    found |= {file for file in (path / "tasks").glob("*") if file not in folders}
    homes = {file.parent for file in listed}
    for home in (path / "concepts").glob("*"):
        found |= set(home.iterdir()) - listed if home in homes else {home}
    found |= {file for file in listed | homes | folders if file.is_symlink()}
    return {file.relative_to(path).as_posix() for file in found}
