"""`draftplan size`: the cheapest deployment in every form, refused by flag."""

from __future__ import annotations

import csv
import io
import json

import pytest
from asking import DRAFTS, SERVED, answered, asked, refused, run

SIZE = [
    "size", *SERVED, *DRAFTS, "--tp", "1,2", "--target-qps", "4", "--context", "8k", "--output-tokens", "200",
    "--ttft", "3s", "--tpot", "30",
]  # fmt: skip


def test_the_cheapest_deployment_is_named_with_its_margin_and_runners_up():
    printed = answered(*SIZE)
    first = next(line for line in printed.splitlines() if line.startswith("h100-sxm-80gb"))
    assert "Margin: " in printed
    assert printed.count("\nh100-sxm-80gb") >= 2
    assert "p90" in printed
    assert first.split()[1] in ("1", "2")


def test_an_answer_in_json_has_every_number_and_what_was_assumed():
    body = json.loads(answered(*SIZE, "--format", "json"))
    best = body["best"]
    assert best["gpus"] == best["replicas"] * best["tensor_parallel"]
    assert best["share_meeting_targets"] >= 0.9
    assert best["ttft_s"] <= 3.0
    assert best["tpot_s"] <= 0.03
    assert all(best["usd_per_hour"] <= other["usd_per_hour"] for other in body["runners_up"])
    assert "USD/h for h100-sxm-80gb" in body["assumed"][0]
    rows = list(csv.DictReader(io.StringIO(answered(*SIZE, "--format", "csv", "--runners-up", "0"))))
    assert [float(row["usd_per_hour"]) for row in rows] == [best["usd_per_hour"]]


def test_a_rent_of_your_own_counts_and_is_not_called_assumed():
    body = json.loads(answered(*SIZE, "--format", "json", "--price", "h100-sxm-80gb=28"))
    assert body["best"]["usd_per_hour"] == pytest.approx(28 * body["best"]["gpus"])
    assert body["assumed"] == []


def test_targets_that_nothing_meets_exit_with_three_and_the_nearest_miss():
    result = run(*SIZE, "--ttft", "1")
    assert result.exit_code == 3
    assert "misses the TTFT target" in result.stderr
    assert "nearest miss: 2 x h100-sxm-80gb" in result.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--target-qps", "0"], "--target-qps"),
        (["--output-tokens", "none"], "--output-tokens"),
        (["--context", "0"], "--context"),
        (["--price", "h100=x"], "--price"),
        (["--price", "l4-24gb=1"], "not among the accelerators"),
        (["--hardware", "h1000"], "--hardware"),
    ],
)
def test_a_wrong_flag_of_size_is_named(flags, says):
    assert says in refused(*SIZE, *flags)


def test_both_targets_are_asked_for():
    without = [flag for flag in SIZE if flag not in ("--ttft", "3s")]
    assert "--ttft, --tpot" in refused(*without)


def test_models_that_few_widths_suit_are_sized_at_those():
    flags = [flag for flag in SIZE if flag not in ("--tp", "1,2")]
    flags[flags.index("llama-3.1-8b")] = "qwen2.5-0.5b"
    result = run(*flags, "--context", "2k")
    assert result.exit_code in (0, 3), result.stderr

def test_every_accelerator_that_was_asked_about_has_a_row_or_a_reason():
    on = ["--model", "llama-3.1-70b", "--tp", "4", "--target-qps", "1", "--context", "4k", "--output-tokens",
          "200", "--ttft", "5s", "--tpot", "50", "--engine", "ideal", "--gamma", "0"]  # fmt: skip
    names = ["h100-sxm-80gb", "l40s-48gb", "l4-24gb", "h200-sxm-141gb"]
    result = run("size", *on, "--hardware", ",".join(names))
    assert result.exit_code == 0, result.stderr
    assert all(name in result.stdout for name in names)
    answer = asked("size", *on, "--hardware", ",".join(names))
    rows = {row["hardware"] for row in (answer["best"], *answer["runners_up"])}
    assert rows | set(answer["without"]) == set(names) and "l4-24gb" in answer["without"]
    assert "GiB a GPU" in answer["without"]["l4-24gb"]
