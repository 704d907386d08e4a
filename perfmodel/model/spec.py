"""A language model as the performance model sees it: its matrices, its attention layers and their bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from perfmodel.errors import SpecError
from perfmodel.files.document import Document
from perfmodel.files.numbers import Numeric
from perfmodel.model.channels.experts import Experts
from perfmodel.model.config import read_config
from perfmodel.model.dtypes import BYTES, UNQUANTIZED, dtype_name
from perfmodel.model.files import available_models, find_config
from perfmodel.model.head_configs import read_head
from perfmodel.model.heads import DraftHead, assemble, head_layer, own_layer
from perfmodel.model.layers import Layer, flatten, keep_evenly
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers import Cache, TokenMixer
from strategies.base import PRETRAINED_HEAD, HeadShape

__all__ = ["BYTES", "Layer", "LinearLayer", "ModelSpec"]


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only transformer: whatever decides the bytes and FLOPs of one forward pass.

    Parameters
    ----------
    layers : groups of equal layers; their counts sum to `num_layers`.
    outputs : matrix products outside of the layers, the language-model head last.
    weight_dtype, kv_dtype : keys of `BYTES`; norms, biases, routers, embeddings and the language-model head
        are stored in `base_dtype` even where `weight_dtype` is a quantised one.
    embedding_parameters : elements of the input embedding held by this model.
    other_parameters : final norm and learned positions.
    owns_lm_head : False where the head's matrix is the input embedding or belongs to another model.
    draft_layers : layers that it has for predicting further tokens, not among its own. [1]
    table_bytes : tables beside the weights, such as a draft head's map to the target's vocabulary. [B]
    drafts : what it drafts as, where it is a draft head.
    assumed : one sentence per figure that the config left out.
    """

    name: str
    hidden_size: int
    vocab_size: int
    max_position: int
    weight_dtype: str
    kv_dtype: str
    base_dtype: str
    layers: tuple[Layer, ...]
    outputs: tuple[LinearLayer, ...]
    embedding_parameters: int
    other_parameters: int
    owns_lm_head: bool
    source: str
    draft_layers: int = 0
    table_bytes: float = 0.0
    drafts: DraftHead | None = None
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

    @cached_property
    def linears(self) -> tuple[LinearLayer, ...]:
        """Every matrix product of one forward pass on one GPU, equal ones counted together."""
        return flatten(self.layers, self.outputs)

    @cached_property
    def token_mixers(self) -> tuple[tuple[TokenMixer, int], ...]:
        """The token mixers and how often each occurs, in the order in which they first do."""
        counts: dict[TokenMixer, int] = {}
        for layer in self.layers:
            for mixer in layer.token_mixers:
                counts[mixer] = counts.get(mixer, 0) + layer.count
        return tuple(counts.items())

    @cached_property
    def caches(self) -> tuple[tuple[Cache, int], ...]:
        """What layers keep per token, and how many of them do."""
        return tuple((cache, count) for mixer, count in self.token_mixers for cache in mixer.caches)

    @property
    def num_layers(self) -> int:
        """Layers. [1]"""
        return sum(layer.count for layer in self.layers)

    @property
    def depth(self) -> float:
        """Layers of the usual kind that they amount to: a mixer of tokens or channels is half of one. [1]"""
        return self.reductions / 2.0

    @cached_property
    def reductions(self) -> int:
        """How often the GPUs that share the layers add up what they have in one pass. [1]"""
        return sum(layer.count * layer.reductions for layer in self.layers)

    @cached_property
    def experts(self) -> tuple[tuple[Experts, int], ...]:
        """The kinds of experts that it has, and how many layers hold each."""
        counts: dict[Experts, int] = {}
        for layer in self.layers:
            for mixer in layer.channel_mixers:
                if isinstance(mixer, Experts):
                    counts[mixer] = counts.get(mixer, 0) + layer.count
        return tuple(counts.items())

    @property
    def state_bytes(self) -> float:
        """Bytes of recurrent states and convolutions of one sequence, however long it is. [B]"""
        states = ((mixer.state, count) for mixer, count in self.token_mixers)
        return sum(count * state.bytes(self.base_dtype) for state, count in states if state)

    @property
    def grows(self) -> bool:
        """Whether any layer keeps entries of the whole context, which a draft KV budget could choose from."""
        return any(mixer.budgeted for mixer, _ in self.token_mixers)

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
        return held + (self.embedding_parameters + self.other_parameters) * size + self.table_bytes

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
        return self._kv_bytes(lambda cache: cache.grows(context_len))

    def kv_bytes(self, context_len: Numeric) -> Numeric:
        """Cache bytes of one sequence of `context_len` tokens; sliding layers stop at their window. [B]"""
        return self._kv_bytes(lambda cache: cache.entries(context_len))

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
        ).with_products(lambda product: product.stored_as(weight_dtype, base))

    def with_products(self, change: Callable[[LinearLayer], LinearLayer]) -> ModelSpec:
        """Return the same model with every matrix product changed."""
        return replace(
            self,
            layers=tuple(
                replace(layer, products=tuple(map(change, layer.products))) for layer in self.layers
            ),
            outputs=tuple(map(change, self.outputs)),
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
        counts = keep_evenly([layer.count for layer in self.layers], kept)
        layers = map(lambda layer, count: replace(layer, count=count), self.layers, counts)
        return replace(
            self,
            name=f"{self.name} ({kept} of {self.num_layers} layers)",
            layers=tuple(layer for layer in layers if layer.count),
        )

    def head(self, layers: int = 1, *, shape: HeadShape = PRETRAINED_HEAD) -> ModelSpec:
        """Return a draft head as EAGLE or multi-token prediction attach it to this model.

        Parameters
        ----------
        layers : its layers, at least one, else SpecError. [1]
        shape : what it is made of.
        """
        if layers < 1:
            raise SpecError.single("request", "layers", f"found {layers!r}", "Give at least one layer")
        own = shape.own_attention
        hidden = self.hidden_size
        layer = own_layer(self.layers, shape, hidden_size=hidden) if own else head_layer(self.layers)
        parts = assemble(
            replace(shape, layers=layers),
            [] if shape.output_heads else [replace(layer, count=layers)],
            next(product for product in self.outputs if product.name == "lm_head"),
            hidden_size=hidden,
            feature_size=hidden,
            vocabulary=self.vocab_size,
            own_output=shape.draft_vocabulary is not None or shape.output_heads > 0,
        )
        head = replace(self, name=f"{self.name} head", draft_layers=0, **vars(parts))
        return head if shape.quantized else head.with_dtypes(weights=self.base_dtype)

    def one_module(self) -> ModelSpec:
        """Return a head of several modules, of which each predicts one further token, with one of them."""
        return replace(
            self,
            layers=tuple(replace(layer, count=1) for layer in self.layers),
            outputs=tuple(replace(product, count=1) for product in self.outputs),
        )

    def _holds(self, layer: LinearLayer) -> bool:
        return self.owns_lm_head or layer.name != "lm_head"

    def _kv_bytes(self, entries: Callable[[Cache], Numeric]) -> Numeric:
        """Bytes of as many cache entries per layer as `entries` says."""
        size = BYTES[self.kv_dtype]
        return sum(
            (count * cache.elements * size * entries(cache) for cache, count in self.caches),
            start=np.zeros(()),
        )


def _build(name: str, document: Document, weight_dtype: str | None, kv_dtype: str | None) -> ModelSpec:
    """Return the model that a config describes."""
    head = read_head(name, document, weight_dtype=weight_dtype, kv_dtype=kv_dtype)
    config = head or read_config(document, weight_dtype=weight_dtype, kv_dtype=kv_dtype)
    return ModelSpec(
        name=name,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        max_position=config.max_position,
        weight_dtype=config.weight_dtype,
        kv_dtype=config.kv_dtype,
        base_dtype=config.base_dtype,
        layers=config.layers,
        outputs=config.outputs,
        embedding_parameters=config.embedding_parameters,
        other_parameters=config.other_parameters,
        owns_lm_head=not config.tied_embeddings,
        source=str(document.data.get("_source") or document.file),
        draft_layers=config.draft_layers,
        table_bytes=config.table_bytes,
        drafts=config.drafts,
        assumed=(*document.remarks, *config.assumed),
    )
