"""A spec is written as the file that it would be read from."""

import dataclasses

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.files.nouns import read_back
from perfmodel.files.quantity import Figure, Grid, Quantity, figures_of
from perfmodel.files.spec import to_yaml
from perfmodel.hardware import HardwareProfile

SPECS = [
    *(HardwareProfile.load(name) for name in HardwareProfile.available()),
    *(EngineOverhead.load(name) for name in EngineOverhead.available()),
]
H100 = HardwareProfile.load("h100-sxm-80gb")


def plain(value):
    """Return a spec or a part of one as values that compare."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_was_written_reads_back_as_the_same_spec(spec):
    assert plain(read_back(spec)) == plain(spec)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_plausible_figures_read_back_exactly(data):
    values = {}
    for path, declared, value in figures_of(H100):
        if not isinstance(value, Grid):
            values[path] = data.draw(st.floats(declared.least, declared.most), label=path)
    spec = H100.with_values(values, source="a: 'quoted' \"source\" # \u00b5")
    noticed = dataclasses.replace(spec, assumed=spec.assumed + spec.beyond_known())
    assert plain(read_back(spec)) == plain(noticed)


def test_what_nobody_gave_is_not_written(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(
        "name: small\nmemory:\n  capacity: {value: 24 GB, source: sheet, kind: published}\n"
        "  bandwidth: {value: 500 GB/s, low: 450 GB/s, high: 520 GB/s, source: run, kind: measured}\n"
        "peak:\n  bf16: {value: 100 TFLOPS, source: sheet, kind: published}\n"
    )
    small = HardwareProfile.load(path)
    written = to_yaml(small)
    assert set(yaml.safe_load(written)) == {"name", "memory", "peak", "link"}
    assert "bandwidth: {value: 500 GB/s, low: 450 GB/s, high: 520 GB/s, source: \"run\"" in written
    assert read_back(small).assumed == small.assumed


def test_fitted_figures_are_rounded_and_keep_their_source():
    fitted = Quantity(0.123456, 0.1, 0.2, "", "own fit", "measured")
    profile = H100.with_quantities({"gemm.memory_fraction": fitted}, digits=4)
    assert profile.gemm.memory_fraction == 0.1235
    assert profile.quantities["gemm.memory_fraction"].source == "own fit"
    assert "memory_fraction: {value: 0.1235, low: 0.1, high: 0.2, source: \"own fit\"" in to_yaml(profile)


def test_a_figure_that_there_is_not_cannot_be_fitted():
    with pytest.raises(SpecError, match=r"Did you mean 'gemm\.t0'"):
        H100.with_quantities({"gem.t0": H100.quantities["gemm.t0"]}, digits=4)


# Drawing.


REACHING_ZERO = [
    (spec, path)
    for spec in SPECS
    for path, declared, _ in figures_of(spec)
    if isinstance(declared, Figure)
    and declared.dimension != "count"
    and spec.quantities[path].low == 0.0 < spec.quantities[path].high < declared.most
]


def drawn_figure(spec, path, count=20_000):
    (draws,) = (value for name, _, value in figures_of(spec.sample(count, seed=3)) if name == path)
    return draws


@pytest.mark.parametrize(
    ("spec", "path"),
    [one for one in REACHING_ZERO if one[0].name in ("generic", "vllm-h100", "magicdec-l40")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_range_that_reaches_zero_has_no_tail_far_beyond_its_high_end(spec, path):
    """Two deviations of a half normal are 1.4 times its 90th percentile, of a normal at most 1.6 times."""
    quantity, draws = spec.quantities[path], drawn_figure(spec, path)
    assert np.quantile(draws, 0.9) == pytest.approx(quantity.high, rel=0.03)
    assert np.quantile(draws, 0.977) <= 1.65 * quantity.high
    assert draws.mean() < quantity.high
    assert draws.min() >= 0.0
    if quantity.value > 0.0:
        assert np.median(draws) == pytest.approx(quantity.value, rel=0.05)
    else:
        assert np.quantile(draws, 0.5) == pytest.approx(quantity.high * 0.6745 / 1.6449, rel=0.03)


def test_some_figures_are_zero_and_some_only_reach_it():
    values = [spec.quantities[path].value for spec, path in REACHING_ZERO]
    assert min(values) == 0.0 < max(values)
