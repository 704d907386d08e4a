"""A policy under stress: a hundred threads, millions of steps, poison in any order, clocks that jump."""

import json
import math
import os
import pickle
import random
import re
import sys
import threading
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_plans import cell_of, plan_of

from perfmodel.acceptance.online import FEWEST_ROUNDS, MOST_ROUNDS, Learner
from perfmodel.policy import SpeculationPolicy
from perfmodel.policy_figures import Every, MinuteLine
from perfmodel.policy_table import MOST_BATCH, MOST_CONTEXT, MOST_ROWS

GAMMAS = (0, 1, 2, 4, 8)
GOOD = {"alpha": 0.8, "baseline": 0.02, "draft": 0.1, "verify": 0.01}
BAD = {"alpha": 0.2, "baseline": 0.02, "draft": 0.4, "verify": 0.1}
NAN, INF = math.nan, math.inf


def policy_of():
    """Speculates where the context is long."""
    cells = [
        cell_of(batch, context, GAMMAS, **(GOOD if context > 5000 else BAD))
        for batch in (1, 4, 64)
        for context in (1000, 32000)
    ]
    return SpeculationPolicy.from_plan(plan_of(cells, GAMMAS))


POISON = [
    *[("observe", args) for args in (
        (4, 5), (-1, 0), (4, -1), (-1, -1), (NAN, 1), (4, NAN), (INF, 1), (4, INF), (None, 1), (4, None),
        ("4", 2), (4, "2"), (b"4", 2), (4, 2.5), (2.5, 1), (True, True), (True, 0), (4, True), (False, False),
        (np.True_, 1), (10**400, 1), (10**400, 10**400), (9, 3), (1025, 1), ([4], [2]), (4, [1, 1, 0, 0, 0]),
        (Decimal("NaN"), 1), (1j, 1), (object(), 1), (4, 2, 0), (4, 2, -3), (4, 2, NAN), (4, 2, INF),
        (4, 2, True), (4, 2, 0.5), (4, 2, 10**9), (9, 20, 2), (17, 2, 2), (10**400, 2, 2), (4, 2, 1, 0),
        (4, 2, 1, -5),
        (4, 2, 1, NAN), (4, 2, 1, INF), (4, 2, 1, None), (4, 2, 1, True), (4, 2, 1, 2.5), (4, 2, 1, "4"),
        (4, 2, 1, MOST_BATCH + 1), (4, 2, 1, 10**400), (4, 2, 1, 4, -1), (4, 2, 1, 4, NAN), (4, 2, 1, 4, INF),
        (4, 2, 1, 4, None), (4, 2, 1, 4, "x"), (4, 2, 1, 4, True), (4, 2, 1, 4, 5 * MOST_CONTEXT),
        (4, 2, 1, 4, 10**400), (4, 2, 1, [4]), (4, 2, {}),
    )],
    *[("observe_step_time", args) for args in (
        (4, 128000, 4, -1.0), (4, 128000, 4, 0.0), (4, 128000, 4, NAN), (4, 128000, 4, INF),
        (4, 128000, 4, 1e6), (4, 128000, 4, 3600.0), (4, 128000, 4, 1e-9), (4, 128000, 4, True),
        (4, 128000, 4, "1"), (4, 128000, 4, None), (4, 128000, 4, 10**400), (4, 128000, 3, 0.02),
        (4, 128000, True, 0.02), (4, 128000, -1, 0.02), (4, -1, 4, 0.02), (4, NAN, 4, 0.02),
        (4, INF, 4, 0.02), (0, 0, 4, 0.02), (-1, 4, 4, 0.02), (NAN, 4, 4, 0.02), (True, 1000, 4, 0.02),
        (4, 10**400, 4, 0.02),
    )],
    *[("decide", args) for args in (
        (-1, 1000), (NAN, 1000), (INF, 1000), (None, 1000), ("4", 1000), (2.5, 1000), (True, 32000),
        (MOST_BATCH + 1, 10**15), (10**400, 1), (4, -1), (4, NAN), (4, INF), (4, None), (4, "x"), (4, True),
        (4, False), (4, 5 * MOST_CONTEXT), (4, 10**400), (4, 0, -1), (4, 0, NAN), (4, 0, INF), (4, 0, None),
        (4, 0, True), ([4], 1000), (1, True),
    )],
    *[("decide_each", args) for args in ((None,), (3,), (iter([1]),), (object(),))],
]  # fmt: skip

