"""What people write, checked: strategies, draft models and GPU counts become what the planner takes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import strategies
from perfmodel.errors import Fault, SpecError, nearest_name
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter
from strategies.base import DraftStrategy, Tree, needs_budget

if TYPE_CHECKING:
    from perfmodel.acceptance.file import MeasuredAcceptance

__all__ = [
    "Spelling", "applicable", "check_drafters", "comes_with_a_model", "describe_measured",
    "describe_measured_heads", "drafters_among", "find_drafter", "grow", "has_been_measured",
    "is_self", "load_strategy", "load_strategy_file", "passed_over", "read_spelling", "ships",
]  # fmt: skip

_SURE = 1.96
"""Standard deviations on either side that hold 95 %."""

_PLAIN = {"", "none", "ar", "autoregressive", "plain", "plaindecoding", "baseline"}
_SELF = {"self", "selfspec", "selfspeculation", "selfspeculative", "selfspeculativedecoding"}
_DRAFT = {"draft", "draftmodel", "standalone", "standalonedraft", "smalldraft", "standalonesmalldraft"}
_USUAL = {"self": "streaming_llm", "draft": "full_kv"}


@dataclass(frozen=True)
class Spelling:
    """A strategy as written: the one meant (None: plain decoding), who drafts if it says so, a remark."""

    strategy: DraftStrategy | None
    drafter: str | None = None
    remark: str = ""


def read_spelling(text: str) -> Spelling:
    """Return the strategy that a text such as ``self-spec + StreamingLLM`` or ``autoregressive`` means.

    Case, spaces and punctuation do not matter, a version digit (``EAGLE-3``) and remarks in parentheses
    neither. A text that says who drafts but not from which cache entries means StreamingLLM for the target
    itself and the whole cache for a small model; the remark says so.

    Raises
    ------
    SpecError
        When no strategy is called that, with the nearest name.
    """
    parts = [_plain(part) for part in re.sub(r"\([^)]*\)", " ", text[:200]).split("+")]
    if len(parts) == 1 and parts[0] in _PLAIN:
        return Spelling(None)
    drafter = None
    named = []
    for part in parts:
        if part in _SELF or part in _DRAFT:
            drafter = "self" if part in _SELF else "draft"
        else:
            named.append(part)
    if not named and drafter is not None:
        usual = _USUAL[drafter]
        return Spelling(
            load_strategy(usual),
            drafter,
            f"{text!r} does not say which cache entries it reads; taken as {usual}",
        )
    known = {_plain(name): name for name in strategies.available()}
    name = known.get(named[0]) or known.get(named[0].rstrip("0123456789")) if len(named) == 1 else None
    if name is None:
        nearest = nearest_name(named[0], known) if named else None
        raise SpecError.single(
            "",
            "strategy",
            f"there is no strategy called {text[:100]!r}",
            f"Known: none, {', '.join(known.values())}",
            known[nearest] if nearest else None,
        )
    return Spelling(load_strategy(name), drafter)


def is_self(draft_model: str, target: str) -> bool:
    """Tell whether a draft model's name means the target itself: empty, "self", or the same name."""
    bare = re.sub(r"\([^)]*\)", " ", draft_model)
    marked = any(_plain(note) == "self" for note in re.findall(r"\(([^)]*)\)", draft_model))
    return marked or _plain(bare) in ("", "self") or _plain(bare) == _plain(target)


def find_drafter(spelling: Spelling, draft_model: ModelSpec | None) -> Drafter | None:
    """Return who drafts, or None for plain decoding.

    Raises
    ------
    SpecError
        When strategy and draft model do not go together.
    """
    if spelling.strategy is None:
        return None
    if spelling.drafter == "self" and draft_model is not None:
        raise SpecError.single(
            "", "draft_model", f"found {draft_model.name!r} beside a strategy that says self-speculation",
            "Leave draft_model empty, or name the strategy without it",
        )  # fmt: skip
    if spelling.drafter == "draft" and draft_model is None:
        raise SpecError.single(
            "", "draft_model", "is empty beside a strategy that says a model of its own drafts",
            "Name the draft model, or name the strategy without it",
        )  # fmt: skip
    return Drafter(spelling.strategy, draft_model)


