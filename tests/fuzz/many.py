"""Many inputs on several processes: one that is stuck or killed is replaced, and its input named."""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Ended", "try_many", "work"]

STUCK_S = 60.0
"""A process that no signal reaches for so long is ended, and counts as a hang. [s]"""

_QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "Agg",
    "NO_COLOR": "1",
}


class Ended(NamedTuple):
    """How an input ended."""

    number: int
    kind: str
    what: str
    outcome: str
    message: str


def work(seed: int, first: int, last: int, keep: Path | None) -> None:
    """Try a range of inputs in this process, a line of JSON each; the files of what fails are kept."""
    from fuzz.inputs import try_input

    out, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as root:
        for number in range(first, last):
            faulthandler.dump_traceback_later(STUCK_S, exit=True)
            tried = try_input(seed, number, Path(root) / "one")
            faulthandler.cancel_dump_traceback_later()
            if keep is not None and tried.verdict.is_fault and tried.content is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{tried.kind}-{tried.verdict.outcome}-{number}").write_bytes(tried.content)
            ended = Ended(number, tried.kind, tried.what, *tried.verdict)
            print(json.dumps(ended), file=out, flush=True)


def try_many(inputs: int, seed: int, jobs: int, keep: Path | None = None) -> Iterator[Ended]:
    """Yield how each input ended, worked on in `jobs` processes.

    Parameters
    ----------
    inputs, seed : the inputs of this seed from 0 on.
    keep : folder for the files of what failed.
    """
    share = -(-inputs // (4 * jobs))
    ranges = [(first, min(first + share, inputs)) for first in range(0, inputs, share)]
    with ThreadPoolExecutor(jobs) as threads:
        for ended in threads.map(lambda part: _range(seed, *part, keep), ranges):
            yield from ended


def _range(seed: int, first: int, last: int, keep: Path | None) -> list[Ended]:
    ended: list[Ended] = []
    while first < last:
        command = [
            sys.executable, "-m", "fuzz", "--seed", seed, "--range", first, last,
            *(["--keep", keep] if keep else []),
        ]  # fmt: skip
        run = subprocess.run(
            [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", check=False, cwd=Path(__file__).parents[1], env=_environment(),
        )  # fmt: skip
        rows: list[Any] = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
        ended += [Ended(*row) for row in rows]
        first += len(rows)
        if first < last:
            reason = "hang" if "Timeout" in run.stderr else "traceback"
            ended.append(Ended(first, "process", "ended", reason, run.stderr[-1500:]))
            first += 1
    return ended


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DRAFTPLAN_")}
    return {**kept, **_QUIET, "PYTHONPATH": str(Path(__file__).parents[2])}
