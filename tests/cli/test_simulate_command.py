"""`draftplan simulate`: policies compared in every form, refused by flag, gone on with after an end."""

from __future__ import annotations

import csv
import io
import json

import pytest
from asking import DRAFTS, SERVED, answered, refused, run

from perfmodel.cli.ask.traffic import read_policies, seconds
from perfmodel.deployment import Deployment
from perfmodel.errors import SpecError
from perfmodel.plots.traffic import goodput_by_tpot, plot_simulation
from perfmodel.traffic.metrics import Metrics
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.simulate import FixedGamma, simulate
from perfmodel.traffic.synthetic import synthetic_trace

TRAFFIC = ["--synthetic", "qps=4,prompt=8k,output=60,requests=30,seed=1"]
SIMULATE = ["simulate", *SERVED, *DRAFTS, *TRAFFIC, "--max-batch", "32"]


def test_policies_are_compared_in_a_table():
    policies = "none,fixed:2,schedule,adaptive"
    printed = answered(*SIMULATE, "--policy", policies, "--ttft", "2s", "--tpot", "20")
    for name in ("none", "fixed:2", "schedule", "adaptive"):
        assert sum(line.startswith(f"{name} ") for line in printed.splitlines()) == 2, "figures and causes"
    assert "Drafts: snapkv, draft KV budget 1,024" in printed
    assert "against the best single length" in printed
    for title in (
        "throughput",
        "goodput",
        "TTFT s",
        "TPOT ms",
        "ITL ms",
        "USD/M",
        "kWh/M",
        "KV full %",
        "attention",
    ):
        assert title in printed


def test_every_figure_is_in_json_and_csv_and_they_agree():
    asked = [*SIMULATE, "--policy", "none,fixed:2,schedule", "--ttft", "2s", "--speed", "1,2"]
    body = json.loads(answered(*asked, "--format", "json"))
    assert body["schema"] == "draftplan/simulation/1"
    assert [(row["policy"], row["speed"]) for row in body["policies"]] == [
        (name, speed) for speed in (1, 2) for name in ("none", "fixed:2", "schedule")
    ]
    assert body["trace"]["requests"] == 30
    assert {(lead["policy"], lead["figure"]) for lead in body["ahead_of_best_single_length"]} == {
        ("schedule", "throughput"), ("schedule", "goodput"),
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(answered(*asked, "--format", "csv"))))
    assert [float(row["tpot_p99_s"]) for row in rows] == [row["tpot_p99_s"] for row in body["policies"]]
    assert set(rows[0]) == set(body["policies"][0])


def test_a_trace_file_is_served_as_it_is(tmp_path):
    path = tmp_path / "day.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,5000,20\n0.1,3000,1\n9,100,5\n")
    body = json.loads(answered("simulate", path, *SERVED, "--policy", "none", "--format", "json"))
    assert body["trace"] == {
        "name": "day", "requests": 3, "prompt_tokens": 8100, "output_tokens": 26,
        "requests_per_s": pytest.approx(3 / 9),
    }  # fmt: skip
    assert body["drafter"] is None
    assert body["policies"][0]["idle_s"] > 8


