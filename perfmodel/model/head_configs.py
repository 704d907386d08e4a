"""Draft heads recognised by their own config.json, of whatever spelling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from perfmodel.errors import SpecError
from perfmodel.files.document import Document
from perfmodel.model.config import MAX_VOCABULARY, MAX_WIDTH, Decoder, read_config
from perfmodel.model.heads import DraftHead, assemble
from perfmodel.model.keys import DRAFT_LAYERS, ConfigKeys
from perfmodel.model.layers import Layer
from perfmodel.model.linear import LinearLayer
from perfmodel.model.stored import read_stored_weights
from strategies.base import HeadShape

__all__ = ["read_head"]

MAX_BLOCK = 1000
_RECURRENT = ("linear_", "mamba_", "ssm_")
"""How keys of recurrent layers begin, which a module for further tokens has none of."""


@dataclass(frozen=True)
class HeadKind:
    """A kind of head: its published name, the strategy it belongs to, and what its architecture is called.

    pattern : found in the architecture, model_type or speculators_model_type without case and punctuation.
    """

    name: str
    strategy: str
    pattern: str


KINDS = (
    HeadKind("P-EAGLE", "p_eagle", "peagle|paralleleagle"),
    HeadKind("EAGLE-3", "eagle", "eagle3"),
    HeadKind("EAGLE", "eagle", "eagle"),
    HeadKind("Domino", "domino", "domino"),
    HeadKind("DSpark", "dspark", "dspark"),
    HeadKind("DFlash", "dflash", "dflash"),
    HeadKind("Medusa", "medusa", "medusa"),
    HeadKind("MTP", "mtp", "nextn|mtp"),
)
"""In the order in which they are tried: the special ones before those that they are made from."""
_BY_NAME = {kind.name: kind for kind in KINDS}
_NOT_MODELLED = {
    "dflash2": ("a DFlash2 head, whose convolutions and selector are", "DFlash"),
    "mlpspeculator": ("an MLP speculator, whose chain of recurrent MLPs is", "Medusa"),
    "hydra": ("a Hydra head, whose heads that read earlier drafts are", "Medusa"),
    "redrafter": ("a ReDrafter head, whose recurrent unit is", "Medusa"),
    "clover": ("a Clover head, whose recurrent unit is", "Medusa"),
    "assistant": ("an assistant that reads its target's cache, which is", "MTP"),
}
"""Heads that are not modelled: what their architecture is called, what is missing, and the nearest kind."""
_NESTED = ("transformer_layer_config", "model")
"""Sections that hold the sizes of the head's layers: of speculators, and of vLLM's first EAGLE heads."""
_OWN_KEYS = (
    "draft_vocab_size", "eagle_config", "dflash_config", "block_size", "target_layer_ids",
    "num_target_layers", "target_hidden_size", "eagle_aux_hidden_state_layer_ids",
    "aux_hidden_state_layer_ids", "emb_dim", "gru_hidden_dim", "markov_rank", "markov_head_type",
    "enable_confidence_head", "confidence_head_with_markov", "tie_word_embeddings", "mask_token_id",
    "num_aux_hidden_states", "norm_before_residual", "auto_map", "eagle_fc_bias", "fusion_bias",
    "layernorms", "speculators_config", "speculators_model_type", "speculators_version", "architectures",
    "parallel_drafting", "has_no_defaults_at_init", "embed_requires_grad", "num_lookahead_tokens",
    "max_anchors", "projector_type",
)  # fmt: skip
"""Keys that are read here, or say nothing about bytes: the reader of decoders need not remark on them."""
_LAYOUTS = (
    "full_attention_interval", "layer_types", "layers_block_type", "hybrid_override_pattern",
    "mlp_only_layers", "moe_layer_freq", "decoder_sparse_step", "mlp_layer_types", "moe_layers_enum",
    "first_k_dense_replace", "indexer_types", "compress_ratios", "layer_group_size", "attn_layer_period",
    "attn_type_list", "sliding_window_pattern", "no_rope_layers", "hybrid_layer_pattern",
    "mtp_layers_block_type", "mtp_hybrid_override_pattern",
)  # fmt: skip
"""Keys that say which of the target's layers is which; a module for further tokens has layers of its own."""


