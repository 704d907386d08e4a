"""Formulas of long arrays: in blocks that stay in a core's cache, compiled where numba is installed."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from inspect import unwrap
from types import FunctionType
from typing import Any, TypeAlias

import numpy as np

from perfmodel.files.numbers import FloatArray, Numeric

__all__ = ["BLOCK", "WORTH_IT", "compiled"]

BLOCK = 16_384
"""Elements that are computed at once: what comes between stays in a core's cache. [1]"""
LONG = 64
"""Length from which an axis is long enough for a loop of its own. [1]"""
WORTH_IT = 2**23
"""Elements of a formula after which the compiler is loaded: numpy took about as long for them. [1]"""
LOADED = 2**20
"""Elements after which one more formula, or a form of it, is compiled once the compiler is loaded. [1]"""

Formula: TypeAlias = Callable[..., Numeric]
Kernel: TypeAlias = Callable[..., Any]
Form: TypeAlias = tuple[Formula, tuple[bool, ...]]
"""A formula, and which of its terms vary along the innermost axis."""

_KERNELS: dict[Form, Kernel | None] = {}
_SEEN: Counter[Form] = Counter()


def compiled(formula: Formula) -> Formula:
    """Return an elementwise formula that runs long arrays in blocks, and compiled once that is worth it.

    The equation is written once: numpy runs it on blocks, numba on numbers, both to the same bits. Where they
    ever differ, or numba is absent, broken or switched off (``DRAFTPLAN_FAST=0``), numpy goes on.

    Parameters
    ----------
    formula : of positional numbers or arrays that broadcast, in double precision: arithmetic, comparisons,
        `numpy.minimum`, `maximum` and `sqrt`, and functions of the same module that are made of these. Not
        ``numpy.where`` and ``x**2``: on numbers, a compiler takes them for something else.
    """

    @wraps(formula)
    def either(*terms: Numeric) -> Numeric:
        arrays = [term for term in terms if isinstance(term, np.ndarray)]
        shape = np.broadcast(*arrays).shape if arrays else ()
        size = math.prod(shape)
        if size <= BLOCK:
            return formula(*terms)
        loops = _loops(arrays, shape)
        lined = [loops.line_up(term) for term in terms]
        out = np.empty(loops.lengths)
        varying = tuple(np.ndim(term) > 0 and np.shape(term)[-1] > 1 for term in lined)
        form = formula, varying
        kernel = _KERNELS.get(form)
        if kernel is not None:
            _run(kernel, lined, varying, out)
        else:
            _fill(formula, lined, out)
            _SEEN[form] += size
            if form not in _KERNELS and _SEEN[form] >= (LOADED if "numba" in sys.modules else WORTH_IT):
                _KERNELS[form] = _checked(formula, lined, varying, out)
        return loops.put_back(out)

    return either