def test_a_figure_is_drawn_and_nothing_is_left_beside_the_output(tmp_path):
    answered(
        *SIMULATE,
        "--policy",
        "none,fixed:2",
        "--plot",
        tmp_path / "a.svg",
        "-o",
        tmp_path / "a.json",
        "--tpot",
        20,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.svg"]
    assert b"</svg>" in (tmp_path / "a.svg").read_bytes()


def test_a_schedule_from_a_plan_file_is_followed(tmp_path):
    plan = ["plan", *SERVED, *DRAFTS, "--context", "1k:16k:x2", "-b", "1:32:x2", "--one-deployment"]
    answered(*plan, "--format", "json", "-o", tmp_path / "plan.json")
    body = json.loads(
        answered(*SIMULATE, "--policy", "schedule", "--plan", tmp_path / "plan.json", "--format", "json")
    )
    assert body["drafter"] == "snapkv"
    assert "deploys snapkv" in refused(
        "simulate", *SERVED, *TRAFFIC, "--strategy", "streaming_llm", "--plan", tmp_path / "plan.json"
    )


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path, monkeypatch):
    asked = [*SIMULATE, "--policy", "none,fixed:1,fixed:2", "--format", "json"]
    whole = answered(*asked)
    import perfmodel.traffic.runs as simulations

    run_case = simulations.run_case
    done = []

    def cut_off(case, progress=None):
        if done:
            raise KeyboardInterrupt
        done.append(case.policy.name)
        return run_case(case, progress)

    monkeypatch.setattr(simulations, "run_case", cut_off)
    result = run(*asked, "-o", tmp_path / "a.json")
    assert result.exit_code == 130
    assert "2 of 3 simulations are kept" in result.stderr
    assert [path.suffix[:6] for path in tmp_path.iterdir()] == [".parts"]
    monkeypatch.setattr(simulations, "run_case", lambda *given: (done.append("again"), run_case(*given))[1])
    result = run(*asked, "-o", tmp_path / "a.json")
    assert "goes on after 2 of 3 simulations" in result.stderr
    assert done == ["fixed:1", "again"]  # plain batching was simulated for the plan
    assert (tmp_path / "a.json").read_text() == whole
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_simulations_on_two_processes_answer_the_same():
    asked = [*SIMULATE, "--policy", "none,fixed:1,schedule,adaptive", "--format", "json"]
    assert answered(*asked, "--executor", "local:2") == answered(*asked)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "name no requests"),
        ([*TRAFFIC, "no.csv"], "are both given"),
        (["no.csv"], "no.csv: the file does not exist"),
        (["no.jsonl"], "Name a readable file"),
        (["--synthetic", "prompt=1k,output=9"], "or give --concurrency N"),
        (["--synthetic", "qps=2,promt=3"], "Did you mean 'prompt'"),
        ([*TRAFFIC, "--policy", "fixd:3"], "Did you mean 'fixed'"),
        ([*TRAFFIC, "--policy", "fixed"], "Known: none, fixed:N"),
        ([*TRAFFIC, "--policy", "fixed:65"], "0 to 64"),
        ([*TRAFFIC, "--policy", ","], "names no policy"),
        ([*TRAFFIC, "--ttft", "soon"], "--ttft"),
        ([*TRAFFIC, "--ttft", "0"], "above 0"),
        ([*TRAFFIC, "--speed", "0"], "--speed"),
        ([*TRAFFIC, "--speed", "1e9"], "below 1e9"),
        ([*TRAFFIC, "--plot", "a.jpg"], ".svg"),
        ([*TRAFFIC, "--tp", "1,2"], "draftplan size"),
        ([*TRAFFIC, "--executor", "cloud:9"], "--executor"),
        ([*TRAFFIC, "--plot", "a.svg", "--speed", "1,2,3,4,5,6,7,8,9"], "at most 8"),
    ],
)
def test_a_wrong_flag_is_named(flags, says):
    assert says in refused("simulate", *SERVED, *flags)


def test_a_request_that_never_fits_ends_with_the_exit_code_of_nothing_feasible():
    result = run(
        "simulate", *SERVED, "--synthetic", "qps=1,prompt=9m,output=5,requests=2,spread=0", "--policy", "none"
    )
    assert result.exit_code == 3
    assert "exceeds the KV cache" in result.stderr


def test_policies_and_times_are_read_as_people_write_them():
    assert read_policies("none, Fixed:3,fixed:0,schedule") == [("none", 0), ("fixed:3", 3), ("schedule", 0)]
    assert (seconds("30"), seconds("30ms"), seconds("2s"), seconds("1.5")) == (0.03, 0.03, 2.0, 0.0015)
    with pytest.raises(SpecError):
        seconds("-1")


def test_the_curve_of_a_policy_ends_at_its_throughput_and_says_what_meets_a_target():
    served = Replica(Deployment(*_loaded()))
    trace = synthetic_trace(requests=40, qps=3, prompt_tokens=4000, output_tokens=80)
    outcomes = [simulate(served, trace, FixedGamma(0))]
    ax = plot_simulation(outcomes, ttft=5.0, tpot=0.02)
    [curve] = [line for line in ax.get_lines() if line.get_label() == "none"]
    assert curve.get_ydata()[-1] == pytest.approx(
        outcomes[0].summary(ttft=5.0)["goodput_tokens_per_s"], rel=0.05
    )
    asked = 0.011
    [good] = goodput_by_tpot(outcomes[0], [asked])
    assert good == pytest.approx(outcomes[0].summary(tpot=asked)["goodput_tokens_per_s"])
    assert "[ms]" in ax.get_xlabel()
    assert "[tokens/s]" in ax.get_ylabel()
    assert isinstance(outcomes[0], Metrics)


def _loaded():
    from perfmodel import EngineOverhead, HardwareProfile, ModelSpec

    return HardwareProfile.load("h100-sxm-80gb"), ModelSpec.load("llama-3.1-8b"), EngineOverhead.load("ideal")


