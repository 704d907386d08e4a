"""Top-k oracle: draft with the entries of highest attention score, all keys read in every pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.base import (
    SELECTION_LAUNCHES,
    AcceptanceLaw,
    Drafter,
    DraftPass,
    Figure,
    Moment,
    Numeric,
    Strategy,
    checked_scores,
    drafted_so_far,
    highest,
    own_cache,
)


@dataclass(frozen=True)
class HighestScores:
    """Keep the entries with the highest scores, and the most recent one."""

    moment: Moment = "pass"
    needs_scores: bool = True

    def keep(
        self, context_len: int, kv_budget: float, scores: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return the ``min(context_len, kv_budget)`` best scored positions, the latest among them."""
        if kv_budget >= context_len:
            return np.arange(context_len, dtype=np.int64)
        return highest(checked_scores(scores, context_len, "attention score"), int(kv_budget))


@dataclass(frozen=True, kw_only=True)
class TopKOracle(Strategy):
    """The best choice there is at the highest price of choosing: an upper bound on acceptance."""

    def draft_pass(
        self, *, context_len: Numeric, kv_budget: Numeric, gamma: Numeric, drafter: Drafter | None = None
    ) -> DraftPass:
        """Count one pass: ``min(S, B)`` entries and, for choosing them, all keys: half of every entry."""
        weights = self.weights_of(drafter)
        return DraftPass(
            weights=weights,
            passes=gamma,
            kv_tokens=np.minimum(context_len, kv_budget) + drafted_so_far(gamma),
            selection_kv_tokens=np.multiply(context_len, 0.5),
            selection_launches=SELECTION_LAUNCHES,
            resident_kv_tokens=own_cache(weights, context_len, gamma),
        )


strategy = TopKOracle(
    name="topk_oracle",
    title="top-k oracle",
    summary="entries of highest attention score, all keys read in every pass",
    source="exact top-k attention: MagicDec (arXiv 2408.11049) section 4; TriForce (arXiv 2404.11912)",
    needs="nothing that exists: it bounds what selection can reach",
    drafters=("self", "draft"),
    selector=HighestScores(),
    default_budgets=(128, 256, 512, 1024, 2048, 4096),
    acceptance=AcceptanceLaw(
        level=Figure(
            0.049,
            0.010,
            "published",
            "Vegas (arXiv 2602.07223) verify-guided top-k, 7 % of about 10K: .961, .967",
        ),
        level_budget=700.0,
        eta=Figure(0.65, 0.20, "published", "Vegas, and TriForce Table 1: .992 with 4096 of 120K"),
        far=Figure(0.99, 0.01, "published", "TriForce Table 1, needle: .999"),
    ),
)
