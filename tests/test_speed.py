"""How fast the search is: `make bench` measures it, the other tests leave room for a slow machine."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import pytest

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.columns import swept as taken
from perfmodel.planning.planner import default_drafters, plan
from perfmodel.planning.price import SearchSpace, count_configurations, sweep
from perfmodel.workload import Workload

H100 = HardwareProfile.load("h100-sxm-80gb")
ENGINE = EngineOverhead.load("magicdec-h100")
LLAMA = ModelSpec.load("llama-3.1-8b")
BUDGETS = tuple(128 * 2**power for power in range(8))
on_one_core = pytest.mark.benchmark(timer=time.process_time)


def swept(batches: int, contexts: int) -> int:
    """Sweep a grid through the public path, take every speedup, and tell how many there were."""
    workload = Workload(range(1, batches + 1), range(1024, 1024 * (contexts + 1), 1024))
    space, machines = (
        SearchSpace(default_drafters(LLAMA), range(1, 17), BUDGETS),
        [Deployment(H100, LLAMA, ENGINE)],
    )
    size = count_configurations(machines, workload, space)
    assert sum(taken(priced, "speedup").size for priced in sweep(machines, workload, space)) == size
    return size


def planned(side: int) -> int:
    """Plan a square of cells, intervals and reasons with them, and tell how many were answered."""
    workload = Workload(range(1, side + 1), range(1000, 1000 * (side + 1), 1000))
    return len(plan(H100, LLAMA, ENGINE, workload, tensor_parallel=8).cells)


@pytest.mark.bench
@on_one_core
def test_ten_million_configurations_are_swept_in_a_second(benchmark):
    size = benchmark.pedantic(swept, args=(256, 128), rounds=3, warmup_rounds=1)
    benchmark.extra_info["configurations_per_second"] = size / benchmark.stats.stats.min
    assert size / benchmark.stats.stats.min >= 10e6


@pytest.mark.bench
@on_one_core
def test_a_hundred_by_a_hundred_cells_are_planned_in_a_second(benchmark):
    answered = benchmark.pedantic(planned, args=(100,), rounds=3, warmup_rounds=1)
    assert answered > 5000
    assert benchmark.stats.stats.min < 1.0


@pytest.mark.bench
@on_one_core
def test_one_cell_is_planned_in_a_twentieth_of_a_second(benchmark):
    assert benchmark.pedantic(planned, args=(1,), rounds=10, warmup_rounds=1) == 1
    assert benchmark.stats.stats.min < 0.05


@pytest.mark.bench
def test_importing_takes_less_than_four_tenths_of_a_second(benchmark):
    def imported() -> None:
        subprocess.run([sys.executable, "-c", "import perfmodel"], check=True)

    def spent() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = spent()
    benchmark.pedantic(imported, rounds=5, warmup_rounds=0)
    assert (spent() - before) / 5 < 0.4


def test_a_plan_is_quick_enough_to_be_made_in_passing():
    started = time.process_time()
    assert planned(20) == 400
    assert time.process_time() - started < 1.0


def test_a_sweep_prices_a_million_configurations_in_less_than_a_second():
    started = time.process_time()
    assert swept(64, 64) > 1_000_000
    assert time.process_time() - started < 1.0
