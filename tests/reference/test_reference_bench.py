"""What the loop must show on the machine at hand, by processor time; run with `make bench`."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from perfmodel.reference.demo.demo import SHAPE, run_demo  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.bench]


@pytest.fixture(scope="module")
def result():
    return run_demo(torch.device("cpu"), alpha=0.88, seconds=120.0, say=print)


def test_the_calibrated_model_tells_steps_that_it_did_not_see(result):
    errors = {error.kind: error.held_out for error in result.engine.errors}
    print(errors)
    assert max(errors[kind] for kind in ("target", "verify", "draft")) <= 0.12


def test_predicted_speedups_are_near_the_measured_ones_on_a_shape_that_is_all_cache(result):
    dialled = result.comparisons[0]
    assert (dialled.batch, dialled.context_len) == SHAPE == (4, 16384)
    print([(trial.config.label, trial.predicted_speedup, trial.speedup) for trial in dialled.trials])
    assert dialled.mean_error <= 0.12


def test_speculation_is_faster_than_plain_decoding(result):
    assert max(trial.speedup for trial in result.comparisons[0].trials) > 1.8


def test_the_plan_misses_little_of_the_best(result):
    regrets = [comparison.regret for comparison in result.comparisons]
    print(regrets)
    assert sum(regrets) / len(regrets) <= 0.06


def test_rounds_on_planted_answers_give_the_tokens_that_are_predicted(result):
    for trial in result.comparisons[1].trials:
        assert trial.tokens == pytest.approx(trial.expected_tokens, rel=0.05)


def test_no_output_differs_from_plain_decoding(result):
    assert [comparison.differing for comparison in result.comparisons] == [0, 0]
