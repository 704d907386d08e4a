"""Calibration finds which kernels ran, says so, and refuses points that none of the profile explains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.calibration.calibrate import calibrate
from perfmodel.evidence.published import measurements
from perfmodel.evidence.published.steps import price_measurements

GENERIC = EngineOverhead.load("generic").with_values({"row": 0.0, "streaming": 1.0, "draft_forward": 1.0})
"""As `generic`, where what is not fitted is what these tables were measured with."""
TABLES = ("magicdec-3a", "magicdec-3b", "magicdec-3c")


def exact_steps(tables, engine):
    """Return the rows of published tables with the very times that an engine takes."""
    rows = measurements.load(tables)
    steps = price_measurements(rows, engine=engine)
    return [
        replace(row, target=target, draft=draft, verify=verify, round=whole)
        for row, target, draft, verify, whole in zip(
            rows,
            steps.target.tolist(),
            steps.draft.tolist(),
            steps.verify.tolist(),
            steps.round.tolist(),
            strict=True,
        )
    ]


@pytest.fixture(scope="module")
def flashinfer_steps():
    return exact_steps(TABLES, EngineOverhead.load("magicdec-a100"))


@pytest.fixture(scope="module")
def calibration(flashinfer_steps):
    return calibrate(flashinfer_steps, start=GENERIC, name="ours")


def test_exact_steps_are_explained_from_any_start(calibration):
    truth = EngineOverhead.load("magicdec-a100")
    assert GENERIC.attention_kernel == "vllm"
    assert calibration.engine.attention_kernel == "flashinfer"
    assert calibration.engine.all_reduce == "pytorch-symmetric"
    assert float(np.asarray(calibration.engine.step_residual)) < 0.05
    assert len(calibration.determined) == 6
    for figure in calibration.determined:
        value = float(np.asarray(truth.quantities[figure.path].value))
        assert figure.after.low <= value <= figure.after.high, figure.path


@pytest.mark.parametrize(
    ("kernel", "all_reduce"), [("vllm", "nccl"), ("sglang", "custom-graph"), ("flashinfer", "nccl")]
)
def test_whatever_ran_is_found(kernel, all_reduce):
    ran = replace(EngineOverhead.load("magicdec-a100"), attention_kernel=kernel, all_reduce=all_reduce)
    calibration = calibrate(exact_steps(["magicdec-3c"], ran), start=GENERIC, name="ours")
    assert calibration.engine.attention_kernel == kernel
    assert calibration.engine.all_reduce == all_reduce


def test_every_pair_of_the_profile_is_tried_and_the_best_comes_first(flashinfer_steps, calibration):
    hardware = flashinfer_steps[0].group.hardware
    pairs = {(pair.attention_kernel, pair.all_reduce) for pair in calibration.kernels}
    assert len(calibration.kernels) == len(pairs) == len(hardware.attention) * len(hardware.all_reduce)
    errors = [pair.error for pair in calibration.kernels]
    assert errors == sorted(errors)
    assert errors[0] < 0.001 < 0.1 < errors[-1]


@pytest.mark.parametrize("kernel", ["flashinfer", "sglang", "vllm"])
def test_kernels_that_the_points_hardly_tell_apart_are_those_of_the_start(kernel):
    start = replace(GENERIC, attention_kernel=kernel, all_reduce="pytorch-symmetric")
    calibration = calibrate(measurements.load(["magicdec-6"]), start=start, name="ours")
    taken, *others = calibration.kernels
    assert (taken.attention_kernel, taken.all_reduce) == (kernel, "pytorch-symmetric")
    assert taken.error < 1.1 * others[0].error
    assert [pair.error for pair in others] == sorted(pair.error for pair in others)


def test_a_named_kernel_is_the_only_one_tried(flashinfer_steps):
    calibration = calibrate(
        flashinfer_steps, start=GENERIC, name="ours", attention_kernel="flashinfer", all_reduce="NCCL"
    )
    assert [str(pair) for pair in calibration.kernels] == ["flashinfer and NCCL"]
    assert "pairs of kernels" not in calibration.text


def test_a_share_of_one_kernel_says_that_it_ran():
    path = "attention.flashinfer.memory_fraction"
    rows = measurements.load(["magicdec-6"])
    calibration = calibrate(rows, start=GENERIC, name="ours", achieved=[path])
    assert {pair.attention_kernel for pair in calibration.kernels} == {"flashinfer"}


def test_one_gpu_tells_nothing_of_an_all_reduce():
    rows = [replace(row, tensor_parallel=1) for row in measurements.load(["magicdec-6"])]
    start = GENERIC.calling(attention_kernel="vllm", all_reduce=GENERIC.all_reduce)
    alone = [
        replace(row, target=target, draft=np.nan, verify=np.nan, round=np.nan)
        for row, target in zip(rows, price_measurements(rows, engine=start).target.tolist(), strict=True)
    ]
    calibration = calibrate(alone, start=start, name="ours")
    assert {pair.all_reduce for pair in calibration.kernels} == {start.all_reduce}
    assert calibration.engine.attention_kernel == start.attention_kernel


def test_points_that_no_kernel_explains_are_refused(flashinfer_steps):
    with pytest.raises(SpecError) as refusal:
        calibrate(flashinfer_steps, start=GENERIC, name="ours", attention_kernel="vllm")
    said = str(refusal.value)
    assert "points: nothing explains them" in said and "vllm and" in said
    assert "magicdec-3c" in said and "Check that cell, the accelerator" in said


def test_verifications_that_grow_as_under_no_kernel_are_refused():
    rows = measurements.load(["magicdec-6"])
    rows = [replace(row, verify=row.verify * (1.0 + row.batch / 64)) for row in rows]
    with pytest.raises(SpecError, match="nothing explains them"):
        calibrate(rows, start=GENERIC, name="ours")


@pytest.mark.parametrize("section", ["attention_kernel", "all_reduce"])
def test_a_kernel_that_the_profile_does_not_have_is_refused(section, flashinfer_steps):
    with pytest.raises(SpecError, match=f"{section}: a100-sxm-80gb has no 'flash'; it has "):
        calibrate(flashinfer_steps, start=GENERIC, name="ours", **{section: "flash"})


def test_the_report_and_the_file_say_which_kernels_were_taken_and_how_near_the_next_are(tmp_path):
    file = tmp_path / "ours.yaml"
    arguments = ["calibrate", ",".join(TABLES), "--engine", "ours", "-o", str(file)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert "Kernels, of 18 pairs of the profile, the first taken" in result.stdout
    engine = EngineOverhead.load(file)
    assert engine.attention_kernel == "flashinfer"
    taken = f"flashinfer and {engine.all_reduce}"
    assert f"of 18 pairs of kernels, {taken} foretell cells" in engine.quantities["step_residual"].source
    assert engine.description.endswith(f"with {taken}")
