"""Multi-head latent attention: one compressed vector per token for all heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from perfmodel.files.numbers import Numeric
from perfmodel.model.launches import Attend, ForwardPass, Multiply, Way
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Cache, Sizes, TokenMixer, matrix, with_choice

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind


@dataclass(frozen=True, kw_only=True)
class Latent(TokenMixer):
    """Latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

    Parameters
    ----------
    q_rank, kv_rank : ranks of queries, and of keys and values; a `q_rank` of 0 is a plain query projection.
    rope_dim, nope_dim, value_dim : widths of the rotary part of a key, of the rest of it, and of a value. [1]
    gate : whether the heads' outputs are gated.
    """

    words: ClassVar[tuple[str, ...]] = ("full_attention", "attention", "mla", "full", "latent_attention")
    marks = ("kv_lora_rank",)
    label = "latent"

    q_rank: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    gate: bool = False

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return the layer with the ranks and widths of the config."""
        return cls(
            heads=sizes.heads,
            q_rank=keys.optional_size("q_lora_rank", high=MAX_WIDTH, low=0, default=0),
            kv_rank=keys.size("kv_lora_rank", high=MAX_WIDTH),
            rope_dim=keys.size("qk_rope_head_dim", high=MAX_WIDTH, low=0),
            nope_dim=keys.size("qk_nope_head_dim", high=MAX_WIDTH),
            value_dim=keys.size("v_head_dim", high=MAX_WIDTH),
            gate=keys.flag("mla_use_output_gate", default=sizes.family.output_gate),
        )

    @property
    def entry(self) -> int:
        """Elements stored per token: the latent and the rotary part of the key. [1]"""
        return self.kv_rank + self.rope_dim

    @property
    def caches(self) -> tuple[Cache, ...]:
        """One vector per token, of which every GPU holds a copy."""
        return (Cache(self.entry, 1),)

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Down and up projections; `kv_b` is absorbed in decoding: the same matrix, applied to queries."""
        queries = self.heads * (self.nope_dim + self.rope_dim)
        first: tuple[LinearLayer, ...]
        if self.q_rank:
            first = (
                matrix("q_a", self.q_rank, hidden, "none", "self_attn.q_a_proj", vectors=self.q_rank),
                matrix("q_b", queries, self.q_rank, "column", "self_attn.q_b_proj"),
            )
        else:
            first = (matrix("q", queries, hidden, "column", "self_attn.q_proj"),)
        outputs = self.heads * self.value_dim
        gate = (matrix("o_gate", outputs, hidden, "column", "self_attn.g_proj"),) if self.gate else ()
        return (
            *first,
            matrix("kv_a", self.entry, hidden, "none", "self_attn.kv_a_proj_with_mqa", vectors=self.kv_rank),
            self.up_projection,
            *gate,
            matrix("o", hidden, outputs, "row", "self_attn.o_proj"),
        )

    @property
    def up_projection(self) -> LinearLayer:
        """The product that writes keys and values of every head out."""
        columns = self.heads * (self.nope_dim + self.value_dim)
        return matrix("kv_b", columns, self.kv_rank, "column", "self_attn.kv_b_proj")

    def absorbed(self, kv_tokens: Numeric, query_tokens: Numeric, choices: Numeric = 1.0) -> Attend:
        """Return the launch in which queries meet the latent itself: one KV head for all heads."""
        return Attend(
            heads=self.heads,
            kv_heads=1,
            key_dim=self.entry,
            value_dim=self.kv_rank,
            entry_elements=self.entry,
            kv_tokens=kv_tokens,
            query_tokens=query_tokens,
            choices=choices,
        )

    def ways(self, forward: ForwardPass) -> tuple[Way, ...]:
        """Return the absorbed form, and in a prefill that with keys and values written out.

        The up-projection of the pass's own tokens is a product of the layer; here it is that of the history
        (section 2.1.2). One token is decoded, whatever it is called.
        """
        absorbed = with_choice(forward, (self.absorbed(forward.entries(), forward.query_tokens),))
        if forward.history is None or np.all(np.asarray(forward.query_tokens) <= 1.0):
            return (absorbed,)
        key_dim = self.nope_dim + self.rope_dim
        written_out = Attend(
            heads=self.heads,
            kv_heads=self.heads,
            key_dim=key_dim,
            value_dim=self.value_dim,
            entry_elements=key_dim + self.value_dim,
            kv_tokens=forward.entries(),
            query_tokens=forward.query_tokens,
            dtype="bf16",
        )
        return absorbed, (written_out, Multiply(product=self.up_projection, tokens=forward.history))


mixer = Latent
