"""Reading a Hugging Face config.json, of whatever spelling, into the layers of a decoder."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from perfmodel.files.document import Document, dotted
from perfmodel.model.channels import ChannelMixer, channels
from perfmodel.model.class_defaults import CLASS_DEFAULTS
from perfmodel.model.dtypes import BYTES, UNQUANTIZED
from perfmodel.model.families import PLAIN_ACTIVATIONS, Family, family_of, modality_free
from perfmodel.model.heads import DraftHead
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.layer_kind import LayerKind
from perfmodel.model.layers import Layer
from perfmodel.model.layout import layer_kinds
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers import Sizes, TokenMixer
from perfmodel.model.refusals import refuse_unreadable
from perfmodel.model.remarks import remark_gate, remark_unread
from perfmodel.model.required import refuse_disagreements, refuse_left_out
from perfmodel.model.stored import StoredWeights, read_stored_weights
from perfmodel.model.token_layers import MAX_LAYERS, MAX_TOKENS, mixer_of

__all__ = ["MAX_VOCABULARY", "MAX_WIDTH", "Decoder", "read_config"]

MAX_WIDTH = 1_000_000
MAX_VOCABULARY = 100_000_000
ACTIVATIONS = (
    "hidden_act", "hidden_activation", "mlp_hidden_act", "activation_function", "activation",
    "ffn_act_fn.name",
)  # fmt: skip


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
    document: Document,
    *,
    weight_dtype: str | None = None,
    kv_dtype: str | None = None,
    whole: bool = True,
) -> Decoder:
    """Return the decoder that a config describes; where not `whole`, layers that belong to another model.

    Raises
    ------
    SpecError
        Naming every key that is missing, of the wrong type, absurd, at odds with another, or the sign of
        something that is not modelled, with its line.
    """
    keys = ConfigKeys(document)
    refuse_unreadable(keys)
    family = _family(keys)
    if whole:
        refuse_left_out(keys, keys.word("model_type") or "")
        refuse_disagreements(keys)
    hidden = keys.size("hidden_size", "n_embd", "d_model", "model_dim", "dim", high=MAX_WIDTH)
    keys.layers = count = _count_layers(keys)
    vocabulary = keys.size("vocab_size", "padded_vocab_size", high=MAX_VOCABULARY)
    max_position = _max_position(keys)
    kinds = layer_kinds(keys, family, count, max_position)
    alike = not kinds or kinds[0].index is None
    heads, kv_heads, head_dim = _heads(keys, hidden) if alike else (1, 1, 1)
    stored = read_stored_weights(keys, weight_dtype=weight_dtype, kv_dtype=kv_dtype)
    sizes = Sizes(hidden, heads, kv_heads, head_dim, family, stored.base)
    if keys.faults:
        keys.raise_faults()
    layers = _read_layers(keys, sizes, kinds, stored)
    tied = _tied(keys, family)
    outputs, embedding = _outputs(keys, sizes, vocabulary, count)
    draft_layers = keys.draft_layers or family.draft_layers
    keys.raise_faults()
    remark_unread(keys, layers)
    remark_gate(keys, family, layers)
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
    for section in ("rope_scaling", "rope_parameters", "rope_parameters.full_attention"):
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


def _tied(keys: ConfigKeys, family: Family) -> bool:
    """Whether the head's matrix is the input embedding; of two parts of a file the outer counts."""
    names = ("tie_word_embeddings", "tied_embeddings", "tie_embedding", "use_embedding_sharing")
    tied = keys.flag(*names, default=family.tied_embeddings)
    stated = [(dotted(path), value) for path, value in keys.find_all(names[0]) if isinstance(value, bool)]
    if stated and stated[0][1] != stated[-1][1]:
        inner, outer = stated[0][0], stated[-1][0]
        keys.assumed.append(f"{inner} and {outer} differ; {outer} counts, as the head stands there")
        tied = stated[-1][1]
    return tied


_HEAD_DIMS = ("head_dim", "attention_head_dim", "kv_channels", "head_size")
_KV_HEADS = (
    "num_key_value_heads_per_layer", "num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads",
    "num_attention_groups", "num_query_groups", "attn_config.kv_n_heads",
)  # fmt: skip
HEAD_COUNTS = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "num_query_heads",
)  # fmt: skip


