"""SnapKV: draft with the entries that the end of the prompt attended to, chosen once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.base import (
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
)


@dataclass(frozen=True)
class ObservedAttention:
    """Keep the observation window and what it attended to most, scores max-pooled over ``kernel``."""

    observation_window: int = 32
    kernel: int = 5
    moment: Moment = "prompt"
    needs_scores: bool = True

    def keep(
        self, context_len: int, kv_budget: float, scores: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return ``min(context_len, kv_budget)`` positions by the attention that the last queries paid."""
        if kv_budget >= context_len:
            return np.arange(context_len, dtype=np.int64)
        mass = checked_scores(scores, context_len, "attention mass from the observation window")
        reach = self.kernel // 2
        padded = np.pad(mass, [(0, 0)] * (mass.ndim - 1) + [(reach, reach)], constant_values=-np.inf)
        pooled = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=-1).max(axis=-1)
        return highest(pooled, int(kv_budget), recent=self.observation_window)


@dataclass(frozen=True, kw_only=True)
class SnapKV(Strategy):
    """One selection per prompt, so a pass chooses nothing; the kept entries are a cache of their own."""

    def draft_pass(
        self, *, context_len: Numeric, kv_budget: Numeric, gamma: Numeric, drafter: Drafter | None = None
    ) -> DraftPass:
        """Count one pass: ``min(S, B)`` entries plus the drafts so far.

        At the end of the prompt the observation window's queries read all keys once (half of every entry) and
        the kept entries are read and written: ``S / 2 + 2 min(S, B)`` entries.
        """
        kept = np.minimum(context_len, kv_budget)
        return DraftPass(
            weights=self.weights_of(drafter),
            passes=gamma,
            kv_tokens=kept + drafted_so_far(gamma),
            resident_kv_tokens=kept + gamma,
            prefill_kv_tokens=np.multiply(context_len, 0.5) + 2.0 * kept,
        )


strategy = SnapKV(
    name="snapkv",
    title="SnapKV",
    summary="entries that the end of the prompt attended to, chosen once",
    source="SnapKV, arXiv 2404.14469; as a self-draft: MagicDec, arXiv 2408.11049",
    drafters=("self", "draft"),
    selector=ObservedAttention(),
    default_budgets=(128, 256, 512, 1024, 2049, 4096),
    acceptance=AcceptanceLaw(
        level=Figure(
            0.146,
            0.015,
            "published",
            "MagicDec (arXiv 2408.11049) Tables 2, 4, 6, 7: 1 - alpha .093 to .120 over 4 models",
        ),
        level_budget=2048.0,
        eta=Figure(
            0.35,
            0.15,
            "assumed",
            "a little above the window's .325, as MagicDec describes; no published budget sweep",
        ),
        levels={"llama-3.1-8b": Figure(0.148, 0.010, "published", "MagicDec Table 6, PG-19, 2049 of 32K")},
        far=Figure(0.05, 0.05, "assumed", "as a window: the choice precedes the question"),
    ),
)
