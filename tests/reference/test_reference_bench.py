"""What the loop must show on the machine at hand, by processor time; run with `make bench`."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from perfmodel.reference.demo.demo import SHAPE, run_demo  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.bench]


@pytest.fixture(scope="module")
def found():
    return run_demo(torch.device("cpu"), alpha=0.88, seconds=120.0, say=print)


def test_the_calibrated_model_tells_steps_that_it_did_not_see(found):
    errors = {one.kind: one.held_out for one in found.engine.errors}
    print(errors)
    assert max(errors[kind] for kind in ("target", "verify", "draft")) <= 0.12


def test_predicted_speedups_are_near_the_measured_ones_on_a_shape_that_is_all_cache(found):
    dialled = found.comparisons[0]
    assert (dialled.batch, dialled.context_len) == SHAPE == (4, 16384)
    print([(one.config.label, one.predicted_speedup, one.speedup) for one in dialled.trials])
    assert dialled.mean_error <= 0.12


def test_speculation_is_faster_than_plain_decoding(found):
    assert max(trial.speedup for trial in found.comparisons[0].trials) > 1.8


def test_the_plan_misses_little_of_the_best(found):
    regrets = [one.regret for one in found.comparisons]
    print(regrets)
    assert sum(regrets) / len(regrets) <= 0.06


def test_rounds_on_planted_answers_give_the_tokens_that_are_predicted(found):
    for trial in found.comparisons[1].trials:
        assert trial.tokens == pytest.approx(trial.expected_tokens, rel=0.05)


def test_no_output_differs_from_plain_decoding(found):
    assert [one.differing for one in found.comparisons] == [0, 0]
