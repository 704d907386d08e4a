"""What a checkpoint takes once an engine has loaded it, and what fits by less than engines keep."""

from __future__ import annotations

import pytest

from perfmodel import plan
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.memory import resident_memory, weight_bytes_per_gpu
from perfmodel.model import ModelSpec
from perfmodel.workload import Workload

GIB = 2.0**30
H100 = HardwareProfile.load("h100-sxm-80gb")
VLLM = EngineOverhead.load("vllm-h100")
GPT_OSS = ModelSpec.load("gpt-oss-120b")


def test_four_bit_weights_grow_when_they_are_repacked():
    """vLLM issues 23278 and 33155: 60.8 GiB of files took 65.97 and 64.38 GiB of an H100."""
    stored = float(weight_bytes_per_gpu(GPT_OSS, 1.0)) / GIB
    loaded = float(weight_bytes_per_gpu(GPT_OSS, 1.0, VLLM.repacking)) / GIB
    quantity = VLLM.quantities["repacking"]
    most = float(weight_bytes_per_gpu(GPT_OSS, 1.0, quantity.high)) / GIB
    assert stored == pytest.approx(60.77, abs=0.01)
    assert loaded == pytest.approx(64.38, rel=0.01)
    assert most == pytest.approx(65.97, rel=0.005)


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "DeepSeek-V3", "Qwen3.5-27B"])
def test_wider_weights_are_loaded_as_they_are(name):
    model = ModelSpec.load(name)
    assert weight_bytes_per_gpu(model, 1.0, 1.09) == weight_bytes_per_gpu(model, 1.0)


def test_what_fits_by_less_than_engines_were_seen_to_keep_is_marked():
    """Three people could not start gpt-oss-120b on one H100 (vLLM issues 23278, 27508, 33155)."""
    workload = Workload((1,), (128_000,))
    assert plan(H100, GPT_OSS, VLLM, workload).cells[0].barely_fits
    roomier = HardwareProfile.load("h200-sxm-141gb")
    assert not plan(roomier, GPT_OSS, VLLM, workload).cells[0].barely_fits


def test_doubt_shrinks_no_batch():
    memory = resident_memory(H100, ModelSpec.load("Llama-3.1-8B"), VLLM, batch=1.0, context_len=8000.0)
    assert bool(memory.fits)
    assert float(memory.left) > float(memory.in_doubt) > 0.0
    assert float(memory.total + memory.left) == pytest.approx(float(memory.usable))
