"""What is believed of one drafting configuration's acceptance: two rates with their spread, or tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perfmodel.acceptance.odds import expit, logit
from perfmodel.acceptance.tokens import tokens_from_first_rest
from perfmodel.acceptance.tree import RANKS, TREE_SCATTER, tokens_from_tree
from perfmodel.files.numbers import Numeric
from strategies.base import Kind, Tree

__all__ = ["Acceptance", "Kind", "branch", "expected_tokens"]


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The acceptance of one drafting configuration, or of an array of them; all fields broadcast.

    Attributes
    ----------
    first, rest : P(accept) of the first drafted token, and of each later one given all before it [0..1].
    sd : standard deviation of both, from the spread of what they rest on.
    rest_sd : standard deviation of the later ones where they are known otherwise than the first, else None.
    kind : measured, published or assumed: the weakest of what they rest on; given where somebody stated them.
    source : where they come from.
    tokens : tokens per round where these are given in place of rates, else None.
    longest : drafts that a round can have at most; asking for more yields no more. [tokens]
    tree : shape of the draft where it branches; a chain where None.
    match, match_sd : match share, the share of rounds that draft at all, and its standard deviation [0..1]:
        the rates are those of these rounds, every other round yields one token.
    """

    first: Numeric
    rest: Numeric
    sd: Numeric = 0.0
    kind: Kind = "assumed"
    source: str = ""
    tokens: Numeric | None = None
    longest: Numeric = np.inf
    tree: Tree | None = None
    match: Numeric = 1.0
    match_sd: Numeric = 0.0
    rest_sd: Numeric | None = None

    @classmethod
    def given(cls, alpha: Numeric, sd: Numeric = 0.0, source: str = "given as a rate") -> Acceptance:
        """Return the acceptance stated as one rate ``alpha`` [0..1] for every drafted token."""
        return cls(first=alpha, rest=alpha, sd=sd, kind="given", source=source)

    def shifted(self, deviations: Numeric) -> Acceptance:
        """Return the acceptance ``deviations`` standard deviations up, on the logit scale.

        Rates and match share move together: text that repeats itself is found and accepted more often.
        """
        if self.tokens is not None:
            return self
        first, rest = _shift(self.first, self.sd, deviations), _shift(self.rest, self.later_sd, deviations)
        match = _shift(self.match, self.match_sd, deviations) if np.any(self.match_sd) else self.match
        return replace(self, first=first, rest=rest, sd=0.0, rest_sd=None, match=match, match_sd=0.0)

    @property
    def later_sd(self) -> Numeric:
        """Standard deviation of the later rates. [1]"""
        return self.sd if self.rest_sd is None else self.rest_sd

    def quantile(self, probability: float) -> Acceptance:
        """Return the acceptance that the true one undercuts with ``probability`` (0..1, both excluded)."""
        from statistics import NormalDist

        return self.shifted(NormalDist().inv_cdf(probability))


def _shift(alpha: Numeric, sd: Numeric, deviations: Numeric) -> Numeric:
    inside = np.clip(alpha, 1e-9, 1.0 - 1e-9)
    slope = np.minimum(np.divide(sd, inside * (1.0 - inside)), 10.0)
    moved = expit(logit(inside) + slope * deviations)
    return np.where(np.multiply(sd, deviations) == 0.0, alpha, moved)[()]


def expected_tokens(acceptance: Acceptance, gamma: Numeric) -> Numeric:
    """Return the tokens per round at speculation length ``gamma`` [1..gamma + 1], bonus token included.

    A round that finds nothing to draft yields the bonus token alone, so with the match share ``m`` there are
    ``m k + (1 - m)`` tokens to a round, as if the first draft were accepted ``m`` times as often.
    """
    if acceptance.tokens is not None:
        return np.clip(acceptance.tokens, 1.0, np.add(gamma, 1.0))
    drafted = np.minimum(gamma, acceptance.longest)
    if acceptance.tree is not None:
        return tokens_from_tree(acceptance.first, acceptance.rest, acceptance.tree, drafted)
    first = np.multiply(acceptance.match, acceptance.first)
    return tokens_from_first_rest(first, acceptance.rest, drafted)


def branch(acceptance: Acceptance, tree: Tree) -> Acceptance:
    """Return the acceptance of a chain as that of a tree: the same rates, known less well.

    What was given as a rate or as tokens keeps its spread.

    Parameters
    ----------
    acceptance : of the best candidate at every step.
    tree : shape of the draft.
    """
    if acceptance.tokens is not None or not np.any(acceptance.sd):
        return replace(acceptance, tree=tree)
    middle = np.add(acceptance.first, acceptance.rest) / 2.0
    scatter = TREE_SCATTER.value * middle * (1.0 - middle) / (0.8 * (1.0 - 0.8))
    return replace(
        acceptance,
        tree=tree,
        sd=np.hypot(acceptance.sd, scatter),
        rest_sd=None if acceptance.rest_sd is None else np.hypot(acceptance.rest_sd, scatter),
        source="; ".join(filter(None, (acceptance.source, f"ranks: {RANKS.source}"))),
    )
