"""A dozen questions to the command line whose answers are held, and how they are asked and compared."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from perfmodel.cli.app import app

DIGITS = 10
"""Significant digits that are held."""
UNTOLD = {"versions"}
"""Keys of an answer that say who gave it, not what it is."""

DENSE = "--model llama-3.1-8b --hardware h100-sxm-80gb --tp 8"
ROUNDS = "request,round,drafted,accepted\n" + "".join(
    f"{request},{number},4,{(request * 7 + number * 3) % 5}\n" for request in range(12) for number in range(8)
)
CASES = """\
hardware,engine,tensor_parallel,target_model,draft_model,strategy,kv_budget,context_len,batch_size,gamma,acceptance_rate
h100-sxm-80gb,magicdec-h100,8,llama-3.1-8b,,snapkv,2049,32000,64,3,
h100-sxm-80gb,vllm-v1-h100,8,llama-3.1-8b,llama-3.2-1b,full_kv,,8000,16,4,0.8
a100-sxm-80gb,magicdec-a100,4,qwen3-30b-a3b,,streaming_llm,512,16000,32,2,0.7
l40s-48gb,generic,2,llama-3.1-8b,,ngram,,4000,8,3,
h100-sxm-80gb,generic,8,deepseek-v3,,mtp,,8000,16,1,
"""
REQUESTS = "arrival_s,prompt_tokens,output_tokens\n" + "".join(
    f"{number * 0.2:.1f},{2000 + 397 * (number * 5 % 11)},{40 + 13 * (number % 7)}\n" for number in range(24)
)
TRAFFIC = f"{{folder}}/trace.csv {DENSE} --gamma 0:4:1 --max-batch 16 --policy none,fixed:2,schedule,adaptive"

QUESTIONS = {
    "plan-dense": f"plan {DENSE} --context 8k,32k -b 16,64,256 --engine magicdec-h100 --format json",
    "plan-generic-limit": f"plan {DENSE} --context 4k,64k -b 1,32 --tpot 12 --format json",
    "plan-experts": "plan --model qwen3-30b-a3b --hardware a100-sxm-80gb --tp 4 --context 16k -b 8,128 "
    "--engine magicdec-a100 --gamma 1:6:1 --format json",
    "plan-latent": "plan --model deepseek-v3 --hardware h200-sxm-141gb --tp 8 --context 32k -b 4,32 "
    "--strategy mtp,streaming_llm --gamma 0:4:1 --format json",
    "plan-heads": f"plan {DENSE} --context 2k,8k -b 1,16 --engine vllm-v1-h100 --strategy eagle,ngram "
    "--objective tpot,quantile:0.2 --format json",
    "plan-machines": "plan --model llama-3.1-8b --hardware l40s-48gb,h100-sxm-80gb --tp 1,8 --context 16k "
    "-b 16 --objective cost --engine ideal --gamma 0,2,4 --format json",
    "plan-one-deployment": f"plan {DENSE} --context 1k,8k,64k -b 1,16,128 --draft-model llama-3.2-1b "
    "--engine vllm-v1-h100 --one-deployment --format json",
    "plan-measured": f"plan {DENSE} --context 32k -b 32 --strategy snapkv "
    "--acceptance {folder}/acceptance.json --engine magicdec-h100 --format json",
    "plan-rows": f"plan {DENSE} --context 8k -b 32,64 --engine vllm-h100 --lossy --format csv",
    "explain-dense": f"explain {DENSE} --context 32k -b 32 --engine magicdec-h100 --format json",
    "explain-experts": "explain --model gpt-oss-20b --hardware h100-sxm-80gb --context 16k -b 16 "
    "--engine vllm-v1-h100 --strategy eagle --gamma 0:6:1 --format json",
    "price-rows": "price {folder}/cases.csv",
    "sweep-rows": f"sweep {DENSE},4 --context 4k,32k -b 8,64 --strategy snapkv,full_kv "
    "--draft-model llama-3.2-1b --gamma 1,3 --engine magicdec-h100",
    "simulate-schedule": f"simulate {TRAFFIC} --strategy snapkv --draft-budget 1024 --engine magicdec-h100 "
    "--format json",
    "simulate-loaded": f"simulate {TRAFFIC} --strategy eagle --engine vllm-v1-h100 --format json",
    "size-replicas": "size --model llama-3.1-8b --hardware h100-sxm-80gb --tp 1,2 --engine ideal "
    "--strategy snapkv --draft-budget 1024 --gamma 0:3:1 --target-qps 4 --context 8k --output-tokens 100 "
    "--ttft 3s --tpot 30 --format json",
}


def run(line: str) -> str:
    """Return what a command line prints; it must end with 0."""
    result = CliRunner().invoke(app, line.split(), prog_name="draftplan")
    assert result.exit_code == 0, f"draftplan {line}\n{result.output}"
    return str(result.stdout)


@cache
def ask(name: str) -> Any:
    """Ask a question and return its answer as plain data, numbers to `DIGITS` digits."""
    with tempfile.TemporaryDirectory() as folder:
        for file, text in (("rounds.csv", ROUNDS), ("cases.csv", CASES), ("trace.csv", REQUESTS)):
            Path(folder, file).write_text(text, encoding="utf-8")
        if "acceptance.json" in QUESTIONS[name]:
            run(
                f"acceptance fit {folder}/rounds.csv --format csv -o {folder}/acceptance.json "
                "--strategy snapkv --target llama-3.1-8b --context 32k --draft-budget 2049"
            )
        text = run(QUESTIONS[name].format(folder=folder)).replace(folder, "FOLDER")
    answer = json.loads(text) if text.startswith("{") else list(csv.DictReader(io.StringIO(text)))
    return rounded(answer)


def rounded(value: Any) -> Any:
    """Return an answer with every number to `DIGITS` digits, texts that are numbers among them."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items() if key not in UNTOLD}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, str):
        try:
            return rounded(float(value))
        except ValueError:
            return value
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{DIGITS}g}")
    return value


def differences(held: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield where two answers differ, with both values."""
    if isinstance(held, dict) and isinstance(now, dict):
        for key in [*held, *(key for key in now if key not in held)]:
            yield from differences(
                held.get(key, "absent"), now.get(key, "absent"), f"{path}.{key}".strip(".")
            )
    elif isinstance(held, list) and isinstance(now, list) and len(held) == len(now):
        for index, (first, second) in enumerate(zip(held, now, strict=True)):
            yield from differences(first, second, f"{path}[{index}]")
    elif isinstance(held, (int, float)) and isinstance(now, (int, float)):
        if not (held == now or math.isclose(held, now, rel_tol=1e-9)):
            yield f"{path}: {held!r} -> {now!r}"
    elif held != now:
        yield f"{path}: {held!r} -> {now!r}"