@dataclass(frozen=True)
class _Loops:
    """In which order the axes are run through: the last `inner` of them as one long loop.

    Parameters
    ----------
    shape : what the terms broadcast to.
    order : its axes, the innermost last.
    inner : how many of them are one.
    moved : whether the answer is to be laid out in another order, that of the axes.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    inner: int
    moved: bool = False

    @property
    def lengths(self) -> tuple[int, ...]:
        """Of the loops."""
        return (*self._axes[: -self.inner], math.prod(self._axes[-self.inner :]))

    @property
    def _axes(self) -> tuple[int, ...]:
        """Lengths of the axes, in that order."""
        return tuple(self.shape[axis] for axis in self.order)

    def line_up(self, term: Numeric) -> Numeric:
        """Return a term with one axis a loop, of length 1 where it does not vary; a number stays one."""
        if np.ndim(term) == 0:
            return term
        array = np.asarray(term, dtype=float)
        array = array.reshape((1,) * (len(self.shape) - array.ndim) + array.shape).transpose(self.order)
        before, within = array.shape[: -self.inner], array.shape[-self.inner :]
        if math.prod(within) > 1:
            array = np.broadcast_to(array, before + self._axes[-self.inner :])
        lined: FloatArray = array.reshape(*before, -1)
        return lined

    def put_back(self, out: FloatArray) -> FloatArray:
        """Return what was computed with the axes of the terms, laid out as the largest term is."""
        back: FloatArray = out.reshape(self._axes).transpose(np.argsort(self.order))
        return np.ascontiguousarray(back) if self.moved else back


def _loops(arrays: Sequence[Any], shape: tuple[int, ...]) -> _Loops:
    """Return loops of which the innermost is long: a call of a loop costs as much as some dozen elements.

    Axes are taken as the largest term has them in memory. Those that run fastest become one as long as little
    has to be repeated for it, else the longest one is the innermost.
    """
    sizes = [(1,) * (len(shape) - array.ndim) + array.shape for array in arrays]
    largest = max(arrays, key=np.size)
    order = list(range(len(shape)))
    if largest.size == math.prod(shape):
        strides = (0,) * (len(shape) - largest.ndim) + largest.strides
        order.sort(key=lambda axis: -strides[axis] if shape[axis] > 1 else -math.inf)
    inner, length = 1, shape[order[-1]]
    while length < LONG and inner < len(order):
        wider = order[-inner - 1 :]
        repeated = sum(_repeated(size, wider, shape) for size in sizes)
        if repeated > math.prod(shape) // 4:
            break
        inner, length = inner + 1, length * shape[wider[0]]
    longest = max(reversed(order), key=shape.__getitem__)
    if length < LONG and shape[longest] >= 4 * length:
        return _Loops(shape, (*(axis for axis in order if axis != longest), longest), 1, moved=True)
    return _Loops(shape, tuple(order), inner)


def _repeated(size: Sequence[int], axes: Sequence[int], shape: Sequence[int]) -> int:
    """Return how many elements more a term has that is repeated along some axes, if it varies along any."""
    own, all_of_them = (math.prod(lengths[axis] for axis in axes) for lengths in (size, shape))
    return math.prod(size) // own * (all_of_them - own) if own > 1 else 0


def _fill(formula: Formula, terms: Sequence[Any], out: FloatArray) -> None:
    """Compute the formula block by block of what lies together in memory."""
    rest = out.size // len(out)
    if rest > BLOCK:
        for place in range(len(out)):
            of_place = [term[place if len(term) > 1 else 0] if np.ndim(term) else term for term in terms]
            _fill(formula, of_place, out[place])
        return
    step = BLOCK // rest
    for start in range(0, len(out), step):
        part = slice(start, start + step)
        out[part] = formula(*(term[part] if np.ndim(term) and len(term) > 1 else term for term in terms))


def _run(kernel: Kernel, terms: Sequence[Any], varying: Sequence[bool], out: FloatArray) -> None:
    """Compute the compiled formula; a term that does not vary along the innermost loop is a number there."""
    with np.errstate(all="ignore"):  # compiled code may compute what it does not take
        kernel(
            *(
                np.ascontiguousarray(term) if varies else term[..., 0] if np.ndim(term) else term
                for term, varies in zip(terms, varying, strict=True)
            ),
            out,
        )


def _checked(
    formula: Formula, terms: Sequence[Any], varying: tuple[bool, ...], computed: FloatArray
) -> Kernel | None:
    """Return the formula compiled; None where that cannot be, or gives other bits than numpy computed."""
    if os.environ.get("DRAFTPLAN_FAST") == "0":
        return None
    again = np.empty_like(computed)
    for cache in (True, False):  # nowhere to write what was compiled: compile it anew each time
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kernel = _compile(formula, varying, cache)
            _run(kernel, terms, varying, again)
        except Exception:  # absent, broken or too old for this Python: numpy computes the same
            continue
        return kernel if again.tobytes() == computed.tobytes() else None
    return None


def _compile(formula: Formula, varying: Sequence[bool], cache: bool) -> Kernel:
    """Return a loop over the innermost axis, compiled, whose terms are arrays there or numbers."""
    numba: Any = import_module("numba")
    names = [f"term{index}" for index in range(len(varying))]
    numbers = [f"{name}[i]" if varies else name for name, varies in zip(names, varying, strict=True)]
    name = f"{formula.__name__}_{''.join('ni'[varies] for varies in varying)}"
    text = (
        f"def {name}({', '.join(names)}, out):\n"
        f"    for i in range(out.size):\n"
        f"        out[i] = formula({', '.join(numbers)})\n"
    )
    loop: dict[str, Any] = {"formula": _of_numbers(numba.njit, formula), "__name__": formula.__module__}
    exec(compile(text, formula.__code__.co_filename, "exec"), loop)
    array, number = numba.float64[::1], numba.float64
    signature = numba.void(*(array if varies else number for varies in varying), array)
    layout = f"{','.join('(n)' if varies else '()' for varies in varying)}->(n)"
    kernel: Kernel = numba.guvectorize([signature], layout, nopython=True, cache=cache)(loop[name])
    return kernel


def _of_numbers(njit: Callable[..., Any], formula: Formula) -> Any:
    """Return a formula compiled for numbers, with the plain functions of its module that it calls."""
    around = formula.__globals__
    calls = {
        name: _of_numbers(njit, unwrap(around[name]))
        for name in formula.__code__.co_names
        if isinstance(around.get(name), FunctionType)
    }
    return njit(FunctionType(formula.__code__, {**around, **calls}, formula.__name__))
