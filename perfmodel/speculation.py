"""One draft-verify round: what it costs, what it yields, and what plain decoding would have cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance, expected_tokens
from perfmodel.deployment import Deployment, Drafter
from perfmodel.drafting import (
    FREE,
    Drafting,
    Drafts,
    copied_fraction,
    count_drafts,
    draft_with,
)  # fmt: skip
from perfmodel.engine import EngineOverhead
from perfmodel.files.compiled import compiled
from perfmodel.files.numbers import as_floats, repeated
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import (
    CAUSES,
    ForwardPass,
    Once,
    Places,
    StepLatency,
    price_pass,
    spread,
)  # fmt: skip
from perfmodel.memory import ResidentMemory, count_memory
from perfmodel.model import ModelSpec
from strategies.base import Tree

if TYPE_CHECKING:
    from typing_extensions import NotRequired

__all__ = [
    "FREE", "Configuration", "Drafter", "Drafting", "Drafts", "Round", "TargetSteps", "Terms",
    "copied_fraction", "count_drafts", "draft_with", "elements", "half_way", "price", "price_plain",
    "price_round", "price_steps", "price_terms", "take", "target_passes", "with_acceptance",
]  # fmt: skip

TermsT = TypeVar("TermsT")


@dataclass(frozen=True)
class Round:
    """Cost and yield of one round; every field broadcasts, shapes are joined only where they must be.

    ``draft`` is one draft pass, ``verify`` the verification of ``gamma + 1`` tokens, or of a tree's nodes,
    ``baseline`` one plain decode step of the target at the same batch and context, ``overhead`` the engine's
    seconds per round. [s]

    Where rounds may find nothing to draft (a match share below 1), these are means over all rounds: see
    `mean_pass`.
    """

    gamma: Numeric
    passes: Numeric
    batch: Numeric
    draft: StepLatency
    verify: StepLatency
    baseline: StepLatency
    overhead: Numeric
    tokens_per_round: Numeric
    memory: ResidentMemory
    acceptance: Acceptance | None = None

    @property
    def match(self) -> Numeric:
        """Match share: how many of the rounds draft at all. [1]"""
        known = self.acceptance
        return 1.0 if known is None or known.tokens is not None else known.match

    @cached_property
    def draft_s(self) -> Numeric:
        """Seconds of the draft phase: all draft passes of the round. [s]"""
        return np.asarray(self.passes) * self.draft.total

    @property
    def round_s(self) -> Numeric:
        """Seconds of one round, ``gamma T_D + T_V + overhead`` (MagicDec section 3.1). [s]"""
        return _round_s(*self._phases)

    @property
    def _phases(self) -> tuple[Numeric, ...]:
        """Seconds of all draft passes, of the verification and of the engine. [s]"""
        return self.draft_s, self.verify.total, self.overhead

    @property
    def tpot(self) -> Numeric:
        """Seconds per output token of one sequence, the round over its tokens. [s]"""
        return _tpot_s(self.tokens_per_round, *self._phases)

    @property
    def throughput(self) -> Numeric:
        """Output tokens per second of the whole batch. [tokens/s]"""
        return _in_tpot(self.batch, self.tokens_per_round, *self._phases)

    @property
    def speedup(self) -> Numeric:
        """Plain decode step over seconds per token; exactly 1 at gamma 0. [1]"""
        return _in_tpot(self.baseline.total, self.tokens_per_round, *self._phases)

    @property
    def draft_ratio(self) -> Numeric:
        """T_D / T_T. [1]"""
        return self.draft.total / self.baseline.total

    @property
    def verify_ratio(self) -> Numeric:
        """T_V / T_T. [1]"""
        return self.verify.total / self.baseline.total

    @property
    def bound_by(self) -> NDArray[np.str_]:
        """Cause that takes most of the round, drafts and verification together, per element."""
        passes = np.asarray(self.passes, dtype=float)
        causes = {
            cause: passes * getattr(self.draft, cause) + getattr(self.verify, cause) for cause in CAUSES
        }
        causes["overhead"] = causes["overhead"] + self.overhead
        return StepLatency(**causes).bound_by

    @property
    def break_even_tokens(self) -> Numeric:
        """Tokens per round above which speculation pays: ``round / baseline``. [tokens]"""
        return self.round_s / self.baseline.total


@compiled
def _round_s(draft_s: Numeric, verify_s: Numeric, overhead_s: Numeric) -> Numeric:
    return draft_s + verify_s + overhead_s


@compiled
def _tpot_s(tokens_per_round: Numeric, *phases: Numeric) -> Numeric:
    return _round_s(*phases) / tokens_per_round


@compiled
def _in_tpot(amount: Numeric, tokens_per_round: Numeric, *phases: Numeric) -> Numeric:
    return amount / _tpot_s(tokens_per_round, *phases)


class Configuration(TypedDict):
    """What is priced, by the names that `price` gives it; all broadcast. [sequences], [tokens]"""

    batch: Numeric
    context_len: Numeric
    kv_budget: Numeric
    gamma: Numeric
    output_tokens: NotRequired[Numeric]


def take(terms: TermsT, shape: tuple[int, ...], place: Any) -> TermsT:
    """Return some elements of a dataclass of terms that broadcast to `shape`: each indexed by `place`."""
    return _take(terms, _picker(shape, place))


def _take(terms: TermsT, picked: Callable[[Numeric], Any]) -> TermsT:
    def indexed(term: Any) -> Any:
        if isinstance(term, (float, int, np.ndarray)):
            return picked(term)
        return _take(term, picked) if is_dataclass(term) and not isinstance(term, Tree) else term

    return replace(terms, **{field.name: indexed(getattr(terms, field.name)) for field in fields(terms)})  # type: ignore[type-var, arg-type]


def elements(term: Numeric, shape: tuple[int, ...], place: Any) -> Any:
    """Return ``np.broadcast_to(term, shape)[place]``, indexed on those axes alone that the term has."""
    return _picker(shape, place)(term)


def _picker(shape: tuple[int, ...], place: Any) -> Callable[[Numeric], Any]:
    """Return what takes the elements of a term: see `elements`."""
    if isinstance(place, tuple) and place and isinstance(place[-1], slice) and place[-1] == slice(None):
        place = place[:-1] if len(place) == len(shape) else place
    if not isinstance(place, tuple) or not all(isinstance(index, np.ndarray) for index in place):
        return lambda term: np.broadcast_to(term, shape)[place]
    joint = np.broadcast_shapes(*(index.shape for index in place)) + shape[len(place) :]

    def picked(term: Numeric) -> Any:
        own = (1,) * (len(shape) - np.ndim(term)) + np.shape(term)
        axes = [axis for axis, length in enumerate(own[: len(place)]) if length > 1]
        taken = np.reshape(term, [own[axis] for axis in axes] + list(own[len(place) :]))
        if axes:
            taken = taken[tuple(place[axis] for axis in axes)]
        return taken if taken.shape == joint and axes else np.broadcast_to(taken, joint)

    return picked


@dataclass(frozen=True)
class TargetSteps:
    """The target's own two passes, which all drafters share: a plain decode step and the verification. [s]"""

    baseline: StepLatency
    verify: StepLatency


