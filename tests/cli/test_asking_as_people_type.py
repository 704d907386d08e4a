"""One question in many spellings: counts, accelerators, flags of other tools, unknown flags by meaning."""

import csv
import json
import os

import pytest
from asking import asked, refused, run
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.accelerators import counted
from perfmodel.cli.ask.meaning import flag_meant
from perfmodel.hardware import HardwareProfile

MODEL = ["--model", "llama-3.1-8b", "--engine", "ideal"]
QUICK = ["--strategy", "streaming_llm", "--draft-budget", "512", "--gamma", "2"]
PLAIN = [*MODEL, "--gamma", "0"]


def cells(*arguments):
    answer = asked("plan", *arguments)
    return [
        (cell["hardware"], cell["tensor_parallel"], cell["batch_size"], cell["context_len"], cell["tpot_s"])
        for cell in answer["cells"]
    ]


@pytest.mark.parametrize(
    "spelled",
    [
        ["--hardware", "h100", "--tp", "8"],
        ["--gpu", "H100", "--tp", "8"],
        ["--gpus", "8xH100"],
        ["--gpus", "H100 x 8"],
        ["--gpu", "8xh100"],
        ["--gpu", "NVIDIA H100 80GB HBM3", "--num-gpus", "8"],
        ["--gpu", "nvidia/h100", "--gpus", "8"],
        ["--system", "h100 sxm", "-tp", "8"],
        ["--gpu", "DGX H100", "--tp_size", "8"],
        ["--gpus", "4xH100", "--pp", "2", "--tp", "2"],
    ],
)
def test_a_machine_is_named_in_any_spelling(spelled):
    expected = cells(*PLAIN, "--hardware", "h100-sxm-80gb", "--tp", "8", "--context", "8000", "-b", "4")
    answer = cells(*PLAIN, *spelled, "--context", "8k", "--concurrency", "4")
    if "--pp" in spelled:
        assert answer[0][:4] == ("h100-sxm-80gb", 2, 4, 8000)
    else:
        assert answer == expected


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--gpus", "4xH100,8xL40S"], "different numbers"),
        (["--gpus", "8xH100", "--tp", "4"], "--gpus says 8"),
        (["--gpu", "h100", "--gpus", "8", "--tp", "4"], "--gpus says 8"),
        (["--gpu", "h100", "--gpus", "8xH200"], "beside --hardware"),
        (["--gpu", "2xh100", "--gpus", "8"], "another number"),
        (["--gpu", "h100", "--gpus", "8", "--pp", "3"], "multiple of 3"),
        (["--gpus", "8xH999"], "--gpus"),
        (["--gpus", "8"], "--hardware"),
        (["--gpus", "7xH100"], "divides"),
    ],
)
def test_numbers_that_contradict_are_refused(wrong, says):
    assert says in refused("plan", *PLAIN, *wrong, "--context", "8k", "-b", "4")


SIGNS = st.sampled_from(["x", " x ", "*", "X"])


@given(st.sampled_from(HardwareProfile.available()), st.integers(1, 64), SIGNS)
def test_a_number_before_or_behind_a_profile_is_counted(name, gpus, sign):
    assert counted(f"{gpus}{sign}{name}") == (name, gpus)
    assert counted(f"{name}{sign}{gpus}") == (name, gpus)


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [("H100SXM", "h100-sxm-80gb"), ("h100pcie", "h100-pcie-80gb"), ("A100-80G", "a100-sxm-80gb"),
     ("Hopper H100", "h100-sxm-80gb"), ("AMD/MI300X", "mi300x"), ("NVIDIA-A100-SXM4-40GB", "a100-sxm-40gb"),
     ("h100nvl", "h100-nvl-94gb"), ("dgx-h100", "h100-sxm-80gb"), ("H100 Tensor Core GPU", "h100-sxm-80gb"),
     ("DGX Spark", "gb10")],
)  # fmt: skip
def test_an_accelerator_has_many_names(spelled, meant):
    assert HardwareProfile.load(spelled).name == meant