def _heads(keys: ConfigKeys, hidden: int) -> tuple[int, int, int]:
    """Return query heads, key and value heads, and the width of one."""
    of_this_layer = keys.find("num_attention_heads_per_layer") is not None
    heads = keys.size(*(("num_attention_heads_per_layer",) if of_this_layer else HEAD_COUNTS), high=MAX_WIDTH)
    if keys.find("kv_lora_rank") is not None:  # heads of the layers that are not latent
        return heads, heads, keys.optional_size(
            *_HEAD_DIMS, high=MAX_WIDTH, low=0, default=max(hidden // heads, 1)
        )
    kv_heads = _kv_heads(keys, heads)
    head_dim = _head_dim(keys, hidden, heads)
    if heads % kv_heads:
        keys.fault(
            keys.place(*_KV_HEADS),
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
            if kind.index is not None:
                heads, kv_heads, head_dim = _heads(keys, sizes.hidden)
                sizes = replace(sizes, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
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


def _family(keys: ConfigKeys) -> Family:
    """Traits of the model_type, with the biases that the config states itself."""
    model_type = keys.word("model_type") or ("mistral" if keys.find("dim") is not None else "")
    family, known = family_of(model_type, _architecture(keys))
    if not known and not _gates(keys):
        family = replace(family, gated_mlp=False, gated_experts=False)
    defaults = {**family.defaults}
    if keys.is_nested:
        defaults |= CLASS_DEFAULTS.get(model_type) or CLASS_DEFAULTS.get(modality_free(model_type), {})
    keys.defaults = {name: size for name, size in defaults.items() if not keys.states(name)}
    unbiased = keys.flag("no_bias", default=False)
    biased = ("attention_bias", "use_bias", "bias")
    return replace(
        family,
        known=known,
        qkv_bias=keys.flag(
            "attention_bias", "qkv_bias", "use_qkv_bias", "add_qkv_bias", "attention_qkv_bias", *biased[1:],
            default=family.qkv_bias,
        ),
        output_bias=keys.flag(
            "attention_out_bias", "attention_output_bias", *biased,
            default=family.output_bias and not unbiased,
        ),
        mlp_bias=keys.flag(
            "mlp_bias", "add_bias_linear", *biased[1:], default=family.mlp_bias and not unbiased
        ),
        qk_norm=keys.flag("use_qk_norm", "qk_layernorm", "use_query_key_norm", default=family.qk_norm),
    )  # fmt: skip


def _architecture(keys: ConfigKeys) -> str:
    entry = keys.find("architectures")
    return str(entry[1][0]) if entry and isinstance(entry[1], list) and entry[1] else ""


def _gates(keys: ConfigKeys) -> bool:
    """Whether an MLP of an unknown model_type is gated: by its activation, and gelu by its norm.

    Models of the time of LayerNorm have a plain gelu, those with an RMSNorm gate with it.
    """
    entry = keys.find(*ACTIVATIONS)
    activation = str(entry[1]).lower() if entry else ""
    if activation in PLAIN_ACTIVATIONS:
        return False
    return not activation.startswith("gelu") or keys.find("rms_norm_eps", "norm_eps") is not None


def _kv_heads(keys: ConfigKeys, heads: int) -> int:
    """Key and value heads: stated, one under multi-query attention, else as many as query heads."""
    names: tuple[str, ...] = _KV_HEADS
    if keys.flag("multi_query", default=False) and not keys.flag("new_decoder_architecture", default=False):
        keys.find(*names)
        return 1
    if keys.flag("multi_query_attention", default=False):
        names = ("multi_query_group_num", *names)
    if "num_key_value_heads" in keys.defaults and keys.find(*names) is None:
        return min(keys.size("num_key_value_heads", high=MAX_WIDTH), heads)
    return keys.optional_size(*names, high=MAX_WIDTH, default=heads)


def _head_dim(keys: ConfigKeys, hidden: int, heads: int) -> int:
    """Width of one head: stated, implied by the family, else an even share of the hidden size."""
    if keys.find(*_HEAD_DIMS) is not None or _HEAD_DIMS[0] in keys.defaults:
        return keys.size(*_HEAD_DIMS, high=MAX_WIDTH)
    if hidden % heads:
        keys.fault(
            keys.place(*HEAD_COUNTS),
            f"{heads} heads cannot share a hidden size of {hidden}",
            "Add head_dim",
            given=("hidden_size",),
        )
    return max(hidden // heads, 1)
