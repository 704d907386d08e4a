"""The policy in an engine's loop: it answers as planned, never raises, learns slowly, agrees with itself."""

import json
import math
import pickle
import random
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_plans import cell_of, plan_of, plans

from perfmodel.errors import SpecError
from perfmodel.planning.schedule import speedups, tokens_by_gamma
from perfmodel.policy import SpeculationPolicy

GAMMAS = tuple(range(9))
GOOD = {"alpha": 0.8, "baseline": 0.02, "draft": 0.1, "verify": 0.01}
BAD = {"alpha": 0.2, "baseline": 0.02, "draft": 0.4, "verify": 0.1}


def two_by_two():
    """Speculates where the context is long."""
    cells = [
        cell_of(batch, context, GAMMAS, **(GOOD if context > 5000 else BAD))
        for batch in (4, 64)
        for context in (1000, 32000)
    ]
    return plan_of(cells, GAMMAS)


@pytest.fixture
def policy():
    return SpeculationPolicy.from_plan(two_by_two())


@given(plans(), st.integers(1, 2000), st.integers(1, 10**7))
def test_the_nearest_planned_cell_answers(plan, batch, context):
    policy = SpeculationPolicy.from_plan(plan, hysteresis=0.0)

    def nearest(values, wanted):
        return min(values, key=lambda value: (round(abs(math.log(value / wanted)), 12), -value))

    place = nearest(policy.batch_sizes, batch), nearest(policy.context_lens, context)
    cell = plan.cell(*place)
    decision = policy.decide(batch, batch * context)
    assert decision.gamma == cell.gamma
    assert decision.expected_speedup == pytest.approx(cell.speedup)
    assert decision.kv_budget == cell.kv_budget


@given(
    st.one_of(st.integers(), st.floats(), st.none(), st.text()),
    st.one_of(st.integers(), st.floats(), st.none()),
    st.one_of(st.integers(), st.floats()),
)
def test_no_input_makes_it_raise(n_decode, sum_context, max_context):
    policy = SpeculationPolicy.from_plan(two_by_two())
    assert policy.decide(n_decode, sum_context, max_context).gamma in GAMMAS
    policy.observe(n_decode, sum_context, max_context)
    policy.observe_step_time(n_decode, sum_context, 2, max_context)
    policy.decide_each([max_context, sum_context])
    policy.refresh()


def test_what_was_not_planned_is_clamped_and_counted(policy):
    assert policy.decide(500, 500 * 32000).gamma == policy.decide(64, 64 * 32000).gamma
    policy.decide(4, 4 * 10**6)
    policy.decide(-1, 5)
    assert (policy.clamped.batch, policy.clamped.context, policy.clamped.nonsense) == (1, 1, 1)


def test_nothing_that_decodes_means_no_draft(policy):
    assert policy.decide(0, 0).gamma == 0
    assert policy.clamped.nonsense == 0


def test_a_joining_prefill_does_not_flip_the_length(policy):
    assert policy.decide(4, 4 * 32000) == policy.decide(4, 4 * 32000, n_prefill_tokens=8192)


def test_the_longest_context_stands_in_for_the_sum(policy):
    assert policy.decide(4, 0, 32000) == policy.decide(4, 4 * 32000)


def test_a_length_is_kept_while_it_is_nearly_as_good_as_the_best():
    plan = two_by_two()
    long = plan.cell(4, 32000)
    gains = speedups(long, GAMMAS)
    near = sorted(range(len(GAMMAS)), key=lambda index: -gains[index])[1]
    hysteresis = gains[long.gamma] / gains[near] - 1.0
    for share, kept in ((hysteresis * 1.01, near), (hysteresis * 0.99, long.gamma)):
        policy = SpeculationPolicy.from_plan(plan, hysteresis=share)
        policy.last_gamma_index = near
        assert policy.decide(4, 4 * 32000).gamma == kept


