"""What is said of an export."""

from __future__ import annotations

from collections.abc import Iterator

from perdure.exchange.export import Exported, Part

__all__ = ["said_of"]


def said_of(made: Exported) -> Iterator[str]:
    """Sentences for the user: what was written, how it is loaded, how its pictures compare."""
    if not made.parts:
        yield f"{made.folder}: open it with {made.pipeline}.from_pretrained"
        if made.difference is not None:
            yield (
                f"Checked: the stock pipeline draws {_names(made.compared)} as the bank does "
                f"(largest difference {made.difference} of 255)."
            )
        return
    for part in made.parts:
        yield from _of(part)
    if made.parts[0].rank is not None:
        yield f"{made.folder / 'embeddings'}: the concepts' tokens; a LoRA needs those it speaks of"


def _of(part: Part) -> Iterator[str]:
    for file in part.files:
        if file.suffix == ".safetensors":
            yield str(file)
    about = _names(part.concepts)
    if part.rank is not None:
        cut = f", {part.error:.2%} of its delta cut away" if part.error else ", nothing cut away"
        yield f"{about}: a LoRA of rank {part.rank}{cut}."
    if part.difference is None:
        return
    yield (
        f"Checked: loaded by the stock loader it draws {about} at most {part.difference} of 255 "
        f"from the bank's picture, in the mean {part.mean:.2f}."
    )
    if part.silent is not None:
        yield (
            "A LoRA acts on every word, the bank at the concept's own alone: this one comes as "
            "near as it can, and with it a picture whose prompt speaks of no concept changes by "
            f"{part.silent:.2f} in the mean, which in the bank it does not."
        )
    elif part.rank is None:
        yield "These are tokens alone: what the bank adds to the weights is not in them."


def _names(concepts: tuple[str, ...]) -> str:
    return " and ".join(f"<{name}>" for name in concepts)
