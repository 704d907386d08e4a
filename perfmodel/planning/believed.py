"""What the figures of a plan have to be to be an answer: laws over its cells, by which a file is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

import strategies
from perfmodel.accelerators import CAPACITY
from perfmodel.errors import Fault, SpecError
from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.latency import CAUSES
from perfmodel.planning.columns import NO_DRAFT
from perfmodel.planning.figures import Figures
from perfmodel.planning.header import header_faults
from perfmodel.planning.plan_cells import (
    MOST_FAULTS,
    REMEDY,
    Columns,
    Wrong,
    among,
    lengths,
    refuse,
    trees,
    values,
)

__all__ = ["believe"]

ROUNDING = 1e-9
"""A file holds every digit: what differs is the order in which figures were multiplied. [1]"""
REACH = 100.0
"""An 80 % range does not end further than this from its figure; the widest known ends at 6. Assumed. [1]"""
ONE_DRAW = 0.07
"""Share of the possible worlds that may lie on a border, one of the fewest there are. [1]"""
TIE = 0.1
"""By how much of its time a runner-up may be better: a near tie. [1]"""
GROWTH = 0.3
"""By how much tokens at the acceptance half-way differ from those of a whole generation: twice the most
known, 0.15 at a budget of one token. Assumed. [1]"""
FASTER = 0.01
"""By how much a round of more drafts may be faster than one of fewer: another kernel; 0.003 known. [1]"""
LOADED = 8.0
"""How many times as long a plain step takes at most while a drafter is loaded; 1.52 known. Assumed. [1]"""

DRAFTERS = (
    "draft_model", "kv_budget", "break_even_alpha", "match_share", "draft_tensor_parallel", "topk", "nodes",
    "needs", "most_gamma",
)  # fmt: skip
"""What is said of a drafter only."""
BELIEFS = ("alpha", "alpha_first", "alpha_rest", "alpha_sd", "alpha_kind", "break_even_alpha")
"""What is said wherever something drafts, as far as any cell says it."""
JUDGED = (
    "tpot_low_s", "tpot_high_s", "speedup_low", "speedup_high", "probability_runner_up_better",
    "regret_if_alpha_wrong", "value_of_knowing_alpha",
)  # fmt: skip
"""What is said of all cells of a plan or of none."""
KINDS = ("measured", "published", "assumed", "given")

Bounds: TypeAlias = "tuple[Numeric, Numeric]"


def _exactly(value: FloatArray) -> Bounds:
    return value, value


def _where_drafted(of: Figures, value: float | None) -> FloatArray:
    return np.where(of.drafts, np.nan if value is None else value, np.nan)


def _rival_bounds(of: Figures) -> Bounds:
    """How far the runner-up may be behind: as plain decoding is, with or without the drafter loaded."""
    plain = of.columns.each("runner_up", lambda name: name.startswith("plain decoding")) & of.drafts
    without, loaded = of.baseline_s / of.tpot_s, of.rounds[:, 0] / of.tpot_s
    nobody = of.columns.each("runner_up", lambda name: not name)
    least = np.where(nobody, 0.0, -1.0 if of.request.get("risk") is not None else -TIE)
    most = np.where(nobody, 0.0, np.inf)
    return (
        np.where(plain, np.fmin(without, loaded) / (1.0 + TIE) - 1.0, least),
        np.where(plain, np.fmax(without, loaded) - 1.0, most),
    )


def _beats_bounds(of: Figures) -> Bounds:
    """The share of worlds above 1 that an 80 % range leaves."""
    least = np.where(of.speedup_low > 1.0, 0.9, np.where(of.speedup_high > 1.0, 0.1, 0.0))
    most = np.where(of.speedup_high < 1.0, 0.1, np.where(of.speedup_low < 1.0, 0.9, 1.0))
    return least - ONE_DRAW, most + ONE_DRAW


def _rival_chance(of: Figures) -> Bounds:
    plain = of.columns.each("runner_up", lambda name: name == "plain decoding") & of.drafts
    behind = 1.0 - of.probability_beats_plain
    most = np.where(of.columns.each("runner_up", lambda name: not name), 0.0, np.inf)
    return np.where(plain, behind - ONE_DRAW, 0.0), np.where(plain, behind + ONE_DRAW, most)


class Law(NamedTuple):
    """What a figure of every cell has to lie between; silent where it or what bounds it is not told.

    key : the column that is blamed.
    why : what bounds it, for people.
    bounds : least and most of it; of `value`, where that is given.
    slack : by what share of its bound it may lie beyond. [1]
    value : what is compared in place of the column.
    """

    key: str
    why: str
    bounds: Callable[[Figures], Bounds]
    slack: float = ROUNDING
    value: Callable[[Figures], FloatArray] | None = None


LAWS = (
    Law("tokens_per_round", "a round yields", lambda of: (1.0, np.fmin(of.gamma, of.most_gamma) + 1.0)),
    Law("tokens_per_round", "alpha yields", lambda of: _exactly(of.tokens_believed)),
    Law("alpha_first", "tokens_per_round, which alpha_first and alpha_rest yield, is",
        lambda of: _exactly(of.tokens_per_round), GROWTH, lambda of: of.tokens_half_way),
    Law("alpha_first", "request.alpha is", lambda of: _exactly(_where_drafted(of, of.request.get("alpha")))),
    Law("tpot_s", "round_s / tokens_per_round is", lambda of: _exactly(of.round_s / of.tokens_per_round)),
    Law("speedup", "baseline_s / tpot_s is", lambda of: _exactly(of.baseline_s / of.tpot_s)),
    Law("speedup", "gamma allows", lambda of: (0.0, of.gamma + 1.0)),
    Law("throughput_tokens_per_s", "batch_size / tpot_s is", lambda of: _exactly(of.batch_size / of.tpot_s)),
    Law("verify_ratio", "verify_s / baseline_s is", lambda of: _exactly(of.verify_s / of.baseline_s)),
    Law("draft_s", "draft_ratio * baseline_s, times whole passes of the drafter, is",
        lambda of: _exactly(of.draft_passes * of.draft_ratio * of.baseline_s)),
    Law("round_s", "draft_s + verify_s are", lambda of: (of.draft_s + of.verify_s, np.inf)),
    Law("break_even_alpha", "round_s / baseline_s, the tokens it has to yield, is",
        lambda of: _exactly(np.clip(of.round_s / of.baseline_s, 1.0, of.gamma + 1.0)),
        value=lambda of: of.tokens_at(of.break_even_alpha, of.break_even_alpha, of.gamma)),
    Law("tpot_low_s", "tpot_s, which lies above it, allows", lambda of: (of.tpot_s / REACH, of.tpot_s)),
    Law("tpot_high_s", "tpot_s, which lies below it, allows", lambda of: (of.tpot_s, of.tpot_s * REACH)),
    Law("speedup_low", "speedup, which lies above it, allows", lambda of: (of.speedup / REACH, of.speedup)),
    Law("speedup_high", "speedup, which lies below it, allows", lambda of: (of.speedup, of.speedup * REACH)),
    Law("speedup_high", "plain decoding allows", lambda of: (0.0, np.where(of.drafts, np.inf, 1.0))),
    Law("probability_beats_plain", "speedup_low and speedup_high allow", _beats_bounds),
    Law("runner_up_behind", "runner_up, tpot_s and the rest allow", _rival_bounds),
    Law("probability_runner_up_better", "runner_up and probability_beats_plain allow", _rival_chance),
    Law("regret_if_alpha_wrong", "the longest draft, if it were free, allows",
        lambda of: (0.0, (of.gammas[-1] + 1.0) * of.round_s / of.baseline_s - 1.0)),
    Law("value_of_knowing_alpha", "regret_if_alpha_wrong allows", lambda of: (0.0, of.regret_if_alpha_wrong)),
    Law("cost_per_million_tokens_usd", "the rent of a GPU, as the other cells have it, is [USD/s]",
        lambda of: _exactly(of.common(of.rent)), value=lambda of: of.rent),
    Law("memory_left_bytes", "a GPU, as the other cells have it, holds [B]",
        lambda of: _exactly(of.common(of.memory)), value=lambda of: of.memory),
    Law("memory_bytes_per_gpu", "with memory_left_bytes, a GPU holds [B]",
        lambda _: (0.0, CAPACITY.physical), value=lambda of: of.memory),
    Law("memory_in_doubt_bytes", "the memory of a GPU allows", lambda of: (0.0, of.memory)),
    Law("state_share", "cache_share leaves", lambda of: (0.0, 1.0 - of.cache_share)),
    Law("kept_state_ratio", "verify_ratio allows", lambda of: (0.0, of.verify_ratio)),
    Law("draft_tensor_parallel", "tensor_parallel allows", lambda of: (1.0, of.tensor_parallel)),
    Law("output_tokens", "request.output_tokens is",
        lambda of: _exactly(np.full(of.size, float(round(of.request.get("output_tokens") or 0.0))))),
    Law("tpot_s", "request.tpot_limit_s allows", lambda of: (0.0, of.request.get("tpot_limit_s") or np.inf)),
)  # fmt: skip
"""Every figure that others fix or bound; figures that a consistent plan leaves free have a range only."""


def believe(header: Mapping[str, Any], columns: Columns, file: str) -> None:
    """Raise SpecError, up to `MOST_FAULTS` lines of it, unless a plan can be an answer.

    Parameters
    ----------
    header : the plan as plain values, but for its cells.
    columns : the cells by columns, as of `columns_in`.
    """
    refuse(values(columns), file)
    if faults := header_faults(header, file, REMEDY):
        raise SpecError(faults[:MOST_FAULTS])
    gammas = set(header["gammas"])
    refuse(among(columns, "gamma", gammas, "gammas names no such length"), file)
    refuse(lengths(columns, len(gammas)), file)
    refuse(trees(columns), file)
    figures = Figures(header, columns)
    with np.errstate(all="ignore"):
        laws = [wrong for law in LAWS for wrong in _broken(law, figures)]
        refuse([*_words(figures), *laws, *_rounds(figures)], file)
    refuse(_grid(figures), file)
    if faults := [*_of_header(figures, file)]:
        raise SpecError(faults)


def _broken(law: Law, figures: Figures) -> Iterator[Wrong]:
    value = figures.numbers[law.key] if law.value is None else law.value(figures)
    bounds = (np.asarray(bound, dtype=float) for bound in law.bounds(figures))
    least, most = (np.broadcast_to(bound, value.shape) for bound in bounds)
    below = value < least - law.slack * np.abs(least) - 1e-12
    above = value > most + np.nan_to_num(law.slack * np.abs(most)) + 1e-12
    for cell in np.flatnonzero((below | above) & ~np.isnan(figures.numbers[law.key]))[:MOST_FAULTS].tolist():
        given = "" if law.value is None else f", which makes {value[cell]:.9g}"
        bound = (
            f"{least[cell]:.9g}" if least[cell] == most[cell]
            else f"at least {least[cell]:.9g}" if np.isinf(most[cell])
            else f"{least[cell]:.9g} to {most[cell]:.9g}"
        )  # fmt: skip
        yield cell, law.key, figures.columns[law.key][cell], f"{given}: {law.why} {bound}"


def _words(of: Figures) -> Iterator[Wrong]:
    """Names and what is said only where something drafts."""
    columns = of.columns
    yield from among(columns, "bound_by", set(CAUSES), f"what bounds a step is one of {', '.join(CAUSES)}")
    yield from among(columns, "alpha_kind", {None, *KINDS}, f"rates are {', '.join(KINDS)}")
    machines = {*str(of.header["hardware"]).split(", "), of.header["hardware"], ""}
    yield from among(columns, "hardware", machines, "the plan's hardware names no such accelerator")
    drafts = of.drafts
    names = columns.each("strategy", lambda name: name == NO_DRAFT)
    nameless = columns.each("strategy", lambda name: not name)
    for cell in np.flatnonzero((names == drafts) | nameless).tolist():
        yield cell, "strategy", columns["strategy"][cell], f" at gamma {columns['gamma'][cell]}"
    for key in DRAFTERS:
        if columns.distinct(key) != {None}:
            for cell in np.flatnonzero(columns.each(key, bool) & ~drafts).tolist():
                yield cell, key, columns[key][cell], ", but nothing is drafted"
    first_release = bool(np.all(np.isnan(of.memory_left_bytes)))
    for key in BELIEFS if of.is_told else ():
        if key != "alpha_rest" or not first_release:
            yield from _unsaid(columns, key, drafts, ", but something is drafted")
    everywhere = np.ones(of.size, dtype=bool)
    if not all(np.all(columns.is_absent(key)) for key in JUDGED):
        for key in JUDGED:
            yield from _unsaid(columns, key, everywhere, ", but the plan says how sure it is")
        yield from _unsaid(columns, "probability_beats_plain", drafts, ", but something is drafted")
    rented = ~np.isnan(of.common(of.rent))
    yield from _unsaid(columns, "cost_per_million_tokens_usd", rented, ", but other cells are priced")
    yield from _budgets(of)


def _unsaid(columns: Columns, key: str, where: NDArray[np.bool_], why: str) -> Iterator[Wrong]:
    for cell in np.flatnonzero(columns.is_absent(key) & where).tolist():
        yield cell, key, None, why


def _budgets(of: Figures) -> Iterator[Wrong]:
    """Draft KV budgets that were not tried; those of heads depend on a training that no plan tells."""
    asked = of.request.get("kv_budgets") or []
    pairs = list(zip(of.columns["strategy"], of.columns["kv_budget"], strict=True))
    known = set(strategies.available())
    for name, budget in {pair for pair in pairs if pair[0] in known and of.is_told}:
        strategy = strategies.load(name)
        own = strategy.default_budgets
        tried = {*own, *(np.inf if each is None else each for each in asked)} if own else {np.inf}
        if "head" not in strategy.drafters and (np.inf if budget is None else budget) not in tried:
            for cell, pair in enumerate(pairs):
                if pair == (name, budget):
                    yield cell, "kv_budget", budget, f": neither {name} nor request.kv_budgets tries that"


def _rounds(of: Figures) -> Iterator[Wrong]:
    """Rounds of every length: the chosen one is the cell's, they rise, and one costs no more than two."""
    rounds, gammas = of.rounds, of.gammas
    here = rounds[np.arange(of.size), of.place]
    own = np.where(np.isnan(of.round_s), of.tpot_s * of.tokens_per_round, of.round_s)
    wrong = np.abs(here - own) > ROUNDING * own
    for cell in np.flatnonzero(wrong).tolist():
        why = f": round_s at gamma {of.gamma[cell]:.0f} is {own[cell]:.9g}"
        yield cell, f"round_by_gamma_s.{of.place[cell]}", float(here[cell]), why
    before = rounds[:, :-1].copy()
    before[:, :1] = of.baseline_s[:, None]
    least = before * (1.0 - FASTER)
    most = before[:, 1:] * np.ceil(gammas[2:] / gammas[1:-1]) * (1.0 + FASTER)
    most = np.concatenate([np.full((of.size, min(1, gammas.size - 1)), np.inf), most], axis=1)
    for cell, at in np.argwhere((rounds[:, 1:] < least) | (rounds[:, 1:] > most)).tolist():
        shorter = "a plain step" if at == 0 else "the length before it"
        why = f": {shorter} takes {before[cell, at]:.9g}"
        yield cell, f"round_by_gamma_s.{at + 1}", float(rounds[cell, at + 1]), why
    idle, plain = rounds[:, 0], of.baseline_s
    for cell in np.flatnonzero((idle < plain * (1.0 - ROUNDING)) | (idle > plain * LOADED)).tolist():
        yield cell, "round_by_gamma_s.0", float(idle[cell]), f": baseline_s is {plain[cell]:.9g}"