LEAST_MATCH = 1e-9
"""A match share below which nothing is drafted. [1]"""
def half_way(context_len: Numeric, output_tokens: Numeric) -> Numeric:
    """Return the context at which a step costs what it costs on average over a generation. [tokens]

    Steps grow in proportion to what is in the cache, so it is that of the middle.

    Parameters
    ----------
    context_len, output_tokens : entries at its beginning, and tokens that follow. [tokens]
    """
    return np.add(context_len, np.divide(output_tokens, 2.0))


def price_steps(
    deployment: Deployment,
    *,
    batch: Numeric,
    context_len: Numeric,
    gamma: Numeric,
    once: Once | None = None,
    baseline: StepLatency | None = None,
) -> TargetSteps:
    """Price one plain decode step and one verification of ``gamma + 1`` tokens; arguments broadcast. [s]

    baseline : the plain step where it is priced already. [s]
    """
    step, verification = target_passes(batch=batch, context_len=context_len, gamma=gamma)
    if baseline is None:
        baseline = price_pass(deployment, step, once)
    return TargetSteps(baseline, price_pass(deployment, verification, once))


def price_plain(
    deployment: Deployment,
    *,
    batch: Numeric,
    context_len: Numeric,
    output_tokens: Numeric = 0.0,
    once: Once | None = None,
) -> StepLatency:
    """Price the mean plain decode step of a generation; arguments broadcast, as in `price`. [s]"""
    middle = half_way(context_len, output_tokens)
    return price_pass(deployment, ForwardPass(batch=batch, kv_tokens=middle), once)