VALID = st.one_of(
    st.tuples(st.just("decide"), st.tuples(st.integers(0, 200), st.integers(0, 10**7))),
    st.tuples(
        st.just("observe"),
        st.integers(0, 8).flatmap(
            lambda drafted: st.tuples(
                *(st.just(drafted), st.integers(0, drafted), st.just(1)),
                *(st.integers(1, 99), st.integers(0, 10**7)),
            )
        ),
    ),
    st.tuples(
        st.just("observe"),
        st.tuples(st.integers(500, 800), st.integers(0, 500), st.just(100), st.just(4), st.just(128000)),
    ),
    st.tuples(
        st.just("observe_step_time"),
        st.tuples(st.integers(1, 99), st.integers(0, 10**6), st.sampled_from(GAMMAS), st.floats(1e-3, 1.0)),
    ),
    st.just(("refresh", ())),
)


def call(policy, step):
    """One call; what it decided, if it did."""
    name, args = step
    answer = getattr(policy, name)(*args)
    return answer if name != "decide_each" else None


def _name(step):
    return re.sub(" at 0x[0-9a-f]+", "", f"{step[0]}{step[1]}")[:60]


@pytest.mark.parametrize("step", POISON, ids=_name)
def test_poison_is_counted_and_changes_nothing(step):
    policy = policy_of()
    policy.decide(4, 4 * 32000)
    before = policy.figures(), policy.last_gamma_index
    answer = call(policy, step)
    assert answer is None or answer.gamma == 0
    assert policy.nonsense == 1
    policy.nonsense = 0
    assert (policy.figures(), policy.last_gamma_index) == before
    assert policy.refresh() == 0.0
    assert all(not any(counts) for counts in policy.learned.rounds.values())


@settings(max_examples=60)
@given(st.lists(st.one_of(VALID, st.sampled_from(POISON)), max_size=60))
def test_any_mixture_with_poison_decides_as_the_valid_calls_alone(steps):
    mixed, pure = policy_of(), policy_of()
    for step in steps:
        if any(step is poison for poison in POISON):
            call(mixed, step)
            continue
        assert call(mixed, step) == call(pure, step)
    assert mixed.refresh() == pure.refresh()
    assert mixed.learned == pure.learned
    for batch in (1, 4, 64):
        assert mixed.decide(batch, batch * 32000) == pure.decide(batch, batch * 32000)


@pytest.mark.parametrize("one", [4.0, np.int64(4), np.float32(4.0), Fraction(4), Decimal(4)])
def test_a_whole_number_of_any_type_is_one(one):
    policy = policy_of()
    policy.observe(one, one, 1, one, 128000)
    policy.observe(4, 4, np.int32(1), 4, 128000)
    assert policy.learned.rounds == {(1, 1, 4): [2, 8]}
    assert policy.decide(one, 4 * 32000) == policy.decide(4, 4 * 32000)
    assert policy.nonsense == 0


def test_the_largest_that_can_be_is_answered_by_the_nearest_cell():
    policy = policy_of()
    assert policy.decide(MOST_BATCH, MOST_BATCH * MOST_CONTEXT) == policy.decide(64, 64 * 32000)
    assert policy.decide(MOST_BATCH, 1) == policy.decide(64, 64 * 1000)
    assert (policy.nonsense, policy.clamped.batch, policy.clamped.context) == (0, 2, 1)


