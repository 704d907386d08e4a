"""Every command that writes, asked something small, with what it writes and keeps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perfmodel.cli.app import app

ON = ["--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--engine", "ideal"]
DRAFTS = ["--strategy", "streaming_llm", "--draft-budget", "512", "--gamma", "0:2:1"]
CELLS = [*ON, "--tp", "8", "--context", "32k", "-b", "8", *DRAFTS]
SIMULATE = [
    *ON, "--synthetic", "qps=3,prompt=2k,output=20,requests=20", "--strategy", "snapkv", "--draft-budget",
    "1024", "--policy", "none,fixed:1,fixed:2", "--ttft", "5s", "--tpot", "30",
]  # fmt: skip
CASES = (
    "hardware,engine,tensor_parallel,target_model,draft_model,strategy,kv_budget,context_len,batch_size,gamma\n"
    "h100-sxm-80gb,ideal,8,llama-3.1-8b,,self-spec + StreamingLLM,512,32000,32,3\n"
)
LOG = """\
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 1000.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 3000.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 1605.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 730.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="1"} 520.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="2"} 355.0
"""
BENCHMARK = """\
Namespace(backend='vllm', model='meta-llama/Llama-3.1-8B', request_rate=inf)
============ Serving Benchmark Result ============
Successful requests:                     40
Maximum request concurrency:             2
Benchmark duration (s):                  2.00
Total input tokens:                      4000
Total generated tokens:                  2000
Output token throughput (tok/s):         1000.00
Mean TTFT (ms):                          120.00
Mean TPOT (ms):                          10.00
---------------Speculative Decoding---------------
Acceptance rate (%):                     33.33
Acceptance length:                       2.00
Drafts:                                  100
Draft tokens:                            300
Accepted tokens:                         100
Per-position acceptance (%):
  Position 0:                            60.00
  Position 1:                            30.00
  Position 2:                            10.00
==================================================
"""


@dataclass(frozen=True)
class Writer:
    """A command, its flags that name files to write, and the files that it reads."""

    words: list[str]
    writes: dict[str, str]
    inputs: dict[str, str] | None = None
    keeps: bool = False
    """Whether finished pieces stay when it ends early."""
    computes: tuple[str, str] | None = None
    """Module and function whose first answer may stand for the next ones: what it writes is what matters."""

    def command(self, folder: Path) -> list[str]:
        """The words as typed, inputs and outputs in a folder."""
        for name, text in (self.inputs or {}).items():
            (folder / name).write_text(text, encoding="utf-8")
        words = [str(folder / word) if word in (self.inputs or {}) else word for word in self.words]
        return words + [part for flag, name in self.writes.items() for part in (flag, str(folder / name))]


def _plan() -> str:
    words = ["plan", *ON, "--context", "32k", "-b", "8,64", "--strategy", "eagle", "--gamma", "0:2:1"]
    result = CliRunner().invoke(app, [*words, "--format", "json"], prog_name="draftplan")
    assert result.exit_code == 0, result.stderr
    return result.stdout


_ENGINE = ["--hardware", "h100-sxm-80gb", "--strategy", "eagle", "--tp", "1"]
WRITERS: dict[str, Callable[[], Writer]] = {
    "plan": lambda: Writer(["plan", *CELLS], {"-o": "plan.json"}),
    "export": lambda: Writer(["export", "plan.json", "--engine", "vllm", "--draft-path", "org/head"],
                             {"-o": "serve.sh"}, {"plan.json": _plan()}),
    "price": lambda: Writer(["price", "cases.csv"], {"-o": "priced.csv"}, {"cases.csv": CASES}),
    "sweep csv": lambda: Writer(["sweep", *CELLS], {"-o": "all.csv"}, keeps=True),
    "sweep csv.gz": lambda: Writer(["sweep", *CELLS], {"-o": "all.csv.gz"}, keeps=True),
    "sweep npz": lambda: Writer(["sweep", *CELLS], {"-o": "all.npz"}, keeps=True),
    "simulate": lambda: Writer(["simulate", *SIMULATE], {"-o": "served.json", "--plot": "served.svg"},
                               keeps=True),
    "size": lambda: Writer(
        ["size", "--model", "llama-3.1-8b", "--target-qps", "1", "--context", "2k", "--output-tokens", "50",
         "--ttft", "5s", "--tpot", "30", "--hardware", "h100-sxm-80gb", "--tp", "1", "--runners-up", "0"],
        {"-o": "size.json"}, computes=("perfmodel.traffic.sizing", "size")),
    "calibrate": lambda: Writer(["calibrate", "magicdec-3a", "--attention-kernel", "flashinfer",
                                 "--all-reduce", "pytorch-symmetric"],
                                {"-o": "ours.yaml", "--profile-output": "card.yaml"},
                                computes=("perfmodel.evidence.calibration.calibrate", "calibrate")),
    "calibrate benchmarks": lambda: Writer(
        ["calibrate", "bench.txt", *_ENGINE, "--model", "llama-3.1-8b"],
        {"--acceptance-output": "acceptance.json", "--traffic-output": "traffic.yaml"},
        {"bench.txt": BENCHMARK}),
    "acceptance fit": lambda: Writer(
        ["acceptance", "fit", "log.txt", "--strategy", "eagle", "--model", "llama-3.1-8b",
         "--context", "8k"],
        {"-o": "acceptance.json"}, {"log.txt": LOG}),
    "validate": lambda: Writer(["validate", "--table", "magicdec-1"], {"-o": "validated.json"}),
    "plot": lambda: Writer(["plot", "roofline", *CELLS], {"-o": "roofline.svg"}),
    "report": lambda: Writer(["report", *CELLS], {"-o": "report.html"},
                             computes=("perfmodel.report", "report_content")),
}  # fmt: skip
"""Name -> how the command is asked."""


def ran(words):
    """Run a command in this process; returns its exit code and what it says on stderr."""
    argv, sys.argv = sys.argv, ["draftplan", *words]  # which a report quotes
    try:
        result = CliRunner().invoke(app, words, prog_name="draftplan")
    finally:
        sys.argv = argv
    return result.exit_code, result.stderr


def contents(folder):
    """Return every file below a folder, by its name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file()}  # fmt: skip


def by_default(names, quick, whole):
    """Parameters of a test: some commands with `quick`, and all of them with `whole` under the mark slow."""
    slow = [pytest.param(name, whole, marks=pytest.mark.slow, id=f"{name} whole") for name in WRITERS]
    return [pytest.param(name, quick, id=name) for name in names] + slow