def _grid(of: Figures) -> Iterator[Wrong]:
    """Cells once each and in order, of what was asked; of one deployment one drafter."""
    columns, request = of.columns, of.request
    places = list(zip(columns["batch_size"], columns["context_len"], strict=True))
    for cell in range(1, of.size):
        if places[cell] <= places[cell - 1]:
            why = f" with context_len {places[cell][1]}, which is there before or out of order"
            yield cell, "batch_size", places[cell][0], why
    names = {"batch_size": "batch_sizes", "context_len": "context_lens", "tensor_parallel": "tensor_parallel"}
    for key, asked in names.items():
        if request.get(asked) is not None:
            yield from among(columns, key, set(request[asked]), f"request.{asked} names no such")
    if request.get("one_deployment"):
        drafter_keys = ("strategy", "draft_model", "kv_budget", "draft_tensor_parallel", "topk", "nodes")
        machines = zip(columns["hardware"], columns["tensor_parallel"], strict=True)
        first: dict[Any, Any] = {}
        rows = zip(machines, zip(*(columns[name] for name in drafter_keys), strict=True), strict=True)
        for cell, (machine, drafter) in enumerate(rows):
            if of.drafts[cell] and first.setdefault(machine, drafter) != drafter:
                pairs = zip(first[machine], drafter, strict=True)
                key = next(name for name, (a, b) in zip(drafter_keys, pairs, strict=True) if a != b)
                yield cell, key, columns[key][cell], ": one deployment has one drafter"


