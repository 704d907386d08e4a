"""Hugging Face transformers 5.23: an assistant, a lookup, or the target over a cut cache, 2026-11-21."""

from __future__ import annotations

from perfmodel.software.base import Method, Software

software = Software(
    name="transformers",
    label="transformers",
    methods={
        "full_kv+draft": Method("assistant_model", needs_path=True),
        "streaming_llm+draft": Method("assistant_model", needs_path=True, window=True),
        "ngram": Method("prompt_lookup"),
        "streaming_llm": Method("planned", window=True),
    },
    refusal="generate() takes an assistant model or a prompt lookup",
)