def read_head(
    name: str, document: Document, *, weight_dtype: str | None = None, kv_dtype: str | None = None
) -> Decoder | None:
    """Return the draft head that a config describes, or None where it describes a model of its own.

    Raises
    ------
    SpecError
        As `read_config`, and for a head that is not modelled, naming the nearest kind that is.
    """
    kind, remark = _recognise(name, document)
    if kind is None:
        return None
    flat = _flattened(document)
    keys = ConfigKeys(flat)
    stored = {"weight_dtype": weight_dtype, "kv_dtype": kv_dtype}
    decoder = (
        _read_medusa(keys, **stored) if kind.name == "Medusa" else _read_layers(keys, flat, kind, stored)
    )
    assumed = [remark, *keys.assumed, *decoder.assumed]
    assert decoder.drafts is not None
    return replace(
        decoder,
        drafts=replace(decoder.drafts, name=name),
        assumed=tuple(dict.fromkeys(sentence for sentence in assumed if sentence)),
    )


def _recognise(name: str, document: Document) -> tuple[HeadKind | None, str]:
    """Return the kind of head that a config is of, and a remark where only its name says so."""
    data = document.data
    listed = data.get("architectures")
    architectures = listed if isinstance(listed, list) else []
    words = [*architectures, data.get("model_type"), data.get("speculators_model_type")]
    called = " ".join(_plain(word) for word in words if isinstance(word, str))
    if "conditionalgeneration" in called:  # a vision model may be called Eagle too
        return None, ""
    for word, (missing, nearest) in _NOT_MODELLED.items():
        if word in called:
            raise SpecError.single(
                document.file, "architectures", f"it is {missing} not modelled",
                f"The nearest head that is modelled is {nearest}", line=document.line(("architectures",)),
            )  # fmt: skip
    config = data.get("dflash_config")
    inner: Mapping[str, Any] = config if isinstance(config, dict) else {}
    kind = next((kind for kind in KINDS if re.search(kind.pattern, called)), None)
    projector = _plain(str(inner.get("projector_type") or data.get("projector_type") or ""))
    if kind is None and data.get("medusa_num_heads"):
        kind = _BY_NAME["Medusa"]
    if kind is None and config is not None:
        kind = _BY_NAME["DFlash"]
    if kind is _BY_NAME["DFlash"]:
        if projector == "domino" or inner.get("gru_hidden_dim"):
            kind = _BY_NAME["Domino"]
        elif projector == "dspark" or inner.get("markov_rank") or data.get("markov_rank"):
            kind = _BY_NAME["DSpark"]
    if kind in (None, _BY_NAME["EAGLE"]) and ("draft_vocab_size" in data or "eagle_config" in data):
        kind = _BY_NAME["EAGLE-3"]
    if kind is _BY_NAME["EAGLE-3"] and data.get("parallel_drafting") is True:
        kind = _BY_NAME["P-EAGLE"]
    layers = data.get("num_hidden_layers")
    if kind is not None or isinstance(layers, bool) or layers != 1:
        return kind, ""
    if any(data.get(key) for key in DRAFT_LAYERS):
        return _BY_NAME["MTP"], ""
    if "eagle" in _plain(name):
        kind = _BY_NAME["EAGLE-3" if "eagle3" in _plain(name) else "EAGLE"]
        return kind, f"taken for an {kind.name} head: it has one layer, and its name says so"
    return None, ""


