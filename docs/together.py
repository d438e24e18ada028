"""Several concepts of a bank in one picture: the record of `perdure bench`'s last part alone.

    python docs/together.py people-5 --bank runs/people-5/gated-seed0/bank --seed 0

The bank holds what the stream teaches with that seed, or as many of its first concepts as the
groups ask for. Writes STREAM-seedN.json and a sheet of pictures for each kind of group, a row an
arrangement, into --out, and prints a line for each.
"""

import argparse
import json
from pathlib import Path

import torch

from perdure.bank import Bank
from perdure.benchmarks.streams import stream
from perdure.benchmarks.together import ARRANGED, together
from perdure.hosts.diffusion.host import Base
from perdure.measuring.features import MetricEncoder
from perdure.sheet import grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stream")
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--photos", type=Path, default=Path("photos"), help="the stream's pictures")
    parser.add_argument("--pairs", type=int, default=4, help="as of `perdure bench`")
    parser.add_argument("--pictures", type=int, default=4, help="of each group")
    parser.add_argument("--seed", type=int, default=0, help="with which the bank was learned")
    parser.add_argument("--encoder", default=None, help="another judge, such as smallworld-eyes")
    parser.add_argument("--out", type=Path, default=Path("docs/data/together"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    base, taught = Base.open("smallworld"), stream(chosen.stream).anew(chosen.seed)
    bank = Bank.open(chosen.bank)
    encoder = MetricEncoder.open(chosen.encoder) if chosen.encoder else MetricEncoder.of(base)
    told, sheets = together(
        base,
        bank,
        encoder,
        taught,
        taught.sources(chosen.photos),
        count=chosen.pairs,
        pictures=chosen.pictures,
    )
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / f"{chosen.stream}-seed{chosen.seed}"
    for company, rows in sheets.items():
        sheet = grid([one for row in rows for one in row], columns=len(rows[0]))
        sheet.save(path.with_name(f"{path.name}-{company}.webp"), quality=92)
    record = {
        "stream": taught.to_json(),
        "method": bank.method,
        "config": bank.config,
        "seed": chosen.seed,
        "base": {"name": base.identity.name, "hash": base.identity.hash},
        "encoder": encoder.facts(),
        "together": told,
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    alone = told["company"]["alone"]
    print(f"{path.name}: alone {sum(alone.values()) / len(alone):.3f}")
    for company, own in told["company"].items():
        for key in ARRANGED:
            if company != "alone" and key in own:
                named = ("all", "likeness", "subject", "setting", "text_alignment")
                parts = [f"{name} {own[key][name]:.3f}" for name in named if name in own[key]]
                print(f"{company}, {key}: {', '.join(parts)} ({own[key]['pictures']} pictures)")
        if company != "alone" and "base_text_alignment" in own:
            print(f"{company}: text alignment of the base {own['base_text_alignment']:.3f}")


if __name__ == "__main__":
    main()
