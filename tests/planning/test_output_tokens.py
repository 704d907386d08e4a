"""A plan is for the mean step of a generation and holds its end; what a prompt-time choice keeps grows."""

from __future__ import annotations

import numpy as np
import pytest

import strategies
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.planner import plan
from perfmodel.policy import SpeculationPolicy
from perfmodel.speculation import Drafter, draft_with, price_round
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.step_times import StepTimes
from perfmodel.workload import Workload
from strategies.base import budget_after

H100 = HardwareProfile.load("h100-sxm-80gb")
LLAMA = ModelSpec.load("llama-3.1-8b")
MAGICDEC = EngineOverhead.load("magicdec-h100")
SNAP, WINDOW, QUEST = (Drafter(strategies.load(name)) for name in ("snapkv", "streaming_llm", "quest"))
ON = Deployment(H100, LLAMA, MAGICDEC, 8)


def priced(drafter: Drafter, **at):
    return price_round(H100, LLAMA, MAGICDEC, drafter, gamma=4.0, tensor_parallel=8.0, **at)


@pytest.mark.parametrize("name", strategies.available())
def test_what_is_generated_stays_where_the_choice_is_made_once_and_displaces_elsewhere(name):
    selector = strategies.load(name).selector
    kept = budget_after(selector, 512.0, 1000.0)
    assert kept == (1512.0 if selector.moment == "prompt" else 512.0)


@pytest.mark.parametrize(("prompt", "output"), [(32000, 96), (32000, 8000), (8000, 16000), (1000, 500)])
def test_snapkv_reads_and_holds_its_choice_and_all_that_was_generated(prompt, output):
    drafting = draft_with(
        ON, SNAP, batch=1.0, context_len=float(prompt + output), kv_budget=2049.0, gamma=4.0,
        generated=float(output),
    )  # fmt: skip
    assert float(drafting.counts.kv_tokens) == min(prompt, 2049) + output + 1.5
    assert float(drafting.resident_kv_tokens) == min(prompt, 2049) + output + 4


def test_after_a_short_prompt_and_a_long_output_the_window_wins():
    """After 8,000 and 16,000 tokens the choice of the prompt reads 18,000 entries; 1.47x is 1.07x."""
    at = {"batch": 64.0, "context_len": 24000.0}
    frozen = priced(SNAP, kv_budget=2049.0, **at)
    grown = priced(SNAP, kv_budget=2049.0, generated=16000.0, **at)
    window = priced(WINDOW, kv_budget=2048.0, generated=16000.0, **at)
    assert float(frozen.speedup) == pytest.approx(1.46, abs=0.03)
    assert float(grown.speedup) == pytest.approx(1.06, abs=0.03)
    assert float(window.speedup) > 1.3 * float(grown.speedup)
    assert float(grown.tokens_per_round) > float(frozen.tokens_per_round)  # it loses less of the context
    answer = plan(
        H100, LLAMA, MAGICDEC, Workload([64], [8000], output_tokens=16000), drafters=[SNAP, WINDOW],
        tensor_parallel=8, draws=0,
    )  # fmt: skip
    assert answer.cells[0].strategy == "streaming_llm"


def test_a_plan_is_priced_half_way_and_holds_the_end():
    output = 3000
    answer = plan(
        H100, LLAMA, MAGICDEC, Workload([32], [16000], output_tokens=output), drafters=[WINDOW],
        kv_budgets=[512], tensor_parallel=8, draws=0,
    )  # fmt: skip
    (cell,) = answer.cells
    round_ = price_round(
        H100, LLAMA, MAGICDEC, WINDOW, batch=32.0, kv_budget=512.0, gamma=float(cell.gamma),
        tensor_parallel=8.0, context_len=16000.0, output_tokens=output,
    )  # fmt: skip
    assert cell.context_len == 16000
    assert cell.tpot_s == pytest.approx(float(round_.tpot), rel=1e-12)
    end = price_round(
        H100, LLAMA, MAGICDEC, WINDOW, batch=32.0, context_len=16000.0 + output, kv_budget=512.0,
        gamma=float(cell.gamma), tensor_parallel=8.0,
    )  # fmt: skip
    assert cell.memory_bytes_per_gpu == pytest.approx(float(np.asarray(end.memory.total)), rel=1e-12)


