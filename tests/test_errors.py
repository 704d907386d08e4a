"""The two ways to say no are readable, complete and survive a process pool."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import Fault, InfeasibleError, SpecError, nearest_name


def test_a_fault_reads_as_place_field_problem_remedy_and_suggestion():
    fault = Fault("a100.yaml", 7, "memory.capcity", "unknown key", "Allowed here: capacity", "capacity")
    assert str(fault) == (
        "a100.yaml:7: memory.capcity: unknown key. Allowed here: capacity. Did you mean 'capacity'?"
    )


def test_a_fault_leaves_out_what_it_does_not_know():
    assert str(Fault("", None, "", "nothing to stack")) == "nothing to stack."
    assert str(Fault("x.yaml", None, "", "the file is empty.")) == "x.yaml: the file is empty."


def test_an_error_has_one_line_per_fault():
    error = SpecError([Fault("a", 1, "x", "missing"), Fault("a", 2, "y", "unknown key")])
    assert len(str(error).splitlines()) == len(error.faults) == 2


def test_a_spec_error_is_a_value_error_with_one_fault_when_single():
    error = SpecError.single("f", "x", "found 3", "Write 4", nearest="y", line=9)
    assert isinstance(error, ValueError)
    assert error.faults == (Fault("f", 9, "x", "found 3", "Write 4", "y"),)


def test_located_fills_in_only_what_a_fault_does_not_know():
    located = SpecError.single("", "own", "p").located("f", 3, "outer")
    assert located.faults == (Fault("f", 3, "own", "p"),)
    assert SpecError.single("g", "", "p", line=1).located("f", 3, "outer").faults[0].file == "g"


@pytest.mark.parametrize(
    "error",
    [SpecError.single("f", "x", "p", "r", "n", 2), InfeasibleError({"memory": 3}, "batch 1 needs 90 GB")],
)
def test_errors_survive_pickling(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)


def test_infeasible_says_how_many_fell_for_what_and_what_came_closest():
    error = InfeasibleError({"memory": 12, "latency": 0}, "tp 8 misses by 2 GB")
    assert error.counts == {"memory": 12, "latency": 0}
    assert "memory: 12" in str(error)
    assert "latency" not in str(error)
    assert str(error).endswith("Nearest miss: tp 8 misses by 2 GB.")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("H100_SXM_80GB", "h100-sxm-80gb"),
        ("h100 sxm", "h100-sxm-80gb"),
        ("a10g", "a10g-24gb"),
        ("zzz", None),
        ("", None),
    ],
)
def test_the_nearest_name_ignores_case_and_separators(word, expected):
    assert nearest_name(word, ["h100-sxm-80gb", "a10g-24gb", "l40s-48gb"]) == expected


@given(st.text(max_size=300), st.lists(st.text(max_size=20), max_size=5))
def test_the_nearest_name_is_known_or_none(word, known):
    assert nearest_name(word, known) in {None, *known}
