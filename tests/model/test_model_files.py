"""Where the config of a model name is looked for, and in which order."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import SpecError
from perfmodel.model import ModelSpec

MODELS = Path(__file__).parents[2] / "perfmodel" / "data" / "models"
LLAMA: dict[str, Any] = json.loads((MODELS / "Llama-3.1-8B.json").read_text(encoding="utf-8"))


def config(**changes: Any) -> dict[str, Any]:
    """Config of Llama-3.1-8B with some keys changed, or left out where the change is `...`."""
    return {key: value for key, value in (LLAMA | changes).items() if value is not ...}


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("llama-3.1-8b", "Llama-3.1-8B"),
        ("meta-llama/Llama-3.1-8B", "Llama-3.1-8B"),
        ("Meta-Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("LLaMA-2-7B-32K", "Llama-2-7B-32K"),
        ("togethercomputer/LLaMA-2-7B-32K", "Llama-2-7B-32K"),
        ("tinyllama_1.1b", "TinyLlama-1.1B"),
        ("Llama-3.2-1B", "Llama-3.2-1B"),
        ("Mistral-7B-v0.3", "Mistral-7B-v0.3"),
        ("qwen/qwen2.5-32b-instruct", "Qwen2.5-32B"),
        ("Qwen3-8B", "Qwen3-8B"),
        ("deepseek-ai/DeepSeek-R1", "DeepSeek-V3"),
        ("JackFram/llama-68m", "llama-68m"),
    ],
)
def test_models_are_known_by_paper_and_hub_spellings(spelling: str, name: str) -> None:
    assert ModelSpec.load(spelling).name == name


def test_no_alias_means_two_models() -> None:
    taken: dict[str, str] = {}
    for file in MODELS.glob("*.json"):
        for alias in {
            file.stem.lower(),
            *(alias.lower() for alias in json.loads(file.read_text())["_aliases"]),
        }:
            assert taken.setdefault(alias, file.stem) == file.stem


def test_a_config_file_and_its_folder_are_the_same_model(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config()))
    model = ModelSpec.load(folder)
    assert model == ModelSpec.load(str(folder / "config.json"))
    assert model.name == "my-model"
    assert model.parameters == 8030261248


def test_an_unknown_name_is_refused_with_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SpecError, match=re.escape("Did you mean 'Llama-3.1-8B'")):
        ModelSpec.load("lama-3.1-8b")
    with pytest.raises(SpecError, match=r"HF_HUB_OFFLINE is set.*Did you mean 'Mistral-7B-v0\.3'"):
        ModelSpec.load("mistral-ai/Mistral-7B-v.3")
    for nothing in ("", "\0", "x" * 5000, "../..", "~no/such/folder", "./absent", "absent.json"):
        with pytest.raises(SpecError):
            ModelSpec.load(nothing)


def test_the_local_hub_cache_is_read_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    repository = tmp_path / "hub" / "models--acme--own-8b"
    for revision, vocabulary in (("aaa", 1000), ("bbb", 2000)):
        (repository / "snapshots" / revision).mkdir(parents=True)
        (repository / "snapshots" / revision / "config.json").write_text(
            json.dumps(config(vocab_size=vocabulary))
        )
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("aaa")
    model = ModelSpec.load("acme/own-8b")
    assert (model.name, model.vocab_size) == ("acme/own-8b", 1000)


def test_the_hub_is_asked_last_and_only_after_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "config.json").write_text(json.dumps(config()))
    hub = types.ModuleType("huggingface_hub")
    hub.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    hub.hf_hub_download = lambda *_, **__: str(tmp_path / "config.json")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert ModelSpec.load("acme/far-away").name == "acme/far-away"
    assert "asking huggingface.co" in capsys.readouterr().err

    def fails(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    hub.hf_hub_download = fails  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match="no network"):
        ModelSpec.load("acme/far-away")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SpecError, match="install huggingface_hub"):
        ModelSpec.load("acme/far-away")
