"""Reading a Hugging Face config.json, of whatever spelling, into the layers of a decoder."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from perfmodel.files.document import Document
from perfmodel.model.channels import ChannelMixer, channels
from perfmodel.model.dtypes import BYTES, UNQUANTIZED
from perfmodel.model.families import FAMILIES, PLAIN_ACTIVATIONS, UNREADABLE_KEYS, Family
from perfmodel.model.heads import DraftHead
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.layers import Layer
from perfmodel.model.layout import MAX_LAYERS, MAX_TOKENS, LayerKind, layer_kinds, mixer_of
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers import Sizes, TokenMixer
from perfmodel.model.stored import StoredWeights, read_stored_weights

__all__ = ["DRAFT_LAYERS", "MAX_VOCABULARY", "MAX_WIDTH", "Decoder", "read_config"]

MAX_WIDTH = 1_000_000
MAX_VOCABULARY = 100_000_000


@dataclass(frozen=True)
class Decoder:
    """What a config says about a decoder, checked.

    Parameters
    ----------
    layers : groups of equal layers, in the order in which they first occur.
    outputs : products outside of the layers, the language-model head last.
    embedding_parameters, other_parameters : elements of the input embedding, and of what is left. [1]
    draft_layers : layers that predict further tokens, which the file announces beside these. [1]
    table_bytes, drafts : of a draft head, as in `ModelSpec`.
    """

    hidden_size: int
    vocab_size: int
    max_position: int
    layers: tuple[Layer, ...]
    outputs: tuple[LinearLayer, ...]
    embedding_parameters: int
    other_parameters: int
    tied_embeddings: bool
    draft_layers: int
    weight_dtype: str
    kv_dtype: str
    base_dtype: str
    assumed: tuple[str, ...]
    table_bytes: float = 0.0
    drafts: DraftHead | None = None


def read_config(
    document: Document, *, weight_dtype: str | None = None, kv_dtype: str | None = None
) -> Decoder:
    """Return the decoder that a config describes.

    Raises
    ------
    SpecError
        Naming every key that is missing, of the wrong type, absurd, at odds with another, or the sign of
        something that is not modelled, with its line.
    """
    keys = ConfigKeys(document)
    _refuse_unreadable(keys)
    family = _family(keys)
    hidden = keys.size("hidden_size", "n_embd", "d_model", "model_dim", "dim", high=MAX_WIDTH)
    count = _count_layers(keys)
    vocabulary = keys.size("vocab_size", "padded_vocab_size", high=MAX_VOCABULARY)
    max_position = _max_position(keys)
    heads, kv_heads, head_dim = _heads(keys, hidden)
    kinds = layer_kinds(keys, family, count, max_position)
    stored = read_stored_weights(keys, weight_dtype=weight_dtype, kv_dtype=kv_dtype)
    sizes = Sizes(hidden, heads, kv_heads, head_dim, family, stored.base)
    if keys.faults:
        keys.raise_faults()
    layers = _read_layers(keys, sizes, kinds, stored)
    tied = keys.flag("tie_word_embeddings", "tied_embeddings", default=family.tied_embeddings)
    outputs, embedding = _outputs(keys, sizes, vocabulary, count)
    draft_layers = keys.optional_size(*DRAFT_LAYERS, high=MAX_LAYERS, low=0, default=family.draft_layers)
    keys.raise_faults()
    _remark_unread(keys)
    _remark_gate(keys, family, layers)
    positions = max_position * hidden if family.learned_positions else 0
    return Decoder(
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_position=max_position,
        layers=layers,
        outputs=tuple(_store(product, stored, family) for product in outputs),
        embedding_parameters=embedding,
        other_parameters=hidden * (2 if family.norm_bias else 1) + positions,
        tied_embeddings=tied,
        draft_layers=draft_layers,
        weight_dtype=stored.weights,
        kv_dtype=stored.kv,
        base_dtype=stored.base,
        assumed=tuple(dict.fromkeys(keys.assumed)),
    )


DRAFT_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "num_mtp_modules")


def _count_layers(keys: ConfigKeys) -> int:
    """Return the number of layers; some configs only list them."""
    names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if keys.find(*names) is None and names[0] not in keys.defaults:
        for name in ("layers_block_type", "hybrid_override_pattern", "layer_types", "block_configs"):
            entry = keys.find(name)
            if entry is not None and isinstance(entry[1], str | list) and entry[1]:
                return len(entry[1])
    return keys.size(*names, high=MAX_LAYERS)


def _max_position(keys: ConfigKeys) -> int:
    """Return the longest context: as stated, or what scaled positions reach. [tokens]"""
    longest = keys.size(
        "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length",
        "model_max_length", high=MAX_TOKENS,
    )  # fmt: skip
    for section in ("rope_scaling", "rope_parameters"):
        factor, original = (
            keys.find(f"{section}.{name}") for name in ("factor", "original_max_position_embeddings")
        )
        numbers = [entry[1] for entry in (factor, original) if entry is not None]
        if len(numbers) == 2 and all(_is_number(number) for number in numbers):
            longest = max(longest, min(round(numbers[0] * numbers[1]), MAX_TOKENS))  # type: ignore[operator]
    return longest


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0  # type: ignore[arg-type,operator]


def _heads(keys: ConfigKeys, hidden: int) -> tuple[int, int, int]:
    """Return query heads, key and value heads, and the width of one."""
    heads = keys.size("num_attention_heads", "n_head", "n_heads", "num_heads", high=MAX_WIDTH)
    if keys.find("kv_lora_rank") is not None:
        return heads, heads, 0
    kv_heads = _kv_heads(keys, heads)
    head_dim = _head_dim(keys, hidden, heads)
    if heads % kv_heads:
        keys.fault(
            "num_key_value_heads",
            f"found {kv_heads}",
            f"Give a divisor of the {heads} attention heads",
            given=("num_attention_heads",),
        )
    return heads, kv_heads, head_dim


def _read_layers(
    keys: ConfigKeys, sizes: Sizes, kinds: Iterable[LayerKind], stored: StoredWeights
) -> tuple[Layer, ...]:
    """Return the layers, equal ones in one group, each product stored as the checkpoint says."""
    read: dict[LayerKind, Layer] = {}
    groups: dict[Layer, int] = {}
    for index, kind in enumerate(kinds):
        if kind not in read:
            keys.layer = kind.index
            tokens = tuple(
                mixer.read(keys, sizes, kind) for word in kind.tokens if (mixer := mixer_of(keys, word))
            )
            passed = tuple(channels()[name].read(keys, sizes, kind) for name in kind.channels)
            read[kind] = Layer(1, tokens, passed, tuple(_products(sizes, tokens, passed)))
        products = (_store(product, stored, sizes.family, index) for product in read[kind].products)
        layer = replace(read[kind], products=tuple(products))
        groups[layer] = groups.get(layer, 0) + 1
    keys.layer = None
    return tuple(replace(layer, count=count) for layer, count in groups.items())


def _products(
    sizes: Sizes, tokens: Iterable[TokenMixer], passed: Iterable[ChannelMixer]
) -> list[LinearLayer]:
    """Return the products of a layer; the norms of each half go with its first one."""
    norms, norm = sizes.family.norms, sizes.hidden * (2 if sizes.family.norm_bias else 1)
    products: list[LinearLayer] = []
    for mixers, count in ((tokens, norms - norms // 2), (passed, norms // 2)):
        half = [product for mixer in mixers for product in mixer.products(sizes.hidden)]
        if half:
            half[0] = replace(half[0], vectors=half[0].vectors + count * norm)
        products += half
    return products


def _store(
    product: LinearLayer, stored: StoredWeights, family: Family, layer: int | None = None
) -> LinearLayer:
    """Return the product stored as the checkpoint stores it, which is asked by the names it has there."""
    if product.element_bytes:
        return product
    names = [
        next((new + name[len(old) :] for old, new in family.modules if name.startswith(old)), name)
        for name in product.modules
    ]
    form = stored.of(layer, names, keeps_precision=product.keeps_precision)
    left_out = form.dtype == stored.base and stored.weights not in UNQUANTIZED
    return replace(
        product,
        dtype=form.dtype,
        element_bytes=0.0 if form.element_bytes == BYTES[form.dtype] else form.element_bytes,
        keeps_precision=product.keeps_precision or left_out,
    )


def _outputs(
    keys: ConfigKeys, sizes: Sizes, vocabulary: int, layers: int
) -> tuple[list[LinearLayer], int]:
    """Return the products outside of the layers, and the elements of all input embeddings."""
    hidden = sizes.hidden
    embedding = vocabulary * hidden
    outputs = []
    if width := keys.optional_size("hidden_size_per_layer_input", high=MAX_WIDTH, low=0, default=0):
        rows = keys.optional_size("vocab_size_per_layer_input", high=MAX_VOCABULARY, default=vocabulary)
        embedding += rows * layers * width
        outputs.append(LinearLayer("per_layer_inputs", layers * width, hidden, 1, "none", block="output"))
    if (streams := keys.optional_size("altup_num_inputs", high=1000, low=0, default=0)) > 1:
        others = 2 * (streams - 1)
        outputs.append(LinearLayer("altup_streams", hidden, hidden, others, "none", block="output"))
    outputs.append(
        LinearLayer(
            "lm_head", vocabulary, hidden, 1, "column", block="output",
            vectors=vocabulary if keys.flag("lm_head_bias", default=sizes.family.head_bias) else 0,
            keeps_precision=True, modules=("lm_head", "output", "embed_out"),
        )
    )  # fmt: skip
    return outputs, embedding


def _refuse_unreadable(keys: ConfigKeys) -> None:
    """Note a fault for every sign of an architecture whose bytes are not modelled."""
    for key, (reason, remedy) in UNREADABLE_KEYS.items():
        value = keys.find(key)
        if value is not None and value[1]:
            keys.fault(value[0], f"{reason}, which is not modelled", remedy)


_STRUCTURE = re.compile(
    "layer|head|expert|attention|attn|shar|compress|moe|window|sparse|latent|rank|mamba|ssm|conv|recurr|linear|block"
)
_MEANINGLESS = re.compile(
    "dropout|norm|eps|init|bias|rope|scal|clip|cap|temp|loss|coef|aux|group|topk_method|score|dtype|jitter|"
    "implementation|_act$|class|id2label|type_ids|cache_implementation|float32|fused|flash|return|output_|"
    "deepstack|logits|multiplier|use_cache|token|router|capacity|interleave|no_rope|vision|audio|image|video|"
    "projector|beta|drop|architectures|alibi|prune|chunk_size|expand|max_window_layers|bidirectional|ep_size|"
    "ratio$|value_residual|num_nextn|mtp|speculator|position|quant"
)


def _remark_unread(keys: ConfigKeys) -> None:
    """Remark on keys that nobody read although their names speak of structure."""
    for name in keys.unread:
        speaks, idle = (sign.search(name.lower()) for sign in (_STRUCTURE, _MEANINGLESS))
        entry = keys.find(name) if speaks and not idle else None
        if entry is not None and entry[1] not in (False, 0, [], {}, ""):
            keys.assumed.append(f"{name} was not read; if it changes a layer, bytes and times are off")


def _remark_gate(keys: ConfigKeys, family: Family, layers: tuple[Layer, ...]) -> None:
    """Remark on what a guess about the MLP would change, where the model_type is not known."""
    if keys.word("model_type") in FAMILIES:
        return
    products = [(layer.count, product) for layer in layers for product in layer.products]
    total = sum(count * product.parameters for count, product in products)
    up = sum(
        count * product.parameters
        for count, product in products
        if product.name.removeprefix("expert_").removeprefix("shared_") in ("gate_up", "up")
    )
    share = (up / 2 if family.gated_mlp else up) / max(total, 1)
    kind, sign = ("a gated MLP", "less") if family.gated_mlp else ("an MLP without a gate", "more")
    keys.assumed.append(
        f"model_type {keys.word('model_type')!r} is not known; assumed {kind} by its activation; the other "
        f"kind would be {100 * share:.0f} % {sign}"
    )


def _family(keys: ConfigKeys) -> Family:
    """Traits of the model_type, with the biases that the config states itself."""
    model_type = keys.word("model_type")
    family = FAMILIES.get(model_type or "", Family())
    activation = keys.find("hidden_act", "hidden_activation", "mlp_hidden_act", "activation_function")
    if model_type not in FAMILIES and activation and str(activation[1]) in PLAIN_ACTIVATIONS:
        family = replace(family, gated_mlp=False, gated_experts=False)
    keys.defaults = {**family.defaults, **(family.nested_defaults if keys.is_nested else {})}
    qkv = keys.flag(
        "attention_bias",
        "qkv_bias",
        "use_qkv_bias",
        "add_qkv_bias",
        "use_bias",
        "bias",
        default=family.qkv_bias,
    )
    return replace(
        family,
        qkv_bias=qkv,
        output_bias=keys.flag("attention_bias", "use_bias", "bias", default=family.output_bias),
        mlp_bias=keys.flag("mlp_bias", "use_bias", "bias", default=family.mlp_bias),
        qk_norm=keys.flag("use_qk_norm", default=family.qk_norm),
    )


def _kv_heads(keys: ConfigKeys, heads: int) -> int:
    """Key and value heads: stated, one under multi-query attention, else as many as query heads."""
    one_for_all = keys.flag("multi_query", default=False) and not keys.flag(
        "new_decoder_architecture", default=False
    )
    names = (
        "num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num",
        "num_attention_groups", "attn_config.kv_n_heads",
    )  # fmt: skip
    if names[0] in keys.defaults:
        return keys.size(*names, high=MAX_WIDTH)
    return keys.optional_size(*names, high=MAX_WIDTH, default=1 if one_for_all else heads)


def _head_dim(keys: ConfigKeys, hidden: int, heads: int) -> int:
    """Width of one head: stated, implied by the family, else an even share of the hidden size."""
    names = ("head_dim", "attention_head_dim", "kv_channels", "head_size")
    if keys.find(*names) is not None or names[0] in keys.defaults:
        return keys.size(*names, high=MAX_WIDTH)
    if hidden % heads:
        keys.fault(
            "num_attention_heads",
            f"{heads} heads cannot share a hidden size of {hidden}",
            "Add head_dim",
            given=("hidden_size",),
        )
    return max(hidden // heads, 1)
