"""Every decoder class of transformers, at its own defaults: counted as transformers counts it, or refused."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from perfmodel.model import ModelSpec

pytestmark = [pytest.mark.slow, pytest.mark.torch]

_NAMES = (
    "afmoe apertus arcee axk1 bailing_hybrid bitnet bloom cohere cohere2 cohere2_moe cwm "
    "deepseek_v3 deepseek_v32 deepseek_v4 ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon falcon_h1 "
    "flex_olmo gemma gemma2 gemma3_text gemma4_text glm glm4 glm4_moe_lite glm_moe_dsa gpt2 gpt_bigcode "
    "gpt_neox gpt_oss gptj granite granite_swa granitemoe granitemoehybrid granitemoeshared helium hy_v3 "
    "inkling_text internlm3 jamba kimi_linear laguna lfm2 lfm3 llama llama4_text mellum minicpm3 minimax "
    "minimax_m2 minimax_m3_vl_text ministral3 mistral mixtral mpt nemotron_h olmo olmo2 olmo3 olmo_hybrid "
    "olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe "
    "qwen3_next seed_oss smollm3 solar_open stablelm starcoder2 youtu"
)
DECODERS = _NAMES.split()
TOLERANCE = 5e-3
"""Of the total: biases and norms of a few families are left out."""


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_class_of_transformers_has_the_parameters_that_it_builds(model_type: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip("this version of transformers lacks it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = transformers.CONFIG_MAPPING[model_type]()
            with torch.device("meta"):
                model = transformers.AutoModelForCausalLM.from_config(config)
        except Exception as error:  # a class whose own defaults cannot be built says nothing
            pytest.skip(f"transformers cannot build it: {error}"[:200])
    sizes: dict[int, int] = {id(tensor): tensor.numel() for tensor in model.parameters()}
    keys: dict[str, Any] = config.to_dict()
    assert ModelSpec.from_config(keys).parameters == pytest.approx(sum(sizes.values()), rel=TOLERANCE)
