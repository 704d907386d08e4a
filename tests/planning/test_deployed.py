"""One deployment: a loaded drafter takes its memory in every cell, and plain decoding is its length 0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import strategies
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError
from perfmodel.hardware import HardwareProfile
from perfmodel.memory import largest_batch
from perfmodel.model import ModelSpec
from perfmodel.planning.near_tie import NEAR_TIE
from perfmodel.planning.planner import Constraints, plan
from perfmodel.speculation import Drafter, price_round
from perfmodel.workload import Workload

H100 = HardwareProfile.load("h100-sxm-80gb")
GENERIC = EngineOverhead.load("generic")
CASES = [
    ("llama-3.1-8b", 1, "full_kv", "llama-3.2-1b"),
    ("llama-3.1-8b", 1, "quantized_kv", None),
    ("llama-3.1-70b", 2, "full_kv", "llama-3.2-1b"),
    ("qwen2.5-32b", 1, "full_kv", "qwen2.5-7b"),
]
WORKLOAD = Workload([1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192], [2000, 4000, 8000, 16000, 32000])


def drafter_of(strategy: str, draft: str | None) -> Drafter:
    return Drafter(strategies.load(strategy), ModelSpec.load(draft) if draft else None)


def deployed(model: str, gpus: int, drafter: Drafter, engine: EngineOverhead = GENERIC, **asked):
    return plan(
        H100, ModelSpec.load(model), engine, WORKLOAD, drafters=[drafter], tensor_parallel=gpus,
        one_deployment=True, draws=0, gammas=range(9), **asked,
    )  # fmt: skip


@pytest.mark.parametrize(("model", "gpus", "strategy", "draft"), CASES)
def test_every_cell_fits_while_the_drafter_is_resident(model, gpus, strategy, draft):
    answer = deployed(model, gpus, drafter_of(strategy, draft))
    usable = float(H100.memory_capacity * GENERIC.memory_utilization)
    assert all(cell.memory_bytes_per_gpu <= usable for cell in answer.cells)


@pytest.mark.parametrize("engine", ["generic", "vllm-h100"])
@pytest.mark.parametrize("strategy", ["streaming_llm", "quantized_kv"])
def test_a_plain_cell_is_the_drafters_length_0(strategy, engine):
    model, gpus = "llama-3.1-8b", 8
    loaded = replace(EngineOverhead.load(engine), software="")  # whatever it may run
    drafter = drafter_of(strategy, None)
    answer = deployed(model, gpus, drafter, loaded, alpha=0.9)
    budget = next(cell.kv_budget for cell in answer.cells if cell.speculates)
    plain = [cell for cell in answer.cells if not cell.speculates]
    assert plain
    for cell in plain:
        priced = price_round(
            H100, ModelSpec.load(model), loaded, drafter, batch=float(cell.batch_size),
            context_len=float(cell.context_len), kv_budget=float(budget or np.inf), gamma=0.0,
            tensor_parallel=float(gpus),
        )  # fmt: skip
        assert cell.memory_bytes_per_gpu == pytest.approx(float(np.asarray(priced.memory.total)))
        assert cell.tpot_s == pytest.approx(float(np.asarray(priced.tpot)))


def test_cells_that_fit_only_without_the_drafter_are_not_answered():
    with_small = deployed("llama-3.1-8b", 1, drafter_of("full_kv", "llama-3.2-1b"))
    answered = {(cell.batch_size, cell.context_len) for cell in with_small.cells}
    assert (48, 8000) not in answered
    assert (32, 8000) in answered


def test_a_drafter_that_fits_nowhere_is_not_deployed_and_the_reason_says_so():
    answer = deployed("qwen2.5-32b", 1, drafter_of("full_kv", "qwen2.5-7b"))
    assert answer.cells
    assert not any(cell.speculates for cell in answer.cells)
    assert all("no drafter fits beside the model in memory" in cell.why for cell in answer.cells)
    assert not any("no draft pays" in cell.why for cell in answer.cells)


def test_a_drafter_that_gains_nothing_is_not_deployed():
    answer = deployed("llama-3.1-8b", 8, drafter_of("streaming_llm", None), alpha=0.05)
    assert not any(cell.speculates for cell in answer.cells)
    assert all("would gain nothing: leave it out" in cell.why for cell in answer.cells)


def test_drafting_that_is_only_the_lesser_evil_is_called_that():
    """Under this engine plain steps take longer while the drafter is loaded; the long contexts pay for it."""
    answer = plan(
        H100, ModelSpec.load("llama-3.1-8b"), replace(EngineOverhead.load("vllm-v1-h100"), software=""),
        Workload([4], [8000, 100_000], output_tokens=8000), one_deployment=True,
    )  # fmt: skip
    short, long = answer.cells
    assert long.speedup > 1.5 > 1.0 > short.speedup
    assert short.speculates
    assert "slower than without a drafter" in short.why
    assert "faster than plain steps with it loaded" in short.why
    assert short.runner_up == "plain decoding with the drafter loaded"
    assert "slower than" not in long.why


def test_the_nearest_miss_is_one_with_its_output():
    with pytest.raises(InfeasibleError) as refusal:
        plan(
            H100, ModelSpec.load("llama-3.1-8b"), GENERIC, Workload([15], [30_000], output_tokens=8000)
        )  # fmt: skip
    most = int(largest_batch(H100, ModelSpec.load("llama-3.1-8b"), GENERIC, context_len=38_000.0))
    assert most < 15
    assert f"--batch-size {most} " in refusal.value.nearest_miss


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"batch": 8, "model": "qwen2.5-32b", "draft": "qwen2.5-7b", "gpus": 1}, "no draft fits in memory"),
        ({"batch": 8, "limit": 1e-3}, "no draft that fits keeps the TPOT limit"),
        ({"batch": 1}, "no draft pays for itself"),
    ],
)
def test_why_nothing_drafts_is_said_of_the_cell(asked, why):
    model, draft = asked.get("model", "llama-3.1-70b"), asked.get("draft", "llama-3.2-1b")
    drafter = drafter_of("full_kv", draft)
    engine, workload = EngineOverhead.load("ideal"), Workload([asked["batch"]], [4000])
    limit = asked.get("limit")
    if limit is not None:  # a limit that plain decoding keeps and no draft does
        plain = plan(
            H100, ModelSpec.load(model), engine, workload, drafters=[drafter], alpha=0.01, tensor_parallel=4,
            draws=0,
        )  # fmt: skip
        limit = plain.cells[0].tpot_s * 1.0001
    answer = plan(
        H100, ModelSpec.load(model), engine, workload, drafters=[drafter], alpha=0.01,
        tensor_parallel=asked.get("gpus", 4), constraints=Constraints(tpot=limit), draws=0,
    )  # fmt: skip
    assert why in answer.cells[0].why


@pytest.mark.parametrize("hardware", ["h100-sxm-80gb", "h200-sxm-141gb"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "llama-2-7b-32k", "qwen2.5-32b"])
def test_drafting_is_recommended_only_where_it_gains_more_than_a_near_tie(hardware, model):
    """Then it is more likely than not to pay, as the printed speedup is the middle of its worlds."""
    answer = plan(
        HardwareProfile.load(hardware), ModelSpec.load(model), GENERIC,
        Workload([1, 4, 8, 16, 24, 32, 64, 128], [1000, 4000, 8000, 12000, 16000, 32000]), tensor_parallel=4,
        draws=100,
    )  # fmt: skip
    drafting = [cell for cell in answer.cells if cell.speculates]
    assert drafting
    assert all(cell.speedup > 1.0 for cell in drafting)
    assert all(cell.probability_beats_plain >= 0.5 for cell in drafting)
    nearly = [cell for cell in answer.cells if not cell.speculates and cell.runner_up_behind < 0.0]
    assert all(cell.runner_up_behind >= -NEAR_TIE for cell in nearly)
    assert all("too little to count on" in cell.why for cell in nearly)
