"""`draftplan plan`: what it answers, in every format, under every kind of flag."""

from __future__ import annotations

import csv
import io

import pytest
import yaml
from asking import CELL, ON, QUICK, asked, run


def test_a_plan_is_a_table_with_a_reason_for_every_cell():
    result = run("plan", *ON, "--context", "32k", "--batch-size", "32,64,128")
    assert result.exit_code == 0
    for title in (
        "batch",
        "context",
        "strategy",
        "budget",
        "gamma",
        "round",
        "TPOT",
        "plain",
        "speedup",
        "bound by",
    ):
        assert title in result.stdout
    for batch in (32, 64, 128):
        assert f"batch {batch}: " in result.stdout
    assert "Llama-3.1-8B (bf16 weights, bf16 KV) on 8 x h100-sxm-80gb, engine ideal" in result.stdout
    assert "tokens of context larger batches make speculation pay more" in result.stdout
    assert "next best" in result.stdout
    assert "things are assumed: --explain lists all" in result.stdout
    assert result.stderr == ""


def test_a_plan_as_json_says_what_it_is_for_and_answers_every_cell():
    body = asked("plan", *ON, "--context", "8k,32k", "--batch-size", "32,64")
    wanted = {
        "batch_size", "context_len", "strategy", "draft_model", "kv_budget", "gamma", "tokens_per_round",
        "tpot_s", "baseline_s", "speedup", "bound_by",
    }  # fmt: skip
    assert [(cell["batch_size"], cell["context_len"]) for cell in body["cells"]] == [
        (32, 8000), (32, 32000), (64, 8000), (64, 32000),
    ]  # fmt: skip
    assert all(wanted <= set(cell) for cell in body["cells"])
    assert {"hardware", "model", "engine", "versions", "assumed", "inflection_context_len"} <= set(body)
    for cell in body["cells"]:
        assert cell["speedup"] == pytest.approx(cell["baseline_s"] / cell["tpot_s"])
        assert cell["speedup"] >= 1.0


def test_every_format_tells_the_same(tmp_path):
    body = asked("plan", *CELL)
    assert yaml.safe_load(run("plan", *CELL, "--format", "yaml").stdout) == body
    (row,) = csv.DictReader(io.StringIO(run("plan", *CELL, "--format", "csv").stdout))
    (cell,) = body["cells"]
    assert float(row["speedup"]) == cell["speedup"]
    assert (row["strategy"], int(row["gamma"])) == (cell["strategy"], cell["gamma"])
    for ending in ("json", "yaml", "csv"):
        target = tmp_path / f"plan.{ending}"
        result = run("plan", *CELL, "-o", target)
        assert (result.exit_code, result.stdout) == (0, "")
        assert target.read_text() == run("plan", *CELL, "--format", ending).stdout


def test_the_same_question_gets_the_same_text():
    assert run("plan", *CELL).stdout == run("plan", *CELL).stdout


def test_a_plan_without_an_engine_says_which_it_assumed():
    result = run("plan", *ON[:-2], "--context", "32k", "-b", "8", *QUICK)
    assert result.exit_code == 0
    assert "no --engine is named" in result.stderr
    assert "engine" not in result.stderr.replace("--engine", "") or "generic" in result.stderr


@pytest.mark.parametrize(
    ("written", "meant"),
    [("32k", [32000]), ("32K", [32768]), ("4k,8k", [4000, 8000]), ("1k:8k:x2", [1000, 2000, 4000, 8000]),
     ("8k:32k:8k", [8000, 16000, 24000, 32000])],
)  # fmt: skip
def test_lists_and_ranges_of_contexts(written, meant):
    body = asked("plan", *ON, *QUICK, "--context", written, "-b", "4")
    assert [cell["context_len"] for cell in body["cells"]] == meant


def test_other_tools_names_of_flags_mean_the_same():
    ours = asked("plan", *CELL, "--gamma", "2", "--draft-model", "llama-3.2-1b", "--tpot", "100")
    theirs = asked(
        "plan", "--model-path", "llama-3.1-8b", "--system", "h100-sxm-80gb", "--tensor-parallel-size", "8",
        "--engine", "ideal", "--isl", "32k", "--bs", "64", "--num-speculative-tokens", "2", "--spec-model",
        "llama-3.2-1b", "--tpot-sla-ms", "100",
    )  # fmt: skip
    assert theirs == ours


def test_gamma_zero_alone_is_plain_decoding():
    (cell,) = asked("plan", *CELL, "--gamma", "0")["cells"]
    assert (cell["strategy"], cell["gamma"], cell["speedup"]) == ("none", 0, 1.0)


def test_named_strategies_and_budgets_are_the_only_ones():
    (cell,) = asked("plan", *CELL, "--strategy", "StreamingLLM", "--draft-budget", "256", "--gamma", "3")[
        "cells"
    ]
    assert (cell["strategy"], cell["kv_budget"], cell["gamma"]) == ("streaming_llm", 256, 3)


