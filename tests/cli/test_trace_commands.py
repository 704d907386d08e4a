"""`draftplan simulate TRACE`: what is said of a trace, its unit of time, and the prefixes that it shares."""

from __future__ import annotations

import json

import pytest
from asking import SERVED, answered, refused, run


def written(tmp_path, rows):
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def requests(times, shared=96, own=4, **further):
    """Requests of blocks of 512 tokens, of which the first ones are the same in all."""
    return [
        {
            "timestamp": time, "input_length": 512 * (shared + own), "output_length": 20,
            "hash_ids": [*range(shared), *range(1000 * (1 + index), 1000 * (1 + index) + own)],
        } | further
        for index, time in enumerate(times)
    ]  # fmt: skip


def simulated(*arguments):
    result = run("simulate", *arguments, *SERVED, "--policy", "none", "--format", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def test_what_repeats_is_told_and_prefilled_once(tmp_path):
    path = written(tmp_path, requests(range(0, 2400, 100)))
    body, notes = simulated(path)
    (row,) = body["policies"]
    assert "92% of the prompt tokens repeat a prefix of an earlier request" in notes
    assert row["prefix_cache_hit_rate"] == pytest.approx(0.92, abs=0.005)
    assert row["cached_tokens"] + row["prefilled_tokens"] >= body["trace"]["prompt_tokens"]

    body, notes = simulated(path, "--no-prefix-cache")
    (whole,) = body["policies"]
    assert "upper bounds" in notes
    assert "prefix_cache_hit_rate" not in whole
    assert whole["prefilled_tokens"] >= body["trace"]["prompt_tokens"]
    assert whole["ttft_p50_s"] > 5 * row["ttft_p50_s"]


def test_hits_are_a_column_of_the_table_only_where_prefixes_are_known(tmp_path):
    path = written(tmp_path, requests([0, 100]))
    asked = ["simulate", path, *SERVED, "--policy", "none"]
    assert "hits %" in answered(*asked)
    assert "hits %" not in answered(*asked, "--no-prefix-cache")


def test_seconds_and_milliseconds_are_told_apart_and_can_be_named(tmp_path):
    path = written(tmp_path, requests([0, 3000, 15000], shared=0, own=1))
    body, notes = simulated(path)
    assert body["trace"]["requests_per_s"] == pytest.approx(3 / 15)
    assert "taken as ms" in notes
    assert "--time-unit" in notes
    body, notes = simulated(path, "--time-unit", "seconds")
    assert body["trace"]["requests_per_s"] == pytest.approx(3 / 15000)
    assert "taken as" not in notes


def test_a_unit_that_is_none_is_refused_by_its_flag(tmp_path):
    path = written(tmp_path, requests([0]))
    refusal = refused("simulate", path, *SERVED, "--time-unit", "minutes")
    assert "--time-unit" in refusal and "milliseconds" in refusal


def test_rows_that_are_left_out_are_counted(tmp_path):
    rows = [*requests([0, 1000, 2000]), *requests([3000], output_length=0)]
    body, notes = simulated(written(tmp_path, rows))
    assert body["trace"]["requests"] == 3
    assert "1 of 4 rows put out nothing" in notes


def test_a_closed_loop_over_a_trace_says_what_becomes_of_its_times(tmp_path):
    _, notes = simulated(written(tmp_path, requests([0, 3000])), "--concurrency", "1")
    assert "requests arrive as in the trace, of which at most 1 are in flight" in notes
    timeless = [{key: row[key] for key in ("input_length", "output_length")} for row in requests([0, 0])]
    body, notes = simulated(written(tmp_path, timeless), "--concurrency", "1")
    assert body["trace"]["requests"] == 2
    assert "each is sent when one in flight is answered" in notes