def drafters_among(
    names: Iterable[str], draft_models: Sequence[ModelSpec], *, itself: bool = True
) -> tuple[list[Drafter], list[str]]:
    """Return every drafter that the names allow, and what had to be read into the names.

    Parameters
    ----------
    names : strategies as `read_spelling` takes them, or ``all``.
    draft_models : small models, and heads, each of which drafts by the one strategy that it belongs to.
    itself : whether strategies that can draft without a draft model do so.

    Raises
    ------
    SpecError
        When a name is unknown, or a strategy is left without anyone to draft.
    """
    by_label: dict[str, Drafter] = {}
    remarks = []
    itself = itself or all(model.drafts for model in draft_models)
    for name in names:
        everything = _plain(name) == "all"
        spellings = (
            [Spelling(load_strategy(each)) for each in strategies.available()]
            if everything
            else [read_spelling(name)]
        )
        for spelling in spellings:
            drafters = _drafters_of(spelling, draft_models, itself)
            if not drafters and spelling.strategy is not None and not everything:
                for model in draft_models:
                    Drafter(spelling.strategy, model)  # a head says what it drafts as
                raise SpecError.single(
                    "", "strategy", f"{name!r} needs a draft model, none is named",
                    "Name one, for example --draft-model llama-3.2-1b",
                )  # fmt: skip
            by_label.update((drafter.label, drafter) for drafter in drafters)
            remarks += [spelling.remark] if spelling.remark else []
    for model in draft_models:
        if model.drafts and by_label and all(each.draft_model is not model for each in by_label.values()):
            Drafter(next(iter(by_label.values())).strategy, model)  # says what the head drafts as
    return list(by_label.values()), remarks


def _drafters_of(spelling: Spelling, draft_models: Sequence[ModelSpec], itself: bool) -> list[Drafter]:
    strategy = spelling.strategy
    if strategy is None:
        return []
    if heads := [model for model in draft_models if model.drafts and model.drafts.strategy == strategy.name]:
        return [Drafter(strategy, model) for model in heads]
    small = [model for model in draft_models if model.drafts is None]
    takes_models = "draft" in strategy.drafters and spelling.drafter != "self"
    alone = not strategy.needs_draft_model and spelling.drafter != "draft"
    own = [Drafter(strategy)] if alone and (itself or "draft" not in strategy.drafters) else []
    return own + ([Drafter(strategy, model) for model in small] if takes_models else [])


def grow(
    drafters: Iterable[Drafter], trees: Sequence[Tree], chains: bool
) -> tuple[list[Drafter], list[str]]:
    """Return every drafter with every tree, and a remark on those that draft none.

    Parameters
    ----------
    trees : shapes to search; none leaves the drafters as they are.
    chains : whether drafters stay without a tree too.
    """
    drafters = list(drafters)
    if not trees:
        return drafters, []
    able = [drafter for drafter in drafters if drafter.branches]
    left_out = [drafter.label for drafter in drafters if not drafter.branches]
    grown = [replace(drafter, tree=tree) for drafter in able or drafters for tree in trees]
    if chains:
        return [*drafters, *(grown if able else [])], []
    return grown, [f"left out: {', '.join(left_out)}: no tree is drafted there"] if able and left_out else []


def applicable(
    drafters: Iterable[Drafter], target: ModelSpec, measured: Sequence[MeasuredAcceptance] = ()
) -> tuple[list[Drafter], list[str]]:
    """Return the drafters that apply to a target, and a remark for each reason why others do not."""
    apply: list[Drafter] = []
    left_out: dict[str, list[str]] = {}
    for drafter in drafters:
        reason, _ = _why_not(drafter, target, measured)
        if reason:
            left_out.setdefault(reason, []).append(drafter.label)
        else:
            apply.append(drafter)
    return apply, [f"left out: {', '.join(labels)}: {reason}" for reason, labels in left_out.items()]


