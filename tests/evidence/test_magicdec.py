"""Rounds that MagicDec published (arXiv 2408.11049v5), priced as its engine on its accelerators.

They are among those that the engines were calibrated on; the limits hold form and figures together. PG-19,
greedy, 8 GPUs; Llama-3.2-1B drafts for Llama-3.1-8B and TinyLlama-1.1B for Llama-2-7B, or the target itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import strategies
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, Round, price_round

ENGINES = {
    "H100": ("h100-sxm-80gb", "magicdec-h100"),
    "A100": ("a100-sxm-80gb", "magicdec-a100"),
    "L40": ("l40-48gb", "magicdec-l40"),
}
LIMITS = {"H100": 0.08, "A100": 0.12, "L40": 0.12}
"""Largest mean absolute relative error of speedup."""
PARTS = {"H100": (0.05, 0.08, 0.05), "A100": (0.15, 0.25, 0.15), "L40": (0.05, 0.10, 0.05)}
"""Largest relative error of T_T, T_D and T_V in one row; A100's rows scatter by a tenth among themselves."""


class Row(NamedTuple):
    """One published round; times in milliseconds, as in the tables."""

    gpu: str
    target: str
    draft: str | None
    strategy: str
    kv_budget: int
    context_len: int
    batch: int
    gamma: int
    target_ms: float
    draft_ms: float
    verify_ms: float
    tokens_per_round: float
    speedup: float


LLAMA3, LLAMA2, SMALL3, SMALL2 = "llama-3.1-8b", "llama-2-7b-32k", "llama-3.2-1b", "tinyllama-1.1b"
WINDOW, SNAP = "streaming_llm", "snapkv"
TABLE_6 = (
    Row("H100", LLAMA3, SMALL3, WINDOW, 512, 32000, 16, 3, 6.18, 1.477, 6.71, 2.43, 1.27),
    Row("H100", LLAMA3, None, WINDOW, 512, 32000, 16, 3, 6.18, 3.443, 6.73, 3.09, 1.08),
    Row("H100", LLAMA3, None, SNAP, 2049, 32000, 16, 3, 6.18, 3.517, 6.84, 3.41, 1.17),
    Row("H100", LLAMA3, SMALL3, WINDOW, 512, 32000, 32, 3, 9.10, 1.570, 9.70, 2.43, 1.46),
    Row("H100", LLAMA3, None, WINDOW, 512, 32000, 32, 3, 9.10, 3.850, 9.74, 3.06, 1.26),
    Row("H100", LLAMA3, None, SNAP, 2049, 32000, 32, 4, 9.10, 3.947, 10.36, 4.03, 1.37),
    Row("H100", LLAMA3, SMALL3, WINDOW, 512, 32000, 64, 3, 14.84, 1.683, 15.86, 2.44, 1.67),
    Row("H100", LLAMA3, None, WINDOW, 512, 32000, 64, 3, 14.84, 4.273, 15.93, 3.08, 1.55),
    Row("H100", LLAMA3, None, SNAP, 2049, 32000, 64, 5, 14.84, 4.582, 17.70, 4.55, 1.64),
    Row("H100", LLAMA3, SMALL3, WINDOW, 512, 32000, 128, 3, 26.07, 1.930, 28.51, 2.43, 1.81),
    Row("H100", LLAMA3, None, WINDOW, 512, 32000, 128, 4, 26.07, 4.740, 30.34, 3.57, 1.85),
    Row("H100", LLAMA3, None, SNAP, 2049, 32000, 128, 6, 26.07, 5.555, 31.60, 5.07, 2.01),
)
TABLE_3 = (
    Row("A100", LLAMA2, SMALL2, WINDOW, 512, 1024, 64, 2, 10.83, 4.630, 13.05, 2.19, 1.00),
    Row("A100", LLAMA2, SMALL2, WINDOW, 512, 8000, 128, 2, 49.89, 6.270, 53.78, 2.18, 1.60),
    Row("A100", LLAMA2, None, WINDOW, 512, 4000, 32, 2, 11.89, 7.710, 13.17, 2.56, 1.02),
    Row("A100", LLAMA2, None, WINDOW, 512, 16000, 64, 2, 55.08, 10.435, 58.15, 2.51, 1.71),
    Row("A100", LLAMA3, None, WINDOW, 512, 4000, 256, 2, 23.23, 19.645, 35.05, 2.53, 0.76),
    Row("A100", LLAMA3, None, WINDOW, 512, 8000, 64, 2, 14.16, 8.490, 16.06, 2.51, 1.03),
    Row("A100", LLAMA3, None, WINDOW, 512, 32000, 128, 2, 47.24, 14.130, 54.98, 2.45, 1.35),
    Row("A100", LLAMA3, None, WINDOW, 512, 100_000, 32, 2, 37.70, 7.550, 39.84, 2.45, 1.64),
)
TABLE_1 = (
    Row("L40", LLAMA3, None, WINDOW, 512, 32000, 32, 3, 36.62, 14.703, 45.12, 3.00, 1.21),
    Row("L40", LLAMA2, None, WINDOW, 512, 8000, 32, 2, 35.13, 14.530, 42.02, 2.53, 1.22),
    Row("L40", LLAMA2, None, WINDOW, 512, 8000, 64, 3, 62.92, 19.443, 74.85, 3.14, 1.46),
)
ROWS = (*TABLE_6, *TABLE_3, *TABLE_1)


def priced(row: Row) -> Round:
    """The round as the equations have it, with the published tokens per round."""
    hardware, engine = ENGINES[row.gpu]
    return price_round(
        HardwareProfile.load(hardware),
        ModelSpec.load(row.target),
        EngineOverhead.load(engine),
        Drafter(strategies.load(row.strategy), ModelSpec.load(row.draft) if row.draft else None),
        batch=float(row.batch),
        context_len=float(row.context_len),
        kv_budget=float(row.kv_budget),
        gamma=float(row.gamma),
        tensor_parallel=8.0,
        tokens_per_round=row.tokens_per_round,
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.gpu}-{row.target}-{row.strategy}-{row.batch}")
def test_every_part_of_a_round_is_near_what_was_measured(row):
    found, (target, draft, verify) = priced(row), PARTS[row.gpu]
    assert found.baseline.total * 1e3 == pytest.approx(row.target_ms, rel=target)
    assert found.draft.total * 1e3 == pytest.approx(row.draft_ms, rel=draft)
    assert found.verify.total * 1e3 == pytest.approx(row.verify_ms, rel=verify)
    assert found.speedup == pytest.approx(row.speedup, rel=max(target, verify))


@pytest.mark.parametrize("gpu", LIMITS)
def test_speedups_are_off_by_little_on_average(gpu):
    off = [priced(row).speedup / row.speedup - 1.0 for row in ROWS if row.gpu == gpu]
    assert np.mean(np.abs(off)) <= LIMITS[gpu]
    assert abs(np.mean(off)) <= 0.05


def test_whether_speculation_pays_is_told_right():
    """Where it was measured to gain or lose more than a twentieth."""
    for row in ROWS:
        if abs(row.speedup - 1.0) > 0.05:
            assert (priced(row).speedup > 1.0) == (row.speedup > 1.0)


def test_more_sequences_gain_more_at_32000_tokens():
    """The paper's finding: speedup grows with the batch where the cache is what is read."""
    for strategy, draft in ((WINDOW, SMALL3), (WINDOW, None), (SNAP, None)):
        rows = [row for row in TABLE_6 if (row.strategy, row.draft) == (strategy, draft)]
        assert np.all(np.diff([float(priced(row).speedup) for row in rows]) > 0.0)
