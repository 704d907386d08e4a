"""What stands in for numpy's own where that would load masked arrays gives numpy's bits."""

import numpy as np
import pytest

from perfmodel.files.numbers import distinct_values, medians, quantile

DRAWS = np.random.default_rng(0)


def drawn(size):
    """Return rows of draws: plain, with equal ones, with an infinite one, with one that is no number."""
    rows = DRAWS.lognormal(size=(7, size))
    rows[1, :: 1 + size // 5], rows[2] = 0.5, 3.0
    rows[3, DRAWS.integers(size)], rows[4, DRAWS.integers(size)] = np.inf, np.nan
    return rows


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 199, 200])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_medians_and_quantiles_are_numpys(size):
    rows = drawn(size)
    assert np.array_equal(medians(rows), np.median(rows, axis=-1, keepdims=True), equal_nan=True)
    for share in (0.0, 0.05, 0.1, 0.25, 1.0 - 0.1, 0.95, 1.0):
        usual = np.quantile(rows, share, axis=-1, method="weibull")
        assert np.array_equal(quantile(rows, share), usual, equal_nan=True)


def test_distinct_values_rise():
    values = DRAWS.integers(9, size=(4, 50))
    assert distinct_values(values).tolist() == np.unique(values).tolist()
    assert distinct_values(values[:, :0]).size == 0
