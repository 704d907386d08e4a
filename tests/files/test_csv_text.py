"""CSV text of columns along any axes is what pandas writes of the same rows, number by number."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.files import csv_text as module
from perfmodel.files.csv_text import csv_header, csv_text

FLOATS = (
    0.0, -0.0, 1.0, -2.5, 0.1, 1e-4, 9.999999999999999e-05, 1e-5, 1.5e-7, 5e-324, 123456789012345.0, 1e15,
    9007199254740993.0, 9999999999999998.0, 1e16, 1.5e16, 1e21, 1e22, 1.7976931348623157e308, math.pi,
    math.inf, -math.inf, math.nan,
)  # fmt: skip


def of_pandas(columns, shape, names):
    frame = pd.DataFrame({
        name: column if isinstance(column, str) else np.broadcast_to(column, shape).ravel()
        for name, column in zip(names, columns, strict=True)
    }, index=range(math.prod(shape)))  # fmt: skip
    return frame.to_csv(index=False, lineterminator="\n")


def written(columns, shape, names):
    return csv_header(names) + "".join(csv_text(columns, shape))


@st.composite
def tables(draw):
    """Columns of every kind, each along some of the axes."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    columns = []
    for _ in range(draw(st.integers(2, 6))):
        kind = draw(st.sampled_from(("text", "int", "bool", "float")))
        if kind == "text":
            letters = st.characters(codec="utf-8", exclude_characters="\r\n\0")
            columns.append(draw(st.text(letters, max_size=5)))
            continue
        axes = draw(st.integers(1, len(shape)))
        own = tuple(length if draw(st.booleans()) else 1 for length in shape[-axes:])
        values = {
            "int": st.integers(-(2**40), 2**40), "bool": st.booleans(),
            "float": st.sampled_from(FLOATS) | st.floats(),
        }[kind]  # fmt: skip
        size = math.prod(own)
        array = np.array(draw(st.lists(values, min_size=size, max_size=size)), dtype=kind)
        columns.append(array.reshape(own))
    return columns, shape


@given(tables())
def test_it_is_the_text_of_pandas(table):
    columns, shape = table
    names = [f"column {place}" for place in range(len(columns))]
    assert written(columns, shape, names) == of_pandas(columns, shape, names)


@pytest.mark.parametrize("rows", [1, 3, 10_000])
def test_blocks_of_any_size_have_the_same_text(rows, monkeypatch):
    drawn = np.random.default_rng(0)
    shape = (3, 5, 2, 7)
    columns = [
        "a,b", drawn.normal(size=shape), drawn.integers(0, 9, (3, 1, 1, 1)), drawn.normal(size=shape),
        drawn.normal(size=shape), drawn.normal(size=(5, 1, 7)), drawn.normal(size=shape) > 1.0,
    ]  # fmt: skip
    names = list("abcdefg")
    expected = of_pandas(columns, shape, names)
    monkeypatch.setattr(module, "_ROWS", rows)
    assert written(columns, shape, names) == expected


def test_every_number_is_written_as_python_writes_it():
    drawn = np.random.default_rng(1)
    values = np.concatenate([FLOATS[:-3], drawn.uniform(size=20_000) * 10.0 ** drawn.uniform(-9, 20, 20_000)])
    assert "".join(csv_text([values], values.shape)).split() == list(map(repr, values.tolist()))
