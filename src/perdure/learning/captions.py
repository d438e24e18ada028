"""Captions: `rex.txt` beside `rex.jpg` says what else is in the picture.

What a caption names is learned by those words and not by the concept's token; so captions tell the
circumstances, and what belongs to the concept is left out of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from perdure.errors import PerdureError

__all__ = ["MAX_WORDS", "caption_of", "check_captions", "named_throughout", "read_captions"]

MAX_WORDS = 400
_PLACES = ("{}", "[trigger]")
"""What stands for the concept in a caption, beside its token; the second as other trainers do."""
_ORDINARY = frozenset(
    re.findall(
        r"\w+",
        """a an and are art at background behind by close closeup drawing for front from full her
        his in inside into is it its near next of on one over painting photo photograph picture
        portrait shot side sitting standing that the their there this to two under up view with""",
    )
)
"""Words that many captions share and that name nothing of a concept."""


def caption_of(text: str, concept: str, template: str = "a photo of {}") -> str:
    """``text`` as a prompt with one `{}` for the concept, other brackets taken out.

    The concept stands where `{}`, `[trigger]` or its token (`<rex>`) does, each further time as
    "it"; a text without any is the context, and follows the template.

    >>> caption_of("[trigger] asleep on a sofa", "rex")
    '{} asleep on a sofa'
    >>> caption_of("asleep on a sofa", "rex")
    'a photo of {}, asleep on a sofa'
    """
    words = " ".join(text.split())
    places = re.compile("|".join(re.escape(place) for place in (*_PLACES, f"<{concept}>")))
    parts = [re.sub("[{}<>]", "", part) for part in places.split(words)]
    if len(parts) == 1:
        return f"{template}, {parts[0]}"
    return parts[0] + "{}" + "it".join(parts[1:])


def read_captions(
    pictures: Sequence[Path], concept: str, template: str = "a photo of {}"
) -> tuple[str | None, ...]:
    """The caption of each picture file, as of `caption_of`; None where it has none.

    Raises PerdureError for a caption that is empty, no UTF-8 text or of more than `MAX_WORDS`
    words, or that may be of two pictures.
    """
    texts = {picture.with_suffix(".txt"): picture for picture in pictures}
    if len(texts) < len(set(pictures)):
        found = sorted(pictures)
        twins = next(
            (a, b)
            for a, b in zip(found, found[1:], strict=False)
            if a.with_suffix("") == b.with_suffix("")
        )
        if twins[0].with_suffix(".txt").exists():
            raise PerdureError(
                f"{twins[0].with_suffix('.txt')} may be the caption of {twins[0].name} or of "
                f"{twins[1].name}: give one of them another name."
            )
    return tuple(_read(picture.with_suffix(".txt"), concept, template) for picture in pictures)


def check_captions(folder: Path) -> None:
    """PerdureError where a text lies in ``folder`` and no other file has its name."""
    files = [path for path in folder.iterdir() if path.is_file()]
    whole = {path.stem for path in files if path.suffix != ".txt"}
    lost = sorted(path for path in files if path.suffix == ".txt" and path.stem not in whole)
    if lost:
        raise PerdureError(
            f"{lost[0]} has no picture of that name beside it: rename it, or take it away "
            "(--no-captions leaves all captions alone)."
        )


def _read(path: Path, concept: str, template: str) -> str | None:
    try:
        text = path.read_bytes().decode("utf-8-sig").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PerdureError(
            f"{path} cannot be read ({error.strerror}): check that you may read it."
        ) from error
    except UnicodeDecodeError as error:
        raise PerdureError(f"{path} is no text in UTF-8: save it as UTF-8.") from error
    if not text or "\0" in text:
        raise PerdureError(f"{path} holds no caption: write what the picture shows, or delete it.")
    if len(text.split()) > MAX_WORDS:
        raise PerdureError(f"{path} has more than {MAX_WORDS} words: shorten it.")
    return caption_of(text, concept, template)


def named_throughout(captions: Sequence[str | None]) -> tuple[str, ...]:
    """Words that every one of three captions or more holds, and that may be the concept's own.

    Sorted; of ordinary words (articles, "photo", "standing") none.
    """
    told = [set(re.findall(r"[^\W\d_]{3,}", text.lower())) for text in captions if text]
    if len(told) < 3 or len(told) < len(captions):
        return ()
    return tuple(sorted(set.intersection(*told) - _ORDINARY))
