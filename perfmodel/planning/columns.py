"""Every number of an answer, described once: the field of a cell, its key, and how people read it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfmodel.files.numbers import FloatArray, Numeric
    from perfmodel.planning.cells import Cells
    from strategies.base import Tree

__all__ = [
    "MOST", "NO_DRAFT", "SWEPT", "Cell", "Column", "columns_of", "fill", "gain", "milliseconds", "number",
    "swept", "titled", "tokens",
]  # fmt: skip

NO_DRAFT = "none"
SWEPT = ("tokens_per_round", "round_s", "tpot_s", "speedup", "throughput_tokens_per_s")
"""Columns of a sweep, beside its axes and whether a configuration fits."""
MOST = {"1": 1e6, "s": 1e7, "tokens": 1e8, "GPUs": 1024.0, "B": 1e24, "tokens/s": 1e13, "USD": 1e13}
"""Beyond every answer, by unit: a larger figure was not computed. [unit]"""
LEAST_S = 1e-12
"""No step is shorter. [s]"""


@dataclass(frozen=True)
class Column:
    """A number of the answer.

    Parameters
    ----------
    name : the field of `Cell`, the JSON key and the CSV column.
    unit : SI, or ``1``; empty for words.
    value : its values for the cells of an `Answer`; those that need only a `Priced` serve sweeps too.
    title : what stands above it in a printed table; not printed where empty.
    place : where it stands among the printed ones.
    show : the text of a cell in a printed table.
    left : whether it is aligned to the left, as words are.
    printed : whether a plan's table needs it.
    spare : how soon a terminal that is too narrow goes without it, the highest first; 0 is never left out.
    least, most : what it can be at all; 0 and what its unit has in `MOST` where absent. [unit]
    """

    name: str
    unit: str
    value: Callable[[Any], Any]
    title: str = ""
    place: float = 0.0
    show: Callable[[Any], str] = str
    left: bool = False
    printed: Callable[[Any], bool] = lambda _: True
    spare: int = 0
    least: float = 0.0
    most: float = math.inf

    @property
    def range(self) -> tuple[float, float]:
        """What it can be at all. [unit]"""
        return self.least, min(self.most, MOST.get(self.unit, math.inf))


def column(unit: str, value: Callable[[Any], Any], *, default: Any = MISSING, **printed: Any) -> Any:
    """Declare a field of `Cell` and with it a column; arguments as of `Column`."""
    declared = Column("", unit, value, **printed)
    return dataclasses.field(default=default, metadata={"column": declared})


@functools.cache
def columns_of(cell: type[Cell]) -> tuple[Column, ...]:
    """Return the columns that the fields of a cell are."""
    return tuple(
        dataclasses.replace(field.metadata["column"], name=field.name) for field in dataclasses.fields(cell)
    )


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, never in powers of ten; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}"


def milliseconds(seconds: float | None) -> str:
    """Return seconds in milliseconds. [s] -> [ms]"""
    return number(None if seconds is None else seconds * 1e3)


def tokens(value: float | None) -> str:
    """Return a number of tokens, thousands apart; "all" where it is infinite, a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if math.isfinite(value) else "all"


def gain(value: float | None) -> str:
    """Return a speedup; a dash where there is none."""
    return "-" if value is None else f"{value:.2f}x"


def _drafting(answer: Any, value: Any, otherwise: Any = None) -> Any:
    """Return a value in the cells that draft, another where nothing is drafted."""
    from perfmodel.planning.packed import chosen  # here and below, so that --help loads no numpy

    return chosen(answer.gamma > 0, value, otherwise)


def _strategies(answer: Any) -> Any:
    return _drafting(answer, answer.drafter.strategy.name if answer.drafter else NO_DRAFT, NO_DRAFT)


def _draft_models(answer: Any) -> Any:
    model = answer.drafter.draft_model if answer.drafter else None
    return _drafting(answer, model.name if model else None)


def _needs(answer: Any) -> Any:
    """What must exist before each cell's drafter can draft; empty where it is there."""
    return _drafting(answer, answer.drafter.needs(answer.deployment.model) if answer.drafter else "", "")


