"""What a picture knows of how it was drawn, inside its PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from perdure.drawing.regions import read_region
from perdure.errors import PerdureError
from perdure.hosts.size import AnySize
from perdure.settings import Count, Limits, NotNegative, Settings, Share
from perdure.sheet import enlarged

__all__ = ["Facts", "facts_of", "read_facts", "save_picture", "with_facts"]

_PARAMETERS, _OURS = "parameters", "perdure"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Facts(Settings):
    """All that decides one picture, but for the weights themselves; no path is in it."""

    called: ClassVar[str] = "picture"

    prompt: str
    """What was asked for."""
    negative: str = ""
    """What it should not show."""
    seed: Annotated[int, Limits(least=0, most=2**32 - 1)]
    """Of its noise."""
    steps: Annotated[int, Limits(least=1, most=1000)]
    """Denoising steps."""
    guidance: NotNegative
    """Classifier-free guidance."""
    size: AnySize
    """Width and height as drawn."""
    boxes: tuple[str, ...] = ()
    """Phrases of parts of the picture, as `PHRASE@LEFT,TOP,RIGHT,BOTTOM`."""
    layout: Literal["sentence", "none"] = "none"
    """How it was decided where its subjects stand; older pictures do not say, for nothing was."""
    closeup: Annotated[float, Limits(least=0, most=1)] = 0.0
    """How much of each subject was drawn over by itself; of older pictures nothing was."""
    init: str | None = None
    """SHA-256 of the picture that it began with, as it was cut to size."""
    strength: Share | None = None
    """How much of that was drawn over."""
    scale: Count = 1
    """How many times it was enlarged, pixel by pixel."""
    base: str
    """Name of the base."""
    base_hash: str
    """Of its weights."""
    sampler: str
    """The schedule's class."""
    dtype: str
    """What the base's weights were held in."""
    quantize: str | None = None
    """How the denoiser's weights were held small."""
    method: str
    """Of the bank."""
    bank: str
    """Fingerprint of the tasks it was drawn with."""
    tasks: Annotated[int, Limits(least=0)]
    """How many of the bank's tasks these are."""
    at_once: Count = 1
    """Pictures in its pass: rounding differs where it is not 1."""
    version: str
    """Of perdure."""
    environment: str
    """Libraries and precision: with others, rounding may differ."""

    @property
    def phrases(self) -> tuple[str, ...]:
        """Those of its boxes."""
        return tuple(read_region(text).phrase for text in self.boxes)

    @property
    def parameters(self) -> str:
        """The same as a text that viewers of pictures know (AUTOMATIC1111's infotext)."""
        width, height = self.size
        named: dict[str, object] = {
            "Steps": self.steps,
            "Sampler": self.sampler,
            "CFG scale": f"{self.guidance:g}",
            "Seed": self.seed,
            "Size": f"{width}x{height}",
            "Model hash": self.base_hash[:10],
            "Model": self.base,
        }
        if self.strength is not None:
            named["Denoising strength"] = f"{self.strength:g}"
        named |= {
            "Bank": f"{self.method} {self.bank[:10]}",
            "Version": f"perdure {self.version}",
        }
        lines = [self.prompt]
        if self.negative:
            lines.append(f"Negative prompt: {self.negative}")
        lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in named.items()))
        return "\n".join(lines).encode(errors="replace").decode()


def with_facts(picture: Image.Image, facts: Facts) -> Image.Image:
    """The picture, which now knows them: in its `info`, as one that was read from a PNG."""
    picture.info[_PARAMETERS] = facts.parameters
    picture.info[_OURS] = json.dumps({"format": _FORMAT, **facts.to_json()})
    return picture


def facts_of(picture: Image.Image) -> Facts | None:
    """What a picture says of itself, drawn or opened; None where it says nothing.

    Raises ValueError or PerdureError for facts that are broken, or of a newer perdure.
    """
    text = picture.info.get(_OURS)
    if text is None:
        return None
    said = json.loads(text)
    if not isinstance(said, Mapping) or said.get("format") != _FORMAT:
        raise ValueError("they are of another version of perdure")
    known = {field.name for field in fields(Facts)}
    given: dict[str, Any] = {name: value for name, value in said.items() if name in known}
    if lacking := sorted({"prompt", "seed", "base_hash", "bank"} - given.keys()):
        raise ValueError(f"{lacking[0]} is missing")
    return Facts.of(given)


def read_facts(path: Path | str) -> Facts:
    """How the picture in a PNG was drawn.

    Raises PerdureError where there is no such picture, or it does not say.
    """
    path = Path(path).expanduser()
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.load()  # texts may stand behind the pixels
            found = facts_of(picture)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise PerdureError(f"There is no picture {path}: give a PNG.") from error
    except (ValueError, TypeError, PerdureError) as error:
        raise PerdureError(
            f"What {path} says of how it was drawn cannot be read ({error}): take another copy of "
            "it."
        ) from error
    except (OSError, SyntaxError) as error:
        raise PerdureError(
            f"{path} is no PNG that can be read: only PNGs say how they were drawn."
        ) from error
    if found is None:
        raise PerdureError(
            f"{path} does not say how it was drawn: only PNGs do that perdure wrote, and that no "
            "other program saved anew."
        )
    return found


def save_picture(picture: Image.Image, path: Path | str, *, scale: int = 1) -> None:
    """Write a picture as a PNG with what it knows, enlarged so many times, pixel by pixel.

    Raises PerdureError where a file is there already.
    """
    facts = facts_of(picture)
    texts = PngInfo()
    if facts is not None:
        known = with_facts(Image.new("1", (1, 1)), replace(facts, scale=scale * facts.scale)).info
        for name in (_PARAMETERS, _OURS):
            texts.add_text(name, known[name])
    try:
        with Path(path).open("xb") as file:
            enlarged(picture, scale).save(file, "PNG", pnginfo=texts)
    except FileExistsError as error:
        raise PerdureError(f"{path} is there already: choose another name.") from error
    except OSError as error:
        raise PerdureError(
            f"{path} cannot be written ({error.strerror or error}): choose another folder."
        ) from error


def _quoted(value: object) -> str:
    """A value, in quotes where it holds what parts one from the next."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text
