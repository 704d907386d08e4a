"""A deployment's own command asks its question: scripts, compose files, manifests, an engine's YAML."""

import itertools
import json
import shlex
import subprocess
import sys

import pytest
from asking import ROOT, process, refused, run
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.cli.ask.servers.files import servers_in_file, servers_in_text
from perfmodel.cli.ask.servers.implied import implied_by
from perfmodel.cli.ask.servers.shell import commands_in
from perfmodel.errors import SpecError

ON = ["--gpu", "h100", "--format", "json"]
OPTIONS = "--tensor-parallel-size 2 --max-model-len 8192 --max-num-seqs 4"
SERVE = f"vllm serve meta-llama/Llama-3.1-8B-Instruct {OPTIONS}"
IMPLIED = {"model": "meta-llama/Llama-3.1-8B-Instruct", "tp": "2", "max_model_len": "8192", "max_batch": "4"}
COMPOSE = """\
services:
  llm:
    image: vllm/vllm-openai:v0.11.0
    restart: no
    environment: [MODEL=meta-llama/Llama-3.1-8B-Instruct]
    command: >
      --model $MODEL --tensor-parallel-size 2
      --max-model-len 8192 --max-num-seqs 4
  web:
    image: nginx
"""
MANIFEST = """\
apiVersion: v1
kind: Service
metadata: {name: llm}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: llm}
spec:
  template:
    spec:
      nodeSelector: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}
      containers:
      - name: server
        image: vllm/vllm-openai:v0.11.0
        command: ["/bin/sh", "-c"]
        args: ["vllm serve $(MODEL) --trust-remote-code OPTIONS"]
        env: [{name: MODEL, value: meta-llama/Llama-3.1-8B-Instruct}]
        resources: {limits: {nvidia.com/gpu: "2"}}
""".replace("OPTIONS", OPTIONS)
GROUP = """\
kind: LeaderWorkerSet
spec:
  leaderWorkerTemplate:
    size: 2
    leaderTemplate: &pod
      spec: {}
"""
SCRIPT = """\
#!/bin/bash
# it's a comment with a quote
export MODEL=meta-llama/Llama-3.1-8B-Instruct
docker run --gpus '"device=0,1"' -v ~/models:/models \\
  vllm/vllm-openai:v0.11.0 --model $MODEL \\
  --tensor_parallel_size ${TP:-2} --max-model-len=8192 --max-num-seqs 4
curl localhost:8000/health
"""
YAML = """\
model: meta-llama/Llama-3.1-8B-Instruct
tensor_parallel_size: 2
max-model-len: 8192
max-num-seqs: 4
"""
FILES = {"compose.yaml": COMPOSE, "k8s.yaml": MANIFEST, "run.sh": SCRIPT, "vllm.yaml": YAML, "one.txt": SERVE}


def written(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name])
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_form_of_one_deployment_implies_the_same(tmp_path, name):
    (server,) = servers_in_file(str(written(tmp_path, name)))
    values = implied_by(server).values
    assert {key: values.get(key) for key in IMPLIED} == IMPLIED
    assert values["engine"] == ("vllm" if name in ("vllm.yaml", "one.txt") else "vllm@0.11.0")


def test_a_plan_of_it_is_that_of_its_flags(tmp_path):
    read = run("plan", "--from", written(tmp_path, "k8s.yaml"), "--format", "json")
    asked = run("plan", "--model", IMPLIED["model"], "--engine", "vllm@0.11.0", "--gpus", "2xh100",
                "--context", 8192 - 512, "-b", "1,2,4", "--format", "json")  # fmt: skip
    assert read.exit_code == 0
    assert json.loads(read.stdout) == json.loads(asked.stdout)
    assert "read from" in read.stderr and "--tp 2" in read.stderr
    assert "without effect here: --trust-remote-code" in read.stderr


def test_flags_that_are_typed_win_and_are_not_said_to_be_read():
    result = run("plan", "--from", SERVE, *ON, "--tp", "4", "-b", "8", "--context", "4k", "--gamma", "0")
    answer = json.loads(result.stdout)
    assert answer["tensor_parallel"] == 4 and answer["request"]["batch_sizes"] == [8]
    assert "--tp" not in result.stderr and "4000" not in result.stderr
    counted = run("plan", "--from", SERVE, "--gpus", "8xh200", "--gamma", "0", "--format", "json")
    assert json.loads(counted.stdout)["tensor_parallel"] == 8


