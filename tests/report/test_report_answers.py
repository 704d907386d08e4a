"""A page answers what is needed and what could change the decision, with a plan's own numbers."""

from __future__ import annotations

import base64

import numpy as np
import pytest

import perfmodel
import strategies
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.report import report_content, report_html
from perfmodel.speculation import Drafter
from perfmodel.workload import Workload

pytest.importorskip("plotly")

ASKED = HardwareProfile.load("h100-sxm-80gb"), ModelSpec.load("llama-3.1-8b"), EngineOverhead.load("generic")
WORKLOAD = Workload([1, 64], [8000, 32_000])
DRAFTERS = [Drafter(strategies.load(name)) for name in ("snapkv", "streaming_llm")]
CONTENT = report_content(*ASKED, WORKLOAD, drafters=DRAFTERS, gammas=range(7), tensor_parallel=8)


def unpacked(array):
    return np.frombuffer(base64.b64decode(array["floats"]), dtype="<f4").reshape(array["shape"])[..., 0, 0]


def test_what_is_needed_and_known_of_a_drafter_is_what_its_plan_says():
    compared = 0
    for each in CONTENT.priced["needed"]:
        drafter = Drafter(strategies.load(each["label"]))
        alone = {"drafters": [drafter], "gammas": range(7), "tensor_parallel": 8, "draws": 0}
        plan = perfmodel.plan(*ASKED, WORKLOAD, **alone)
        for cell in plan.cells:
            if cell.speculates:
                row = WORKLOAD.batch_sizes.index(cell.batch_size)
                place = row, WORKLOAD.context_lens.index(cell.context_len)
                compared += 1
                assert unpacked(each["needed"])[place] == pytest.approx(cell.break_even_alpha, rel=1e-6)
                assert unpacked(each["known"])[place] == pytest.approx(cell.alpha, rel=1e-6)
    assert compared


def test_the_doubts_are_those_of_the_cell_that_gains_most_and_the_page_says_them():
    best = max(CONTENT.plan.cells, key=lambda cell: cell.speedup)
    doubts = CONTENT.priced["doubts"]
    assert (doubts["batch"], doubts["context"], doubts["middle"]) == (
        best.batch_size, best.context_len, best.speedup
    )  # fmt: skip
    assert doubts["figures"]
    assert doubts["figures"][0]["name"].split(" (")[0] in CONTENT.doubts
    assert CONTENT.doubts in report_html(CONTENT)


def test_a_page_on_which_nothing_drafts_has_nothing_to_doubt():
    content = report_content(*ASKED, WORKLOAD, drafters=[], tensor_parallel=8)
    assert content.priced["needed"] == [] and content.doubts == ""
    assert "No figure in doubt moves this answer." in report_html(content)
