"""One formula, three ways: at once, in blocks, and compiled; they agree to the last bit or numpy goes on."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.files import compiled as seam
from perfmodel.files.compiled import compiled

SHAPES = [(512, 1), (1, 96), (), (512, 96), (96,)]
WITHOUT_NUMBA = [ImportError("No module named numba"), RuntimeError("no such symbol"), SystemError("LLVM")]


def of_numbers(start, rate):
    return np.sqrt(start) + rate


def half(start, rate):
    doubled = of_numbers(start, rate)
    doubled *= 0.5
    return np.maximum(doubled, start)


def a_formula(first, *others):
    return first / half(*others[:2]) - np.minimum(others[2], 1.0) * (others[3] > 0.5)


def share(part, whole):
    return np.minimum(part / np.maximum(whole, 1.0), 1.0) * (whole > 0.0)


def a_term(shape, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 3.0, shape)


def the_terms():
    return [a_term(shape, seed) for seed, shape in enumerate(SHAPES)]


@pytest.fixture
def at_once(monkeypatch):
    """Nothing is compiled yet, and everything is worth it at once; counts how often compiled code ran."""
    runs, run = [], seam._run
    monkeypatch.setattr(seam, "_KERNELS", {})
    monkeypatch.setattr(seam, "WORTH_IT", 1)
    monkeypatch.setattr(seam, "LOADED", 1)
    monkeypatch.delenv("DRAFTPLAN_FAST", raising=False)
    monkeypatch.setattr(seam, "_run", lambda *terms: (runs.append(1), run(*terms)))
    return runs


@given(
    shape=st.lists(st.sampled_from([1, 1, 2, 3, 9, 40]), min_size=1, max_size=5),
    ones=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=5, max_size=5),
    block=st.integers(1, 400),
)
def test_blocks_of_any_size_and_shape_are_what_numpy_gives_at_once(shape, ones, block):
    sizes = [[1 if one else length for one, length in zip(row, shape, strict=False)] for row in ones]
    terms = [a_term(size[seed % len(shape) :], seed) for seed, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seam, "BLOCK", block)
        answer = compiled(a_formula)(*terms)
    plain = a_formula(*terms)
    assert np.shape(answer) == plain.shape
    assert np.array_equal(answer, plain)
    assert np.asarray(answer).flags.c_contiguous


def test_short_arrays_and_numbers_ask_for_no_compiler(at_once, monkeypatch):
    monkeypatch.setattr(seam, "_compile", pytest.fail)
    formula = compiled(a_formula)
    assert formula(1.0, 2.0, 3.0, 4.0, 5.0) == a_formula(1.0, 2.0, 3.0, 4.0, 5.0)
    for _ in range(3):
        formula(*(np.ones(seam.BLOCK) for _ in SHAPES))
    assert not at_once


def test_a_compiler_is_loaded_only_after_as_much_as_it_costs(monkeypatch):
    asked = []
    monkeypatch.setattr(seam, "_KERNELS", {})
    monkeypatch.setattr(seam, "_SEEN", Counter())
    monkeypatch.setattr(seam, "LOADED", seam.WORTH_IT)
    monkeypatch.setattr(seam, "_compile", lambda *_: asked.append(1))
    formula, terms = compiled(a_formula), the_terms()
    for _ in range(3):
        formula(*terms)
    assert not asked


class TestWithNumba:
    @pytest.fixture(autouse=True)
    def numba(self):
        return pytest.importorskip("numba")

    def test_the_same_formula_gives_the_same_bits_compiled(self, at_once):
        formula, terms = compiled(a_formula), the_terms()
        answers = [formula(*terms) for _ in range(3)]
        assert len(at_once) == 3  # the check of the first, then two calls
        assert all(np.array_equal(answer, a_formula(*terms)) for answer in answers)

    @pytest.mark.parametrize("shape", [(4096, 8, 2), (2, 3, 9000), (20_000,), (3, 20_000, 1, 2)])
    def test_any_axis_may_be_the_innermost_one(self, at_once, shape):
        formula, terms = compiled(of_numbers), (a_term(shape), a_term(shape[-1:], 1))
        for _ in range(2):
            answer = formula(*terms)
            assert np.array_equal(answer, of_numbers(*terms))
            assert answer.flags.c_contiguous
        assert len(at_once) == 2

    @pytest.mark.usefixtures("at_once")
    def test_one_form_of_terms_is_compiled_once(self, monkeypatch):
        forms, make = [], seam._compile
        monkeypatch.setattr(seam, "_compile", lambda *what: (forms.append(what[1]), make(*what))[1])
        formula = compiled(of_numbers)
        for _ in range(3):
            formula(a_term((512, 1)), a_term((1, 96)))
            formula(a_term((300, 1)), a_term((1, 128)))
            formula(a_term((512, 96)), 2.0)
        assert forms == [(False, True), (True, False)]

    def test_where_nothing_can_be_kept_it_is_compiled_in_memory(self, at_once, monkeypatch, numba):
        monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
        formula, terms = compiled(of_numbers), (a_term((600, 1)), a_term(70))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            answers = [formula(*terms) for _ in range(2)]
        assert len(at_once) == 2
        assert all(np.array_equal(answer, of_numbers(*terms)) for answer in answers)

    def test_a_term_that_divides_by_nothing_warns_no_more_than_numpy(self, at_once):
        formula, terms = compiled(share), (a_term((600, 1)), np.arange(70.0))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(formula(*terms), formula(*terms))
        assert len(at_once) == 2


@pytest.mark.parametrize("trouble", WITHOUT_NUMBA, ids=lambda trouble: type(trouble).__name__)
def test_without_a_compiler_that_works_numpy_goes_on_and_asks_no_second_time(at_once, monkeypatch, trouble):
    asked = []

    def refuse(name):
        asked.append(name)
        raise trouble

    monkeypatch.setattr(seam, "import_module", refuse)
    formula, terms = compiled(a_formula), the_terms()
    for _ in range(3):
        assert np.array_equal(formula(*terms), a_formula(*terms))
    assert asked == ["numba", "numba"]  # with a place for what is compiled, and without
    assert not at_once


@pytest.mark.usefixtures("at_once")
def test_an_environment_variable_switches_it_off(monkeypatch):
    monkeypatch.setenv("DRAFTPLAN_FAST", "0")
    monkeypatch.setattr(seam, "_compile", pytest.fail)
    formula, terms = compiled(a_formula), the_terms()
    for _ in range(3):
        assert np.array_equal(formula(*terms), a_formula(*terms))


def test_compiled_code_that_gives_another_bit_is_not_used(at_once, monkeypatch):
    def almost(*terms):
        *given_terms, out = terms
        out[...] = np.nextafter(of_numbers(given_terms[0][:, None], given_terms[1]), 9.0)

    monkeypatch.setattr(seam, "_compile", lambda *_: almost)
    formula, terms = compiled(of_numbers), (a_term((512, 1)), a_term((1, 96)))
    for _ in range(3):
        assert np.array_equal(formula(*terms), of_numbers(*terms))
    assert len(at_once) == 1
