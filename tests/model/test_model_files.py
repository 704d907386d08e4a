"""Where the config of a model name is looked for, and in which order."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
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


def fake_hub(config: Path, failure: Exception | None = None) -> types.ModuleType:
    """A huggingface_hub that gives one file, or raises as soon as it is asked."""
    hub = types.ModuleType("huggingface_hub")
    hub.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]

    def ask(*_: Any, **__: Any) -> None:
        if failure is not None:
            raise failure

    hub.hf_hub_url = lambda *_: "https://huggingface.co/acme"  # type: ignore[attr-defined]
    hub.get_hf_file_metadata = ask  # type: ignore[attr-defined]
    hub.hf_hub_download = lambda *_, **__: str(config)  # type: ignore[attr-defined]
    return hub


def test_the_hub_is_asked_last_and_only_after_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    (tmp_path / "config.json").write_text(json.dumps(config()))
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake_hub(tmp_path / "config.json"))
    assert ModelSpec.load("acme/far-away").name == "acme/far-away"
    assert "asking huggingface.co" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SpecError, match="install huggingface_hub"):
        ModelSpec.load("acme/far-away")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("GatedRepoError", "huggingface.co gives it only to accounts that accepted its licence"),
        ("RepositoryNotFoundError", "huggingface.co has no public model of that name"),
        ("EntryNotFoundError", "huggingface.co has no config.json of it"),
        ("ConnectError", "huggingface.co cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    kind: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    failure = type(kind, (OSError,), {})("[Errno 111] Connection refused\nX-Request: 1")
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake_hub(tmp_path, failure))
    with pytest.raises(SpecError) as refusal:
        ModelSpec.load("acme/far-away")
    assert f"Hugging Face cache, and {sentence}. Name a bundled model" in str(refusal.value)
    assert "HF_HUB_OFFLINE=1" in str(refusal.value)
    assert "Errno" not in str(refusal.value)


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is an extra")
def test_a_hub_out_of_reach_is_known_within_seconds(tmp_path: Path) -> None:
    """In a process of its own: the library reads its endpoint when it is imported."""
    script = "from perfmodel.model import ModelSpec; ModelSpec.load('acme/far-away')"
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_OFFLINE", None)
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=20
    )
    *_, refusal = run.stderr.strip().splitlines()
    assert "http://127.0.0.1:9 cannot be reached" in refusal
    assert "Retrying" not in run.stderr
