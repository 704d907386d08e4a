"""Quantised KV: the target drafts for itself with four-bit weights and a four-bit copy of the whole cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
class QuantizedKV(Strategy):
    """Nothing is dropped, everything is read in fewer bits.

    ``kv_bits`` and ``weight_bits`` include the scale and zero point of a group of 128 (32 bits);
    ``reference_bits`` is the size of the values that they stand for.
    """

    kv_bits: float = 4.25
    weight_bits: float = 4.25
    reference_bits: float = 16.0

    def draft_pass(
        self,
        *,
        context_len: Numeric,
        kv_budget: Numeric,  # noqa: ARG002
        gamma: Numeric,
        drafter: Drafter | None = None,
    ) -> DraftPass:
        """Count one pass: ``S`` short entries; copies of cache and weights are held beside the target's."""
        return DraftPass(
            weights=self.weights_of(drafter),
            passes=gamma,
            kv_tokens=context_len + drafted_so_far(gamma),
            weight_fraction=self.weight_bits / self.reference_bits,
            kv_fraction=self.kv_bits / self.reference_bits,
            resident_kv_tokens=np.add(context_len, gamma),
            resident_weight_fraction=self.weight_bits / self.reference_bits,
            prefill_kv_tokens=np.multiply(context_len, 1.0 + self.kv_bits / self.reference_bits),
        )


FOUR_BITS = Figure(
    0.94, 0.02, "published", "QuantSpec (arXiv 2502.10424): .943 at 128K, above .90 elsewhere"
)

strategy = QuantizedKV(
    name="quantized_kv",
    title="4-bit self-drafting",
    summary="the target with four-bit weights and a four-bit copy of the cache",
    source="QuantSpec, arXiv 2502.10424",
    needs="kernels for four-bit weights and four-bit cache",
    drafters=("self",),
    selector=WHOLE_CACHE,
    acceptance=AcceptanceLaw(first=FOUR_BITS, rest=FOUR_BITS),
)