def _draft_tensor_parallel(answer: Any) -> Any:
    own = answer.drafter.draft_tensor_parallel if answer.drafter else None
    return _drafting(answer, None if own is None else min(own, int(answer.deployment.tensor_parallel)))


def _of_tree(answer: Any, name: str) -> Any:
    """Return a number of the tree that is drafted, None where nothing is or no tree is named."""
    return _drafting(answer, getattr(answer.drafter.tree if answer.drafter else None, name, None))


def _branches(plan: Any) -> bool:
    """Whether a tree is drafted anywhere."""
    return plan.columns.says("nodes")  # type: ignore[no-any-return]


def _most_gammas(answer: Any) -> Any:
    drafter = answer.drafter
    longest = drafter.longest(answer.deployment.model) if drafter else math.inf
    return _drafting(answer, int(longest) if math.isfinite(longest) else None)


def _kv_budgets(answer: Any) -> Any:
    """The draft KV budget; None where nothing is drafted or all is kept."""
    import numpy as np

    from perfmodel.planning.packed import coded, distinct

    codes, budgets = distinct(np.where(answer.gamma > 0, answer.kv_budget, np.inf))
    return coded(codes, [int(budget) if math.isfinite(budget) else None for budget in budgets.tolist()])


def _accepted(answer: Any, name: str) -> Any:
    """Return a field of what is believed of acceptance, None where nothing drafts."""
    acceptance = answer.round.acceptance
    return None if acceptance is None else getattr(acceptance, name)


def _match_shares(answer: Any) -> Any:
    """Return the share of rounds that draft where some find nothing to draft, else None."""
    import numpy as np

    match = np.asarray(answer.round.match, dtype=float)
    return np.where((answer.gamma > 0) & (match < 1.0), match, np.nan)


def _one_rate(answer: Any) -> Any:
    """The rate of every drafted token that yields the tokens of a round: what break-even is compared with."""
    import numpy as np

    from perfmodel.acceptance import alpha_from_mean_length
    from perfmodel.planning.packed import distinct

    rest = _accepted(answer, "rest")
    if rest is None or not np.any(answer.gamma > 0):
        return rest
    tokens = np.clip(answer.expand(answer.round.tokens_per_round), 1.0, answer.gamma + 1.0)
    gamma, tree = np.maximum(answer.gamma, 1.0), answer.drafter.tree if answer.drafter else None
    codes, each = distinct(tokens + 1j * gamma)  # tokens depend on few of what tells cells apart
    rates = np.asarray(alpha_from_mean_length(each.real, each.imag, tree))[codes]
    return np.where(answer.gamma > 0, rates, rest)


def _break_even_alpha(answer: Any) -> Any:
    """Acceptance rate at which each round costs what plain decoding does; None where none drafts."""
    import numpy as np

    from perfmodel.planning.packed import Later, pack

    needed = np.clip(answer.expand(answer.round.break_even_tokens), 1.0, answer.gamma + 1.0)
    gammas = np.where(answer.gamma > 0, answer.gamma, np.nan)
    tree, size = answer.drafter.tree if answer.drafter else None, answer.shape[0]
    return Later(_break_even, (pack(needed, size), pack(gammas, size), pack(tree, size)))


def _break_even(needed: Any, gammas: Any, trees: Any) -> FloatArray:
    """Acceptance rates that yield so many tokens of so long drafts; nan where nothing is drafted."""
    import numpy as np

    from perfmodel.acceptance import alpha_from_mean_length

    tokens, gamma = needed.floats(), gammas.floats()
    rates = np.full(tokens.shape, np.nan)
    for tree in trees.table:
        here = np.flatnonzero(~np.isnan(gamma) & trees.equals(tree))
        rates[here] = alpha_from_mean_length(tokens[here], gamma[here], tree)
    return rates


def _kept_state_ratio(answer: Any) -> Numeric:
    """What states add to a verification beyond a plain step, over that step. [1]"""
    plain, verify = answer.round.baseline, answer.round.verify
    ratio: Numeric = (verify.recurrence - plain.recurrence) / plain.total
    return ratio


