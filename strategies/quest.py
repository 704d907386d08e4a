"""Quest: draft with the pages whose key bounds promise the most attention, chosen again in every pass."""

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

PAGE = 16


@dataclass(frozen=True)
class BestPages:
    """Keep whole pages, best first and always the one being filled; the budget is rounded up to pages."""

    page: int = PAGE
    moment: Moment = "pass"
    needs_scores: bool = True

    def keep(
        self, context_len: int, kv_budget: float, scores: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return the positions of the best pages; a page is worth its best entry's score."""
        pages = -(-context_len // self.page)
        if kv_budget > self.page * (pages - 1):
            return np.arange(context_len, dtype=np.int64)
        bound = checked_scores(scores, context_len, "upper bound of the attention score")
        filling = [(0, 0)] * (bound.ndim - 1) + [(0, pages * self.page - context_len)]
        paged = np.pad(bound, filling, constant_values=-np.inf).reshape(*bound.shape[:-1], pages, self.page)
        best = highest(paged.max(axis=-1), int(np.ceil(kv_budget / self.page)))
        positions = best[..., :, None] * self.page + np.arange(self.page)
        kept = int(entries_in_pages(context_len, kv_budget, self.page))
        return positions.reshape(*bound.shape[:-1], -1)[..., :kept].astype(np.int64)


def page_bounds(
    query: NDArray[np.float64], keys: NDArray[np.float64], page: int = PAGE
) -> NDArray[np.float64]:
    """Return for every entry the highest score in reach of its page: ``sum_d max(q_d min_d, q_d max_d)``.

    Parameters
    ----------
    query : shape ``[..., head_dim]``.
    keys : shape ``[..., context_len, head_dim]``.

    Returns
    -------
    shape ``[..., context_len]``, constant inside a page. Source: Quest, arXiv 2406.10774, Algorithm 1.
    """
    starts = np.arange(0, keys.shape[-2], page)
    low = np.minimum.reduceat(keys, starts, axis=-2)
    high = np.maximum.reduceat(keys, starts, axis=-2)
    bound = np.maximum(query[..., None, :] * low, query[..., None, :] * high).sum(axis=-1)
    return np.asarray(np.repeat(bound, page, axis=-1)[..., : keys.shape[-2]], dtype=np.float64)


def entries_in_pages(context_len: Numeric, kv_budget: Numeric, page: int = PAGE) -> Numeric:
    """Return the entries in the kept pages, the last and perhaps unfilled page among them [tokens]."""
    pages = np.ceil(np.divide(context_len, page))
    kept = np.ceil(np.divide(kv_budget, page))
    return np.minimum(context_len, context_len - (pages - np.minimum(kept, pages)) * page)


@dataclass(frozen=True, kw_only=True)
class Quest(Strategy):
    """The kept pages are read in place; only the bounds of every page (two vectors) are extra."""

    page: int = PAGE

    def draft_pass(
        self, *, context_len: Numeric, kv_budget: Numeric, gamma: Numeric, drafter: Drafter | None = None
    ) -> DraftPass:
        """Count one pass: the kept pages, and the bounds of all pages, as much as one entry each.

        A draft model's own cache must be whole for its pages to be chosen from; the target's is there anyway.
        """
        weights = self.weights_of(drafter)
        bounds = np.divide(context_len, self.page)
        return DraftPass(
            weights=weights,
            passes=gamma,
            kv_tokens=entries_in_pages(context_len, kv_budget, self.page) + drafted_so_far(gamma),
            selection_kv_tokens=bounds,
            selection_launches=SELECTION_LAUNCHES,
            resident_kv_tokens=bounds + own_cache(weights, context_len, gamma),
            prefill_kv_tokens=np.multiply(context_len, 0.5) + bounds,
        )


strategy = Quest(
    name="quest",
    title="Quest",
    summary="pages of the cache with the best score bounds, chosen in every pass",
    source="Quest, arXiv 2406.10774",
    needs="an attention kernel that selects pages at every draft step",
    drafters=("self", "draft"),
    selector=BestPages(),
    default_budgets=(128, 256, 512, 1024, 2048, 4096, 8192),
    acceptance=AcceptanceLaw(
        level=Figure(
            0.105,
            0.020,
            "published",
            "TriForce (arXiv 2404.11912) chunk retrieval, Vegas (arXiv 2602.07223) Quest: .094 to .115",
        ),
        level_budget=1024.0,
        eta=Figure(
            0.60,
            0.20,
            "published",
            "TriForce: .905 with 1024 and .965 with 4096 of 120K, towards the window's .325",
        ),
        far=Figure(0.98, 0.015, "published", "TriForce Table 1, needle: .988 for chunk retrieval"),
    ),
)
