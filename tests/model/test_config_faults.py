"""Junk under any key of any bundled config is refused by name, or leaves a model of finite size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.model import ModelSpec

MODELS = Path(__file__).parents[2] / "perfmodel" / "data" / "models"
NAMES = sorted(path.stem for path in MODELS.glob("*.json"))


@cache
def text(name: str) -> str:
    return (MODELS / f"{name}.json").read_text(encoding="utf-8")


def paths(config: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key, those of nested mappings too; how weights are stored is tried elsewhere."""
    for key, value in config.items():
        if key.startswith("_") or key == "quantization_config":
            continue
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


def with_value(name: str, path: tuple[str, ...], value: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(text(name))
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


JUNK = st.one_of(
    st.sampled_from([-1, 0, 1.5, math.nan, math.inf, 10**9, 10**25, 10**400, -(10**400)]),
    st.sampled_from([True, False, "", "8"]),
    st.sampled_from([[], [1], ["x"], [[[]]], [None], [-1], [1.5], [True], {}, {"a": 1}, {"1": {"a": []}}]),
    st.sampled_from([[1] * 100_000, "M" * 200_000, "full_attention", "\ud800", "nan", {"text_config": {}}]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_junk_is_refused_by_name_or_does_no_harm(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    path = data.draw(st.sampled_from(list(paths(json.loads(text(name))))))
    junk = data.draw(JUNK)
    try:
        model = ModelSpec.from_config(with_value(name, path, junk), "file.json")
    except SpecError as caught:
        refusal = str(caught)
    else:
        refusal = ""
        assert 0 < model.parameters < math.inf
        assert 0 < model.weight_bytes < math.inf
        assert 0 <= float(model.kv_bytes(1000.0)) + model.state_bytes < math.inf
    assert not refusal or refusal.startswith("file.json")
    assert len(refusal) < 20_000


LISTS: list[tuple[str, tuple[str, ...], str]] = [
    ("Gemma-4-31B", ("text_config", "layer_types"), "lists 1 layers"),
    ("MiniMax-M1", ("attn_type_list",), "lists 1 layers"),
    ("MiMo-V2-Flash", ("hybrid_layer_pattern",), "lists 1 layers"),
    ("MiMo-V2-Flash", ("moe_layer_freq",), "lists 1 layers"),
    ("GLM-5.2", ("indexer_types",), "lists 1 layers"),
    ("DeepSeek-V4-Flash", ("compress_ratios",), "lists 1 layers"),
    ("Nemotron-Super-49B", ("block_configs",), "does not describe every layer"),
    ("Nemotron-H-56B", ("hybrid_override_pattern",), "lists 1 layers"),
]


@pytest.mark.parametrize(("name", "path", "problem"), LISTS, ids=lambda value: str(value)[:40])
def test_a_list_of_the_wrong_length_is_named_with_its_line(
    name: str, path: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    config: Any = json.loads(text(name))
    inner = config
    for key in path[:-1]:
        inner = inner.get(key, inner)
    inner[path[-1]] = inner[path[-1]][:1]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config, indent=1))
    with pytest.raises(SpecError) as refusal:
        ModelSpec.load(file)
    fault = next(fault for fault in refusal.value.faults if fault.field.endswith(path[-1]))
    assert problem in fault.problem
    assert f'"{path[-1]}"' in file.read_text().splitlines()[(fault.line or 0) - 1]
    assert fault.remedy


ENTRIES: list[tuple[str, str, Any, str]] = [
    ("MiniMax-M1", "attn_type_list", 2, "attn_type_list.3: found 2"),
    ("MiMo-V2-Flash", "hybrid_layer_pattern", "x", "hybrid_layer_pattern.3: found 'x'"),
    ("DeepSeek-V4-Flash", "compress_ratios", -4, "compress_ratios.3: found -4"),
    ("Hunyuan-A13B", "moe_topk", 2.5, "moe_topk.3: found 2.5"),
    ("Hunyuan-A13B", "moe_intermediate_size", "3072", "moe_intermediate_size.3: found '3072'"),
]


@pytest.mark.parametrize(("name", "key", "value", "message"), ENTRIES)
def test_a_wrong_entry_of_a_list_is_named_by_its_place(name: str, key: str, value: Any, message: str) -> None:
    config = json.loads(text(name))
    if not isinstance(config.get(key), list):
        config[key] = [config[key]] * config["num_hidden_layers"]
    config[key][3] = value
    with pytest.raises(SpecError) as refusal:
        ModelSpec.from_config(config)
    assert message in str(refusal.value)


def test_a_wrong_value_in_a_mapping_is_named_by_its_way(tmp_path: Path) -> None:
    config = json.loads(text("DBRX"))
    config["ffn_config"]["moe_num_experts"] = "16"
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config, indent=1))
    with pytest.raises(SpecError, match=r"ffn_config\.moe_num_experts: found '16'") as refusal:
        ModelSpec.load(file)
    line = refusal.value.faults[0].line or 0
    assert '"moe_num_experts"' in file.read_text().splitlines()[line - 1]


def test_what_one_layer_says_of_itself_is_read_and_its_faults_are_named() -> None:
    """`per_layer_config` of transformers 5: what differs in a layer, under its number."""
    llama = json.loads(text("Llama-3.1-8B"))
    narrow = llama | {"per_layer_config": {"03": {"num_key_value_heads": 4}}}
    full, less = (ModelSpec.from_config(config).kv_bytes_per_token() for config in (llama, narrow))
    assert full - less == 2 * 4 * 128 * 2
    wrong = llama | {"per_layer_config": {"03": {"num_key_value_heads": "4"}}}
    with pytest.raises(SpecError, match=r"per_layer_config\.03\.num_key_value_heads: found '4'"):
        ModelSpec.from_config(wrong)


def test_lists_may_have_entries_for_layers_that_predict_further_tokens() -> None:
    config = json.loads(text("EXAONE-4-32B"))
    config |= {"layer_types": [*config["layer_types"], "full_attention"], "num_nextn_predict_layers": 1}
    assert ModelSpec.from_config(config).layers == ModelSpec.load("EXAONE-4-32B").layers
    with pytest.raises(SpecError, match="layer_types: lists"):
        ModelSpec.from_config(config | {"num_nextn_predict_layers": 0})
