"""FL2T and CIDM on the same adapters: one FL2T bank, drawn with three ways to weigh its concepts.

    perdure bench people-5-tuning --method fl2t --vary method.rank=8 --pictures 2 --pairs 0
    python perf/same_adapters.py runs/people-5-tuning/fl2t-method.rank=8-seed0

Rank, layers, tokens and adapters are the bank's: what differs is how a prompt weighs them. `alone`
is the concept's own adapter (lora-independent's rule), `fl2t` the bank's module, `cidm` the
released code's form of elastic weight aggregation. CIDM's own training, R1 and R2, has no part in
it. The intervals are over concepts alone: a bank is one seed.
"""

import sys
from pathlib import Path
from statistics import fmean

from perdure.bank import Bank
from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.photos import read_pictures
from perdure.measuring.features import MetricEncoder
from perdure.measuring.intervals import bootstrap_interval
from perdure.measuring.prompts import PLAIN
from perdure.measuring.scores import image_alignment, mmd
from perdure.measuring.settings import AT_ONCE
from perdure.methods import build
from perdure.methods.protocol import Method

PICTURES = 16


def main() -> None:
    work = Path(sys.argv[1])
    base, bank = Base.open("smallworld"), Bank.open(work / "bank")
    encoder = MetricEncoder.of(base)
    ways: dict[str, Method] = {
        "alone": build("lora-independent"),
        "fl2t": build("fl2t", **bank.config),
        "cidm": build("cidm", layerwise_tokens=False),
    }
    found: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    for name in bank.concepts:
        pixels = read_pictures(work / "photos" / name, size=base.size).tensor
        shown = ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        who, general = encoder.identities(shown), encoder.pictures(shown)
        for way, method in ways.items():
            painter = Painter(base, bank)
            painter.method = method
            prompts, seeds = [PLAIN.format(f"<{name}>")] * PICTURES, range(1000, 1000 + PICTURES)
            drawn = painter.draw(prompts, seeds=seeds, batch_size=AT_ONCE)
            features = encoder.pictures(drawn)
            for score, value in {
                "identity": image_alignment(encoder.identities(drawn), who),
                "image alignment": image_alignment(features, general),
                "A_mmd x 1000": 1000 * mmd(features, general),
            }.items():
                found[way].setdefault(score, []).append(value)
    for way, scores in found.items():
        print(way, {score: round(fmean(values), 3) for score, values in scores.items()})
    for one, other in (("fl2t", "cidm"), ("fl2t", "alone"), ("cidm", "alone")):
        for score, values in found[one].items():
            apart = [a - b for a, b in zip(values, found[other][score], strict=True)]
            interval = bootstrap_interval([apart], crossed=True) or (0.0, 0.0)
            low, high = interval
            print(f"{one} less {other}, {score}: {fmean(apart):.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
