"""MagicDec: self-drafting and draft models over a part of the cache, as in its paper, arXiv 2408.11049."""

from __future__ import annotations

from perfmodel.software.base import Method, Software

software = Software(
    name="magicdec",
    label="MagicDec",
    methods={
        "streaming_llm": Method("StreamingLLM self-speculation", window=True),
        "snapkv": Method("SnapKV self-speculation", window=True),
        "full_kv+draft": Method("standalone draft", needs_path=True),
        "streaming_llm+draft": Method("standalone draft, StreamingLLM", needs_path=True, window=True),
        "snapkv+draft": Method("standalone draft, SnapKV", needs_path=True, window=True),
    },
    refusal="its code drafts with the target or a small model, over sinks and a window or SnapKV's choice",
)
