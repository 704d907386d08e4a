"""Why something is recommended: a plan's numbers agree with each other, and its words with the numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

import strategies
from perfmodel.acceptance import Conditions
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import CAUSES, StepLatency
from perfmodel.memory import resident_memory
from perfmodel.model import ModelSpec
from perfmodel.planning.explain import CAUSE_WORDS, assumptions, reason
from perfmodel.planning.near_tie import NEAR_TIE
from perfmodel.planning.plan import Cell
from perfmodel.planning.planner import plan
from perfmodel.speculation import Drafter, Round, price_round
from perfmodel.workload import Workload

H100 = HardwareProfile.load("h100-sxm-80gb")
ENGINE = EngineOverhead.load("magicdec-h100")
LLAMA = ModelSpec.load("llama-3.1-8b")
PLAN = plan(H100, LLAMA, ENGINE, Workload((1, 32, 128), (4000, 32000)), tensor_parallel=8)
EVERY = pytest.mark.parametrize("cell", PLAN.cells, ids=lambda cell: f"{cell.batch_size}-{cell.context_len}")


@EVERY
def test_a_cell_agrees_with_itself(cell: Cell):
    assert cell.speedup == pytest.approx(cell.baseline_s / cell.tpot_s)
    assert cell.tpot_s == pytest.approx(cell.round_s / cell.tokens_per_round)
    assert cell.throughput_tokens_per_s == pytest.approx(cell.batch_size / cell.tpot_s)
    assert cell.verify_ratio == pytest.approx(cell.verify_s / cell.baseline_s)
    assert cell.round_s >= cell.draft_s + cell.verify_s
    assert cell.bound_by in CAUSES
    assert cell.round_by_gamma_s[PLAN.gammas.index(cell.gamma)] == pytest.approx(cell.round_s)
    assert cell.runner_up_behind >= (0.0 if cell.speculates else -NEAR_TIE)
    assert cell.why


@EVERY
def test_intervals_hold_the_answer_and_probabilities_are_shares(cell: Cell):
    assert cell.tpot_low_s < cell.tpot_s < cell.tpot_high_s
    assert cell.speedup_low <= cell.speedup <= cell.speedup_high
    assert 0.0 <= cell.probability_runner_up_better <= 1.0
    assert cell.probability_beats_plain is None or 0.5 < cell.probability_beats_plain <= 1.0


def test_a_round_accepted_as_often_as_it_must_be_is_as_fast_as_plain_decoding():
    for cell in PLAN.cells:
        if cell.speculates:
            drafter = Drafter(strategies.load(cell.strategy))
            even = price_round(
                H100,
                LLAMA,
                ENGINE,
                drafter,
                batch=float(cell.batch_size),
                context_len=float(cell.context_len),
                kv_budget=float(cell.kv_budget),
                gamma=float(cell.gamma),
                tensor_parallel=8.0,
                alpha=cell.break_even_alpha,
            )
            assert even.speedup == pytest.approx(1.0, rel=1e-6)


def test_long_contexts_pay_and_short_ones_do_not():
    """What MagicDec found: beyond the inflection context more sequences mean more speedup."""
    assert PLAN.cell(128, 32000).speedup > PLAN.cell(32, 32000).speedup > 1.2
    assert PLAN.cell(1, 4000).speedup == 1.0
    assert 1000 < PLAN.inflection_context_len < 32000


def test_what_was_assumed_is_said():
    assert any("memory_utilization is assumed" in sentence for sentence in PLAN.assumed)


@pytest.mark.parametrize(
    ("target", "draft", "routed"),
    [
        ("qwen3-30b-a3b", None, ["Qwen3-30B-A3B"]),
        ("llama-3.1-8b", "qwen3-30b-a3b", ["Qwen3-30B-A3B"]),
        ("llama-3.1-8b", None, []),
    ],
)
def test_independent_experts_are_among_what_is_assumed(target, draft, routed):
    drafters = [Drafter(strategies.load("full_kv"), ModelSpec.load(draft))] if draft else []
    deployments = [Deployment(H100, ModelSpec.load(target), ENGINE)]
    sentences = assumptions(deployments, Workload((1,), (1000,)), drafters, None)
    assert [sentence.split(":")[0] for sentence in sentences if "experts uniformly and" in sentence] == routed


def test_a_given_acceptance_is_not_assumed():
    lookup = [Drafter(strategies.load("ngram"))]
    guessed, given = (
        assumptions([Deployment(H100, LLAMA, ENGINE)], Workload((1,), (1000,)), lookup, alpha)
        for alpha in (None, 0.7)
    )
    assert any(sentence.startswith("ngram: acceptance is assumed") for sentence in guessed)
    assert [sentence for sentence in given if "ngram" in sentence] == [
        sentence for sentence in guessed if sentence.startswith("ngram: the match share")
    ]
    stated = [replace(lookup[0], conditions=Conditions(match_share=0.8))]
    assert not any(
        "ngram" in sentence
        for sentence in assumptions([Deployment(H100, LLAMA, ENGINE)], Workload((1,), (1000,)), stated, 0.7)
    )


@EVERY
def test_the_reason_names_what_bounds_the_cell_and_what_must_be_accepted(cell: Cell):
    assert CAUSE_WORDS[cell.bound_by] in cell.why
    assert cell.why == reason(vars(cell))
    if cell.speculates:
        assert f"pays above alpha {cell.break_even_alpha:.2f}" in cell.why


def test_what_bounds_a_round_is_its_largest_cause_over_drafts_verification_and_engine():
    """Three drafts of (1, 2, 0, 1), a verification of (2, 1, 0, 1) and 2 of the engine: (5, 7, 0, 6)."""
    draft, verify = StepLatency(1.0, 2.0, 0.0, 1.0), StepLatency(2.0, 1.0, 0.0, 1.0)
    memory = resident_memory(H100, LLAMA, ENGINE, batch=1, context_len=1)
    priced = Round(3.0, 3.0, 1.0, draft, verify, verify, 2.0, 2.0, memory)
    assert priced.bound_by == "attention"
    assert replace(priced, overhead=4.0).bound_by == "overhead"


def test_the_cell_of_a_batch_and_context_is_found_or_not():
    assert PLAN.cell(32, 4000).batch_size == 32
    with pytest.raises(KeyError):
        PLAN.cell(33, 4000)


@pytest.mark.parametrize(
    ("hardware", "kernel", "batch", "context_len", "said"),
    [
        ("rtx-3090", "vllm", 1, 32_000, True),
        ("rtx-3090", "vllm", 1, 1_000, False),
        ("rtx-3090", "vllm", 64, 4_000, True),
        ("rtx-3090", "flashinfer", 1, 32_000, False),
        ("mi300x", "triton-unified", 1, 32_000, True),
        ("h100-sxm-80gb", "vllm", 1, 128_000, False),
    ],
)
def test_a_kernel_that_does_not_split_verification_is_told_of_where_it_costs(
    hardware, kernel, batch, context_len, said
):
    engine = EngineOverhead.load("generic").calling(attention_kernel=kernel, all_reduce="nccl")
    deployment = Deployment(HardwareProfile.load(hardware), LLAMA, engine, 1)
    told = [
        sentence
        for sentence in assumptions([deployment], Workload((batch,), (context_len,)), (), None)
        if "for single queries only" in sentence
    ]
    assert len(told) == said
    assert all(f"attention kernel {kernel}" in sentence for sentence in told)


def test_eight_bit_products_of_a_drafter_are_priced_and_told():
    small = {weights: ModelSpec.load("llama-3.2-1b", weights) for weights in ("bf16", "fp8")}
    deployment = Deployment(HardwareProfile.load("v100-sxm-32gb"), LLAMA, EngineOverhead.load("vllm"))
    told = {
        weights: any(
            "quantise is assumed" in sentence
            for sentence in assumptions(
                [deployment], Workload((1,), (1000,)), [Drafter(strategies.load("full_kv"), model)], None
            )
        )
        for weights, model in small.items()
    }
    assert told == {"bf16": False, "fp8": True}


def test_the_all_reduce_that_is_told_is_the_one_that_runs():
    """Over PCIe an engine's own kernels give way to NCCL's, and any spelling of a kernel means it."""
    hardware = HardwareProfile.load("arc-pro-b60-24gb")
    deployment = Deployment(hardware, LLAMA, EngineOverhead.load("vllm"), 2)
    assert deployment.engine.all_reduce != deployment.all_reduce == "nccl"
    sentences = assumptions([deployment], Workload((1,), (1000,)), (), None)
    assert any(sentence.startswith("all_reduce.nccl is not in the profile") for sentence in sentences)
    guessed = replace(H100, assumed=("all_reduce.custom-graph.scale is assumed", "all_reduce.nccl.scale is"))
    engine = ENGINE.calling(attention_kernel=ENGINE.attention_kernel, all_reduce="vllm_custom_graph")
    sentences = assumptions([Deployment(guessed, LLAMA, engine, 8)], Workload((1,), (1000,)), (), None)
    assert guessed.assumed[0] in sentences and guessed.assumed[1] not in sentences
