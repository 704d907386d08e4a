"""Medusa: heads on the target's last hidden state each predict one further token, without attention."""

from __future__ import annotations

from strategies.base import WHOLE_CACHE, AcceptanceLaw, Figure, HeadShape
from strategies.eagle import TEMPERATURE, Head

ACCURACIES = (
    "best guesses of three heads of Llama-3.1-70B: .68, .33 and .18 (TensorRT-LLM issue 2506), as a chain, "
    "not a tree"
)
HEADS = 5

strategy = Head(
    name="medusa",
    title="Medusa",
    summary="one head for each further token on the target's last hidden state",
    source="Medusa, arXiv 2401.10774",
    head=HeadShape(
        layers=1, features=0, quantized=False, own_attention=True, parallel=True, block=1, longest=HEADS,
        output_heads=HEADS,
    ),
    needs="trained Medusa heads",
    drafters=("head",),
    selector=WHOLE_CACHE,
    acceptance=AcceptanceLaw(
        first=Figure(0.66, 0.08, "published", ACCURACIES),
        rest=Figure(0.50, 0.10, "published", ACCURACIES),
        temperature_slope=TEMPERATURE,
        unseen=0.0,
    ),
)  # fmt: skip
