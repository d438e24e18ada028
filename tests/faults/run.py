"""`make faults`: interrupt every verb, over methods and kinds of token, and count what was lost.

    python tests/faults/run.py --instants 300 --seconds 3600 --out faults.json

Kills fall at random instants; then every file operation in turn fails, where the C compiler that
this needs is there. What it prints last is the table of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).parent
VERBS = ("learn", "remove", "export", "evaluate", "bench", "classify")


def main() -> int:
    asked = _options()
    if "LD_PRELOAD" not in os.environ and (library := _built()):
        environment = {**os.environ, "LD_PRELOAD": str(library)}
        try:
            return subprocess.run([sys.executable, *sys.argv], env=environment).returncode
        finally:
            shutil.rmtree(library.parent, ignore_errors=True)
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    from scenes import World, scenes
    from trials import FAILURES, Stage

    from perdure.cli import _quiet
    from perdure.methods import METHODS

    _quiet()
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    began, rng = time.monotonic(), random.Random(asked.seed)
    trials, operations = [], Counter[str]()

    def left() -> float:
        return asked.seconds - (time.monotonic() - began)

    def told(trial: object) -> None:
        trials.append(trial)
        if trial.fault:
            print(f"FAULT {trial.scene}: {trial.how}: {trial.fault}", flush=True)

    try:
        world = World(work / "world")
        methods = asked.methods.split(",") if asked.methods else list(METHODS)
        every = list(scenes(world, asked.verbs.split(","), methods, asked.tokens.split(",")))
        rng.shuffle(every)
        each = -(-asked.instants // len(every))
        for number, scene in enumerate(every):
            if left() < 0:
                break
            try:
                stage = Stage(scene, work / "stage")
            except Exception as error:
                print(f"skipped {scene.name}: {str(error).splitlines()[-1]}", flush=True)
                shutil.rmtree(work / "stage", ignore_errors=True)
                continue
            for _ in range(each):
                told(stage.killed(rng))
            if "LD_PRELOAD" in os.environ and asked.operations:
                for name, failure in FAILURES.items():
                    count = stage.operations(failure.kinds)
                    operations[scene.name.split()[0]] = max(
                        operations[scene.name.split()[0]], count
                    )
                    places = range(count)
                    if count > asked.operations:
                        places = sorted(rng.sample(places, asked.operations))
                    for k in places:
                        if left() > 0:
                            told(stage.failed(k, name))
            stage.close()
            print(f"{number + 1} of {len(every)}: {scene.name}, {len(trials)} trials", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _report(trials, operations, time.monotonic() - began)
    if asked.out:
        Path(asked.out).write_text(json.dumps([asdict(trial) for trial in trials], indent=1))
    return 1 if any(trial.fault for trial in trials) or not trials else 0


def _report(trials: list, operations: Counter[str], seconds: float) -> None:
    """The table, and how long it took."""
    print("\n| verb | interruption | trials | old state | new state | refused | faults |")
    print("|---|---|---|---|---|---|---|")
    kinds = sorted({(t.scene.split()[0], t.how.split(" at ")[0]) for t in trials})
    for verb, how in kinds:
        of = [t for t in trials if (t.scene.split()[0], t.how.split(" at ")[0]) == (verb, how)]
        new = sum(t.new for t in of)
        print(
            f"| {verb} | {how} | {len(of)} | {len(of) - new} | {new} "
            f"| {sum(t.ended == 'refused' for t in of)} | {sum(bool(t.fault) for t in of)} |"
        )
    kills = sum(t.how.startswith("SIGKILL at any") and t.ended == "killed" for t in trials)
    print(
        f"\n{len(trials)} trials in {seconds:.0f} s over {len({t.scene for t in trials})} scenes, "
        f"{kills} of them killed under way; {sum(bool(t.fault) for t in trials)} faults. "
        f"File operations of one act: {dict(operations)}"
    )


def _built() -> Path | None:
    """The library that makes operations fail; None where there is no compiler for it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    library = Path(tempfile.mkdtemp(prefix="faults-shim-")) / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", str(HERE / "shim.c"), "-o", str(library)]
    return library if subprocess.run([*command, "-ldl"]).returncode == 0 else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--instants", type=int, default=300, help="of SIGKILL, over all scenes")
    parser.add_argument("--operations", type=int, default=10**6, help="most that fail, a scene")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--verbs", default=",".join(VERBS))
    parser.add_argument("--tokens", default="word,state")
    parser.add_argument("--methods", default="", help="names with commas; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