@pytest.mark.parametrize(
    ("drafting", "values"),
    [
        ("""--speculative-config '{"method":"eagle3","model":"a/b","num_speculative_tokens":3}'""",
         {"strategy": "eagle", "gamma": "3"}),
        ("--speculative-config.method eagle3 --speculative-config.num_speculative_tokens 3",
         {"strategy": "eagle", "gamma": "3"}),
        ("""--speculative-config '{"method":"ngram","num_speculative_tokens":5,"prompt_lookup_max":4}'""",
         {"strategy": "ngram", "gamma": "5"}),
        ("""--speculative_config '{"model":"Qwen/Qwen3-0.6B","num_speculative_tokens":2}'""",
         {"strategy": "full_kv", "draft_model": "Qwen/Qwen3-0.6B", "gamma": "2"}),
        ("""--speculative-config '{"method":"deepseek_mtp","num_speculative_tokens":1}'""",
         {"strategy": "mtp", "gamma": "1"}),
        ("""--speculative-config '{"method":"suffix"}'""", {}),
        ("--speculative-model [ngram] --num-speculative-tokens 4", {"strategy": "ngram", "gamma": "4"}),
    ],
)  # fmt: skip
def test_who_drafts_in_vllm_is_read(drafting, values):
    (server,) = servers_in_text(f"vllm serve m {drafting}")
    implied = implied_by(server).values
    assert {key: implied[key] for key in ("strategy", "draft_model", "gamma") if key in implied} == values


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ("--speculative-algorithm EAGLE3 --speculative-draft-model-path a/b --speculative-num-steps 3 "
         "--speculative-eagle-topk 1 --speculative-num-draft-tokens 4", {"strategy": "eagle", "gamma": "3"}),
        ("--speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 4 "
         "--speculative-num-draft-tokens 8", {"strategy": "mtp", "gamma": "3", "topk": 4, "nodes": 8}),
        ("--speculative-algo NGRAM", {"strategy": "ngram"}),
        ("--tp 8 --dp 8 --enable-dp-attention", {"tp": "8", "dp": "8", "dp_attention": True}),
        ("--tp 2 --dp 4", {"tp": "2"}),
        ("--kv-cache-dtype fp8_e5m2 --quantization fp8", {"kv_cache_dtype": "fp8", "weight_dtype": "fp8"}),
        ("--quantization awq --dtype half --mem-fraction-static 0.8", {}),
        ("--context-length 32k --max-running-requests 64", {"max_model_len": "32k", "max_batch": "64"}),
    ],
)  # fmt: skip
def test_sglang_is_read(options, values):
    (server,) = servers_in_text(f"python3 -m sglang.launch_server --model-path m {options}")
    assert implied_by(server).values == {"model": "m", "engine": "sglang", **values}


def test_tensorrt_llm_is_read_with_its_yaml(tmp_path):
    (tmp_path / "extra.yaml").write_text(
        "speculative_config: {decoding_type: Eagle3, max_draft_len: 3, speculative_model_dir: a/b}\n"
        "kv_cache_config: {dtype: fp8, free_gpu_memory_fraction: 0.9}\n"
    )
    script = tmp_path / "run.sh"
    script.write_text("trtllm-serve m --tp_size 2 --max_batch_size 8 --extra_llm_api_options extra.yaml\n")
    (server,) = servers_in_file(str(script))
    assert implied_by(server).values == {
        "model": "m", "engine": "tensorrt-llm", "tp": "2", "max_batch": "8", "kv_cache_dtype": "fp8",
        "strategy": "eagle", "gamma": "3",
    }  # fmt: skip


def test_several_servers_are_named_and_one_is_chosen(tmp_path):
    file = tmp_path / "compose.yaml"
    other = COMPOSE.replace("services:\n", "").replace("  llm:", "  small:").replace("size 2", "size 1")
    file.write_text(COMPOSE + other.partition("  web:")[0])
    message = refused("plan", "--from", file, *ON)
    assert "llm, small" in message and f"--from {file}:llm" in message
    assert json.loads(run("plan", "--from", f"{file}:small", *ON).stdout)["tensor_parallel"] == 1
    assert "Did you mean 'small'" in refused("plan", "--from", f"{file}:smal", *ON)


