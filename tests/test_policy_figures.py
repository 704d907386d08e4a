"""What a policy shows of itself: counters that add up, text that Prometheus reads, one line a minute."""

import logging
import pickle
import random
import re

import pytest
from random_plans import cell_of, plan_of

from perfmodel.acceptance.logs import read_log
from perfmodel.policy import SpeculationPolicy
from perfmodel.policy_figures import Every, MinuteLine

GAMMAS = (0, 1, 2, 4)
GOOD = {"alpha": 0.8, "baseline": 0.02, "draft": 0.1, "verify": 0.01}
BAD = {"alpha": 0.2, "baseline": 0.02, "draft": 0.4, "verify": 0.1}
FAMILY = re.compile(
    r"# HELP (draftplan_\w+) .+\n# TYPE \1 (counter|gauge)\n((?:\1(?:\{\w+=\"[^\"]*\"\})? \S+\n)+)"
)


@pytest.fixture
def policy():
    """Speculates where the context is long."""
    cells = [
        cell_of(batch, context, GAMMAS, **(GOOD if context > 5000 else BAD))
        for batch in (4, 64)
        for context in (1000, 32000)
    ]
    return SpeculationPolicy.from_plan(plan_of(cells, GAMMAS))


def served(policy, steps=3000, seed=0):
    """A loop of random batches that answers with its own counts: decisions by length, sides, rounds."""
    rng, by_length = random.Random(seed), dict.fromkeys(GAMMAS, 0)
    outside, counted = [0, 0, 0, 0], [0, 0, 0, 0]
    for _ in range(steps):
        batch, context = rng.randint(1, 100), rng.randint(100, 60000)
        gamma = policy.decide(batch, batch * context).gamma
        by_length[gamma] += 1
        sides = (batch > 64, batch < 4, context > 32000, context < 1000)
        outside = [count + side for count, side in zip(outside, sides, strict=True)]
        accepted = rng.randint(0, gamma)
        policy.observe(gamma, accepted, 1, batch, batch * context)
        new = (gamma > 0, gamma == 0, gamma, accepted)
        counted = [count + more for count, more in zip(counted, new, strict=True)]
    return by_length, outside, counted


def values_of(text):
    """Name with its label -> value of a scrape."""
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    }


def test_every_decision_and_round_is_counted_once_and_under_what_it_was(policy):
    by_length, outside, counted = served(policy)
    figures = policy.figures()
    assert figures.decisions == by_length
    assert figures.decided == 3000
    assert [*figures.clamped.values()] == [*outside, 0]
    assert [figures.drafting, figures.idle, figures.drafted, figures.accepted] == counted
    policy.refresh()
    assert policy.figures().decisions == by_length, "a new table goes on counting"
    assert pickle.loads(pickle.dumps(policy)).figures() == policy.figures()


def test_lengths_of_single_sequences_count_too(policy):
    policy.decide_each([900, 32000, 70000])
    figures = policy.figures()
    assert figures.decided == 3
    assert (figures.clamped["context below"], figures.clamped["context above"]) == (1, 1)


def test_rounds_counted_together_keep_their_drafted_tokens(policy):
    policy.observe(7, 3, 2, 4, 128000)
    policy.observe(25, 20, 10, 4, 128000)
    figures = policy.figures()
    assert (figures.drafting, figures.drafted, figures.accepted) == (12, 32, 23)


def test_the_text_is_whole_families_that_give_the_figures_back(policy):
    by_length, _, (_, idle, _, _) = served(policy)
    policy.failures, policy.not_captured = 2, 5
    policy.observe(-1, 0)
    policy.refresh()
    text = policy.metrics()
    assert FAMILY.sub("", text) == ""
    values = values_of(text)
    for length, count in by_length.items():
        assert values[f'draftplan_decisions_total{{length="{length}"}}'] == count
    assert values['draftplan_clamped_total{reason="length not captured"}'] == 5
    assert values["draftplan_acceptance_shift_logit"] == policy.shift
    assert values["draftplan_failures_total"] == 2
    assert values["draftplan_nonsense_total"] == 1
    assert values["draftplan_idle_rounds_total"] == idle
    assert values["draftplan_planned_length_tokens"] == GAMMAS[policy.last_gamma_index]


