"""The sizes and constants of a decoder and the token mixer of every layer, read from the planner's model."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from perfmodel.errors import Fault, SpecError
from perfmodel.model import LinearLayer, ModelSpec
from perfmodel.model.files import find_config
from perfmodel.reference.mixers import Entry, Mixer, mixers
from perfmodel.reference.mixers.full_attention import FullAttention
from perfmodel.reference.priced_mixers import mixers_of, unknown_mixers

__all__ = ["Architecture", "RopeScaling"]

_FAMILIES = ("llama", "mistral", "qwen2", "yi")
_SCALINGS = ("default", "linear", "llama3")
_PRODUCTS = ("qkv", "o", "gate_up", "down", "lm_head")
_REMEDY = "The reference decoder runs Llama-style models, such as llama-3.1-8b and qwen2.5-0.5b"
_SKETCH_REMEDY = "Token mixers that run: " + ", ".join(mixers())
_LLAMA_REMEDY = "Full attention in every layer is asked for, as in llama-3.1-8b and qwen2.5-0.5b"


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for longer contexts: ``linear``, or by band as ``llama3``."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: float = 8192.0

    def stretch(self, frequency: float) -> float:
        """Return one rotary frequency [rad/token] after scaling (Llama 3.1 model card, rope_type llama3)."""
        if self.kind == "linear":
            return frequency / self.factor
        wavelength = 2.0 * math.pi / frequency
        turns = self.original_context / wavelength
        smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        smooth = min(max(smooth, 0.0), 1.0)
        return (1.0 - smooth) * frequency / self.factor + smooth * frequency


@dataclass(frozen=True)
class Architecture:
    """Sizes of a decoder with RMSNorm, rotary positions, a token mixer per layer and SwiGLU.

    Attributes
    ----------
    spec : what the planner prices; every size below follows from it, unless `mixers` were replaced.
    mixers : the token mixer of every layer; neighbours may differ.
    qkv_bias : queries, keys and values have a bias, as in Qwen2.
    rope_theta, rope_scaling, norm_eps : constants that no price depends on; Llama's where a config leaves
        them out.
    """

    spec: ModelSpec
    mixers: tuple[Mixer, ...]
    hidden_size: int
    mlp_width: int
    vocab_size: int
    tied_embeddings: bool
    qkv_bias: bool = False
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str], *, sketch: bool = False) -> Architecture:
        """Return the decoder that a bundled name, a config.json or a checkpoint folder describes.

        Parameters
        ----------
        name_or_path : as in `ModelSpec.load`.
        sketch : take the token mixers of a model of any kind, with their sizes and counts, and leave out what
            else it has: norms, gates, biases and constants of its own, and experts, for which one SwiGLU
            stands. The logits are then not those of the model.

        Raises
        ------
        SpecError
            Where the model is not found, or is no Llama-style decoder, naming every trait that differs; with
            `sketch`, where a token mixer does not run.
        """
        name, document = find_config(os.fspath(name_or_path))
        return cls._from_spec(ModelSpec.load(name_or_path), document.data, document.file or name, sketch)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], name: str = "config", *, sketch: bool = False
    ) -> Architecture:
        """Return the decoder that a config in memory describes, its keys as in a config.json; as `load`."""
        return cls._from_spec(ModelSpec.from_config(dict(config), name), config, name, sketch)

    @classmethod
    def _from_spec(cls, spec: ModelSpec, config: Mapping[str, Any], file: str, sketch: bool) -> Architecture:
        """Return the decoder of a priced model, its constants as the config names them."""
        differences = _list_unknown(spec) if sketch else _list_differences(spec, config)
        if differences:
            remedy = _SKETCH_REMEDY if sketch else _REMEDY
            raise SpecError(Fault(file, None, field, problem, remedy) for field, problem in differences)
        products = _products_of(spec)
        return cls(
            spec=spec,
            mixers=mixers_of(spec),
            hidden_size=spec.hidden_size,
            mlp_width=_find_mlp_width(spec),
            vocab_size=spec.vocab_size,
            tied_embeddings=not spec.owns_lm_head,
            qkv_bias=not sketch and products["qkv"].vectors > spec.hidden_size,
            rope_theta=10000.0 if sketch else _read_theta(config),
            rope_scaling=None if sketch else _read_scaling(config),
            norm_eps=float(config.get("rms_norm_eps", 1e-5)),
        )

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.mixers)

    @property
    def attention(self) -> FullAttention:
        """The full attention that all layers of a Llama-style decoder are.

        Raises
        ------
        SpecError
            Where some layer is another mixer.
        """
        mixer = self.mixers[0]
        if type(mixer) is not FullAttention or any(other != mixer for other in self.mixers):
            kinds = ", ".join(dict.fromkeys(type(mixer).__name__ for mixer in self.mixers))
            raise SpecError.single("request", "model", f"its layers are {kinds}", _LLAMA_REMEDY)
        return mixer

    @property
    def heads(self) -> int:
        """Query heads of a Llama-style decoder."""
        return self.attention.heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values of a Llama-style decoder."""
        return self.attention.kv_heads

    @property
    def head_dim(self) -> int:
        """Elements of a head of a Llama-style decoder."""
        return self.attention.head_dim

    @cached_property
    def places(self) -> tuple[tuple[Entry, int] | None, ...]:
        """Where each layer finds its entries: their kind, and its place among the layers that cache it.

        A layer without a cache of its own has the place of the last layer before it that is of its kind and
        has one. None for a recurrent layer.

        Raises
        ------
        SpecError
            Where no layer before is of its kind.
        """
        places: list[tuple[Entry, int] | None] = []
        counts: dict[Entry, int] = {}
        last: dict[tuple[type[Mixer], Entry], tuple[Entry, int]] = {}
        for layer, mixer in enumerate(self.mixers):
            entry = mixer.entry
            if entry is None:
                places.append(None)
                continue
            kind = type(mixer), entry
            if not isinstance(mixer, FullAttention) or mixer.owns_cache:
                last[kind] = entry, counts.get(entry, 0)
                counts[entry] = counts.get(entry, 0) + 1
            elif kind not in last:
                problem = f"layer {layer} shares a cache, and no layer before it of its kind has one"
                raise SpecError.single("request", "mixers", problem, "Let an earlier layer own its cache")
            places.append(last[kind])
        return tuple(places)

    @cached_property
    def entries(self) -> dict[Entry, tuple[int, ...]]:
        """The layers that own a cache, by what an entry of theirs is."""
        owners: dict[Entry, dict[int, int]] = {}
        for layer, place in enumerate(self.places):
            if place is not None:
                owners.setdefault(place[0], {}).setdefault(place[1], layer)
        return {entry: tuple(layers.values()) for entry, layers in owners.items()}

    @cached_property
    def all_grow(self) -> bool:
        """Whether every layer reads its whole context, so that a draft's choice of entries rules them all."""
        return all(mixer.entry is not None and mixer.entry.grows for mixer in self.mixers)

    def shape(self, product: str) -> tuple[int, int]:
        """Return the shape [outputs, inputs] of a matrix product: qkv, o, gate_up, down or lm_head.

        The first two are those of a Llama-style decoder's attention.
        """
        hidden, width = self.hidden_size, self.mlp_width
        mlp = {"gate_up": (2 * width, hidden), "down": (hidden, width)}
        others = {**mlp, "lm_head": (self.vocab_size, hidden)}
        if product in others:
            return others[product]
        outputs, inputs = self.attention.shapes(hidden)[{"qkv": "qkv", "o": "output"}[product]]
        return outputs, inputs

    def frequencies(self, size: int | None = None) -> list[float]:
        """Return the rotary frequency of each pair of a head's elements, ``theta**(-2 i / d)``, stretched.

        `size` is d, the elements that are turned: those of a whole head where None.
        """
        turned = self.head_dim if size is None else size
        plain = [self.rope_theta ** (-2.0 * pair / turned) for pair in range(turned // 2)]
        return plain if self.rope_scaling is None else [self.rope_scaling.stretch(rate) for rate in plain]


def _products_of(spec: ModelSpec) -> dict[str, LinearLayer]:
    return {layer.name: layer for layer in spec.linears}


def _find_mlp_width(spec: ModelSpec) -> int:
    """Return the width of the first MLP or expert; the hidden size where there is none."""
    return next((product.k for product in spec.linears if product.name.endswith("down")), spec.hidden_size)


def _list_unknown(spec: ModelSpec) -> list[tuple[str, str]]:
    """Return (field, problem) of every token mixer that does not run."""
    return [("layers", f"{label} is not run") for label in unknown_mixers(spec)]


def _list_differences(spec: ModelSpec, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (field, problem) of everything that a Llama-style decoder does not have."""
    differences: list[tuple[str, str]] = []
    family = config.get("model_type", "llama")
    if family not in _FAMILIES:
        differences.append(("model_type", f"{family!r} computes something else"))
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        differences.append(("hidden_act", f"{config['hidden_act']!r} is not SwiGLU's"))
    products = _products_of(spec)
    if tuple(layer.name for layer in spec.linears) != _PRODUCTS:
        names = ", ".join(layer.name for layer in spec.linears)
        return [*differences, ("layers", f"its matrix products are {names}")]
    if len(spec.token_mixers) != 1:
        differences.append(("sliding_window", "some of its layers slide over a window"))
    first = None if unknown_mixers(spec) else mixers_of(spec)[0]
    if not isinstance(first, FullAttention) or first.value_dim != first.head_dim or first.head_dim % 2:
        differences.append(("head_dim", "its attention is not plain"))
    qkv, hidden = products["qkv"], spec.hidden_size
    biases = (qkv.vectors - hidden, products["o"].vectors, products["down"].vectors)
    if biases not in ((0, 0, 0), (qkv.n, 0, 0)) or products["gate_up"].vectors != hidden:
        differences.append(("vectors", "its norms or biases are not Llama's"))
    if (kind := _read_kind(config)) not in _SCALINGS:
        differences.append(("rope_scaling", f"{kind!r} is not known; {', '.join(_SCALINGS)} are"))
    return differences


def _read_rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config that is about rotary positions, by its key of today or an earlier one."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return rope if isinstance(rope, Mapping) else {}


def _read_theta(config: Mapping[str, Any]) -> float:
    return float(_read_rope(config).get("rope_theta", config.get("rope_theta", 10000.0)))


def _read_kind(config: Mapping[str, Any]) -> Any:
    rope = _read_rope(config)
    return rope.get("rope_type", rope.get("type", "default"))


def _read_scaling(config: Mapping[str, Any]) -> RopeScaling | None:
    rope, kind = _read_rope(config), str(_read_kind(config))
    if kind == "default":
        return None
    return RopeScaling(
        kind,
        float(rope.get("factor", 1.0)),
        float(rope.get("low_freq_factor", 1.0)),
        float(rope.get("high_freq_factor", 4.0)),
        float(rope.get("original_max_position_embeddings", 8192.0)),
    )
