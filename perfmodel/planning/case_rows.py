"""One row of a case file to the nouns and numbers that are priced; every name is looked up once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.engine import DEFAULT_ENGINE, EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.files.csv_rows import CsvRow
from perfmodel.files.numbers import Numeric
from perfmodel.files.units import parse_count, parse_quantity
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.drafters import check_drafters, find_drafter, is_self, read_spelling
from perfmodel.planning.parallelism import check_parallelism
from perfmodel.planning.served import why_not_served
from perfmodel.speculation import Drafter
from perfmodel.workload import MAX_BATCH, MAX_CONTEXT, MOST_GAMMA, MOST_GPUS
from strategies.base import MOST_NODES, MOST_TOPK, Tree, needs_budget

if TYPE_CHECKING:
    from perfmodel.acceptance.file import MeasuredAcceptance

__all__ = [
    "DEFAULT_ENGINE", "MOST_GAMMA", "SIZES", "Case", "CaseGroup", "CaseReader", "Setting", "acceptance_of",
    "are_possible", "budget_of", "group_of", "rate_in", "size_of", "tokens_in",
]  # fmt: skip

_NOUNS = (
    "hardware", "engine", "target_model", "weight_dtype", "kv_dtype", "draft_model", "draft_tensor_parallel",
    "strategy", "draft_vocabulary",
)  # fmt: skip

_YES, _NO = {"yes", "true", "1", "on"}, {"", "no", "false", "0", "off"}

NounT = TypeVar("NounT")


@dataclass(frozen=True)
class CaseGroup:
    """What rows must share to be priced in one call."""

    hardware: HardwareProfile
    engine: EngineOverhead
    target: ModelSpec
    drafter: Drafter | None
    acceptance: str


@dataclass(frozen=True)
class Case:
    """One well-formed row; `acceptance` is the rate or the tokens per round, as its group says."""

    row: int
    batch: int
    context_len: int
    output_tokens: int
    kv_budget: float
    gamma: int
    tensor_parallel: int
    acceptance: float
    expert_parallel: bool = False
    pipeline_parallel: int = 1
    data_parallel: int = 1


@dataclass(frozen=True)
class Setting:
    """What a row says beside its sizes, its budget and its acceptance.

    engine : as it is named; that of `runs` is its preset for the hardware.
    key : texts that rows of one group share.
    remark : what had to be read into its texts.
    """

    runs: Deployment
    engine: EngineOverhead
    drafter: Drafter | None
    gamma: int
    key: tuple[str, ...]
    remark: str


SIZES: Mapping[str, tuple[int, int, int | None]] = {
    "batch_size": (1, MAX_BATCH, None),
    "context_len": (1, MAX_CONTEXT, None),
    "output_tokens": (0, MAX_CONTEXT, 0),
}
"""Columns of whole numbers that depend on no other: the least, the most, and what an empty one is."""


class CaseReader:
    """Turns rows into cases; every name is looked up once, and every drafter gets what was `measured`."""

    def __init__(self, profiles_path: str | None, measured: Sequence[MeasuredAcceptance] = ()) -> None:
        self._measured = tuple(measured)
        extra = {"profiles_path": profiles_path} if profiles_path else {}
        self._hardware = _once(partial(HardwareProfile.load, **extra))
        self._engine = _once(partial(EngineOverhead.load, **extra))
        self._model = _once(ModelSpec.load)
        self._spelling = _once(read_spelling)

    def case(self, row: CsvRow, cells: Mapping[str, str]) -> tuple[tuple[str, ...], CaseGroup, Case, str]:
        """Return the group and its key, the row's own numbers, and a remark; SpecError names the column."""
        setting = self.setting(cells)
        given, acceptance = acceptance_of(cells, setting.gamma)
        kv_budget, remark = budget_of(cells, setting)
        sizes = {name: size_of(cells, name) for name in SIZES}
        runs = setting.runs
        case = Case(
            row=row.number,
            batch=sizes["batch_size"],
            context_len=sizes["context_len"],
            output_tokens=sizes["output_tokens"],
            kv_budget=kv_budget,
            gamma=setting.gamma,
            tensor_parallel=int(runs.tensor_parallel),
            acceptance=acceptance,
            expert_parallel=bool(runs.expert_parallel),
            pipeline_parallel=int(runs.pipeline_parallel),
            data_parallel=int(runs.data_parallel),
        )
        return (*setting.key, given), group_of(setting, given), case, remark

    def setting(self, cells: Mapping[str, str]) -> Setting:
        """Return what runs and who drafts how much; SpecError names the column."""
        for name in ("hardware", "target_model"):
            if not cells[name]:
                raise SpecError.single("", name, "is empty", "Name one")
        hardware = _in("hardware", self._hardware, cells["hardware"])
        engine = _in("engine", self._engine, cells["engine"] or DEFAULT_ENGINE)
        target = _in("target_model", self._model, cells["target_model"])
        for name in ("weight_dtype", "kv_dtype"):
            target = _in(name, partial(_stored_as, target, name), cells.get(name, ""))
        gpus = _count(cells, "tensor_parallel", 1, MOST_GPUS, empty=1)
        stages = _count(cells, "pipeline_parallel", 1, MOST_GPUS, empty=1)
        groups = _count(cells, "data_parallel", 1, MOST_GPUS, empty=1)
        runs = Deployment(
            hardware, target, engine, gpus, _switch(cells, "expert_parallel"), stages, groups
        )
        check_parallelism([runs])
        spelling = _in("strategy", self._spelling, cells["strategy"])
        named = cells["draft_model"]
        itself = spelling.strategy is None or is_self(named, cells["target_model"])
        draft = None if itself else _in("draft_model", self._model, named)
        drafter = find_drafter(spelling, draft)
        if drafter is not None:
            drafter = _with_vocabulary(drafter, target, cells)
            own = _count(cells, "draft_tensor_parallel", 1, MOST_GPUS, empty=0) or None
            drafter = replace(drafter, measured=self._measured, draft_tensor_parallel=own)
            check_parallelism([runs], [drafter])
        gamma = _count(cells, "gamma", 0, MOST_GAMMA, empty=0 if drafter is None else None)
        if drafter is None and gamma:
            raise SpecError.single(
                "", "strategy", "drafts nothing, gamma is above 0", "Name a strategy, or set gamma 0"
            )
        if drafter is not None and (tree := _tree(cells, gamma)) is not None:
            drafter = replace(drafter, tree=tree)
            check_drafters([drafter], target)
        label = drafter.tree.label if drafter is not None and drafter.tree is not None else ""
        key = (*(cells.get(name, "") for name in _NOUNS), label)
        return Setting(runs, engine, drafter, gamma, key, spelling.remark)