def test_our_own_reader_reads_it(policy, tmp_path):
    _, _, (drafting, _, _, accepted) = served(policy)
    before = policy.metrics()
    served(policy, seed=1)
    scrapes = tmp_path / "scrapes.txt"
    scrapes.write_text(before + policy.metrics())
    counts = read_log(scrapes)
    after = policy.figures()
    assert counts.rounds.sum() == after.drafting - drafting > 0
    assert counts.accepted.sum() == after.accepted - accepted > 0


def test_the_prometheus_client_reads_it_and_exposes_the_same(policy):
    client = pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    from perfmodel.integrations.prometheus import expose

    registry = client.CollectorRegistry()
    update = expose(policy.figures, registry)
    served(policy)
    policy.refresh()
    update()
    update()
    wanted = values_of(policy.metrics())
    for text in (policy.metrics(), client.generate_latest(registry).decode()):
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        read = {
            sample.name + "".join(f'{{{key}="{each}"}}' for key, each in sample.labels.items()): sample.value
            for sample in samples
            if not sample.name.endswith("_created")
        }
        assert read == wanted


def test_without_the_prometheus_client_nothing_is_exposed(policy, monkeypatch):
    import sys

    from perfmodel.integrations.prometheus import expose

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert expose(policy.figures) is None


class Clock:
    """Seconds that pass when they are told to, and how often they were asked for."""

    def __init__(self):
        self.now, self.asked = 0.0, 0

    def __call__(self):
        self.asked += 1
        return self.now


def test_one_line_a_minute_says_what_happened_in_it(policy, caplog):
    caplog.set_level(logging.INFO, "vllm.draftplan")
    clock, read = Clock(), []
    line = MinuteLine(lambda: read.append(None) or policy.figures(), "vllm.draftplan", clock=clock)
    for second in range(1, 181):
        clock.now = float(second)
        gamma = policy.decide(4, 4 * (32000 if second <= 120 else 1000)).gamma
        policy.observe(gamma, gamma // 2, 1, 4, 128000)
        line.tick()
    first, second, third = (record.getMessage() for record in caplog.records)
    assert {record.name for record in caplog.records} == {"vllm.draftplan"}
    assert first == second == (
        "draftplan: length 4, 60 decisions (4: 100%), drafted 240, accepted 120 (50%), learned shift +0.00, "
        "clamped: none, nonsense 0, failures 0"
    )
    assert third.startswith("draftplan: length 0, 60 decisions (0: 100%), drafted 0, accepted 0, 60 rounds")
    assert len(read) == 4, "in between nothing is read"


def test_what_the_action_raises_stops_nothing():
    clock = Clock()
    every = Every(5.0, lambda: 1 / 0, clock)
    for second in range(20):
        clock.now = float(second)
        every.tick()
    assert every.failures == 3


@pytest.mark.bench
def test_counting_and_deciding_take_less_than_half_a_microsecond(policy, capsys):
    from statistics import median
    from time import perf_counter_ns

    rng = random.Random(0)
    asked = [((n := rng.randint(1, 100)), n * rng.randint(100, 60000)) for _ in range(1000)]
    seen = [((drafted := rng.randint(1, 4)), rng.randint(0, drafted), 1, *place) for place in asked]
    line = MinuteLine(policy.figures)
    taken = {}
    for name, call, arguments in (
        ("decide", policy.decide, asked),
        ("observe", policy.observe, seen),
        ("tick", line.tick, [()] * 1000),
    ):
        times = []
        for _ in range(200):
            before = perf_counter_ns()
            for each in arguments:
                call(*each)
            times.append((perf_counter_ns() - before) / len(arguments))
        taken[name] = median(times)
    with capsys.disabled():
        print({name: f"{time:.0f} ns" for name, time in taken.items()})
    assert max(taken["decide"], taken["observe"]) < 500