def target_passes(*, batch: Numeric, context_len: Numeric, gamma: Numeric) -> tuple[ForwardPass, ForwardPass]:
    """Return a plain decode step and a verification, whose query ``i`` in 0..gamma reads ``S + i`` entries.

    Its last query reads them all, so ``S + gamma`` entries cross memory once for all queries.
    """
    drafted = np.asarray(gamma, dtype=float)
    step = ForwardPass(batch=batch, kv_tokens=context_len)
    return step, replace(step, query_tokens=drafted + 1.0, kv_tokens=np.add(context_len, drafted))


def mean_pass(steps: TargetSteps, match: Numeric) -> StepLatency:
    """Price the mean pass of the target over rounds of which a share drafts. [s]

    ``T_T + m (T_V(gamma) - T_T)``. With one sequence that is exact: its round is either the verification of
    ``gamma + 1`` tokens or a plain step. In a batch each sequence has its own rows, as engines whose queries
    are ragged run them (vLLM pads none), so a pass has ``batch (1 + m gamma)`` rows on average. Between few
    rows and many a pass grows ever faster (memory bounds it first, arithmetic later), so the mean of the two
    ends is at least what so many rows take: it promises nothing.

    Parameters
    ----------
    steps : the target's plain step, and its verification with a draft in every sequence. [s]
    match : share of rounds that draft. [0..1]
    """
    if np.ndim(match) == 0 and match == 1.0:
        return steps.verify
    ends = {cause: (getattr(steps.baseline, cause), getattr(steps.verify, cause)) for cause in CAUSES}
    return StepLatency(**{cause: plain + match * (full - plain) for cause, (plain, full) in ends.items()})


def _spread(cause: str) -> Any:
    """A cause that is spread when it is first asked for."""
    return cached_property(lambda step: spread(getattr(step.few, cause), step.places))


class _SpreadStep(StepLatency):
    """A draft pass at its distinct counts, spread over contexts and budgets as far as anybody asks. [s]"""

    few: StepLatency
    places: Places | None
    linear, attention, recurrence, communication, overhead = map(_spread, CAUSES)

    @classmethod
    def of(cls, few: StepLatency, places: Places | None) -> StepLatency:
        """Return the pass; itself where its counts are those of the contexts and budgets."""
        if places is None:
            return few
        step = object.__new__(cls)
        vars(step).update(few=few, places=places)
        return step

    @cached_property
    def total(self) -> Numeric:
        """Seconds of the whole pass. [s]"""
        return spread(self.few.total, self.places) if "few" in vars(self) else super().total


@dataclass(frozen=True)
class Terms:
    """What a round is made of, each term on the axes it depends on: nothing is joined, so it is little.

    ``steps`` are the target's passes and ``draft`` one draft pass, at its distinct counts where ``places``
    says which of them each (context, budget) has. ``tokens_per_round`` is that of a draft, also at gamma 0,
    and ``loaded`` whether there is a drafter at all.
    """

    deployment: Deployment
    gamma: Numeric
    passes: Numeric
    batch: Numeric
    draft: StepLatency
    steps: TargetSteps
    tokens_per_round: Numeric
    memory: ResidentMemory
    match: Numeric = 1.0
    acceptance: Acceptance | None = None
    places: Places | None = None
    loaded: bool = True

    def of_batches(self, rows: slice) -> Terms:
        """Return the terms of some batch sizes, which lie on the first of four axes: nothing is copied.

        Totals are kept with their terms: they are added up once for all batch sizes.
        """
        for step in (self.draft, self.steps.baseline, self.steps.verify):
            _ = step.total
        return _of_batches(self, rows)

    def join(self) -> Round:
        """Join the terms to the round of every configuration."""
        draft, tokens = _SpreadStep.of(self.draft, self.places), self.tokens_per_round
        overhead: Numeric = 0.0
        if self.loaded:
            overhead = round_overhead(
                self.deployment, batch=self.batch, gamma=self.gamma, steps=self.steps, draft=draft,
                draft_passes=self.passes, tokens_per_round=tokens, match=self.match,
            )  # fmt: skip
            tokens = np.where(np.asarray(self.gamma) > 0, tokens, 1.0)
        joined = Round(
            gamma=self.gamma,
            passes=self.passes,
            batch=self.batch,
            draft=draft,
            verify=self.steps.verify,
            baseline=self.steps.baseline,
            overhead=overhead,
            tokens_per_round=tokens,
            memory=self.memory,
            acceptance=self.acceptance,
        )
        if self.places is not None and np.ndim(self.passes) < 2:  # all passes of few, not of all of them
            object.__setattr__(joined, "draft_s", spread(self.passes * self.draft.total, self.places))
        return joined


