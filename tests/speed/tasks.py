"""Work that is timed inside of a process of its own: prints how much there was and how long it took.

It runs on the tree that ``PYTHONPATH`` names, 0.1.0 included, whose modules had other names.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import perfmodel
import strategies
from perfmodel import Constraints, Drafter, EngineOverhead, HardwareProfile, ModelSpec, Workload, plan

H100 = HardwareProfile.load("h100-sxm-80gb")
LLAMA = ModelSpec.load("llama-3.1-8b")
ENGINE = EngineOverhead.load("magicdec-h100")
BUDGETS = tuple(128.0 * 2**power for power in range(8))


def sweep_speedups(workload: Workload, budgets: tuple[float, ...], gammas: Any) -> tuple[int, float]:
    """Take every speedup of two self-drafting strategies; returns how many, and seconds of the processor."""
    drafters = [Drafter(strategies.load(name)) for name in ("streaming_llm", "snapkv")]
    if not (Path(perfmodel.__file__).parent / "deployment.py").exists():  # 0.1.0
        from perfmodel.sweep import Grid
        from perfmodel.sweep import sweep as sweep_grid

        grid = Grid([H100], LLAMA, ENGINE, workload, drafters, gammas, budgets)
        return best_of(lambda: sum(block.column("speedup").size for block in sweep_grid(grid)))
    from perfmodel.deployment import Deployment
    from perfmodel.planning.columns import swept
    from perfmodel.planning.price import SearchSpace, sweep

    space, machines = SearchSpace(drafters, gammas, budgets), [Deployment(H100, LLAMA, ENGINE)]
    return best_of(lambda: sum(swept(priced, "speedup").size for priced in sweep(machines, workload, space)))


def best_of(work: Callable[[], int], times: int = 5) -> tuple[int, float]:
    """Do some work again and again, so that whatever is compiled has been; returns the quickest."""
    quickest = float("inf")
    for _ in range(times):
        began = time.process_time()
        count = work()
        quickest = min(quickest, time.process_time() - began)
    return count, quickest


def sweep_grid() -> tuple[int, float]:
    """256 batch sizes, 128 contexts, 8 budgets, 16 lengths."""
    workload = Workload(range(1, 257), range(1024, 1024 * 129, 1024))
    return sweep_speedups(workload, BUDGETS, range(1, 17))


def sweep_shapes() -> tuple[int, float]:
    """512 batch sizes and contexts at one budget and length: no two have a pass of the target in common."""
    workload = Workload(range(1, 513), range(1024, 1024 + 256 * 512, 256))
    return sweep_speedups(workload, (512.0,), (3,))


def plan_cells(side: int, draws: int) -> tuple[int, float]:
    """Plan a square of cells for one drafter, budget and length beside plain decoding."""
    workload = Workload(range(1, side + 1), [1024 + round(131072 / side * step) for step in range(side)])
    began = time.process_time()
    planned = plan(
        H100, LLAMA, ENGINE, workload, tensor_parallel=8,
        drafters=[Drafter(strategies.load("streaming_llm"))], kv_budgets=(512.0,),
        gammas=(3,), draws=draws, constraints=Constraints(fit_memory=False),
    )  # fmt: skip
    return len(planned.cells), time.process_time() - began


TASKS = {
    "sweep_grid": sweep_grid,
    "sweep_shapes": sweep_shapes,
    "plan_cells": lambda: plan_cells(1000, 0),
    "plan_cells_with_ranges": lambda: plan_cells(1000, 200),
    "plan_default": lambda: plan_default(100),
    "plan_one_cell": lambda: plan_one_cell(20),
}


def plan_default(side: int) -> tuple[int, float]:
    """Plan a square of cells for everything that may draft, with ranges."""
    workload = Workload(range(1, side + 1), range(1000, 1000 * (side + 1), 1000))
    began = time.process_time()
    return len(plan(H100, LLAMA, ENGINE, workload, tensor_parallel=8).cells), time.process_time() - began


def plan_one_cell(times: int) -> tuple[int, float]:
    """Plan one cell again and again."""
    plan_default(1)
    began = time.process_time()
    cells = sum(plan_default(1)[0] for _ in range(times))
    return cells, time.process_time() - began


if __name__ == "__main__":
    amount, seconds = TASKS[sys.argv[1]]()
    print(json.dumps([amount, seconds]))
