"""Passes at their distinct counts: contexts and budgets that are read alike are priced once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import Numeric
from perfmodel.model import ForwardPass, ModelSpec

__all__ = ["Places", "by_budget", "distinct", "spread"]

Places: TypeAlias = NDArray[np.intp]
"""Which of the distinct counts each (context, budget) has, shape (context, budget). [1]"""

_ONLY_IN_LAUNCHES = ("batch", "kv_tokens", "context_len", "selection_kv_tokens", "drafting")
"""Fields of a pass that token mixers make their launches of, and those that are no counts of one sequence."""


def distinct(model: ModelSpec, forward: ForwardPass) -> tuple[ForwardPass, Places | None]:
    """Return a pass at its distinct counts, and where each (context, budget) stands among them.

    A budget bounds what is read, so most contexts launch the very same kernels. What counts is what the
    launches of every layer say, so that a window bounds too, and whatever else a layer makes of a context.

    Parameters
    ----------
    model : whose layers the pass runs through.
    forward : a pass with axes (..., context, budget, gamma). [tokens]

    Returns
    -------
    The pass with axes (..., count, 1, gamma), and the places; the pass itself and None where little is alike.
    """
    counts = [count for count in _counts(model, forward) if _varies(count)]
    read = (forward.kv_tokens, forward.context_len, forward.selection_kv_tokens)
    plane = np.broadcast_shapes(*(_plane(term) for term in (*counts, *read) if term is not None))
    alike = _number(counts, plane)
    if alike is None:
        return forward, None
    first, places = alike

    def compact(term: Any) -> Any:
        if not _varies(term):
            return term
        each = (np.shape(term)[-1],)
        return np.broadcast_to(term.reshape(_plane(term) + each), plane + each).reshape(-1, 1, *each)[first]

    terms = {field.name: compact(getattr(forward, field.name)) for field in fields(forward)}
    return ForwardPass(**terms), places


def spread(seconds: Numeric, places: Places | None) -> Numeric:
    """Return what was priced at distinct counts for every context and budget. [s]

    Parameters
    ----------
    seconds : a term, axes (..., count, 1, gamma), or one that no count moves, which stays as it is. [s]
    places : as `distinct` returns them.

    Returns
    -------
    The term with axes (..., context, budget, gamma), laid out as by `by_budget`. [s]
    """
    if places is None or np.ndim(seconds) < 3 or np.shape(seconds)[-3] == 1:
        return seconds
    gathered: Numeric = np.take(np.asarray(seconds)[..., 0, :], places.T, axis=-2)
    return np.swapaxes(gathered, -3, -2)


def by_budget(term: Numeric) -> Numeric:
    """Return a term laid out in memory budget by budget.

    Most terms know no budget: numpy joins them with those that do in rows of all contexts and lengths.
    """
    if np.ndim(term) < 3:
        return term
    return np.swapaxes(np.ascontiguousarray(np.swapaxes(term, -3, -2)), -3, -2)


def _counts(model: ModelSpec, forward: ForwardPass) -> Iterator[Any]:
    """Yield what the kernels of a pass depend on, besides the batch."""
    for field in fields(forward):
        if field.name not in _ONLY_IN_LAUNCHES:
            yield getattr(forward, field.name)
    for mixer, _ in model.token_mixers:
        for way in mixer.ways(forward):
            for launch in way:
                yield from (getattr(launch, field.name) for field in fields(launch))


def _plane(term: Any) -> tuple[int, ...]:
    """Return the lengths of a term's context and budget axes."""
    return (1, 1, *np.shape(term))[-3:-1] if np.ndim(term) > 1 else (1, 1)


def _varies(term: Any) -> bool:
    """Whether a term varies with context or budget."""
    return isinstance(term, np.ndarray) and _plane(term) != (1, 1)


def _number(counts: list[Any], plane: tuple[int, ...]) -> tuple[NDArray[np.intp], Places] | None:
    """Number the (context, budget) pairs, those with equal counts alike; None where few are.

    Rows of counts are sorted by a weighted sum of each, and those of one sum are compared in full.

    Returns
    -------
    The first pair of every number, and the number of every pair, shape `plane`. [1]
    """
    pairs = plane[0] * plane[1]
    if pairs == 1 or any(np.size(count) > np.prod(np.shape(count)[-3:]) for count in counts):
        return None  # the latter vary with the batch too
    rows = [np.broadcast_to(count, (*plane, np.shape(count)[-1])).reshape(pairs, -1) for count in counts]
    table = np.concatenate([np.zeros((pairs, 1)), *rows], axis=1)
    weights = 1.0 + np.modf(np.arange(table.shape[1]) * np.sqrt(2.0))[0]
    _, first, numbers = np.unique((table * weights).sum(axis=1), return_index=True, return_inverse=True)
    if 2 * first.size > pairs or not np.array_equal(table[first][numbers.ravel()], table):
        return None
    return first, numbers.reshape(plane)
