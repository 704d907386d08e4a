"""What a figure and an explanation count of a pass is what its price is the price of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import strategies
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import price_pass
from perfmodel.model import BYTES, ModelSpec
from perfmodel.planning.operations import KINDS, operations, passes_of
from perfmodel.planning.price import SearchSpace, price_drafters
from perfmodel.workload import Workload

H100 = HardwareProfile.load("h100-sxm-80gb")
FREE_LAUNCHES = replace(
    H100, attention={name: replace(kernel, t0=0.0) for name, kernel in H100.attention.items()}
)
IDEAL = EngineOverhead.load("ideal")


def priced_round(model, gpus, strategy="streaming_llm", context_len=32_000, hardware=H100):
    deployment = Deployment(hardware, model, IDEAL, float(gpus))
    space = SearchSpace([Drafter(strategies.load(strategy))], (4,), [1024])
    priced = next(iter(price_drafters(deployment, Workload((8,), (context_len,)), space)))
    return priced.at((0, 0, 0, 0))


def count_weights(hardware, *, tokens, n, k, dtype, weight_fraction, products=1.0, **_):  # noqa: ARG001
    return np.multiply(products, n) * k * BYTES[dtype] * weight_fraction


def count_entries(hardware, *, batch, kv_tokens, kv_heads, entry_elements, kv_dtype, kv_fraction, **shape):  # noqa: ARG001
    return BYTES[kv_dtype] * kv_fraction * batch * np.asarray(kv_tokens) * kv_heads * entry_elements


def count_states(hardware, *, bytes_moved, **shape):  # noqa: ARG001
    return bytes_moved


@pytest.mark.parametrize("gpus", [1, 8, 16])
@pytest.mark.parametrize("name", ModelSpec.available())
def test_bytes_are_those_that_the_kernels_are_priced_with(name, gpus, monkeypatch):
    model = ModelSpec.load(name)
    context_len = min(32_000, model.max_position)
    priced = priced_round(model, gpus, context_len=context_len, hardware=FREE_LAUNCHES)
    counted = operations(priced)
    monkeypatch.setattr("perfmodel.latency.forward_pass.linear", count_weights)
    monkeypatch.setattr("perfmodel.latency.forward_pass.attention", count_entries)
    monkeypatch.setattr("perfmodel.latency.forward_pass.recurrence", count_states)
    passes = passes_of(priced)
    assert [step.phase for step in passes] == ["plain step", "draft pass", "verification"]
    for step in passes:
        kernels = price_pass(step.deployment, replace(step.forward, selection_launches=0.0))
        bytes_of = {kind.name: float(kind.bytes) for kind in counted if kind.phase == step.phase}
        for cause, kind in KINDS.items():
            assert bytes_of.get(kind, 0.0) == pytest.approx(float(getattr(kernels, cause)), rel=1e-12)


@pytest.mark.parametrize("strategy", ["quest", "quantized_kv", "layer_skip", "snapkv"])
def test_bytes_of_every_kind_of_draft_pass_are_too(strategy, monkeypatch):
    priced = priced_round(ModelSpec.load("gpt-oss-20b"), 8, strategy)
    counted = operations(priced)
    monkeypatch.setattr("perfmodel.latency.forward_pass.linear", count_weights)
    monkeypatch.setattr("perfmodel.latency.forward_pass.attention", count_entries)
    monkeypatch.setattr("perfmodel.latency.forward_pass.recurrence", count_states)
    for step in passes_of(priced):
        kernels = price_pass(step.deployment, replace(step.forward, selection_launches=0.0))
        bytes_of = {kind.name: float(kind.bytes) for kind in counted if kind.phase == step.phase}
        assert bytes_of["linear layers"] == pytest.approx(float(kernels.linear), rel=1e-12)
        assert bytes_of["attention"] == pytest.approx(float(kernels.attention), rel=1e-12)


def test_seconds_are_those_of_the_round():
    priced = priced_round(ModelSpec.load("llama-3.1-8b"), 8)
    by_name = {(kind.phase, kind.name): float(kind.seconds) for kind in operations(priced)}
    assert by_name["verification", "attention"] == float(priced.round.verify.attention)
    assert by_name["draft pass", "linear layers"] == float(priced.round.draft.linear)
    again = [price_pass(step.deployment, step.forward).total for step in passes_of(priced)]
    rounds = priced.round
    totals = [rounds.baseline.total, rounds.draft.total, rounds.verify.total]
    assert [float(each) for each in again] == [float(total) for total in totals]


def test_copied_kv_heads_are_counted_on_every_gpu():
    """Llama-3.1-8B has 8 KV heads: on 16 GPUs each holds a whole one, and its columns of the matrix."""
    model = ModelSpec.load("llama-3.1-8b")
    eight, sixteen = (operations(priced_round(model, gpus)) for gpus in (8, 16))
    assert float(sixteen[1].bytes) == float(eight[1].bytes)
    columns = 2 * 8 * 128
    copied = 32 * 4096 * 2 * (columns / 8 - columns / 16)
    assert float(sixteen[0].bytes) == pytest.approx(float(eight[0].bytes) / 2 + copied, rel=1e-12)


def test_a_verification_reads_the_union_of_the_windows_of_its_queries():
    model = ModelSpec.load("mistral-7b-v0.1")
    ((mixer, _),) = model.token_mixers
    window = mixer.window
    step, _, verification = (kind for kind in operations(priced_round(model, 1)) if kind.name == "attention")
    assert float(verification.bytes) / float(step.bytes) == pytest.approx((window + 4) / window, rel=1e-12)