def test_contexts_and_output_length_of_a_schedule_count_without_batch_sizes():
    """What SnapKV reads grows with 16,000 output tokens, so the schedule deploys another budget or length."""

    def schedule(*asked: str) -> str:
        return run(
            "simulate", "--synthetic", "qps=2,prompt=8k,output=500,requests=20", "--model", "llama-3.1-8b",
            "--hardware", "h100-sxm-80gb", "--tp", "8", "--strategy", "snapkv", "--policy", "schedule",
            "--context", "8000", "--format", "json", *asked,
        ).stdout  # fmt: skip

    now, long = schedule("--output-tokens", "0"), schedule("--output-tokens", "16000")
    assert now
    assert now != long


# Closed loops, schedulers and benchmarks.

RESULT = {
    "model_id": "meta-llama/Llama-3.1-8B-Instruct", "num_prompts": 20, "request_rate": "inf",
    "burstiness": 1.0, "max_concurrency": 4, "duration": 5.0, "completed": 20, "total_input_tokens": 20_000,
    "total_output_tokens": 2000, "output_throughput": 400.0, "mean_ttft_ms": 60.0, "median_ttft_ms": 58.0,
    "p99_ttft_ms": 90.0, "mean_tpot_ms": 8.0, "median_tpot_ms": 7.9, "p99_tpot_ms": 9.0, "mean_itl_ms": 8.0,
    "median_itl_ms": 7.8, "p99_itl_ms": 30.0,
}  # fmt: skip


def test_a_closed_loop_needs_no_rate_and_says_how_many_are_in_flight():
    asked = (
        "simulate", *SERVED, "--policy", "none", "--synthetic", "prompt=1k,output=50,spread=0", "--requests",
        "24", "--concurrency", "4", "--warm-up", "8", "--format", "json",
    )  # fmt: skip
    body = json.loads(answered(*asked))
    (row,) = body["policies"]
    assert (body["trace"]["requests"], body["concurrency"], row["requests"]) == (24, 4, 16)
    assert body["scheduler"] == "mixed"
    assert row["itl_mean_s"] > 0.0
    assert row["itl_p95_s"] >= row["itl_p50_s"]
    assert "leaves none of 24" in refused(*asked[:-4], "--warm-up", "24")


def test_a_scheduler_brings_its_limits_where_none_are_given():
    asked = ("simulate", *SERVED, *TRAFFIC, "--policy", "none", "--format", "json", "--scheduler")
    own, given = (json.loads(answered(*asked, *more)) for more in (["vllm"], ["vllm", "--max-batch", "16"]))
    assert (own["max_batch"], own["max_step_tokens"]) == (1024, 8192)
    assert given["max_batch"] == 16
    assert json.loads(answered(*asked, "prefill-first"))["scheduler"] == "prefill-first"
    assert "sglang" in refused(*asked, "sglong")


def test_a_benchmark_is_reproduced_and_laid_beside(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(RESULT))
    asked = ("simulate", path, *SERVED)
    body = json.loads(answered(*asked, "--format", "json"))
    (run,) = body["runs"]
    assert (run["requests"], run["concurrency"], run["policy"]) == (20, 4, "none")
    by_name = {figure["figure"]: figure for figure in run["figures"]}
    assert by_name["TPOT median"]["measured"] == pytest.approx(7.9e-3)
    assert {"output throughput", "TTFT p99", "ITL median"} <= by_name.keys()
    assert "at most 4 in flight" in answered(*asked)
    for flag, value in (("--speed", "2"), ("--time-unit", "ms"), ("--ttft", "1s"), ("--tpot", "20")):
        assert f"Leave {flag} out" in refused(*asked, flag, value)


def test_published_runs_are_told_beside_their_simulation(monkeypatch):
    from perfmodel.traffic import published_runs

    wanted = ("ShareGPT-c1", "eagle3-c1", "a100-random-4000x200")
    some = [run for run in published_runs.published_runs() if run.benchmark.source.endswith(wanted)]
    monkeypatch.setattr(published_runs, "published_runs", lambda: tuple(some))
    printed = answered("validate", "--serving")
    assert "closed loop: output throughput" in printed
    assert "they draft trees" in printed
    body = json.loads(answered("validate", "--serving", "--format", "json"))
    assert body["limits"]["closed loop"]["TPOT median"] == 0.05
    assert {row["figure"] for row in body["figures"]} >= {"output throughput", "TTFT p99", "ITL median"}
    assert "--servers" in refused("validate", "--serving", "--servers")


def test_a_server_may_be_of_an_older_release():
    served = ["--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb"]
    plain = ["simulate", *TRAFFIC, "--policy", "none", *served]
    result = run(*plain, "--engine", "vllm@0.12.0")
    assert result.exit_code == 0, result.stderr
    printed = " ".join(result.stderr.split())
    assert "vllm@0.12.0: forward 425 us and row 38 us longer than in releases of today" in printed
    assert "nothing is known of releases of sglang" in refused(*plain, "--engine", "sglang@0.5")
