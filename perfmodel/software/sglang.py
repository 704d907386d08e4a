"""SGLang 0.5.23: windowed drafting for EAGLE, MTP and DFLASH heads, read on 2026-11-21."""

from __future__ import annotations

from perfmodel.software.base import Limits, Method, Software

IGNORED = (
    "--speculative-draft-window-size has no effect with speculative_algorithm={} (honoured by DFLASH, "
    "EAGLE-3 and the EAGLE/MTP/NEXTN drafts)"
)
GIB = 2**30
LIMITS = (
    Limits(2048, 8192, from_memory=60 * GIB),
    Limits(2048, 4096, from_memory=35 * GIB),
    Limits(2048, 2048),
)
"""chunked_prefill_size by memory, and the least that max_running_requests defaults to: server_args.py, 0.5.

From 160 GiB SGLang takes 16384 tokens a chunk; as many as activations are counted for is the most here."""

software = Software(
    name="sglang",
    label="SGLang",
    methods={
        "eagle": Method("EAGLE3", needs_path=True, window=True, trees=True),
        "dflash": Method("DFLASH", needs_path=True, window=True),
        "mtp": Method("NEXTN", window=True, trees=True),
        "ngram": Method("NGRAM"),
        "full_kv+draft": Method("STANDALONE", needs_path=True, trees=True),
        "streaming_llm+draft": Method(
            "STANDALONE", needs_path=True, trees=True, reason=IGNORED.format("STANDALONE")
        ),
    },
    refusal="no released algorithm drafts with the target's own weights",
    scheduler="prefill-first",
    limits=LIMITS,
)