def _cost_per_million_tokens(answer: Any) -> Numeric:
    """Rent of the GPUs over what they put out. [USD per million tokens]"""
    deployment = answer.deployment
    rent = deployment.hardware.price_per_hour * deployment.gpus / 3600.0
    cost: Numeric = rent / answer.round.throughput * 1e6
    return cost


def _drafts(plan: Any) -> bool:
    """Whether anything is drafted in any cell."""
    return bool((plan.columns.numbers("gamma") > 0).any())


def _machines(plan: Any) -> int:
    """How many machines each cell was chosen among."""
    return len(plan.hardware.split(", ")) * len(plan.request.get("tensor_parallel") or [1])


def _barely_fits(plan: Any) -> bool:
    """Whether any cell fits by less than engines were seen to keep on top."""
    left = plan.columns.numbers("memory_left_bytes")
    return bool(((left >= 0.0) & (left < plan.columns.numbers("memory_in_doubt_bytes"))).any())


def _between(cell: Cell) -> str:
    """The range that the speedup has 80 % of its chance in."""
    if cell.speedup_low is None or cell.speedup_high is None or not cell.speculates:
        return "-"
    return f"{cell.speedup_low:.2f}-{cell.speedup_high:.2f}"


def _judged(name: str, unit: str, **printed: Any) -> Any:
    """Declare a column of how sure the answer is."""
    return column(unit, lambda answer: answer.judged.get(name), default=None, **printed)


