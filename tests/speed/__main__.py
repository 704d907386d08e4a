"""Measure this tree, alone or beside a saved measurement or another tree: see `--help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from speed.figures import FIGURES, NotHereError, chosen

ROOT = Path(__file__).parents[2]
SCHEMA = "draftplan/speed/1"
PACKAGES = ("numpy", "scipy", "pandas", "pyarrow", "numba", "dask")


def main() -> int:
    """Print a table of the figures; 0 unless the other measurement cannot be read."""
    asked = argparse.ArgumentParser(prog="python -m speed", description=__doc__)
    asked.add_argument("names", nargs="*", help="figures whose names begin so; all where none is named")
    asked.add_argument("--output", help="JSON file for machine, versions and figures")
    asked.add_argument(
        "--beside", type=Path,
        help="a saved JSON, or the folder of another version, which is measured in alternation with this one",
    )  # fmt: skip
    asked.add_argument("--repeats", type=int, default=3, help="runs of each, of which the best counts")
    flags = asked.parse_args()
    other, saved = flags.beside, {}
    if other is not None and other.is_file():
        saved = json.loads(other.read_text())["figures"]
    elif other is not None and not (other / "perfmodel").is_dir():
        print(f"{other} is neither a saved measurement nor a tree with perfmodel in it", file=sys.stderr)
        return 1
    figures: dict[str, Any] = {}
    print(f"| figure | unit |{' before |' * bool(other)} now |{' times as good |' * bool(other)}")
    print("|---|---|" + "---|" * (3 if other else 1))
    for name in chosen(flags.names):
        before = [saved[name]["value"]] if name in saved else []
        now: list[float] = []
        reason = ""
        for _ in range(flags.repeats):
            if other is not None and other.is_dir():
                before += measured(name, other)[0]
            values, reason = measured(name, ROOT)
            now += values
        report(name, before, now, reason, bool(other))
        if now:
            figure = FIGURES[name]
            figures[name] = {"value": best(name, now), "unit": figure.unit, "least": figure.least}
    if flags.output:
        Path(flags.output).write_text(json.dumps({**about(), "figures": figures}, indent=1) + "\n")
    return 0


def measured(name: str, tree: Path) -> tuple[list[float], str]:
    """Measure one figure of a tree; no value and the reason where it has none."""
    try:
        return [FIGURES[name].measure(tree.resolve())], ""
    except NotHereError as reason:
        return [], str(reason).splitlines()[-1][:80]


def best(name: str, values: list[float]) -> float:
    """The best of several runs: the least disturbed."""
    return min(values) if FIGURES[name].least else max(values)


def report(name: str, before: list[float], now: list[float], reason: str, beside: bool) -> None:
    """Print the row of one figure."""
    old, new = (f"{best(name, values):.3g}" if values else "-" for values in (before, now))
    ratio = "-"
    if before and now:
        better = best(name, now) / best(name, before)
        ratio = f"{1.0 / better if FIGURES[name].least else better:.2f}"
    cells = [name, FIGURES[name].unit, old, new, ratio] if beside else [name, FIGURES[name].unit, new]
    print(f"| {' | '.join(cells)} |" + (f" {reason}" if reason else ""), flush=True)


def about() -> dict[str, Any]:
    """What was measured, on what, and when."""
    ask = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(ask, capture_output=True, text=True, check=False)
    return {
        "schema": SCHEMA,
        "commit": commit.stdout.strip(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}},
    }


def processor() -> str:
    """The name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def installed(package: str) -> str:
    """Its version, empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
