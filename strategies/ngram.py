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
        """Count nothing: no forward pass runs, whatever ``gamma`` is."""
        return DraftPass(
            weights=self.weights_of(drafter),
            passes=np.multiply(gamma, 0.0),
            kv_tokens=np.multiply(context_len, 0.0),
        )


LENGTHS = (
    "split of published tokens a round: Spec-Bench prompt lookup 1.54 to 1.75, LongSpecBench 2.24 to 2.75 "
    "(OWL, arXiv 2510.07535), code edits first .81 rest .95 (vLLM PR 24344)"
)

strategy = NGram(
    name="ngram",
    summary="look the continuation up in the context",
    source="prompt lookup decoding (A. Saxena, 2023); LLMA, arXiv 2304.04487",
    needs="text that repeats its own prompt",
    drafters=("none",),
    selector=WHOLE_CACHE,
    acceptance=AcceptanceLaw(
        first=Figure(0.40, 0.15, "assumed", LENGTHS),
        rest=Figure(0.70, 0.12, "assumed", LENGTHS),
        scatter=0.02,
        unseen=0.0,
    ),
)