def test_a_variable_that_nobody_sets_is_named_unless_its_flag_is_given():
    text = SERVE.replace("meta-llama/Llama-3.1-8B-Instruct", "$WHICH").replace("size 2", "size ${GPUS}")
    assert "variable WHICH" in refused("plan", "--from", text, *ON)
    assert "variable GPUS" in refused("plan", "--from", text, *ON, "--model", "llama-3.1-8b")
    given = ["--model", "llama-3.1-8b", "--tp", "2", "--gamma", "0"]
    assert run("plan", "--from", text, *ON, *given).exit_code == 0
    seqs = SERVE.replace("seqs 4", "seqs $SEQS")
    assert "variable SEQS" in refused("plan", "--from", seqs, *ON)


@pytest.mark.parametrize(
    ("text", "says"),
    [("services:\n  web: {image: nginx}\n", "nothing in it starts a server"), ("a: &x 1\n", "anchor"),
     ("kind: Pod\n\tx: 1\n", "tab"), ("", "nothing in it starts a server"), (GROUP, "anchor"),
     ("kind: !!python/object:os.system x\n", "tag")],
)  # fmt: skip
def test_a_file_that_starts_nothing_or_is_not_plain_is_refused(tmp_path, text, says):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    message = refused("plan", "--from", file, *ON)
    assert says in message and str(file) in message


@pytest.mark.parametrize("given", ["", "nothing.yaml", "echo hello", "vllm serve 'open", "vllm bench serve"])
def test_what_is_no_deployment_is_refused(given):
    assert "error: " in refused("plan", "--from", given, *ON)


def test_a_fault_names_the_option_and_the_line(tmp_path):
    file = tmp_path / "k8s.yaml"
    file.write_text(MANIFEST.replace("size 2", "size 7"))
    message = refused("plan", "--from", file)
    assert f"{file}:16: --tensor-parallel-size: found 7" in message


def test_explain_report_and_simulate_take_one_too(tmp_path):
    on = ["--from", SERVE, "--gpu", "h100", "--gamma", "0"]
    assert run("explain", *on, "-b", "4").exit_code == 0
    assert run("report", *on, "-o", tmp_path / "r.html").exit_code == 0
    drawn = ["--synthetic", "qps=1,prompt=1k,output=50,requests=60", "--policy", "none"]
    assert run("simulate", *drawn, *on).exit_code == 0


def test_a_manifest_comes_from_standard_input():
    ran = process("plan", "--from", "-", "--gamma", "0", input=MANIFEST)
    assert ran.returncode == 0, ran.stderr


def test_no_door_loads_the_readers_that_nobody_asks_for():
    code = (
        "import sys; from perfmodel.cli.app import build_app; "
        "build_app(['plan']); print([n for n in sys.modules if n.startswith('perfmodel.cli.ask.servers')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]"


WORDS = st.text(st.characters(exclude_characters="$\0", exclude_categories=("Cs",)), min_size=1, max_size=12)


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_a_quoted_command_is_its_words(words):
    command = ["vllm", *words]
    if not any("\n" in word or "\r" in word or "#" in word for word in words):
        assert [each.words for each in commands_in(shlex.join(command))] == [command]


@given(st.text(max_size=80) | st.text(alphabet="vllm serve-'\"$(){}\\;&|#\n=", max_size=80))
def test_any_text_is_servers_or_a_refusal(text):
    try:
        for server in servers_in_text(text):
            implied_by(server)
    except SpecError:
        pass


@given(st.permutations(["--tensor-parallel-size 2", "--max-model-len 8192", "--max-num-seqs 4", "--port 80"]))
def test_the_order_of_options_does_not_count(options):
    (server,) = servers_in_text(" ".join(["vllm serve", IMPLIED["model"], *options]))
    values = implied_by(server).values
    assert {key: values.get(key) for key in IMPLIED} == IMPLIED
    assert list(itertools.islice(implied_by(server).unread, 2)) == ["--port"]
