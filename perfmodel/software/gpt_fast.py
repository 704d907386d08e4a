"""gpt-fast: a draft model over its whole cache, as in generate.py (meta-pytorch/gpt-fast@32971d31)."""

from __future__ import annotations

from perfmodel.software.base import Method, Software

software = Software(
    name="gpt_fast",
    label="gpt-fast",
    methods={"full_kv+draft": Method("draft_checkpoint_path", needs_path=True)},
    refusal="its generate.py drafts with a model of its own alone",
)
