"""P-EAGLE: an EAGLE-3 head of a few layers drafts all tokens of a round in one pass."""

from __future__ import annotations

from dataclasses import replace

from strategies.base import Figure
from strategies.eagle import EAGLE_3, Head
from strategies.eagle import strategy as eagle

BELOW_EAGLE = (
    "a little below chains of EAGLE-3, as later drafts do not see earlier ones; the best length of both on "
    "MT-Bench is 7 against 3 tokens (vLLM PR 32887)"
)

strategy = Head(
    name="p_eagle",
    title="P-EAGLE",
    summary="an EAGLE head of a few layers that drafts all tokens in one pass",
    source="P-EAGLE, arXiv 2602.01469; vLLM PR 32887",
    head=replace(EAGLE_3, layers=4, parallel=True),
    needs="a trained P-EAGLE head",
    drafters=("head",),
    selector=eagle.selector,
    default_budgets=eagle.default_budgets,
    acceptance=replace(
        eagle.acceptance,
        first=Figure(0.72, 0.12, "assumed", BELOW_EAGLE),
        rest=Figure(0.65, 0.13, "assumed", BELOW_EAGLE),
    ),
)
