"""Attention with a softmax over cached keys and values: what full, windowed and chunked attention share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from perfmodel.files.numbers import Numeric
from perfmodel.model.launches import Attend, ForwardPass, Way
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Cache, Sizes, State, TokenMixer, matrix, with_choice

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.families import Family
    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

__all__ = ["Softmax"]


@dataclass(frozen=True, kw_only=True)
class Softmax(TokenMixer):
    """Attention of grouped heads.

    Parameters
    ----------
    heads, kv_heads : query heads, and key and value heads. [1]
    head_dim, value_dim : width of a query or key, and of a value. [1]
    gate : columns of an output gate. [1]
    values_from_keys : keys and values come from one projection; both are cached.
    owns_cache : False where it reads the cache of an earlier layer.
    projects : whether it has a projection of keys and values.
    kept_inputs : inputs that short convolutions around it keep. [1]
    further : elements of smaller matrices beside its own. [1]
    biases, output_bias, vectors : biases of the first product, of the last, and other vectors of the first.
    """

    kv_heads: int
    head_dim: int
    value_dim: int
    gate: int = 0
    values_from_keys: bool = False
    owns_cache: bool = True
    projects: bool = True
    kept_inputs: int = 0
    further: int = 0
    biased: bool = False
    output_bias: bool = False
    vectors: int = 0

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:
        """Return the layer with the heads that the config gives layers of its kind."""
        family = sizes.family
        heads = cls.read_heads(keys, sizes, kind)
        head_dim, kv_heads = heads["head_dim"], heads["kv_heads"]
        if kind.heads_in_group:
            kv_heads = heads["kv_heads"] = heads["heads"] // kind.heads_in_group
        value_dim = heads.pop("value_dim") or head_dim
        vectors = heads["heads"] if cls.has_sinks(keys, family) else 0
        if family.qk_norm:
            vectors += (heads["heads"] + kv_heads if family.qk_norm_over_heads else 2) * head_dim
        gate = _gate(keys, family, heads["heads"], value_dim)
        convolved, further = 0, 0
        convolves = keys.find("d_rel") is not None and keys.find("conv_kernel_size") is not None
        if keys.flag("use_sconv", default=convolves):
            width = keys.optional_size("sconv_kernel_size", "conv_kernel_size", high=MAX_WIDTH, default=4)
            channels = kv_heads * (head_dim + value_dim) + 2 * sizes.hidden
            convolved, further = channels * (width - 1), channels * width
        if relative := keys.optional_size("d_rel", high=MAX_WIDTH, default=0):
            further += relative * keys.optional_size("rel_extent", high=MAX_WIDTH, default=0)
            gate += heads["heads"] * relative
        return cls(
            **heads,
            value_dim=value_dim,
            gate=gate,
            values_from_keys=cls.reads_one_projection(keys),
            owns_cache=kind.owns_cache,
            projects=kind.owns_cache or family.shared_layers_project,
            kept_inputs=convolved,
            biased=family.qkv_bias,
            output_bias=family.output_bias,
            vectors=vectors + further,
            **cls.read_reach(keys, sizes),
        )

    @classmethod
    def read_heads(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> dict[str, int]:  # noqa: ARG003
        """Return the heads and their widths; a value width of 0 is that of a key."""
        value_dim = keys.optional_size("v_head_dim", high=MAX_WIDTH, default=0)
        return {
            "heads": sizes.heads, "kv_heads": sizes.kv_heads, "head_dim": sizes.head_dim,
            "value_dim": value_dim,
        }  # fmt: skip

    @classmethod
    def read_reach(cls, keys: ConfigKeys, sizes: Sizes) -> dict[str, int]:  # noqa: ARG003
        """Return what limits how far it looks back."""
        return {}

    @classmethod
    def has_sinks(cls, keys: ConfigKeys, family: Family) -> bool:
        """Whether every head has a sink."""
        return keys.flag("add_full_attention_sink_bias", default=family.attention_sinks)

    @classmethod
    def reads_one_projection(cls, keys: ConfigKeys) -> bool:  # noqa: ARG003
        """Whether keys and values come from one projection."""
        return False

    def with_cache(self) -> Self:
        """Return the layer with a cache and projections of its own."""
        return replace(self, owns_cache=True, projects=True)

    @property
    def caches(self) -> tuple[Cache, ...]:
        """Keys and values of every token within reach."""
        if not self.owns_cache:
            return ()
        return (Cache(self.kv_heads * (self.head_dim + self.value_dim), self.kv_heads, self.bound),)

    @property
    def bound(self) -> int | None:
        """Most entries that are kept, None for all. [tokens]"""
        return None

    @property
    def state(self) -> State | None:
        """What the convolutions around it keep."""
        if not self.kept_inputs:
            return None
        return State(0, "fp32", self.kept_inputs, self.kv_heads)

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Queries, keys and values in one product, gate included, and the output."""
        queries = self.heads * self.head_dim + self.gate
        one_each = self.head_dim + (0 if self.values_from_keys else self.value_dim)
        columns = self.kv_heads * one_each if self.projects else 0
        qkv = matrix(
            "qkv", queries + columns, hidden, "column",
            "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
            vectors=self.vectors + ((queries + columns) if self.biased else 0),
        )  # fmt: skip
        if columns:
            qkv = replace(qkv, kv_columns=columns, kv_heads=self.kv_heads)
        output = matrix(
            "o", hidden, self.heads * self.value_dim, "row",
            "self_attn.o_proj",
            vectors=hidden if self.output_bias else 0,
        )  # fmt: skip
        return qkv, output

    def attend(self, kv_tokens: Numeric, query_tokens: Numeric, choices: Numeric = 1.0) -> Attend:
        """Return the launch that reads so many entries."""
        return Attend(
            heads=self.heads,
            kv_heads=self.kv_heads,
            key_dim=self.head_dim,
            value_dim=self.value_dim,
            entry_elements=self.head_dim + self.value_dim,
            kv_tokens=kv_tokens,
            query_tokens=query_tokens,
            choices=choices,
        )

    def ways(self, forward: ForwardPass) -> tuple[Way, ...]:
        """Return one launch, whose queries share what they read."""
        return (with_choice(forward, (self.attend(forward.entries(), forward.query_tokens),)),)


def _gate(keys: ConfigKeys, family: Family, heads: int, value_dim: int) -> int:
    """Return the columns of the gate at the output: one a head, one an element, or none."""
    if keys.flag("attn_output_gate", "attention_output_gate", default=family.output_gate):
        return heads * value_dim
    entry = keys.find("gating")
    if entry is not None and not isinstance(entry[1], bool):
        kind = (keys.word("gating") or "").replace("_", "-")
        if kind not in ("per-head", "per-element", "none"):
            keys.fault(entry[0], f"found {kind[:60]!r}", "Give per-head, per-element, none, true or false")
        return {"per-head": heads, "none": 0}.get(kind, heads * value_dim)
    return heads if keys.flag("gating", "use_head_wise_attn_gate", "use_attention_gate", default=False) else 0
