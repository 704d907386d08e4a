"""A mixture of experts: routed ones, of which a token visits a few, and shared ones that all tokens visit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmodel.files.numbers import Numeric
from perfmodel.model.channels.base import ChannelMixer, mlp_products
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Sizes
from perfmodel.model.routing import gpus_visited

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

COUNTS = (
    "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "ffn_config.moe_num_experts",
    "moe.num_experts", "n_experts",
)  # fmt: skip
CHOSEN = (
    "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_top_k", "moe_topk", "moe_k",
    "top_k_experts", "ffn_config.moe_top_k", "moe.num_experts_per_tok",
)  # fmt: skip
WIDTHS = (
    "moe_intermediate_size", "expert_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size",
    "moe.expert_hidden_dim",
    "ffn_config.ffn_hidden_size", "intermediate_size", "ffn_hidden_size", "hidden_dim",
)  # fmt: skip
SHARED = (
    "n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts",
    "moe.num_shared_experts",
)  # fmt: skip
SHARED_EACH = "moe_shared_expert_intermediate_size"
SHARED_WIDTHS = (
    "shared_expert_intermediate_size", SHARED_EACH, "share_expert_dim",
    "shared_intermediate_size", "shared_experts_intermediate_size",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Experts(ChannelMixer):
    """`per_token` of `experts`, and shared ones beside them.

    Parameters
    ----------
    experts, per_token : routed experts, and how many a token visits; the mean where some compute nothing.
    choices : outputs of the router, experts that compute nothing included. [1]
    width, shared_width : inner width of a routed expert, and of all shared ones together. [1]
    latent : width that routed experts read and write, between two products of every token; 0 is the hidden
        size. [1]
    gated, biased, shared_gate, router_bias : whether experts are gated, have biases, whether the shared ones
        have a gate, the router a bias.
    """

    words = ("moe", "experts", "sparse", "E")
    label = "experts"

    experts: int
    per_token: float
    choices: int
    width: int
    shared_width: int = 0
    latent: int = 0
    gated: bool = True
    biased: bool = False
    shared_gate: bool = False
    router_bias: bool = False

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return the experts of the config."""
        family = sizes.family
        experts = keys.size(*COUNTS, high=MAX_WIDTH)
        chosen = keys.size(*CHOSEN, high=MAX_WIDTH)
        idle = keys.optional_size("zero_expert_num", high=MAX_WIDTH, low=0, default=0)
        if chosen > experts + idle:
            keys.fault(
                keys.place(*CHOSEN),
                f"found {chosen}",
                f"Give at most the {experts} experts",
                given=(COUNTS[0],),
            )
        width = keys.size(*WIDTHS, high=MAX_WIDTH)
        return cls(
            experts=experts,
            per_token=chosen * experts / (experts + idle) if idle else chosen,
            choices=experts + idle,
            width=width,
            shared_width=_shared_width(keys, sizes, width),
            latent=keys.optional_size(
                "moe_latent_size", "routed_expert_hidden_size", "moe_hidden_size", high=MAX_WIDTH, default=0
            ),
            gated=family.gated_experts,
            biased=family.expert_bias,
            shared_gate=keys.find("shared_expert_intermediate_size") is not None,
            router_bias=family.router_bias,
        )

    def copies_sent(self, gpus: Numeric) -> Numeric:
        """GPUs that a token is sent to where they deal out the experts, a copy to each. [GPUs]"""
        return gpus_visited(self.experts, self.per_token, gpus)

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Router, the way into and out of a narrower width, routed experts, shared experts."""
        vectors = hidden if self.shared_gate and self.shared_width else 0
        vectors += self.choices if self.router_bias else 0
        inner = self.latent or hidden
        routed: tuple[LinearLayer, ...] = mlp_products(
            "expert_", self.width, inner, gated=self.gated, biased=self.biased,
            experts=(self.experts, self.per_token), block="experts", module="mlp.experts",
        )  # fmt: skip
        products = [
            LinearLayer(
                "router", self.choices, hidden, 1, "none", block="experts", vectors=vectors,
                keeps_precision=True,
                modules=("mlp.gate",),
            )
        ]  # fmt: skip
        if self.latent:
            ways = (("latent_in", self.latent, hidden, "fc1"), ("latent_out", hidden, self.latent, "fc2"))
            products += [
                LinearLayer(name, n, k, 1, "none", block="experts", modules=(f"mlp.{module}_latent_proj",))
                for name, n, k, module in ways
            ]
        products += routed
        if self.shared_width:
            products += mlp_products(
                "shared_", self.shared_width, hidden, gated=self.gated, block="experts",
                module="mlp.shared_experts",
            )  # fmt: skip
        return tuple(products)


def _shared_width(keys: ConfigKeys, sizes: Sizes, width: int) -> int:
    """Return the inner width of all shared experts together."""
    count = keys.optional_size(*SHARED, high=MAX_WIDTH, low=0, default=sizes.family.shared_experts)
    entry = keys.find(*SHARED_WIDTHS)
    if entry is None:
        return count * width
    stated = keys.optional_size(*SHARED_WIDTHS, high=MAX_WIDTH, low=0, default=0)
    return stated * max(count, 1) if entry[0][-1] == SHARED_EACH else stated


mixer = Experts
