"""The sizes and constants of a Llama-style decoder, read from the planner's own model."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perfmodel.errors import Fault, SpecError
from perfmodel.model import LinearLayer, ModelSpec
from perfmodel.model.files import find_config
from perfmodel.model.mixers.full_attention import FullAttention

__all__ = ["Architecture", "RopeScaling"]

_FAMILIES = ("llama", "mistral", "qwen2", "yi")
_SCALINGS = ("default", "linear", "llama3")
_PRODUCTS = ("qkv", "o", "gate_up", "down", "lm_head")
_REMEDY = "The reference decoder runs Llama-style models, such as llama-3.1-8b and qwen2.5-0.5b"


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
    """Sizes of a decoder with RMSNorm, rotary positions, grouped-query attention and SwiGLU.

    Attributes
    ----------
    spec : what the planner prices; every size below follows from it.
    qkv_bias : queries, keys and values have a bias, as in Qwen2.
    rope_theta, rope_scaling, norm_eps : constants that no price depends on; Llama's where a config leaves
        them out.
    """

    spec: ModelSpec
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    vocab_size: int
    tied_embeddings: bool
    qkv_bias: bool = False
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> Architecture:
        """Return the decoder that a bundled name, a config.json or a checkpoint folder describes.

        Raises
        ------
        SpecError
            Where the model is not found, or is no Llama-style decoder, naming every trait that differs.
        """
        name, document = find_config(os.fspath(name_or_path))
        return cls._from_spec(ModelSpec.load(name_or_path), document.data, document.file or name)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str = "config") -> Architecture:
        """Return the decoder that a config in memory describes, its keys as in a config.json."""
        return cls._from_spec(ModelSpec.from_config(dict(config), name), config, name)

    @classmethod
    def _from_spec(cls, spec: ModelSpec, config: Mapping[str, Any], file: str) -> Architecture:
        """Return the decoder of a priced model, its constants as the config names them."""
        if differences := _list_differences(spec, config):
            raise SpecError(Fault(file, None, field, problem, _REMEDY) for field, problem in differences)
        products, attention = _products_of(spec), spec.token_mixers[0][0]
        assert isinstance(attention, FullAttention)
        return cls(
            spec=spec,
            layers=spec.num_layers,
            hidden_size=spec.hidden_size,
            heads=attention.heads,
            kv_heads=attention.kv_heads,
            head_dim=attention.head_dim,
            mlp_width=products["down"].k,
            vocab_size=spec.vocab_size,
            tied_embeddings=not spec.owns_lm_head,
            qkv_bias=products["qkv"].vectors > spec.hidden_size,
            rope_theta=float(_read_rope(config).get("rope_theta", config.get("rope_theta", 10000.0))),
            rope_scaling=_read_scaling(config),
            norm_eps=float(config.get("rms_norm_eps", 1e-5)),
        )

    def shape(self, product: str) -> tuple[int, int]:
        """Return the shape [outputs, inputs] of a priced matrix product: qkv, o, gate_up, down or lm_head."""
        layer = _products_of(self.spec)[product]
        return layer.n, layer.k

    def frequencies(self) -> list[float]:
        """Return the rotary frequency of each pair of a head's elements, ``theta**(-2 i / d)``, stretched."""
        plain = [self.rope_theta ** (-2.0 * pair / self.head_dim) for pair in range(self.head_dim // 2)]
        return plain if self.rope_scaling is None else [self.rope_scaling.stretch(rate) for rate in plain]


def _products_of(spec: ModelSpec) -> dict[str, LinearLayer]:
    return {layer.name: layer for layer in spec.linears}


def _list_differences(spec: ModelSpec, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (field, problem) of everything that a Llama-style decoder does not have."""
    differences: list[tuple[str, str]] = []
    family = config.get("model_type", "llama")
    if family not in _FAMILIES:
        differences.append(("model_type", f"{family!r} computes something else"))
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        differences.append(("hidden_act", f"{config['hidden_act']!r} is not SwiGLU's"))
    products, (attention, _) = _products_of(spec), spec.token_mixers[0]
    if tuple(layer.name for layer in spec.linears) != _PRODUCTS:
        names = ", ".join(layer.name for layer in spec.linears)
        return [*differences, ("layers", f"its matrix products are {names}")]
    if len(spec.token_mixers) != 1 or not isinstance(attention, FullAttention):
        differences.append(("sliding_window", "some of its layers slide over a window"))
    elif attention.value_dim != attention.head_dim or attention.head_dim % 2:
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
