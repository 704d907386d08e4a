"""What a flag was given is taken as it is where nothing has to be made of it: no validator is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any, get_args

__all__ = ["take_as_given"]


def take_as_given(params: Iterable[Any], wanted: Callable[[str], Any]) -> None:
    """Let flags and arguments take an absent value, and one of the wanted type, as they are.

    Typer loads pydantic and builds a validator for every flag of a command, given or not. Lists, and texts
    of which a number or a choice is made, are left to it, and so is what is required and absent.

    Parameters
    ----------
    params : those of one command, which are altered.
    wanted : gives the type of one by its name; None where it is not known.
    """
    for param in params:
        if "process_value" not in vars(param) and param.nargs == 1 and not getattr(param, "multiple", False):
            types = _alternatives(wanted(param.name))
            param.process_value = _process(param, param.process_value, types)


def _process(
    param: Any, process_value: Callable[[Any, Any], Any], types: tuple[type, ...]
) -> Callable[[Any, Any], Any]:
    def process(ctx: Any, value: Any) -> Any:
        if param.required if value is None else type(value) not in types:
            return process_value(ctx, value)
        return value if param.callback is None else param.callback(ctx, param, value)

    return process


def _alternatives(annotation: Any) -> tuple[type, ...]:
    """Return the type of an annotation X or X | None; nothing for all others."""
    options = get_args(annotation) or (annotation,)
    types = tuple(option for option in options if option is not NoneType)
    return types if len(types) == 1 and isinstance(types[0], type) and not get_args(types[0]) else ()
