"""Layer skip: the target drafts for itself by leaving after a part of its layers."""

from __future__ import annotations

from dataclasses import dataclass

from strategies.base import (
    WHOLE_CACHE,
    AcceptanceLaw,
    Drafter,
    DraftPass,
    Figure,
    Numeric,
    Strategy,
    drafted_so_far,
)


@dataclass(frozen=True, kw_only=True)
class LayerSkip(Strategy):
    """The first ``layer_fraction`` of the layers and the output layer run, on the target's own cache."""

    layer_fraction: float = 0.25

    def draft_pass(
        self,
        *,
        context_len: Numeric,
        kv_budget: Numeric,  # noqa: ARG002
        gamma: Numeric,
        drafter: Drafter | None = None,
    ) -> DraftPass:
        """Count one pass: ``S`` entries in the layers that run; nothing is held beyond the target's own."""
        return DraftPass(
            weights=self.weights_of(drafter),
            passes=gamma,
            kv_tokens=context_len + drafted_so_far(gamma),
            layer_fraction=self.layer_fraction,
        )

def _law(layer_fraction: float) -> AcceptanceLaw:
    skipped = (1.0 - layer_fraction) / 0.75
    level = Figure(1.0 - 0.13 * skipped, 0.06 * skipped, "published", SOURCE)
    return AcceptanceLaw(
        first=level,
        rest=level,
        temperature_slope=Figure(
            -1.0, 0.4, "published", "LayerSkip README, CNN/DM: .868 at T = 0, .764 at T = .7"
        ),
    )


SOURCE = "LayerSkip README, Llama-2-7B trained for early exit, layer 8 of 32, greedy: .86 to .93"

strategy = LayerSkip(
    name="layer_skip",
    title="LayerSkip",
    summary="the target's own first layers",
    source="LayerSkip, arXiv 2404.16710; the model must be trained for early exit",
    needs="a target trained for early exit",
    drafters=("self",),
    selector=WHOLE_CACHE,
    acceptance=_law(0.25),
)
