"""Full KV: a standalone draft model that reads its whole cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from strategies.base import WHOLE_CACHE, AcceptanceLaw, Drafter, DraftPass, Numeric, Strategy, drafted_so_far


@dataclass(frozen=True, kw_only=True)
class FullKV(Strategy):
    """Plain speculative decoding: the draft model keeps and reads an entry for every token of the context."""

    def draft_pass(
        self,
        *,
        context_len: Numeric,
        kv_budget: Numeric,  # noqa: ARG002
        gamma: Numeric,
        drafter: Drafter | None = None,
    ) -> DraftPass:
        """Count one pass: ``S`` entries plus the drafts so far; the budget plays no part."""
        return DraftPass(
            weights=self.weights_of(drafter),
            passes=gamma,
            kv_tokens=context_len + drafted_so_far(gamma),
            resident_kv_tokens=np.add(context_len, gamma),
        )


strategy = FullKV(
    name="full_kv",
    title="full cache",
    summary="a draft model with its whole cache",
    source="Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318",
    drafters=("draft",),
    selector=WHOLE_CACHE,
    acceptance=AcceptanceLaw(),
)
