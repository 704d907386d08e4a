"""What closed loops print of a server that takes what an engine is priced at."""

from __future__ import annotations

import json

import numpy as np

import strategies
from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.benchmarks import Benchmark, Times
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.evidence.servers.price import closed_loop
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import price_prefill
from perfmodel.model import ModelSpec
from perfmodel.speculation import price

H100, LLAMA = HardwareProfile.load("h100-sxm-80gb"), ModelSpec.load("llama-3.1-8b")
TRUE = EngineOverhead.load("vllm").on(H100).with_values({"layer": 6e-5})
TOKENS = 2.2


def step_of(batch, prompt, output, gamma, engine=TRUE):
    drafter = Drafter(strategies.load("eagle")) if gamma else None
    priced = price(
        Deployment(H100, LLAMA, engine), drafter, batch=float(batch), context_len=prompt + output / 2,
        gamma=float(gamma), tokens_per_round=TOKENS if gamma else None,
    )  # fmt: skip
    return float(np.asarray(priced.round_s))


def benchmark(batch, prompt, output, gamma=0, engine=TRUE, **changes):
    """Return what a closed loop prints of a server that takes what an engine is priced at."""
    tokens = TOKENS if gamma else 1.0
    prefill = float(
        price_prefill(Deployment(H100, LLAMA, engine), batch=1.0, prompt_tokens=float(prompt)).total
    )
    step = step_of(batch, prompt, output, gamma, engine)
    tpot = float(closed_loop(step / tokens, prefill, batch=batch, output_tokens=output))
    latency, requests = prefill + tpot * (output - 1), 20 * batch
    duration = requests / batch * latency
    rounds = requests * output / TOKENS
    drafts = AcceptanceCounts(
        unit="total", rounds=np.array([rounds]), drafted=np.array([rounds * gamma]),
        accepted=np.array([rounds * (TOKENS - 1.0)]), gamma=np.array([float(gamma)]),
    )  # fmt: skip
    said = {
        "source": f"{batch}x{prompt}.json:1", "tool": "vllm bench serve", "requests": requests,
        "concurrency": float(batch), "duration": duration, "prompt_tokens": float(prompt),
        "output_tokens": float(output), "output_throughput": requests * output / duration,
        "ttft": Times(mean=prefill), "tpot": Times(mean=tpot), "latency": Times(mean=latency),
        "drafts": drafts if gamma else None,
    }  # fmt: skip
    return Benchmark(**{**said, **changes})


def vllm_file(folder, name, run):
    counts = run.drafts
    drafts = {} if counts is None else {
        "spec_decode_num_drafts": round(float(counts.rounds[0])),
        "spec_decode_draft_tokens": 3 * round(float(counts.rounds[0])),
        "spec_decode_accepted_tokens": round(float(counts.accepted[0])),
    }  # fmt: skip
    body = {
        "backend": "vllm", "model_id": "llama", "completed": run.requests, "failed": 0,
        "request_rate": "inf", "max_concurrency": run.concurrency, "duration": run.duration,
        "total_input_tokens": run.requests * run.prompt_tokens,
        "total_output_tokens": run.requests * run.output_tokens,
        "output_throughput": run.output_throughput, "mean_tpot_ms": run.tpot.mean * 1e3,
        "mean_ttft_ms": run.ttft.mean * 1e3, **drafts,
    }  # fmt: skip
    (folder / name).write_text(json.dumps(body))
    return str(folder / name)
