"""The draft passes of a round: what a drafter counts, how often it is accepted, and the pass that runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perfmodel.acceptance import Acceptance, expected_tokens
from perfmodel.deployment import Deployment, Drafter
from perfmodel.files.numbers import Numeric
from perfmodel.latency import ForwardPass, Once, Places, StepLatency, by_budget, distinct, price_pass
from perfmodel.model import BYTES, ModelSpec
from strategies.base import DraftPass, budget_after

__all__ = ["FREE", "Drafting", "Drafts", "copied_fraction", "count_drafts", "draft_with", "lookup"]

FREE = StepLatency(0.0, 0.0, 0.0, 0.0)
MOMENTS = (0.012702, 0.25, 0.787298)
WEIGHTS = (0.062612, 0.444444, 0.492944)
"""Shares of a generation and how much of it each stands for: Gauss-Legendre over their square root, because
what a choice of the prompt accepts changes fastest at first. [1]"""



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

    def price(self, once: Once | None = None) -> StepLatency:
        """Price one draft pass, which where no model runs is the host's lookup. [s]"""
        if self.deployment is None:
            return replace(FREE, overhead=self.lookup_s) if np.any(self.lookup_s) else FREE
        return price_pass(self.deployment, self.forward, once)

    def of_batch(self, deployment: Deployment, batch: Numeric) -> Drafting:
        """Return the same passes of another batch of the target's deployment. [sequences]"""
        waited = lookup(deployment, batch, self.counts.lookup_tokens)
        return replace(self, forward=replace(self.forward, batch=batch), lookup_s=waited)

    def distinct(self) -> tuple[Drafting, Places | None]:
        """Return it with the pass at its distinct counts, and the place of each (context, budget) there."""
        if self.deployment is None:
            return self, None
        forward, places = distinct(self.deployment.model, self.forward)
        return replace(self, forward=forward), places


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


@dataclass(frozen=True)
class Drafts:
    """What a drafter does in a round, whatever the batch: of one sequence, nothing priced.

    acceptance : what is believed of it half-way; None where tokens per round were given.
    tokens_per_round : of a round of drafts, also at gamma 0. [tokens]
    match : share of rounds that draft. [0..1]
    drafting : its passes, at their distinct counts where `places` says which each (context, budget) has.
    """

    acceptance: Acceptance | None
    tokens_per_round: Numeric
    match: Numeric
    drafting: Drafting
    places: Places | None

    @property
    def elements(self) -> int:
        """Counts that its pass is priced for, for each batch size. [1]"""
        return int(np.prod(self.drafting.forward.shape))


def count_drafts(
    deployment: Deployment,
    drafter: Drafter,
    *,
    context_len: Numeric,
    kv_budget: Numeric,
    gamma: Numeric,
    generated: Numeric = 0.0,
    output_tokens: Numeric = 0.0,
    alpha: Numeric | Acceptance | None = None,
    tokens_per_round: Numeric | None = None,
    deviations: Numeric = 0.0,
    alike: bool = False,
) -> Drafts:
    """Count what a drafter does in a round of each sequence; arguments as in `speculation.price_round`.

    alike : whether its pass is to be priced at distinct counts only: the arguments then have the axes
        (context, budget, gamma).
    """
    target = deployment.model
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
    drafting, places = draft_with(
        deployment, drafter, batch=1.0, context_len=np.add(context_len, since), kv_budget=kv_budget,
        gamma=gamma, generated=np.add(generated, since), output_tokens=np.subtract(output_tokens, since),
    ), None  # fmt: skip
    if alike:
        drafting, places = drafting.distinct()
    match: Numeric = 1.0
    if acceptance is not None and acceptance.tokens is None:
        match = acceptance.shifted(deviations).match
    return Drafts(acceptance, by_budget(tokens_per_round), match, drafting, places)


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


def copied_fraction(fraction: Numeric, dtype: str) -> Numeric:
    """Bytes of a copy in that fraction of 16 bits, relative to its original of `dtype` and no wider. [1]"""
    relative: Numeric = np.where(
        np.less(fraction, 1.0), np.minimum(np.multiply(fraction, 2.0 / BYTES[dtype]), 1.0), fraction
    )
    return relative