def test_ranks_with_the_same_inputs_decide_alike(policy):
    other = pickle.loads(pickle.dumps(policy))
    rng = random.Random(0)
    for step in range(3000):
        batch = rng.randint(0, 100)
        context = batch * rng.randint(1, 60000)
        assert policy.decide(batch, context) == other.decide(batch, context)
        drafted = rng.randint(1, 8)
        accepted = rng.randint(0, drafted)
        for rank in (policy, other):
            rank.observe(drafted, accepted, 1, batch or 1, context)
            if step % 500 == 0:
                rank.refresh()
    assert policy.shift == other.shift != 0.0


def simulated(cell, shift, gamma, rounds, seed=0):
    """Accepted drafts of rounds whose acceptance is the cell's moved by `shift` logits."""
    odds = math.log(cell.alpha / (1 - cell.alpha)) + shift
    alpha = 1 / (1 + math.exp(-odds))
    rng = random.Random(seed)
    return [next((i for i in range(gamma) if rng.random() >= alpha), gamma) for _ in range(rounds)]


@pytest.mark.parametrize("shift", [-1.5, -0.5, 0.0, 0.7])
@pytest.mark.parametrize("together", [True, False])
def test_refresh_converges_to_the_acceptance_that_is_there(policy, shift, together):
    cell = policy.plan.cell(4, 32000)
    accepted = simulated(cell, shift, 4, 8000)
    if together:  # as counters report it: sums over many rounds
        for start in range(0, 8000, 100):
            policy.observe(400, sum(accepted[start : start + 100]), 100, 4, 4 * 32000)
    else:
        for count in accepted:
            policy.observe(4, count, 1, 4, 4 * 32000)
    assert policy.refresh() == pytest.approx(shift, abs=0.12)


def test_bad_acceptance_turns_speculation_off_and_good_acceptance_turns_it_on(policy):
    assert policy.decide(4, 4 * 32000).gamma > 0
    policy.observe(40000, 0, 10000, 4, 4 * 32000)
    policy.refresh()
    assert policy.decide(4, 4 * 32000).gamma == 0
    for _ in range(10):  # old rounds fade, so that the new ones count
        policy.observe(80000, 72000, 20000, 4, 4 * 32000)
        policy.refresh()
    assert policy.decide(4, 4 * 32000).gamma > 0


def test_a_few_rounds_do_not_overthrow_the_plan(policy):
    for _ in range(5):
        policy.observe(4, 0, 1, 4, 4 * 32000)
    assert abs(policy.refresh()) < 0.3


def test_slow_rounds_turn_speculation_off_once_plain_steps_were_seen_too(policy):
    for _ in range(200):
        policy.observe_step_time(4, 4 * 32000, 4, 10 * GOOD["baseline"])
    policy.refresh()
    assert policy.decide(4, 4 * 32000).gamma > 0, "a slow machine may be as slow at plain decoding"
    for _ in range(200):
        policy.observe_step_time(4, 4 * 32000, 0, GOOD["baseline"])
    policy.refresh()
    assert policy.decide(4, 4 * 32000).gamma == 0


def test_refresh_without_observations_changes_nothing(policy):
    before = [policy.decide(b, b * c) for b in (4, 64) for c in (1000, 32000)]
    assert policy.refresh() == 0.0
    assert [policy.decide(b, b * c) for b in (4, 64) for c in (1000, 32000)] == before


def test_each_sequence_gets_the_length_of_its_own_context(policy):
    short, long = policy.decide_each([1000, 32000])
    assert (short.gamma, long.gamma) == (policy.plan.cell(4, 1000).gamma, policy.plan.cell(4, 32000).gamma)
    assert policy.decide_each([]) == []


def test_a_refresh_in_another_thread_swaps_whole_tables(policy):
    failures = []

    def loop():
        try:
            for _ in range(3000):
                policy.decide(4, 4 * 32000)
                policy.observe(4, 2, 1, 4, 4 * 32000)
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        policy.refresh()
    for thread in threads:
        thread.join()
    assert not failures
    assert policy.learned.rounds[0, 1, 4][0] == 9000