def test_named_draft_models_draft_alone_beside_a_strategy_and_with_the_target_where_it_is_named():
    only = asked("explain", *CELL, "--strategy", "snapkv", "--draft-model", "llama-3.2-1b")
    both = asked("explain", *CELL, "--strategy", "snapkv", "--draft-model", "self,llama-3.2-1b")
    assert {option["drafter"] for option in only["breakdown"]["options"]} == {"none", "snapkv(Llama-3.2-1B)"}
    assert {option["drafter"] for option in both["breakdown"]["options"]} == {
        "none",
        "snapkv",
        "snapkv(Llama-3.2-1B)",
    }


def test_all_strategies_can_be_searched():
    options = asked("explain", *CELL, "--strategy", "all", "--draft-model", "self,llama-3.2-1b")["breakdown"][
        "options"
    ]
    names = {option["drafter"].partition("(")[0] for option in options}
    import strategies

    assert names == {"none", *strategies.available()} - {"mtp"}  # Llama has no layer that it could run


def test_a_measured_acceptance_replaces_the_laws():
    low = asked("plan", *CELL, *QUICK, "--acceptance-rate", "0.5")["cells"][0]
    high = asked("plan", *CELL, *QUICK, "--acceptance-rate", "95%")["cells"][0]
    assert high["tokens_per_round"] > low["tokens_per_round"]
    assert high["alpha"] == 0.95


def test_an_acceptance_length_counts_the_bonus_token():
    length = 1 + 0.8 + 0.8**2 + 0.8**3
    from_length = asked("plan", *CELL, *QUICK, "--acceptance-length", f"{length}@3")["cells"][0]
    rate = asked("plan", *CELL, *QUICK, "--acceptance-rate", "0.8")["cells"][0]
    assert from_length["alpha"] == pytest.approx(0.8)
    assert from_length["tpot_s"] == pytest.approx(rate["tpot_s"])
    alone = asked("plan", *CELL, "--gamma", "3", "--acceptance-length", length)["cells"][0]
    assert alone["alpha"] == pytest.approx(0.8)


def test_dtypes_and_memory_change_the_answer():
    plain = asked("plan", *CELL, *QUICK)["cells"][0]
    small = asked("plan", *CELL, *QUICK, "--kv-cache-dtype", "fp8", "--weight-dtype", "fp8")
    assert small["request"]["kv_dtype"] == small["request"]["weight_dtype"] == "fp8"
    assert small["cells"][0]["memory_bytes_per_gpu"] < plain["memory_bytes_per_gpu"]
    assert small["cells"][0]["baseline_s"] < plain["baseline_s"]
    assert asked("plan", *CELL, *QUICK, "--kv-cache-dtype", "auto")["request"]["kv_dtype"] == "bf16"
    assert run("plan", *CELL, *QUICK, "--gpu-memory-utilization", "0.05").exit_code == 3


def test_lossy_alternatives_are_marked_and_never_chosen():
    plain = asked("plan", *CELL)
    lossy = asked("plan", *CELL, "--lossy", "--pruned", "25%,0.5")
    assert lossy["cells"] == plain["cells"]
    assert "lossy_alternatives" not in plain
    changes = [change["change"] for change in lossy["lossy_alternatives"]]
    assert {"fp8 weights", "fp8 KV", "fp8 weights and KV", "25% pruned", "50% pruned"} <= set(changes)
    for change in lossy["lossy_alternatives"]:
        assert change["lossy"] is True
        assert change["speedup"] == pytest.approx(plain["cells"][0]["baseline_s"] / change["plain_tpot_s"])
        assert change["speedup"] > 1.0
        assert change["speculating_speedup"] >= change["speedup"] * (1 - 1e-12)
    table = run("plan", *CELL, "--lossy")
    assert "fp8 KV (lossy)" in table.stdout
    rows = list(csv.DictReader(io.StringIO(run("plan", *CELL, "--lossy", "--format", "csv").stdout)))
    assert rows[0]["change"] == ""
    assert all(row["change"].endswith("(lossy)") for row in rows[1:])


def test_a_lossy_change_can_make_feasible_what_is_not():
    result = run("plan", *ON, "--context", "32k", "-b", "200", *QUICK, "--lossy")
    assert result.exit_code == 3
    assert "fp8 KV (lossy), batch 200 at context 32000 is feasible" in result.stderr


def test_several_accelerators_and_widths_are_shown_where_they_differ():
    both = ["--model", "llama-3.1-8b", "--hardware", "a100,h100", "--tp", "1,8", "--engine", "ideal", *QUICK]
    result = run("plan", *both, "--context", "32k", "-b", "1,32")
    assert result.exit_code == 0
    body = asked("plan", *both, "--context", "32k", "-b", "1,32", "--objective", "throughput")
    assert {cell["hardware"] for cell in body["cells"]} == {"h100-sxm-80gb"}


def test_cells_without_an_answer_are_named():
    result = run("plan", *ON, "--context", "32k", "-b", "8,1000", *QUICK)
    assert result.exit_code == 0
    assert "nothing is feasible for batch 1000 at context 32000" in result.stderr
    assert "does not fit in memory" in result.stderr


def test_a_context_beyond_the_model_is_remarked_on():
    assert "131072" in run("plan", *ON, "--context", "200k", "-b", "1", *QUICK).stderr
