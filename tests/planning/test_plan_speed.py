"""How fast large plans are made, written and read: `make bench` measures it."""

from __future__ import annotations

import json
import time

import pytest

import strategies
from perfmodel.deployment import Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.choose import Constraints
from perfmodel.planning.plan import Plan
from perfmodel.planning.planner import plan
from perfmodel.workload import Workload

H100, LLAMA = HardwareProfile.load("h100-sxm-80gb"), ModelSpec.load("llama-3.1-8b")
ENGINE, WINDOW = EngineOverhead.load("magicdec-h100"), Drafter(strategies.load("streaming_llm"))
on_one_core = pytest.mark.benchmark(timer=time.process_time)


def planned(side: int, **asked) -> Plan:
    """Plan a square of cells by one drafter, one budget and one length."""
    workload = Workload(range(1, side + 1), range(1000, 1000 + 100 * side, 100))
    return plan(
        H100, LLAMA, ENGINE, workload, tensor_parallel=8, drafters=[WINDOW], kv_budgets=[512.0], gammas=[3],
        constraints=Constraints(fit_memory=False), **asked,
    )  # fmt: skip


@pytest.mark.bench
@on_one_core
@pytest.mark.parametrize("draws", [0, 200])
def test_a_hundred_thousand_cells_are_planned(benchmark, draws):
    answer = benchmark.pedantic(planned, args=(320,), kwargs={"draws": draws}, rounds=3, warmup_rounds=1)
    assert len(answer.cells) == 320**2


@pytest.mark.bench
@on_one_core
def test_ten_thousand_cells_are_written(benchmark):
    answer = planned(100, draws=0)
    benchmark.pedantic(answer.to_json, rounds=3, warmup_rounds=1)


@pytest.mark.bench
@on_one_core
def test_ten_thousand_cells_are_read(benchmark):
    body = json.loads(planned(100, draws=0).to_json())
    assert len(benchmark.pedantic(Plan.from_dict, args=(body,), rounds=3, warmup_rounds=1).cells) == 100**2


@pytest.mark.bench
@on_one_core
def test_a_plan_is_checked(benchmark):
    benchmark.pedantic(planned(100, draws=0).check, rounds=3, warmup_rounds=1)
