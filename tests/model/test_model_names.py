"""Which model a name means: any spelling of it, never another size, version or form."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.model import ModelSpec
from perfmodel.model.files import available_models, find_config
from perfmodel.model.forms import FORMS, form_of
from perfmodel.model.names import _aliases

NAMES = [(alias, model) for model, aliases in _aliases().items() for alias in (model, *aliases)]
DENSE = ("Llama-3.1-8B", "Qwen3-8B", "Qwen2.5-7B", "Mistral-7B-v0.3", "gpt-oss-20b", "DeepSeek-V3")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@st.composite
def respelled(draw: st.DrawFn, name: str) -> str:
    """The same name with other capitals and other signs between its words; numbers are not joined."""
    organisation, slash, base = name.rpartition("/")
    words = re.split(r"[-_ ]", base)
    text = words[0]
    for before, after in pairwise(words):
        numbers = before[-1].isdigit() and after[0].isdigit()
        text += draw(st.sampled_from(["-", "_", " ", "--", ":"] + ([] if numbers else [""]))) + after
    flips = draw(st.lists(st.booleans(), min_size=len(text), max_size=len(text)))
    text = "".join(letter.swapcase() if flip else letter for letter, flip in zip(text, flips, strict=True))
    return text if draw(st.booleans()) else f"{organisation.upper()}{slash}{text}"


@given(st.sampled_from(NAMES), st.data())
def test_case_and_signs_between_words_do_not_count(named: tuple[str, str], data: st.DataObject) -> None:
    name, model = named
    assert find_config(data.draw(respelled(name)))[0] == model


@given(st.sampled_from(NAMES), st.sampled_from(["-Instruct", "-it", "-chat", "-hf", "-Base", " instruct"]))
def test_words_of_tuning_do_not_count(named: tuple[str, str], suffix: str) -> None:
    name, model = named
    assume("/" not in name)
    assert find_config(name + suffix)[0] in (model, f"{model}-2507")


@given(st.sampled_from(NAMES), st.data())
def test_another_number_is_another_model_or_none(named: tuple[str, str], data: st.DataObject) -> None:
    """Every run of digits counts: with one of them changed a name finds nothing, or a model that has it."""
    base = named[0].rpartition("/")[2]
    runs = list(re.finditer(r"\d+", base))
    assume(runs)
    run = data.draw(st.sampled_from(runs))
    number = str(data.draw(st.integers(0, 999)))
    assume(int(number) != int(run[0]))
    changed = base[: run.start()] + number + base[run.end() :]
    try:
        meant, _ = find_config(changed)
    except SpecError:
        return
    spellings = (meant, *_aliases().get(meant, ()))
    assert any(number in re.findall(r"\d+", spelling) for spelling in spellings)


@pytest.mark.parametrize(
    ("spelling", "model"),
    [
        ("llama 3.1 8b", "Llama-3.1-8B"),
        ("llama31-8b", "Llama-3.1-8B"),
        ("llama3.1:8b", "Llama-3.1-8B"),
        ("llama-3-1-8b", "Llama-3.1-8B"),
        ("Meta Llama 3.1 8B Instruct", "Llama-3.1-8B"),
        ("llama-3.3-70b", "Llama-3.1-70B"),
        ("qwen3:0.6b", "Qwen3-0.6B"),
        ("qwen3-0-6b", "Qwen3-0.6B"),
        ("qwen3 30b", "Qwen3-30B-A3B"),
        ("qwen3 30b a3b thinking", "Qwen3-30B-A3B-2507"),
        ("qwen3 next", "Qwen3-Next-80B-A3B"),
        ("deepseek r1", "DeepSeek-V3"),
        ("DeepSeek_V3.1", "DeepSeek-V3"),
        ("deepseek v32", "DeepSeek-V3.2"),
        ("gpt oss 120b", "gpt-oss-120b"),
        ("kimi k2", "Kimi-K2"),
        ("kimi k2 thinking", "Kimi-K2.5"),
        ("google gemma 3 27b it", "Gemma-3-27b"),
        ("llama4 scout", "Llama-4-Scout"),
        ("mistral small 3.2 24b", "Mistral-Small-3.2-24B"),
        ("Ministral-3-8B-Base", "Ministral-3-8B-BF16"),
        ("nemotron 3 super", "Nemotron-3-Super-120B-A12B"),
    ],
)
def test_spellings_that_people_use(spelling: str, model: str) -> None:
    name, document = find_config(spelling)
    assert (name, document.remarks) == (model, [])


@pytest.mark.parametrize(
    "name", ["llama-2.7b", "llama 3 18b", "tinyllama-11b", "qwen3-32b-2507", "qwen-34b", "gemma 3 7b"]
)
def test_numbers_that_run_together_otherwise_find_nothing(name: str) -> None:
    with pytest.raises(SpecError, match="neither a bundled model"):
        find_config(name)


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("llama 70b", "Llama-2-70B, Llama-3-70B, Llama-3.1-70B"),
        ("gpt-oss", "gpt-oss-20b, gpt-oss-120b"),
        ("mixtral", "Mixtral-8x7B-v0.1, Mixtral-8x22B-v0.1"),
        ("qwen3", "and [0-9]+ more"),
    ],
)
def test_a_name_of_several_models_is_refused_with_them(name: str, candidates: str) -> None:
    with pytest.raises(SpecError, match=rf"may mean several bundled models: .*{candidates}\. Name one"):
        find_config(name)


def test_a_part_of_one_name_is_refused_with_that_name() -> None:
    with pytest.raises(SpecError, match=re.escape("Did you mean 'Mistral-Small-3.2-24B'?")):
        find_config("mistral small 3.2")


@pytest.mark.parametrize(
    ("name", "model", "form"),
    [
        ("Qwen/Qwen3-8B-FP8", "Qwen3-8B", "FP8"),
        ("Qwen/Qwen3-Next-80B-A3B-Thinking-FP8", "Qwen3-Next-80B-A3B", "FP8"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic", "Llama-3.1-8B", "FP8"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8", "Llama-3.1-8B", "INT8"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "Llama-3.1-8B", "INT4"),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "Llama-3.1-8B", "AWQ"),
        ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int8", "Qwen2.5-72B", "GPTQ-INT8"),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", "Llama-3.1-8B", "NF4"),
        ("nvidia/DeepSeek-R1-NVFP4", "DeepSeek-V3", "NVFP4"),
        ("gpt oss 20b bf16", "gpt-oss-20b", "BF16"),
    ],
)
def test_a_release_in_another_form_is_the_same_model_stored_otherwise(
    name: str, model: str, form: str
) -> None:
    found, document = find_config(name)
    assert found == f"{model}-{form}"
    assert find_config(found)[0] == found
    assert form_of(document.data) in (form, form.partition("-")[0])
    assert model in document.remarks[0]
    assert form in document.remarks[0]
    sizes = find_config(model)[1].data
    for config in (sizes, document.data):
        config.pop("quantization_config", None)
    assert document.data == sizes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", DENSE)
def test_a_form_in_the_name_is_never_priced_as_the_bundled_bytes(model: str, form: str) -> None:
    bundled, release = ModelSpec.load(model), ModelSpec.load(f"{model}-{form}")
    assert release.parameters == bundled.parameters
    if release.name == bundled.name:
        assert release == bundled
    else:
        assert (release.weight_dtype, release.base_dtype) != (bundled.weight_dtype, bundled.base_dtype)
        assert any(form in sentence for sentence in release.assumed)


@pytest.mark.parametrize("name", ["bartowski/Llama-3.1-8B-Instruct-GGUF", "llama 3.1 8b mlx 4bit"])
def test_a_form_whose_bytes_no_name_states_is_refused_with_what_works(name: str) -> None:
    with pytest.raises(SpecError, match=r"does not state its bytes.*Llama-3\.1-8B with --weight-dtype"):
        find_config(name)


def test_another_organisation_is_told() -> None:
    model = ModelSpec.load("unsloth/Llama-3.1-8B-Instruct")
    assert model.name == "Llama-3.1-8B"
    assert any("unsloth/Llama-3.1-8B-Instruct" in sentence for sentence in model.assumed)


def test_every_bundled_name_is_listed() -> None:
    assert set(available_models()) == set(_aliases())
    sizes = [name for name in available_models() if name.startswith("Qwen2.5")]
    assert sizes == [f"Qwen2.5-{size}B" for size in ("0.5", "1.5", "3", "7", "14", "32", "72")]
