"""DFlash: a few layers over the target's features fill a block of drafts in one pass."""

from __future__ import annotations

from dataclasses import replace

from strategies.base import Figure, HeadShape
from strategies.eagle import Head
from strategies.eagle import strategy as eagle

BLOCK = 16
LENGTHS = (
    "split of published tokens a round: GSM8K 5.7 (NVIDIA Model-Optimizer PR 1971) to 6.4 (SGLang PR 16818) "
    "with blocks of 16, MT-Bench 2.9 with 8 drafts (vLLM PR 32206); 2.1 on math with another training "
    "(speculators issue 757)"
)
BLOCKS = HeadShape(
    own_attention=True, layers=5, features=5, fuses_once=True, quantized=False, parallel=True, block=BLOCK,
    longest=BLOCK - 1,
)  # fmt: skip
"""Five layers over the features of five of the target's, blocks of 16 whose first token is given, as heads of
z-lab and SpecForge for Qwen3-8B; embedding and output layer are the target's (arXiv 2602.06036 section 4)."""

strategy = Head(
    name="dflash",
    title="DFlash",
    summary="a block of drafts in one pass over the target's features (block drafting)",
    source="DFlash, arXiv 2602.06036",
    head=BLOCKS,
    needs="a trained DFlash head",
    drafters=("head",),
    selector=eagle.selector,
    default_budgets=eagle.default_budgets,
    acceptance=replace(
        eagle.acceptance,
        first=Figure(0.82, 0.11, "published", LENGTHS),
        rest=Figure(0.74, 0.12, "published", LENGTHS),
        beyond=Figure(0.30, 0.20, "assumed", "as EAGLE heads past the length that they were trained on"),
    ),
)
