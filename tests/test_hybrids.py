"""Models whose layers are not all alike: what a round of them costs, keeps and gains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import strategies
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import prefill_latency, step_latency
from perfmodel.memory import largest_batch, resident_memory
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, price

H200 = HardwareProfile.load("h200-sxm-141gb")
ENGINE = EngineOverhead.load("vllm-h100")
REPLAY = ENGINE.with_values({"kept_states": 0.0, "state_trips": 1.0}, source="test")
WINDOW = Drafter(strategies.load("streaming_llm"))
HYBRIDS = [
    "Qwen3-Next-80B-A3B", "Qwen3.5-27B", "Kimi-Linear-48B-A3B", "Nemotron-3-Nano-30B-A3B",
    "Granite-4-H-Small", "MiniMax-M1", "Ring-flash-linear-2.0", "Jamba-1.5-Mini", "Falcon-H1-34B",
    "LFM2-8B-A1B",
]  # fmt: skip


def round_of(model, **fields):
    question = {"batch": 8.0, "context_len": 32_768.0, "kv_budget": 1024.0, "gamma": 4.0} | fields
    return price(Deployment(H200, model, ENGINE, 8.0), WINDOW, alpha=0.8, **question)


@pytest.mark.parametrize("name", ModelSpec.available())
def test_verifying_one_token_takes_as_long_as_a_decode_step(name):
    steps = round_of(ModelSpec.load(name), gamma=0.0)
    assert float(steps.verify.total) == float(steps.baseline.total)


@pytest.mark.parametrize("name", ModelSpec.available())
def test_every_bundled_model_decodes_verifies_and_prefills(name):
    model = ModelSpec.load(name)
    priced = round_of(model, gamma=np.arange(1.0, 9.0))
    prefill = prefill_latency(
        H200, model, ENGINE, batch=1.0, prompt_tokens=np.array([128.0, 1024.0, 8192.0]), tensor_parallel=8.0
    ).total
    for seconds in (priced.draft.total, priced.verify.total, priced.baseline.total, prefill):
        assert np.all(np.isfinite(seconds))
        assert np.all(np.asarray(seconds) > 0.0)
    assert np.all(np.diff(np.asarray(priced.verify.total)) >= 0.0)
    assert np.all(np.diff(prefill) >= -1e-15)  # short ones of experts take what their launches do
    assert prefill[-1] > prefill[0]


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_budget_touches_the_layers_with_a_growing_cache_and_nothing_else(name):
    """A draft pass reads fewer entries; weights and states cost what they cost a plain step."""
    priced = round_of(ModelSpec.load(name))
    assert float(priced.draft.attention) < float(priced.baseline.attention)
    assert float(priced.draft.recurrence) == float(priced.baseline.recurrence) > 0.0
    assert float(priced.draft.linear) == float(priced.baseline.linear)


@pytest.mark.parametrize("name", HYBRIDS)
def test_states_are_kept_in_memory_for_every_drafted_token(name):
    model = ModelSpec.load(name)
    question = {"batch": 16.0, "context_len": 32_768.0, "tensor_parallel": 1.0}
    memory = resident_memory(H200, model, ENGINE, gamma=4.0, **question)
    assert float(memory.states) == pytest.approx(16 * model.state_bytes)
    assert float(memory.kept_states) == pytest.approx(4 * 16 * model.state_bytes)
    assert float(resident_memory(H200, model, ENGINE, **question).kept_states) == 0.0
    assert float(resident_memory(H200, model, REPLAY, gamma=4.0, **question).kept_states) == 0.0


def test_who_drafts_for_itself_works_on_a_copy_of_its_states():
    """A draft pass advances states that verification starts from: one more copy beside those kept."""
    model = ModelSpec.load("Qwen3.5-27B")
    question = {"batch": 16.0, "context_len": 8192.0, "gamma": 3.0, "alpha": 0.8}
    deployment = Deployment(H200, model, ENGINE, 1.0)
    itself = price(deployment, WINDOW, kv_budget=1024.0, **question).memory.kept_states
    shipped = price(deployment, Drafter(strategies.load("mtp")), **question).memory.kept_states
    assert float(shipped) == pytest.approx(3 * 16 * model.state_bytes)
    assert float(itself - shipped) == pytest.approx(16 * model.state_bytes)


def test_a_draft_model_with_states_keeps_some_too():
    small = ModelSpec.load("Granite-4-H-Small")
    question = {"batch": 4.0, "context_len": 8192.0, "gamma": 3.0}
    memory = resident_memory(H200, ModelSpec.load("Granite-4-Micro"), ENGINE, draft=small, **question)
    assert float(memory.kept_states) == pytest.approx(3 * 4 * small.state_bytes)


def test_speculation_shrinks_the_largest_batch_of_a_hybrid():
    """A state of Qwen3.5-27B weighs as much as 2,300 tokens of its cache."""
    model = ModelSpec.load("Qwen3.5-27B")
    most = [
        int(largest_batch(H200, model, ENGINE, context_len=8192.0, gamma=gamma, tensor_parallel=2.0))
        for gamma in (0.0, 1.0, 4.0)
    ]
    assert most == sorted(most, reverse=True)
    assert most[2] < 0.6 * most[0]
    dense = ModelSpec.load("Qwen3-32B")
    plain, drafting = (
        int(largest_batch(H200, dense, ENGINE, context_len=8192.0, gamma=gamma, tensor_parallel=2.0))
        for gamma in (0.0, 4.0)
    )
    assert plain - drafting <= 1


def test_verification_of_a_hybrid_writes_a_state_for_every_token():
    """Qwen3.5-27B, 32 sequences, 4 tokens: 20 GB of states beside 54 GB of weights."""
    model = ModelSpec.load("Qwen3.5-27B")
    asked = {"batch": 32.0, "kv_tokens": 32_768.0}
    one = step_latency(H200, model, ENGINE, **asked)
    four = step_latency(H200, model, ENGINE, query_tokens=4.0, **asked)
    again = step_latency(H200, model, REPLAY, query_tokens=4.0, **asked)
    reached = float(H200.recurrence.memory_fraction * H200.memory_bandwidth)
    assert float(four.recurrence - one.recurrence) == pytest.approx(
        3 * 32 * model.state_bytes / reached, rel=0.05
    )
    assert float(one.recurrence) < float(again.recurrence) < float(four.recurrence)


def test_fewer_layers_with_a_growing_cache_move_the_context_from_which_a_budget_pays():
    """At 32k a budget pays for the dense model and not yet for the hybrid of its family."""
    dense, hybrid = (
        replace(ModelSpec.load(name), name=name) for name in ("Qwen3-30B-A3B", "Qwen3-Next-80B-A3B")
    )
    gammas = np.arange(1.0, 9.0)
    gains = {
        model.name: [float(np.max(round_of(model, gamma=gammas, context_len=length).speedup))
                     for length in (32_768.0, 262_144.0)]
        for model in (dense, hybrid)
    }  # fmt: skip
    assert gains["Qwen3-30B-A3B"][0] > gains["Qwen3-Next-80B-A3B"][0]
    assert gains["Qwen3-Next-80B-A3B"][1] > gains["Qwen3-Next-80B-A3B"][0]
