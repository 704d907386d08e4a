"""Calibrating from an engine with presets: its figures there, its words, every second a slope."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.cli.calibrate import CalibrateFlags, _start
from perfmodel.engine import EngineOverhead
from perfmodel.evidence.calibration.calibrate import calibrate
from perfmodel.evidence.calibration.response import KINDS, bare_seconds, observations, priors, respond
from perfmodel.evidence.published import measurements
from perfmodel.evidence.published.steps import price_measurements
from perfmodel.model import ModelSpec

VLLM = EngineOverhead.load("vllm")


def test_kernels_are_ranked_with_the_seconds_of_an_engine_with_presets():
    rows = measurements.load(["magicdec-6"])
    found = calibrate(rows, start=VLLM, name="ours")
    best = min(found.kernels, key=lambda pair: pair.error)
    assert str(best) == "flashinfer and pytorch-symmetric"
    assert found.kernels[0].all_reduce == "pytorch-symmetric" and found.kernels[0].error < 0.02
    assert not found.engine.presets and not found.engine.families
    assert found.engine.calibrated_on == rows[0].group.hardware.name
    assert found.engine.software == VLLM.software and found.engine.aliases == VLLM.aliases


def test_an_engine_and_what_stands_for_it_on_the_accelerator_are_one_start():
    rows = measurements.load(["magicdec-6"])
    stands = VLLM.on(rows[0].group.hardware)
    assert stands.name != VLLM.name
    asked, direct = (calibrate(rows, start=start, name="ours") for start in (VLLM, stands))
    assert [vars(pair) for pair in asked.kernels] == [vars(pair) for pair in direct.kernels]
    for one, other in zip(asked.figures, direct.figures, strict=True):
        assert one.path == other.path
        assert float(np.asarray(one.after.value)) == pytest.approx(float(np.asarray(other.after.value)))


def test_a_known_engine_keeps_its_software_from_another_start():
    hardware = measurements.load(["magicdec-6"])[0].group.hardware
    start = _start(CalibrateFlags(points="", engine="vllm", start="generic", profiles_path=None), hardware)
    assert (start.software, start.description) == (VLLM.software, VLLM.description)
    assert start.attention_kernel == VLLM.on(hardware).attention_kernel
    figures = EngineOverhead.load("generic")
    assert float(start.layer_s) == float(figures.layer_s)


def priced_by(rows, seen, engine):
    """Seconds of observations as the engine prices them. [s]"""
    steps = price_measurements(rows, engine=engine)
    return np.stack([getattr(steps, kind) for kind in KINDS], axis=-1)[seen.row, seen.kind]


@pytest.mark.parametrize("table", ["magicdec-6", "magicdec-1"])
@pytest.mark.parametrize("name", ["vllm", "sglang", "generic"])
def test_zero_engine_seconds_and_their_slopes_make_up_every_price(table, name):
    rows = measurements.load([table])
    hardware = rows[0].group.hardware
    engine = replace(EngineOverhead.load(name).on(hardware), presets=())
    seen, figures = observations(rows), priors(engine, hardware)
    response = respond(rows, seen, engine, figures)
    values = np.array([figure.value for figure in figures])
    assert response.base + response.slopes @ values == pytest.approx(priced_by(rows, seen, engine), rel=1e-9)
    moved = engine.with_values({"row": 2e-5, "quantise": 1e-6, "lookup": 3e-3, "expert_layer": 2e-5})
    assert bare_seconds(rows, seen, moved) == pytest.approx(response.base, rel=1e-12)


def with_experts(rows):
    """The same cells of a model with experts, as an engine of known seconds would take them."""
    target = replace(rows[0].group, target=ModelSpec.load("mixtral-8x7b"))
    alike = [replace(row, group=target, draft=np.nan, verify=np.nan, round=np.nan, gamma=0.0) for row in rows]
    truth = EngineOverhead.load("generic").with_values({"layer": 9e-5, "expert_layer": 4e-5})
    wobble = np.exp(np.random.default_rng(0).normal(0.0, 0.03, len(alike)))
    seconds = price_measurements(alike, engine=truth).target * wobble
    return [replace(row, target=float(one)) for row, one in zip(alike, seconds, strict=True)]


def test_the_spread_of_targets_with_experts_goes_where_plans_read_it():
    dense = measurements.load(["magicdec-3b"])
    start = EngineOverhead.load("generic")
    of_experts = calibrate(with_experts(dense), start=start, name="ours").engine
    of_dense = calibrate(dense, start=start, name="ours").engine
    assert of_experts.quantities["expert_residual"].kind == "measured"
    assert float(of_experts.expert_residual) < 0.08
    assert float(of_experts.step_residual) == float(start.step_residual)
    assert of_dense.quantities["step_residual"].kind == "measured"
    assert float(of_dense.expert_residual) == float(start.expert_residual)
