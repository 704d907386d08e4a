"""The inflection sentence is true by the prices of its own question, or it is not said."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import strategies
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.columns import Cell
from perfmodel.planning.inflection import bear_out, inflection_context
from perfmodel.planning.near_tie import NEAR_TIE
from perfmodel.planning.planner import Constraints, plan
from perfmodel.planning.price import SearchSpace
from perfmodel.speculation import price_round
from perfmodel.workload import Workload

BATCHES = [32, 64, 128, 256]
WINDOW = Drafter(strategies.load("streaming_llm"))
LLAMA = ModelSpec.load("llama-3.1-8b")
QUESTIONS = [
    ("h100-sxm-80gb", "generic", "llama-3.1-8b", 8), ("h100-sxm-80gb", "magicdec-h100", "llama-3.1-8b", 8),
    ("a100-sxm-80gb", "magicdec-a100", "llama-3.1-8b", 8), ("a100-sxm-80gb", "generic", "llama-3.1-8b", 8),
    ("a100-sxm-80gb", "generic", "qwen2.5-7b", 4), ("l40s-48gb", "generic", "llama-3.1-8b", 8),
]  # fmt: skip


@pytest.mark.parametrize(("hardware", "engine", "model", "gpus"), QUESTIONS)
def test_beyond_it_no_larger_batch_gains_less_and_drafting_pays(hardware, engine, model, gpus):
    deployment = Deployment(
        HardwareProfile.load(hardware), ModelSpec.load(model), EngineOverhead.load(engine), gpus
    )
    space = SearchSpace([None, WINDOW], range(9), [512])
    context = inflection_context(deployment, Workload(BATCHES, [32000]), space)
    contexts = np.unique(np.geomspace(256, 128_000, 80).round())
    priced = price_round(
        deployment.hardware, deployment.model, deployment.engine, WINDOW,
        batch=np.array(BATCHES, dtype=float)[:, None, None], context_len=contexts[:, None], kv_budget=512.0,
        gamma=np.arange(9.0), tensor_parallel=float(gpus),
    )  # fmt: skip
    best = np.broadcast_to(priced.speedup, (len(BATCHES), contexts.size, 9)).max(axis=-1)
    beyond = contexts > 1.1 * context
    assert not (np.diff(best[:, beyond], axis=0) < -1e-6).any()
    pays = contexts[best[-1] > 1.001]
    if np.isfinite(context):
        assert best[-1][beyond].min() > 1.001
        assert pays[0] <= 1.1 * context


def test_on_h100_with_the_papers_engine_it_is_where_drafting_begins_to_pay_at_the_largest_batch():
    deployment = Deployment(
        HardwareProfile.load("h100-sxm-80gb"), LLAMA, EngineOverhead.load("magicdec-h100"), 8
    )
    space = SearchSpace([None, WINDOW], range(9), [512])
    assert 2500 < inflection_context(deployment, Workload(BATCHES, [32000]), space) < 5500


def test_one_batch_size_and_a_small_cache_have_none():
    """Nothing can be said of one batch; with 256 entries a layer no batch is bound by its cache."""
    space = SearchSpace([None, WINDOW], range(9), [512])
    deployment = Deployment(HardwareProfile.load("h100-sxm-80gb"), LLAMA, EngineOverhead.load("ideal"))
    assert inflection_context(deployment, Workload([64], [32000]), space) == np.inf
    mistral = ModelSpec.load("mistral-7b-v0.1")
    (layer,) = mistral.layers
    short = replace(layer, token_mixers=tuple(replace(mixer, window=256) for mixer in layer.token_mixers))
    windowed = replace(deployment, model=replace(mistral, layers=(short,)))
    assert inflection_context(windowed, Workload(BATCHES, [32000]), space) == np.inf


def test_a_plan_says_that_of_the_machine_that_won_or_nothing():
    a100, h100 = (HardwareProfile.load(name) for name in ("a100-sxm-80gb", "h100-sxm-80gb"))
    engine, workload = EngineOverhead.load("magicdec-h100"), Workload(BATCHES, [32000])
    alone, both = (
        plan(machines, LLAMA, engine, workload, tensor_parallel=8, draws=0)
        for machines in (h100, [a100, h100])
    )
    assert {cell.hardware for cell in both.cells} == {str(h100.name)}
    assert both.inflection_context_len == alone.inflection_context_len is not None


@pytest.mark.parametrize(
    ("asked", "batches", "contexts"),
    [
        ({}, [8, 16, 32], [32000]),  # batch 32 fits only without a drafter
        ({"constraints": Constraints(tpot=0.012)}, [1, 4, 64], [8000, 32000]),
        ({"one_deployment": True}, [8, 16], [32000]),
        ({}, [1, 4, 16, 64], [2000, 8000, 32000]),
    ],
)
@pytest.mark.parametrize("gpus", [1, 8])
def test_no_table_contradicts_the_sentence_above_it(asked, batches, contexts, gpus):
    workload = Workload(batches, contexts, output_tokens=512)
    answer = plan(
        HardwareProfile.load("h100-sxm-80gb"), ModelSpec.load("qwen2.5-7b"), EngineOverhead.load("generic"),
        workload, tensor_parallel=gpus if gpus == 1 else 4, draws=0, **asked,
    )  # fmt: skip
    length = answer.inflection_context_len
    for context in contexts if length is not None else ():
        column = [cell for cell in answer.cells if cell.context_len == context and context >= length]
        assert all(
            after.speedup >= before.speedup / (1.0 + NEAR_TIE) for before, after in pairwise(column)
        )
        assert not column or column[-1].speculates


def test_what_the_cells_do_not_bear_out_is_not_said():
    def cells(*speedups, gamma=3):
        blank = {"strategy": "x", "draft_model": None, "kv_budget": 1, "tokens_per_round": 2.0, "tpot_s": 1.0}
        return [
            Cell(batch_size=2**place, context_len=1000, gamma=gamma, baseline_s=1.0, speedup=speedup,
                 bound_by="linear", **blank)
            for place, speedup in enumerate(speedups)
        ]  # fmt: skip

    assert bear_out(500.0, cells(1.1, 1.2, 1.195))
    assert not bear_out(500.0, cells(1.1, 1.2, 1.1))
    assert not bear_out(500.0, cells(1.1))
    assert not bear_out(500.0, cells(1.0, 1.0, gamma=0))
    assert bear_out(2000.0, cells(1.2, 1.1))
