"""The figures: what is run for each, and how the run becomes a number that people can judge."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FIGURES", "Figure", "NotHereError"]

TASKS = Path(__file__).with_name("tasks.py")
MODEL = ("--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb")
WARM = (*MODEL, "--tp", "8", "--batch-size", "32", "--context", "32k")
SWEPT = (*MODEL, "--engine", "magicdec-h100", "--strategy", "streaming_llm,snapkv", "--gamma", "1:16:1")
REQUESTS = 5_000


class NotHereError(Exception):
    """A figure that this tree or this environment cannot have, with the reason."""


@dataclass(frozen=True)
class Run:
    """One process: seconds of the processor, children included, and of the clock; peak memory; output."""

    processor_s: float
    clock_s: float
    peak_bytes: int
    output: str


@dataclass(frozen=True)
class Figure:
    """A figure of a tree.

    Parameters
    ----------
    unit : what it is in.
    measure : takes the folder of the tree, returns the value. Raises `NotHereError`.
    least : whether less of it is better.
    """

    unit: str
    measure: Callable[[Path], float]
    least: bool = False


def run(tree: Path, *arguments: str, **environment: str) -> Run:
    """Run Python with the packages of a tree."""
    around = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", **environment}
    around.pop("PYTHONDONTWRITEBYTECODE", None)  # a warm command has its bytecode
    with tempfile.TemporaryDirectory() as elsewhere, tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=around, cwd=elsewhere, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        clock = time.perf_counter() - began
        out.seek(0)
        output = out.read().decode(errors="replace")
    if process.returncode:
        raise NotHereError(output.strip()[-300:])
    scale = 1 if sys.platform == "darwin" else 1024
    return Run(used.ru_utime + used.ru_stime, clock, used.ru_maxrss * scale, output)


def task(tree: Path, name: str, **environment: str) -> tuple[int, float, int]:
    """Run one of `tasks.TASKS`; returns how much there was, seconds of the processor, and peak memory."""
    done = run(tree, str(TASKS), name, **environment)
    amount, seconds = json.loads(done.output.splitlines()[-1])
    return amount, seconds, done.peak_bytes


def command(tree: Path, *arguments: str, **environment: str) -> Run:
    """Run the command of a tree."""
    return run(tree, "-m", "perfmodel", *arguments, **environment)


def rate(name: str, **environment: str) -> Callable[[Path], float]:
    """Millions of what a task does in a second of one core."""

    def measure(tree: Path) -> float:
        amount, seconds, _ = task(tree, name, **environment)
        return amount / seconds / 1e6

    return measure


def sweep_file(tree: Path, ending: str, processes: int = 1) -> tuple[int, Run]:
    """Sweep a million configurations to a file, 4 million to a fast one; returns how many, and the run."""
    batches, contexts = 128, 32 if ending == ".csv" else 128
    with tempfile.TemporaryDirectory() as folder:
        done = command(
            tree, "sweep", *SWEPT,
            "--batch-size", f"1:{batches}:1", "--context", f"1024:{1024 * contexts}:1024",
            "--draft-budget", "128,256,512,1024,2048,4096,8192,16384", "--jobs", str(processes),
            "--output", f"{folder}/sweep{ending}",
        )  # fmt: skip
    return batches * contexts * (2 * 8 * 16), done


def written(ending: str) -> Callable[[Path], float]:
    """Millions of rows that a sweep writes in a second of one core, its start included."""

    def measure(tree: Path) -> float:
        rows, done = sweep_file(tree, ending)
        return rows / done.processor_s / 1e6

    return measure


def side_by_side(ending: str) -> Callable[[Path], float]:
    """How many times as fast two processes write a sweep as one, by the clock."""

    def measure(tree: Path) -> float:
        (_, one), (_, two) = sweep_file(tree, ending), sweep_file(tree, ending, 2)
        return one.clock_s / two.clock_s

    return measure


def cases(rows: int) -> str:
    """A table of cases over some models, machines and strategies."""
    drawn = random.Random(0)
    models = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-8b")
    machines = ("h100-sxm-80gb", "a100-sxm-80gb", "l40")
    lines = ["hardware,tensor_parallel,target_model,strategy,kv_budget,context_len,batch_size,gamma"]
    for _ in range(rows):
        strategy = drawn.choice(("streaming_llm", "snapkv", "none", "ngram"))
        budget = drawn.choice((256, 512, 1024)) if strategy in ("streaming_llm", "snapkv") else ""
        gamma = 0 if strategy == "none" else drawn.randint(1, 8)
        lines.append(
            f"{drawn.choice(machines)},8,{drawn.choice(models)},{strategy},{budget},"
            f"{drawn.randint(1024, 131072)},{drawn.randint(1, 256)},{gamma}"
        )
    return "\n".join(lines) + "\n"


def price(tree: Path, rows: int) -> Run:
    """Price a table of cases."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "cases.csv")
        table.write_text(cases(rows))
        return command(tree, "price", str(table), "--output", f"{folder}/priced.csv")


