"""The bundled engines are what their tables give, foretell what they did not see, and read back as fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.engine import EngineOverhead
from perfmodel.evidence.calibration.calibrate import calibrate
from perfmodel.evidence.calibration.fit import fit_figures
from perfmodel.evidence.calibration.response import KINDS, observations, priors, respond
from perfmodel.evidence.published import measurements
from perfmodel.files.document import parse_yaml
from perfmodel.files.nouns import noun_from

START = replace(
    EngineOverhead.load("generic").with_values({"row": 0.0, "streaming": 1.0, "draft_forward": 1.0}),
    all_reduce="pytorch-symmetric",
    attention_kernel="flashinfer",
    description="",
)
PRESETS = {
    "magicdec-h100": ("magicdec-6",),
    "magicdec-a100": ("magicdec-3a", "magicdec-3b", "magicdec-3c"),
    "magicdec-l40": ("magicdec-1",),
    "gpt-fast-a100": ("gpt-fast",),
}


def fitted(tables):
    found = calibrate(measurements.load(tables), start=START, name="ours")
    return found, {one.path: one for one in found.figures}


# Published tables.


@pytest.mark.parametrize("name", PRESETS)
def test_the_bundled_engines_are_what_their_tables_give(name):
    preset = EngineOverhead.load(name)
    given = {path: each for path, each in preset.quantities.items() if "fitted to" not in each.source}
    start = replace(EngineOverhead.load("generic"), description=preset.description).with_quantities(given, 12)
    found = calibrate(
        measurements.load(PRESETS[name]),
        start=start,
        name=name,
        attention_kernel=preset.attention_kernel,
        all_reduce=preset.all_reduce,
    )
    assert preset.calibrated_on == found.hardware
    nearby = found.after != found.least_squares  # presets are least squares; these chose worse in one cell
    for path, quantity in preset.quantities.items():
        again = found.engine.quantities[path]
        assert quantity.kind == again.kind
        low, high = (again.low, again.high) if nearby else (again.value, again.value)
        assert float(quantity.low) <= float(high) and float(low) <= float(quantity.high), path


def third_errors(tables, seeds):
    """Return errors of steps: in a fit to all rows, and on the rest after fits to random thirds."""
    rows = measurements.load(tables)
    engine = rows[0].group.engine
    start = replace(START, all_reduce=engine.all_reduce, attention_kernel=engine.attention_kernel)
    seen, figures = observations(rows), priors(start, rows[0].group.hardware)
    response = respond(rows, seen, start, figures)
    steps = np.isin(seen.kind, [KINDS.index(kind) for kind in ("target", "draft", "verify")])

    def errors(inside, judged):
        part = replace(response, base=response.base[inside], slopes=response.slopes[inside])
        fit = fit_figures(part, seen.of(inside), figures)
        return np.abs(np.log(response.seconds(fit.values, figures) / seen.seconds))[judged & steps].mean()

    everything = np.ones(seen.kind.size, dtype=bool)
    outside = []
    for seed in seeds:
        third = np.random.default_rng(seed).permutation(len(rows))[: max(len(rows) // 3, 4)]
        inside = np.isin(seen.row, third)
        outside.append(errors(inside, ~inside))
    return errors(everything, everything), np.array(outside)


@pytest.mark.parametrize("table", ["magicdec-3a", "magicdec-3b", "magicdec-3c", "magicdec-6"])
def test_a_third_of_a_tables_rows_foretells_the_rest(table):
    inside, outside = third_errors([table], range(15))
    assert np.median(outside) <= 1.5 * inside


def test_any_third_of_all_rows_on_a100_foretells_the_rest():
    inside, outside = third_errors(PRESETS["magicdec-a100"], range(15))
    assert outside.max() <= 1.5 * inside


# What is written.


def test_the_written_engine_reads_back_as_fitted():
    found, figures = fitted(["magicdec-6"])
    again = noun_from(EngineOverhead, parse_yaml(found.text.encode(), "ours.yaml"))
    assert again.name == "ours" and again.calibrated_on == "h100-sxm-80gb" and again.assumed == ()
    for path, one in figures.items():
        assert float(again.quantities[path].value) == pytest.approx(
            float(one.after.value), rel=1e-3, abs=1e-12
        )
        assert again.quantities[path].kind == "measured"
        assert "arXiv 2408.11049" in again.quantities[path].source


def test_correlations_are_those_of_a_covariance():
    found, _ = fitted(["magicdec-6"])
    np.testing.assert_allclose(found.correlation, found.correlation.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(found.correlation), 1.0)
    assert np.linalg.eigvalsh(found.correlation).min() > 0.0


def test_cells_predicted_from_the_others_are_no_nearer_than_fitted_ones():
    found, _ = fitted(PRESETS["magicdec-a100"])
    for one in found.errors:
        assert one.held_out >= 0.95 * one.mean_absolute
        assert one.held_out <= 1.5 * one.mean_absolute
