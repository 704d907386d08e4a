"""Trends that users measured: each is judged, and what a source leaves open is said."""

from collections import Counter

import pytest
from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.evidence.published.trends import CANNOT_TELL, check_trends


@pytest.fixture(scope="module")
def trends():
    return check_trends()


def test_no_published_trend_is_contradicted(trends):
    assert [trend for trend in trends if trend.verdict == "disagrees"] == []


def test_what_is_not_known_is_said_and_not_guessed(trends):
    for trend in trends:
        assert trend.left_out
        assert (trend.verdict == CANNOT_TELL) == (trend.agreeing not in (0, trend.tried) or not trend.tried)
        assert bool(trend.tried) == bool(trend.computed)
        assert not trend.tried or trend.left_out not in ("model", "a bundled model")


def test_only_what_can_be_told_is_printed_and_the_rest_is_counted_in_a_line(trends):
    result = CliRunner().invoke(app, ["validate"], prog_name="draftplan")
    printed = result.stdout[result.stdout.index("Trends that users measured") :].splitlines()
    told = [trend for trend in trends if trend.verdict != CANNOT_TELL]
    assert 0 < len(told) < len(trends)
    assert len(printed) == 1 + 2 + len(told) + 1
    assert printed[-1].startswith(f"{len(trends) - len(told)} more cannot be told")
    reasons = Counter(trend.left_out for trend in trends if trend.verdict == CANNOT_TELL)
    assert reasons["a bundled model"] > 0
    assert all(f"{reason} ({count})" in printed[-1] for reason, count in reasons.items())


def test_a_batch_that_does_not_fit_did_not_run(trends):
    """Of 256 requests at once, 94 GB hold the caches of some beside 61 GB of weights."""
    (asked,) = [each for each in trends if each.series == "vllm-48944 context 900"]
    assert asked.left_out.startswith("the batch that ran")


def test_sparse_self_drafting_pays_on_one_h100(trends):
    (sign,) = [
        one for one in trends if one.series == "vllm-47351 sparse self-draft" and one.question == "sign"
    ]
    assert sign.published == "pays"
    assert sign.agreeing > 0


def test_some_lengths_of_the_sglang_grid_are_met(trends):
    grid = [one for one in trends if one.series.startswith("sglang-22246 Qwen3-235B-A22B")]
    assert len(grid) == 7
    assert all(one.tried for one in grid)
    assert sum(one.agreeing for one in grid) / sum(one.tried for one in grid) > 0.5


def test_every_series_has_its_source(trends):
    assert all(one.source for one in trends)
    assert Counter(one.question for one in trends).keys() == {"sign", "length"}
