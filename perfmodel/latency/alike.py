"""Products at their distinct rows: many configurations in many worlds launch products of few sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from perfmodel.files.numbers import Numeric

__all__ = ["at_distinct_rows"]

PriceT = TypeVar("PriceT", bound=Callable[..., Numeric])
_FEW = 64
"""Rows that are not worth comparing."""


def at_distinct_rows(price: PriceT) -> PriceT:
    """Return a price of (deployment, layer, forward, rows) that is worked out once for every number of rows.

    It is where the rows have a last axis of 1, over which worlds are drawn, and nothing else that it hangs on
    varies along the other axes. Each element comes of the same numbers, so no bit changes.
    """

    @wraps(price)
    def priced(deployment: Any, layer: Any, forward: Any, rows: Numeric, *further: Any) -> Numeric:
        others = (
            deployment.tensor_parallel, deployment.expert_parallel, deployment.data_parallel,
            deployment.pipeline_parallel, forward.weight_fraction,
        )  # fmt: skip
        if np.ndim(rows) < 2 or np.shape(rows)[-1] > 1 or np.size(rows) < _FEW or any(map(_varies, others)):
            return price(deployment, layer, forward, rows, *further)
        flat = np.ravel(rows)
        if np.all(flat[1:] > flat[:-1]):
            return price(deployment, layer, forward, rows, *further)
        distinct, places = np.unique(rows, return_inverse=True)
        if 2 * distinct.size > np.size(rows):
            return price(deployment, layer, forward, rows, *further)
        seconds = np.asarray(price(deployment, layer, forward, distinct[:, None], *further))
        if seconds.ndim < 2 or len(seconds) != distinct.size:
            return seconds
        return np.take(seconds, places.ravel(), axis=0).reshape(*np.shape(rows)[:-1], -1)

    return priced  # type: ignore[return-value]


def _varies(term: Numeric) -> bool:
    """Whether a term varies along another axis than the last."""
    return bool(np.any(np.array(np.shape(term)[:-1]) > 1))
