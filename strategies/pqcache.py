"""PQCache: draft with the entries whose product-quantised keys score highest, chosen in every pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from strategies.base import (
    SELECTION_LAUNCHES,
    AcceptanceLaw,
    Drafter,
    DraftPass,
    Figure,
    Numeric,
    Strategy,
    drafted_so_far,
    own_cache,
)
from strategies.topk_oracle import HighestScores


@dataclass(frozen=True, kw_only=True)
class PQCache(Strategy):
    """Approximate scores from codes: ``subvectors`` codes of ``code_bytes`` stand for one key.

    ``key_bytes`` is the size of the key that they stand for [B]; 256 is a head of 128 values of two bytes.
    ``clustering_passes`` is how often all keys are read to learn the codebooks at the end of the prompt.
    """

    subvectors: int = 16
    code_bytes: float = 1.0
    key_bytes: float = 256.0
    clustering_passes: float = 10.0

    def draft_pass(
        self, *, context_len: Numeric, kv_budget: Numeric, gamma: Numeric, drafter: Drafter | None = None
    ) -> DraftPass:
        """Count one pass: ``min(S, B)`` entries, and ``S subvectors code_bytes / (2 key_bytes)`` of codes."""
        weights = self.weights_of(drafter)
        codes = np.multiply(context_len, self.subvectors * self.code_bytes / (2.0 * self.key_bytes))
        return DraftPass(
            weights=weights,
            passes=gamma,
            kv_tokens=np.minimum(context_len, kv_budget) + drafted_so_far(gamma),
            selection_kv_tokens=codes,
            selection_launches=SELECTION_LAUNCHES,
            resident_kv_tokens=codes + own_cache(weights, context_len, gamma),
            prefill_kv_tokens=np.multiply(context_len, 0.5 * self.clustering_passes) + codes,
        )


strategy = PQCache(
    name="pqcache",
    title="PQCache",
    summary="entries whose product-quantised keys score highest, chosen in every pass",
    source="PQCache, arXiv 2407.12820; 16 sub-vectors and 8-bit codes as in MagicDec, arXiv 2408.11049",
    needs="an attention kernel that searches product-quantised keys",
    drafters=("self", "draft"),
    selector=HighestScores(),
    default_budgets=(128, 256, 512, 1024, 2048, 4096, 8192),
    acceptance=AcceptanceLaw(
        level=Figure(
            0.105, 0.030, "assumed", "as query-aware pages (Quest); no published acceptance of its own"
        ),
        level_budget=1024.0,
        eta=Figure(0.60, 0.20, "assumed", "as query-aware pages (Quest)"),
        far=Figure(0.98, 0.02, "assumed", "as chunk retrieval in TriForce Table 1, needle: .988"),
    ),
)
