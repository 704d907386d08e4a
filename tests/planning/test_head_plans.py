"""Draft heads in a plan: with the strategy they belong to, by their own passes, and only where they fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from perfmodel import Drafter, EngineOverhead, HardwareProfile, ModelSpec, SpecError, Workload, plan
from perfmodel.deployment import Deployment
from perfmodel.planning.drafters import applicable, check_drafters, drafters_among
from perfmodel.planning.planner import default_drafters, search_drafters
from perfmodel.planning.price import SearchSpace, price_drafters
from perfmodel.speculation import price_round

H100, IDEAL = HardwareProfile.load("h100-sxm-80gb"), EngineOverhead.load("ideal")
QWEN = ModelSpec.load("Qwen3-8B")
SIZES = {
    "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
}  # fmt: skip
CONFIGS = {
    "eagle": {
        **SIZES, "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "num_hidden_layers": 1,
        "draft_vocab_size": 32000,
    },
    "p_eagle": {
        **SIZES, "architectures": ["PEagleDraftModel"], "model_type": "llama", "num_hidden_layers": 4,
        "draft_vocab_size": 32000,
    },
    "dflash": {
        **SIZES, "architectures": ["DFlashDraftModel"], "model_type": "qwen3", "num_hidden_layers": 5,
        "block_size": 16, "dflash_config": {"target_layer_ids": [1, 9, 17, 25, 33]},
    },
    "dspark": {
        **SIZES, "architectures": ["DSparkDraftModel"], "model_type": "qwen3", "num_hidden_layers": 5,
        "block_size": 16, "dflash_config": {"target_layer_ids": [1, 9, 17, 25, 33], "markov_rank": 256},
    },
    "medusa": {
        "architectures": ["MedusaModel"], "hidden_size": 4096, "vocab_size": 151936, "num_heads": 5,
        "torch_dtype": "bfloat16",
    },
}  # fmt: skip
HEADS = {name: ModelSpec.from_config(config, f"{name}-head") for name, config in CONFIGS.items()}


def drafter(name: str) -> Drafter:
    return Drafter(strategies.load(name), HEADS[name])


def price(name: str, gamma: float, **more: float):  # type: ignore[no-untyped-def]
    asked = {"batch": 1.0, "context_len": 4096.0, "kv_budget": np.inf, **more}
    return price_round(H100, QWEN, IDEAL, drafter(name), gamma=gamma, **asked)  # type: ignore[arg-type]


def test_a_head_drafts_by_its_own_strategy_only():
    searched, _ = drafters_among(["eagle", "streaming_llm"], [HEADS["eagle"]])
    assert [each.label for each in searched] == ["eagle(eagle-head)", "streaming_llm"]
    with pytest.raises(SpecError, match="drafts as dflash, not as eagle"):
        Drafter(strategies.load("eagle"), HEADS["dflash"])


def test_a_head_of_another_width_is_refused_by_both_numbers():
    with pytest.raises(SpecError, match=r"hidden size of 4096, Qwen3-14B has 5120"):
        check_drafters([drafter("dflash")], ModelSpec.load("Qwen3-14B"))


def test_only_the_head_is_searched_where_only_a_head_is_named():
    assert [each.label for each in default_drafters(QWEN, [HEADS["dflash"]])] == ["dflash(dflash-head)"]
    both = default_drafters(QWEN, [HEADS["dflash"], ModelSpec.load("Qwen3-0.6B")])
    assert {each.kind for each in both} == {"self", "draft", "head"}


def test_features_are_fused_in_the_first_pass_of_a_round_only():
    """3 h x h in one of gamma passes: the mean pass of a long round reads what the rest of the head does."""
    fuse = next(product for product in HEADS["eagle"].linears if product.name == "fuse")
    passes = {gamma: price("eagle", gamma).draft.linear for gamma in (1.0, 2.0, 8.0)}
    whole = passes[1.0] - passes[8.0]
    assert passes[1.0] - passes[2.0] == pytest.approx(whole * (1 / 2) / (7 / 8), rel=1e-9)
    share = 2 * fuse.parameters / HEADS["eagle"].weight_bytes
    assert whole / (7 / 8) == pytest.approx(share * passes[1.0], rel=0.1)


@pytest.mark.parametrize("name", ["p_eagle", "dflash", "medusa"])
def test_a_head_that_drafts_in_parallel_runs_one_pass(name):
    short, long = price(name, 1.0), price(name, 5.0)
    assert short.passes == long.passes == 1.0
    assert price(name, 0.0).passes == 0.0
    assert long.draft.total == pytest.approx(short.draft.total, rel=0.1)


def test_a_block_costs_the_whole_output_layer_for_each_of_its_tokens():
    """At 64 sequences a block of 16 is 1024 rows of 151936 x 4096, however few of its tokens are kept."""
    found = price("dflash", 3.0, batch=64.0)
    least = 2.0 * 1024 * (151936 * 4096) / H100.peak_flops["bf16"]
    assert found.draft.linear > least
    assert found.draft.linear == price("dflash", 9.0, batch=64.0).draft.linear


def test_small_steps_follow_a_block_one_for_each_draft():
    """DSpark is DFlash and, for every draft, a product of 256 x 151936."""
    lengths = (2.0, 6.0)
    extra = [price("dspark", each).draft.linear - price("dflash", each).draft.linear for each in lengths]
    assert extra[1] == pytest.approx(3 * extra[0], rel=1e-9)
    assert extra[0] > 2 * 2 * 256 * 151936 / H100.memory_bandwidth


def test_medusa_reads_no_cache_and_keeps_none():
    found = price("medusa", 3.0)
    assert found.draft.attention == 0.0 and found.memory.draft_kv == 0.0
    assert found.memory.draft_weights == pytest.approx(HEADS["medusa"].weight_bytes)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["dflash", "dspark", "medusa"]), st.integers(1, 40))
def test_beyond_its_longest_draft_a_head_yields_no_more(name, more):
    longest = drafter(name).longest(QWEN)
    at, beyond = (price(name, longest + each, alpha=0.8) for each in (0, more))
    assert beyond.tokens_per_round == at.tokens_per_round
    assert beyond.tpot > at.tpot


def test_a_plan_never_takes_more_than_a_head_drafts_and_says_how_many_that_is():
    answer = plan(
        H100, QWEN, IDEAL, Workload([1], [1000]), drafters=[drafter("medusa")], gammas=range(17), alpha=0.99,
        draws=0,
    )  # fmt: skip
    assert (answer.cells[0].gamma, answer.cells[0].most_gamma) == (5, 5)
    with pytest.raises(SpecError, match="at most 5 tokens a round, not 8"):
        plan(H100, QWEN, IDEAL, Workload([1], [1000]), drafters=[drafter("medusa")], gammas=[8], draws=0)


def test_multi_token_prediction_is_for_models_that_ship_a_layer_for_it():
    mtp = Drafter(strategies.load("mtp"))
    check_drafters([mtp], ModelSpec.load("DeepSeek-V3"))
    with pytest.raises(SpecError, match="no layers for predicting further tokens"):
        check_drafters([mtp], QWEN)
    several = replace(ModelSpec.load("DeepSeek-V3"), draft_layers=3)
    assert (mtp.longest(several), mtp.longest(ModelSpec.load("DeepSeek-V3"))) == (3, np.inf)
    extra, one = mtp.extra_model(several), mtp.extra_model(ModelSpec.load("DeepSeek-V3"))
    assert extra is not None and one is not None and extra.parameters == 3 * one.parameters


@pytest.mark.parametrize(
    ("target", "says"),
    [("StarCoder2-15B", "no layer of StarCoder2-15B keeps a cache that grows"),
     ("DeepSeek-V4-Flash", "stand for several tokens")],
)  # fmt: skip
def test_a_budget_without_entries_to_choose_from_is_left_out_of_a_search_and_refused_by_name(target, says):
    model = ModelSpec.load(target)
    searched, remarks = search_drafters(model)
    assert not [each for each in searched if each.kind == "self" and each.strategy.default_budgets]
    assert len(remarks) == 1 and says in remarks[0] and "streaming_llm" in remarks[0]
    with pytest.raises(SpecError, match=says):
        check_drafters([Drafter(strategies.load("streaming_llm"))], model)
    every = [Drafter(strategies.load(name)) for name in ("eagle", "ngram", "layer_skip")]
    assert applicable(every, model) == (every, [])


def test_a_hybrid_drafts_over_the_layers_whose_cache_grows():
    model = ModelSpec.load("Qwen3-Next-80B-A3B")
    assert search_drafters(model)[1] == []
    deployment = Deployment(H100, model, IDEAL, 4)
    space = SearchSpace([Drafter(strategies.load("eagle"))], [3])
    (priced,) = price_drafters(deployment, Workload([1], [32000]), space)
    assert np.all(np.isfinite(priced.round.tpot))