def price_row_s(tree: Path) -> float:
    """Microseconds of one core for a row, of 100,000, beside a table of 1,000."""
    return (price(tree, 100_000).processor_s - price(tree, 1_000).processor_s) / 99_000 * 1e6


def price_row_bytes(tree: Path) -> float:
    """Bytes of memory that a further row takes."""
    return (price(tree, 100_000).peak_bytes - price(tree, 1_000).peak_bytes) / 99_000


def simulate(tree: Path, requests: int) -> Run:
    """Serve chats at a rate, with and without drafts."""
    traffic = f"qps=20,prompt=1k,output=200,requests={requests}"
    return command(
        tree, "simulate", *MODEL, "--tp", "8", "--synthetic", traffic, "--policy", "none,fixed:3",
        "--strategy", "streaming_llm", "--draft-budget", "512",
    )  # fmt: skip


def simulated_rate(tree: Path) -> float:
    """Thousands of requests in a second of one core, both policies counted, their tables not."""
    more = simulate(tree, 2 * REQUESTS).processor_s - simulate(tree, REQUESTS).processor_s
    return 2 * REQUESTS / more / 1e3


def simulated_bytes(tree: Path) -> float:
    """Bytes of memory that a further request takes, of each policy."""
    more = simulate(tree, 5 * REQUESTS).peak_bytes - simulate(tree, REQUESTS).peak_bytes
    return more / (4 * REQUESTS) / 2


def peak(name: str) -> Callable[[Path], float]:
    """Megabytes at the peak of a task."""
    return lambda tree: task(tree, name)[2] / 1e6


def seconds(name: str) -> Callable[[Path], float]:
    """Seconds of one core that a task takes."""
    return lambda tree: task(tree, name)[1]


def warm(*arguments: str) -> Callable[[Path], float]:
    """Seconds of one core of a command that was run before, the least of five."""

    def measure(tree: Path) -> float:
        return min(run(tree, *arguments).processor_s for _ in range(6))

    return measure


FIGURES: dict[str, Figure] = {
    "sweep, a grid": Figure("M configurations/s", rate("sweep_grid", DRAFTPLAN_FAST="0")),
    "sweep, a grid, compiled": Figure("M configurations/s", rate("sweep_grid")),
    "sweep, nothing shared": Figure("M configurations/s", rate("sweep_shapes", DRAFTPLAN_FAST="0")),
    "sweep, nothing shared, compiled": Figure("M configurations/s", rate("sweep_shapes")),
    "sweep to parquet": Figure("M rows/s", written(".parquet")),
    "sweep to CSV": Figure("M rows/s", written(".csv")),
    "sweep to npz": Figure("M rows/s", written(".npz")),
    "two processes, parquet": Figure("of one", side_by_side(".parquet")),
    "two processes, CSV": Figure("of one", side_by_side(".csv")),
    "price, a row": Figure("us", price_row_s, least=True),
    "price, memory of a row": Figure("B", price_row_bytes, least=True),
    "plan, a million cells": Figure("s", seconds("plan_cells"), least=True),
    "plan, a million cells, memory": Figure("MB", peak("plan_cells"), least=True),
    "plan, a million cells with ranges": Figure("s", seconds("plan_cells_with_ranges"), least=True),
    "plan, 10,000 cells, every drafter": Figure("s", seconds("plan_default"), least=True),
    "plan, one cell, twenty times": Figure("s", seconds("plan_one_cell"), least=True),
    "simulate": Figure("thousand requests/s", simulated_rate),
    "simulate, memory of a request": Figure("B", simulated_bytes, least=True),
    "draftplan plan": Figure("s", warm("-m", "perfmodel", "plan", *WARM), least=True),
    "draftplan --help": Figure("s", warm("-m", "perfmodel", "--help"), least=True),
    "draftplan plan --help": Figure("s", warm("-m", "perfmodel", "plan", "--help"), least=True),
    "import perfmodel": Figure("s", warm("-c", "import perfmodel"), least=True),
    "import numpy": Figure("s", warm("-c", "import numpy"), least=True),
}
"""What is measured, in this order."""


def chosen(names: Sequence[str]) -> list[str]:
    """The figures whose names begin like one of these; all where there are none."""
    return [name for name in FIGURES if not names or any(name.startswith(start) for start in names)]
