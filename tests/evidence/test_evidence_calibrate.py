"""Fitting an engine: truth is recovered, intervals cover it, and what points cannot tell stays as it was."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.calibration.calibrate import calibrate
from perfmodel.evidence.calibration.design import candidates, next_cells
from perfmodel.evidence.calibration.fit import fit_figures
from perfmodel.evidence.calibration.response import observations, priors, respond
from perfmodel.evidence.published import measurements
from perfmodel.evidence.published.measurements import read_measurements
from perfmodel.evidence.published.steps import price_measurements

START = replace(
    EngineOverhead.load("generic").with_values({"row": 0.0, "streaming": 1.0, "draft_forward": 1.0}),
    all_reduce="pytorch-symmetric",
    attention_kernel="flashinfer",
    description="",
)
TRUTH = {
    "forward": 6e-4,
    "layer": 7e-5,
    "row_layer": 3e-7,
    "draft_row_layer": 2e-7,
    "round": 1.4e-3,
    "round_row": 3e-6,
}


def simulated(tables, truth, noise=0.0, seed=0, hardware=None):
    """Return the rows of published tables with the times that an engine of known figures would take."""
    rows = measurements.load(tables)
    steps = price_measurements(rows, engine=START.with_values(truth), hardware=hardware)
    wobble = np.exp(np.random.default_rng(seed).normal(0.0, noise, (4, len(rows))))
    return [
        replace(
            row,
            target=steps.target[index] * wobble[0, index],
            draft=steps.draft[index] * wobble[1, index],
            verify=steps.verify[index] * wobble[2, index],
            round=steps.overhead[index] * wobble[3, index]
            + steps.gamma[index] * steps.draft[index] * wobble[1, index]
            + steps.verify[index] * wobble[2, index],
        )
        for index, row in enumerate(rows)
    ]


def fitted(rows, **settings):
    found = calibrate(rows, start=START, name="ours", **settings)
    return found, {one.path: one for one in found.figures}


def plain(text, **given):
    said = {"hardware": "h100-sxm-80gb", "target_model": "llama-3.1-8b", "tensor_parallel": "8", **given}
    return read_measurements(text.encode(), "log.csv", given=said)


# Recovering what is true.


def test_without_noise_the_truth_is_found():
    _, figures = fitted(simulated(["magicdec-3a", "magicdec-3c"], TRUTH))
    for path, value in TRUTH.items():
        assert figures[path].determined
        assert float(figures[path].after.value) == pytest.approx(value, rel=0.03), path


def test_with_noise_the_truth_is_near_and_the_intervals_cover_it():
    rows = simulated(["magicdec-3a", "magicdec-3c"], TRUTH)
    start = START.with_values({"row": 0.0, "lookup": 0.0, "lookup_token": 0.0})  # nothing but what is true
    seen, figures = observations(rows), priors(start, rows[0].group.hardware)
    figures = [figure for figure in figures if figure.path in TRUTH]
    response = respond(rows, seen, start, figures)
    truth = np.array(list(TRUTH.values()))
    exact = response.seconds(truth, figures)
    fits = [
        fit_figures(response, replace(seen, seconds=exact * wobble), figures)
        for wobble in np.exp(np.random.default_rng(5).normal(0.0, 0.02, (60, exact.size)))
    ]
    values = np.stack([fit.values for fit in fits])
    covered = np.abs(values - truth) < 1.2816 * np.stack([fit.deviation for fit in fits])
    np.testing.assert_allclose(values.mean(axis=0), truth, rtol=0.05)
    assert 0.7 <= covered.mean() <= 0.92
    assert covered.mean(axis=0).min() >= 0.6


def test_one_damaged_row_moves_nothing_much():
    rows = simulated(["magicdec-3a", "magicdec-3c"], TRUTH, noise=0.01)
    spoiled = [*rows[:5], replace(rows[5], verify=3.0 * rows[5].verify, round=np.nan), *rows[6:]]
    (_, before), (_, after) = fitted(rows), fitted(spoiled)
    for path in ("layer", "row_layer"):
        change = float(after[path].after.value) / float(before[path].after.value) - 1.0
        assert abs(change) < 0.1


def test_shares_of_the_peak_are_fitted_where_points_tell_them_apart():
    path = "attention.flashinfer.memory_fraction"
    rows = simulated(["magicdec-3b", "magicdec-3c"], TRUTH, hardware=lambda one: one.with_values({path: 0.8}))
    found, figures = fitted(rows, achieved=[path, "gemm.compute_fraction"])
    assert float(figures[path].after.value) == pytest.approx(0.8, rel=0.01)
    assert set(found.achieved) == {path}


def test_four_rows_are_enough_for_what_they_can_tell():
    found, figures = fitted(
        plain("t_target_ms,batch_size,context_len\n4.9,1,1000\n5.4,16,4000\n6.6,64,4000\n9.3,32,32000\n")
    )
    assert figures["layer"].determined
    assert not figures["round"].determined
    assert figures["round"].after == START.quantities["round"]
    assert found.errors[0].mean_absolute < 0.1


def test_an_engines_log_of_rounds_is_fitted_too():
    rows = simulated(["magicdec-6"], TRUTH)
    rounds = [row for row in rows if row.group.drafter.label == "streaming_llm"]
    log = [
        "step_ms,batch_size,context_len,gamma,strategy,kv_budget",
        *(f"{row.target * 1e3},{row.batch},{row.context_len},0,," for row in rows),
        *(
            f"{row.round * 1e3},{row.batch},{row.context_len},{row.gamma:.0f},streaming_llm,512"
            for row in rounds
        ),
    ]
    found, figures = fitted(plain("\n".join(log)))
    assert {one.kind for one in found.errors} == {"target", "round"}
    assert float(figures["layer"].after.value) == pytest.approx(TRUTH["layer"], rel=0.35)
    assert all(one.mean_absolute < 0.01 for one in found.errors)


# What points cannot tell.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("9,8,1000\n9.5,16,1000\n10,32,1000\n", "3 measured times are too few"),
        ("9,8,1000\n9.1,8,1000\n9.2,8,1000\n9.3,8,1000\n", "the same in every row"),
    ],
)
def test_points_that_tell_nothing_are_refused(text, said):
    with pytest.raises(SpecError, match=said):
        fitted(plain("t_target_ms,batch_size,context_len\n" + text))


def test_rows_of_two_accelerators_are_refused():
    rows = [*measurements.load(["magicdec-6"]), *measurements.load(["magicdec-1"])]
    with pytest.raises(SpecError, match="Calibrate one accelerator at a time"):
        fitted(rows)


def test_a_figure_that_does_not_exist_is_refused_with_the_nearest_name():
    rows = measurements.load(["magicdec-6"])
    with pytest.raises(SpecError, match="row_layer"):
        fitted(rows, keep=["row_layers"])
    with pytest.raises(SpecError, match="memory_fraction"):
        fitted(rows, achieved=["attention.flashinfer.memory_fractions"])


def test_steps_of_one_depth_do_not_tell_a_pass_from_its_layers():
    rows = simulated(["magicdec-3b"], TRUTH, noise=0.01)
    alike = [replace(row, draft=np.nan, round=np.nan) for row in rows]
    found, figures = fitted(alike)
    assert figures["layer"].determined != figures["forward"].determined
    assert not figures["draft_row_layer"].determined and not figures["round_row"].determined
    assert "round_row" not in {one.path for one in found.determined}


def test_a_kept_figure_stays():
    _, figures = fitted(measurements.load(["magicdec-6"]), keep=["row_layer"])
    assert not figures["row_layer"].determined
    assert figures["row_layer"].after == START.quantities["row_layer"]


# What to measure next.


def determinant(found_rows, extra=()):
    rows = [*found_rows, *extra]
    seen, figures = observations(rows), priors(START, rows[0].group.hardware)
    fit = fit_figures(respond(rows, seen, START, figures), seen, figures)
    scale = np.array([one.deviation for one in figures])
    return np.linalg.slogdet(fit.information * np.outer(scale, scale) + np.eye(scale.size))[1]


def test_each_suggested_cell_raises_the_determinant_and_none_more_than_the_first():
    rows = simulated(["magicdec-3b"], TRUTH, noise=0.01)
    figures = priors(START, rows[0].group.hardware)
    engine = START.with_values(TRUTH)
    pool = candidates(rows, engine, figures)
    information = np.zeros((len(figures), len(figures)))
    scale = np.array([one.deviation for one in figures])

    def size(of):
        return np.linalg.slogdet(of * np.outer(scale, scale) + np.eye(scale.size))[1]

    gains = [size(information + np.outer(slopes, slopes)) for slopes in pool.informs]
    suggested = next_cells(pool, information, figures, count=5)
    assert suggested[0].gain == pytest.approx(max(gains), rel=1e-9)
    assert len(suggested) == 5
    assert all(earlier.gain >= later.gain > 0.0 for earlier, later in pairwise(suggested))


def test_measuring_what_is_suggested_determines_what_was_open():
    rows = [row for row in simulated(["magicdec-3b"], TRUTH, noise=0.01) if row.batch == 32]
    alike = [replace(row, draft=np.nan, round=np.nan) for row in rows]
    found, before = fitted(alike)
    assert not before["round_row"].determined
    steps = {cell.kind for cell in found.next_cells}
    assert "overhead" in steps and "draft" in steps
    pattern = rows[0]
    added = []
    for cell in found.next_cells:
        row = replace(
            pattern, batch=cell.batch, context_len=cell.context_len, gamma=float(max(cell.gamma, 1))
        )
        priced = price_measurements([row], engine=START.with_values(TRUTH))
        added.append(
            replace(
                row,
                target=float(priced.target[0]),
                draft=float(priced.draft[0]),
                verify=float(priced.verify[0]),
                round=float(priced.round[0]),
            )
        )
    _, after = fitted([*alike, *added])
    assert after["round_row"].determined and after["draft_row_layer"].determined
    assert determinant(alike, added) > determinant(alike) + 3.0


def test_suggested_cells_fit_in_memory():
    rows = measurements.load(["magicdec-1"])
    found, _ = fitted(rows)
    for cell in found.next_cells:
        row = next(row for row in rows if row.group.target.name == cell.target_model)
        like = replace(row, batch=cell.batch, context_len=cell.context_len, gamma=float(cell.gamma))
        assert bool(price_measurements([like]).fits[0])
