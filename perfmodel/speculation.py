"""One draft-verify round: what it costs, what it yields, and what plain decoding would have cost."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance, expected_tokens
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.files.numbers import as_floats, repeated
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import CAUSES, ForwardPass, StepLatency, price_pass
from perfmodel.memory import ResidentMemory, count_memory
from perfmodel.model import BYTES, ModelSpec
from strategies.base import DraftPass, Tree, budget_after

if TYPE_CHECKING:
    from typing_extensions import NotRequired

__all__ = [
    "FREE", "Configuration", "Drafter", "Drafting", "Round", "TargetSteps", "copied_fraction", "draft_with",
    "elements", "half_way", "price", "price_round", "price_steps", "take", "target_passes", "with_acceptance",
]  # fmt: skip

FREE = StepLatency(0.0, 0.0, 0.0, 0.0)
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

    @property
    def draft_s(self) -> Numeric:
        """Seconds of the draft phase: all draft passes of the round. [s]"""
        return np.asarray(self.passes) * self.draft.total

    @property
    def round_s(self) -> Numeric:
        """Seconds of one round, ``gamma T_D + T_V + overhead`` (MagicDec section 3.1). [s]"""
        return self.draft_s + self.verify.total + self.overhead

    @property
    def tpot(self) -> Numeric:
        """Seconds per output token of one sequence, the round over its tokens. [s]"""
        return self.round_s / self.tokens_per_round

    @property
    def throughput(self) -> Numeric:
        """Output tokens per second of the whole batch. [tokens/s]"""
        return self.batch / self.tpot

    @property
    def speedup(self) -> Numeric:
        """Plain decode step over seconds per token; exactly 1 at gamma 0. [1]"""
        return self.baseline.total / self.tpot

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


class Configuration(TypedDict):
    """What is priced, by the names that `price` gives it; all broadcast. [sequences], [tokens]"""

    batch: Numeric
    context_len: Numeric
    kv_budget: Numeric
    gamma: Numeric
    output_tokens: NotRequired[Numeric]


def take(terms: TermsT, shape: tuple[int, ...], place: Any) -> TermsT:
    """Return some elements of a dataclass of terms that broadcast to `shape`: each indexed by `place`."""

    def indexed(term: Any) -> Any:
        if is_dataclass(term) and not isinstance(term, Tree):
            return take(term, shape, place)
        return elements(term, shape, place) if isinstance(term, (float, int, np.ndarray)) else term

    return replace(terms, **{field.name: indexed(getattr(terms, field.name)) for field in fields(terms)})  # type: ignore[type-var, arg-type]


def elements(term: Numeric, shape: tuple[int, ...], place: Any) -> Any:
    """Return ``np.broadcast_to(term, shape)[place]``, indexed on those axes alone that the term has."""
    if isinstance(place, tuple) and place and isinstance(place[-1], slice) and place[-1] == slice(None):
        place = place[:-1] if len(place) == len(shape) else place
    if not isinstance(place, tuple) or not all(isinstance(index, np.ndarray) for index in place):
        return np.broadcast_to(term, shape)[place]
    own = (1,) * (len(shape) - np.ndim(term)) + np.shape(term)
    axes = [axis for axis, length in enumerate(own[: len(place)]) if length > 1]
    rest = shape[len(place) :]
    few = np.reshape(term, [own[axis] for axis in axes] + list(own[len(place) :]))
    taken = few[tuple(place[axis] for axis in axes)] if axes else few
    return np.broadcast_to(taken, np.broadcast_shapes(*(index.shape for index in place)) + rest)


@dataclass(frozen=True)
class TargetSteps:
    """The target's own two passes, which all drafters share: a plain decode step and the verification. [s]"""

    baseline: StepLatency
    verify: StepLatency


LEAST_MATCH = 1e-9
"""A match share below which nothing is drafted. [1]"""
MOMENTS = (0.012702, 0.25, 0.787298)
WEIGHTS = (0.062612, 0.444444, 0.492944)
"""Shares of a generation and how much of it each stands for: Gauss-Legendre over their square root, because
what a choice of the prompt accepts changes fastest at first. [1]"""


def half_way(context_len: Numeric, output_tokens: Numeric) -> Numeric:
    """Return the context at which a step costs what it costs on average over a generation. [tokens]

    Steps grow in proportion to what is in the cache, so it is that of the middle.

    Parameters
    ----------
    context_len, output_tokens : entries at its beginning, and tokens that follow. [tokens]
    """
    return np.add(context_len, np.divide(output_tokens, 2.0))


