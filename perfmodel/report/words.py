"""A plan in words: what to do, where it pays most, where it is a close call."""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.files.units import plural
from perfmodel.planning.plan import Cell, Plan
from perfmodel.report.deployments import RankedDrafter

__all__ = ["configuration", "drafter", "in_short", "percent", "recommendation"]

TIMES, TO = "\u00d7", "\u2013"
SURE = 0.8
"""Probability of beating plain decoding below which a recommendation is a close call. [1]"""


def configuration(cell: Cell) -> str:
    """The recommendation of one cell, in words."""
    if not cell.speculates:
        return "plain decoding"
    return f"{drafter(cell)}, {plural(cell.gamma, 'token')} drafted per round"


def in_short(plan: Plan) -> list[tuple[str, str]]:
    """The few numbers to remember: each with what it is."""
    drafting = [cell for cell in plan.cells if cell.speculates]
    best = max(plan.cells, key=lambda cell: cell.speedup)
    length = plan.inflection_context_len
    facts = [(f"{len(drafting)} of {len(plan.cells)}", "cells in which speculation pays")]
    if drafting:
        words = f"at best: batch {best.batch_size}, context {best.context_len:,}"
        facts.append((f"{best.speedup:.2f}{TIMES}", words))
    if drafting and best.speedup_low is not None and best.speedup_high is not None:
        facts.append(
            (f"{best.speedup_low:.2f}{TO}{best.speedup_high:.2f}{TIMES}", "there, in 80\u00a0% of the cases")
        )
    words = "context from which larger batches make it pay more"
    if length is not None:
        facts.append((f"{length:,.0f}", words))
    return facts


def recommendation(plan: Plan, deployments: Sequence[RankedDrafter]) -> list[str]:
    """The recommendation as a few sentences, the most important first."""
    drafting = [cell for cell in plan.cells if cell.speculates]
    if not drafting:
        return ["Do not speculate: at none of these batch sizes and contexts does a draft pay for itself."]
    best = max(drafting, key=lambda cell: cell.speedup)
    everywhere = len(drafting) == len(plan.cells)
    sentences = [
        "Speculate everywhere."
        if everywhere
        else f"Speculate in {len(drafting)} of {len(plan.cells)} cells, and decode plainly in the others.",
        f"It pays most at batch {best.batch_size} with {best.context_len:,} tokens of context: "
        f"{configuration(best)}. A token takes {best.tpot_s * 1e3:.3g} ms instead of "
        f"{best.baseline_s * 1e3:.3g} ms: it is {best.speedup:.2f} times as fast"
        f"{_interval(best)}.",
    ]
    if not everywhere and (where := _from_batches(plan)):
        sentences.append(f"It begins to pay {where}.")
    sentences += [_inflection(plan), _close_calls(drafting), _one_for_all(deployments)]
    return [sentence for sentence in sentences if sentence]


def _interval(cell: Cell) -> str:
    if cell.speedup_low is None or cell.speedup_high is None:
        return ""
    return f" (between {cell.speedup_low:.2f} and {cell.speedup_high:.2f} in 80\u00a0% of the cases)"


def _from_batches(plan: Plan) -> str:
    """From which batch on it pays, by context, where that is one number."""
    places: dict[int, list[int]] = {}
    for context in sorted(set(plan.columns.listed("context_len"))):
        column = sorted(plan.columns.where(context_len=context), key=lambda cell: cell.batch_size)
        first = next((place for place, cell in enumerate(column) if cell.speculates), None)
        if first is not None and all(cell.speculates for cell in column[first:]):
            places.setdefault(column[first].batch_size, []).append(context)
    parts = [f"from batch {batch} at {_listed(contexts)}" for batch, contexts in places.items()]
    return "; ".join(parts) + " tokens of context" if parts else ""


def _listed(values: Sequence[int]) -> str:
    *most, last = (f"{value:,}" for value in values)
    return f"{', '.join(most)} and {last}" if most else last


def _inflection(plan: Plan) -> str:
    length = plan.inflection_context_len
    if length is None:
        return ""
    return f"Beyond about {length:,.0f} tokens of context larger batches make speculation pay more."


def _close_calls(drafting: Sequence[Cell]) -> str:
    """Where the recommendation may be wrong, and what would settle it."""
    close = [
        cell
        for cell in drafting
        if cell.probability_beats_plain is not None and cell.probability_beats_plain < SURE
    ]
    if not close:
        return (
            f"In all of these cells it beats plain decoding with a probability of at least {percent(SURE)}."
        )
    worst = min(close, key=lambda cell: cell.probability_beats_plain or 0.0)
    assert worst.probability_beats_plain is not None
    return (
        f"{len(close)} of these cells {'is a close call' if len(close) == 1 else 'are close calls'}, "
        f"beating plain decoding with a probability below {percent(SURE)}; the closest is batch "
        f"{worst.batch_size} at {worst.context_len:,} ({percent(worst.probability_beats_plain)}). "
        "Measure acceptance and step times there first."
    )


def _one_for_all(deployments: Sequence[RankedDrafter]) -> str:
    """What to start one engine with, and what that costs."""
    best = next(iter(deployments), None)
    if best is None or best.drafting is None:
        return ""
    lengths = sorted({cell.gamma for cell in best.plan.cells if cell.speculates})
    drafted = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    loss = f"a token then takes {percent(best.slower, 1)} longer on average"
    return (
        f"If one engine has to serve all of it, start it with {drafter(best.drafting)} and let it draft "
        f"{drafted} tokens, by batch and context: {loss if best.slower > 5e-4 else 'nothing is lost'}."
    )


def drafter(cell: Cell) -> str:
    """Strategy, draft model and draft KV budget of a cell, in words."""
    who = f"{cell.strategy} on {cell.draft_model}" if cell.draft_model else cell.strategy
    return f"{who}, {cell.kv_budget:,} cache entries" if cell.kv_budget is not None else who


def percent(share: float, digits: int = 0) -> str:
    """A share in percent."""
    return f"{100.0 * share:.{digits}f}\u00a0%"
