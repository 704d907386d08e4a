"""DSpark: a block of drafts in one pass, each corrected by the draft before it through a low-rank table."""

from __future__ import annotations

from dataclasses import replace

from strategies.base import Figure
from strategies.dflash import BLOCKS
from strategies.dflash import strategy as dflash
from strategies.eagle import Head

AGAINST_DFLASH = (
    "split of tokens a round beside DFlash's: GSM8K 6.34 against 5.72 for Qwen3-8B in blocks of 16 (NVIDIA "
    "Model-Optimizer PR 1971)"
)

strategy = Head(
    name="dspark",
    title="DSpark",
    summary="block drafting whose drafts follow one another through a low-rank table",
    source="DSpark: DeepSeek DeepSpec; vLLM speculators, SGLang PR 33831",
    head=replace(BLOCKS, block=7, longest=7, markov_rank=256),
    needs="a trained DSpark head",
    drafters=("head",),
    selector=dflash.selector,
    default_budgets=dflash.default_budgets,
    acceptance=replace(
        dflash.acceptance,
        first=Figure(0.82, 0.11, "published", AGAINST_DFLASH),
        rest=Figure(0.77, 0.12, "published", AGAINST_DFLASH),
    ),
)
