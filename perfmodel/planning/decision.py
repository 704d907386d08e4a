"""The decision of a plan in one sentence: what a colleague would say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import strategies
from perfmodel.planning.choose import DOES_NOT_FIT, MISSES_LIMIT
from perfmodel.planning.columns import NO_DRAFT, milliseconds, tokens

if TYPE_CHECKING:
    from perfmodel.planning.plan import Cell, Plan

__all__ = ["called", "headline"]

SURE = 0.9
LIKELY = 0.7
"""Mean chance of beating plain decoding in the cells that draft from which on it pays, and should pay. [1]"""
FEW = 2
"""Software of which so many can run a drafter is named. [1]"""
MOST_NAMED = 3
"""Drafters, and values of an axis, that are named one by one. [1]"""

_Place = tuple[int, int]


def headline(plan: Plan) -> str:
    """Return the decision of a plan in one sentence: whether, with what, how far, where, and how sure.

    Nothing in it is another rule: it reads the cells, and says less than they do.
    """
    cells = list(plan.cells)
    drafting = [cell for cell in cells if cell.speculates]
    where = _Where(plan.request, cells)
    sentence = _on_machines(plan, cells, where)
    if tuple(plan.gammas) == (0,):
        sentence += f"plain decoding takes {_span(cells, _tpot_ms, _milliseconds)}"
    elif drafting:
        sentence += _speculate(plan, cells, drafting, where)
    else:
        sentence += _do_not(plan, cells)
    missing = where.missing({(cell.batch_size, cell.context_len) for cell in cells})
    if missing:
        reasons = {DOES_NOT_FIT: "fits", MISSES_LIMIT: "is fast enough"}
        only = next(iter(plan.infeasible), "") if len(plan.infeasible) == 1 else ""
        sentence += f"; nothing {reasons.get(only, 'is feasible')}{where.of(missing)}"
    return sentence[0].upper() + sentence[1:]


def called(strategy: str, draft_model: str | None = None) -> str:
    """Return what people call a drafter: the title of its strategy, or the model that drafts."""
    if strategy == NO_DRAFT:
        return "plain decoding"
    known = strategies.load(strategy) if strategy in strategies.available() else None
    title = str(getattr(known, "title", "")) or strategy
    if draft_model is None:
        return title
    own = "" if strategy == "full_kv" or (known is not None and known.drafters == ("head",)) else f", {title}"
    return f"{draft_model}{own}"


def _on_machines(plan: Plan, cells: Sequence[Cell], where: _Where) -> str:
    """Say on which machine, where there was a choice."""
    asked = plan.request.get("tensor_parallel") or [plan.tensor_parallel]
    if len(plan.hardware.split(", ")) * len(asked) < 2:
        return ""
    machines: dict[str, set[_Place]] = {}
    for cell in cells:
        name = f"{cell.gpus} x {cell.hardware}"
        machines.setdefault(name, set()).add((cell.batch_size, cell.context_len))
    if len(machines) == 1:
        return f"take {next(iter(machines))} ({_span(cells, _tpot_ms, _milliseconds)}): "
    named = [f"{name}{where.of(places)}" for name, places in list(machines.items())[:MOST_NAMED]]
    more = f" and {len(machines) - MOST_NAMED} more" if len(machines) > MOST_NAMED else ""
    return f"take {', '.join(named)}{more}; "


def _do_not(plan: Plan, cells: Sequence[Cell]) -> str:
    """Say that nothing should be drafted, and what another software would gain, or how close a draft is."""
    here = f"with {plan.software} here" if plan.software else "here"
    sentence = f"do not speculate {here}"
    other = plan.elsewhere
    if other is not None:
        engine = f"with {' or '.join(other.runs_in[:2])} " if other.runs_in else ""
        needs = f" (it needs {other.needs})" if other.needs else ""
        name = called(other.strategy, other.draft_model)
        sentence += (
            f"; {engine}{name} would give {other.speedup:.2f}x at batch {other.batch_size}, context "
            f"{tokens(other.context_len)}{needs}"
        )
        return sentence
    closest = min((cell.runner_up_behind for cell in cells if cell.runner_up), default=None)
    if closest is None:
        return sentence
    if closest < 0.0:
        return f"{sentence}: the best draft would gain {-closest:.1%}, too little to count on"
    return f"{sentence}: the best draft would be {closest:.1%} slower"


def _run_by(plan: Plan, strategy: str, draft_model: str | None) -> str:
    """Say which software runs a drafter where few can, and nobody said which serves."""
    names = (strategy, f"{strategy}({draft_model})")
    able = next((plan.runs_in[name] for name in names if name in plan.runs_in), None)
    if able is None or len(able) > FEW:
        return ""
    return f"only {' and '.join(able)} can run it" if able else "no known software runs it"


def _speculate(plan: Plan, cells: Sequence[Cell], drafting: Sequence[Cell], where: _Where) -> str:
    """Say what drafts, where, and what that gains."""
    chances = [c.probability_beats_plain for c in drafting if c.probability_beats_plain is not None] or [1.0]
    chance, least = sum(chances) / len(chances), min(chances)
    sentence = "speculate" if chance >= SURE else f"speculation {'should' if chance >= LIKELY else 'may'} pay"
    groups: dict[tuple[str, str | None], list[Cell]] = {}
    for cell in drafting:
        groups.setdefault((cell.strategy, cell.draft_model), []).append(cell)
    named = sorted(groups.items(), key=lambda group: -len(group[1]))[:MOST_NAMED]
    parts = [
        _group(
            called(*drafter), group, "" if len(group) == len(cells) else where.of(_places(group)), where,
            _run_by(plan, *drafter),
        )
        for drafter, group in named
    ]  # fmt: skip
    sentence += f": {'; '.join(parts)}"
    if len(groups) > MOST_NAMED:
        sentence += f"; others in {len(drafting) - sum(len(group) for _, group in named)} cells"
    gain = _span(drafting, lambda cell: cell.speedup, _times)
    sentence += f": {gain} ({_span(drafting, _tpot_ms, _milliseconds)})"
    if least < SURE:
        sentence += f", {'up to ' if least < max(chances) else ''}{_one_in(1.0 - least)} chance to be slower"
    tight = _places(cell for cell in drafting if cell.barely_fits)
    if tight:
        sentence += f"; it barely fits{where.of(tight)}"
    plain = _places(cells) - _places(drafting)
    return sentence + (f"; not{where.of(plain)}" if plain else "")


def _group(name: str, cells: Sequence[Cell], place: str, where: _Where, run_by: str) -> str:
    """Say a drafter with its budgets and lengths, where it drafts, and what it needs."""
    budgets = sorted({cell.kv_budget for cell in cells if cell.kv_budget is not None})
    budget = f", KV budget {_ends(budgets, tokens)}" if budgets else ""
    needs = sorted({f"needs {cell.needs}" for cell in cells if cell.needs}) + [run_by] * bool(run_by)
    needed = f" ({'; '.join(needs)})" if needs else ""
    return f"{name}{needed}{budget}, {_lengths(cells, where, whole=not place)}{place}"


def _lengths(cells: Sequence[Cell], where: _Where, *, whole: bool) -> str:
    """Say the speculation lengths: one, two by batch size or context of the whole, or from where to where."""
    lengths: dict[int, set[_Place]] = {}
    for cell in cells:
        lengths.setdefault(cell.gamma, set()).add((cell.batch_size, cell.context_len))
    if len(lengths) == 2 and where.line and whole:
        (first, its), (then, _) = lengths.items()
        if bound := where.up_to(its, _places(cells)):
            return f"{_drafts(first)} {bound}, {then} beyond"
    rising = sorted(lengths)
    return _drafts(rising[0]) if len(rising) == 1 else f"{rising[0]} to {_drafts(rising[-1])}"


class _Where:
    """Says in words which cells of a plan are meant."""

    def __init__(self, request: Mapping[str, Any], cells: Sequence[Cell]) -> None:
        self.batches = sorted(request.get("batch_sizes") or {cell.batch_size for cell in cells})
        self.contexts = sorted(request.get("context_lens") or {cell.context_len for cell in cells})

    @property
    def line(self) -> bool:
        """Whether the cells differ by one axis only."""
        return 1 in (len(self.batches), len(self.contexts))

    def missing(self, answered: set[_Place]) -> set[_Place]:
        """Return the cells that were asked for and have no answer."""
        return {(batch, context) for batch in self.batches for context in self.contexts} - answered

    def of(self, places: Iterable[_Place]) -> str:
        """Say some cells: by batch size, by context, or how many they are. Nothing where they are all."""
        cells = set(places)
        batches, contexts = sorted({batch for batch, _ in cells}), sorted({context for _, context in cells})
        if len(cells) == len(self.batches) * len(self.contexts):
            return ""
        if len(cells) < len(batches) * len(contexts):
            return f" in {len(cells)} of {len(self.batches) * len(self.contexts)} cells"
        parts = [
            _on_axis(name, chosen, every)
            for name, chosen, every in (
                ("batch", batches, self.batches), ("context", contexts, self.contexts)
            )
            if len(chosen) < len(every)
        ]  # fmt: skip
        return f" {' and '.join(parts)}"

    def up_to(self, places: set[_Place], among: set[_Place]) -> str:
        """Say that some of a line of cells are its first; empty where they are not."""
        name, axis, every = (
            ("batch", 0, self.batches) if len(self.contexts) == 1 else ("context", 1, self.contexts)
        )
        chosen = [value for value in every if value in {place[axis] for place in places}]
        line = [value for value in every if value in {place[axis] for place in among}]
        if line[: len(chosen)] != chosen:
            return ""
        return f"{'at' if len(chosen) == 1 else 'up to'} {name} {tokens(chosen[-1])}"


def _on_axis(name: str, chosen: Sequence[int], every: Sequence[int]) -> str:
    """Say some values of an axis."""
    first, last = every.index(chosen[0]), every.index(chosen[-1])
    if last - first + 1 == len(chosen) > 1:
        if first == 0:
            return f"up to {name} {tokens(chosen[-1])}"
        if last == len(every) - 1:
            return f"from {name} {tokens(chosen[0])} on"
        return f"at {name} {tokens(chosen[0])} to {tokens(chosen[-1])}"
    if len(chosen) <= MOST_NAMED:
        return f"at {name} {' and '.join(tokens(value) for value in chosen)}"
    return f"at {len(chosen)} of {len(every)} {name} values"


def _places(cells: Iterable[Cell]) -> set[_Place]:
    return {(cell.batch_size, cell.context_len) for cell in cells}


def _drafts(gamma: int) -> str:
    return f"{gamma} token" + ("" if gamma == 1 else "s")


def _span(cells: Sequence[Cell], value: Callable[[Cell], float], show: Callable[[float], str]) -> str:
    values = sorted(map(value, cells))
    unit = " ms a token" if show is _milliseconds else ""
    return _ends(values, show) + unit


def _tpot_ms(cell: Cell) -> float:
    return cell.tpot_s * 1e3


def _milliseconds(value: float) -> str:
    return milliseconds(value / 1e3)


def _times(value: float) -> str:
    return f"{value:.2f}x"


def _ends(values: Sequence[float], show: Callable[[float], str]) -> str:
    low, high = show(values[0]), show(values[-1])
    return low if low == high else f"{low} to {high}"


def _one_in(share: float) -> str:
    """Say a chance as one in so many, as people do."""
    return f"a 1 in {max(round(1.0 / max(share, 1e-3)), 2)}"
