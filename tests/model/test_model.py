"""Laws of model sizes, and the sizes of known models."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.model import BYTES, ModelSpec
from strategies.eagle import EAGLE_3

# Columns: name; elements of all weights; elements that one token touches, the embedding included; elements
# that a decode step of one sequence reads; cache bytes per token of all layers, of the layers without a
# window, and of all full windows together, in bf16. Sizes from the configs named in each bundled file's
# _source; totals agree with the model cards that state them (671B, 116.83B, 20.91B, 405.85B, 235.09B).
KNOWN = """
Llama-2-7B           6738415616   6738415616   6607343616  524288  524288         0
Llama-2-7B-32K       6738415616   6738415616   6607343616  524288  524288         0
Llama-2-13B         13015864320  13015864320  12852024320  819200  819200         0
Llama-2-70B         68976648192  68976648192  68714504192  327680  327680         0
Llama-3.1-8B         8030261248   8030261248   7504924672  131072  131072         0
Llama-3.1-70B       70553706496  70553706496  69503033344  327680  327680         0
Llama-3.1-405B     405853388800 405853388800 403752042496  516096  516096         0
Llama-3.2-1B         1235814400   1235814400   1235814400   32768   32768         0
Llama-3.2-3B         3212749824   3212749824   3212749824  114688  114688         0
TinyLlama-1.1B       1100048384   1100048384   1034512384   22528   22528         0
llama-68m              68030208     68030208     43454208    6144    6144         0
Mistral-7B-v0.1      7241732096   7241732096   7110660096  131072       0 536870912
Mistral-7B-v0.3      7248023552   7248023552   7113805824  131072  131072         0
Qwen2.5-0.5B          494032768    494032768    494032768   12288   12288         0
Qwen2.5-1.5B         1543714304   1543714304   1543714304   28672   28672         0
Qwen2.5-3B           3085938688   3085938688   3085938688   36864   36864         0
Qwen2.5-7B           7615616512   7615616512   7070619136   57344   57344         0
Qwen2.5-14B         14770033664  14770033664  13991465984  196608  196608         0
Qwen2.5-32B         32763876352  32763876352  31985308672  262144  262144         0
Qwen2.5-72B         72706203648  72706203648  71460495360  327680  327680         0
Qwen3-0.6B            596049920    596049920    596049920  114688  114688         0
Qwen3-1.7B           1720574976   1720574976   1720574976  114688  114688         0
Qwen3-4B             4022468096   4022468096   4022468096  147456  147456         0
Qwen3-8B             8190735360   8190735360   7568405504  147456  147456         0
Qwen3-14B           14768307200  14768307200  13990394880  163840  163840         0
Qwen3-32B           32762123264  32762123264  31984210944  262144  262144         0
Qwen3-30B-A3B       30532122624   3353032704   3041867776   98304   98304         0
Qwen3-235B-A22B    235093634560  22190763520  21568433664  192512  192512         0
Yi-1.5-6B            6061035520   6061035520   5798891520   65536   65536         0
Yi-1.5-34B-32K      34388917248  34388917248  33930165248  245760  245760         0
Mixtral-8x7B-v0.1   46702792704  12879925248  12748853248  131072  131072         0
DeepSeek-V2-Lite    15706484224   2661150208   2451435008   31104   31104         0
DeepSeek-V2        235741434880  21375800320  20851512320   69120   69120         0
DeepSeek-V3        671026404352  37552282624  36625603584   70272   70272         0
gpt-oss-20b         20914757184   4187440704   3608307264   49152   24576   3145728
gpt-oss-120b       116829156672   5711982912   5132849472   73728   36864   4718592
Gemma-2-2b           2614341888   2614341888   2614341888  106496   53248 218103808
Gemma-2-9b           9241705984   9241705984   9241705984  344064  172032 704643072
Gemma-2-27b         27227128320  27227128320  27227128320  376832  188416 771751936
Gemma-3-1b            999885952    999885952    999885952   26624    4096  11534336
Gemma-3-4b           3880099328   3880099328   3880099328  139264   20480 121634816
Gemma-3-12b         11765788416  11765788416  11765788416  393216   65536 335544320
Gemma-3-27b         27009002240  27009002240  27009002240  507904   81920 436207616
Phi-3-mini-4k        3821079552   3821079552   3722578944  393216       0 804913152
Phi-3-mini-128k      3821079552   3821079552   3722578944  393216  393216         0
Phi-4               14659507200  14659507200  14145704960  204800  204800         0
Phi-4-mini           3836021760   3836021760   3836021760  131072  131072         0
"""
ROWS = [line.split() for line in KNOWN.strip().splitlines()]
NAMES = [row[0] for row in ROWS]

MODELS = Path(__file__).parents[2] / "perfmodel" / "data" / "models"
LLAMA: dict[str, Any] = json.loads((MODELS / "Llama-3.1-8B.json").read_text(encoding="utf-8"))


def config(**changes: Any) -> dict[str, Any]:
    """Config of Llama-3.1-8B with some keys changed, or left out where the change is `...`."""
    return {key: value for key, value in (LLAMA | changes).items() if value is not ...}


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Configs of dense, windowed, expert and latent-attention decoders."""
    kv_heads = draw(st.integers(1, 8))
    layers = draw(st.integers(1, 40))
    drawn = config(
        num_key_value_heads=kv_heads,
        num_attention_heads=kv_heads * draw(st.integers(1, 8)),
        head_dim=draw(st.sampled_from([32, 64, 128, 256])),
        hidden_size=draw(st.integers(64, 8192)),
        intermediate_size=draw(st.integers(64, 30000)),
        num_hidden_layers=layers,
        vocab_size=draw(st.integers(1000, 300000)),
        tie_word_embeddings=draw(st.booleans()),
    )
    latent = draw(st.booleans())
    if not latent and draw(st.booleans()):
        drawn |= {"sliding_window": draw(st.integers(1, 5000))}
        kinds = st.sampled_from(["full_attention", "sliding_attention"])
        drawn["layer_types"] = draw(st.lists(kinds, min_size=layers, max_size=layers))
    if draw(st.booleans()):
        experts = draw(st.integers(2, 128))
        drawn |= {"num_experts": experts, "num_experts_per_tok": draw(st.integers(1, experts))}
        drawn |= {"moe_intermediate_size": draw(st.integers(16, 4096))}
        drawn |= {
            "first_k_dense_replace": draw(st.integers(0, layers)),
            "n_shared_experts": draw(st.integers(0, 2)),
        }
    if latent:
        drawn |= {"kv_lora_rank": draw(st.integers(16, 1024)), "q_lora_rank": draw(st.integers(0, 1024))}
        drawn |= {"qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
    return drawn


fast = settings(max_examples=40, deadline=None)


@fast
@given(configs(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_longer_context_never_needs_fewer_cache_bytes(sizes: dict[str, Any], short: int, more: int) -> None:
    model = ModelSpec.from_config(sizes)
    assert model.kv_bytes(float(short + more)) >= model.kv_bytes(float(short))


@fast
@given(configs(), st.integers(0, 10000))
def test_one_more_token_adds_what_kv_bytes_per_token_says(sizes: dict[str, Any], context: int) -> None:
    model = ModelSpec.from_config(sizes)
    step = model.kv_bytes(context + 1.0) - model.kv_bytes(float(context))
    assert step == pytest.approx(model.kv_bytes_per_token(float(context)))


@fast
@given(configs(), st.sampled_from(["num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size"]))
def test_a_larger_model_never_needs_fewer_bytes(sizes: dict[str, Any], key: str) -> None:
    model = ModelSpec.from_config(sizes)
    if key == "num_hidden_layers" and "layer_types" in sizes:
        sizes = sizes | {"layer_types": [*sizes["layer_types"], "full_attention"]}
    larger = ModelSpec.from_config(sizes | {key: sizes[key] + 1})
    assert larger.weight_bytes >= model.weight_bytes
    assert larger.kv_bytes(1e5) >= model.kv_bytes(1e5)


@fast
@given(configs(), st.integers(2, 4))
def test_more_heads_never_need_fewer_bytes(sizes: dict[str, Any], times: int) -> None:
    more = {key: sizes[key] * times for key in ("num_attention_heads", "num_key_value_heads")}
    model, larger = ModelSpec.from_config(sizes), ModelSpec.from_config(sizes | more)
    assert larger.weight_bytes > model.weight_bytes
    assert larger.kv_bytes_per_token() >= model.kv_bytes_per_token()


@fast
@given(configs(), st.integers(1, 5000))
def test_active_parameters_grow_with_the_tokens_up_to_all(sizes: dict[str, Any], tokens: int) -> None:
    model = ModelSpec.from_config(sizes)
    active = np.asarray(model.active_parameters(np.array([0.0, tokens, tokens + 1.0, np.inf])))
    assert np.all(np.diff(active) >= -1e-6 * model.parameters)
    assert active[-1] == model.parameters


@fast
@given(configs())
def test_every_layer_is_an_attention_layer_and_an_mlp(sizes: dict[str, Any]) -> None:
    model = ModelSpec.from_config(sizes)
    for part in (model, model.keep_layers(0.4), model.head(2), model.head(shape=EAGLE_3)):
        assert sum(count for _, count in part.token_mixers) == part.num_layers == part.depth
        row_split = [
            layer for layer in part.linears if layer.split == "row" and not layer.name.startswith("shared")
        ]
        assert sum(layer.count for layer in row_split) == 2 * part.num_layers


@fast
@given(configs(), st.sampled_from(sorted(BYTES)), st.sampled_from(sorted(BYTES)))
def test_dtypes_may_be_given_on_loading_or_afterwards(sizes: dict[str, Any], weights: str, kv: str) -> None:
    loaded = ModelSpec.from_config(sizes, weight_dtype=weights, kv_dtype=kv)
    assert loaded == ModelSpec.from_config(sizes).with_dtypes(weights=weights, kv=kv)


@fast
@given(configs(), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_keeping_more_layers_never_costs_less(sizes: dict[str, Any], share: float, other: float) -> None:
    model = ModelSpec.from_config(sizes)
    fewer, more = (model.keep_layers(fraction) for fraction in sorted((share, other)))
    assert fewer.num_layers <= more.num_layers <= model.num_layers
    outputs = [{layer.name: layer.parameters for layer in part.linears}["o"] for part in (fewer, more)]
    assert outputs[0] <= outputs[1]


@pytest.mark.parametrize("name", NAMES)
def test_array_calls_equal_scalar_calls(name: str) -> None:
    model = ModelSpec.load(name)
    contexts, tokens = np.array([[1.0], [4096.0], [1e6]]), np.array([1.0, 7.0, 512.0])
    for method, values in (
        (model.kv_bytes, contexts),
        (model.kv_bytes_per_token, contexts),
        (model.active_parameters, tokens),
        (model.weight_bytes_read, tokens),
    ):
        result = np.asarray(method(values))
        assert result.shape == values.shape
        scalars = [float(method(float(value))) for value in values.ravel()]
        np.testing.assert_allclose(result.ravel(), scalars)


@pytest.mark.parametrize("name", ModelSpec.available())
def test_bundled_models_load_twice_alike_and_assume_nothing(name: str) -> None:
    model = ModelSpec.load(name)
    assert model == ModelSpec.load(name) == ModelSpec.load(name.upper())
    assert (model.name, model.assumed) == (name, ())
    assert len(model.source) > len("config.json")


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_sizes_equal_the_known_ones(row: list[str]) -> None:
    name, parameters, active, read, kv_all, kv_growing, kv_windows = row[0], *map(int, row[1:])
    model = ModelSpec.load(name).with_dtypes(weights="bf16", kv="bf16")
    assert model.parameters == parameters
    assert model.weight_bytes == 2 * parameters
    assert model.active_parameters(1.0) == pytest.approx(active, rel=1e-12)
    assert model.weight_bytes_read(1.0) == pytest.approx(2 * read, rel=1e-12)
    assert model.kv_bytes_per_token() == kv_all
    assert model.kv_bytes_per_token(np.inf) == kv_growing
    assert model.kv_bytes(1e6) - 1e6 * kv_growing == kv_windows


def test_checkpoints_of_gpt_oss_weigh_what_the_model_card_says() -> None:
    """12.8 GiB and 60.8 GiB: gpt-oss model card (arXiv 2508.10925), table 1."""
    assert round(ModelSpec.load("gpt-oss-20b").weight_bytes / 2**30, 1) == 12.8
    assert round(ModelSpec.load("gpt-oss-120b").weight_bytes / 2**30, 1) == 60.8


def test_draft_heads_have_the_published_sizes() -> None:
    """EAGLE: 0.24, 0.37 and 0.99 billion (SafeAILab/EAGLE README). DeepSeek-V3's module: 14 billion with the
    embedding and head that it shares (deepseek-ai/DeepSeek-V3 README), here 13.5."""
    sizes = [ModelSpec.load(f"Llama-2-{size}").head().parameters for size in ("7B", "13B", "70B")]
    assert [round(size / 1e9, 2) for size in sizes] == [0.24, 0.37, 0.99]
    deepseek = ModelSpec.load("DeepSeek-V3")
    assert deepseek.head().parameters + 2 * deepseek.embedding_parameters == pytest.approx(14e9, rel=0.05)


@pytest.mark.parametrize(
    ("target", "gigabytes"),
    [("Llama-3.1-8B", 0.85), ("Qwen3-8B", 0.80), ("Llama-3.1-70B", 2.81), ("gpt-oss-20b", 0.62)],
)
def test_an_eagle_3_head_reads_its_own_small_vocabulary_and_a_dense_layer(
    target: str, gigabytes: float
) -> None:
    """Weights of a pass over one token, all in bf16, also beside gpt-oss's four-bit experts: 3 h x h fused,
    2 h read by attention, an MLP (17280 wide in SpecForge's head of gpt-oss-20b), 32000 tokens."""
    head = ModelSpec.load(target).head(shape=EAGLE_3)
    assert round(float(head.weight_bytes_read()) / 1e9, 2) == gigabytes
    assert head.weight_bytes == head.weight_bytes_read() + head.table_bytes
    quantized = ModelSpec.load(target).with_dtypes(weights="fp8")
    assert quantized.head(shape=EAGLE_3).weight_bytes == head.weight_bytes


def test_eagle_3_heads_have_the_published_sizes() -> None:
    """SpecForge's heads have 424,689,664 parameters for Llama-3.1-8B and 1.448 billion for DeepSeek-V3, there
    with ordinary attention and an MLP of 5.7 in place of 6 hidden sizes."""
    assert ModelSpec.load("Llama-3.1-8B").head(shape=EAGLE_3).parameters == 424_689_664
    assert ModelSpec.load("DeepSeek-V3").head(shape=EAGLE_3).parameters == pytest.approx(1.448e9, rel=0.05)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, math.nan])
def test_shares_of_layers_outside_zero_to_one_are_refused(fraction: float) -> None:
    with pytest.raises(SpecError):
        ModelSpec.load("Llama-3.2-1B").keep_layers(fraction)


def test_a_head_without_layers_is_refused() -> None:
    with pytest.raises(SpecError):
        ModelSpec.load("Llama-3.2-1B").head(0)


def test_importing_the_module_stays_light() -> None:
    heavy = "{'pandas', 'scipy', 'matplotlib', 'torch', 'typer', 'plotly', 'pydantic', 'huggingface_hub'}"
    code = f"import sys, perfmodel.model; print(sorted({heavy} & set(sys.modules)))"
    root = str(Path(__file__).parents[2])
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert ran.stdout.strip() == "[]"