def check_drafters(
    drafters: Iterable[Drafter],
    target: ModelSpec,
    gammas: Iterable[int] = (),
    measured: Sequence[MeasuredAcceptance] = (),
) -> None:
    """Refuse drafters that do not apply to a target, or draft none of the lengths asked for.

    Parameters
    ----------
    drafters : who may draft.
    gammas : speculation lengths to try. [tokens]
    measured : acceptance measured of heads, which therefore exist though no config announces them.

    Raises
    ------
    SpecError
        Naming each, why, and what would do; also where the target is itself a draft head.
    """
    if target.drafts is not None:
        raise SpecError.single(
            "", "model", f"{target.drafts.label} serves nothing by itself",
            "Name the model that it was trained for, and this as its --draft-model",
        )  # fmt: skip
    faults = []
    shortest = min((gamma for gamma in gammas if gamma > 0), default=0)
    for drafter in drafters:
        problem, remedy = _why_not(drafter, target, measured)
        if problem:
            field = "draft_model" if drafter.draft_model else "strategy"
            faults.append(Fault("", None, field, f"{drafter.label} does not apply: {problem}", remedy))
        elif shortest > (longest := drafter.longest(target)):
            problem = f"{drafter.label} drafts at most {longest:.0f} tokens a round, not {shortest}"
            faults.append(Fault("", None, "gamma", problem, f"Give a length from 1 to {longest:.0f}"))
    if faults:
        raise SpecError(faults)


def comes_with_a_model(strategy: DraftStrategy) -> bool:
    """Return whether a strategy drafts with layers that models are pre-trained with, or not at all."""
    return strategy.drafters == ("head",) and strategy.head.comes_with_a_model


def ships(target: ModelSpec, strategy: DraftStrategy) -> bool:
    """Return whether the head that a strategy drafts with comes with the model."""
    return comes_with_a_model(strategy) and target.draft_layers > 0


def has_been_measured(
    drafter: Drafter, target: ModelSpec, measured: Iterable[MeasuredAcceptance] = ()
) -> bool:
    """Return whether acceptance was measured of this very strategy and target, both of them named."""
    return any(
        entry.strategy and entry.target_model
        and entry.is_about(drafter.strategy.name, drafter.kind, target.name, "")
        for entry in (*drafter.measured, *measured)
    )  # fmt: skip


def describe_measured_heads(drafters: Iterable[Drafter], target: ModelSpec) -> list[str]:
    """Say of every head that no config announces that a measurement vouches for it."""
    return [
        f"{drafter.label}: the config of {target.name} announces no such layers, the acceptance file "
        "measured them: a head of the usual shape is priced"
        for drafter in drafters
        if drafter.head is None and comes_with_a_model(drafter.strategy) and drafter.kind == "head"
        and not ships(target, drafter.strategy) and has_been_measured(drafter, target)
    ]  # fmt: skip


def _why_not(
    drafter: Drafter, target: ModelSpec, measured: Sequence[MeasuredAcceptance] = ()
) -> tuple[str, str]:
    """Return why a drafter does not apply to a target, and what would do; empty where it does."""
    head, strategy = drafter.head, drafter.strategy
    if drafter.tree is not None and drafter.tree.topk > 1:
        if not drafter.branches:
            return (
                "it ranks no candidates at every step, so it drafts no tree",
                "Heads (eagle, mtp, medusa) and a --draft-model draft trees; or leave the tree out",
            )
        if drafter.tree.steps > (longest := drafter.longest(target)):
            return (
                f"a tree of {drafter.tree.steps} steps is deeper than the {longest:.0f} that it drafts",
                f"Give 1 to {longest:.0f} steps",
            )
    if head is not None:
        sizes = (
            ("a hidden size", head.target_hidden, target.hidden_size),
            ("a vocabulary", head.target_vocabulary, target.vocab_size),
        )
        for size, own, wanted in sizes:
            if own != wanted:
                return (
                    f"{head.label} was trained for {size} of {own}, {target.name} has {wanted}",
                    "Name the head of this target, or the target of this head",
                )
        return "", ""
    if comes_with_a_model(strategy):
        if not ships(target, strategy) and not has_been_measured(drafter, target, measured):
            return (
                f"{target.name} has no layers for predicting further tokens, its config announces none",
                "A trained head would do: --strategy eagle",
            )
        return "", ""
    if drafter.kind not in ("self", "draft") or not strategy.default_budgets:
        return "", ""
    model = drafter.draft_model or target
    other = "Draft with a head or a small model: --strategy eagle, or full_kv with a --draft-model"
    if not model.grows and any(cache.window is None for cache, _ in model.caches):
        return f"cache entries of {model.name} stand for several tokens, a KV budget counts tokens", other
    if not model.grows:
        return f"no layer of {model.name} keeps a cache that grows, for a KV budget to choose from", other
    return "", ""


