"""EAGLE: a one-layer head on the target's hidden states drafts token by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from strategies.base import (
    AcceptanceLaw,
    Drafter,
    DraftPass,
    Figure,
    HeadShape,
    Numeric,
    Strategy,
    drafted_so_far,
)
from strategies.streaming_llm import SinkAndWindow


@dataclass(frozen=True, kw_only=True)
class Head(Strategy):
    """A head has a cache of its own layers: all of it is read, or sinks and a window of a budget.

    Its shape says whether there is a pass for every draft or one for all of them.
    """

    def draft_pass(
        self, *, context_len: Numeric, kv_budget: Numeric, gamma: Numeric, drafter: Drafter | None = None
    ) -> DraftPass:
        """Count one pass: ``min(S, B)`` of the head's entries plus the drafts so far.

        A head that drafts in parallel runs one pass, whose own tokens are not among those entries.
        """
        kept = np.minimum(context_len, kv_budget)
        parallel = self.head.parallel
        return DraftPass(
            weights=self.weights_of(drafter),
            passes=np.minimum(gamma, 1.0) if parallel else gamma,
            kv_tokens=kept if parallel else kept + drafted_so_far(gamma),
            query_tokens=self.head.query_tokens(gamma),
            resident_kv_tokens=kept + gamma,
        )


CHAINS = (
    "87 EAGLE-3 chains of SpecForge (mean .77 and .68), vLLM's regression baselines on MT-Bench "
    "(.65 to .73 and .57 to .70)"
)
TEMPERATURE = Figure(-0.3, 0.3, "assumed", "between a small draft model (-.7) and the same weights (0)")
WINDOWED = Figure(
    0.35,
    0.20,
    "published",
    "heads with a window against the whole cache: speculators PR 684, vllm-ascend PR 10023",
)

EAGLE_3 = HeadShape(
    own_attention=True, features=3, fuses_once=True, inputs=2, draft_vocabulary=32_000, quantized=False
)
"""Features of three layers, fused, and the embedding beside them (arXiv 2503.01840 section 3.1); vocabulary,
unquantised weights and a dense layer of its own as in the heads that SpecForge trains: plain attention also
where the target's is latent or recurrent, an MLP 6 hidden sizes wide for gpt-oss-20b, Qwen3-30B-A3B and
Qwen3-235B-A22B, 2.6 to 8 for other targets with experts."""

strategy = Head(
    name="eagle",
    title="EAGLE-3",
    summary="a trained one-layer head on the target's hidden states (EAGLE-3)",
    source="EAGLE-3, arXiv 2503.01840; EAGLE, arXiv 2401.15077",
    head=EAGLE_3,
    needs="a trained EAGLE head",
    drafters=("head",),
    selector=SinkAndWindow(),
    default_budgets=(512, 1024, 2048, 4096, np.inf),
    acceptance=AcceptanceLaw(
        first=Figure(0.74, 0.10, "published", CHAINS),
        rest=Figure(0.69, 0.10, "published", CHAINS),
        level=WINDOWED,
        level_budget=4096.0,
        eta=Figure(0.3, 0.2, "assumed", "as a window on the target"),
        far=Figure(0.05, 0.05, "assumed", "as a window on the target"),
        temperature_slope=TEMPERATURE,
        trained_length=Figure(
            4096.0,
            0.0,
            "assumed",
            "heads are trained on 2K to 8K; Qwen3-8B EAGLE-3 falls from 2.30 at 2K to 1.09 at 16K",
        ),
        trained_range=2.0,
        beyond=Figure(
            0.25,
            0.12,
            "published",
            "OWL (arXiv 2510.07535) Table 1, LongSpecBench 4K to 64K: 1.28 and 1.35 tokens a round",
        ),
        unseen=0.0,
    ),
)