def group_of(setting: Setting, given: str) -> CaseGroup:
    """Return what a row is priced with, by its setting and what is given of acceptance."""
    runs = setting.runs
    return CaseGroup(runs.hardware, setting.engine, runs.model, setting.drafter, given)


def size_of(cells: Mapping[str, str], name: str) -> int:
    """Return a column of `SIZES`; SpecError where it is no such number."""
    least, most, empty = SIZES[name]
    return _count(cells, name, least, most, empty)


def budget_of(cells: Mapping[str, str], setting: Setting) -> tuple[float, str]:
    """Return the draft KV budget [tokens] and all remarks on a row; SpecError where it is refused."""
    kv_budget, remark = _kv_budget(cells, setting.drafter)
    remarks = (setting.remark, remark, _unserved(setting.engine, setting.drafter, kv_budget))
    return kv_budget, "; ".join(filter(None, remarks))


def _stored_as(target: ModelSpec, which: str, dtype: str) -> ModelSpec:
    """Return the model with weights or cache in a dtype; as it is where none is named."""
    weights, cache = (dtype, None) if which == "weight_dtype" else (None, dtype)
    return target.with_dtypes(weights, cache) if dtype else target


def _with_vocabulary(drafter: Drafter, target: ModelSpec, cells: Mapping[str, str]) -> Drafter:
    """Return the drafter with the vocabulary that a row says its head chooses among; its own where empty."""
    entries = _count(cells, "draft_vocabulary", 1, target.vocab_size, empty=0)
    if not entries:
        return drafter
    if drafter.kind != "head" or drafter.head is not None:
        problem = f"is given, but {drafter.label} is no head of the strategy's usual shape"
        raise SpecError.single("", "draft_vocabulary", problem, "Leave it empty: its config says it")
    own = None if entries == target.vocab_size else entries
    shape = replace(drafter.strategy.head, draft_vocabulary=own)
    return replace(drafter, strategy=replace(drafter.strategy, head=shape))  # type: ignore[type-var]


def _kv_budget(cells: Mapping[str, str], drafter: Drafter | None) -> tuple[float, str]:
    """Return the draft KV budget and a remark: if none is given, the one its acceptance was published at."""
    needed = drafter is not None and needs_budget(drafter.strategy)
    if cells["kv_budget"].strip().lower() == "all":
        return float("inf"), ""
    if cells["kv_budget"]:
        return float(_count(cells, "kv_budget", 1 if needed else 0, MAX_CONTEXT)), ""
    if drafter is None or not needed:
        return float("inf"), ""
    usual = drafter.strategy.acceptance.level_budget
    return usual, f"kv_budget is empty; {drafter.strategy.name} is priced at {usual:g}"


