"""Policies in a simulated replica: a schedule serves at least as well as the single lengths it is made of."""


import numpy as np
import pytest
from served import ENGINE, H100, INF, LLAMA, SMALL, SNAP, drawn, replica, scheduled

from perfmodel.acceptance import Acceptance
from perfmodel.planning.planner import Constraints, plan
from perfmodel.traffic.acceptance_draws import AcceptanceDraws, request_acceptance
from perfmodel.traffic.mixed_steps import MixedSteps
from perfmodel.traffic.simulate import FixedGamma, FollowPlan, simulate
from perfmodel.traffic.workload import equipped, tuned
from perfmodel.workload import Workload

# Policies.


def test_the_same_seed_gives_the_same_outcome_and_another_one_not():
    trace = drawn()
    first, again, other = (
        simulate(replica(SNAP), trace, scheduled(adaptive=True), seed=seed) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.finish, again.finish)
    assert first.summary() == again.summary()
    assert not np.array_equal(first.finish, other.finish)


@pytest.mark.parametrize("policy", ["schedule", "adaptive"])
def test_a_plan_that_never_drafts_is_plain_batching(policy):
    never = scheduled(alpha=0.0, adaptive=policy == "adaptive")
    assert {cell.gamma for cell in never.plan.cells} == {0}
    trace = drawn()
    planned = simulate(replica(SNAP), trace, never)
    plain = simulate(replica(SNAP), trace, FixedGamma(0))
    assert planned.timeline["gamma"].max() == 0
    if policy == "schedule":
        assert np.array_equal(planned.finish, plain.finish)
        return
    # It could learn to draft, so its drafter chose its entries when each prompt ended.
    began = planned.summary()["draft_s"]
    assert 0 < began < 0.01 * planned.makespan
    assert planned.makespan - began == pytest.approx(plain.makespan, rel=0.01)


def test_nobody_drafts_at_gamma_zero_whoever_could():
    trace = drawn(qps=INF)
    alone = simulate(replica(), trace, FixedGamma(0))
    beside = simulate(replica(SNAP), trace, FixedGamma(0))
    assert np.array_equal(alone.finish, beside.finish)


def test_policies_meet_the_same_luck():
    served, trace = replica(SNAP), drawn(30)
    first, rest = request_acceptance(served, trace, alpha=0.7, spread=0.1, seed=5)
    hits = AcceptanceDraws(first, rest, trace.output_tokens, seed=5)
    index = np.arange(30)
    place = np.minimum(trace.output_tokens, 3) - 1
    long, short = hits.tokens(index, place, 8), hits.tokens(index, place, 2)
    assert np.array_equal(np.minimum(long, 3), short)


def test_acceptance_of_the_first_and_of_later_drafts_is_what_was_asked_for():
    output = np.full(400, 500)
    hits = AcceptanceDraws(np.full(400, 0.9), np.full(400, 0.6), output, seed=1)
    index = np.repeat(np.arange(400), 400)
    place = np.tile(np.arange(400), 400)
    tokens = hits.tokens(index, place, 3)
    assert (tokens > 1).mean() == pytest.approx(0.9, abs=0.005)
    assert (tokens > 2).mean() == pytest.approx(0.9 * 0.6, abs=0.005)
    assert (tokens > 3).mean() == pytest.approx(0.9 * 0.36, abs=0.005)


def test_acceptance_differs_between_requests_as_much_as_asked_for():
    served, trace = replica(SNAP), drawn(4000)
    _, rest = request_acceptance(served, trace, alpha=0.8, spread=0.08, seed=0)
    assert rest.mean() == pytest.approx(0.8, abs=0.005)
    assert rest.std() == pytest.approx(0.08, rel=0.05)
    law = Acceptance(first=0.9, rest=0.6)
    first, later = request_acceptance(served, trace, alpha=law, spread=0.05, seed=0)
    assert first.mean() == pytest.approx(0.9, abs=0.01)
    assert np.corrcoef(first, later)[0, 1] > 0.9


def test_an_adaptive_policy_learns_that_drafts_are_better_than_planned():
    pessimist = scheduled(alpha=0.45, adaptive=False, tp=8)
    learner = scheduled(alpha=0.45, adaptive=True, tp=8)
    trace = drawn(24, INF, 30_000, 1500)
    served = replica(SNAP, tensor_parallel=8)
    still = simulate(served, trace, pessimist, alpha=0.95, spread=0.02)
    learned = simulate(served, trace, learner, alpha=0.95, spread=0.02)
    assert learned.makespan < 0.97 * still.makespan