_NESTED = (StepLatency, TargetSteps, ResidentMemory, Acceptance)


def _of_batches(terms: TermsT, rows: slice) -> TermsT:
    """Return the terms of some batch sizes of a dataclass of terms."""

    def sliced(term: Any) -> Any:
        if isinstance(term, np.ndarray):
            return term[rows] if term.ndim == 4 and len(term) > 1 else term
        return _of_batches(term, rows) if isinstance(term, _NESTED) else term

    some = object.__new__(type(terms))  # of what was kept beside the fields, too
    vars(some).update({name: sliced(term) for name, term in vars(terms).items()})
    return some


def price(
    deployment: Deployment,
    drafter: Drafter | None,
    *,
    batch: Numeric,
    context_len: Numeric,
    kv_budget: Numeric = np.inf,
    gamma: Numeric = 0.0,
    generated: Numeric = 0.0,
    output_tokens: Numeric = 0.0,
    alpha: Numeric | Acceptance | None = None,
    tokens_per_round: Numeric | None = None,
    deviations: Numeric = 0.0,
    steps: TargetSteps | None = None,
    baseline: StepLatency | None = None,
) -> Round:
    """Price one draft-verify round of every configuration; arguments as in `price_round`, and they broadcast.

    steps : the target's passes where they are priced already; every drafter of chains shares them.
    baseline : the target's plain step where it alone is, as `price_plain` prices it. [s]
    """
    batch, context_len, kv_budget, gamma, generated, output_tokens = as_floats(
        batch, context_len, kv_budget, gamma, generated, output_tokens
    )
    drafts = None
    if drafter is not None:
        drafts = count_drafts(
            deployment, drafter, context_len=context_len, kv_budget=kv_budget, gamma=gamma,
            generated=generated, output_tokens=output_tokens, alpha=alpha,
            tokens_per_round=tokens_per_round, deviations=deviations,
        )  # fmt: skip
    return price_terms(
        deployment, drafter, drafts, batch=batch, context_len=context_len, gamma=gamma,
        output_tokens=output_tokens, steps=steps, baseline=baseline,
    ).join()  # fmt: skip


