"""What contradicts itself in files of measurements and limits, and what only looks as if it did."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_files import VLLM

import hardware_profiles
from perfmodel.acceptance.estimate import fit_acceptance
from perfmodel.acceptance.file import MeasuredAcceptance, read_acceptance, write_acceptance
from perfmodel.acceptance.logs import read_log
from perfmodel.benchmarks.reading import read_benchmarks
from perfmodel.errors import SpecError
from perfmodel.evidence.published.validate import validate
from perfmodel.traffic.trace import read_trace

ENTRY = {
    "alpha": 0.72, "alpha_se": 0.01, "alpha1": 0.73, "alpha1_se": 0.012, "alpha2": 0.71, "alpha2_se": 0.014,
    "alpha_trials": 2000, "gamma": 3, "rounds": 1000, "requests": 40, "survival": [0.73, 0.52, 0.355],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("alpha", 0.999), ("alpha1", 0.01), ("alpha_trials", 1e9),
        ("alpha_trials", 1e-300), ("alpha_se", 1e-300),
    ],
)  # fmt: skip
def test_an_acceptance_entry_does_not_contradict_itself(tmp_path, key, value):
    path = tmp_path / "acceptance.json"
    path.write_text(json.dumps({"format": "draftplan acceptance 1", "measured": [ENTRY]}))
    assert len(read_acceptance(path)) == 1
    path.write_text(json.dumps({"format": "draftplan acceptance 1", "measured": [{**ENTRY, key: value}]}))
    with pytest.raises(SpecError, match=r"acceptance\.json:1: measured\.0\.alpha"):
        read_acceptance(path)


@pytest.mark.parametrize("first", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("later", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("drafted", [(1,), (3,), (4, 2), (0, 0, 0, 3), (1, 2, 3, 4, 5)])
def test_what_a_fit_writes_is_read(tmp_path, first, later, drafted):
    draw = random.Random(f"{first} {later} {drafted}")
    rows = ["request,round,drafted,accepted"]
    for request in range(draw.choice((1, 2, 30))):
        for place in range(draw.choice((1, 3, 20))):
            length, accepted = draw.choice(drafted) if place else max(drafted), 0
            while accepted < length and draw.random() < (later if accepted else first):
                accepted += 1
            rows.append(f"{request},{place},{length},{accepted}")
    (tmp_path / "rounds.csv").write_text("\n".join(rows) + "\n")
    fit = fit_acceptance(read_log(tmp_path / "rounds.csv"))
    for requests in (fit.requests, 10 * fit.rounds):  # requests that never drafted count too
        entry = MeasuredAcceptance.of_fit(replace(fit, requests=requests), "rounds.csv")
        write_acceptance(tmp_path / "acceptance.json", [entry])
        assert read_acceptance(tmp_path / "acceptance.json") == (entry,)


def test_a_share_that_llamacpp_counts_a_little_later_than_its_tokens_is_read(tmp_path):
    task = "slot print_timing: id 0 | task 7 | "
    line = task + "{} =  {} ms / 211 tokens\n"
    served = task + "draft acceptance rate = {} (  128 accepted /   162 generated)\n"
    path = tmp_path / "server.log"
    path.write_text(line.format("eval time", 6296.72) + served.format("0.78990"))
    counts = read_log(path, "llamacpp", 2)
    assert (counts.accepted.sum(), counts.drafted.sum()) == (128, 162)
    path.write_text(line.format("eval time", 6296.72) + served.format("0.88990"))
    with pytest.raises(SpecError, match="not the share that is printed"):
        read_log(path, "llamacpp", 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [("mean_ttft_ms", 2e5), ("mean_tpot_ms", 3696), ("total_input_tokens", 0), ("total_output_tokens", 3)],
)
def test_a_request_does_not_last_longer_than_its_run(tmp_path, key, value):
    path = tmp_path / "run.json"
    ladder = {name: value for name in VLLM if key.startswith("mean") and name.endswith(key[5:])}
    path.write_text(json.dumps({**VLLM, "output_throughput": None, **ladder, key: value}))
    with pytest.raises(SpecError, match=r"run\.json"):
        read_benchmarks(path)


def test_a_limit_on_what_there_is_not_is_refused(tmp_path):
    path = tmp_path / "limits.csv"
    path.write_text("scope,measure,statistic,at_least,at_most\n8xH100x,speedup,mean_absolute_error,,0.1\n")
    with pytest.raises(SpecError, match="Did you mean '8xH100'"):
        validate(["magicdec-6"], path)


def test_a_trace_whose_first_lines_are_no_objects_says_so(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 1, "input_length": ' + "9" * 5000 + "\n")
    with pytest.raises(SpecError, match="JSON"):
        read_trace(path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell with <(...)")
def test_a_profile_from_a_pipe_needs_no_name_of_a_file():
    profile = Path(hardware_profiles.__path__[0]) / "a40-48gb.yaml"
    command = f"{sys.executable} -m perfmodel hardware check <(cat {profile})"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
