"""MTP: the multi-token-prediction layer that a model was pre-trained with drafts token by token."""

from __future__ import annotations

import numpy as np

from strategies.base import AcceptanceLaw, Figure
from strategies.eagle import TEMPERATURE, WINDOWED, Head
from strategies.streaming_llm import SinkAndWindow

AFTER_THE_FIRST = (
    "GLM-5.2 .76, Qwen3.5-397B .75 to .81 and DeepSeek-V4-Pro .52 to .63 on SPEED-Bench coding; vLLM .84"
)

strategy = Head(
    name="mtp",
    title="MTP",
    summary="the multi-token-prediction layer that comes with the model",
    source="DeepSeek-V3, arXiv 2412.19437, section 2.2",
    needs="a target with multi-token-prediction layers",
    drafters=("head",),
    selector=SinkAndWindow(),
    default_budgets=(1024, 2048, 4096, 8192, 16384, 32768, np.inf),
    acceptance=AcceptanceLaw(
        first=Figure(
            0.84,
            0.06,
            "published",
            "DeepSeek-V3 report .85 to .90; SPEED-Bench coding .79 to .93; vLLM PR 48892 .834",
        ),
        rest=Figure(0.74, 0.10, "published", AFTER_THE_FIRST),
        level=WINDOWED,
        level_budget=4096.0,
        eta=Figure(0.3, 0.2, "assumed", "as a window on the target"),
        far=Figure(0.05, 0.05, "assumed", "as a window on the target"),
        temperature_slope=TEMPERATURE,
        trained_length=Figure(
            32768.0,
            0.0,
            "assumed",
            "falls inside the target's own range: vLLM issue 47602, SGLang issue 30763",
        ),
        trained_range=2.0,
        beyond=Figure(0.36, 0.15, "published", "SGLang issue 30763: 1.57 tokens a round past 32K"),
        unseen=0.0,
    ),
)