def price_terms(
    deployment: Deployment,
    drafter: Drafter | None,
    drafts: Drafts | None,
    *,
    batch: Numeric,
    context_len: Numeric,
    gamma: Numeric,
    output_tokens: Numeric,
    steps: TargetSteps | None = None,
    once: Once | None = None,
    baseline: StepLatency | None = None,
) -> Terms:
    """Price the terms of a round; arguments as in `price`.

    Parameters
    ----------
    drafts : what `count_drafts` counted of the drafter in a round of each sequence, if there is one.
    once : what remembers equal products.
    """
    target, longest = deployment.model, np.add(context_len, output_tokens)
    baseline = baseline if steps is None else steps.baseline
    if drafter is None or drafts is None:
        memory = count_memory(deployment, batch=batch, context_len=longest)
        if baseline is None:
            baseline = price_plain(
                deployment, batch=batch, context_len=context_len, output_tokens=output_tokens, once=once
            )
        plain = TargetSteps(baseline, baseline)
        return Terms(deployment, 0.0, 0.0, batch, FREE, plain, 1.0, memory, loaded=False)
    verified = drafter.verified(gamma)
    if steps is None or drafter.tree is not None:
        steps = price_steps(
            deployment, batch=batch, context_len=half_way(context_len, output_tokens), gamma=verified,
            once=once, baseline=baseline,
        )  # fmt: skip
    drafting, extra = drafts.drafting.of_batch(deployment, batch), drafter.extra_model(target)
    counts = drafting.counts
    memory = count_memory(
        deployment,
        batch=batch,
        context_len=longest,
        gamma=verified,
        draft=extra,
        draft_tensor_parallel=drafter.gpus(deployment),
        draft_resident_kv_tokens=drafting.resident_kv_tokens,
        draft_kv_fraction=copied_fraction(counts.kv_fraction, (extra or target).kv_dtype),
        draft_weight_fraction=copied_fraction(counts.resident_weight_fraction, target.weight_dtype),
        draft_states=1.0 if drafter.kind == "self" else 0.0,
    )
    return Terms(
        deployment=deployment,
        gamma=gamma,
        passes=counts.passes,
        batch=batch,
        draft=drafting.price(once),
        steps=replace(steps, verify=mean_pass(steps, drafts.match)),
        tokens_per_round=drafts.tokens_per_round,
        memory=memory,
        match=drafts.match,
        acceptance=drafts.acceptance,
        places=drafts.places,
    )


def with_acceptance(
    deployment: Deployment, terms: Round, shape: tuple[int, ...], deviations: Numeric
) -> Round:
    """Return a priced round as it is where acceptance lies elsewhere, on a new last axis of every term.

    Only what acceptance moves is computed anew: the tokens, the target's mean pass where rounds may find
    nothing to draft, and the engine's time there and where rounds are cut short.

    Parameters
    ----------
    shape : what the terms broadcast to; its last axis is gamma, on which acceptance does not depend.
    deviations : standard deviations by which acceptance is above its expectation, one a world. [1]
    """
    assert terms.acceptance is not None
    wide = take(terms, shape, (..., None))
    acceptance = take(terms.acceptance, shape, (..., slice(1), None))
    believed = acceptance.shifted(deviations)
    tokens = expected_tokens(believed, wide.gamma)
    steps = TargetSteps(wide.baseline, wide.verify)
    if np.any(acceptance.match_sd):  # what matches add to a plain step, for as many more of them
        more = np.divide(believed.match, np.maximum(acceptance.match, LEAST_MATCH))
        steps = replace(steps, verify=mean_pass(steps, more))
    match = believed.match if np.any(np.less(acceptance.match, 1.0)) else 1.0
    overhead = round_overhead(
        deployment, batch=wide.batch, gamma=wide.gamma, steps=steps, draft=wide.draft,
        draft_passes=wide.passes, tokens_per_round=tokens, match=match,
    )  # fmt: skip
    drafting = np.asarray(wide.gamma) > 0
    return replace(
        wide, verify=steps.verify, overhead=overhead, tokens_per_round=np.where(drafting, tokens, 1.0)
    )


def round_overhead(
    deployment: Deployment,
    *,
    batch: Numeric,
    gamma: Numeric,
    steps: TargetSteps,
    draft: StepLatency,
    draft_passes: Numeric,
    tokens_per_round: Numeric,
    match: Numeric = 1.0,
) -> Numeric:
    """Seconds of the engine in a round, or in a plain step with the drafter loaded; arguments broadcast. [s]

    Parameters
    ----------
    steps : the target's plain step without a drafter, and its verification. [s]
    draft, draft_passes : one draft pass, and how many there are. [s], [1]
    tokens_per_round : what a round yields. [tokens]
    match : share of rounds that draft, of each sequence: ``round`` counts where any of them does. [0..1]

    Notes
    -----
    With ``l = piecewise_layer * depth``: a round takes ``round + round_row * batch + l`` on top of its
    passes, a plain step ``loaded_off * baseline + l``. A share ``d = discarded_rounds`` of the rounds, which
    a joining prefill cuts short, yields one token; counted in time, a round takes
    ``tokens / (1 + (1 - d)(tokens - 1))`` as long. Measured in vLLM issues 49548 and 49986.
    """
    engine = deployment.engine
    group = np.asarray(deployment.group_batch(batch))
    per_round = engine.round_s + engine.round_row_s * group
    if np.ndim(match) or match != 1.0:
        any_drafts = 1.0 - repeated(np.subtract(1.0, match), group)
        per_round = engine.round_s * any_drafts + engine.round_row_s * np.multiply(match, group)
    drafting = np.asarray(gamma) > 0
    figures = (engine.piecewise_layer_s, engine.loaded_off, engine.discarded_rounds)
    if not any(np.any(figure) for figure in figures):  # most engines: arrays of fewer axes
        return np.where(drafting, per_round, 0.0)
    pieces = engine.piecewise_layer_s * deployment.model.depth
    kept = 1.0 + (1.0 - np.asarray(engine.discarded_rounds)) * (np.asarray(tokens_per_round) - 1.0)
    passes = np.asarray(draft_passes) * draft.total + steps.verify.total
    speculated = (passes + per_round + pieces) * np.asarray(tokens_per_round) / kept - passes
    return np.where(drafting, speculated, idle_share(deployment, steps.baseline.total) * steps.baseline.total)


