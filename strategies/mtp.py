"""MTP: the multi-token-prediction layer that a model was pre-trained with drafts token by token."""

from __future__ import annotations

from strategies.base import WHOLE_CACHE, AcceptanceLaw, Figure
from strategies.eagle import Head

strategy = Head(
    name="mtp",
    summary="the multi-token-prediction layer that comes with the model",
    source="DeepSeek-V3, arXiv 2412.19437, section 2.2",
    drafters=("head",),
    selector=WHOLE_CACHE,
    default_gammas=tuple(range(1, 9)),
    acceptance=AcceptanceLaw(
        first=Figure(
            0.84, 0.07, "published", "DeepSeek-V3 report .85 to .90; SPEED-Bench coding .79 to .93; vLLM PR 48892 .834"
        ),
        rest=Figure(
            0.76, 0.10, "published", "GLM-5.2 and Qwen3.5-397B on SPEED-Bench coding, vLLM PR 48892: .63 to .91 after the first"
        ),
        temperature_slope=Figure(-0.3, 0.3, "assumed", "between a small draft model (-.7) and the same weights (0)"),
        trained_length=32768.0,
        beyond=Figure(0.36, 0.15, "published", "SGLang issue 30763: 1.57 tokens a round past 32K"),
        scatter=0.02,
        unseen=0.0,
    ),
)
