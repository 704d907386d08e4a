"""Counters of a server that ran a schedule of several lengths, whose acceptance is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perfmodel.acceptance.counts import AcceptanceCounts


def scheduled_counts(
    seed: int,
    lengths: Sequence[int],
    shares: Sequence[float],
    first: float,
    rest: float,
    *,
    rounds: int = 1500,
    rows: int = 1,
    positions: bool = True,
) -> AcceptanceCounts:
    """Counters of rounds of these lengths, one row or several with shares of their own."""
    draw, deepest = np.random.default_rng(seed), max(lengths)
    table = []
    for _ in range(rows):
        own = draw.dirichlet(5.0 * np.array(shares)) if rows > 1 else np.array(shares)
        drafted = draw.choice(lengths, rounds // rows, p=own)
        chance = np.where(np.arange(deepest) == 0, first, rest)
        kept = (draw.random((drafted.size, deepest)) < chance) & (np.arange(deepest) < drafted[:, None])
        reached = np.cumprod(kept, axis=1)
        table.append([drafted.size, drafted.sum(), reached.sum(), deepest, *reached.sum(axis=0)])
    counted = np.array(table, dtype=np.float64)
    return AcceptanceCounts(
        unit="total" if rows == 1 else "window",
        rounds=counted[:, 0], drafted=counted[:, 1], accepted=counted[:, 2], gamma=counted[:, 3],
        reached=counted[:, 4:] if positions else None, requests=float(rounds // 25),
    )  # fmt: skip


def metrics_text(counts: AcceptanceCounts) -> str:
    """The first row as the text of vLLM's /metrics."""
    assert counts.reached is not None
    lines = [
        f"vllm:spec_decode_num_{name}_total {value[0]:.1f}"
        for name, value in (
            ("drafts", counts.rounds), ("draft_tokens", counts.drafted), ("accepted_tokens", counts.accepted),
        )
    ]  # fmt: skip
    lines += [
        f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{position="{place}"}} {value:.1f}'
        for place, value in enumerate(counts.reached[0])
    ]
    return "\n".join([*lines, f"vllm:request_success_total {counts.requests:.1f}"]) + "\n"
