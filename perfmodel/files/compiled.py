"""Formulas compiled where numba is installed and arrays are long, else the same formula in numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

__all__ = ["WORTH_IT", "compiled"]

WORTH_IT = 65_536
"""Elements from which compiled code is used: for fewer, loading the compiler takes longer. [1]"""


def compiled(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Return an elementwise formula that runs compiled where that can be and is worth it.

    Parameters
    ----------
    formula : positional numbers or arrays that broadcast; arithmetic, comparisons and numpy functions that
        work element by element, so that one source serves arrays and a compiler of scalars.
    """

    @wraps(formula)
    def either(*terms: Any) -> Any:
        if np.broadcast(*terms).size >= WORTH_IT and (fast := _compile(formula)) is not None:
            return fast(*terms)
        return formula(*terms)

    return either


@cache
def _compile(formula: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the formula as a compiled function of arrays; None where numba is not installed."""
    if find_spec("numba") is None:
        return None
    vectorize: Any = import_module("numba").vectorize
    fast: Callable[..., Any] = vectorize(nopython=True, cache=True)(formula)
    return fast
