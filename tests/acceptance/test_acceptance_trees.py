"""Tokens of a round whose draft branches: what must hold of every tree, and what was measured of some."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.acceptance import (
    Acceptance,
    alpha_from_mean_length,
    branch,
    expected_tokens,
    tokens_from_first_rest,
)
from perfmodel.acceptance.tree import RANKS, chosen, rank_rates, tokens_from_tree
from strategies.base import Tree

RATES = np.linspace(0.0, 1.0, 41)
TREES = [Tree(3, 2, 6), Tree(5, 4, 8), Tree(4, 4, 16), Tree(5, 8, 64), Tree(8, 10, 60), Tree(2, 32, 256)]


def each(tree: Tree, first=RATES, rest=RATES) -> np.ndarray:
    return np.asarray(tokens_from_tree(first, rest, tree, float(tree.steps)))


@pytest.mark.parametrize("steps", range(9))
def test_a_tree_of_one_candidate_is_a_chain_to_the_last_bit(steps: int) -> None:
    tree = Tree(max(steps, 1), 1, 99)
    assert tree.nodes == max(steps, 1) + 1
    assert tree.verified(float(steps)) == steps
    chain = tokens_from_first_rest(RATES[:, None], RATES, float(steps))
    assert np.array_equal(tokens_from_tree(RATES[:, None], RATES, tree, float(steps)), chain)


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.label)
def test_a_tree_yields_one_token_to_one_more_than_its_steps_and_more_where_more_is_accepted(tree) -> None:
    tokens = each(tree)
    assert tokens[0] == pytest.approx(1.0)
    assert np.all(tokens >= 1.0) and np.all(tokens <= tree.steps + 1.0)
    assert np.all(np.diff(tokens) > 0.0)
    assert each(tree, rest=0.0)[-1] <= 2.0 + 1e-12


@pytest.mark.parametrize(("steps", "topk"), [(3, 2), (5, 4), (8, 10)])
def test_more_nodes_never_yield_fewer_tokens_and_all_of_them_more_than_the_chain(steps, topk) -> None:
    most = min(1 + Tree(steps, topk, 2).pool(steps), 256)
    tokens = np.stack([each(Tree(steps, topk, nodes)) for nodes in [*range(2, most, 3), most]])
    assert np.all(np.diff(tokens, axis=0) >= -1e-12)
    inside = (RATES > 0.0) & (RATES < 0.95)
    chain = tokens_from_first_rest(RATES, RATES, float(steps))
    assert np.all(tokens[-1][inside] > chain[inside])


def test_a_round_without_steps_is_plain_decoding_and_steps_may_be_an_array() -> None:
    steps = np.array([0.0, 1.0, 5.0])
    tree = Tree(5, 4, 16)
    tokens = np.asarray(tokens_from_tree(0.7, 0.6, tree, steps))
    assert tokens[0] == 1.0 and np.all(np.diff(tokens) > 0.0)
    assert tokens[2] == tokens_from_tree(0.7, 0.6, tree, 5.0)
    assert tree.verified(steps).tolist() == [0.0, 4.0, 15.0]


def test_of_two_candidates_one_step_accepts_either() -> None:
    first, second = rank_rates(0.7, 2)
    assert tokens_from_tree(0.7, 0.1, Tree(1, 2, 3), 1.0) == pytest.approx(1.0 + first + second)
    assert first + second == pytest.approx(1.0 - 0.3 * 2.0 ** (-RANKS.value * 0.7))


def test_the_best_nodes_come_first_and_no_node_without_its_parent() -> None:
    for confidence in (0.3, 0.9):
        nodes = chosen(Tree(4, 3, 20), 4, confidence)
        assert len(set(nodes)) == 19
        assert all(len(path) == 1 or path[:-1] in nodes for path in nodes)
        assert all(path[-1] == 1 or (*path[:-1], path[-1] - 1) in nodes for path in nodes)
        continued = [{path[:-1] for path in nodes if len(path) == depth} for depth in (2, 3, 4)]
        assert all(len(parents) <= 3 for parents in continued)
    assert chosen(Tree(4, 3, 5), 4, 0.9)[:4] == [(1,), (1, 1), (1, 1, 1), (1, 1, 1, 1)]


@pytest.mark.parametrize("fault", [(0, 2, 3), (5, 0, 8), (5, 33, 64), (5, 4, 1), (5, 4, 257), (2, 2, 8)])
def test_a_tree_that_cannot_be_is_refused(fault) -> None:
    with pytest.raises(ValueError, match="nodes"):
        Tree(*fault)


def test_the_rate_behind_the_tokens_of_a_tree_is_found_again() -> None:
    tree = Tree(5, 4, 16)
    rates = np.array([0.2, 0.5, 0.8])
    assert alpha_from_mean_length(each(tree, rates, rates), 5.0, tree) == pytest.approx(rates)


def test_what_is_believed_of_a_tree_is_less_sure_and_what_was_given_is_as_sure() -> None:
    chain = Acceptance(first=0.7, rest=0.6, sd=0.1, kind="published", source="somewhere")
    tree = branch(chain, Tree(5, 4, 16))
    assert tree.sd > chain.sd and (tree.first, tree.rest, tree.kind) == (0.7, 0.6, "published")
    assert "ranks" in tree.source
    assert branch(Acceptance.given(0.7), Tree(5, 4, 16)).sd == 0.0
    assert expected_tokens(tree, 5.0) > expected_tokens(chain, 5.0)


# Published: a tree and the chain beside it, of one drafter on one text, bonus token included.
BESIDE = [
    ("EAGLE, Llama-2-7B (arXiv 2401.15077)", 3.0, 5, Tree(5, 10, 26), 3.62, 0.05),
    ("SpecForge, 87 heads and texts, mean, steps 5 topk 3 nodes 6", 3.2145, 5, Tree(5, 3, 6), 2.8652, 0.05),
    ("SpecForge, the same, steps 7 topk 4 nodes 8", 3.5015, 7, Tree(7, 4, 8), 2.9462, 0.08),
]


@pytest.mark.parametrize(("source", "chain", "steps", "tree", "published", "limit"), BESIDE)
def test_a_tree_beside_its_chain_as_published(source, chain, steps, tree, published, limit) -> None:
    rate = alpha_from_mean_length(chain, float(steps))
    assert each(tree, rate, rate) == pytest.approx(published, rel=limit), source


@pytest.mark.parametrize(("best", "best_of_five", "limit"), [(0.684, 0.855, 0.01), (0.326, 0.545, 0.01)])
def test_five_candidates_hold_the_right_one_as_often_as_medusa_heads_do(best, best_of_five, limit) -> None:
    """Heads of Llama-3.1-70B, TensorRT-LLM issue 2506."""
    assert sum(rank_rates(best, 5)) == pytest.approx(best_of_five, abs=limit)


@pytest.mark.parametrize(("steps", "published", "limit"), [(5, 4.68, 0.08), (8, 5.39, 0.13)])
def test_eagle_3_in_sglang_yields_about_what_its_authors_measured(steps, published, limit) -> None:
    """MT-Bench, topk 8, 64 nodes as in SGLang's example (PR 4247); rates are those of SpecForge's head."""
    import strategies
    from perfmodel import ModelSpec
    from perfmodel.deployment import Drafter

    drafter = Drafter(strategies.load("eagle"), tree=Tree(steps, 8, 64))
    believed = drafter.acceptance(ModelSpec.load("llama-3.1-8b"), context_len=500.0, kv_budget=np.inf)
    assert expected_tokens(believed, float(steps)) == pytest.approx(published, rel=limit)
