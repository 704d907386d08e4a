"""llama.cpp: the types of --spec-type of November 2026, read on 2026-11-20."""

from __future__ import annotations

from perfmodel.software.base import Method, Software

NO_WINDOW = "only the types of its cache can be chosen"

software = Software(
    name="llamacpp",
    label="llama.cpp",
    methods={
        "eagle": Method("draft-eagle3", needs_path=True, reason=NO_WINDOW),
        "dflash": Method("draft-dflash", needs_path=True, reason=NO_WINDOW),
        "mtp": Method("draft-mtp", reason=NO_WINDOW),
        "ngram": Method("ngram-simple"),
        "full_kv+draft": Method("draft-simple", needs_path=True),
        "streaming_llm+draft": Method("draft-simple", needs_path=True, reason=NO_WINDOW),
    },
    refusal="no --spec-type drafts with the target's own weights",
)
