"""vLLM 0.33: heads, draft models and lookups over the whole cache, read on 2026-11-21."""

from __future__ import annotations

from perfmodel.software.base import Limits, Method, Older, Software

NO_WINDOW = "a window of the drafter is PR 53827, open, and for eagle3 only"
DRAFT = Method(
    "draft_model", needs_path=True, draft_gpus="one or all", reason="draft_model reads its whole cache"
)
LIMITS = (Limits(1024, 8192, from_memory=70 * 2**30, unlike="a100"), Limits(256, 2048))
"""Of `vllm serve`: EngineArgs.get_batch_defaults in vllm/engine/arg_utils.py, 0.11 to 0.33."""
OLDER = (
    Older(
        "0.8", "0.14", {"forward": 425e-6, "row": 38e-6}, "the GPU waits while its host schedules",
        "--async-scheduling is the default from 0.14 on (pull request 27614); fitted to 10 closed loops of "
        "0.12 beside servers of later releases; 0.46 ms with 10 sequences in pull request 25444",
    ),
    Older(
        "0.8", "0.11", {"layer": 40e-6}, "its graphs are cut in pieces",
        "whole ones are the default from 0.11 on (pull request 25444); piecewise_layer of vllm-v1-h100, 12 "
        "us (8B, pull request 10058) to 128 us (experts, 25444)",
    ),
)  # fmt: skip
"""What its V1 engine, the default from 0.8 on, once spent: each with the pull request that ended it; the
first by `perfmodel.evidence.servers.host_loop`."""

software = Software(
    name="vllm",
    label="vLLM",
    methods={
        "eagle": Method("eagle3", needs_path=True, reason=NO_WINDOW),
        "p_eagle": Method("eagle3", needs_path=True, reason=NO_WINDOW),
        "dflash": Method("dflash", needs_path=True, reason=NO_WINDOW),
        "mtp": Method("mtp", reason=NO_WINDOW),
        "ngram": Method("ngram"),
        "full_kv+draft": DRAFT,
        "streaming_llm+draft": DRAFT,
    },
    refusal="drafting with the target's own weights is RFC 47351, open",
    chains_only="tree attention and speculative_token_tree were removed (PR 42121, May 2026)",
    limits=LIMITS,
    older=OLDER,
)
