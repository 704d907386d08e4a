"""Plan, run on a real server, read back, plan again: the loop stays where acceptance is what was planned.

Needs `llama-server` on the path and the package gguf, or vLLM for CPUs; passed over where neither is there.
"""

import importlib.util
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_llamas import write_checkpoint, write_gguf

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]
SERVER = shutil.which("llama-server")
PORT = 18123
PAIR = ["--strategy", "draft", "--model", "llama-3.1-8b", "--draft-model", "llama-3.2-1b", "--context", "4k"]
QUESTION = [
    *PAIR, "--hardware", "h100-sxm-80gb", "-b", "1,2,4,8", "--gamma", "0:8:1",
    "--one-deployment", "--format", "json",
]  # fmt: skip
VLLM = """
import json, random, sys
from vllm import LLM, SamplingParams
target, speculative = sys.argv[1], json.loads(sys.argv[2])
llm = LLM(target, skip_tokenizer_init=True, dtype="float32", max_model_len=2048, enforce_eager=True,
          speculative_config=speculative, max_num_seqs=8, disable_log_stats=False)
rng = random.Random(0)
wanted = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True, detokenize=False)
for batch in (1, 2, 4, 8, 8):
    prompts = [{"prompt_token_ids": [rng.randrange(3, 512) for _ in range(64)]} for _ in range(batch)]
    llm.generate(prompts, wanted, use_tqdm=False)
for metric in llm.get_metrics():
    if "spec_decode" in metric.name:
        print("RESULT", metric)
"""


def draftplan(*arguments):
    """What a command prints; the command must succeed."""
    ran = subprocess.run(
        [sys.executable, "-m", "perfmodel", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def lengths(plan):
    return [cell["gamma"] for cell in plan["cells"]]


@contextmanager
def llama_server(tmp_path, flags):
    """A server of the tiny target, its folder the working directory."""
    command = [SERVER, "-m", "target.gguf", "--port", str(PORT), "-c", "4096", "-np", "2", "--threads", "1"]
    with (tmp_path / "server.log").open("w") as log:
        running = subprocess.Popen([*command, *flags], cwd=tmp_path, stdout=log, stderr=log)
        try:
            for _ in range(200):
                time.sleep(0.2)
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health")
                    break
                except OSError:
                    assert running.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
            yield
        finally:
            running.terminate()
            running.wait(30)


def on_llamacpp(tmp_path, plan, drafter):
    """The metrics text of llama-server after sixty requests under a plan."""
    draft, rate, tokens = {
        "always": ("target", None, 1000),  # the last round of an output is cut short: few of many
        "half": ("target", 0.5, 200),
        "never": ("other", None, 100),
    }[drafter]
    for name, seed in (("target", 1), ("other", 2)):
        write_gguf(tmp_path / f"{name}.gguf", seed)
    exported = draftplan("export", plan, "--engine", "llamacpp", "--draft-path", f"{draft}.gguf")
    flags = shlex.split(exported)
    if rate is not None:
        longest = int(flags[flags.index("--spec-draft-n-max") + 1])
        rates = ",".join(f"{rate**position:.6f}" for position in range(1, longest + 1))
        flags += ["--spec-synth-rates", rates]
    rng = random.Random(0)
    prompts = [[1, *(rng.randrange(3, 512) for _ in range(32))] for _ in range(60)]

    def ask(prompt):
        wanted = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/completion",
            json.dumps(wanted).encode(),
            {"Content-Type": "application/json"},
        )
        return urllib.request.urlopen(request, timeout=300).read()

    with llama_server(tmp_path, flags), ThreadPoolExecutor(2) as clients:
        list(clients.map(ask, prompts))
        return urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics").read().decode()


def on_vllm(tmp_path, plan, drafter):
    """What vLLM counted over batches of one to eight under a plan."""
    drafts = {"always": ("same", 1, 0.0), "half": ("near", 1, 0.04), "never": ("other", 2, 0.0)}
    draft, seed, noise = drafts[drafter]
    write_checkpoint(tmp_path / "target", 1)
    write_checkpoint(tmp_path / draft, seed, noise)
    exported = draftplan("export", plan, "--engine", "vllm", "--draft-path", tmp_path / draft)
    quiet = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", VLLM, str(tmp_path / "target"), exported],
        env={**os.environ, **quiet}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return "\n".join(line[7:] for line in ran.stdout.splitlines() if line.startswith("RESULT "))


SERVERS = {
    "llamacpp": pytest.param(
        on_llamacpp,
        marks=pytest.mark.skipif(
            SERVER is None or importlib.util.find_spec("gguf") is None, reason="no llama-server, or no gguf"
        ),
        id="llamacpp",
    ),
    "vllm": pytest.param(
        on_vllm,
        marks=pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="no vLLM"),
        id="vllm",
    ),
}


@pytest.mark.parametrize("drafter", ["always", "half", "never"])
@pytest.mark.parametrize("run", SERVERS.values())
def test_the_second_plan_is_the_first_where_acceptance_is_what_was_planned(tmp_path, run, drafter):
    def planned(*belief):
        text = draftplan("plan", *QUESTION, *belief)
        (tmp_path / "plan.json").write_text(text)
        return json.loads(text)

    def read_back():
        log, measured = tmp_path / "log.txt", tmp_path / "acceptance.json"
        log.write_text(run(tmp_path, tmp_path / "plan.json", drafter))
        draftplan("acceptance", "fit", log, *PAIR, "--plan", tmp_path / "plan.json", "-o", measured)
        return measured

    planned("--acceptance-rate", "0.7")
    first = planned("--acceptance", read_back())
    if drafter == "never":
        assert lengths(first) == [0, 0, 0, 0]
        return
    assert min(lengths(first)) > 0
    second = planned("--acceptance", read_back())
    assert lengths(second) == lengths(first)
