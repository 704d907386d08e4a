"""Benchmarks of closed loops back into the model: points, acceptance, traffic, plans held against them."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from closed_loops import H100, LLAMA, TOKENS, TRUE, benchmark, step_of, vllm_file
from hostile import FLAGS, SEEN, UNSEEN, words_of
from typer.testing import CliRunner

import perfmodel
import strategies
from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.file import read_acceptance
from perfmodel.benchmarks import Times
from perfmodel.cli.app import app
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.loop.check import CAUSES, check_run, deployed, speedups
from perfmodel.evidence.loop.points import acceptance_of, points_of_benchmarks, traffic_of
from perfmodel.evidence.loop.run import served_run
from perfmodel.workload import Workload

ON = {"hardware": "h100-sxm-80gb", "target_model": "llama-3.1-8b", "tensor_parallel": "1"}
NAMED = ("--model", "--hardware", "--engine")
LOOPS = [(1, 1000, 500, 0), (8, 4000, 500, 0), (32, 2000, 300, 0), (8, 4000, 500, 3)]


# What a server did.


@pytest.mark.parametrize("loop", LOOPS)
def test_prompts_are_taken_out_of_tpot_and_the_step_is_left(loop):
    run = served_run(benchmark(*loop))
    taken = run.round_seconds(Deployment(H100, LLAMA, TRUE))
    assert taken == pytest.approx(step_of(*loop), rel=0.01)
    assert run.batch == pytest.approx(loop[0], rel=0.05) and run.batch <= loop[0]
    assert run.gamma == loop[3] and run.tokens_per_round == pytest.approx(TOKENS if loop[3] else 1.0)


def test_one_request_at_a_time_meets_no_prompts_of_others():
    run = served_run(benchmark(1, 4000, 500))
    assert run.joined == 0.0
    assert run.with_prefill(0.01, Deployment(H100, LLAMA, TRUE)) == pytest.approx(0.01)


def test_a_plain_stream_tells_its_step_by_the_median_between_tokens():
    run = served_run(benchmark(8, 4000, 500, itl=Times(median=0.009)))
    assert run.round_seconds(Deployment(H100, LLAMA, TRUE)) == 0.009
    chunked = served_run(benchmark(8, 4000, 500, itl=Times(median=3e-6)))
    assert chunked.plain_step is None


def test_rounds_that_drafted_nothing_are_rounds():
    counts = benchmark(8, 4000, 500, 3).drafts
    idle = AcceptanceCounts(
        unit="total", rounds=counts.rounds, drafted=counts.drafted, accepted=counts.accepted,
        gamma=counts.gamma, idle=counts.rounds,
    )  # fmt: skip
    run = served_run(benchmark(8, 4000, 500, 3, drafts=idle))
    assert run.gamma == pytest.approx(1.5) and run.tokens_per_round == pytest.approx(1.0 + 0.6)


def test_a_benchmark_without_any_time_per_token_is_refused():
    silent = benchmark(8, 4000, 500, tpot=Times(), latency=Times(), ttft=Times())
    with pytest.raises(SpecError, match="no time per output token"):
        served_run(silent)


def test_a_tpot_that_its_prompts_alone_exceed_is_refused():
    run = served_run(benchmark(32, 2000, 300, tpot=Times(mean=1e-4), output_throughput=None))
    with pytest.raises(SpecError, match="prompts of others alone"):
        run.round_seconds(Deployment(H100, LLAMA, TRUE))


# Points, acceptance, traffic.


def test_points_are_the_steps_at_their_batch_and_context():
    rows, remarks = points_of_benchmarks(
        [benchmark(*loop) for loop in LOOPS], start=TRUE, given={**ON, "strategy": "eagle"}
    )
    assert [row.context_len for row in rows] == [1250, 4250, 2150, 4250]
    assert [row.gamma for row in rows] == [0.0, 0.0, 0.0, 3.0]
    for row, loop in zip(rows, LOOPS, strict=True):
        assert (row.round if loop[3] else row.target) == pytest.approx(step_of(*loop), rel=0.01)
        assert abs(row.batch - loop[0]) <= 1
    assert "for prompts of others, as they are priced" in remarks[1]
    assert rows[3].tokens_per_round == pytest.approx(TOKENS)
    (entry,) = acceptance_of([benchmark(*loop) for loop in LOOPS], rows)
    assert (entry.strategy, entry.context_len, entry.gamma) == ("eagle", 4250.0, 3)


def test_lengths_of_a_schedule_are_a_mean_that_need_not_be_whole():
    """754 rounds of `vllm bench serve` 0.32 drafted 778 tokens, of which all were accepted."""
    counts = AcceptanceCounts(
        unit="total", rounds=np.array([754.0]), drafted=np.array([778.0]), accepted=np.array([778.0]),
        gamma=np.array([4.0]),
    )  # fmt: skip
    runs = [benchmark(4, 640, 64, 1, drafts=counts)]
    (row,), _ = points_of_benchmarks(runs, start=TRUE, given={**ON, "strategy": "eagle"})
    assert row.gamma == pytest.approx(778 / 754)
    assert row.tokens_per_round == pytest.approx(1.0 + 778 / 754)


def test_a_benchmark_that_drafted_needs_to_know_with_what():
    with pytest.raises(SpecError, match="strategy"):
        points_of_benchmarks([benchmark(8, 4000, 500, 3)], start=TRUE, given=ON)


def test_traffic_asks_for_the_same_requests():
    from perfmodel.traffic.synthetic import parse_synthetic

    lengths = np.array([1000, 3000]), np.array([100, 300])
    traffic = traffic_of(
        benchmark(8, 2000, 200, prompt_lengths=lengths[0], output_lengths=lengths[1], request_rate=2.0)
    )
    trace = parse_synthetic(traffic["simulate"])
    assert trace.prompt_tokens.size == 160 and not traffic["closed_loop"]
    assert trace.prompt_tokens.mean() == pytest.approx(2000, rel=0.2)
    assert traffic["spread"] == pytest.approx(np.log(3.0) / 2.0)
    assert traffic["plan"].startswith("--context 2000 --output-tokens 200 --batch-size ")


# A plan held against a run.


@pytest.fixture(scope="module")
def plan():
    return perfmodel.plan(
        H100, LLAMA, EngineOverhead.load("vllm"), Workload((1, 8, 32), (1000, 4000), output_tokens=500),
        drafters=[Drafter(strategies.load("eagle"))], one_deployment=True,
    )  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
def test_shares_add_up_to_the_whole_difference(plan, loop):
    checked = check_run(deployed(plan), benchmark(*loop))
    assert tuple(checked.shares) == tuple(CAUSES)
    whole = checked.measured_tpot - checked.predicted_tpot
    assert sum(checked.shares.values()) == pytest.approx(whole, abs=1e-12)


def test_a_server_that_does_what_is_priced_differs_by_nothing_but_place_and_prompts(plan):
    engine = EngineOverhead.load("vllm").on(H100)
    for loop in LOOPS:
        checked = check_run(deployed(plan), benchmark(*loop, engine=engine))
        assert abs(checked.shares["step"]) < 0.01 * checked.measured_tpot
        assert abs(checked.shares["figures"]) < 1e-9


def test_a_slower_step_is_the_steps_own(plan):
    checked = check_run(deployed(plan), benchmark(8, 4000, 500))
    plain = EngineOverhead.load("vllm").on(H100)
    more = step_of(8, 4000, 500, 0) - step_of(8, 4000, 500, 0, plain)
    assert checked.shares["step"] == pytest.approx(more, rel=0.1)
    assert any("-o ours.yaml" in each.command for each in checked.advice)


def test_what_is_advised_runs_as_it_stands_with_the_files_that_were_named(plan, tmp_path):
    bundled = Path(perfmodel.__file__).parent / "data" / "engines" / "vllm-h100.yaml"
    engine = tmp_path / "my engines" / bundled.name
    engine.parent.mkdir()
    engine.write_text(bundled.read_text(encoding="utf-8"), encoding="utf-8")
    vllm_file(tmp_path, "eagle.json", run := benchmark(8, 4000, 500, 3))
    at = replace(run, source=f"{tmp_path / 'eagle.json'}:1", tpot=Times(mean=3.0 * run.tpot.mean))
    planned = deployed(plan, str(tmp_path / "plan.json"), engine=str(engine))
    advised = {each.command.split()[1]: each.command for each in check_run(planned, at).advice}
    assert shlex.quote(str(engine)) in advised["calibrate"]
    report = run_cli(*shlex.split(advised["simulate"])[1:])
    assert report.exit_code == 0, report.stderr


def test_what_is_advised_is_quoted_whatever_files_and_names_are_called(plan, tmp_path):
    run = benchmark(8, 4000, 500, 3)
    for name in (*SEEN.values(), *FLAGS.values(), UNSEEN["escape"], UNSEEN["newline"], UNSEEN["no utf-8"]):
        at = replace(run, source=f"{name}:1", tpot=Times(mean=3.0 * run.tpot.mean))
        planned = replace(deployed(plan), model=name, hardware=name, engine=name, file=name)
        advised = [each.command for each in check_run(planned, at).advice if each.command]
        words, left = words_of([each.removeprefix("draftplan ") for each in advised], tmp_path)
        assert left == [] and {each[0] for each in words} >= {"calibrate", "simulate"}
        file = f"./{name}" if name.startswith("-") else name
        for each in words:
            assert all(each[at + 1] == name for at, word in enumerate(each) if word in NAMED)
            assert each[0] not in ("calibrate", "simulate") or each[1] == file
            assert each[0] == "plan" or each[1] == file


def test_causes_that_cancel_each_other_are_not_nothing_to_do(plan):
    checked = check_run(deployed(plan), run := benchmark(32, 4000, 60))
    assert checked.shares["prefill"] > 0.1 * checked.predicted_tpot
    faster = run.tpot.mean / checked.predicted_tpot
    same = replace(
        run, tpot=Times(mean=checked.predicted_tpot), output_throughput=faster * run.output_throughput
    )
    sentences = [each.what for each in check_run(deployed(plan), same).advice]
    assert "cancel each other" in sentences[0]
    assert len(sentences) > 1


def test_advice_names_the_dtypes_that_are_not_the_models_own(plan):
    assert deployed(plan).form == ""
    request = dict(plan.request) | {"weight_dtype": "fp8"}
    assert deployed(replace(plan, request=request)).form == " --weight-dtype fp8"


def test_a_benchmark_of_another_model_is_told(plan):
    run, planned = benchmark(8, 4000, 500), deployed(plan)
    for name in ("", "meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"):
        assert not planned.other_model(replace(run, model=name))
    remark = planned.other_model(replace(run, model="org/Qwen3-8B"))
    assert "org/Qwen3-8B, the plan is for Llama-3.1-8B" in remark


def test_the_measured_speedup_is_over_the_plain_run_beside(plan):
    runs = [benchmark(8, 4000, 500, 3), benchmark(8, 4000, 500)]
    drafted, plain = speedups([check_run(deployed(plan), run) for run in runs])
    assert drafted.measured_speedup == pytest.approx(runs[1].tpot.mean / runs[0].tpot.mean)
    assert plain.measured_speedup is None
    assert drafted.predicted_speedup == plan.cell(8, 4000).speedup


def test_a_plan_of_names_that_are_unknown_here_is_refused_with_the_flag(plan):
    with pytest.raises(SpecError, match=r"cannot be priced here.*--engine"):
        deployed(replace(plan, engine="mine-of-yesterday"))


# The commands.


def run_cli(*arguments):
    return CliRunner().invoke(app, list(arguments), prog_name="draftplan", env={"COLUMNS": "80"})


@pytest.fixture
def files(tmp_path):
    return [vllm_file(tmp_path, f"{index}.json", benchmark(*loop)) for index, loop in enumerate(LOOPS)]


def test_one_command_makes_an_engine_acceptance_and_traffic_of_benchmarks(files, tmp_path):
    outputs = [tmp_path / name for name in ("ours.yaml", "acceptance.json", "traffic.yaml")]
    report = run_cli(
        "calibrate", *files, "--hardware", "h100-sxm-80gb", "--model", "llama-3.1-8b", "--strategy", "eagle",
        "--engine", "vllm", "-o", str(outputs[0]), "--acceptance-output", str(outputs[1]),
        "--traffic-output", str(outputs[2]),
    )  # fmt: skip
    assert report.exit_code == 0, report.stderr
    assert float(EngineOverhead.load(outputs[0]).layer_s) == pytest.approx(6e-5, rel=0.15)
    (entry,) = read_acceptance(outputs[1])
    assert entry.strategy == "eagle"
    traffic = yaml.safe_load(outputs[2].read_text())["traffic"]
    assert [each["output_tokens"] for each in traffic] == [500, 500, 300, 500]


def test_one_benchmark_gives_acceptance_and_says_that_it_is_too_few_for_an_engine(files, tmp_path):
    output = tmp_path / "acceptance.json"
    on = ("--hardware", "h100-sxm-80gb", "--model", "llama-3.1-8b", "--strategy", "eagle")
    report = run_cli("calibrate", files[3], *on, "--acceptance-output", str(output))
    assert report.exit_code == 0 and output.exists()
    assert "no engine is fitted: 1 of at least 4 points" in report.stderr
    refused = run_cli("calibrate", files[0], *on, "--acceptance-output", str(output))
    assert refused.exit_code == 2 and "no benchmark says what was drafted" in refused.stderr


def test_check_prints_what_differs_within_eighty_columns(files, plan, tmp_path):
    (tmp_path / "plan.json").write_text(plan.to_json())
    report = run_cli("check", str(tmp_path / "plan.json"), files[3], files[1])
    assert report.exit_code == 0, report.stderr
    place = str(tmp_path)
    assert max(len(line) for line in report.stdout.splitlines() if place not in line) <= 80
    assert "measured less planned" in report.stdout and "Next: " in report.stdout
    body = json.loads(run_cli("check", str(tmp_path / "plan.json"), files[3], "--format", "json").stdout)
    (checked,) = body["checked"]
    whole = checked["measured"]["tpot_s"] - checked["predicted"]["tpot_s"]
    assert sum(checked["shares_s"].values()) == pytest.approx(whole)


def test_the_commands_of_the_page_run_in_their_order(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "closing-the-loop.md").read_text(encoding="utf-8")
    commands = [line for line in page.splitlines() if line.startswith("draftplan ")]
    assert len(commands) == 6
    monkeypatch.chdir(tmp_path)
    for name, loop in zip(("plain-1", "plain-8", "plain-32", "eagle-8"), LOOPS, strict=True):
        vllm_file(tmp_path, f"{name}.json", benchmark(*loop))
    for command in commands:
        report = run_cli(*shlex.split(command)[1:])
        assert report.exit_code == 0, (command, report.stderr)
    checked = json.loads(run_cli(*shlex.split(commands[-1])[1:], "--format", "json").stdout)["checked"]
    for each in checked:
        assert abs(each["shares_s"]["step"]) < 0.02 * each["measured"]["tpot_s"]
        assert abs(each["shares_s"]["acceptance"]) < 0.05 * each["measured"]["tpot_s"]