def _of_header(of: Figures, file: str) -> Iterator[Fault]:
    """What the header says of the cells."""
    columns, request, header = of.columns, of.request, of.header
    asked_gpus = request.get("tensor_parallel") or []
    for key in ("tensor_parallel", "pipeline_parallel", "data_parallel"):
        value = header.get(key, 1)
        if value not in columns.distinct(key) and (key != "tensor_parallel" or value not in asked_gpus):
            yield Fault(file, None, key, f"found {value}, which no cell has", REMEDY)
    for key in ("pipeline_parallel", "data_parallel"):
        for cell, _, value, why in among(columns, key, {header.get(key, 1)}, "the plan has another"):
            yield Fault(file, None, f"cells.{cell}.{key}", f"found {value}{why}", REMEDY)
    asked = [request.get("batch_sizes"), request.get("context_lens")]
    if None not in asked and not any(header["infeasible"].values()):
        cells = len(asked[0] or ()) * len(asked[1] or ())
        if cells != of.size:
            problem = f"{of.size} cells for {cells} that request names, and infeasible counts nothing"
            yield Fault(file, None, "cells", problem, REMEDY)
    outside = header.get("elsewhere")
    if outside:
        places = list(zip(columns["batch_size"], columns["context_len"], strict=True))
        place = outside["batch_size"], outside["context_len"]
        planned = columns["speedup"][places.index(place)] if place in places else None
        for key, expected in (
            ("planned_speedup", planned), ("gain", outside["speedup"] / outside["planned_speedup"] - 1.0),
        ):  # fmt: skip
            if expected is None or abs(outside[key] - expected) > ROUNDING * abs(expected) + 1e-12:
                is_there = "the plan has no such cell" if expected is None else f"{key} is {expected:.9g}"
                yield Fault(file, None, f"elsewhere.{key}", f"found {outside[key]}: {is_there}", REMEDY)
        if outside["speedup"] > outside["gamma"] + 1.0:
            problem = f"found {outside['speedup']}: gamma allows at most {outside['gamma'] + 1}"
            yield Fault(file, None, "elsewhere.speedup", problem, REMEDY)