def price_steps(
    deployment: Deployment, *, batch: Numeric, context_len: Numeric, gamma: Numeric
) -> TargetSteps:
    """Price one plain decode step and one verification of ``gamma + 1`` tokens; arguments broadcast. [s]"""
    step, verification = target_passes(batch=batch, context_len=context_len, gamma=gamma)
    return TargetSteps(price_pass(deployment, step), price_pass(deployment, verification))


def target_passes(*, batch: Numeric, context_len: Numeric, gamma: Numeric) -> tuple[ForwardPass, ForwardPass]:
    """Return a plain decode step and a verification, whose query ``i`` in 0..gamma reads ``S + i`` entries.

    Its last query reads them all, so ``S + gamma`` entries cross memory once for all queries.
    """
    drafted = np.asarray(gamma, dtype=float)
    step = ForwardPass(batch=batch, kv_tokens=context_len)
    return step, replace(step, query_tokens=drafted + 1.0, kv_tokens=np.add(context_len, drafted))


@dataclass(frozen=True)
class Drafting:
    """The draft passes of a round: what the strategy counts, and the pass that runs.

    resident_kv_tokens : entries that are held beyond the target's own at the end of the generation. [tokens]
    deployment : the drafting model on the GPUs that share it; None where nothing is run.
    lookup_s : what the host takes to look a draft up. [s]
    """

    counts: DraftPass
    resident_kv_tokens: Numeric
    forward: ForwardPass
    deployment: Deployment | None

    lookup_s: Numeric = 0.0

    def price(self) -> StepLatency:
        """Price one draft pass, which where no model runs is the host's lookup. [s]"""
        if self.deployment is None:
            return replace(FREE, overhead=self.lookup_s) if np.any(self.lookup_s) else FREE
        return price_pass(self.deployment, self.forward)


def draft_with(
    deployment: Deployment,
    drafter: Drafter,
    *,
    batch: Numeric,
    context_len: Numeric,
    kv_budget: Numeric,
    gamma: Numeric,
    generated: Numeric = 0.0,
    output_tokens: Numeric = 0.0,
) -> Drafting:
    """Count what a drafter does in a round of a deployment; arguments broadcast.

    Parameters
    ----------
    batch, context_len : sequences, and cache entries of each. [1], [tokens]
    kv_budget, gamma : the draft KV budget, and the speculation length. [tokens]
    generated, output_tokens : entries among them that came after the prompt, and tokens that are still to
        come. [tokens]
    """

    def count(context_len: Numeric, generated: Numeric) -> DraftPass:
        """Count one draft pass when so many tokens followed the prompt."""
        kept = budget_after(drafter.strategy.selector, kv_budget, generated)
        return drafter.count(context_len=context_len, kv_budget=kept, gamma=gamma)

    counts = count(context_len, generated)
    last = count(np.add(context_len, output_tokens), np.add(generated, output_tokens))
    model = drafter.weights(deployment.model, counts)
    stored = model or deployment.model
    forward = ForwardPass(
        batch=batch,
        kv_tokens=counts.kv_tokens,
        query_tokens=counts.query_tokens,
        weight_fraction=copied_fraction(counts.weight_fraction, stored.weight_dtype),
        kv_fraction=copied_fraction(counts.kv_fraction, stored.kv_dtype),
        selection_kv_tokens=counts.selection_kv_tokens,
        selection_launches=counts.selection_launches,
        drafting=True,
        passes=counts.passes,
        drafted=gamma,
        context_len=context_len,
    )
    runs = None if model is None else drafter.runs(deployment, model)
    return Drafting(
        counts, last.resident_kv_tokens, forward, runs, lookup(deployment, batch, counts.lookup_tokens)
    )


