"""StreamingLLM: draft with the first few entries (attention sinks) and a window of the most recent ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.base import (
    POWERS_OF_TWO_BUDGETS,
    AcceptanceLaw,
    Drafter,
    DraftPass,
    Figure,
    Moment,
    Numeric,
    Strategy,
    drafted_so_far,
)


@dataclass(frozen=True)
class SinkAndWindow:
    """Keep the first ``sinks`` entries and the most recent ones; the sinks count towards the budget."""

    sinks: int = 4
    moment: Moment = "position"
    needs_scores: bool = False

    def keep(
        self,
        context_len: int,
        kv_budget: float,
        scores: NDArray[np.float64] | None = None,  # noqa: ARG002
    ) -> NDArray[np.int64]:
        """Return the sinks and the window, ``min(context_len, kv_budget)`` positions, without scores."""
        kept = int(min(context_len, kv_budget))
        sinks = min(self.sinks, max(kept - 1, 0))
        window = np.arange(context_len - (kept - sinks), context_len, dtype=np.int64)
        return np.concatenate([np.arange(sinks, dtype=np.int64), window])


@dataclass(frozen=True, kw_only=True)
class StreamingLLM(Strategy):
    """A fixed rule, so choosing costs nothing; the kept entries are a cache of their own, as in MagicDec."""

    def draft_pass(
        self, *, context_len: Numeric, kv_budget: Numeric, gamma: Numeric, drafter: Drafter | None = None
    ) -> DraftPass:
        """Count one pass: ``min(S, B)`` entries plus the drafts so far; ``min(S, B) + gamma`` are held."""
        kept = np.minimum(context_len, kv_budget)
        return DraftPass(
            weights=self.weights_of(drafter),
            passes=gamma,
            kv_tokens=kept + drafted_so_far(gamma),
            resident_kv_tokens=kept + gamma,
            prefill_kv_tokens=2.0 * kept,
        )


PG19 = "MagicDec (arXiv 2408.11049) Table 3 and blog, PG-19, greedy, budget 512"
COT = "Vegas (arXiv 2602.07223) poster, AIME25/CodeElo, 7 % of about 10K"

strategy = StreamingLLM(
    name="streaming_llm",
    title="StreamingLLM",
    summary="attention sinks and a recent window",
    source="StreamingLLM, arXiv 2309.17453; as a self-draft: MagicDec, arXiv 2408.11049",
    drafters=("self", "draft"),
    selector=SinkAndWindow(),
    default_budgets=POWERS_OF_TWO_BUDGETS,
    acceptance=AcceptanceLaw(
        level=Figure(0.24, 0.03, "published", PG19),
        level_budget=512.0,
        eta=Figure(
            0.325,
            0.10,
            "published",
            "joint fit of 27 published window points in 5 families, see fit_budget_law",
        ),
        levels={
            "llama-3.1-8b": Figure(0.242, 0.02, "published", PG19),
            "llama-2-7b": Figure(0.225, 0.02, "published", PG19),
            "qwen3-8b": Figure(0.184, 0.02, "published", COT),
            "gpt-oss-20b": Figure(0.181, 0.02, "published", COT),
        },
        far=Figure(
            0.05, 0.03, "published", "TriForce (arXiv 2404.11912) Table 1, needle: .052 with 4096 of 120K"
        ),
    ),
)
