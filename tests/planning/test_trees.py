"""Rounds whose drafts branch: priced, searched, planned and exported; a chain is the plain case."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import yaml

import strategies
from perfmodel import EngineOverhead, HardwareProfile, ModelSpec, Workload, plan
from perfmodel.deployment import Deployment, Drafter
from perfmodel.errors import SpecError
from perfmodel.export import load
from perfmodel.export.base import ExportOptions
from perfmodel.planning.cases import price_cases
from perfmodel.planning.drafters import grow
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import tokens_by_gamma
from perfmodel.speculation import price
from strategies.base import Tree

H100, LLAMA = HardwareProfile.load("h100"), ModelSpec.load("llama-3.1-8b")
GENERIC = EngineOverhead.load("generic")
DEPLOYED = Deployment(H100, LLAMA, GENERIC)
TREE = Tree(5, 4, 16)
WHERE = {"batch": np.array([1.0, 16.0, 256.0]), "context_len": 2000.0, "output_tokens": 512.0}


def drafter(name: str = "eagle", tree: Tree | None = None) -> Drafter:
    return Drafter(strategies.load(name), tree=tree)


def numbers(term) -> list[np.ndarray]:
    """Return every number of a dataclass of terms."""
    if is_dataclass(term) and not isinstance(term, Tree):
        return [number for field in fields(term) for number in numbers(getattr(term, field.name))]
    return [np.asarray(term)] if isinstance(term, (float, int, np.ndarray)) else []


@pytest.mark.parametrize("name", ["eagle", "mtp", "medusa"])
def test_a_chain_named_as_a_tree_is_priced_to_the_last_bit(name: str) -> None:
    target = ModelSpec.load("deepseek-v3") if name == "mtp" else LLAMA
    deployed = Deployment(H100, target, GENERIC, 8.0)
    for steps in (1, 3, 5):
        chain = price(deployed, drafter(name), gamma=float(steps), **WHERE)
        tree = price(deployed, drafter(name, Tree(steps, 1, 64)), gamma=float(steps), **WHERE)
        pairs = zip(numbers(chain), numbers(tree), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)


def test_a_tree_verifies_its_nodes_and_drafts_in_as_many_passes_as_it_has_steps() -> None:
    tree = price(DEPLOYED, drafter(tree=TREE), gamma=5.0, **WHERE)
    wide = price(DEPLOYED, drafter(), gamma=15.0, **WHERE)
    chain = price(DEPLOYED, drafter(), gamma=5.0, **WHERE)
    assert np.array_equal(tree.verify.total, wide.verify.total)
    assert np.array_equal(tree.memory.lookahead_kv, wide.memory.lookahead_kv)
    assert tree.passes == chain.passes == 5.0
    assert np.all(tree.draft.total > chain.draft.total)
    assert np.all(tree.memory.draft_kv > chain.memory.draft_kv)
    assert np.all(tree.tokens_per_round > chain.tokens_per_round)


def test_what_a_draft_pass_of_a_tree_counts() -> None:
    counts = drafter(tree=TREE).count(context_len=1000.0, kv_budget=np.inf, gamma=5.0)
    assert counts.query_tokens == pytest.approx((1 + 4 * 4) / 5)
    assert counts.kv_tokens == pytest.approx(1000.0 + 4 * (0 + 1 + 2 + 3 + 4) / 5)
    assert counts.resident_kv_tokens == pytest.approx(1000.0 + 4 * 5)
    at_once = drafter("medusa", Tree(4, 10, 64)).count(context_len=1000.0, kv_budget=np.inf, gamma=4.0)
    assert (at_once.passes, at_once.query_tokens) == (1.0, 1.0)


@pytest.mark.parametrize("tree", [Tree(5, 8, 64), Tree(8, 10, 60)], ids=lambda tree: tree.label)
def test_a_tree_beats_its_chain_at_batch_1_and_loses_to_it_at_a_large_batch(tree) -> None:
    """At equal acceptance: rows that cost nothing at batch 1 have to be computed at batch 256."""
    for alpha in (0.5, 0.7):
        asked = {"gamma": float(tree.steps), "alpha": alpha, **WHERE}
        chained, branched = (price(DEPLOYED, drafter(tree=shape), **asked).tpot for shape in (None, tree))
        better = np.asarray(branched < chained)
        assert better[0] and not better[-1]


def test_a_plan_takes_a_tree_for_few_sequences_and_a_chain_for_many() -> None:
    drafters, remarks = grow([drafter(), drafter("ngram")], [Tree(5, 8, 64)], chains=True)
    assert [each.label for each in drafters] == ["eagle", "ngram", "eagle tree 5,8,64"] and not remarks
    answer = plan(H100, LLAMA, GENERIC, Workload([1, 256], [1000]), drafters=drafters[::2], draws=16)
    few, many = answer.cells
    assert (few.tree, few.gamma, few.topk, few.nodes) == (Tree(5, 8, 64), 5, 8, 64)
    assert (many.tree, many.topk, many.nodes) == (None, None, None) and many.gamma > 0
    assert tokens_by_gamma(few, [5]) == pytest.approx([few.tokens_per_round])


def test_nothing_else_is_searched_where_only_trees_are_named() -> None:
    drafters, remarks = grow([drafter(), drafter("ngram")], [TREE], chains=False)
    assert [each.label for each in drafters] == ["eagle tree 5,4,16"]
    assert remarks == ["left out: ngram: no tree is drafted there"]
    cell = plan(H100, LLAMA, GENERIC, Workload([1], [1000]), drafters=drafters, gammas=[3], draws=0).cells[0]
    assert cell.gamma == 5


@pytest.mark.parametrize(
    ("name", "tree", "words"),
    [
        ("ngram", TREE, "no tree"),
        ("snapkv", TREE, "no tree"),
        ("dflash", TREE, "no tree"),
        ("medusa", Tree(6, 4, 16), "deeper"),
    ],
)
def test_a_drafter_that_drafts_no_such_tree_is_refused(name, tree, words) -> None:
    with pytest.raises(SpecError, match=words):
        plan(H100, LLAMA, GENERIC, Workload([1], [1000]), drafters=[drafter(name, tree)], draws=0)


ROWS = "hardware,target_model,strategy,context_len,batch_size,gamma,topk,nodes\n"


def test_rows_of_a_case_file_name_trees_and_say_what_is_wrong_with_one() -> None:
    good = ["eagle,1000,1,5,4,16", "eagle,1000,1,5,1,", "eagle,1000,1,5,,"]
    rows = [*good, "eagle,1000,1,5,4,", "ngram,1000,1,5,4,16", "eagle,1000,1,2,2,60"]
    priced = price_cases((ROWS + "".join(f"h100,llama-3.1-8b,{row}\n" for row in rows)).encode())
    tokens = [row[priced.columns.index("tokens_per_round")] for row in priced.rows]
    assert float(tokens[0]) > float(tokens[1]) and tokens[1] == tokens[2]
    faults = " ".join(map(str, priced.faults))
    assert all(words in faults for words in ("nodes: is empty", "drafts no tree", "at most 7 nodes, not 60"))


def exported(engine: str, answer, **options) -> str:
    return load(engine).export(answer, ExportOptions(draft_path="an/eagle3", **options)).text


def test_engines_are_told_the_tree_or_refuse_it_with_their_reason() -> None:
    answer = plan(H100, LLAMA, GENERIC, Workload([1], [1000]), drafters=[drafter(tree=TREE)], draws=0)
    flags = exported("sglang", answer)
    assert "--speculative-num-steps 5 --speculative-eagle-topk 4 --speculative-num-draft-tokens 16" in flags
    keys = yaml.safe_load(exported("tensorrt_llm", answer))["speculative_config"]
    assert keys["use_dynamic_tree"] and keys["max_draft_len"] == 5
    assert (keys["dynamic_tree_max_topK"], keys["max_total_draft_tokens"]) == (4, 15)
    assert json.loads(exported("neutral", answer))["deployment"]["nodes"] == 16
    for engine, words in (("vllm", "PR 42121"), ("llamacpp", "no trees")):
        with pytest.raises(SpecError, match=words):
            exported(engine, answer)
    with pytest.raises(SpecError, match="PR 24054"):
        exported("sglang", answer, form="adaptive")
    chain = plan(H100, LLAMA, GENERIC, Workload([1], [1000]), drafters=[drafter(tree=Tree(5, 1, 6))], draws=0)
    assert "--speculative-eagle-topk 1 --speculative-num-draft-tokens 6" in exported("sglang", chain)
    assert '"num_speculative_tokens":5' in exported("vllm", chain).replace(" ", "")


@pytest.mark.parametrize("fault", [{"nodes": 999}, {"topk": 0}, {"topk": None}, {"nodes": None}])
def test_a_plan_file_with_a_tree_that_cannot_be_is_refused(fault) -> None:
    answer = plan(H100, LLAMA, GENERIC, Workload([1], [1000]), drafters=[drafter(tree=TREE)], draws=0)
    body = json.loads(answer.to_json())
    assert Plan.from_dict(body).cells == answer.cells
    body["cells"][0].update(fault)
    with pytest.raises(SpecError, match="cells"):
        Plan.from_dict(body)