def _plain(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


def _flattened(document: Document) -> Document:
    """Return the config with the sizes of its layers at the top."""
    data, lines = dict(document.data), dict(document.lines)
    for section in _NESTED:
        inner = data.get(section)
        if isinstance(inner, dict):
            del data[section]
            data = {**data, **inner}
            within = {place: line for place, line in lines.items() if place[:1] == (section,)}
            lines |= {place[1:]: line for place, line in within.items() if len(place) > 1}
    if _plain(str(data.get("model_type", ""))) in ("eagle", "eagle3", "peagle", "dflash", "dspark", "domino"):
        data["model_type"] = "llama" if "eagle" in str(data["model_type"]) else "qwen3"
    return replace(document, data=data, lines=lines)


def _read_layers(
    keys: ConfigKeys, document: Document, kind: HeadKind, stored: Mapping[str, str | None]
) -> Decoder:
    """Return a head that holds layers of attention and MLP."""
    shape = _BY_SHAPE[kind.name](keys)
    keys.raise_faults()
    data = {key: value for key, value in document.data.items() if key not in _OWN_KEYS}
    if kind.name == "MTP":
        data = _module_of(data)
    elif kind.name != "EAGLE":  # their MLPs are dense, whatever a file left of its target's keys
        data = {key: value for key, value in data.items() if not re.search("expert|moe|sparse_step", key)}
    decoder = read_config(replace(document, data=data), whole=False, **stored)
    shape = replace(shape, layers=decoder.layers[0].count if kind.name == "MTP" else shape.layers)
    feature_size = keys.optional_size("target_hidden_size", high=MAX_WIDTH, default=decoder.hidden_size)
    parts = assemble(
        shape,
        decoder.layers if shape.normed else map(_without_input_norm, decoder.layers),
        decoder.outputs[-1],
        hidden_size=decoder.hidden_size,
        feature_size=feature_size,
        vocabulary=decoder.vocab_size,
        own_output=kind.name in ("EAGLE-3", "P-EAGLE") or shape.draft_vocabulary is not None,
    )
    keys.raise_faults()
    borrows = feature_size == decoder.hidden_size
    if not borrows:
        keys.assumed.append("its hidden size is not its target's; assumed to hold an embedding of its own")
    confidence = _confidence(keys, decoder.hidden_size, shape.markov_rank) if kind.name == "DSpark" else 0
    return replace(
        decoder,
        layers=parts.layers,
        outputs=tuple(_unquantised(product, decoder.base_dtype) for product in parts.outputs),
        embedding_parameters=0 if borrows else decoder.embedding_parameters,
        other_parameters=parts.other_parameters + confidence,
        tied_embeddings=not parts.owns_lm_head,
        draft_layers=0,
        table_bytes=parts.table_bytes,
        drafts=DraftHead(kind.name, "", kind.strategy, shape, feature_size, decoder.vocab_size),
    )


def _unquantised(product: LinearLayer, base: str) -> LinearLayer:
    return product if product.element_bytes else product.stored_as(base, base)


def _without_input_norm(layer: Layer) -> Layer:
    """Return a layer of EAGLE's first version, whose input is not normed."""
    first, *rest = layer.products
    half = next(product.vectors for product in rest if product.block != "attention" and product.vectors)
    return replace(layer, products=(replace(first, vectors=first.vectors - half), *rest))


def _module_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the layers of a module that predicts further tokens: attention, experts if any."""
    nested = data.get("text_config")
    if isinstance(nested, dict):
        data = {**{key: value for key, value in data.items() if key != "text_config"}, **nested}
    kept = {key: value for key, value in data.items() if key not in (*_LAYOUTS, *DRAFT_LAYERS)}
    blocks = data.get("mtp_layers_block_type") or data.get("mtp_hybrid_override_pattern")
    if blocks:
        key = "layers_block_type" if isinstance(blocks, list) else "hybrid_override_pattern"
        return {**kept, key: blocks, "num_hidden_layers": len(blocks)}
    modules = next((data[key] for key in DRAFT_LAYERS if data.get(key)), 1)
    attends = {key: value for key, value in kept.items() if not key.startswith(_RECURRENT)}
    return {**attends, "num_hidden_layers": modules}


def _eagle(keys: ConfigKeys) -> HeadShape:
    """EAGLE's first version fuses feature and embedding in every pass (arXiv 2401.15077 section 4.1)."""
    layers = keys.optional_size("num_hidden_layers", high=MAX_BLOCK, default=1)
    keys.assumed.append("acceptance is that of EAGLE-3 heads; heads of the first version accept less")
    return HeadShape(own_attention=True, quantized=False, normed=False, layers=layers)


def _eagle_3(keys: ConfigKeys) -> HeadShape:
    """EAGLE-3 fuses features of several layers once, and reads the embedding beside (arXiv 2503.01840)."""
    features = 0
    if keys.flag("eagle_config.use_aux_hidden_state", default=True):
        features = _count_features(keys, 3)
    vocabulary = keys.optional_size("vocab_size", high=MAX_VOCABULARY, default=MAX_VOCABULARY)
    return HeadShape(
        own_attention=True, quantized=False, fuses_once=True, inputs=2, features=features,
        draft_vocabulary=keys.optional_size("draft_vocab_size", high=vocabulary, default=None),
        layers=keys.optional_size("num_hidden_layers", high=MAX_BLOCK, default=1),
    )  # fmt: skip


def _p_eagle(keys: ConfigKeys) -> HeadShape:
    """P-EAGLE drafts all tokens in one pass, a learned vector for the features to come (arXiv 2602.01469)."""
    return replace(_eagle_3(keys), parallel=True)


def _dflash(keys: ConfigKeys) -> HeadShape:
    """DFlash fills a block of masks in one pass; the first token is given (arXiv 2602.06036)."""
    layers = keys.size("num_hidden_layers", high=MAX_BLOCK)
    block = keys.size("block_size", "dflash_config.block_size", high=MAX_BLOCK, low=2)
    return HeadShape(
        own_attention=True, quantized=False, fuses_once=True, layers=layers, parallel=True, block=block,
        features=_count_features(keys, layers), longest=block - 1,
        draft_vocabulary=keys.optional_size("draft_vocab_size", high=MAX_VOCABULARY, default=None),
    )  # fmt: skip


def _dspark(keys: ConfigKeys) -> HeadShape:
    """DSpark lets every row of the block predict the token after it: it drafts as many as the block has."""
    plain = _dflash(keys)
    rank = keys.size("markov_rank", "dflash_config.markov_rank", high=MAX_WIDTH, low=0)
    word = keys.word("markov_head_type", "dflash_config.markov_head_type")
    if word not in (None, "vanilla"):
        keys.assumed.append(f"a Markov head of type {word!r} is counted as a vanilla one, without its gate")
    return replace(plain, markov_rank=rank, longest=plain.block or np.inf)


def _domino(keys: ConfigKeys) -> HeadShape:
    """Domino corrects the block's drafts by a recurrent unit over those before (arXiv 2605.29707)."""
    return replace(
        _dflash(keys),
        gru_width=keys.size("dflash_config.gru_hidden_dim", "gru_hidden_dim", high=MAX_WIDTH),
        gru_embedding=keys.size("dflash_config.emb_dim", "emb_dim", high=MAX_WIDTH),
    )


def _mtp(keys: ConfigKeys) -> HeadShape:
    """One module is run again for every draft; of several the n-th predicts the n-th (arXiv 2412.19437)."""
    modules = keys.optional_size(*DRAFT_LAYERS, high=MAX_BLOCK, default=1)
    return HeadShape(layers=modules, longest=modules if modules > 1 else np.inf)


_BY_SHAPE = {
    "EAGLE": _eagle, "EAGLE-3": _eagle_3, "P-EAGLE": _p_eagle, "DFlash": _dflash, "DSpark": _dspark,
    "Domino": _domino, "MTP": _mtp,
}  # fmt: skip


def _count_features(keys: ConfigKeys, usual: int) -> int:
    """Return how many of the target's layers a head reads features of."""
    for name in (
        "eagle_config.eagle_aux_hidden_state_layer_ids", "eagle_aux_hidden_state_layer_ids",
        "dflash_config.target_layer_ids", "target_layer_ids", "aux_hidden_state_layer_ids",
    ):  # fmt: skip
        if keys.find(name) is not None:
            return len(keys.numbers(name, high=MAX_BLOCK))
    return keys.optional_size("num_aux_hidden_states", high=MAX_BLOCK, default=usual)


def _confidence(keys: ConfigKeys, hidden_size: int, rank: int) -> int:
    """Return the elements of what predicts how many drafts are worth verifying. [1]"""
    if not keys.flag("enable_confidence_head", "dflash_config.enable_confidence_head", default=False):
        return 0
    name = "confidence_head_with_markov"
    return hidden_size + (rank if keys.flag(name, f"dflash_config.{name}", default=False) else 0) + 1


def _read_medusa(keys: ConfigKeys, *, weight_dtype: str | None, kv_dtype: str | None) -> Decoder:
    """Return Medusa's heads: residual blocks and an output layer each (arXiv 2401.10774 section 2.1)."""
    heads = keys.size("medusa_num_heads", "num_heads", high=MAX_BLOCK)
    blocks = keys.optional_size("medusa_num_layers", "num_hidden_layers", high=MAX_BLOCK, default=1)
    hidden = keys.size("hidden_size", high=MAX_WIDTH)
    vocabulary = keys.size("vocab_size", high=MAX_VOCABULARY)
    chosen = keys.optional_size("truncated_vocab_size", high=vocabulary, default=None)
    stored = read_stored_weights(keys, weight_dtype=weight_dtype, kv_dtype=kv_dtype)
    keys.raise_faults()
    shape = HeadShape(
        layers=0, features=0, quantized=False, parallel=True, block=1, longest=heads, output_heads=heads,
        draft_vocabulary=chosen,
    )  # fmt: skip
    logits = LinearLayer("lm_head", vocabulary, hidden, 1, "column", block="output", keeps_precision=True)
    parts = assemble(
        shape, (), logits, hidden_size=hidden, feature_size=hidden, vocabulary=vocabulary, own_output=True
    )
    outputs = [_unquantised(product, stored.base) for product in parts.outputs]
    outputs[0] = replace(outputs[0], count=heads * blocks)
    return Decoder(
        hidden_size=hidden,
        vocab_size=vocabulary,
        max_position=10**9,
        layers=(),
        outputs=tuple(outputs),
        embedding_parameters=0,
        other_parameters=0,
        tied_embeddings=False,
        draft_layers=0,
        weight_dtype=stored.base,
        kv_dtype=stored.kv,
        base_dtype=stored.base,
        assumed=(),
        drafts=DraftHead("Medusa", "", "medusa", shape, hidden, vocabulary),
    )
