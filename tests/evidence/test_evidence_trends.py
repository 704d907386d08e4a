"""Trends that users measured: each is judged, and what a source leaves open is said."""

from collections import Counter

import pytest

from perfmodel.evidence.published.trends import AGREES, CANNOT_TELL, DISAGREES, check_trends


@pytest.fixture(scope="module")
def trends():
    return check_trends()


def test_no_published_trend_is_contradicted(trends):
    assert [trend for trend in trends if trend.verdict == DISAGREES] == []


def test_what_is_not_known_is_said_and_not_guessed(trends):
    for trend in trends:
        assert trend.verdict in (AGREES, CANNOT_TELL, DISAGREES)
        assert trend.reason
        if trend.tried == 0:
            assert trend.verdict == CANNOT_TELL
            assert "source does not" in trend.reason or "bundled" in trend.reason or "profile" in trend.reason


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