def test_a_draft_that_a_step_cannot_verify_is_shortened(steps):
    trace = drawn(40, INF, 4, 200, spread=0)
    simulate(replica(SNAP, max_batch=32, max_step_tokens=64), trace, FixedGamma(6))
    assert any(step.gamma == 6 for step in steps)
    assert any(step.gamma == 0 and step.decoding > 9 for step in steps)


def test_lengths_beside_prefill_are_compared_at_the_same_tokens_per_step():
    answer = scheduled(alpha=0.8, tp=8).plan
    gammas, cell = answer.gammas, answer.cell(64, 64000)
    assert cell.gamma > 1

    class Costs:
        def added(self, batch, mean_context, gamma, mean_generated=0.0):
            assert (mean_context, mean_generated) == (64000, 0.0)
            return 12.0 * gamma + batch * (1.0 + 0.01 * gamma)  # a draft costs the same whatever the batch

    tokens = [sum(0.8**k for k in range(gamma + 1)) for gamma in gammas]
    same_batch = min(gammas, key=lambda gamma: Costs().added(64, 64000, gamma) / tokens[gamma])
    per_step = 64 * tokens[cell.gamma]

    def cost(gamma):
        batch = round(per_step / tokens[gamma])
        return Costs().added(batch, 64000, gamma) / (batch * tokens[gamma])

    lengths = MixedSteps(answer, gammas, Costs())
    assert lengths.length(64, 64000) == min(gammas, key=cost) < same_batch


# A schedule against every single length.


@pytest.mark.parametrize(
    ("prompt", "output", "tp", "batch"), [(32_000, 500, 8, 128), (16_000, 1000, 1, 64), (8_000, 2000, 8, 256)]
)
def test_a_schedule_is_never_worse_than_the_best_single_length_by_more_than_one_percent(
    prompt, output, tp, batch
):
    fine = [round(2 ** (step / 2)) for step in range(17)]
    answer = plan(
        H100,
        LLAMA,
        ENGINE,
        Workload(sorted(set(fine)), [round(1000 * 2 ** (step / 2)) for step in range(14)]),
        drafters=[SNAP],
        kv_budgets=[2049],
        gammas=range(7),
        tensor_parallel=tp,
        constraints=Constraints(near_tie=0.0),
        one_deployment=True,
        draws=0,
    )
    served = replica(SNAP, kv_budget=2049.0, tensor_parallel=tp, max_batch=batch)
    trace = drawn(120, INF, prompt, output)
    schedule = tuned(FollowPlan(answer), served, trace)
    took = simulate(served, trace, schedule).makespan
    assert took <= 1.01 * min(simulate(served, trace, FixedGamma(gamma)).makespan for gamma in range(7))
    busy = drawn(120, 0.7 * len(trace) / took, prompt, output)
    targets = {"ttft": 60 * prompt / 32_000 / tp, "tpot": 0.25 * batch / 100 / tp}
    schedule = tuned(FollowPlan(answer), served, busy, **targets)
    good, *fixed = (
        simulate(served, busy, policy).summary(**targets)["goodput_tokens_per_s"]
        for policy in (schedule, *map(FixedGamma, range(7)))
    )
    assert good >= 0.99 * max(fixed)


def test_a_schedule_does_not_draft_where_prefilling_the_draft_model_costs_more_than_it_gains():
    """A plan prices steps: with 5,000 prompt tokens for 50 put out, the draft model's prefill counts."""
    answer = plan(
        H100, LLAMA, ENGINE, Workload((1, 8, 32), (2000, 8000)), drafters=[SMALL], gammas=range(5),
        alpha=0.74, constraints=Constraints(near_tie=0.0), one_deployment=True, draws=0,
    )  # fmt: skip
    trace, drawn_with = drawn(60, INF, 5000, 50), {"alpha": 0.74, "spread": 0.05, "concurrency": 24}
    served = replica(SMALL, max_batch=64)
    schedule = tuned(FollowPlan(answer), served, trace, **drawn_with)
    assert max(cell.gamma for cell in answer.cells) > 0
    assert (schedule.only, schedule.gammas, equipped(served, schedule).drafter) == (0, (0,), None)
    plain = simulate(replica(max_batch=64), trace, FixedGamma(0), concurrency=24).summary()
    assert simulate(equipped(served, schedule), trace, schedule, **drawn_with).summary() == plain
    long = drawn(20, INF, 500, 400)
    assert tuned(FollowPlan(answer), served, long, **drawn_with).only is None