def idle_share(deployment: Deployment, baseline: Numeric) -> Numeric:
    """How much longer a plain step of `baseline` seconds takes with a drafter loaded than without one. [1]"""
    engine = deployment.engine
    return engine.loaded_off + engine.piecewise_layer_s * deployment.model.depth / np.asarray(baseline)


def price_round(
    hardware: HardwareProfile,
    target: ModelSpec,
    engine: EngineOverhead,
    drafter: Drafter | None,
    *,
    batch: Numeric,
    context_len: Numeric,
    kv_budget: Numeric = np.inf,
    gamma: Numeric = 0.0,
    tensor_parallel: Numeric = 1.0,
    generated: Numeric = 0.0,
    output_tokens: Numeric = 0.0,
    alpha: Numeric | Acceptance | None = None,
    tokens_per_round: Numeric | None = None,
    deviations: Numeric = 0.0,
    steps: TargetSteps | None = None,
    expert_parallel: bool | Numeric = False,
    pipeline_parallel: Numeric = 1.0,
    data_parallel: Numeric = 1.0,
) -> Round:
    """Price one draft-verify round of every configuration; all arguments broadcast.

    Parameters
    ----------
    hardware, target, engine : what runs on what, under which software.
    drafter : who drafts, or None for plain decoding, which is priced at gamma 0.
    batch, context_len : sequences, and cache entries of each. [1], [tokens]
    kv_budget : cache entries that the drafter may read. [tokens]
    gamma : speculation length; 0 is plain decoding. [tokens]
    tensor_parallel : GPUs that share every layer. [GPUs]
    generated : entries among those of the context that came after the prompt. [tokens]
    output_tokens : tokens that each sequence goes on to generate: the round is the mean one over them, memory
        that of the last. 0 is a round at that very context. [tokens]
    alpha : acceptance rate of one drafted token, or a whole `Acceptance`; the strategy's published or assumed
        law when absent. [0..1]
    tokens_per_round : measured tokens per round, bonus included; overrides `alpha`. [1..gamma+1]
    deviations : standard deviations by which acceptance is above its expectation. [1]
    steps : the target's passes where they are priced already; every drafter shares them.
    expert_parallel : whether the GPUs deal out the experts whole.
    pipeline_parallel, data_parallel : stages, and groups of sequences, as in `Deployment`. [1]

    Returns
    -------
    Round
        Terms are kept on the axes they depend on; gamma 0 is plain decoding with speedup exactly 1, less what
        the engine charges for a loaded drafter.

    Notes
    -----
    MagicDec (arXiv 2408.11049) section 3.1: ``T_SD = (gamma T_D + T_V(gamma)) / Omega(gamma, alpha)``.
    """
    return price(
        Deployment(
            hardware, target, engine, tensor_parallel, expert_parallel, pipeline_parallel, data_parallel
        ),
        drafter,
        batch=batch,
        context_len=context_len,
        kv_budget=kv_budget,
        gamma=gamma,
        generated=generated,
        output_tokens=output_tokens,
        alpha=alpha,
        tokens_per_round=tokens_per_round,
        deviations=deviations,
        steps=steps,
    )