@pytest.mark.parametrize(
    ("context", "batch", "contexts", "batches"),
    [
        ("32k-128k", "1-8", [32_000, 64_000, 128_000], [1, 2, 4, 8]),
        ("32,000", "4", [32_000], [4]),
        ("8,192", "1,4", [8192], [1, 4]),
        ("4k..16k:x2", "1..4", [4000, 8000, 16_000], [1, 2, 4]),
    ],
)
def test_ranges_and_separators_mean_cells(context, batch, contexts, batches):
    answer = asked("plan", *PLAIN, "--gpus", "8xH100", "--context", context, "-b", batch)
    assert answer["request"]["context_lens"] == contexts
    assert answer["request"]["batch_sizes"] == batches


def test_how_a_range_was_read_is_said_and_lengths_go_by_ones():
    result = run(
        "plan", *MODEL, "--gpus", "8xH100", "--context", "32,000", "-b", "4", "--strategy", "streaming_llm",
        "--gamma", "1-4", "--draft-budget", "512-2k", "--format", "json",
    )  # fmt: skip
    assert json.loads(result.stdout)["gammas"] == [0, 1, 2, 3, 4]
    for sentence in (
        "note: --context: 32,000 is read as one number: 32000",
        "note: --gamma: 1-4 is read as 1, 2, 3, 4 (by ones)",
        "note: --draft-budget: 512-2k is read as 512, 1024, 2000 (doubling, ends included)",
    ):
        assert sentence in result.stderr


def test_a_file_and_a_column_read_numbers_as_flags_do(tmp_path):
    config = tmp_path / "ask.yaml"
    config.write_text(
        "model: llama-3.1-8b\nengine: ideal\ngpus: 8xH100\n"
        "context: [8192, 32768]\nbatch_size: 1-4\ngamma: 0\n"
    )
    answer = asked("plan", "--config", config)
    assert answer["request"]["context_lens"] == [8192, 32_768]
    assert answer["request"]["batch_sizes"] == [1, 2, 4]
    cases = tmp_path / "cases.csv"
    header = "hardware,engine,tensor_parallel,target_model,strategy,kv_budget,context_len,batch_size,gamma\n"
    row = "{},ideal,8,llama-3.1-8b,streaming_llm,512,{},4,2\n"
    cases.write_text(header + row.format("h100", "32000") + row.format("NVIDIA H100", '"32,000"'))
    plain, written = csv.DictReader(run("price", cases).stdout.splitlines())
    assert float(plain["tpot_ms"]) > 0.0 and written["context_len"] == "32,000"
    typed = ("hardware", "context_len")
    assert {key: plain[key] for key in plain if key not in typed} == {
        key: written[key] for key in written if key not in typed
    }


def test_a_budget_that_holds_the_whole_cache_bounds_nothing():
    on = [*MODEL, "--gpus", "8xH100", "-b", "4", "--strategy", "streaming_llm", "--gamma", "2"]
    assert "whole cache" in refused("plan", *on, "--context", "32k", "--draft-budget", "100k")
    assert "whole cache" in refused("plan", *on, "--context", "4000", "--draft-budget", "4096,8k")
    result = run("plan", *on, "--context", "32k", "--draft-budget", "512,100k", "--format", "json")
    assert "100000 is left out" in result.stderr
    assert json.loads(result.stdout)["request"]["kv_budgets"] == [512.0]


