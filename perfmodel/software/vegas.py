"""Vegas: sparse self-speculation in a fork of vLLM 0.16, arXiv 2602.07223, read on 2026-11-20."""

from __future__ import annotations

from perfmodel.software.base import Method, Software

software = Software(
    name="vegas",
    label="Vegas",
    methods={"streaming_llm": Method("sparse_attn", window=True)},
    refusal="its method sparse_attn drafts with the target over sinks and a window, or its own selection",
)
