"""Cost tables: seconds of a verification and the tokens that it verifies are those that are priced."""

from __future__ import annotations

import numpy as np
import pytest

import strategies
from perfmodel.engine import EngineOverhead
from perfmodel.export import ExportOptions, export
from perfmodel.export.costs import verification_points, verify_seconds
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.planner import plan
from perfmodel.speculation import Drafter, price_round
from perfmodel.workload import Workload

H100, LLAMA = HardwareProfile.load("h100-sxm-80gb"), ModelSpec.load("llama-3.1-8b")
VLLM = EngineOverhead.load("vllm")
GAMMAS = (0, 1, 2, 4, 8)
NGRAM = Drafter(strategies.load("ngram"))
LOOKED_UP = plan(
    H100, LLAMA, VLLM, Workload((1, 8, 64), (8000,)), drafters=[NGRAM], gammas=GAMMAS, draws=0
)


def test_a_lookup_is_taken_off_once_a_round():
    drafting = [cell for cell in LOOKED_UP.cells if cell.speculates]
    assert drafting
    for cell in drafting:
        priced = price_round(
            H100, LLAMA, VLLM, NGRAM, batch=float(cell.batch_size), gamma=np.array(GAMMAS[1:]),
            context_len=8000.0,
        )  # fmt: skip
        seconds = verify_seconds(cell, LOOKED_UP.gammas)
        verified = priced.verify.total.tolist()
        assert [seconds[gamma] for gamma in GAMMAS[1:]] == pytest.approx(verified, rel=1e-6)


def test_a_mean_over_matches_verifies_that_share_of_the_drafts():
    _, points = verification_points(LOOKED_UP)
    for cell in LOOKED_UP.cells:
        if cell.speculates:
            assert 0.0 < cell.match_share < 1.0
            counts = sorted(tokens for batch, tokens, _ in points if batch == cell.batch_size)
            wanted = [round(cell.batch_size * (1.0 + cell.match_share * gamma)) for gamma in GAMMAS]
            assert counts == wanted


def test_costs_of_llamacpp_are_of_tokens_that_are_verified():
    text = export(LOOKED_UP, "llamacpp", ExportOptions(form="costs")).text
    costs = [float(number) for number in text.strip().removeprefix("GGML_BATCH_COSTS=").split(",")]
    cell = min((cell for cell in LOOKED_UP.cells if cell.speculates), key=lambda cell: cell.batch_size)
    assert len(costs) == int(1.0 + cell.match_share * GAMMAS[-1])
    assert costs[0] == 1.0 and costs == sorted(costs, reverse=True)
