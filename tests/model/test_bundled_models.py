"""The bundled models: each file is whole, no two share a name, and each has the size that is known of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.model import ModelSpec
from perfmodel.model.files import find_config

MODELS = Path(__file__).parents[2] / "perfmodel" / "data" / "models"
CONFIGS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(MODELS.glob("*.json"))
}

# Columns: name; elements of the language model with embedding and head, without towers and draft layers;
# those that one token uses, the whole embedding included. Sums over every matrix and vector of the
# architecture; they agree with what the makers state: 671B, 744B, 2.8T, 1T and 32B, 400B and 17B, 109B and
# 17B, 427B, 456B, 397B and 17B, 230B and 10B, 284B and 13B, 309B and 15B, 480B and 35B, 120.6B and 12.7B,
# 31.6B, 49.9B, 30.7B.
KNOWN = """
Apertus-70B                        70599864640   70599864640
Apertus-8B                          8053338240    8053338240
Arctic                            478584608768   17318647808
Command-A                         111057580032  111057580032
DBRX                              131596523520   36469708800
DeepSeek-V3.2                     671877944064   38403822336
DeepSeek-V4-Flash                 284332240471   13799632471
ERNIE-4.5-21B-A3B                  21825437888    3352150208
EXAONE-4-32B                       32003216384   32003216384
Falcon-H1-34B                      33642221312   33642221312
Gemma-3n-E4B                        6866768368    6866768368
Gemma-4-26B-A4B                    25233141790    3822530590
Gemma-4-31B                        30697345340   30697345340
Gemma-4-E4B                         7463013418    7463013418
GLM-4.5                           352797814784   33632251904
GLM-4.5-Air                       106852251264   13424129664
GLM-4.6                           352797814784   33632251904
GLM-4.7                           352797814784   33632251904
GLM-4.7-Flash                      29943390976    3896763136
GLM-5                             743911218432   41784728832
GLM-5.2                           743377019904   41250530304
Granite-4-H-Small                  32207337984    8803121664
Granite-4-Micro                     3402836480    3402836480
Hunyuan-A13B                       80393183232   12747448320
Hunyuan-Large                     388701405440   51322077440
Inkling                           947025564226   41055900226
Jamba-1.5-Mini                     51570323328   12110311296
Kimi-K2                          1026408232448   32861500928
Kimi-K2-0905                     1026408232448   32861500928
Kimi-K2.5                        1026408232448   32861500928
Kimi-K3                          2779484476000  105364017760
Kimi-Linear-48B-A3B                49122681728    3484459904
LFM2-8B-A1B                         8339930560    1557740992
Llama-3-70B                        70553706496   70553706496
Llama-3-8B                          8030261248    8030261248
Llama-4-Maverick                  400711848960   17184691200
Llama-4-Scout                     107769861120   17172894720
LongCat-Flash                     560664980480   27954818048
MiMo-V2-Flash                     308778780864   15445936320
MiniMax-M1                        456089655296   48403306496
MiniMax-M2                        228689764864   11030553088
MiniMax-M2.7                      228689764864   11030553088
MiniMax-M3                        426174572928   25962473856
Ministral-3-8B                      8489553920    8489553920
Ministral-3-8B-BF16                 8489553920    8489553920
Mistral-Large-3                   673421097216   39946975488
Mistral-Small-24B                  23572403200   23572403200
Mistral-Small-3.2-24B              23572403200   23572403200
Mixtral-8x22B-v0.1                140630071296   39161468928
Nemotron-3-Nano-30B-A3B            31577940288    3580076352
Nemotron-3-Super-120B-A12B        120668707840   12770237440
Nemotron-3.5-Lightning-30B-A3B     31577940288    3580076352
Nemotron-H-56B                     56324350464   56324350464
Nemotron-Super-49B                 49867145216   49867145216
OLMo-3-32B                         32233522176   32233522176
Phi-3.5-MoE                        41873153344    6640999744
Qwen3-Coder-30B-A3B                30532122624    3353032704
Qwen3-Coder-480B-A35B             480154875392   35474765312
Qwen3-Next-80B-A3B                 79674391296    3874929408
Qwen3.5-27B                        26895998464   26895998464
Qwen3.5-35B-A3B                    34660610688    3454988928
Qwen3.5-397B-A17B                 396346350336   17349040896
Qwen3.6-35B-A3B                    34660610688    3454988928
Ring-flash-linear-2.0             104181665536    7444238080
Seed-OSS-36B                       36151104512   36151104512
SmolLM3-3B                          3075098624    3075098624
StarCoder2-15B                     15957889024   15957889024
Step-3.5-Flash                    196956130368   11987323968
"""
ROWS = [line.split() for line in KNOWN.strip().splitlines()]


def test_at_least_seventy_models_are_bundled() -> None:
    assert len(CONFIGS) >= 70
    assert {row[0] for row in ROWS} <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_file_names_its_source_and_other_names(name: str) -> None:
    config = CONFIGS[name]
    assert list(config)[:2] == ["_source", "_aliases"]
    assert isinstance(config["_source"], str)
    assert len(config["_source"]) > 10
    aliases = config["_aliases"]
    assert len({alias.lower() for alias in aliases}) == len(aliases)
    assert all(isinstance(alias, str) and alias.count("/") <= 1 for alias in aliases)
    assert "model_type" in config
    assert config["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("name", CONFIGS)
def test_every_name_of_a_model_finds_its_file(name: str) -> None:
    aliases = CONFIGS[name]["_aliases"]
    for spelling in (name, *aliases, *(alias.rpartition("/")[2] for alias in aliases)):
        model, document = find_config(spelling)
        assert (model, document.remarks) == (name, [])
        assert document.data == CONFIGS[name]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_sizes_are_the_known_ones(row: list[str]) -> None:
    name, parameters, active = row[0], int(row[1]), int(row[2])
    model = ModelSpec.load(name)
    assert model.name == name
    assert model.parameters == pytest.approx(parameters, rel=0.005)
    assert float(model.active_parameters(1.0)) == pytest.approx(active, rel=0.02)
