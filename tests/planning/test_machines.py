"""Among machines time and money decide; how much drafting gains orders drafters on one machine only."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.answers import Answered, best_answers
from perfmodel.planning.cells import Cells
from perfmodel.planning.plan import OBJECTIVES, Cell
from perfmodel.planning.planner import Constraints, plan
from perfmodel.workload import Workload

LLAMA, GENERIC = ModelSpec.load("llama-3.1-8b"), EngineOverhead.load("generic")
OFFERS = [(["l40s-48gb", "h100-sxm-80gb"], [8], 32), (["l4-24gb", "h100-sxm-80gb"], [8], 8),
          (["h100-sxm-80gb"], [1, 2, 4, 8], 8)]  # fmt: skip


def answer(names, widths, batch, **asked):
    machines = [HardwareProfile.load(name) for name in names]
    workload = Workload([batch], [32000])
    return plan(machines, LLAMA, GENERIC, workload, tensor_parallel=widths, draws=0, **asked)


def alone(names, widths, batch, **asked):
    return [answer([name], [width], batch, **asked).cells[0] for name in names for width in widths]


@pytest.mark.parametrize(("names", "widths", "batch"), OFFERS)
@pytest.mark.parametrize("objective", [None, *OBJECTIVES])
def test_no_answer_is_slower_and_dearer_than_another_on_offer(names, widths, batch, objective):
    chosen = answer(names, widths, batch, objective=objective).cells[0]
    for other in alone(names, widths, batch):
        assert not (
            other.tpot_s < chosen.tpot_s
            and other.cost_per_million_tokens_usd < chosen.cost_per_million_tokens_usd
        )


@pytest.mark.parametrize(("names", "widths", "batch"), OFFERS)
def test_the_default_is_least_time_and_within_a_limit_least_cost(names, widths, batch):
    offers = alone(names, widths, batch)
    fast = answer(names, widths, batch)
    assert fast.objective == "tpot"
    assert fast.cells[0].tpot_s == min(cell.tpot_s for cell in offers)
    limit = 1.5 * fast.cells[0].tpot_s
    cheap = answer(names, widths, batch, constraints=Constraints(tpot=limit))
    assert cheap.objective == "cost"
    assert cheap.cells[0].cost_per_million_tokens_usd == min(
        cell.cost_per_million_tokens_usd for cell in offers if cell.tpot_s <= limit
    )


def test_of_an_l40s_and_an_h100_the_one_that_gains_most_is_not_the_answer():
    """8 x L40S gains more, takes three times as long and costs more."""
    l40s, h100 = alone(*OFFERS[0])
    assert l40s.speedup > h100.speedup
    assert answer(*OFFERS[0]).cells[0] == h100 == answer(*OFFERS[0], objective="speedup").cells[0]


def test_throughput_is_that_of_a_gpu():
    chosen = answer(*OFFERS[2], objective="throughput").cells[0]
    per_gpu = [cell.throughput_tokens_per_s / cell.tensor_parallel for cell in alone(*OFFERS[2])]
    assert chosen.throughput_tokens_per_s / chosen.tensor_parallel == max(per_gpu)


def test_one_machine_is_planned_by_speedup_and_the_header_is_that_of_the_winner():
    assert answer(["h100-sxm-80gb"], [8], 32).objective == "speedup"
    several = answer(*OFFERS[2])
    assert several.tensor_parallel == several.cells[0].tensor_parallel == 8


def test_where_no_machine_answers_there_is_no_best_one():
    nothing = Answered(Cells.of((), Cell), np.array([], dtype=int), Counter())
    assert len(best_answers([nothing, nothing], "tpot")) == 0
