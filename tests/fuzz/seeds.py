"""One or more valid files of every kind that the tool reads: what damage begins with."""

from __future__ import annotations

import functools
import json
from datetime import datetime, timedelta
from importlib.resources import files

import benchmark_files
import engine_logs
from typer.testing import CliRunner

from perfmodel.cli.app import app

__all__ = ["NAME", "seeds"]

NAME = "damaged"
"""What files that say their own name are called."""

ON = ("--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--tp", "8")
DRAFTS = ("--strategy", "streaming_llm", "--draft-budget", "512", "--gamma", "0:3:1")


def _asked(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--format", "json"], prog_name="draftplan")
    assert result.exit_code == 0, result.stderr
    return result.stdout


def _plans() -> list[str]:
    cells = ("--context", "8k,32k", "-b", "16,64")
    return [
        _asked("plan", *ON, *cells, *DRAFTS, "--engine", "magicdec-h100", "--acceptance-rate", "0.8"),
        _asked("plan", *ON, *cells, "--strategy", "snapkv,streaming_llm", "--draft-budget", "512,1k"),
    ]


def _acceptance() -> list[str]:
    entry = {
        "alpha": 0.72, "alpha_se": 0.01, "alpha1": 0.73, "alpha1_se": 0.012, "alpha2": 0.71,
        "alpha2_se": 0.014, "gamma": 3, "rounds": 1000, "requests": 40, "survival": [0.73, 0.52, 0.355],
        "strategy": "streaming_llm", "drafter": "self", "kv_budget": 512, "context_len": 32000,
        "method": "tries and hits by position", "source": "a log",
    }  # fmt: skip
    other = {
        **entry,
        "strategy": "snapkv",
        "alpha": 0.75,
        "alpha1": 0.75,
        "alpha2": 0.75,
        "survival": [0.75, 0.56, 0.42],
    }
    return [json.dumps({"format": "draftplan acceptance 1", "measured": [entry, other]}, indent=1)]


def _cases() -> list[str]:
    return [
        "hardware,engine,tensor_parallel,target_model,draft_model,strategy,kv_budget,context_len,batch_size,gamma,"
        "acceptance_rate,tokens_per_round,note\n"
        "h100-sxm-80gb,generic,8,llama-3.1-8b,,streaming_llm,512,32768,64,3,0.85,,first\n"
        'a100,,1,llama-2-7b,tinyllama-1.1b,full_kv,,8000,16,4,,3.2,"second, quoted"\n'
        "l40,ideal,1,llama-3.1-8b,,none,,1000,1,0,,,\n"
    ]


def _points() -> list[str]:
    text = (files("perfmodel") / "data" / "measurements" / "magicdec.csv").read_text(encoding="utf-8")
    head, *rows = text.splitlines()
    return ["\n".join([head, *(row for row in rows if row.startswith("magicdec-6")), ""])]


def _machine() -> list[str]:
    head = (
        "kind,dtype,tokens,n,k,batch,query_tokens,kv_tokens,heads,kv_heads,head_dim,layers,hidden_size,mlp_width,vocab_size,strategy,"
        "kv_budget,gamma,kernel,seconds,low,high,samples,clock,device,sms,memory_bytes,l2_bytes,torch,date"
    )
    tail = ",,,9,thread,test machine,108,6.4e+10,4e+07,2.13,2026-01-02"
    rows = [f"stream,fp32,,268435456,,,,,,,,,,,,,,,,0.0542466{tail}"]
    rows += [
        f"linear,fp32,{tokens},768,256,,,,,,,,,,,,,,,{9e-5 + 1e-6 * tokens:.6g}{tail}"
        for tokens in (1, 2, 4, 8, 16, 64, 128, 512)
    ]
    rows += [
        f"attention,fp32,,,,{batch},1,{tokens},12,4,64,,,,,,,,,{1e-5 + 4e-9 * batch * tokens:.6g}{tail}"
        for batch in (1, 8)
        for tokens in (256, 1024, 4096, 8192)
    ]
    return ["\n".join([head, *rows, ""])]


def _limits() -> list[str]:
    text = (files("perfmodel") / "data" / "measurements" / "limits.csv").read_text(encoding="utf-8")
    return [text]


def _config() -> list[str]:
    return [
        "model: llama-3.1-8b\nhardware: h100-sxm-80gb\ntp: 8\ncontext:\n- 8k\n- 32k\nbatch_size: 16,64\n"
        "strategy: streaming_llm\ndraft_budget: 512\ngamma: '1:4:1'\nacceptance_rate: 0.8\nformat: json\n"
    ]


def _traces() -> dict[str, list[str]]:
    start = datetime(2023, 11, 16, 18, 17, 3, 379960)
    azure = [f"{start + timedelta(seconds=1.1 * row)},{911 + 37 * row},{13 + row}" for row in range(12)]
    mooncake = [
        json.dumps(
            {
                "timestamp": 1000 * row,
                "input_length": 1100 + row,
                "output_length": 52,
                "hash_ids": [46, 47, 100 + row],
            }
        )
        for row in range(8)
    ]
    plain = [f"{0.5 * row},{100 + row},{20 + row}" for row in range(8)]
    return {
        "trace-azure": ["\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *azure, ""])],
        "trace-mooncake": ["\n".join([*mooncake, ""])],
        "trace-plain": ["\n".join(["arrival_s,prompt_tokens,output_tokens", *plain, ""])],
    }


def _logs() -> dict[str, list[str]]:
    logs = engine_logs
    return {
        "log-vllm": [logs.VLLM_LINE + "\n"],
        "log-vllm-metrics": [logs.VLLM_METRICS],
        "log-vllm-response": [json.dumps(logs.VLLM_RESPONSE)],
        "log-sglang": [
            "\n".join(logs.SGLANG_LINE.format(running=8, length=a, rate=(a - 1) / 3) for a in (2.1, 2.6))
            + "\n"
        ],
        "log-sglang-response": [json.dumps(logs.SGLANG_RESPONSE)],
        "log-llamacpp-server": [logs.LLAMACPP_SERVER],
        "log-llamacpp-statistics": [logs.LLAMACPP_STATISTICS],
        "log-llamacpp-example": [logs.LLAMACPP_EXAMPLE],
        "log-llamacpp-response": [
            '{"content":"x","timings":{"predicted_n":200,"draft_n":180,"draft_n_accepted":132}}'
        ],
        "log-rounds": [logs.CSV],
    }


def _benchmarks() -> dict[str, list[str]]:
    forms = benchmark_files
    return {
        "benchmark-vllm": [json.dumps(forms.VLLM)],
        "benchmark-sglang": [json.dumps(forms.SGLANG)],
        "benchmark-block": [forms.VLLM_BLOCK],
    }


def _profiles() -> dict[str, list[str]]:
    def bundled(package: str, *place: str) -> str:
        return files(package).joinpath(*place).read_text(encoding="utf-8")

    engines = ("magicdec-a100", "vllm-h100")
    return {
        "hardware": [bundled("hardware_profiles", "h100-nvl-94gb.yaml").replace("h100-nvl-94gb", NAME)],
        "engine": [
            bundled("perfmodel", "data", "engines", f"{name}.yaml").replace(name, NAME) for name in engines
        ],
        "model": [
            bundled("perfmodel", "data", "models", f"{name}.json")
            for name in ("Llama-3.1-8B", "DeepSeek-V3", "Qwen3-Next-80B-A3B")
        ],
    }


@functools.cache
def seeds() -> dict[str, tuple[bytes, ...]]:
    """The valid files of every kind, by the kind's name."""
    texts = {
        "plan": _plans(), "acceptance": _acceptance(), "cases": _cases(), "points": _points(),
        "machine": _machine(), "limits": _limits(), "config": _config(), **_traces(), **_logs(),
        **_benchmarks(), **_profiles(),
    }  # fmt: skip
    return {kind: tuple(text.encode() for text in several) for kind, several in texts.items()}