def _tree(cells: Mapping[str, str], gamma: int) -> Tree | None:
    """Return the tree that a row names by its topk and nodes, whose steps are gamma; None for a chain."""
    topk = _count(cells, "topk", 1, MOST_TOPK, empty=1)
    if topk == 1 and cells.get("nodes", "") not in ("", str(gamma + 1)):
        problem = f"found {cells['nodes'][:20]} beside topk 1, a chain, which has gamma + 1 = {gamma + 1}"
        raise SpecError.single("", "nodes", problem, "Name topk too, or leave nodes empty")
    if topk == 1 or gamma == 0:
        return None
    nodes = _count(cells, "nodes", 2, MOST_NODES)
    try:
        return Tree(gamma, topk, nodes)
    except ValueError as fault:
        remedy = "Give fewer nodes, more steps or a larger topk"
        raise SpecError.single("", "nodes", str(fault), remedy) from None


def _unserved(engine: EngineOverhead, drafter: Drafter | None, kv_budget: float) -> str:
    """Return a remark where an engine's software cannot run what is priced with its overheads."""
    if drafter is None or engine.served_by is None:
        return ""
    if not (reason := why_not_served(drafter, engine.served_by, [kv_budget])):
        return ""
    return f"{engine.served_by.label} cannot run {drafter.label}: {reason}; priced with its overheads"


def acceptance_of(cells: Mapping[str, str], gamma: int) -> tuple[str, float]:
    """Return what is given, ``tokens``, ``alpha`` or nothing, and its value; tokens per round win."""
    if cells["tokens_per_round"]:
        tokens = tokens_in(cells["tokens_per_round"])
        if not are_possible(tokens, gamma):
            remedy = f"Give tokens per round, bonus token included: from 1 to gamma + 1 = {gamma + 1}"
            raise SpecError.single("", "tokens_per_round", f"found {tokens:g}", remedy)
        return "tokens", tokens
    if cells["acceptance_rate"]:
        return "alpha", rate_in(cells["acceptance_rate"])
    return "", float("nan")


def tokens_in(text: str) -> float:
    """Return the tokens per round that a cell says. [tokens]"""
    return _in("tokens_per_round", lambda text: parse_quantity(text, "count"), text)


def are_possible(tokens: Numeric, gamma: Numeric) -> Any:
    """Whether a round of so many drafts can yield so many tokens; arguments broadcast."""
    return np.less_equal(1.0, tokens) & np.less_equal(tokens, np.add(gamma, 1.0))


def rate_in(text: str) -> float:
    """Return the acceptance rate that a cell says; SpecError where it is none. [0..1]"""
    alpha = _in("acceptance_rate", lambda text: parse_quantity(text, "ratio"), text)
    if not 0.0 <= alpha <= 1.0:
        raise SpecError.single("", "acceptance_rate", f"found {alpha:g}", "Give a rate from 0 to 1")
    return alpha


def _switch(cells: Mapping[str, str], name: str) -> bool:
    """Return whether a cell says yes; no where it is empty."""
    text = cells.get(name, "").strip().lower()
    if text not in _YES | _NO:
        raise SpecError.single("", name, f"found {text!r}", "Give yes or no")
    return text in _YES


def _count(cells: Mapping[str, str], name: str, least: int, most: int, empty: int | None = None) -> int:
    text = cells.get(name, "")
    if not text and empty is not None:
        return empty
    if not text:
        raise SpecError.single("", name, "is empty", f"Give a whole number from {least} to {most}")
    value = _in(name, parse_count, text)
    if not least <= value <= most:
        raise SpecError.single("", name, f"found {value}", f"Give a whole number from {least} to {most}")
    return value


def _in(column: str, read: Callable[[str], NounT], text: str) -> NounT:
    """Read one cell; a refusal names its column."""
    try:
        return read(text)
    except SpecError as fault:
        raise SpecError(replace(inner, field=column) for inner in fault.faults) from None


def _once(read: Callable[[str], NounT]) -> Callable[[str], NounT]:
    """Remember answers and refusals alike."""
    known: dict[str, NounT | SpecError] = {}

    def remembered(text: str) -> NounT:
        if text not in known:
            try:
                known[text] = read(text)
            except SpecError as fault:
                known[text] = fault
        answer = known[text]
        if isinstance(answer, SpecError):
            raise SpecError(answer.faults)
        return answer

    return remembered
