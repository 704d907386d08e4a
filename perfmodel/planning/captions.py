"""What to see in the figures that answer a question: a sentence or two, computed from what they show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perfmodel.files.units import plural, short_tokens
from perfmodel.planning.bottleneck import Bottleneck
from perfmodel.planning.engine_maps import EngineMap
from perfmodel.planning.needed import Needed
from perfmodel.planning.pareto import EVERYTHING, PLAIN, Front, knee
from perfmodel.planning.plan import Cell
from perfmodel.planning.sensitivity import Influence

__all__ = [
    "best_and_plain", "bottleneck_in_words", "chosen_in_words", "drafter_of", "engines_in_words",
    "figure_name", "needed_in_words", "pareto_in_words", "sensitivity_in_words",
]  # fmt: skip


def engines_in_words(maps: Sequence[EngineMap]) -> str:
    """Say which engine loses most by what its software cannot run, where, and what the others lose."""
    ordered = sorted(maps, key=lambda each: -_most(each))
    first, *others = ordered
    if first.worst is None:
        names = _listed([each.name for each in maps])
        return f"Nothing is lost by what the software cannot run: {names}."
    cell, could = first.worst
    does = f"runs {_who(cell)} at {cell.speedup:.2f}x" if cell.speculates else "decodes plainly"
    losing = [f"{each.name} up to {_most(each):.0%}" for each in others if each.worst]
    nothing = [each.name for each in others if not each.worst]
    more = f". Others: {_listed(losing)}" if losing else ""
    if nothing:
        more += f"{', ' if losing else '. Others: '}{_listed(nothing)} nothing"
    where = f"batch {cell.batch_size}, context {short_tokens(cell.context_len)}"
    return (
        f"{first.name} loses most, up to {_most(first):.0%} of tokens per second: at {where} it {does}, "
        f"where {_who(could)} would be {could.speedup:.2f}x{more}."
    )


def _who(cell: Cell) -> str:
    """Return who drafts in a cell, with the draft KV budget where there is one."""
    return drafter_of(cell) + ("" if cell.kv_budget is None else f" with KV {short_tokens(cell.kv_budget)}")


def _most(each: EngineMap) -> float:
    """Return the largest loss of an engine in any cell. [1]"""
    return float(np.nanmax(each.loss, initial=0.0))


def needed_in_words(every: Sequence[Needed]) -> str:
    """Say where each drafter pays, and which cell is the closest call."""
    cells = [int(np.sum(np.isfinite(each.needed))) for each in every]
    alike, parts = len(set(cells)) == 1, list[str]()
    for each, count in zip(every, cells, strict=True):
        low = " even at the low end of what is believed" if not parts else ""
        within = "" if alike else f" of {count}"
        parts.append(f"{np.sum(each.pays)}{within} with {each.label} ({np.sum(each.surely_pays)}{low})")
    of = f", of {plural(cells[0], 'cell')}" if alike else ""
    return f"Drafting pays where known lies above needed{of} in {', '.join(parts)}. {_closest(every)}"


def _closest(every: Sequence[Needed]) -> str:
    """Say the cell in which what is needed lies nearest to what is believed."""
    least = [np.nanmin(np.abs(each.known - each.needed)) for each in every]
    each = every[int(np.argmin(least))]
    row, column = np.unravel_index(int(np.nanargmin(np.abs(each.known - each.needed))), each.known.shape)
    return (
        f"Closest: {each.label} at batch {each.batch_sizes[row]:g}, context "
        f"{short_tokens(each.context_lens[column])} needs {each.needed[row, column]:.2f} and has "
        f"{each.known[row, column]:.2f} ({each.low[row, column]:.2f} to {each.high[row, column]:.2f})."
    )


def bottleneck_in_words(models: Sequence[Bottleneck], batch_size: int) -> str:
    """Say which model reads most and which least at the longest context, and where caches pass weights."""
    longest = short_tokens(models[0].context_lens[-1])
    ordered = sorted(models, key=lambda model: -float(model.cache_share[-1]))
    most, least = ordered[0], ordered[-1]
    share = f"At {longest} tokens attention takes {most.cache_share[-1]:.0%} of a step of {most.name}"
    if most is not least:
        share += f", {least.cache_share[-1]:.0%} of one of {least.name}"
    return f"{share}. {_passes(models, batch_size)}"


def _passes(models: Sequence[Bottleneck], batch_size: int) -> str:
    """Say from which context on a step of a batch reads more of the cache than of the weights."""
    first, last = models[0].context_lens[[0, -1]]
    passing = [model for model in models if np.isfinite(model.passes_at)]
    within = sorted(passing, key=lambda model: model.passes_at)
    never = [model.name for model in models if not np.isfinite(model.passes_at)]
    if not within:
        return f"Up to {short_tokens(last)} tokens none of them reads more cache than weights."
    order = [" (the first)", " (the last)"] if len(within) > 2 else ["", ""]
    parts = [
        f"{_about(max(model.passes_at, first))} tokens in {model.name}{which}"
        for model, which in zip([within[0], *within[1:][-1:]], order, strict=False)
    ]
    beyond = f", and not up to {short_tokens(last)} in {_listed(never)}" if never else ""
    read = f"A step of {plural(batch_size, 'sequence')} reads more cache than weights"
    return f"{read} from about {' and '.join(parts)} on{beyond}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _about(value: float) -> str:
    """Return a number of tokens to two digits."""
    return f"{round(value, 2 - len(str(int(value)))):,.0f}"


def pareto_in_words(fronts: Sequence[Front], tpot: float | None = None) -> str:
    """Say what speculation adds at the knee of the front, or within a time per token if one is given. [s]"""
    best, plain = best_and_plain(fronts)
    bend = knee(best)
    if tpot is not None:
        where, place = f"Within {tpot * 1e3:.3g} ms per token", best.most_within(tpot)
        if place is None:
            return f"Nothing keeps {tpot * 1e3:.3g} ms per token: the least is {best.tpot[0] * 1e3:.3g} ms."
    elif bend is not None:
        where, place = f"At the knee, {bend.tpot * 1e3:.3g} ms per token", bend.place
    else:
        where, place = "At the most throughput", best.tpot.size - 1
    who, rate = best.drafters[place], float(best.throughput[place])
    size = f"batch {best.batch[place]:g} on {best.gpus[place]:g} x {best.hardware[place]}"
    if who == PLAIN:
        return f"{where}, plain decoding is best: {rate:,.0f} tokens/s per GPU ({size})."
    reached = f"{where}, {who} reaches {rate:,.0f} tokens/s per GPU ({size}, length {best.gamma[place]:g})"
    seconds = float(best.tpot[place]) if tpot is None else tpot
    other = plain.most_within(seconds) if plain else None
    if plain is None or other is None:
        return f"{reached}; plain decoding is that fast at no batch size."
    without = float(plain.throughput[other])
    return (
        f"{reached}, plain decoding, no slower per token, {without:,.0f}: "
        f"{rate / without:.2f} times as much with speculation."
    )


def best_and_plain(fronts: Sequence[Front]) -> tuple[Front, Front | None]:
    """Return the front of what is recommended, and that of plain decoding where anything fits."""
    [best] = [front for front in fronts if front.label == EVERYTHING]
    return best, next((front for front in fronts if front.label == PLAIN), None)


def sensitivity_in_words(cell: Cell, every: Sequence[Influence]) -> str:
    """Say which figure changes the decision, to what, and what settles it; or that none does alone."""
    first = every[0]
    decision = f"{chosen_in_words(cell)}, {cell.speedup:.2f}x" if cell.speculates else "plain decoding"
    deciding = sum(each.decides for each in every)
    if not deciding:
        ends = f" ({first.low} to {first.high})"
        return (
            f"No figure alone changes the decision ({decision}). Most moves {figure_name(first)}{ends}: "
            f"the speedup of {chosen_in_words(cell)} is {_times(first.speedup_low)} at the low end, "
            f"{_times(first.speedup_high)} at the high one."
        )
    low = bool(first.instead_low) and (not first.instead_high or first.gain_low >= first.gain_high)
    value = first.low if low else first.high
    instead, gain = (
        (first.instead_low, first.gain_low) if low else (first.instead_high, first.gain_high)
    )
    faster = f"would be {gain:.0%} faster" if np.isfinite(gain) else "would be allowed, and this is not"
    could = "1 figure" if deciding == 1 else f"{deciding} figures"
    return (
        f"{could} could change the decision ({decision}). Most, {figure_name(first)}: at {value} {instead} "
        f"{faster}. What settles it: {first.command}."
    )


def chosen_in_words(cell: Cell) -> str:
    """Say what the bars are the speedup of."""
    return f"{cell.strategy} at length {cell.gamma}" if cell.speculates else "the best draft"


def _times(speedup: float) -> str:
    return f"{speedup:.2f}x" if np.isfinite(speedup) else "not allowed"


def figure_name(each: Influence) -> str:
    """Return whose figure it is, without what it means."""
    return each.name.split(" (")[0]


def drafter_of(cell: Cell) -> str:
    """Strategy of a cell, with its draft model where it has one."""
    return f"{cell.strategy}({cell.draft_model})" if cell.draft_model else cell.strategy
