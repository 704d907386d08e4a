"""Versions of engines that exports, shims and readers were checked with, and a command that finds newer ones.

``python -m perfmodel.software.checked``, or ``make versions``, asks the package index.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from importlib.util import find_spec
from shutil import which
from typing import NamedTuple

__all__ = ["CHECKED", "Checked", "newer_than", "newest", "report"]


class Checked(NamedTuple):
    """What was checked, and when.

    Attributes
    ----------
    version : release or, where there is none, the month of the sources.
    on : day, as ISO 8601.
    how : what was run or read; empty for the exporter's rules alone.
    package : name on the package index; empty where it is not there.
    """

    version: str
    on: str
    how: str = ""
    package: str = ""

    def __str__(self) -> str:
        return f"{self.version}{f' ({self.how})' * bool(self.how)} on {self.on}"


CHECKED = {
    "dynamo": Checked("0.13", "2026-11-28", "keys read in AISimulate", "aisimulate"),
    "llamacpp": Checked(
        "November 2026", "2026-11-28", "flags as shipped with llama-cpp-python 0.3.36", "llama-cpp-python"
    ),
    "neutral": Checked("draftplan/table/1", "2026-11-21"),
    "openvino": Checked("2026.4.1", "2026-11-21", "ran on its CPU device", "openvino-genai"),
    "sglang": Checked("0.5.23", "2026-11-28", "parser, policy and capture list read", "sglang"),
    "tensorrt_llm": Checked("1.4rc", "2026-11-20", "rules read in its source", "tensorrt-llm"),
    "transformers": Checked("5.24.0", "2026-11-28", "ran on a CPU", "transformers"),
    "vegas": Checked("fork of vLLM 0.16", "2026-11-20", "arXiv 2602.07223"),
    "vllm": Checked("0.33.0", "2026-11-28", "schedule builder and graph capture read", "vllm"),
}
"""By the name of the exporter: the one place where versions stand."""
SECONDS = 60
"""How long the package index may take to answer about one package. [s]"""


def newest(package: str) -> str | None:
    """Return the newest release of a package that pip sees, None where it cannot say."""
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else [which("pip") or "pip"]
    try:
        answer = subprocess.run(
            [*pip, "index", "versions", "--disable-pip-version-check", package],
            capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    known = re.match(r"\S+ \(([^)]+)\)", answer.stdout)
    return known.group(1) if known and answer.returncode == 0 else None


def newer_than(version: str, other: str) -> bool:
    """Return whether a release comes after another, a candidate before its release."""
    return _order(version) > _order(other)


def report() -> list[str]:
    """Return one line for each engine: what was checked and what is newer."""
    lines = []
    for name, checked in CHECKED.items():
        if not checked.package:
            continue
        release = newest(checked.package)
        known = re.search(r"\d+(\.\d+)+\S*", f"{checked.version} {checked.how}")
        if release is None:
            state = "the package index did not answer"
        elif known and newer_than(release, known.group()):
            state = f"{release} is newer"
        else:
            state = f"{release} is the newest release"
        lines.append(f"{name:14}{checked.package} {checked}: {state}")
    return lines


def _order(version: str) -> tuple[tuple[int, ...], float]:
    """Return what versions sort by: the numbers of the release, and those of its candidate; 2.0.0 is 2.0."""
    release, before, candidate = re.sub(r"\.dev|(?<=\d)[ab](?=\d)", "rc", version).partition("rc")
    numbers = [int(number) for number in re.findall(r"\d+", release)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    number = re.match(r"\d+", candidate)
    return tuple(numbers), (float(number.group()) if number else 0.0) if before else math.inf


if __name__ == "__main__":
    print("\n".join(report()))
