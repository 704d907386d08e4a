"""The cells that a deployment meets: what is accepted, what is refused, and how often each is met."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.workload import MAX_BATCH, MAX_CONTEXT, Workload

sizes = st.lists(st.integers(1, MAX_BATCH), min_size=1, max_size=6)


def refused(*arguments, **named) -> str:
    with pytest.raises(SpecError) as error:
        Workload(*arguments, **named)
    return str(error.value)


@given(sizes, sizes)
def test_sizes_are_sorted_whole_numbers_without_repetition(batches, contexts):
    workload = Workload(batches, contexts)
    assert workload.batch_sizes == tuple(sorted(set(batches)))
    assert workload.context_lens == tuple(sorted(set(contexts)))
    assert all(type(size) is int for size in workload.batch_sizes + workload.context_lens)


@given(sizes, sizes)
def test_shares_sum_to_one(batches, contexts):
    workload = Workload(batches, contexts)
    assert workload.shares.shape == (len(workload.batch_sizes), len(workload.context_lens))
    assert workload.shares.sum() == pytest.approx(1.0)


def test_weights_become_shares_of_time():
    workload = Workload((1, 2), (1000,), weights=np.array([[1.0], [3.0]]))
    assert workload.shares.tolist() == [[0.25], [0.75]]


def test_a_range_and_an_array_are_sizes_too():
    assert Workload(range(8, 0, -4), np.array([2, 1])).batch_sizes == (4, 8)


@pytest.mark.parametrize("size", [0, -1, 1.5, float("nan"), float("inf"), 10**12])
def test_a_size_that_is_none_is_refused_by_name(size):
    assert "batch_sizes" in refused((size,), (1000,))
    assert "context_lens" in refused((1,), (size,))


def test_no_sizes_are_refused():
    assert "batch_sizes" in refused((), (1000,))


def test_the_limits_themselves_are_allowed():
    workload = Workload((MAX_BATCH,), (MAX_CONTEXT,))
    assert (workload.batch_sizes, workload.context_lens) == ((MAX_BATCH,), (MAX_CONTEXT,))


@pytest.mark.parametrize("weights", [[[1.0]], [[1.0], [-1.0]], [[0.0], [0.0]], [[np.nan], [1.0]]])
def test_weights_must_match_the_grid_and_be_shares(weights):
    assert "weights" in refused((1, 2), (1000,), weights=np.array(weights))


def test_weights_are_sorted_along_with_their_sizes():
    workload = Workload((8, 2), (2000, 1000), weights=np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert (workload.batch_sizes, workload.context_lens) == ((2, 8), (1000, 2000))
    assert workload.shares.tolist() == [[0.4, 0.3], [0.2, 0.1]]


def test_a_size_with_weights_is_given_once():
    assert "batch_sizes" in refused((2, 2), (1000,), weights=np.array([[1.0], [3.0]]))
