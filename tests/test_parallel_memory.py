"""Memory of stages and groups: it adds up over the GPUs to the whole, and the fullest GPU counts."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from perfmodel.deployment import Deployment, Stage, stages_of
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.memory import (
    ResidentMemory,
    count_memory,
    largest_batch,
    resident_memory,
    weight_bytes_per_gpu,
)
from perfmodel.model import ModelSpec

H100, ENGINE = HardwareProfile.load("h100-sxm-80gb"), EngineOverhead.load("generic")
DENSE, LARGE, MOE, LATENT = map(
    ModelSpec.load, ("llama-3.1-8b", "llama-3.1-70b", "qwen3-30b-a3b", "deepseek-v3")
)
MODELS = pytest.mark.parametrize("model", [DENSE, LARGE, MOE, LATENT], ids=lambda model: model.name)
CELL = {"batch": 64.0, "context_len": 4096.0}


def dealt_layers(layers: int, stages: int) -> list[int]:
    """Layers of every stage, as vLLM's get_pp_indices deals them."""
    counts = [layers // stages] * stages
    for back in range(2, layers % stages + 2):
        counts[-back] += 1
    return counts


def every_stage(model: ModelSpec, stages: int) -> list[Stage]:
    last = stages - 1
    return [
        Stage(count / model.num_layers, float(at == 0), float(at == last))
        for at, count in enumerate(dealt_layers(model.num_layers, stages))
    ]


@MODELS
@pytest.mark.parametrize("stages", [1, 2, 3, 4, 7, 8])
class TestStages:
    def test_weights_of_all_stages_are_the_whole(self, model, stages):
        held = [weight_bytes_per_gpu(model, 4.0, stage=stage) for stage in every_stage(model, stages)]
        copied = 0.0 if model.owns_lm_head or stages == 1 else model.embedding_parameters / 4.0 * 2.0
        tables = (stages - 1) * model.table_bytes
        assert_allclose(sum(held) - copied - tables, weight_bytes_per_gpu(model, 4.0), rtol=1e-12)

    def test_the_fullest_is_the_largest_of_all(self, model, stages):
        held = [weight_bytes_per_gpu(model, 4.0, stage=stage) for stage in every_stage(model, stages)]
        three = [weight_bytes_per_gpu(model, 4.0, stage=stage) for stage in stages_of(model, stages)]
        assert_allclose(max(three), max(held), rtol=1e-12)

    def test_layers_add_up(self, model, stages):
        assert sum(dealt_layers(model.num_layers, stages)) == model.num_layers
        first, _, last = (stage.layers * model.num_layers for stage in stages_of(model, stages))
        assert [round(first), round(last)] == [
            dealt_layers(model.num_layers, stages)[place] for place in (0, -1)
        ]


@MODELS
@pytest.mark.parametrize("name", ["pipeline_parallel", "data_parallel"])
def test_one_stage_or_group_is_the_plain_case_to_the_last_bit(model, name):
    plain, one, mixed = (
        resident_memory(H100, model, ENGINE, **CELL, tensor_parallel=4.0, **{name: count})
        for count in (1.0, 1, np.array([1.0, 2.0]))
    )
    for field in fields(ResidentMemory):
        value = getattr(plain, field.name)
        assert getattr(one, field.name) == value
        assert_array_equal(np.broadcast_to(getattr(mixed, field.name), 2)[0], value)


def test_two_stages_hold_half_of_the_layers_each_and_one_end():
    """Llama 3.1 70B: 80 layers, embedding and output layer of 128,256 x 8,192 in bf16."""
    whole, half = (
        resident_memory(H100, LARGE, ENGINE, **CELL, tensor_parallel=4.0, pipeline_parallel=p) for p in (1, 2)
    )
    end = 128_256 * 8_192 * 2 / 4
    assert_allclose(half.weights, (whole.weights - 2 * end) / 2 + end, rtol=1e-6)
    assert_allclose(half.target_kv, whole.target_kv / 2)


def test_groups_hold_their_own_sequences_and_an_eighth_of_the_experts():
    """The latent cache, which 8 GPUs of tensor parallelism copy, is held once (DeepSeek-V3)."""
    shared = resident_memory(H100, LATENT, ENGINE, **CELL, tensor_parallel=8.0)
    groups = resident_memory(H100, LATENT, ENGINE, **CELL, tensor_parallel=1.0, data_parallel=8.0)
    assert groups.target_kv == shared.target_kv / 8.0
    assert shared.weights < groups.weights < 1.6 * shared.weights


def test_experts_of_all_groups_are_the_whole():
    """Weights of all GPUs, less what each group has a copy of, are those of the model."""
    groups = weight_bytes_per_gpu(MOE, 2.0, data_parallel=4.0) * 8.0
    without = replace(MOE, layers=tuple(
        replace(layer, products=tuple(each for each in layer.products if not each.experts))
        for layer in MOE.layers
    ))  # fmt: skip
    copied = weight_bytes_per_gpu(without, 2.0) * 8.0
    experts = sum(layer.weight_bytes(MOE.base_dtype) for layer in MOE.linears if layer.experts)
    assert_allclose(groups - copied, experts, rtol=1e-9)


def test_the_largest_batch_grows_with_stages_and_groups():
    one, staged, grouped = (
        int(largest_batch(H100, DENSE, ENGINE, context_len=32_000.0, tensor_parallel=1.0, **more))
        for more in ({}, {"pipeline_parallel": 2.0}, {"data_parallel": 2.0})
    )
    assert grouped == 2 * one
    assert staged > 2 * one  # half of the weights make room too


def test_the_stage_that_counts_is_the_fullest_in_all():
    """Few sequences: the ends' matrices decide; many: the most layers do."""
    runs = Deployment(H100, DENSE, ENGINE, 1.0, pipeline_parallel=3.0)
    assert stages_of(DENSE, 3.0)[0] == Stage(11 / 32, 1.0, 0.0)
    many = count_memory(runs, batch=512.0, context_len=32_000.0)
    whole = count_memory(replace(runs, pipeline_parallel=1.0), batch=512.0, context_len=32_000.0)
    assert_allclose(many.target_kv, whole.target_kv * 11 / 32)
