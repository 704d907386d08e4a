"""One question has one answer, whoever asks: plan, explain, price, sweep, simulate and size."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from perfmodel import (
    Drafter,
    EngineOverhead,
    HardwareProfile,
    ModelSpec,
    SpecError,
    Workload,
    plan,
    price_round,
)
from perfmodel.deployment import Deployment
from perfmodel.errors import InfeasibleError
from perfmodel.planning.breakdown import break_down
from perfmodel.planning.cases import INPUTS, price_cases
from perfmodel.planning.choose import Constraints
from perfmodel.planning.price import SearchSpace, sweep
from perfmodel.planning.sweep import rows_of
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.steady_state import Load, Machine, points_of
from perfmodel.traffic.step_times import StepTimes

H100, SMALL = HardwareProfile.load("h100-sxm-80gb"), "llama-3.2-1b"
LLAMA = replace(ModelSpec.load("llama-3.1-8b"), draft_layers=1)  # so that every strategy applies
ENGINES = EngineOverhead.available()
DRAFTERS = {
    name: Drafter(
        strategies.load(name), ModelSpec.load(SMALL) if "draft" in strategies.load(name).drafters else None
    )
    for name in strategies.available()
}
ANYWHERE = Constraints(fit_memory=False)
MODELS = ("llama-3.1-8b", "llama-2-7b", "qwen3-30b-a3b", "deepseek-v2-lite", "gpt-oss-20b", "gemma-3-4b")

places = st.fixed_dictionaries(
    {
        "engine": st.sampled_from(ENGINES),
        "strategy": st.sampled_from(sorted(DRAFTERS)),
        "batch": st.integers(1, 64),
        "context_len": st.integers(64, 100_000),
        "gamma": st.integers(1, 5),
        "tensor_parallel": st.sampled_from([1, 2, 8]),
    }
)


@cache
def engine(name: str) -> EngineOverhead:
    """The engine, as if its software could run everything."""
    return replace(EngineOverhead.load(name), software="")


def budget_of(drafter: Drafter) -> float:
    return 1024.0 if drafter.strategy.default_budgets else np.inf


@settings(max_examples=40, deadline=None)
@given(places)
def test_plan_price_sweep_and_explain_give_one_round(place):
    drafter, overhead = DRAFTERS[place["strategy"]], engine(place["engine"])
    budget, gpus = budget_of(drafter), place["tensor_parallel"]
    alone = price_round(
        H100, LLAMA, overhead, drafter, batch=float(place["batch"]), context_len=float(place["context_len"]),
        kv_budget=budget, gamma=float(place["gamma"]), tensor_parallel=float(gpus),
    )  # fmt: skip
    expected = [float(np.asarray(term)) for term in (alone.round_s, alone.tpot, alone.speedup)]
    workload = Workload([place["batch"]], [place["context_len"]])
    asked = {
        "drafters": [drafter], "kv_budgets": [1024], "gammas": [place["gamma"]], "tensor_parallel": gpus,
        "constraints": ANYWHERE,
    }  # fmt: skip
    planned = plan(H100, LLAMA, overhead, workload, draws=0, **asked).cells[0]
    space = SearchSpace([drafter], [place["gamma"]], [1024])
    (row,) = map(rows_of, sweep([Deployment(H100, LLAMA, overhead, gpus)], workload, space))
    explained = break_down(
        H100, LLAMA, overhead, batch_size=place["batch"], context_len=place["context_len"], **asked
    )
    by_gamma = {shown.gamma: shown for shown in explained.by_gamma}[place["gamma"]]
    if planned.speculates:
        assert [planned.round_s, planned.tpot_s, planned.speedup] == pytest.approx(expected, rel=1e-9)
        assert planned.round_by_gamma_s[-1] == pytest.approx(expected[0], rel=1e-9)
    assert [row[name][0] for name in ("round_s", "tpot_s", "speedup")] == pytest.approx(expected, rel=1e-9)
    assert [by_gamma.round_s, by_gamma.tpot_s, by_gamma.speedup] == pytest.approx(expected, rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(places)
def test_a_row_of_price_is_that_round_too(place):
    drafter = DRAFTERS[place["strategy"]]
    words = {
        "hardware": "h100-sxm-80gb", "engine": place["engine"], "tensor_parallel": place["tensor_parallel"],
        "target_model": "llama-3.1-8b", "draft_model": SMALL if drafter.draft_model else "",
        "strategy": place["strategy"], "kv_budget": 1024 if drafter.strategy.default_budgets else "",
        "context_len": place["context_len"], "batch_size": place["batch"], "gamma": place["gamma"],
    }  # fmt: skip
    text = ",".join(INPUTS) + "\n" + ",".join(str(words.get(name, "")) for name in INPUTS) + "\n"
    priced = price_cases(text.encode())
    assert not priced.faults
    row = dict(zip(priced.columns, priced.rows[0], strict=True))
    alone = price_round(
        H100, LLAMA, engine(place["engine"]), drafter, batch=float(place["batch"]),
        context_len=float(place["context_len"]), kv_budget=budget_of(drafter), gamma=float(place["gamma"]),
        tensor_parallel=float(place["tensor_parallel"]),
    )  # fmt: skip
    assert float(row["round_ms"]) == pytest.approx(float(np.asarray(alone.round_s)) * 1e3, rel=1e-9)
    assert float(row["speedup"]) == pytest.approx(float(np.asarray(alone.speedup)), rel=1e-9)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("strategy", [None, *sorted(DRAFTERS)])
def test_a_simulated_round_is_a_priced_round(name, strategy):
    drafter = DRAFTERS[strategy] if strategy else None
    deployment, budget = Deployment(H100, LLAMA, engine(name), 2), budget_of(drafter) if drafter else np.inf
    gammas = (0, 3) if drafter else (0,)
    times = StepTimes(Replica(deployment, drafter, budget, max_batch=8, max_step_tokens=64), gammas, 50_000)
    contexts = times.contexts
    for gamma in gammas:
        priced = price_round(
            H100, LLAMA, engine(name), drafter, batch=np.array([[1.0], [8.0]]), context_len=contexts,
            kv_budget=budget, gamma=float(gamma), tensor_parallel=2.0,
        )  # fmt: skip
        simulated = [times.decode(batch, contexts, gamma).sum(axis=0) for batch in (1, 8)]
        np.testing.assert_allclose(simulated, np.broadcast_to(priced.round_s, (2, contexts.size)), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(places)
def test_the_steady_state_of_long_outputs_is_the_round_over_its_tokens(place):
    """With 10 million output tokens a prompt of 16 no longer counts."""
    drafter = DRAFTERS[place["strategy"]]
    deployment = Deployment(H100, LLAMA, engine(place["engine"]), place["tensor_parallel"])
    replica = Replica(deployment, drafter, budget_of(drafter), max_batch=64, max_gamma=place["gamma"])
    load = Load(1.0, 16, 10_000_000, spread=0.0, burstiness=0.0)
    machine = Machine.of(replica, (0, place["gamma"]), load)
    points = points_of(replica, machine, load, 0.5, 10**9, None)
    priced = price_round(
        H100, LLAMA, deployment.engine, drafter, batch=machine.batches[:, None], kv_budget=budget_of(drafter),
        gamma=machine.gammas, tensor_parallel=float(place["tensor_parallel"]), context_len=16.0,
        output_tokens=1e7,
    )  # fmt: skip
    expected = np.broadcast_to(priced.tpot, points.tpot.shape)
    there = np.isfinite(points.tpot)
    np.testing.assert_allclose(points.tpot[there], expected[there], rtol=2e-5)


def random_cells(count: int, seed: int) -> list[tuple]:
    """Random questions: hardware, GPUs, model, engine, batch, context, strategies."""
    random = np.random.default_rng(seed)
    names = HardwareProfile.available()
    return [
        (
            names[random.integers(len(names))],
            int(2 ** random.integers(0, 4)),
            MODELS[random.integers(len(MODELS))],
            ENGINES[random.integers(len(ENGINES))],
            int(np.rint(2 ** random.uniform(0, 8))),
            int(np.rint(2 ** random.uniform(7, 17))),
            [sorted(DRAFTERS)[index] for index in random.choice(len(DRAFTERS), 4, replace=False)],
        )
        for _ in range(count)
    ]


def explains_what_it_recommends(cells: list[tuple]) -> int:
    """Check every cell that is feasible; return how many speculate."""
    speculating = 0
    for hardware, gpus, model, name, batch, context_len, searched in cells:
        try:
            explained = break_down(
                HardwareProfile.load(hardware), ModelSpec.load(model), engine(name), batch_size=batch,
                context_len=context_len, drafters=[DRAFTERS[each] for each in searched], tensor_parallel=gpus,
                draws=0,
            )  # fmt: skip
        except (InfeasibleError, SpecError):
            continue
        cell = explained.cell
        if not cell.speculates:
            continue
        speculating += 1
        shown = explained.options[0]
        assert (shown.kv_budget, shown.gamma) == (cell.kv_budget, cell.gamma)
        assert shown.tpot_s == cell.tpot_s
        assert explained.passes[-1].name.startswith(f"verification of {cell.gamma + 1} tokens")
        share, step, verification = cell.match_share, explained.passes[0], explained.passes[-1]
        if share is None:
            assert verification.total_s == cell.verify_s
        else:  # a round that finds no match is a plain step
            mean = share * verification.total_s + (1.0 - share) * step.total_s
            assert mean == pytest.approx(cell.verify_s, rel=1e-9)
        assert explained.resident_bytes["total"] == cell.memory_bytes_per_gpu
        assert {row.gamma: row.round_s for row in explained.by_gamma}[cell.gamma] == cell.round_s
    return speculating


def test_explain_breaks_down_what_is_recommended():
    assert explains_what_it_recommends(random_cells(40, seed=1)) > 8


@pytest.mark.slow
def test_explain_breaks_down_what_is_recommended_in_500_cells():
    assert explains_what_it_recommends(random_cells(500, seed=2)) > 100
