"""Tell how many tokens a round drafts from SGLang's accept length and accept rate, whatever the rate means.

SGLang has printed three numbers under the name: tokens per round over draft steps (builds of early October
2025), tokens per round over ``--speculative-num-draft-tokens``, which is one more than a chain drafts
(October 2025 into 2026), and accepted over drafted tokens (later). Source: github.com/sgl-project/sglang,
managers/scheduler_metrics_mixin.py, later managers/scheduler_components/metrics_reporter.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

__all__ = ["ASK_GAMMA", "drafted_per_round", "readings"]

ASK_GAMMA = "Give the tokens drafted per round beside it: --gamma N (--speculative-num-steps)"
_LARGEST = 1000


def readings(printed: Iterable[tuple[str, str]]) -> dict[str, list[int]]:
    """Return the drafts per round that fit all lines, by meaning of the rate; those without are left out.

    Under a meaning one quotient is the same whole number in every line: (length - 1) / rate = gamma for
    accepted over drafted, length / rate = gamma + 1 or gamma for tokens over draft tokens or steps.

    Parameters
    ----------
    printed : accept length and accept rate as they are printed; their last digit is rounded.
    """
    table = [(*_ends(length), *_ends(rate)) for length, rate in printed]
    if not table:
        return {}
    least, most, low, high = np.array(table, dtype=np.float64).T
    fits = {
        "accepted over drafted": _whole(least - 1.0, most - 1.0, low, high),
        "tokens over draft tokens": [q - 1 for q in _whole(least, most, low, high) if q > 1],
    }
    if np.any(low > 1.0):
        fits = {"tokens over draft steps": _whole(least, most, low, high)}
    return {meaning: drafts for meaning, drafts in fits.items() if drafts}


def drafted_per_round(printed: Iterable[tuple[str, str]]) -> int | str:
    """Return the drafts per round if the lines settle them, else what is open in a sentence."""
    fits = readings(printed)
    lengths = sorted({draft for drafts in fits.values() for draft in drafts})
    if len(lengths) == 1:
        return lengths[0]
    if not lengths:
        return (
            "the lines do not tell how many tokens are drafted per round: neither (accept len - 1) / "
            "accept rate (SGLang of 2026) nor accept len / accept rate (October 2025 into 2026) is the same "
            "in all of them"
        )
    listed = "; ".join(
        f"{_range(drafts)} if the rate is {meaning}" for meaning, drafts in fits.items()
    )
    return f"the lines do not tell how many tokens are drafted per round: {listed}"


def _range(drafts: list[int]) -> str:
    return str(drafts[0]) if len(drafts) == 1 else f"{drafts[0]} to {drafts[-1]}"


def _ends(text: str) -> tuple[float, float]:
    """Return the interval of values that are printed so."""
    half = max(0.5 * 10.0 ** -len(text.partition(".")[2]), 1e-8) * (1.0 + 1e-6)
    return max(float(text) - half, 0.0), float(text) + half


def _whole(
    least: np.ndarray, most: np.ndarray, low: np.ndarray, high: np.ndarray
) -> list[int]:
    """Return the whole numbers that lie between the ends of the quotient in every line."""
    with np.errstate(divide="ignore"):
        bottom, top = np.maximum(least, 0.0) / high, np.where(low > 0.0, most / low, np.inf)
    first, last = float(np.max(bottom)), float(np.min(top))
    start = max(int(np.ceil(first)), 1)
    return list(range(start, min(int(min(last, _LARGEST)), _LARGEST) + 1)) if last >= start else []
