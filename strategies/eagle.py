"""EAGLE: a one-layer head on the target's hidden states drafts token by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from strategies.base import (
    WHOLE_CACHE,
    AcceptanceLaw,
    Drafter,
    DraftPass,
    Figure,
    Numeric,
    Strategy,
    drafted_so_far,
)


@dataclass(frozen=True, kw_only=True)
class Head(Strategy):
    """A head has a cache of its own layer and reads all of it."""

    def draft_pass(
        self, *, context_len: Numeric, kv_budget: Numeric, gamma: Numeric, drafter: Drafter | None = None
    ) -> DraftPass:
        """Count one pass: ``S`` of the head's entries plus the drafts so far; the budget plays no part."""
        return DraftPass(
            weights=self.weights_of(drafter),
            passes=gamma,
            kv_tokens=context_len + drafted_so_far(gamma),
            resident_kv_tokens=np.add(context_len, gamma),
        )


BASELINES = "vLLM EAGLE-3 regression baselines, MT-Bench, greedy: survival .730 .521 .355, .654 .399 .202, .717 .512 .334"

strategy = Head(
    name="eagle",
    summary="a trained one-layer head on the target's hidden states (EAGLE-1, EAGLE-3)",
    source="EAGLE, arXiv 2401.15077; EAGLE-3, arXiv 2503.01840",
    drafters=("head",),
    selector=WHOLE_CACHE,
    default_gammas=tuple(range(1, 11)),
    acceptance=AcceptanceLaw(
        first=Figure(0.72, 0.09, "published", BASELINES),
        rest=Figure(0.67, 0.10, "published", BASELINES),
        temperature_slope=Figure(-0.3, 0.3, "assumed", "between a small draft model (-.7) and the same weights (0)"),
        trained_length=4096.0,
        beyond=Figure(
            0.25, 0.12, "published", "OWL (arXiv 2510.07535) Table 1, LongSpecBench 4K to 64K: 1.28 and 1.35 tokens a round"
        ),
        scatter=0.02,
        unseen=0.0,
    ),
)
