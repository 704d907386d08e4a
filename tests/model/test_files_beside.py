"""The quantisation file beside a config, Mistral's params.json, and configs of many megabytes."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import SpecError
from perfmodel.model import ModelSpec
from perfmodel.model.files import find_config

MODELS = Path(__file__).parents[2] / "perfmodel" / "data" / "models"
LLAMA: dict[str, Any] = json.loads((MODELS / "Llama-3.1-8B.json").read_text(encoding="utf-8"))
FP8 = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}


def write(folder: Path, quantisation: dict[str, Any] | None = FP8, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA | changes, indent=1))
    if quantisation is not None:
        beside = {"producer": {"name": "modelopt"}, "quantization": quantisation}
        (folder / "hf_quant_config.json").write_text(json.dumps(beside, indent=1))
    return folder


def test_the_quantisation_file_beside_is_read_and_said_to_be(tmp_path: Path) -> None:
    folder = write(tmp_path / "fp8")
    for place in (folder, folder / "config.json"):
        model = ModelSpec.load(place)
        assert (model.weight_dtype, model.kv_dtype) == ("fp8", "fp8")
        assert "quantisation is read from hf_quant_config.json beside the config" in model.assumed
        assert model.weight_bytes == pytest.approx(9_081_200_640)
    assert ModelSpec.load(folder, weight_dtype="bf16").weight_dtype == "bf16"


def test_the_config_itself_comes_before_the_file_beside(tmp_path: Path) -> None:
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}
    model = ModelSpec.load(write(tmp_path / "both", quantization_config=gptq))
    assert (model.weight_dtype, model.kv_dtype) == ("int4", "fp8")
    assert not any("beside" in sentence for sentence in model.assumed)
    model = ModelSpec.load(write(tmp_path / "name", quantization_config={"quant_method": "modelopt"}))
    assert model.weight_dtype == "fp8"


def test_faults_of_the_file_beside_name_it_and_its_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "odd", {"exclude_modules": ["lm_head", "re:(a+)+"], "quant_algo": "FP9"})
    with pytest.raises(SpecError) as caught:
        ModelSpec.load(folder)
    listed, algorithm = caught.value.faults
    assert (listed.line, listed.field) == (8, "quantization.exclude_modules.1")
    assert (algorithm.line, algorithm.field) == (10, "quantization.quant_algo")
    assert {Path(fault.file).name for fault in caught.value.faults} == {"hf_quant_config.json"}
    (folder / "hf_quant_config.json").write_text("{")
    with pytest.raises(SpecError, match=r"hf_quant_config\.json:1: not valid JSON"):
        ModelSpec.load(folder)


def test_another_file_of_the_folder_is_not_quantised_by_it(tmp_path: Path) -> None:
    (write(tmp_path / "many") / "other.json").write_text(json.dumps(LLAMA))
    assert ModelSpec.load(tmp_path / "many" / "other.json").weight_dtype == "bf16"


def test_a_folder_with_params_json_alone_is_found(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "params.json").write_text('{"dim": 64}')
    name, document = find_config(str(tmp_path / "own"))
    assert (name, document.data) == ("own", {"dim": 64})
    write(tmp_path / "own", None)
    assert find_config(str(tmp_path / "own"))[1].data["model_type"] == "llama"
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match=r"no config\.json and no params\.json"):
        find_config(str(tmp_path / "empty"))


def test_files_that_name_every_expert_are_read_and_larger_ones_refused(tmp_path: Path) -> None:
    experts = [f"{layer}.mlp.experts.{expert}.up_proj" for layer in range(40) for expert in range(600)]
    names = [f"model.layers.{expert}" for expert in experts]
    folder = write(tmp_path / "large", {**FP8, "exclude_modules": names})
    assert (folder / "hf_quant_config.json").stat().st_size > 1_000_000
    assert ModelSpec.load(folder).weight_dtype == "fp8"
    with (folder / "config.json").open("a") as stream:
        stream.write(" " * (16 * 2**20))
    with pytest.raises(SpecError, match="larger than 16,777,216 bytes"):
        ModelSpec.load(folder)


def test_the_cache_and_the_hub_give_the_file_beside_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    write(tmp_path / "hub" / "models--acme--own" / "snapshots" / "aaa")
    assert ModelSpec.load("acme/own").weight_dtype == "fp8"

    asked = []

    def download(_: str, file: str, **__: Any) -> str:
        asked.append(file)
        place = tmp_path / ("config" if file == "config.json" else "quantisation") / file
        if not place.is_file():
            raise OSError("404")
        return str(place)

    hub = types.ModuleType("huggingface_hub")
    hub.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    hub.hf_hub_download = download  # type: ignore[attr-defined]
    hub.hf_hub_url = lambda name, file: f"{name}/{file}"  # type: ignore[attr-defined]
    hub.get_hf_file_metadata = lambda url, timeout: url  # type: ignore[attr-defined]  # noqa: ARG005
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    write(tmp_path / "config", None)
    assert ModelSpec.load("acme/far").weight_dtype == "bf16"
    write(tmp_path / "quantisation")
    assert ModelSpec.load("acme/far").weight_dtype == "fp8"
    write(tmp_path / "config", None, quantization_config={"quant_method": "fp8"})
    assert ModelSpec.load("acme/far").weight_dtype == "fp8"
    assert asked == ["config.json", "hf_quant_config.json"] * 2 + ["config.json"]
