"""Times taken on a machine become its hardware profile and the engine that ran."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.machine import fit as machine
from perfmodel.evidence.machine.fit import fit_hardware, fit_machine
from perfmodel.evidence.machine.points import (
    COLUMNS,
    MachinePoint,
    is_machine_file,
    merged,
    points_text,
    read_points,
    write_points,
)
from perfmodel.evidence.machine.steps import fit_engine, fit_machine_and_engine
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import attention, linear, step_latency

CELLS = ((1, 1024), (1, 8192), (2, 4096), (4, 1024), (4, 8192), (8, 2048))
SIZES = {
    "heads": 4, "kv_heads": 1, "head_dim": 128, "layers": 4, "hidden_size": 256, "mlp_width": 640,
    "vocab_size": 512,
}  # fmt: skip
CORE = HardwareProfile.load("a100").with_values(
    {
        "overlap": 0.0,
        "memory.bandwidth": 20e9,
        "peak.bf16": 100e9,
        "gemm.t0": 5e-6,
        "gemm.memory_fraction": 0.5,
        "gemm.compute_fraction": 0.9,
        "attention.vllm.t0": 2e-5,
        "attention.vllm.memory_fraction": 0.4,
        "attention.vllm.compute_fraction": 0.8,
        "attention.vllm.tile_large": 32.0,
    }
)
ENGINE = replace(
    EngineOverhead.load("ideal").with_values(
        {"forward": 3e-4, "layer": 2e-4, "row_layer": 2e-6, "round": 5e-4}
    ),
    attention_kernel="vllm",
)


def points_on(
    hardware, kernel, *, clock, dtype, noise=0.03, sizes=SIZES, cells=CELLS, tokens=(1, 4, 8, 16, 36)
):
    """Return kernel times that the equations give on a known machine, with noise."""
    generator = np.random.default_rng(1)
    said = {
        "dtype": dtype, "samples": 9, "clock": clock, "device": "test machine", "sms": int(hardware.sms),
        "memory_bytes": 64e9, "l2_bytes": float(hardware.l2_bytes), "torch": "2.13", "date": "2026-01-02",
    }  # fmt: skip
    found = [
        MachinePoint(kind="stream", n=1 << 28, seconds=(1 << 30) / float(hardware.memory_bandwidth), **said)
    ]
    shapes = ((768, 256), (1280, 256), (256, 640), (4096, 4096), (6144, 4096), (14336, 4096))
    for (n, k), rows in product(shapes, tokens):
        seconds = linear(hardware, tokens=rows, n=n, k=k, dtype=dtype, cold=True)
        found.append(MachinePoint(kind="linear", tokens=rows, n=n, k=k, seconds=float(seconds), **said))
    for (batch, context_len), queries in product(cells, (1, 2, 5, 9)):
        shape = {name: sizes[name] for name in ("heads", "kv_heads", "head_dim")}
        seconds = attention(
            hardware, batch=batch, query_tokens=queries, kv_tokens=context_len, kv_dtype=dtype, kernel=kernel,
            cold=True, **shape,
        )  # fmt: skip
        point = MachinePoint(
            kind="attention", batch=batch, query_tokens=queries, kv_tokens=context_len, **said
        )
        found.append(replace(point, seconds=float(seconds), **shape))
    scatter = np.exp(noise * generator.standard_normal(len(found)))
    return [replace(one, seconds=one.seconds * by) for one, by in zip(found, scatter, strict=True)]


def passes_on(hardware, engine, like, *, noise=0.02):
    """Return passes and rounds of the same machine."""
    generator = np.random.default_rng(2)
    blank = replace(like, kind="forward", tokens=None, n=None, k=None, **SIZES)
    whole_model, half_model = (replace(blank, layers=layers).model for layers in (4, 2))

    def seconds(batch, query_tokens, kv_tokens, drafting=False, model=whole_model):
        priced = step_latency(
            hardware,
            model,
            engine,
            batch=batch,
            query_tokens=query_tokens,
            kv_tokens=kv_tokens,
            drafting=drafting,
        )
        return float(priced.total)

    found = []
    for (batch, context_len), queries in product(CELLS, (1, 2, 4, 7)):
        taken = seconds(batch, queries, context_len)
        found.append(replace(blank, batch=batch, query_tokens=queries, kv_tokens=context_len, seconds=taken))
    for (batch, context_len), queries in product(CELLS[:3], (1, 7)):
        taken = seconds(batch, queries, context_len, model=half_model)
        at = replace(blank, layers=2, batch=batch, query_tokens=queries, kv_tokens=context_len)
        found.append(replace(at, seconds=taken))
    window = {"strategy": "streaming_llm", "query_tokens": None}
    for (batch, context_len), kv_budget in product(CELLS, (128, 512)):
        at = replace(blank, batch=batch, kv_tokens=context_len, kv_budget=kv_budget, **window)
        draft = seconds(batch, 1, kv_budget, drafting=True)
        found.append(replace(at, kind="draft", seconds=draft))
        whole = 3 * seconds(batch, 1, kv_budget + 1, drafting=True) + seconds(batch, 4, context_len) + 5e-4
        found.append(replace(at, kind="round", gamma=3, seconds=whole))
    scatter = np.exp(noise * generator.standard_normal(len(found)))
    return [replace(one, seconds=one.seconds * by) for one, by in zip(found, scatter, strict=True)]


@pytest.fixture(scope="module")
def core_points():
    kernels_ = points_on(CORE, "vllm", clock="thread", dtype="fp32")
    return [*kernels_, *passes_on(CORE, ENGINE, kernels_[-1])]


# The file of points.


def test_points_are_read_as_they_were_written(tmp_path, core_points):
    file = tmp_path / "points.csv"
    write_points(file, core_points)
    again = read_points(file)
    assert [one.shape for one in again] == [one.shape for one in core_points]
    assert np.allclose([one.seconds for one in again], [one.seconds for one in core_points], rtol=1e-5)
    assert is_machine_file(file.read_bytes())
    assert points_text(again) == file.read_text()
    assert file.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_new_time_takes_the_place_of_an_old_one_of_its_shape(core_points):
    newer = replace(core_points[3], seconds=1.0, samples=20, date="2027-01-01", kernel="other")
    found = merged(core_points, [newer])
    assert len(found) == len(core_points)
    assert newer in found
    assert core_points[3] not in found


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("magic,fp32,1e-3,4", "magic.*There are stream"),
        ("linear,fp64,1e-3,4", "fp64"),
        ("linear,fp32,1e-3,4", "needs n, k"),
        ("stream,fp32,1e-3,4", "needs n"),
        ("linear,fp32,fast,4", "fast.*no number"),
        ("linear,fp32,1e-3,4,5", "5 cells"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, row, message):
    file = tmp_path / "points.csv"
    file.write_text(f"kind,dtype,seconds,tokens\n{row}\n")
    with pytest.raises(SpecError, match=message) as refused:
        read_points(file)
    assert refused.value.faults[0].line == 2


def test_a_time_must_be_above_zero(tmp_path):
    file = tmp_path / "points.csv"
    file.write_text("kind,dtype,seconds,n\nstream,fp32,0,4\n")
    with pytest.raises(SpecError, match="no time"):
        read_points(file)


@pytest.mark.parametrize(
    "header", ["kind,dtype", "kind,dtype,seconds,colour", "batch_size,context_len,step_ms"]
)
def test_a_file_of_other_columns_is_refused(tmp_path, header):
    file = tmp_path / "points.csv"
    file.write_text(header + "\n")
    with pytest.raises(SpecError, match="column"):
        read_points(file)
    with pytest.raises(SpecError, match="does not exist"):
        read_points(tmp_path / "absent.csv")


# The profile.


def test_the_profile_of_a_core_gives_back_its_times(core_points):
    found = fit_machine(core_points, "my-core")
    assert found.profile.overlap == 0.0
    assert found.errors["linear"] < 0.04
    assert found.errors["attention"] < 0.04
    rate = found.profile.gemm.compute_fraction * found.profile.peak("fp32")
    assert rate == pytest.approx(90e9, rel=0.1)
    kernel = found.profile.attention["torch"]
    assert kernel.memory_fraction * found.profile.memory_bandwidth == pytest.approx(8e9, rel=0.1)
    assert kernel.compute_fraction * found.profile.peak("fp32") == pytest.approx(80e9, rel=0.1)
    assert found.profile.sms == CORE.sms


@pytest.mark.parametrize(
    ("name", "kernel", "packs"),
    [
        ("h100-sxm-80gb", "flashinfer", 1.0),
        pytest.param("l40s-48gb", "vllm", 0.0, marks=pytest.mark.slow),
    ],
)
def test_the_profile_of_a_gpu_gives_back_its_times_and_the_form_of_its_kernel(
    monkeypatch, name, kernel, packs
):
    monkeypatch.setattr(machine, "TILES", machine.TILES[1:2])
    card = HardwareProfile.load(name)
    sizes = {**SIZES, "heads": 32, "kv_heads": 8}
    cells = ((1, 4096), (1, 32768), (4, 8192), (16, 2048), (16, 32768), (64, 8192))
    tokens = (1, 8, 32, 96, 256, 768)
    points = points_on(
        card, kernel, clock="cuda-graph", dtype="bf16", sizes=sizes, cells=cells, tokens=tokens
    )  # fmt: skip
    found = fit_machine(points, "my-card", like=card)
    assert found.errors["linear"] < 0.06
    assert found.errors["attention"] < 0.06
    assert found.profile.attention["torch"].packs == packs
    assert found.profile.overlap == 1.0
    assert found.profile.peak_flops["bf16"] == pytest.approx(float(card.peak_flops["bf16"]))
    assert found.profile.quantities["peak.bf16"].kind == "published"
    assert found.profile.quantities["gemm.memory_fraction"].kind == "measured"
    assert set(found.kept) <= set(found.profile.quantities)


def test_without_a_data_sheet_the_highest_rate_stands_for_the_peak(core_points):
    profile = fit_machine(core_points, "my-core").profile
    assert profile.gemm.memory_fraction <= 1.0
    assert profile.gemm.compute_fraction <= 1.0
    assert profile.quantities["memory.bandwidth"].kind == "measured"
    assert profile.quantities["peak.bf16"].kind == "assumed"
    assert "fitted to" in profile.quantities["gemm.memory_fraction"].source


def test_the_text_is_a_profile_that_loads(tmp_path, core_points):
    file = tmp_path / "my-core.yaml"
    file.write_text(fit_hardware(core_points, "my-core"))
    assert HardwareProfile.load(file).name == "my-core"


def test_points_of_two_machines_or_too_few_are_refused(core_points):
    other = replace(core_points[1], device="another")
    with pytest.raises(SpecError, match="another, test machine"):
        fit_hardware([*core_points, other], "mine")
    few = [one for one in core_points if one.kind == "attention"][:7]
    with pytest.raises(SpecError, match="7 attention times are too few"):
        fit_hardware([*(one for one in core_points if one.kind == "linear"), *few], "mine")


# The engine.


def test_passes_tell_what_the_engine_takes_beside_its_kernels(core_points):
    found = fit_engine(core_points, fit_machine(core_points, "my-core").profile, "my-engine")
    assert found.engine.forward_s == pytest.approx(3e-4, rel=0.5)
    assert found.engine.layer_s == pytest.approx(2e-4, rel=0.3)
    assert found.engine.forward_s + 4 * found.engine.layer_s == pytest.approx(1.1e-3, rel=0.1)
    assert found.engine.attention_kernel == "torch"
    assert {one.kind for one in found.errors} == {"target", "draft", "verify", "round"}
    assert max(one.held_out for one in found.errors) < 0.08


def test_whole_passes_correct_the_shares_of_the_kernels(core_points):
    # Inside a model attention reads 20 % more slowly than alone.
    slower = CORE.with_values({"attention.vllm.memory_fraction": 0.4 / 1.2})
    alone = [one for one in core_points if one.kind in ("stream", "linear", "attention")]
    points = [*alone, *passes_on(slower, ENGINE, alone[-1])]
    fitted, engine = fit_machine_and_engine(points, "my-core", "my-engine")
    kernel = fitted.profile.attention["torch"]
    assert kernel.memory_fraction * fitted.profile.memory_bandwidth == pytest.approx(8e9 / 1.2, rel=0.1)
    assert "passes and rounds" in fitted.profile.quantities["attention.torch.memory_fraction"].source
    assert engine.engine.calibrated_on == "my-core"


# The command.


def calibrated(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)], prog_name="draftplan")


def test_calibrate_makes_a_profile_and_an_engine_of_measured_points(tmp_path, core_points):
    points, profile, engine = (tmp_path / name for name in ("points.csv", "my-core.yaml", "my-engine.yaml"))
    write_points(points, core_points)
    result = calibrated(points, "-o", profile, "--engine-output", engine, "--format", "json")
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)
    assert body["hardware"] == "my-core"
    assert body["held_out_errors"]["target"] < 0.1
    assert HardwareProfile.load(profile).name == "my-core"
    assert EngineOverhead.load(engine).calibrated_on == "my-core"


@pytest.mark.slow
def test_calibrate_shows_the_profile_where_no_file_is_named(tmp_path, core_points):
    points = tmp_path / "points.csv"
    write_points(points, core_points)
    shown = calibrated(points)
    assert shown.exit_code == 0
    assert "Hardware profile (write it with -o)" in shown.stdout


def test_calibrate_refuses_a_name_that_is_no_profile(tmp_path, core_points):
    points = tmp_path / "points.csv"
    write_points(points, core_points)
    for output in ("My Machine.yaml", "machine.json"):
        result = calibrated(points, "-o", tmp_path / output)
        assert result.exit_code == 2
        assert "ending .yaml" in result.stderr
    assert calibrated(points, "--format", "csv").exit_code == 2
