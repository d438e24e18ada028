"""Does a metric encoder rank drawings as somebody did who looked at them?

    python docs/judged.py
    python docs/judged.py --encoder smallworld-eyes

`docs/data/judged-pairs` holds 112 pairs of drawings of twelve identities, three of each kind: drawn
by `gated` after 200 steps, after 40, or of another identity of the kind. Of each pair it says which
drawing was seen to be more like the references, or null where neither was. The encoder's choice is
the drawing whose identity features (or image embeddings) have the higher mean cosine with those of
the eight references. `again` in the file is a second look: the pairs in another order, their sides
swapped at random, without a look at the first.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perdure.measuring.features import MetricEncoder
from perdure.measuring.scores import image_alignment, reach

DATA = Path(__file__).parent / "data" / "judged-pairs"
OWN = Path(__file__).parents[1] / "src" / "perdure" / "smallworld" / "weights" / "encoder"
KINDS = ("person", "pet", "place", "object")
SIDE = 64


def rows(name: str) -> Tensor:
    """The pictures of a sheet, uint8 (rows, columns, 64, 64, 3)."""
    sheet = np.asarray(Image.open(DATA / name).convert("RGB"))
    height, width = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    cut = sheet.reshape(height, SIDE, width, SIDE, 3).swapaxes(1, 2)
    return torch.from_numpy(np.ascontiguousarray(cut))


def agreement(features: Callable[[Tensor], Tensor], pairs: list[dict]) -> dict[str, list[int]]:
    """Kind, and way in which the two differ -> pairs that are ranked as seen, and pairs."""
    real, drawn = (
        torch.stack([features(row) for row in rows(name)])
        for name in ("references.webp", "drawn.webp")
    )
    found: dict[str, list[int]] = {}
    for pair in pairs:
        if pair["seen"] is None:
            continue
        kind = 3 * KINDS.index(pair["kind"])
        likeness = {}
        for side in ("left", "right"):
            one = pair[side]
            row = 2 * (kind + one["who"]) + (one["steps"] == 200)
            likeness[side] = float(
                (drawn[row, one["seed"]] @ real[kind + pair["reference"]].T).mean()
            )
        right = max(likeness, key=lambda side: likeness[side]) == pair["seen"]
        for group in (pair["kind"], pair["way"], "all"):
            count = found.setdefault(group, [0, 0])
            count[0] += right
            count[1] += 1
    return found


def reached(features: Callable[[Tensor], Tensor]) -> dict[str, list[float]]:
    """Kind -> of each identity, how far its drawings after 200 steps are from the floor (references
    of the kind's other two: 0) to the ceiling (its own with each other: 1)."""
    real, drawn = (
        [features(row) for row in rows(name)] for name in ("references.webp", "drawn.webp")
    )
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number, own in enumerate(real):
        first = 3 * (number // 3)
        others = torch.cat([real[k] for k in range(first, first + 3) if k != number])
        found[KINDS[number // 3]].append(
            reach(
                float((drawn[2 * number + 1] @ own.T).mean()),
                floor=float((others @ own.T).mean()),
                ceiling=image_alignment(own, own, distinct=True),
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default=str(OWN), help="as of `perdure evaluate`")
    encoder = MetricEncoder.open(parser.parse_args().encoder)
    pairs = json.loads((DATA / "pairs.json").read_text())
    twice = [pair for pair in pairs if pair["seen"] and pair["again"]]
    same = [pair for pair in twice if pair["seen"] == pair["again"]]
    print(f"the second look agrees with the first in {len(same)} of {len(twice)}")
    for name, features in (("identity", encoder.identities), ("embedding", encoder.pictures)):
        found = agreement(features, pairs)
        parts = [f"{group} {right} of {count}" for group, (right, count) in found.items()]
        right, count = found["all"]
        error = math.sqrt(right * (count - right) / count**3)
        print(f"{encoder.name}, {name}: {right / count:.2f} ± {error:.2f}; " + ", ".join(parts))
        right, count = agreement(features, same)["all"]
        print(f"  where both looks agree: {right} of {count}")
        far = {kind: [round(one, 2) for one in all_] for kind, all_ in reached(features).items()}
        print(f"  from floor to ceiling: {far}")


if __name__ == "__main__":
    main()