@dataclass(frozen=True)
class Cell:
    """The recommendation for one batch size and context length; seconds and tokens, never milliseconds."""

    batch_size: int = column(
        "1", lambda answer: answer.batch.astype(int), title="batch", place=1, least=1.0,
        show=lambda cell: str(cell.batch_size),
    )
    context_len: int = column(
        "tokens", lambda answer: answer.context_len.astype(int), title="context", place=2, least=1.0,
        show=lambda cell: tokens(cell.context_len),
    )
    strategy: str = column(
        "", _strategies, title="strategy", place=5, left=True,
        show=lambda cell: cell.strategy if cell.speculates else "plain",
    )
    draft_model: str | None = column(
        "", _draft_models, title="draft\nmodel", place=6, left=True,
        show=lambda cell: cell.draft_model or ("self" if cell.speculates else "-"),
        printed=lambda plan: plan.columns.says("draft_model"),
    )
    kv_budget: int | None = column(
        "tokens", _kv_budgets, title="KV\nbudget", place=7, least=1.0, printed=_drafts,
        show=lambda cell: "all" if cell.kv_budget is None and cell.speculates else tokens(cell.kv_budget),
    )
    gamma: int = column(
        "tokens", lambda answer: answer.gamma.astype(int), title="gamma", place=8, printed=_drafts,
        show=lambda cell: str(cell.gamma),
    )
    tokens_per_round: float = column(
        "tokens", lambda answer: answer.round.tokens_per_round, title="tokens/\nround", place=9, least=1.0,
        spare=3, printed=_drafts, show=lambda cell: f"{cell.tokens_per_round:.2f}",
    )
    tpot_s: float = column(
        "s", lambda answer: answer.round.tpot, title="TPOT\nms", place=10, least=LEAST_S,
        show=lambda cell: milliseconds(cell.tpot_s),
    )
    baseline_s: float = column(
        "s", lambda answer: answer.round.baseline.total, title="plain\nms", place=11, least=LEAST_S, spare=2,
        printed=_drafts,
        show=lambda cell: milliseconds(cell.baseline_s),
    )
    speedup: float = column(
        "1", lambda answer: answer.round.speedup, title="speedup", place=12, printed=_drafts,
        show=lambda cell: gain(cell.speedup),
    )
    bound_by: str = column(
        "", lambda answer: answer.round.bound_by, title="bound by", place=14, left=True, spare=4,
        show=lambda cell: cell.bound_by,
    )
    hardware: str = column(
        "", lambda answer: str(answer.deployment.hardware.name), default="", title="hardware", place=3,
        left=True, show=lambda cell: cell.hardware, printed=lambda plan: _machines(plan) > 1,
    )
    tensor_parallel: int = column(
        "GPUs", lambda answer: int(answer.deployment.tensor_parallel), default=1, title="tp", place=4,
        least=1.0, show=lambda cell: str(cell.tensor_parallel), printed=lambda plan: _machines(plan) > 1,
    )
    draft_s: float = column("s", lambda answer: answer.round.draft_s, default=0.0)
    verify_s: float = column("s", lambda answer: answer.round.verify.total, default=0.0)
    round_s: float = column("s", lambda answer: answer.round.round_s, default=0.0)
    draft_ratio: float = column("1", lambda answer: answer.round.draft_ratio, default=0.0)
    verify_ratio: float = column("1", lambda answer: answer.round.verify_ratio, default=1.0)
    alpha: float | None = column("1", _one_rate, default=None, most=1.0)
    alpha_first: float | None = column("1", lambda answer: _accepted(answer, "first"), default=None, most=1.0)
    alpha_rest: float | None = column("1", lambda answer: _accepted(answer, "rest"), default=None, most=1.0)
    alpha_sd: float | None = column("1", lambda answer: _accepted(answer, "sd"), default=None, most=0.5)
    match_share: float | None = column("1", _match_shares, default=None, most=1.0)
    alpha_kind: str | None = column("", lambda answer: answer.alpha_kind, default=None)
    break_even_alpha: float | None = column("1", _break_even_alpha, default=None, most=1.0)
    throughput_tokens_per_s: float = column("tokens/s", lambda answer: answer.round.throughput, default=0.0)
    cost_per_million_tokens_usd: float | None = column("USD", _cost_per_million_tokens, default=None)
    memory_bytes_per_gpu: float = column("B", lambda answer: answer.round.memory.total, default=0.0)
    tpot_low_s: float | None = _judged("tpot_low_s", "s")
    tpot_high_s: float | None = _judged("tpot_high_s", "s")
    speedup_low: float | None = _judged(
        "speedup_low", "1", title="80 %\nrange", place=13, left=True, show=_between,
        printed=lambda plan: _drafts(plan) and plan.columns.says("speedup_low"),
    )
    speedup_high: float | None = _judged("speedup_high", "1")
    probability_beats_plain: float | None = _judged("probability_beats_plain", "1", most=1.0)
    runner_up: str = column("", lambda answer: answer.runner_up, default="")
    runner_up_behind: float = column("1", lambda answer: answer.runner_up_behind, default=0.0, least=-1.0)
    probability_runner_up_better: float | None = _judged("probability_runner_up_better", "1", most=1.0)
    regret_if_alpha_wrong: float | None = _judged("regret_if_alpha_wrong", "1")
    value_of_knowing_alpha: float | None = _judged("value_of_knowing_alpha", "1")
    round_by_gamma_s: tuple[float, ...] = column(
        "s", lambda answer: answer.round_by_gamma_s, default=()
    )
    why: str = column("", lambda _: "", default="")  # said of the other fields by `fill`
    draft_tensor_parallel: int | None = column(
        "GPUs", _draft_tensor_parallel, default=None, title="draft\ntp", place=6.5, least=1.0, spare=1,
        show=lambda cell: str(cell.draft_tensor_parallel or "-"),
        printed=lambda plan: plan.columns.says("draft_tensor_parallel"),
    )

    topk: int | None = column(
        "tokens", lambda answer: _of_tree(answer, "topk"), default=None, title="topk", place=7.3, least=1.0,
        show=lambda cell: str(cell.topk or "-"), printed=_branches,
    )
    nodes: int | None = column(
        "tokens", lambda answer: _of_tree(answer, "nodes"), default=None, title="nodes", place=7.6, least=1.0,
        show=lambda cell: str(cell.nodes or "-"), printed=_branches,
    )
    output_tokens: int = column("tokens", lambda answer: round(answer.output_tokens), default=0)
    needs: str = column(
        "", _needs, default="", title="needs", place=16, left=True, spare=5, show=lambda cell: cell.needs,
        printed=lambda plan: plan.columns.says("needs"),
    )
    most_gamma: int | None = column("tokens", _most_gammas, default=None, least=1.0)
    memory_left_bytes: float = column(
        "B", lambda answer: answer.round.memory.left, default=0.0, title="fits", place=15, left=True,
        least=-math.inf,
        show=lambda cell: "barely" if cell.barely_fits else "yes",
        printed=_barely_fits,
    )
    memory_in_doubt_bytes: float = column("B", lambda answer: answer.round.memory.in_doubt, default=0.0)
    cache_share: float = column(
        "1", lambda answer: answer.round.baseline.attention / answer.round.baseline.total, default=0.0,
        most=1.0,
    )
    state_share: float = column(
        "1", lambda answer: answer.round.baseline.recurrence / answer.round.baseline.total, default=0.0,
        most=1.0,
    )
    kept_state_ratio: float = column("1", _kept_state_ratio, default=0.0)
    pipeline_parallel: int = column(
        "1", lambda answer: int(answer.deployment.pipeline_parallel), default=1, least=1.0
    )
    data_parallel: int = column(
        "1", lambda answer: int(answer.deployment.data_parallel), default=1, least=1.0
    )

    @property
    def gpus(self) -> int:
        """All GPUs that it runs on."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def speculates(self) -> bool:
        """Whether the recommendation drafts at all."""
        return self.gamma > 0

    @property
    def tree(self) -> Tree | None:
        """The tree that is drafted; None for a chain, or where nothing is drafted."""
        from strategies.base import Tree  # here, so that --help loads no numpy

        return Tree(self.gamma, self.topk, self.nodes) if self.topk and self.nodes else None

    @property
    def may_branch(self) -> bool:
        """Whether its steps, topk and nodes make a tree, or it names none."""
        try:
            return self.tree is not None or self.topk is self.nodes is None
        except ValueError:
            return False

    @property
    def barely_fits(self) -> bool:
        """Whether it fits by less than engines were seen to keep on top."""
        return 0.0 <= self.memory_left_bytes < self.memory_in_doubt_bytes

    @property
    def accepted(self) -> tuple[float, float] | None:
        """Acceptance of the first drafted token and of every later one; None where no drafter is known.

        Over all rounds: one that finds nothing to draft is one whose first draft is refused.
        """
        if self.accepted_of_drafting is None:
            return None
        first, rest = self.accepted_of_drafting
        return self.match * first, rest

    @property
    def accepted_of_drafting(self) -> tuple[float, float] | None:
        """As `accepted`, over the rounds that draft at all."""
        if self.alpha is None:
            return None
        return (
            self.alpha if self.alpha_first is None else self.alpha_first,
            self.alpha if self.alpha_rest is None else self.alpha_rest,
        )

    @property
    def match(self) -> float:
        """Share of rounds that draft at all; 1 where `alpha` is known alone, over all rounds. [0..1]"""
        return 1.0 if self.match_share is None or self.alpha_first is None else self.match_share


def fill(answer: Any, reason: Callable[[Mapping[str, Any], str], str]) -> Cells[Cell]:
    """Return the cells of an answer, one element of its arrays each.

    Parameters
    ----------
    reason : makes the sentence of a cell from its other fields and what hinders its drafts.
    """
    from perfmodel.planning.cells import Cells
    from perfmodel.planning.packed import pack

    size = answer.shape[0]
    columns = {declared.name: pack(declared.value(answer), size) for declared in columns_of(Cell)}
    return Cells(Cell, columns, reason, pack(answer.hindrance, size))


def swept(priced: Any, name: str) -> FloatArray:
    """Return one of `SWEPT` for every configuration."""
    declared = next(column for column in columns_of(Cell) if column.name == name)
    values: FloatArray = priced.expand(declared.value(priced))
    return values


def titled(plan: Any) -> list[Column]:
    """Return the columns that a plan's printed table has, in their places."""
    columns = [column for column in columns_of(plan.columns.kind) if column.title and column.printed(plan)]
    return sorted(columns, key=lambda column: column.place)