def test_it_saves_loads_and_pickles(policy, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(policy.plan.to_json())
    loaded = SpeculationPolicy.load(path)
    assert loaded.plan == policy.plan
    policy.observe(4, 3, 1, 4, 128000)
    again = pickle.loads(pickle.dumps(policy))
    assert again.learned == policy.learned
    again.observe(4, 3, 1, 4, 128000)
    assert again.max_gamma >= max(cell.gamma for cell in policy.plan.cells)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("schema"),
        lambda body: body.update(cells=[]),
        lambda body: body.update(gammas=[1, 2]),
        lambda body: body["cells"][0].update(alpha=1.5),
        lambda body: body["cells"][0].update(tpot_s=-1),
        lambda body: body["cells"][0].update(tpot_s="fast"),
        lambda body: body["cells"][1].update(gamma=99),
        lambda body: body["cells"][1].update(round_by_gamma_s=[1.0, 2.0]),
        lambda body: body["cells"][0].pop("batch_size"),
        lambda body: body["cells"][1].update(kv_budget=0),
        lambda body: body.update(cells=3),
    ],
)
def test_a_damaged_plan_file_is_refused_by_name(tmp_path, change):
    body = json.loads(two_by_two().to_json())
    change(body)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(body))
    with pytest.raises(SpecError, match=r"plan\.json"):
        SpeculationPolicy.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": NaN}', "[" * 100000, "\x00"])
def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"plan\.json"):
        SpeculationPolicy.load(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(SpecError, match="does not exist"):
        SpeculationPolicy.load(tmp_path / "none.json")


def test_two_deployments_are_refused():
    plan = two_by_two()
    cells = [
        replace(cell, kv_budget=512) if cell.batch_size == 4 and cell.gamma else cell for cell in plan.cells
    ]
    with pytest.raises(SpecError, match="one-deployment"):
        SpeculationPolicy.from_plan(replace(plan, cells=tuple(cells)))


def test_the_plan_of_each_cell_alone_loads_too(tmp_path):
    plan = two_by_two()
    cells = [
        replace(cell, round_by_gamma_s=cell.round_by_gamma_s[:1]) if not cell.gamma else cell
        for cell in plan.cells
    ]
    path = tmp_path / "plan.json"
    path.write_text(replace(plan, cells=tuple(cells)).to_json())
    policy = SpeculationPolicy.load(path)
    policy.decide(4, 4 * 32000)
    assert policy.decide(4, 4 * 1000).gamma == 0, "an unpriced length is never kept"


def test_tokens_per_round_are_those_of_the_law():
    cell = two_by_two().cell(4, 32000)
    assert tokens_by_gamma(cell, (3,))[0] == pytest.approx(1 + 0.8 + 0.64 + 0.512)
    assert tokens_by_gamma(replace(cell, alpha_first=0.5), (2,))[0] == pytest.approx(1 + 0.5 + 0.4)


@pytest.mark.bench
def test_a_decision_takes_a_microsecond(benchmark, policy):
    rng = random.Random(0)
    asked = [(n := rng.randint(1, 80), n * rng.randint(100, 60000)) for _ in range(1000)]

    def thousand():
        decide = policy.decide
        for batch, context in asked:
            decide(batch, context)

    benchmark(thousand)
    assert benchmark.stats.stats.median / len(asked) < 1e-6


@pytest.mark.bench
def test_one_decision_in_a_hundred_takes_no_more_than_five_microseconds(policy):
    from time import perf_counter_ns

    rng = random.Random(0)
    taken = []
    for _ in range(100_000):
        batch = rng.randint(1, 80)
        context = batch * rng.randint(100, 60000)
        before = perf_counter_ns()
        policy.decide(batch, context)
        taken.append(perf_counter_ns() - before)
    taken.sort()
    assert taken[len(taken) // 2] < 1000
    assert taken[int(0.99 * len(taken))] < 5000


@pytest.mark.bench
def test_importing_the_policy_takes_less_than_a_third_of_a_second():
    import subprocess
    import sys
    from pathlib import Path

    code = "import time; t = time.process_time(); import perfmodel.policy; print(time.process_time() - t)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    assert float(ran.stdout) < 0.3
