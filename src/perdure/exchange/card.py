"""A bank's model card on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from huggingface_hub import ModelCardData

from perdure.bank import Bank, TaskRecord
from perdure.measuring.matrix import TaskMatrix, final
from perdure.methods import METHODS

__all__ = ["CARD_MARK", "card"]

CARD_MARK = "<!-- written by perdure push -->"


def card(
    bank: Bank, repository: str, *, licence: str, consent: str, drawn: Mapping[str, str]
) -> str:
    """Markdown with the hub's metadata before it.

    Args:
        bank: what was learned.
        repository: `user/name`.
        licence: of the base, an identifier of the hub's or any other text.
        consent: whose pictures these are, and who agreed.
        drawn: concept -> its picture in the repository.
    """
    known = re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence) is not None
    base = bank.base.name
    about = ModelCardData(
        base_model=base if base.count("/") == 1 else None,
        license=licence if known else "other",
        license_name=None if known else licence,
        library_name="perdure",
        pipeline_tag="text-to-image",
        tags=["perdure", "text-to-image", "continual-learning", bank.method],
    )
    first = bank.concepts[0]
    lines = [
        f"---\n{about.to_yaml()}\n---\n\n{CARD_MARK}\n",
        f"# {repository.partition('/')[2]}\n",
        f"{len(bank.concepts)} concepts that one text-to-image model was taught, as a bank of "
        f"perdure: {METHODS[bank.method].title}.\n",
        "```\n"
        f'perdure generate "a photo of <{first}>" --bank hf://{repository} --base {base}\n'
        "```\n",
        "## Concepts\n",
        "| write | learned | drawn with `a photo of` it |",
        "|---|---|---|",
        *_rows(bank, drawn),
        "",
        "## Base and licence\n",
        f"Learned on {base} (keys, values and tokens: sha256 {bank.base.hash[:16]}...), whose "
        f"licence binds this bank, too: {licence}.\n",
        "## Consent\n",
        f"{consent}\n",
        "## Measured\n",
        *_measured(bank),
    ]
    return "\n".join(lines) + "\n"


def _rows(bank: Bank, drawn: Mapping[str, str]) -> Iterator[str]:
    for task in bank.tasks:
        for name in task.concepts:
            picture = f"![{name}]({drawn[name]})" if name in drawn else ""
            yield f"| `<{name}>` | {_learned(task, name)} | {picture} |"


def _learned(task: TaskRecord, name: str) -> str:
    if adopted := task.facts.get("adopted"):
        return f"adopted from {adopted['file']}"
    pictures = task.facts.get("pictures", {}).get(name)
    steps = task.facts.get("steps") or task.facts.get("settings", {}).get("steps")
    parts = [f"{pictures} pictures" if pictures else "", f"{steps} steps" if steps else ""]
    return ", ".join(part for part in parts if part)


def _measured(bank: Bank) -> Iterator[str]:
    """The last row of what `perdure evaluate` left in the bank, where it is of these concepts."""
    path = bank.path / "evaluation" / "matrix.json"
    matrix = TaskMatrix.load(path) if path.is_file() else None
    if matrix is None or matrix.concepts != bank.concepts:
        yield "Nothing yet: `perdure evaluate` measures what a bank remembers."
        return
    scores = [score for score in matrix.scores if matrix.scored(score)]
    yield "By `perdure evaluate`, each concept as the whole bank draws it:\n"
    yield "| concept | " + " | ".join(scores) + " |"
    yield "|---" * (len(scores) + 1) + "|"
    last = {score: final(matrix, score) for score in scores}
    for name in matrix.concepts:
        cells = [f"{last[score][name]:.3f}" if name in last[score] else "-" for score in scores]
        yield f"| {name} | " + " | ".join(cells) + " |"
