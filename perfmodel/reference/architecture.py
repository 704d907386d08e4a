"""The sizes and constants of a Llama-style decoder, read from the planner's own model."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perfmodel.errors import Fault, SpecError
from perfmodel.model import ModelSpec
from perfmodel.model.files import find_config

__all__ = ["Architecture", "RopeScaling"]

_FAMILIES = ("llama", "mistral", "qwen2", "yi")
_SCALINGS = ("default", "linear", "llama3")
_PRODUCTS = ("qkv", "o", "gate_up", "down", "lm_head")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for longer contexts: ``linear``, or by band as ``llama3``."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: float = 8192.0

    def stretched(self, frequency: float) -> float:
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

    @property
    def group(self) -> int:
        """Query heads that share one head of keys and values."""
        return self.heads // self.kv_heads

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> Architecture:
        """Return the decoder that a bundled name, a config.json or a checkpoint folder describes.

        Raises
        ------
        SpecError
            Where the model is not found, or is no Llama-style decoder, saying in what it differs.
        """
        name, document = find_config(os.fspath(name_or_path))
        spec = ModelSpec.load(name_or_path)
        return cls.from_spec(spec, document.data, file=document.file or name)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str = "config") -> Architecture:
        """Return the decoder that a config in memory describes, its keys as in a config.json."""
        return cls.from_spec(ModelSpec.from_config(dict(config), name), config, file=name)

    @classmethod
    def from_spec(
        cls, spec: ModelSpec, config: Mapping[str, Any] | None = None, file: str = "model"
    ) -> Architecture:
        """Return the decoder of a priced model; constants come from `config` where it names them.

        Raises
        ------
        SpecError
            Naming every trait that the reference decoder does not have.
        """
        given: Mapping[str, Any] = config or {}
        faults = [Fault(file, None, field, problem, _REMEDY) for field, problem in _differences(spec, given)]
        if faults:
            raise SpecError(faults)
        shapes = {layer.name: layer for layer in spec.linears}
        attention = spec.attentions[0]
        return cls(
            spec=spec,
            layers=spec.num_layers,
            hidden_size=spec.hidden_size,
            heads=attention.heads,
            kv_heads=attention.kv_heads,
            head_dim=attention.head_dim,
            mlp_width=shapes["down"].k,
            vocab_size=spec.vocab_size,
            tied_embeddings=not spec.owns_lm_head,
            qkv_bias=shapes["qkv"].vectors > spec.hidden_size,
            rope_theta=_theta(given),
            rope_scaling=_scaling(given),
            norm_eps=float(given.get("rms_norm_eps", 1e-5)),
        )

    def frequencies(self) -> list[float]:
        """Return the rotary frequency of each pair of a head's elements, ``theta**(-2 i / d)``, stretched."""
        plain = [self.rope_theta ** (-2.0 * pair / self.head_dim) for pair in range(self.head_dim // 2)]
        if self.rope_scaling is None:
            return plain
        return [self.rope_scaling.stretched(frequency) for frequency in plain]


_REMEDY = "The reference decoder runs Llama-style models, such as llama-3.1-8b and qwen2.5-0.5b"


def _differences(spec: ModelSpec, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (field, problem) of everything that a Llama-style decoder does not have."""
    found: list[tuple[str, str]] = []
    family = config.get("model_type", "llama")
    if family not in _FAMILIES:
        found.append(("model_type", f"{family!r} computes something else"))
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        found.append(("hidden_act", f"{config['hidden_act']!r} is not SwiGLU's"))
    products = tuple(layer.name for layer in spec.linears)
    if products != _PRODUCTS:
        found.append(("layers", f"its matrix products are {', '.join(products)}"))
        return found
    shapes = {layer.name: layer for layer in spec.linears}
    if len(spec.attentions) != 1 or spec.attentions[0].window is not None:
        found.append(("sliding_window", "some of its layers slide over a window"))
    attention = spec.attentions[0]
    if attention.score_dim != attention.head_dim or attention.head_dim % 2:
        found.append(("head_dim", "its attention is not plain"))
    biases = (shapes["qkv"].vectors - spec.hidden_size, shapes["o"].vectors, shapes["down"].vectors)
    if biases not in ((0, 0, 0), (shapes["qkv"].n, 0, 0)) or shapes["gate_up"].vectors != spec.hidden_size:
        found.append(("vectors", "its norms or biases are not Llama's"))
    scaling = _scaling_map(config)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in _SCALINGS:
        found.append(("rope_scaling", f"{kind!r} is not known; {', '.join(_SCALINGS)} are"))
    return found


def _scaling_map(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found if isinstance(found, Mapping) else {}


def _theta(config: Mapping[str, Any]) -> float:
    return float(_scaling_map(config).get("rope_theta", config.get("rope_theta", 10000.0)))


def _scaling(config: Mapping[str, Any]) -> RopeScaling | None:
    given = _scaling_map(config)
    kind = str(given.get("rope_type", given.get("type", "default")))
    if kind == "default":
        return None
    return RopeScaling(
        kind,
        float(given.get("factor", 1.0)),
        float(given.get("low_freq_factor", 1.0)),
        float(given.get("high_freq_factor", 4.0)),
        float(given.get("original_max_position_embeddings", 8192.0)),
    )
