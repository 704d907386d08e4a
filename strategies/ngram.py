"""N-gram lookup: propose what followed the last few tokens the last time they occurred in the context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from strategies.base import WHOLE_CACHE, AcceptanceLaw, Drafter, DraftPass, Figure, Numeric, Strategy


@dataclass(frozen=True, kw_only=True)
class NGram(Strategy):
    """No weights and no cache: the host looks the draft up."""

    def draft_pass(
        self,
        *,
        context_len: Numeric,
        kv_budget: Numeric,  # noqa: ARG002
        gamma: Numeric,
        drafter: Drafter | None = None,
    ) -> DraftPass:
        """Count one lookup through the whole text, whatever ``gamma`` is; no forward pass runs."""
        return DraftPass(
            weights=self.weights_of(drafter),
            passes=np.minimum(gamma, 1.0),
            kv_tokens=np.multiply(context_len, 0.0),
            lookup_tokens=context_len,
        )


LENGTHS = (
    "split of published tokens a round: Spec-Bench prompt lookup 1.54 to 1.75, LongSpecBench 2.24 to 2.75 "
    "(OWL, arXiv 2510.07535), code edits first .81 rest .95 (vLLM PR 24344)"
)
MATCHES = (
    "about .17 on MT-Bench (vLLM PR 24986: 2,524 rounds with drafts for 17,005 tokens), .55 in code edits "
    "(vLLM PR 24344: 993 of 1,814 rounds), near 1 where a prompt is copied; new text was slower with it than "
    "without (vLLM issues 8439, 16258, 19254)"
)

strategy = NGram(
    name="ngram",
    title="n-gram lookup",
    summary="look the continuation up in the context",
    source="prompt lookup decoding (A. Saxena, 2023); LLMA, arXiv 2304.04487",
    needs="text that repeats its own prompt",
    drafters=("none",),
    selector=WHOLE_CACHE,
    acceptance=AcceptanceLaw(
        first=Figure(0.40, 0.15, "assumed", LENGTHS),
        rest=Figure(0.70, 0.12, "assumed", LENGTHS),
        match=Figure(0.30, 0.22, "assumed", MATCHES),
        scatter=0.02,
        unseen=0.0,
    ),
)
