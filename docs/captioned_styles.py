"""What captions do for a style: does it keep to the prompt, and does it come with other subjects?

    python docs/captioned_styles.py --styles 3

Unnamed styles of smallworld's tuning split are each learned from eight pictures of different
subjects, without captions (`a photo of a thing in <ink> style`) and with captions that say what
each picture shows (`a photo of a dog in <ink> style, in the snow`). Drawn afterwards are

- the prompts of the benchmarks: image alignment with the eight pictures (`a photo of a thing in
  <ink> style`), text alignment over the six contexts;
- other subjects, `a photo of a dog in <ink> style`: image alignment with drawn dogs of other
  identities in that style. The floor is what the untouched base draws of `a photo of a dog`, the
  ceiling are dogs of yet other identities in that style.

One line of JSON for each style and way; those that are in the file already are not learned again.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn, resume
from perdure.learning.request import interrupted
from perdure.measuring.features import MetricEncoder
from perdure.measuring.prompts import CONTEXTS, PLAIN
from perdure.measuring.scores import image_alignment, text_alignment
from perdure.smallworld.captions import prompt
from perdure.smallworld.samples import write_style
from perdure.smallworld.unnamed import in_style, style_scenes
from perdure.smallworld.vocabulary import Context
from perdure.smallworld.world import SPLITS, identity, render

PHRASE = "a thing in {} style"
WAYS = {
    "no captions": {"captions": False},
    "captions": {"caption_dropout": 0.0},
    "captions, lr 0.0025": {"caption_dropout": 0.0, "lr": 0.0025},
}
OTHERS = (("pet", "dog"), ("pet", "cat"), ("person", "person"), ("place", "castle"))
EACH = 4


def write_captioned(folder: Path, style: int) -> list[Path]:
    """Eight pictures of a style, each with what its scene is in words beside it."""
    files = write_style(folder, style=style, split="tuning")
    for file, scene in zip(files, style_scenes(style, len(files), "tuning"), strict=True):
        words = f"a {scene.identities[0].noun} in [trigger] style"
        file.with_suffix(".txt").write_text(prompt(words, scene.context))
    return files


def subjects(domain: str, noun: str, style: int, first: int) -> list[Image.Image]:
    """EACH drawn subjects of a noun in a style; none that was learned."""
    found = []
    for seed in range(SPLITS["held-out"].start + first, SPLITS["held-out"].stop):
        one = identity(domain, seed)
        if one.noun == noun:
            context = Context(background="meadow", accessory="none", expression="neutral")
            found.append(Image.fromarray(in_style(render(one, context, seed), style)))
        if len(found) == EACH:
            return found
    raise ValueError(f"no {noun}")


def carried(
    encoder: MetricEncoder,
    drawn: Sequence[Image.Image],
    noun: str,
    references: Sequence[Image.Image],
) -> dict[str, float]:
    seen = encoder.pictures(drawn)
    return {
        "image": image_alignment(seen, encoder.pictures(references)),
        "text": text_alignment(seen, encoder.texts([f"a photo of a {noun}"])),
    }


def limits(encoder: MetricEncoder, style: int) -> tuple[float, float]:
    """Text alignment of 64 scenes with their own words, as photos and in the style: what the metric
    encoder leaves of words in pictures that are in the style and show all that is said."""
    scenes = style_scenes(style, 64, "tuning")
    words = [prompt(f"a {scene.identities[0].noun}", scene.context) for scene in scenes]
    told, photos = encoder.texts(words), [scene.render() for scene in scenes]
    shown = (
        [Image.fromarray(p) for p in photos],
        [Image.fromarray(in_style(p, style)) for p in photos],
    )
    plain, styled = (text_alignment(encoder.pictures(pictures), told) for pictures in shown)
    return plain, styled


def measured(base: Base, encoder: MetricEncoder, style: int, bank: Path, files: list[Path]) -> dict:
    painter = Painter(base, bank)
    spoken = PHRASE.format("<ink>")
    seeds = list(range(8))
    plain = painter.draw([PLAIN.format(spoken)] * 8, seeds=seeds, batch_size=8)
    real = encoder.pictures([Image.open(file).convert("RGB") for file in files])
    shown = painter.draw(
        [text.format(spoken) for text in CONTEXTS] * 2, seeds=range(2 * len(CONTEXTS)), batch_size=6
    )
    words = encoder.texts([text.format("a thing") for text in CONTEXTS] * 2)
    found = {
        "image_alignment": image_alignment(encoder.pictures(plain), real),
        "text_alignment": text_alignment(encoder.pictures(shown), words),
    }
    untouched = Painter(base, bank, upto=0)
    for domain, noun in OTHERS:
        references = subjects(domain, noun, style, 0)
        told = [f"a photo of a {noun} in <ink> style"] * EACH
        own = painter.draw(told, seeds=range(EACH), batch_size=EACH)
        without = untouched.draw([f"a photo of a {noun}"] * EACH, seeds=range(EACH))
        more = subjects(domain, noun, style, 2000)
        found[noun] = {
            "own": carried(encoder, own, noun, references),
            "floor": carried(encoder, without, noun, references),
            "ceiling": carried(encoder, more, noun, references),
        }
    return found


def table(rows: list[dict]) -> str:
    """Means over the styles, with the deviation between styles."""

    def spread(values: list[float]) -> str:
        deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.2f}{deviation}"

    def way_up(row: dict) -> float:
        """From floor to ceiling, over the other subjects."""
        own, floor, ceiling = (
            statistics.mean(row[noun][which]["image"] for _, noun in OTHERS)
            for which in ("own", "floor", "ceiling")
        )
        return (own - floor) / (ceiling - floor)

    lines = [
        "| way | image alignment | text alignment | other subjects: way from floor to ceiling | "
        "other subjects: text alignment (floor) |",
        "|---|---:|---:|---:|---:|",
    ]
    for way in WAYS:
        own = [row for row in rows if row["way"] == way]
        if not own:
            continue
        text, floor = (
            [statistics.mean(row[noun][which]["text"] for _, noun in OTHERS) for row in own]
            for which in ("own", "floor")
        )
        cells = [
            spread([row["image_alignment"] for row in own]),
            spread([row["text_alignment"] for row in own]),
            spread([way_up(row) for row in own]),
            f"{spread(text)} ({statistics.mean(floor):.2f})",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--styles", type=int, default=3, help="how many styles")
    parser.add_argument("--out", type=Path, default=Path("docs/data/captioned-styles.jsonl"))
    parser.add_argument("--work", type=Path, default=Path("captioned-styles"))
    asked = parser.parse_args()
    rows = (
        [json.loads(line) for line in asked.out.read_text().splitlines()]
        if (asked.out.exists())
        else []
    )
    base = Base.open("smallworld")
    encoder = MetricEncoder.of(base)
    for number in range(asked.styles):
        style = SPLITS["tuning"].start + number
        files = write_captioned(asked.work / "pictures" / str(style), style)
        for way, settings in WAYS.items():
            if any((row["style"], row["way"]) == (style, way) for row in rows):
                continue
            bank = asked.work / f"{style} {way}"
            if not (bank / "bank.json").exists():
                template = PLAIN.format(PHRASE)
                learn(base, bank, {"ink": files}, templates=(template,), seed=number, **settings)
            elif interrupted(Bank.open(bank)):
                resume(base, bank)
            row = {"style": style, "way": way, **measured(base, encoder, style, bank, files)}
            rows.append(row)
            with asked.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(table(rows), flush=True)
    print(table(rows))
    for number in range(asked.styles):
        style = SPLITS["tuning"].start + number
        plain, styled = limits(encoder, style)
        print(f"scenes of style {style}: text alignment {plain:.2f} as photos, {styled:.2f} in it")


if __name__ == "__main__":
    main()
