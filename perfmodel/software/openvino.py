"""OpenVINO GenAI 2026.4: a draft model whose cache may be evicted, or a lookup, run on 2026-11-21."""

from __future__ import annotations

from perfmodel.software.base import Method, Software

software = Software(
    name="openvino",
    label="OpenVINO",
    methods={
        "full_kv+draft": Method("draft_model", needs_path=True),
        "streaming_llm+draft": Method("draft_model", needs_path=True, window=True),
        "streaming_llm": Method("draft_model", window=True),
        "ngram": Method("prompt_lookup"),
    },
    refusal="it drafts with a model, the target exported once more, or a prompt lookup",
)
