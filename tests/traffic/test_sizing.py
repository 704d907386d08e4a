"""How many of which accelerators a load needs: ranked by a steady state that simulation bears out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.planner import default_drafters
from perfmodel.planning.price import SearchSpace
from perfmodel.speculation import Drafter
from perfmodel.traffic import sizing
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.simulate import FixedGamma, simulate
from perfmodel.traffic.sizing import Question, confirm, size
from perfmodel.traffic.steady_state import (
    DEFAULT_GAMMAS,
    Candidate,
    Load,
    Machine,
    Targets,
    points_of,
    rank_candidates,
)  # fmt: skip
from perfmodel.traffic.synthetic import synthetic_trace

LLAMA = ModelSpec.load("llama-3.1-8b")
ENGINE = EngineOverhead.load("ideal")
H100, L4 = HardwareProfile.load("h100-sxm-80gb"), HardwareProfile.load("l4-24gb")
SNAP = Drafter(strategies.load("snapkv"))
LOAD, TARGETS = Load(6.0, 8000, 300), Targets(3.0, 0.03)


def choices(hardware=(H100,), drafters=(SNAP,), kv_budgets=(1024,), tensor_parallel=(1, 2), target=LLAMA):
    """What may be deployed, and who may draft."""
    deployments = [
        Deployment(profile, target, ENGINE, gpus) for profile in hardware for gpus in tensor_parallel
    ]
    return deployments, SearchSpace(drafters, DEFAULT_GAMMAS, kv_budgets)


# The steady state.


@pytest.mark.parametrize(("tp", "batch"), [(1, 16), (8, 40)])
@pytest.mark.parametrize("drafter", [None, SNAP])
def test_the_steady_state_is_what_a_long_simulation_settles_at(tp, batch, drafter):
    budget = 1024.0 if drafter else np.inf
    gamma = 2 if drafter else 0
    replica = Replica(Deployment(H100, LLAMA, ENGINE, tp), drafter, budget, 256, 8192, 4)
    load = Load(1.0, 8000, 1000, spread=0.0, burstiness=0.0)
    machine = Machine.of(replica, (0, 2), load)
    points = points_of(replica, machine, load, 0.5, 256, 0.8)
    row = int(np.argmin(np.abs(machine.batches - batch)))
    column = list(machine.gammas).index(gamma)
    rate, tpot = points.qps[row, column], points.tpot[row, column]
    trace = synthetic_trace(
        requests=400, qps=rate, prompt_tokens=8000, output_tokens=1000, spread=0, burstiness=0
    )
    outcome = simulate(replica, trace, FixedGamma(gamma), alpha=0.8, spread=0.0)
    assert outcome.tpot[200:350].mean() == pytest.approx(tpot, rel=0.05)


def test_a_candidate_is_the_best_point_within_the_targets_and_plain_is_among_them():
    found = rank_candidates(*choices(), LOAD, TARGETS)
    assert {candidate.label for candidate in found} == {"none", "snapkv"}
    assert all(candidate.ttft <= TARGETS.ttft and candidate.tpot <= TARGETS.tpot for candidate in found)
    costs = [candidate.cost(candidate.replicas(LOAD.qps)) for candidate in found]
    assert costs == sorted(costs)
    assert all(candidate.gamma > 0 for candidate in found if candidate.label == "snapkv")


def test_no_candidate_needs_more_cache_than_there_is():
    load = Load(1.0, 60_000, 500)
    for candidate in rank_candidates(
        *choices(hardware=[H100], tensor_parallel=(1,)), load, Targets(100.0, 1.0)
    ):
        each = float(candidate.replica.kv_bytes(np.array([60_500]))[0])
        assert 1 <= candidate.batch <= candidate.replica.cache_bytes / each < 10


@given(st.floats(1.0, 4.0), st.floats(1.0, 4.0))
@settings(max_examples=10)
def test_looser_targets_never_serve_less(slower, later):
    tight = {
        (candidate.replica.gpus, candidate.label): candidate.qps
        for candidate in rank_candidates(*choices(), LOAD, TARGETS)
    }
    loose = {
        (candidate.replica.gpus, candidate.label): candidate.qps
        for candidate in rank_candidates(
            *choices(), LOAD, Targets(TARGETS.ttft * later, TARGETS.tpot * slower)
        )
    }
    assert all(loose[place] >= qps for place, qps in tight.items())


def test_replicas_grow_with_the_load_and_one_is_the_least():
    candidate = Candidate(Replica(Deployment(H100, LLAMA, ENGINE)), 0, 8, 2.0, 1.0, 0.02)
    assert [candidate.replicas(qps) for qps in (0.01, 2.0, 2.01, 9.0)] == [1, 1, 2, 5]
    assert candidate.cost(3) == pytest.approx(3 * float(np.asarray(H100.price_per_hour)))


@pytest.mark.parametrize(
    ("changes", "targets", "reason"),
    [
        ({}, Targets(1e-4, 10.0), "misses the TTFT target"),
        ({}, Targets(100.0, 1e-4), "misses the TPOT target"),
        ({"hardware": [L4], "tensor_parallel": (1,)}, TARGETS, ""),
    ],
)
def test_what_nothing_meets_is_refused_with_the_nearest_miss(changes, targets, reason):
    with pytest.raises(InfeasibleError) as refused:
        rank_candidates(*choices(**changes), LOAD if not changes else Load(1.0, 200_000, 300), targets)
    assert any(reason in name for name in refused.value.counts)
    assert changes or "x h100-sxm-80gb" in refused.value.nearest_miss


def test_a_model_that_does_not_fit_is_counted():
    large = choices([L4], [], tensor_parallel=(1,), target=ModelSpec.load("llama-3.1-70b"))
    with pytest.raises(InfeasibleError) as refused:
        rank_candidates(*large, LOAD, TARGETS)
    assert refused.value.counts == {"does not fit in memory": 1}
    assert "GiB a GPU" in refused.value.nearest_miss


@pytest.mark.parametrize(
    "wrong",
    [{"qps": 0.0}, {"prompt_tokens": 0}, {"output_tokens": 1}, {"spread": -1.0}, {"burstiness": -1.0}],
)
def test_a_load_that_cannot_be_is_refused(wrong):
    with pytest.raises(SpecError, match="out of range"):
        Load(**({"qps": 1.0, "prompt_tokens": 10, "output_tokens": 10} | wrong))


# Confirmed by simulation.


def test_the_answer_is_confirmed_and_one_replica_less_does_not_do():
    found = size(*choices(tensor_parallel=(1,)), LOAD, TARGETS)
    best = found.best
    assert best.met >= TARGETS.share
    assert best.ttft <= TARGETS.ttft
    assert best.tpot <= TARGETS.tpot
    assert best.cost <= min((one.cost for one in found.runners_up), default=math.inf)
    question = Question(best.candidate, LOAD, TARGETS, None, 0)
    trial = sizing._Trial(question)
    assert trial.meets(best.replicas)
    assert best.replicas == 1 or not trial.meets(best.replicas - 1)
    assert best.gpus == best.replicas * best.candidate.replica.gpus


def test_speculation_is_chosen_where_it_is_cheaper_and_the_margin_is_stood():
    load = Load(3.0, 32_000, 500)
    found = size(*choices(tensor_parallel=(2, 8), kv_budgets=[2049]), load, Targets(5.0, 0.02))
    plain = min(one.cost for one in (found.best, *found.runners_up) if one.candidate.label == "none")
    assert found.best.candidate.label == "snapkv"
    assert found.best.cost <= plain
    question = Question(found.best.candidate, load, found.targets, None, 0)
    trial = sizing._Trial(question, [found.best.policy])
    assert trial.meets(found.best.replicas / (1.0 + found.best.margin))


def test_a_candidate_that_simulation_does_not_bear_out_is_refuted():
    replica = Replica(Deployment(H100, LLAMA, ENGINE))
    boast = Candidate(replica, 0, 8, 1e6, 0.1, 0.01)
    assert confirm(Question(boast, Load(500.0, 32_000, 500), TARGETS, None, 0)) is None


def test_the_same_question_has_the_same_answer_on_an_executor():
    class Elsewhere:
        def map(self, fn, *iterables):
            return iter([fn(*arguments) for arguments in zip(*iterables, strict=True)])

    here = size(*choices(), LOAD, TARGETS)
    there = size(*choices(), LOAD, TARGETS, executor=Elsewhere())
    assert [(one.cost, one.met, one.ttft) for one in (here.best, *here.runners_up)] == [
        (one.cost, one.met, one.ttft) for one in (there.best, *there.runners_up)
    ]


@pytest.mark.bench
def test_six_accelerators_by_four_widths_are_sized_in_ten_seconds(benchmark):
    names = ("h100-sxm-80gb", "a100-sxm-80gb", "h200-sxm-141gb", "b200", "l40s-48gb", "mi300x")
    many = choices(
        [HardwareProfile.load(name) for name in names], default_drafters(LLAMA), None, (1, 2, 4, 8)
    )
    benchmark.pedantic(size, (*many, Load(20.0, 32_000, 500), Targets(5.0, 0.03)), rounds=1)
    assert benchmark.stats["max"] < 10.0
