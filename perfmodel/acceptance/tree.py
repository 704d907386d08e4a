"""Expected tokens of a round whose draft is a tree: how often a candidate of each rank is the right one."""

from __future__ import annotations

from collections import Counter
from functools import cache, reduce
from heapq import heappop, heappush
from itertools import pairwise

import numpy as np

from perfmodel.acceptance.tokens import tokens_from_first_rest
from perfmodel.files.numbers import FloatArray, Numeric, distinct_values
from strategies.base import Figure, Tree

__all__ = ["RANKS", "TREE_SCATTER", "rank_rates", "tokens_from_tree"]

RANKS = Figure(
    0.72,
    0.15,
    "published",
    "Medusa heads of Llama-3.1-70B by their best guess and their best five: .68, .85 give .71 and .33, .55 "
    "give .74 (TensorRT-LLM issue 2506)",
)
"""How fast misses grow rarer with the candidates, over the acceptance of the best one. [1]"""
TREE_SCATTER = Figure(
    0.06,
    0.0,
    "published",
    "root mean square 12 % of the tokens of 174 trees of SpecForge, computed by the chains beside them",
)
"""Standard deviation that a tree adds to acceptance, at an acceptance near .8. [1]"""
CONFIDENCES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""What a drafter believes of its best guess when it chooses nodes: anything, evenly. With what it should
believe, small trees of SpecForge would yield as much as chains; they yield 6 to 24 % less. [1]"""


def rank_rates(rate: Numeric, topk: int, exponent: float = RANKS.value) -> list[Numeric]:
    """Return P(the candidate of rank k is the target's own token), k = 1 .. topk [0..1].

    That one of the best ``k`` is it has the chance ``1 - (1 - rate) k**-(b rate)``: a power law as Sequoia's
    (arXiv 2402.12374, definition 3.4), whose exponent grows with the drafter's skill. One whose best guess is
    never right gains nothing by a second.

    Parameters
    ----------
    rate : acceptance of the best candidate [0..1].
    topk : candidates [tokens].
    exponent : ``b``.
    """
    fewer = np.multiply(-exponent, rate)
    miss = [np.subtract(1.0, rate) * np.power(float(rank), fewer) for rank in range(1, topk + 1)]
    return [rate, *(before - after for before, after in pairwise(miss))]


def tokens_from_tree(first: Numeric, rest: Numeric, tree: Tree, steps: Numeric) -> Numeric:
    r"""Return the expected tokens of a round that drafts a tree, bonus token included [1..steps + 1].

    .. math::
        \Omega = 1 + \sum_{nodes} \prod_{path} p(rank)

    With ``topk`` 1 it is `tokens_from_first_rest` itself.

    Parameters
    ----------
    first, rest : acceptance of the best candidate at the first step, and at every later one [0..1].
    tree : its ``topk`` and ``nodes`` count; ``steps`` takes the place of its own.
    steps : draft passes [tokens].

    Notes
    -----
    The sum is Sequoia's (arXiv 2402.12374, section 3). Nodes are chosen as EAGLE-2 does (arXiv 2406.16858,
    section 4.2), the highest product of confidences first, for each of `CONFIDENCES` in turn.
    """
    if tree.topk == 1:
        return tokens_from_first_rest(first, rest, steps)
    depths = np.asarray(steps, dtype=float)
    firsts, rests = rank_rates(first, tree.topk), rank_rates(rest, tree.topk)
    tokens: Numeric = np.ones(np.broadcast_shapes(np.shape(first), np.shape(rest), depths.shape))
    for depth in distinct_values(depths[depths > 0.0]).tolist():
        reached: Numeric = 1.0
        for path, share in _paths(tree, int(depth)):
            later = [rests[rank - 1] for rank in path[1:]]
            reached = reached + share * reduce(np.multiply, later, firsts[path[0] - 1])
        tokens = np.where(depths == depth, reached, tokens)
    return np.asarray(tokens)[()]


@cache
def _paths(tree: Tree, steps: int) -> list[tuple[tuple[int, ...], float]]:
    """Return the ranks on the way to every node, sorted after the first, and how often it is there."""
    counted: Counter[tuple[int, ...]] = Counter()
    for confidence in CONFIDENCES:
        for path in chosen(tree, steps, confidence):
            counted[path[:1] + tuple(sorted(path[1:]))] += 1
    return [(path, times / len(CONFIDENCES)) for path, times in sorted(counted.items())]


def chosen(tree: Tree, steps: int, confidence: float) -> list[tuple[int, ...]]:
    """Return the nodes that are verified: of each the ranks from the root to it, best first.

    Parameters
    ----------
    tree, steps : as of `tokens_from_tree`.
    confidence : what the drafter believes of its best candidate; of others what `rank_rates` says [0..1].
    """
    believed = [float(rate) for rate in rank_rates(confidence, tree.topk)]
    nodes: list[tuple[int, ...]] = []
    continued: FloatArray = np.zeros(steps + 1)
    waiting: list[tuple[float, tuple[int, ...]]] = [(-believed[0], (1,))]
    while waiting and len(nodes) < tree.nodes - 1:
        score, path = heappop(waiting)
        nodes.append(path)
        rank = path[-1]
        if rank < tree.topk:
            heappush(waiting, (score / believed[rank - 1] * believed[rank], (*path[:-1], rank + 1)))
        if len(path) < steps and continued[len(path)] < tree.topk:
            continued[len(path)] += 1
            heappush(waiting, (score * believed[0], (*path, 1)))
    return nodes
