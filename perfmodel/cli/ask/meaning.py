"""What an unknown flag was meant to be: by its letters, else by what its words mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from perfmodel.errors import nearest_name

__all__ = ["flag_meant"]

_BEYOND = {
    "--max-num-seqs": "--batch-size 1-256 plans for all up to so many",
    "--max-running-requests": "--batch-size 1-256 plans for all up to so many",
    "--max-batch-size": "--batch-size 1-256 plans for all up to so many",
    "--max-model-len": "--context names the contexts to plan for, 4k-128k",
    "--max-seq-len": "--context names the contexts to plan for, 4k-128k",
    "--speculative-config": "--from 'vllm serve ...' reads a whole command",
    "--speculative-algorithm": "--strategy names who drafts; --from reads a whole command",
    "--mem-fraction-static": "--gpu-memory-utilization is the share of all memory, activations included",
    "--json": "--format json",
    "--csv": "--format csv",
    "--yaml": "--format yaml",
}
"""Flags of engines and others that mean something near, and what says it here."""
_MEANINGS: Mapping[str, str] = {
    "--hardware": "gpu device accelerator card machine instance node chip sku hw type",
    "--gpus": "gpus cards accelerators devices",
    "--tp": "tp tensor parallel shards world",
    "--engine": "engine backend framework runtime server serving inference software",
    "--model": "model target base llm checkpoint weights-path hf repo",
    "--context": "context ctx prompt input isl prefix sequence seq length len tokens",
    "--output-tokens": "output generation generated completion osl new decode max-tokens",
    "--batch-size": "batch bs concurrency concurrent users seqs sequences requests parallel-requests clients",
    "--strategy": "strategy method algorithm algo speculation speculative speculator mode",
    "--draft-model": "draft drafter assistant helper small model",
    "--draft-budget": "budget window kv-budget sink cache-budget",
    "--gamma": "gamma k lookahead draft-length spec-length steps num-draft draft tokens length len",
    "--acceptance-rate": "alpha acceptance accept accepted rate probability",
    "--weight-dtype": "quant quantize quantise quantisation quantization precision dtype bits weights weight",
    "--kv-cache-dtype": "kv cache kv-dtype dtype kv-cache",
    "--gpu-memory-utilization": "memory mem utilization utilisation fraction vram",
    "--tpot": "latency tpot itl slo sla tbt token-time ms",
    "--ttft": "ttft first prefill-latency",
    "--target-qps": "qps rps rate request requests-per-second throughput load",
    "--output": "output out save file write",
    "--format": "format json csv yaml as",
    "--price": "price cost rent usd hourly",
    "--from": "from compose kubernetes k8s manifest deployment yaml command import",
}
"""Words of other tools and of people, by the flag that they mean."""


def flag_meant(option: str, flags: Iterable[str]) -> str:
    """Return what to write in place of an unknown flag, in words; empty where nothing is near.

    Parameters
    ----------
    flags : every flag of the command.
    """
    known = list(flags)
    word = option.replace("_", "-").lower()
    says = _BEYOND.get(word)
    if says is not None and says.split(" ")[0] in known:
        return says
    if (near := nearest_name(word, known)) is not None and _alike(word, near):
        return f"did you mean {near}?"
    words = set(re.split(r"-+", word.strip("-")))
    scores = {
        flag: sum(each in meanings.split() for each in (*words, word.strip("-")))
        for flag, meanings in _MEANINGS.items()
        if flag in known
    }
    best = max(scores, key=lambda flag: scores[flag], default="")
    if best and scores[best]:
        return f"did you mean {best}?"
    return f"did you mean {near}?" if near is not None else ""


def _alike(word: str, near: str) -> bool:
    """Whether a slip of the pen makes one of the other: same length to two signs, and most of the letters."""
    from difflib import SequenceMatcher

    return abs(len(word) - len(near)) <= 2 and SequenceMatcher(None, word, near).ratio() >= 0.8
