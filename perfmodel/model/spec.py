"""A language model as the performance model sees it: its matrices, its attention layers and their bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from perfmodel.errors import SpecError
from perfmodel.files.document import Document
from perfmodel.files.numbers import Numeric
from perfmodel.model.config import read_config
from perfmodel.model.dtypes import BYTES, UNQUANTIZED, dtype_name
from perfmodel.model.files import available_models, find_config
from perfmodel.model.layers import (
    AttentionLayers,
    LinearLayer,
    attention_layers,
    head_layers,
    keep_evenly,
    linear_layers,
)
from strategies.base import PRETRAINED_HEAD, HeadShape

__all__ = ["BYTES", "AttentionLayers", "LinearLayer", "ModelSpec"]


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer: whatever decides the bytes and FLOPs of one forward pass.

    Parameters
    ----------
    linears : every matrix product of one forward pass, the language-model head included, on one GPU.
    attentions : the attention layers in groups of equal shape; their counts sum to `num_layers`.
    weight_dtype, kv_dtype : keys of `BYTES`; norms, biases, routers, embeddings and the language-model head
        are stored in `base_dtype` even where `weight_dtype` is a quantised one.
    embedding_parameters : elements of the input embedding held by this model.
    other_parameters : final norm and learned positions.
    owns_lm_head : False where the head's matrix is the input embedding or belongs to another model.
    assumed : one sentence per figure that the config left out.
    """

    name: str
    hidden_size: int
    vocab_size: int
    max_position: int
    num_layers: int
    weight_dtype: str
    kv_dtype: str
    base_dtype: str
    linears: tuple[LinearLayer, ...]
    attentions: tuple[AttentionLayers, ...]
    embedding_parameters: int
    other_parameters: int
    owns_lm_head: bool
    source: str
    assumed: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str],
        weight_dtype: str | None = None,
        kv_dtype: str | None = None,
    ) -> ModelSpec:
        """Return the model of a bundled name, a config.json, a folder that holds one, or a Hugging Face id.

        The order is: bundled models (names and ids, in any spelling), paths, the local Hugging Face cache,
        releases of bundled models under other names (``-FP8``, another organisation: `assumed` says so), and
        last the hub, where huggingface_hub is installed and HF_HUB_OFFLINE is not set; before that a line
        goes to stderr.

        Raises
        ------
        SpecError
            When nothing is found, naming the nearest known names, or when the config cannot be accepted.
        """
        name, document = find_config(os.fspath(name_or_path))
        return _build(name, document, weight_dtype, kv_dtype)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, object],
        name: str = "config",
        weight_dtype: str | None = None,
        kv_dtype: str | None = None,
    ) -> ModelSpec:
        """Return the model of a config in memory, e.g. ``AutoConfig.from_pretrained(...).to_dict()``."""
        return _build(name, Document(name, dict(config)), weight_dtype, kv_dtype)

    @classmethod
    def available(cls) -> tuple[str, ...]:
        """Names of the bundled models, sorted."""
        return available_models()

    @property
    def parameters(self) -> int:
        """Elements held by this model: a tied head counts once, one that another model holds not at all."""
        held = sum(layer.parameters for layer in self.linears if self._holds(layer))
        return held + self.embedding_parameters + self.other_parameters

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights held by this model. [B]"""
        size = BYTES[self.base_dtype]
        held = sum(layer.weight_bytes(self.base_dtype) for layer in self.linears if self._holds(layer))
        return held + (self.embedding_parameters + self.other_parameters) * size

    def active_parameters(self, tokens: Numeric = 1.0) -> Numeric:
        """Expected elements that a forward pass of `tokens` tokens touches, the whole embedding included.

        With independent uniform routing ``E (1 - (1 - k/E)^tokens)`` distinct experts are read per layer.
        """
        inactive = sum(
            (layer.parameters - layer.active_parameters(tokens) for layer in self.linears), start=np.zeros(())
        )
        return self.parameters - inactive

    def weight_bytes_read(self, tokens: Numeric = 1.0) -> Numeric:
        """Expected weight bytes read by a pass of `tokens` tokens: all but the embedding table. [B]"""
        read = sum(
            (layer.weight_bytes_read(tokens, self.base_dtype) for layer in self.linears), start=np.zeros(())
        )
        return read + self.other_parameters * BYTES[self.base_dtype]

    def kv_bytes_per_token(self, context_len: Numeric = 0.0) -> Numeric:
        """Cache bytes that one further token adds to a sequence of `context_len` tokens. [B]

        At 0 every layer grows; beyond a sliding window its layers no longer do, so infinity asks for those
        that always grow.
        """
        return self._kv_bytes(lambda window: np.where(np.isinf(window), 1.0, np.less(context_len, window)))

    def kv_bytes(self, context_len: Numeric) -> Numeric:
        """Cache bytes of one sequence of `context_len` tokens; sliding layers stop at their window. [B]"""
        return self._kv_bytes(lambda window: np.minimum(context_len, window))

    def with_dtypes(self, weights: str | None = None, kv: str | None = None) -> ModelSpec:
        """Return the same model stored otherwise; what is left out stays.

        A quantised `weights` leaves norms, biases, routers, embeddings and the language-model head as they
        are, and attention too where the config says so; an unquantised one applies to everything.
        """
        weight_dtype = self.weight_dtype if weights is None else dtype_name(weights, field="weight_dtype")
        base = weight_dtype if weight_dtype in UNQUANTIZED else self.base_dtype
        return replace(
            self,
            weight_dtype=weight_dtype,
            kv_dtype=self.kv_dtype if kv is None else dtype_name(kv, field="kv_dtype"),
            base_dtype=base,
            linears=tuple(layer.stored_as(weight_dtype, base) for layer in self.linears),
        )

    def keep_layers(self, fraction: float) -> ModelSpec:
        """Return the model with that share of its layers, at least one, all kinds cut in proportion.

        Embedding, final norm and language-model head stay. `fraction` lies in (0, 1], else SpecError.
        """
        if not 0.0 < fraction <= 1.0:
            raise SpecError.single(
                "request", "fraction", f"found {fraction!r}", "Give a share above 0 and up to 1"
            )
        kept = max(1, round(self.num_layers * fraction))
        if kept == self.num_layers:
            return self
        mlps = {layer.block: layer.count for layer in self.linears if layer.block in ("mlp", "experts")}
        counts = {"attention": kept, "output": 1}
        counts |= zip(mlps, keep_evenly(list(mlps.values()), kept), strict=True)
        linears = (replace(layer, count=counts[layer.block]) for layer in self.linears)
        groups = keep_evenly([group.count for group in self.attentions], kept)
        attentions = map(lambda group, count: replace(group, count=count), self.attentions, groups)
        return replace(
            self,
            name=f"{self.name} ({kept} of {self.num_layers} layers)",
            num_layers=kept,
            linears=tuple(layer for layer in linears if layer.count),
            attentions=tuple(group for group in attentions if group.count),
        )

    def head(self, layers: int = 1, *, shape: HeadShape = PRETRAINED_HEAD) -> ModelSpec:
        """Return a draft head as EAGLE or multi-token prediction attach it to this model.

        It holds one projection of hidden states (features of the target, the last token's embedding) to the
        hidden size and `layers` layers of the target, with its widest attention window. It reads the target's
        embedding, and the target's language-model head where it has none of its own: these cost time but no
        memory (arXiv 2412.19437 section 2.2; arXiv 2503.01840 section 3.1).

        Parameters
        ----------
        layers : its layers, at least one, else SpecError. [1]
        shape : what it is made of.
        """
        if layers < 1:
            raise SpecError.single("request", "layers", f"found {layers!r}", "Give at least one layer")
        weight_dtype = self.weight_dtype if shape.quantized else self.base_dtype
        products = head_layers(self.linears, shape, hidden_size=self.hidden_size, count=layers)
        widest = max(self.attentions, key=lambda group: np.inf if group.window is None else group.window)
        return replace(
            self,
            name=f"{self.name} head",
            num_layers=layers,
            weight_dtype=weight_dtype,
            linears=tuple(layer.stored_as(weight_dtype, self.base_dtype) for layer in products),
            attentions=(replace(widest, count=layers),),
            embedding_parameters=0,
            other_parameters=shape.inputs * self.hidden_size,
            owns_lm_head=shape.draft_vocabulary is not None,
        )

    def _holds(self, layer: LinearLayer) -> bool:
        return self.owns_lm_head or layer.name != "lm_head"

    def _kv_bytes(self, entries: Callable[[float], Numeric]) -> Numeric:
        """Bytes of as many cache entries per layer as `entries` says for the layer's window."""
        size = BYTES[self.kv_dtype]
        return sum(
            (
                group.count
                * group.kv_elements
                * size
                * entries(np.inf if group.window is None else group.window)
                for group in self.attentions
            ),
            start=np.zeros(()),
        )


def _build(name: str, document: Document, weight_dtype: str | None, kv_dtype: str | None) -> ModelSpec:
    """Return the model that a config describes."""
    config = read_config(document, weight_dtype=weight_dtype, kv_dtype=kv_dtype)
    embedding = config.vocab_size * config.hidden_size
    positions = config.max_position * config.hidden_size if config.family.learned_positions else 0
    final_norm = config.hidden_size * (2 if config.family.norm_bias else 1)
    return ModelSpec(
        name=name,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        max_position=config.max_position,
        num_layers=config.num_layers,
        weight_dtype=config.dtypes.weights,
        kv_dtype=config.dtypes.kv,
        base_dtype=config.dtypes.base,
        linears=linear_layers(config),
        attentions=attention_layers(config),
        embedding_parameters=embedding,
        other_parameters=final_norm + positions,
        owns_lm_head=not config.tied_embeddings,
        source=str(document.data.get("_source") or document.file),
        assumed=(*document.remarks, *config.assumed),
    )
