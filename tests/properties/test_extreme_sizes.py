"""From one sequence to a billion, from one token to a hundred million: finite, and the same in any dtype."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from questions import engines, models, pricers, profiles, sizes

from perfmodel.latency import prefill_latency, step_latency
from perfmodel.memory import largest_batch, resident_memory

SECONDS = ("round_s", "draft_s", "tpot", "throughput", "speedup", "break_even_tokens", "overhead")
DTYPES = (np.int32, np.int64, np.uint32, np.float32, np.float64)
several = st.lists(sizes, min_size=1, max_size=3)
dtypes = st.sampled_from(DTYPES)


@pytest.fixture(autouse=True)
def _nothing_overflows():
    with np.errstate(all="raise"):
        yield


def columns_of(rows, dtype):
    """The same sizes as arrays of a dtype, and as arrays of doubles."""
    columns = {name: np.array([row[name] for row in rows]).astype(dtype) for name in rows[0]}
    return columns, {name: column.astype(float) for name, column in columns.items()}


@given(pricers, several, dtypes)
def test_a_round_of_any_size_is_finite_and_the_same_in_every_dtype(price, rows, dtype):
    columns, doubles = columns_of(rows, dtype)
    priced, expected = price(**columns), price(**doubles)
    for name in SECONDS:
        value = getattr(priced, name)
        assert np.all(np.isfinite(value)) and np.all(np.asarray(value) >= 0.0), name
        assert_allclose(value, getattr(expected, name), rtol=1e-12)
    assert_allclose(priced.memory.total, expected.memory.total, rtol=1e-12)
    assert np.all(np.isfinite(priced.memory.total)) and np.all(priced.memory.total > 0.0)


@given(pricers, sizes)
def test_tokens_and_speedup_keep_their_bounds_at_any_size(price, size):
    priced = price(**size)
    assert 1.0 <= priced.tokens_per_round <= size["gamma"] + 1.0
    assert 0.0 < priced.speedup <= size["gamma"] + 1.0


@given(profiles, models, engines, several, dtypes)
def test_steps_prefills_and_memory_are_the_same_in_every_dtype(profile, model, engine, rows, dtype):
    columns, doubles = columns_of(rows, dtype)
    calls = (
        (step_latency, {"batch": "batch", "query_tokens": "gamma", "kv_tokens": "context_len"}),
        (prefill_latency, {"batch": "batch", "prompt_tokens": "context_len"}),
        (resident_memory, {"batch": "batch", "context_len": "context_len", "gamma": "gamma"}),
    )
    for call, names in calls:
        priced, expected = (
            call(profile, model, engine, **{name: np.maximum(given[size], 1) for name, size in names.items()})
            for given in (columns, doubles)
        )
        assert np.all(np.isfinite(expected.total)) and np.all(expected.total > 0.0)
        assert_allclose(priced.total, expected.total, rtol=1e-12)


@given(profiles, models, engines, sizes)
def test_the_largest_batch_is_found_at_any_context_and_does_not_rise_with_it(profile, model, engine, size):
    fitting = partial(largest_batch, profile, model, engine, tensor_parallel=size["tensor_parallel"])
    few, many = (int(fitting(context_len=size["context_len"] * factor)) for factor in (1.0, 2.0))
    assert 0 <= many <= few
