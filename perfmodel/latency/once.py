"""Equal kernels are priced once: what a function of arrays answered is remembered for a piece of work."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np

__all__ = ["Once", "remembering"]

AnswerT = TypeVar("AnswerT")


class Once:
    """Answers of functions by what they were asked, as long as the piece of work lives that it is made for.

    The target's step and every draft of it run the same products on the same rows.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._answers: dict[Hashable, Any] = {}
        self._asked: list[Any] = []  # whoever is known by its identity has to live on

    def __call__(self, function: Callable[..., AnswerT], *about: Any, **arguments: Any) -> AnswerT:
        """Return ``function(*about, **arguments)``, of equal arguments the very answer that was given before.

        Parameters
        ----------
        function : one without side effects.
        about : objects that are taken by identity.
        arguments : numbers, arrays and texts that are taken by value.
        """
        key = (function, *map(id, about), *((name, _by_value(value)) for name, value in arguments.items()))
        if key not in self._answers:
            self._asked.append(about)
            self._answers[key] = function(*about, **arguments)
        answer: AnswerT = self._answers[key]
        return answer


def remembering(once: Once | None) -> Callable[..., Any]:
    """Return what calls a function with arguments: once for equal ones, or each time where None remembers."""
    return once or _call


def _call(function: Callable[..., AnswerT], *about: Any, **arguments: Any) -> AnswerT:
    return function(*about, **arguments)


def _by_value(value: Any) -> Hashable:
    by_value: Hashable = value
    if isinstance(value, np.ndarray):
        by_value = (value.shape, value.dtype.str, value.tobytes())
    return by_value
