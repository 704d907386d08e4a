"""Plans and prices with acceptance that was measured, and what they say of measuring it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from simulated_logs import rounds_csv
from typer.testing import CliRunner

from perfmodel.acceptance.file import read_acceptance
from perfmodel.cli.app import app

PLACE = [
    "--strategy", "streaming_llm", "--model", "llama-3.1-8b", "--draft-budget", "512", "--context", "32k",
]  # fmt: skip
ON = [
    "--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--tp", "8", "--engine", "generic",
    "--context", "32k", "-b", "64",
]  # fmt: skip
WINDOW = [*ON, "--strategy", "streaming_llm", "--draft-budget", "512"]


def run(*arguments: object, **settings: object):
    return CliRunner().invoke(app, list(map(str, arguments)), prog_name="draftplan", **settings)


def cell_of(*flags: object) -> dict[str, object]:
    result = run("plan", *WINDOW, *flags, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["cells"][0]


def test_a_plan_takes_the_file_and_moves_with_it(log: Path) -> None:
    good, bad = log.parent / "good.json", log.parent / "bad.json"
    for out, mean in ((good, 0.94), (bad, 0.3)):
        log.write_text(rounds_csv(mean=mean, sd=0.04, gamma=6, rounds=80))
        assert run("acceptance", "fit", log, *PLACE, "-o", out).exit_code == 0
    law, better, worse = cell_of(), cell_of("--acceptance", good), cell_of("--acceptance", bad)
    assert law["alpha_kind"] == "published" and better["alpha_kind"] == "measured"
    assert worse["gamma"] == 0 < law["gamma"] < better["gamma"]
    assert better["alpha"] == pytest.approx(0.94, abs=0.02)
    assert run("explain", *WINDOW, "--acceptance", good).exit_code == 0


def test_ten_rounds_do_not_overthrow_a_thousand(log: Path) -> None:
    out = log.parent / "acceptance.json"
    log.write_text(rounds_csv(mean=0.88, sd=0.05, requests=40, rounds=50))
    run("acceptance", "fit", log, *PLACE, "-o", out)
    before = cell_of("--acceptance", out)
    log.write_text("request,round,drafted,accepted\n" + "".join(f"a,{k},4,{k % 2}\n" for k in range(10)))
    assert run("acceptance", "fit", log, *PLACE, "--add", "-o", out).exit_code == 0
    after = cell_of("--acceptance", out)
    assert len(read_acceptance(out)) == 2
    assert after["alpha"] == pytest.approx(before["alpha"], abs=0.01)
    assert after["speedup"] == pytest.approx(before["speedup"], rel=0.02)


def test_a_measurement_that_is_about_nothing_asked_is_said_to_be(log: Path) -> None:
    out = log.parent / "acceptance.json"
    run("acceptance", "fit", log, "--strategy", "snapkv", *PLACE[2:], "-o", out)
    place = "at budget 512, context 32,000"
    remark = f"the acceptance measured of snapkv for Llama-3.1-8B {place} is about nothing"
    assert remark in run("plan", *WINDOW, "--acceptance", out).stderr
    cases = log.parent / "cases.csv"
    cases.write_text(CASES)
    assert remark in run("price", cases, "--acceptance", out).stderr
    assert remark not in run("plan", *ON, "--acceptance", out).stderr


CASES = (
    "hardware,engine,tensor_parallel,target_model,draft_model,strategy,kv_budget,context_len,batch_size,gamma,"
    "acceptance_rate,tokens_per_round\n"
    "h100,magicdec-h100,8,llama-3.1-8b,,streaming_llm,512,32000,32,4,,\n"
    "h100,magicdec-h100,8,llama-3.1-8b,,streaming_llm,512,32000,32,4,0.8,\n"
    "h100,magicdec-h100,8,llama-3.1-8b,,streaming_llm,512,32000,32,4,,3.0\n"
    "h100,magicdec-h100,8,llama-3.1-8b,,none,,32000,32,0,,\n"
)


def test_cases_that_give_no_acceptance_are_priced_at_what_was_measured(log: Path) -> None:
    out, cases = log.parent / "acceptance.json", log.parent / "cases.csv"
    cases.write_text(CASES)
    log.write_text(rounds_csv(mean=0.94, sd=0.03, requests=80))
    run("acceptance", "fit", log, *PLACE, "-o", out)
    law, measured = (
        list(csv.DictReader(io.StringIO(run("price", cases, *flags).stdout)))
        for flags in ((), ("--acceptance", out))
    )
    assert float(measured[0]["tokens_per_round"]) == pytest.approx((1 - 0.94**5) / 0.06, rel=0.03)
    assert float(measured[0]["speedup"]) > float(law[0]["speedup"])
    assert measured[1:] == law[1:]
    refused = run("price", cases, "--acceptance", cases)
    assert refused.exit_code == 2 and refused.stdout == ""


def test_a_plan_says_what_measuring_would_be_worth_until_it_is_known() -> None:
    question = [*ON[:-4], "--context", "100k", "-b", "32"]
    sentence = re.search(r"^Measuring acceptance on about \d+ requests would be worth up to .*$",
                         run("plan", *question).stdout, re.MULTILINE)  # fmt: skip
    assert sentence is not None
    assert len(sentence.group()) < 200
    assert sentence.group() in run("explain", *question).stdout
    assert "Measuring acceptance" not in run("plan", *question, "--acceptance-rate", "0.8").stdout


def test_content_from_anywhere_breaks_windows_and_not_a_choice_by_the_query() -> None:
    window, query = (
        [cell_of("--strategy", name, "--far-share", share)["speedup"] for share in ("0", "40%")]
        for name in ("streaming_llm", "quest")
    )
    assert window[1] < 0.8 * window[0]
    assert query[1] >= query[0] > 1.2


def test_temperature_costs_a_small_model_acceptance_and_training_makes_a_head_read_further() -> None:
    def alpha(*flags: object) -> float:
        cells = json.loads(run("explain", *ON, *flags, "--gamma", "1", "--format", "json").stdout)
        (row,) = [row for row in cells["breakdown"]["by_gamma"] if row["gamma"] == 1]
        return row["tokens_per_round"] - 1.0

    small = ("--strategy", "full_kv", "--draft-model", "llama-3.2-1b")
    assert alpha(*small) == pytest.approx(0.69, abs=0.01)
    assert alpha(*small, "--temperature", "1") < 0.6
    head = ("--strategy", "eagle", "--draft-budget", "all")
    assert alpha(*head) < 0.4 < 0.6 < alpha(*head, "--trained-length", "64k")
    assert 0.4 < alpha("--strategy", "eagle", "--draft-budget", "4096") < 0.7


@pytest.mark.parametrize(
    ("flag", "value", "complaint"),
    [
        ("--far-share", "1.5", "Give a share from 0 to 1"),
        ("--temperature", "-1", "Give a temperature from 0 to 5"),
        ("--temperature", "warm", "found 'warm'"),
        ("--trained-length", "0", "1 or more"),
    ],
)
def test_conditions_that_cannot_be_are_refused(flag: str, value: str, complaint: str) -> None:
    result = run("plan", *WINDOW, flag, value)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {flag}: ")
    assert complaint in result.stderr
