"""Domino: a block of drafts in one pass, each corrected by a recurrent unit over the drafts before it."""

from __future__ import annotations

from dataclasses import replace

from strategies.base import Figure
from strategies.dflash import BLOCKS
from strategies.dflash import strategy as dflash
from strategies.eagle import Head

AGAINST_DFLASH = (
    "split of tokens a round beside DFlash's: GSM8K 6.52 against 5.72 for Qwen3-8B in blocks of 16 (NVIDIA "
    "Model-Optimizer PR 1971)"
)

strategy = Head(
    name="domino",
    title="Domino",
    summary="block drafting whose drafts follow one another through a recurrent unit",
    source="Domino, arXiv 2605.29707",
    head=replace(BLOCKS, gru_width=1024, gru_embedding=256),
    needs="a trained Domino head",
    drafters=("head",),
    selector=dflash.selector,
    default_budgets=dflash.default_budgets,
    acceptance=replace(
        dflash.acceptance,
        first=Figure(0.82, 0.11, "published", AGAINST_DFLASH),
        rest=Figure(0.78, 0.12, "published", AGAINST_DFLASH),
    ),
)
