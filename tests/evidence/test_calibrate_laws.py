"""Laws of a calibration: never worse than its start on its points, settled, and ranges give way to data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.calibration import calibrate as calibration
from perfmodel.evidence.calibration.calibrate import calibrate
from perfmodel.evidence.calibration.fit import fit_figures
from perfmodel.evidence.calibration.guard import Standing, stand, ways
from perfmodel.evidence.calibration.response import observations, priors, reprice, respond
from perfmodel.evidence.published.measurements import read_measurements
from perfmodel.evidence.published.steps import price_measurements

START = replace(
    EngineOverhead.load("generic").with_values({"row": 0.0, "streaming": 1.0, "draft_forward": 1.0}),
    attention_kernel="flashinfer",
    all_reduce="nccl",
    description="",
)
MEMORY = "attention.flashinfer.memory_fraction"
COLUMNS = "round_ms,batch_size,context_len,gamma,kv_budget,tokens_per_round,t_target_ms\n"
PLACES = [(1, 4000), (1, 32000), (16, 4000), (16, 32000)]
DRAFTED = {1: 1.7, 2: 2.2, 4: 2.8}


def measured(seconds):
    """Return a plain step and three rounds at each of four places, of so many seconds one after another."""
    seconds = iter(seconds)
    lines = []
    for batch, context in PLACES:
        lines.append(f",{batch},{context},0,,,{next(seconds) * 1e3}")
        lines += [
            f"{next(seconds) * 1e3},{batch},{context},{gamma},512,{tokens},"
            for gamma, tokens in DRAFTED.items()
        ]
    given = {
        "hardware": "h100-sxm-80gb", "target_model": "llama-3.1-8b", "tensor_parallel": "1",
        "strategy": "streaming_llm",
    }  # fmt: skip
    return read_measurements((COLUMNS + "\n".join(lines)).encode(), "points.csv", given=given)


def priced(truth, shares=None):
    """Return what an engine of known figures would take."""
    rows = measured(np.full(16, 0.01))
    steps = price_measurements(
        rows, engine=START.with_values(truth), hardware=shares and (lambda one: one.with_values(shares))
    )
    return np.where(steps.gamma > 0.0, steps.round, steps.target)


def fitted(rows, **settings):
    return calibrate(
        rows, start=START, name="ours", attention_kernel="flashinfer", most_residual=np.inf, **settings
    )


# Never worse.


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("achieved", [(), (MEMORY,)])
def test_on_any_points_neither_error_nor_regret_rises(seed, achieved):
    random = np.random.default_rng(seed)
    truth = {"layer": random.uniform(1e-5, 2e-4), "round": random.uniform(0.0, 4e-3)}
    noise = np.exp(random.normal(0.0, random.choice([0.02, 0.1, 0.3]), 16))
    rows = measured(priced(truth, {MEMORY: random.uniform(0.2, 1.0)}) * noise)
    found = fitted(rows, achieved=achieved)
    assert found.after.error <= found.before.error + 1e-9
    assert found.after.regret <= found.before.regret + 1e-9
    shares = {path: float(share.value) for path, share in found.achieved.items()}
    written = stand(rows, observations(rows), found.engine, shares)
    assert written.error == pytest.approx(found.after.error, abs=2e-3)
    assert found.before.places == 4


def test_where_least_squares_would_choose_worse_something_near_is_taken_and_said(monkeypatch):
    rows = measured(priced({"layer": 9e-5, "round": 2e-3}))
    first = fitted(rows)
    least = first.after
    stands = iter([Standing(0.5, 0.0, 4), Standing(least.error, 0.2, 4)])
    real = calibration.stand
    monkeypatch.setattr(calibration, "stand", lambda *given: next(stands, None) or real(*given))
    second = fitted(rows)
    assert second.least_squares.regret == 0.2 and second.after.regret == 0.0
    assert "least squares would choose worse on these very points (regret 20.00%" in second.remarks[0]
    assert second.engine.layer_s == pytest.approx(first.engine.layer_s, rel=0.05)


def test_the_way_back_ends_where_it_began():
    rows = measured(priced({"layer": 9e-5}))
    seen, figures = observations(rows), priors(START, rows[0].group.hardware)
    fit = fit_figures(respond(rows, seen, START, figures), seen, figures)
    *_, last = ways(fit)
    np.testing.assert_allclose(last, [figure.value for figure in figures])


# Damped, and priced again.


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6, 1.1])
def test_a_share_far_from_its_range_is_found_and_the_range_overruled(share):
    rows = measured(priced({"layer": 6e-5, "round": 1e-3}, {MEMORY: share}))
    found = fitted(rows, achieved=[MEMORY])
    figure = next(figure for figure in found.figures if figure.path == MEMORY)
    assert float(figure.after.value) == pytest.approx(share, rel=0.03)
    outside = not float(figure.before.low) <= share <= float(figure.before.high)
    assert figure.overruled == outside
    assert outside == any(f"{MEMORY}: the points say" in remark for remark in found.remarks)


def test_every_step_lowers_the_cost_and_the_answer_is_where_it_was_priced():
    rows = measured(priced({"layer": 6e-5}, {MEMORY: 0.2}))
    seen, figures = observations(rows), priors(START, rows[0].group.hardware, [MEMORY])
    response = respond(rows, seen, START, figures)
    asked = []

    def again(values):
        asked.append(values)
        return reprice(response, rows, seen, START, figures, values)

    fit = fit_figures(response, seen, figures, overrule=True, reprice=again)
    assert fit.converged and asked
    there = reprice(response, rows, seen, START, figures, fit.values)
    np.testing.assert_allclose(
        fit.response.seconds(fit.values, figures), there.seconds(fit.values, figures), rtol=1e-3
    )


def test_a_response_is_exact_where_it_was_priced_and_its_slopes_are_its_own():
    rows = measured(np.full(16, 0.01))
    seen, figures = observations(rows), priors(START, rows[0].group.hardware, [MEMORY])
    response = respond(rows, seen, START, figures)
    values = np.array([figure.value for figure in figures])
    computed = price_measurements(rows, engine=START)
    expected = np.where(computed.gamma > 0.0, computed.round, computed.target)
    np.testing.assert_allclose(response.seconds(values, figures), expected, rtol=1e-9)
    moved = values.copy()
    moved[-1] *= 1.0 + 1e-5
    slope = (response.seconds(moved, figures) - response.seconds(values, figures)) / np.log1p(1e-5)
    np.testing.assert_allclose(slope, response.slopes_at(values, figures)[:, -1], rtol=1e-3)


def test_a_fit_that_does_not_settle_says_so_and_is_refused(monkeypatch):
    monkeypatch.setattr("perfmodel.evidence.calibration.fit._STEPS", 1)
    monkeypatch.setattr("perfmodel.evidence.calibration.fit._RADIUS", 0.01)
    rows = measured(priced({"layer": 6e-5}, {MEMORY: 0.3}))
    seen, figures = observations(rows), priors(START, rows[0].group.hardware, [MEMORY])
    response = respond(rows, seen, START, figures)

    def again(values):
        return reprice(response, rows, seen, START, figures, values)

    fit = fit_figures(response, seen, figures, choose=False, reprice=again)
    assert not fit.converged
    monkeypatch.setattr(calibration, "fit_figures", lambda *_, **__: fit)
    with pytest.raises(SpecError, match=r"does not settle on attention\.flashinfer\.memory_fraction"):
        fitted(rows, achieved=[MEMORY])


# What would tell.


def test_what_is_not_determined_names_the_cell_that_would():
    rows = measured(priced({"layer": 9e-5}))
    plain = [row for row in rows if row.plain]
    found = fitted(plain)
    remarks = [remark for remark in found.remarks if "keeps its start" in remark]
    assert remarks
    assert all("; time the " in remark or "no one cell would" in remark for remark in remarks)
