"""Try many inputs, print what became of them, and keep what should not have ended so.

cd tests && python -m fuzz [--inputs 20000] [--seed 0] [--jobs 2] [--keep FOLDER] [--number N]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

from fuzz.judge import FAULTS
from fuzz.many import Ended, try_many, work

OUTCOMES = ("answered", "refused", *FAULTS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same inputs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--keep", type=Path, help="folder for the files of what failed")
    parser.add_argument("--number", type=int, help="try this one input")
    parser.add_argument("--range", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run, print, and return 1 where an input ended as none may."""
    asked, start = _arguments(), time.monotonic()
    if asked.number is not None:
        asked.range = (asked.number, asked.number + 1)
    if asked.range is not None:
        work(asked.seed, *asked.range, asked.keep)
        return 0
    ended = list(try_many(asked.inputs, asked.seed, asked.jobs, asked.keep))
    faults = [one for one in ended if one.outcome in FAULTS]
    _print_table(ended)
    for one in faults[:200]:
        print(f"\n{one.number} {one.kind}: {one.outcome}: {one.what[:300]!r}\n    {one.message[:1200]!r}")
    print(f"\n{len(ended)} inputs, seed {asked.seed}, {time.monotonic() - start:.0f} s, {len(faults)} faults")
    return int(bool(faults))


def _print_table(ended: list[Ended]) -> None:
    counts = Counter((one.kind, one.outcome) for one in ended)
    print(f"{'':24}" + "".join(f"{outcome:>11}" for outcome in OUTCOMES))
    for kind in sorted({one.kind for one in ended}):
        print(f"{kind:24}" + "".join(f"{counts[kind, outcome]:11}" for outcome in OUTCOMES))
    totals = Counter(one.outcome for one in ended)
    print(f"{'all':24}" + "".join(f"{totals[outcome]:11}" for outcome in OUTCOMES))


if __name__ == "__main__":
    sys.exit(main())