@pytest.fixture
def hurried():
    """Threads that take turns at every chance."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hurried")
def test_a_hundred_threads_lose_no_count_and_see_no_half_table():
    policy, raised, each = policy_of(), [], 150
    line = MinuteLine(policy.figures, seconds=0.0)
    lengths, clock = set(GAMMAS), threading.Barrier(100)

    def serve(seed):
        rng = random.Random(seed)
        try:
            clock.wait()
            for step in range(each):
                batch = rng.randint(1, 80)
                assert policy.decide(batch, batch * rng.randint(100, 60000)).gamma in lengths
                policy.observe(4, 2, 1, 4, 128000)
                policy.observe(40, 20, 10, 64, 64000)
                policy.observe(4, 5)
                policy.observe_step_time(4, 128000, 4, 0.02)
                line.tick()
                if step % 50 == seed % 50:
                    policy.refresh()
                    again = pickle.loads(pickle.dumps(policy))
                    assert again.decide(4, 128000).gamma in lengths
                    assert policy.figures().decided <= 100 * each
                    policy.metrics()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not raised
    figures = policy.figures()
    assert figures.decided == policy.nonsense == sum(policy.learned.steps) == 100 * each
    assert policy.learned.rounds == {(1, 1, 4): [15000, 30000], (2, 0, 4): [150000, 300000]}
    assert line.failures == 0


def test_two_refreshes_do_not_mix(monkeypatch):
    """The second waits for the first, so that the table and the shift that is shown are of one refresh."""
    policy, entered, go_on = policy_of(), threading.Event(), threading.Event()
    entries = policy._entries

    def slowly(*shifts):
        entered.set()
        assert go_on.wait(30)
        return entries(*shifts)

    monkeypatch.setattr(policy, "_entries", slowly)
    policy.observe(400, 0, 100, 4, 128000)
    first, second = (threading.Thread(target=policy.refresh) for _ in range(2))
    first.start()
    assert entered.wait(30)
    entered.clear()
    policy.observe(400, 400, 100, 4, 128000)
    second.start()
    assert not entered.wait(0.2)
    go_on.set()
    first.join(30)
    second.join(30)
    assert policy._table.entries == entries(policy.shift, policy.match_shift)


def test_a_copy_goes_on_counting_where_the_policy_was():
    policy = policy_of()
    policy.observe(4, 2, 1, 4, 128000)
    again = pickle.loads(pickle.dumps(policy))
    for rank in (policy, again):
        rank.observe(4, 3, 1, 4, 128000)
        rank.refresh()
    assert policy.learned == again.learned
    assert again.learned.rounds == {(1, 1, 4): [2, 5]}
    assert policy == again


def resident():
    """Memory of this process; 0 where it is not told. [bytes]"""
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if told.exists() else 0


def endless(steps):
    """So many random decisions and observations; the policy stays sound and small."""
    policy, rng = policy_of(), random.Random(0)
    batches = [rng.randint(1, 10**6) for _ in range(50_000)]
    for batch in batches[: 2 * MOST_ROWS]:
        policy.decide(batch, batch * 1000)
    policy.observe(4, 2, 1, 4, 128000)
    policy.refresh()
    lengths, exact, nonsense, early = set(GAMMAS), [0, 0], 0, 0
    for step in range(steps):
        batch = batches[step % len(batches)] if step % 8 == 0 else step % 200 + 1
        context = batch * (step * 7919 % 60000 + 1)
        gamma = policy.decide(batch, context).gamma
        assert gamma in lengths
        accepted = step % (gamma + 1)
        policy.observe(gamma, accepted, 1, batch, context)
        exact[0] += gamma
        exact[1] += accepted
        if step % 16 == 0:
            policy.observe(gamma, gamma + 1, 1, batch, context)
            policy.observe_step_time(4, 128000, 4 if step % 32 else 0, 0.02 + 1e-3 * (step % 7))
            nonsense += 1
        if step % (steps // 50) == 0:
            policy.refresh()
            for (_, _, length), (rounds, kept) in policy.learned._memory.items():
                assert 0.0 <= kept <= length * rounds * (1 + 1e-12)
        if step == steps // 10:
            early = resident()
    assert resident() - early < 20 * 2**20
    figures = policy.figures()
    assert [figures.drafted - 4, figures.accepted - 2] == exact
    assert policy.nonsense == nonsense
    assert len(policy._table) <= MOST_ROWS
    assert math.isfinite(policy.shift)
    assert 0.5 < policy.learned.slower < 2.0
    assert sum(rounds for rounds, _ in policy.learned._memory.values()) <= MOST_ROUNDS * (1 + 1e-9)


def test_two_hundred_thousand_steps_drift_nowhere_and_stay_small():
    endless(200_000)


@pytest.mark.slow
def test_ten_million_steps_drift_nowhere_and_stay_small():
    endless(10_000_000)


def test_the_memory_is_that_of_an_exact_recomputation():
    learner, rng = Learner(), random.Random(0)
    exact, taken = {}, {}
    for step in range(200):
        for gamma in (1, 4):
            rounds = rng.randint(1, 1000) if step else 10**17  # a long life before
            learner.count((0, 0, gamma), rounds, rng.randint(0, gamma * rounds))
        learner.shift({(0, 0): (0.5, 0.5)})
        for place, counts in learner.rounds.items():
            before, kept = taken.get(place, (0, 0)), exact.get(place, (Fraction(0), Fraction(0)))
            exact[place] = tuple(old + new - was for old, new, was in zip(kept, counts, before, strict=True))
            taken[place] = tuple(counts)
        fade = min(Fraction(1), Fraction(MOST_ROUNDS) / sum(rounds for rounds, _ in exact.values()))
        exact = {place: tuple(count * fade for count in counts) for place, counts in exact.items()}
    for place, counts in learner._memory.items():
        assert counts == pytest.approx([float(count) for count in exact[place]], rel=1e-12)


def test_what_has_faded_is_forgotten_before_it_is_a_number_of_few_digits():
    learner = Learner()
    learner.count((0, 1, 4), 1000, 2000)
    for _ in range(20_000):
        learner.count((0, 0, 4), 2000, 3000)
        learner._remembered()
    assert list(learner._memory) == [(0, 0, 4)]
    learner.count((0, 1, 4), 1000, 2000)
    learner._remembered()
    assert learner._memory[0, 1, 4][0] > 100 * FEWEST_ROUNDS, "and it begins anew"


class Clock:
    """Seconds as they are set."""

    now = 1000.0

    def __call__(self):
        if isinstance(self.now, Exception):
            raise self.now
        return self.now


def test_a_clock_that_goes_backwards_begins_a_new_wait_and_one_that_jumps_acts_once():
    clock, acted = Clock(), []
    every = Every(60.0, lambda: acted.append(clock.now), clock)
    for now in (1059.0, 1060.0, 1061.0, 10.0, 69.0, 70.0, 1e9, 1e9 + 1, 1e9 + 61):
        clock.now = now
        every.tick()
    assert acted == [1060.0, 70.0, 1e9, 1e9 + 61]
    assert every.failures == 0


@pytest.mark.parametrize("now", [NAN, INF, -INF, None, "x", OSError("no clock"), 1j])
def test_a_clock_that_tells_no_time_is_counted_and_the_next_time_is_believed(now):
    clock, acted, failed = Clock(), [], []
    every = Every(60.0, lambda: acted.append(clock.now), clock, failed.append)
    clock.now = now
    every.tick()
    every.tick()
    assert (acted, every.failures, len(failed)) == ([], 2, 2)
    clock.now = 1060.0
    every.tick()
    assert acted == [1060.0]


def test_an_action_whose_failure_cannot_be_told_stops_nothing():
    every = Every(0.0, lambda: 1 / 0, Clock(), lambda error: error.none)
    every.tick()
    assert every.failures == 1


def test_the_figures_of_any_state_are_numbers_that_json_can_hold():
    policy = policy_of()
    for step in POISON:
        call(policy, step)
    policy.refresh()
    json.dumps(vars(policy.figures()), allow_nan=False)