@pytest.mark.parametrize("drafter", [None, SNAP, WINDOW, QUEST])
@pytest.mark.parametrize(
    ("batch", "prompt", "output", "budget"),
    [(64, 8000, 4000, 1024), (16, 32000, 16000, 128), (64, 32000, 512, 128), (16, 64000, 16000, 128),
     (64, 8000, 16000, 2049)],
)  # fmt: skip
def test_a_token_costs_what_the_tokens_of_the_whole_generation_cost_on_average(
    drafter, batch, prompt, output, budget
):
    """A choice of 128 entries accepts least at first, when rounds are densest: the middle is 4 % too fast."""
    gamma = 4.0 if drafter else 0.0
    come = (np.arange(1000.0) + 0.5) / 1000.0 * output
    each, mean = (
        price_round(
            H100, LLAMA, MAGICDEC, drafter, batch=float(batch), kv_budget=float(budget), gamma=gamma,
            tensor_parallel=8.0, **moment,
        )
        for moment in (
            {"context_len": prompt + come, "generated": come},
            {"context_len": float(prompt), "output_tokens": float(output)},
        )
    )  # fmt: skip
    assert float(mean.tpot) == pytest.approx(float(np.mean(each.tpot)), rel=0.005)


def test_a_simulated_round_reads_what_was_generated_too():
    times = StepTimes(Replica(ON, SNAP, 2049.0, max_batch=8, max_step_tokens=64), (0, 4), 50_000)
    contexts, generated = np.array([9000.0, 20000.0, 40000.0]), np.array([1000.0, 12000.0, 500.0])
    simulated = times.decode(8, contexts, 4, generated).sum(axis=0)
    rounds = priced(SNAP, batch=8.0, context_len=contexts, kv_budget=2049.0, generated=generated)
    np.testing.assert_allclose(simulated, rounds.round_s, rtol=0.002)


def test_a_replica_holds_what_was_generated_beside_the_choice():
    served = Replica(ON, SNAP, 1024.0)
    contexts, generated = np.array([5000.0, 5000.0, 5000.0]), np.array([0.0, 1000.0, 4500.0])
    held = served.kv_bytes(contexts, generated)
    entry = float(held[1] - held[0]) / 1000.0
    assert entry == pytest.approx(2 * 8 * 128 * 32 * 2 / 8, rel=1e-6)
    assert held[2] - held[1] == pytest.approx((5000 - 2024) * entry, rel=1e-6)


def test_a_policy_looks_a_running_context_up_where_it_was_priced():
    """Half of 8,000 output tokens lie between a prompt and the step that its cell was priced at."""
    workload = Workload([64], [2000, 32000], output_tokens=8000)
    answer = plan(
        H100, LLAMA, MAGICDEC, workload, drafters=[WINDOW], kv_budgets=[512], tensor_parallel=8, draws=0
    )
    policy = SpeculationPolicy.from_plan(answer)
    short, long = (cell.gamma for cell in answer.cells)
    assert short != long
    border = np.sqrt(6_000 * 36_000)
    assert policy.decide(64, int(64 * border * 0.99)).gamma == short
    policy = SpeculationPolicy.from_plan(answer)
    assert policy.decide(64, int(64 * border * 1.01)).gamma == long


@pytest.mark.parametrize("output", [-1, np.nan, np.inf])
def test_an_output_that_cannot_be_is_refused(output):
    with pytest.raises(SpecError, match="output_tokens"):
        Workload([1], [1000], output_tokens=output)