def passed_over(
    measured: Iterable[MeasuredAcceptance], asked: Sequence[tuple[Drafter | None, ModelSpec]]
) -> list[str]:
    """Return a remark for every measurement that is about none of the (drafter, target) pairs asked about."""
    pairs = [(drafter, target) for drafter, target in asked if drafter is not None]
    remarks = []
    for entry in measured:
        if not any(
            entry.is_about(
                drafter.strategy.name,
                drafter.kind,
                target.name,
                drafter.draft_model.name if drafter.draft_model else "",
            )
            for drafter, target in pairs
        ):
            remarks.append(f"the acceptance measured of {entry.subject} is about nothing that is priced here")
    return list(dict.fromkeys(remarks))


def describe_measured(entry: MeasuredAcceptance, entries: Sequence[MeasuredAcceptance]) -> dict[str, Any]:
    """Return an entry with its 95 % interval, and law and belief (mean, standard deviation) at its place."""
    low, high = (min(max(entry.alpha + side * _SURE * entry.alpha_se, 0.0), 1.0) for side in (-1.0, 1.0))
    return {
        **{key: value for key, value in asdict(entry).items() if key != "survival"},
        "alpha_low": low,
        "alpha_high": high,
        "survival": list(entry.survival),
        "law": _belief(entry, ()),
        "believed": _belief(entry, entries),
    }


def _belief(entry: MeasuredAcceptance, entries: Sequence[MeasuredAcceptance]) -> dict[str, float] | None:
    """Return what is believed where an entry was measured, or None where it does not say where that was."""
    from perfmodel.acceptance.posterior import posterior_acceptance

    if not entry.strategy or entry.context_len is None:
        return None
    try:
        strategy = read_spelling(entry.strategy).strategy
    except SpecError:
        return None
    if strategy is None or (needs_budget(strategy) and entry.kv_budget is None):
        return None
    acceptance = posterior_acceptance(
        entries,
        strategy,
        drafter=entry.drafter or strategy.drafters[0],
        context_len=entry.context_len,
        kv_budget=math.inf if entry.kv_budget is None else entry.kv_budget,
        target_name=entry.target_model,
        draft_name=entry.draft_model,
        size_ratio=_size_ratio(entry),
    )
    return {"alpha1": float(acceptance.first), "alpha2": float(acceptance.rest), "sd": float(acceptance.sd)}


def _size_ratio(entry: MeasuredAcceptance) -> float | None:
    """Return parameters of the draft model over those of the target, or None where they are not known."""
    if not (entry.draft_model and entry.target_model):
        return None
    try:
        draft, target = ModelSpec.load(entry.draft_model), ModelSpec.load(entry.target_model)
    except SpecError:
        return None
    return draft.parameters / target.parameters


def load_strategy(name: str) -> DraftStrategy:
    """Return the strategy of a name, never of a file; raises SpecError, not the strategies' own error."""
    try:
        return strategies.load(name)
    except strategies.StrategyError as fault:
        raise SpecError.single(fault.file, "strategy", str(fault)) from fault


def load_strategy_file(path: str | os.PathLike[str]) -> DraftStrategy:
    """Run a ``.py`` file and return the strategy in it; raises SpecError, not the strategies' own error."""
    try:
        return strategies.load_file(os.fspath(path))
    except strategies.StrategyError as fault:
        raise SpecError.single(fault.file, "strategy", str(fault)) from fault


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("quantised", "quantized"))