def lookup(deployment: Deployment, batch: Numeric, lookup_tokens: Numeric) -> Numeric:
    """Seconds in which the host looks drafts up, one sequence after another; each group has its own. [s]

    Parameters
    ----------
    batch, lookup_tokens : sequences, and the tokens that are searched in each. [1], [tokens]
    """
    if not np.any(lookup_tokens):
        return 0.0
    engine, searched = deployment.engine, np.multiply(deployment.group_batch(batch), lookup_tokens)
    return np.add(engine.lookup_s, engine.lookup_token_s * searched)


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
) -> Round:
    """Price one draft-verify round of every configuration; arguments as in `price_round`, and they broadcast.

    steps : the target's passes where they are priced already; every drafter of chains shares them.
    """
    batch, context_len, kv_budget, gamma, generated, output_tokens = as_floats(
        batch, context_len, kv_budget, gamma, generated, output_tokens
    )
    target = deployment.model
    verified = gamma if drafter is None else drafter.verified(gamma)
    if steps is None or (drafter is not None and drafter.tree is not None):
        middle = half_way(context_len, output_tokens)
        steps = price_steps(deployment, batch=batch, context_len=middle, gamma=verified)
    longest = np.add(context_len, output_tokens)
    if drafter is None:
        memory = count_memory(deployment, batch=batch, context_len=longest)
        return Round(0.0, 0.0, batch, FREE, steps.baseline, steps.baseline, 0.0, 1.0, memory)
    acceptance, since = None, np.divide(output_tokens, 2.0)
    if tokens_per_round is None:
        if alpha is not None:
            acceptance = drafter.given(alpha, target)
            tokens_per_round = expected_tokens(acceptance.shifted(deviations), gamma)
        else:
            acceptance, tokens_per_round, since = _accept_over(
                drafter, target, context_len=context_len, kv_budget=kv_budget, gamma=gamma,
                generated=generated, output_tokens=output_tokens, deviations=deviations,
            )  # fmt: skip
    drafting = draft_with(
        deployment, drafter, batch=batch, context_len=np.add(context_len, since), kv_budget=kv_budget,
        gamma=gamma, generated=np.add(generated, since), output_tokens=np.subtract(output_tokens, since),
    )  # fmt: skip
    counts, draft = drafting.counts, drafting.price()
    extra = drafter.extra_model(target)
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
    match: Numeric = 1.0
    if acceptance is not None and acceptance.tokens is None:
        match = acceptance.shifted(deviations).match
    steps = replace(steps, verify=mean_pass(steps, match))
    overhead = round_overhead(
        deployment, batch=batch, gamma=gamma, steps=steps, draft=draft, draft_passes=counts.passes,
        tokens_per_round=tokens_per_round, match=match,
    )  # fmt: skip
    return Round(
        gamma=gamma,
        passes=counts.passes,
        batch=batch,
        draft=draft,
        verify=steps.verify,
        baseline=steps.baseline,
        overhead=overhead,
        tokens_per_round=np.where(np.asarray(gamma) > 0, tokens_per_round, 1.0),
        memory=memory,
        acceptance=acceptance,
    )


def _accept_over(
    drafter: Drafter,
    target: ModelSpec,
    *,
    context_len: Numeric,
    kv_budget: Numeric,
    gamma: Numeric,
    generated: Numeric,
    output_tokens: Numeric,
    deviations: Numeric,
) -> tuple[Acceptance, Numeric, Numeric]:
    """Return acceptance half-way, tokens per round over a generation, and how far its mean round has come.

    Where what is kept grows, acceptance does: with ``k(x)`` tokens per round after ``x`` tokens there are
    ``1 / mean(1 / k)`` tokens to a round, and rounds are densest where ``k`` is small. [0..1], [tokens]
    """
    selector = drafter.strategy.selector

    def believed(since: Numeric) -> Acceptance:
        return drafter.acceptance(
            target,
            context_len=np.add(context_len, since),
            kv_budget=budget_after(selector, kv_budget, np.add(generated, since)),
        )

    half = np.divide(output_tokens, 2.0)
    acceptance = believed(half)
    if budget_after(selector, 0.0, 1.0) == 0.0 or not np.any(output_tokens):
        return acceptance, expected_tokens(acceptance.shifted(deviations), gamma), half
    moments = [np.multiply(output_tokens, share) for share in MOMENTS]
    rounds = [
        weight / expected_tokens(believed(since).shifted(deviations), gamma)
        for weight, since in zip(WEIGHTS, moments, strict=True)
    ]
    a_token = sum(rounds)  # rounds per token
    come = sum(share * since for share, since in zip(rounds, moments, strict=True)) / a_token
    return acceptance, 1.0 / a_token, come


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


def copied_fraction(fraction: Numeric, dtype: str) -> Numeric:
    """Bytes of a copy in that fraction of 16 bits, relative to its original of `dtype` and no wider. [1]"""
    relative: Numeric = np.where(
        np.less(fraction, 1.0), np.minimum(np.multiply(fraction, 2.0 / BYTES[dtype]), 1.0), fraction
    )
    return relative


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
