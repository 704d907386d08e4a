"""TensorRT-LLM, PyTorch backend, 1.4rc: one-model heads, draft models and lookups, read on 2026-11-20."""

from __future__ import annotations

from perfmodel.software.base import Limits, Method, Software

NO_WINDOW = "it has no window for the drafter"
LIMITS = (Limits(2048, 8192),)
"""max_batch_size and max_num_tokens of its arguments; its capacity scheduler evicts nothing by default
(performance-tuning-guide/useful-runtime-flags: GUARANTEED_NO_EVICT)."""

software = Software(
    name="tensorrt_llm",
    label="TensorRT-LLM",
    methods={
        "eagle": Method("Eagle3", needs_path=True, trees=True, reason=NO_WINDOW),
        "mtp": Method("MTP", reason=NO_WINDOW),
        "ngram": Method("NGram"),
        "full_kv+draft": Method("Draft_Target", needs_path=True),
        "streaming_llm+draft": Method("Draft_Target", needs_path=True, reason=NO_WINDOW),
    },
    refusal="it drafts with a model, a head or a lookup, never with the target's own weights",
    scheduler="in-flight",
    limits=LIMITS,
)