def test_a_sweep_of_length_zero_is_plain_decoding_alone():
    result = run("sweep", *MODEL, "--gpus", "8xH100", "--context", "4k", "-b", "1,8", "--gamma", "0")
    rows = result.stdout.splitlines()[1:]
    assert len(rows) == 2 and all(",none," in row for row in rows)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--gpu-type", "--hardware"), ("--accelerator", "--hardware"), ("--machine", "--hardware"),
        ("--users", "--batch-size"), ("--num-requests", "--batch-size"), ("--prompt-len", "--context"),
        ("--seq_length", "--context"), ("--quant", "--weight-dtype"), ("--precision", "--weight-dtype"),
        ("--backend", "--engine"), ("--draft", "--draft-model"), ("--spec-length", "--gamma"),
        ("--latency", "--tpot"), ("--vram-fraction", "--gpu-memory-utilization"), ("--method", "--strategy"),
        ("--modle", "--model"), ("--contxt", "--context"), ("--hardwar", "--hardware"),
        ("--number-of-gpus", "--gpus"), ("--max-model-len", "--context"), ("--max-num-seqs", "--batch-size"),
        ("--json", "--format"),
    ],
)  # fmt: skip
def test_an_unknown_flag_is_taken_by_its_meaning(typed, meant):
    assert meant in refused("plan", *PLAIN, typed, "8")


def test_nothing_is_suggested_for_what_means_nothing():
    assert flag_meant("--zzz", ["--model", "--hardware"]) == ""
    assert flag_meant("--gpu-type", ["--model"]) != "did you mean --hardware?"


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [(["--tp", "7"], "--tp"), (["--pp", "999"], "--pp"), (["--expert-parallel"], "--expert-parallel")],
)
def test_errors_name_flags_and_no_parameters_of_the_library(wrong, flag):
    message = refused("plan", *PLAIN, "--gpu", "h100", "--context", "8k", "-b", "4", *wrong)
    assert message.splitlines()[-1].startswith(f"error: {flag}:")
    assert "_parallel" not in message


def test_a_figure_of_acceptance_takes_the_flags_of_a_plan(tmp_path):
    result = run(
        "plot", "acceptance", *MODEL, "--gpus", "8xH100", "--context", "32k", "-b", "4",
        "--strategy", "quest", "-o", tmp_path / "a.svg",
    )  # fmt: skip
    assert result.exit_code == 0
    assert "without effect on this figure: --gpus, --engine, --batch-size, --hardware" in result.stderr


def test_ratios_say_what_to_name(tmp_path):
    on = [*MODEL, "--gpus", "8xH100", "--context", "32k", "-b", "4", "-o", tmp_path / "a.svg"]
    assert "Name one: --strategy" in refused("plot", "ratios", *on)


def test_offline_leaves_the_hub_out_for_this_command_alone(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    on = ["--gpu", "h100", "--context", "8k", "-b", "4", "--offline"]
    assert "HF_HUB_OFFLINE is set" in refused("plan", "--model", "nobody/nothing", *on)
    assert "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.parametrize(
    ("typed", "stands"),
    [
        ("llama-3.3-70b", "Llama-3.1-70B"), ("deepseek-r1", "DeepSeek-V3"), ("llama-3.1-8b", ""),
        ("meta-llama/Llama-3.1-8B-Instruct", ""), ("Qwen/Qwen3-8B-FP8", ""),
    ],
)  # fmt: skip
def test_a_model_that_stands_under_another_name_is_said_to(typed, stands):
    on = ["--hardware", "h200", "--tp", "8", "--context", "4k", "-b", "1", "--gamma", "0"]
    result = run("plan", "--model", typed, *on)
    remark = f"{typed} has the shape of {stands}, under whose name it stands here"
    assert (remark in result.stderr) == bool(stands)


@pytest.mark.parametrize("gpus", ["0xH100", "h100x0", "0*h100"])
def test_no_gpus_at_all_are_refused(gpus):
    said = refused("plan", "--model", "llama-3.1-8b", "--gpus", gpus, "--context", "4k", "-b", "1")
    assert "Give at least 1 GPU" in said


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_what_is_written_for_an_engine_is_planned_for_it(engine):
    on = ["--model", "llama-3.1-8b", "--gpus", "4xH100", "--context", "32k", "-b", "8"]
    result = run("plan", *on, "--format", engine)
    assert result.exit_code == 0
    assert "snapkv" not in result.output
