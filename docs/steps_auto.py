"""What `--steps auto` saves on tuning people, and whether they are learned as well.

    python docs/steps_auto.py --people 3

Each of smallworld's tuning people is learned with the base's own number of steps, with `auto` and
with four times as many steps as the base advises; drawn are sixteen pictures of `a photo of <who>`.
One line of JSON a person and way; those that are in the file already are not learned again, and a
learn that was cut short is gone on with.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from PIL import Image

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.advice import advised, make_settings
from perdure.learning.learn import learn, resume
from perdure.learning.request import interrupted
from perdure.measuring.features import MetricEncoder
from perdure.measuring.prompts import CONTEXTS, PLAIN
from perdure.measuring.scores import image_alignment, text_alignment
from perdure.smallworld.samples import write_pictures
from perdure.smallworld.world import SPLITS, identity

PICTURES = 16
SCORES = ("steps", "seconds", "image_alignment", "identity", "text_alignment")


def measured(base: Base, encoder: MetricEncoder, bank: Path, files: list[Path], noun: str) -> dict:
    painter = Painter(base, bank)
    real = [Image.open(file).convert("RGB") for file in files]
    plain = painter.draw([PLAIN.format("<who>")] * PICTURES, seeds=range(PICTURES), batch_size=8)
    told = [text.format("<who>") for text in CONTEXTS]
    shown = painter.draw(told, seeds=range(len(told)), batch_size=6)
    words = encoder.texts([text.format(f"a {noun}") for text in CONTEXTS])
    facts = Bank.open(bank).tasks[0].facts
    return {
        "steps": facts.get("steps") or facts["settings"]["steps"],
        "seconds": facts["seconds"],
        "image_alignment": image_alignment(encoder.pictures(plain), encoder.pictures(real)),
        "identity": image_alignment(encoder.identities(plain), encoder.identities(real)),
        "text_alignment": text_alignment(encoder.pictures(shown), words),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Means over people with the deviation between them."""
    lines = ["| steps asked for | " + " | ".join(SCORES) + " |", "|---" + "|---:" * 5 + "|"]
    for way in dict.fromkeys(row["way"] for row in rows):
        cells = []
        for score in SCORES:
            values = [row[score] for row in rows if row["way"] == way]
            digits = 0 if score in ("steps", "seconds") else 3
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=3, help="how many people")
    parser.add_argument("--method", default="gated")
    parser.add_argument("--out", type=Path, default=Path("docs/data/steps-auto.jsonl"))
    parser.add_argument("--work", type=Path, default=Path("steps-auto"))
    asked = parser.parse_args()
    rows = []
    if asked.out.exists():
        rows = [json.loads(line) for line in asked.out.read_text().splitlines()]
    base = Base.open("smallworld")
    encoder = MetricEncoder.of(base)
    usual = make_settings(advised(base.hints, asked.method), {}).steps
    assert usual is not None
    for number in range(asked.people):
        seed = SPLITS["tuning"].start + number
        folder = asked.work / "pictures" / str(seed)
        files = write_pictures(folder, domain="person", identity=seed)
        for way, steps in {"auto": "auto", str(usual): usual, str(4 * usual): 4 * usual}.items():
            if any((row["person"], row["way"]) == (seed, way) for row in rows):
                continue
            bank = asked.work / f"{seed} {way}"
            if not (bank / "bank.json").exists():
                learn(base, bank, {"who": files}, method=asked.method, seed=number, steps=steps)
            elif interrupted(Bank.open(bank)):
                resume(base, bank)
            found = measured(base, encoder, bank, files, identity("person", seed).noun)
            rows.append({"person": seed, "way": way, **found})
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            with asked.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(table(rows), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
