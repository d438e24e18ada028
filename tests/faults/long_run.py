"""A hundred learns and a thousand draws in one process: memory and open files, and a plot of them.

python tests/faults/long_run.py --learns 100 --draws 1000 --plot docs/long-run.svg
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from conftest import make_drawings, make_pipeline

from perdure.drawing.painter import Painter
from perdure.hosts.diffusion.host import Base
from perdure.learning.learn import learn

__all__ = ["open_files", "resident", "run"]

WARM = 0.2
"""The share of a run after which it has everything that it needs."""


def run(folder: Path, *, method: str, learns: int, draws: int) -> list[dict[str, int]]:
    """What the process holds after every learn, and every twentieth of the draws."""
    torch.set_num_threads(1)
    base = Base.open(make_pipeline(folder / "tiny"), device="cpu")
    drawings = make_drawings(folder / "drawings")
    held = []

    def note(what: str, done: int) -> None:
        gc.collect()
        held.append({"what": what, "done": done, "bytes": resident(), "files": open_files()})

    for number in range(learns):
        source = {f"c{number}": drawings / "ada"}
        learn(base, folder / "bank", source, method=method, options={"rank": 2}, steps=2)
        note("learns", number + 1)
    for number in range(draws):
        name = f"c{number % learns}"
        Painter(base, folder / "bank").draw([f"a photo of <{name}>"], seeds=[number], steps=1)
        if (number + 1) % max(1, draws // 20) == 0:
            note("draws", number + 1)
    return held


def resident() -> int:
    """Bytes of memory that the process has now."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def growth(held: Sequence[dict[str, int]], what: str) -> float:
    """Bytes a turn, by least squares over what comes after the run is warm."""
    rows = [row for row in held if row["what"] == what]
    rows = [row for row in rows if row["done"] > WARM * rows[-1]["done"]]
    x = torch.tensor([float(row["done"]) for row in rows])
    y = torch.tensor([float(row["bytes"]) for row in rows])
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def plot(held: Sequence[dict[str, int]]) -> str:
    """The bytes over the whole run as SVG; a dashed line parts learns and draws."""
    width, height, top = 640, 220, max(row["bytes"] for row in held)
    across, up = (width - 50) / (len(held) - 1), 160 / top
    points = " ".join(
        f"{40 + across * k:.1f},{height - 30 - up * row['bytes']:.1f}" for k, row in enumerate(held)
    )
    turn = sum(row["what"] == "learns" for row in held)
    x = 40 + (width - 50) * turn / len(held)
    last = [next(r["done"] for r in held[::-1] if r["what"] == w) for w in ("learns", "draws")]
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
font-family="sans-serif" font-size="12" fill="#555">
<rect width="{width}" height="{height}" fill="#fff"/>
<line x1="40" x2="{width - 10}" y1="{height - 30}" y2="{height - 30}" stroke="#bbb"/>
<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{height - 30}" stroke="#bbb" stroke-dasharray="4 4"/>
<text x="40" y="14">resident memory, at most {top / 2**20:.0f} MiB; zero is the line below</text>
<text x="{(40 + x) / 2:.0f}" y="{height - 10}" text-anchor="middle">{last[0]} learns</text>
<text x="{(x + width) / 2:.0f}" y="{height - 10}" text-anchor="middle">{last[1]} draws</text>
<polyline points="{points}" fill="none" stroke="#2f6f8f" stroke-width="1.5"/>
</svg>
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", default="gated")
    parser.add_argument("--learns", type=int, default=100)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        held = run(Path(folder), method=asked.method, learns=asked.learns, draws=asked.draws)
    for what in ("learns", "draws"):
        of = [row for row in held if row["what"] == what]
        print(
            f"{what}: {of[0]['bytes'] / 2**20:.1f} MiB after the first, "
            f"{of[-1]['bytes'] / 2**20:.1f} after the last, {growth(held, what) / 2**10:.2f} KiB "
            f"each; open files {of[0]['files']} and {of[-1]['files']}, "
            f"at most {max(row['files'] for row in of)}"
        )
    if asked.plot:
        asked.plot.write_text(plot(held))
    if asked.out:
        asked.out.write_text(json.dumps(held))


if __name__ == "__main__":
    main()
