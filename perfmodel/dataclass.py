"""Frozen dataclasses whose methods are made when they are first needed, so that importing is cheap."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError
from itertools import compress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool, eq: bool = True, kw_only: bool = False) -> Callable[[type], type]:
        """Do what `dataclasses.dataclass` does to a class, which compiles six functions of each at once.

        Most of the nouns that a command imports are never made, and few are ever compared or printed.

        Parameters
        ----------
        frozen : True; the others have no use for it.
        eq, kw_only : as there.
        """
        if not frozen:
            raise TypeError("use dataclasses.dataclass for a class whose fields change")

        def decorate(cls: type) -> type:
            inherits = any(dataclasses.is_dataclass(base) for base in cls.__mro__[1:])
            dataclasses.dataclass(init=False, repr=False, eq=False, frozen=inherits, kw_only=kw_only)(cls)
            cls.__dataclass_params__.frozen = True  # to those that inherit from it
            fields = dataclasses.fields(cls)
            names = [field.name for field in fields]
            methods = {"__init__": _Init(cls), "__repr__": _repr(fields), **_guards(cls, fields)}
            if eq:
                key = _key([field.name for field in fields if field.compare])
                methods["__eq__"] = _eq(key)
                counts = [field.compare if field.hash is None else field.hash for field in fields]
                methods["__hash__"] = _hash(_key([*compress(names, counts)]))
                if "__eq__" in vars(cls) and vars(cls)["__hash__"] is None:
                    del cls.__hash__  # Python's, of a class that says itself what equals
            for name, method in methods.items():
                if name not in vars(cls):
                    setattr(cls, name, method)
            return cls

        return decorate


class _Init:
    """Stands for the `__init__` of a class until somebody looks for it."""

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        made = _init(self.cls)
        self.cls.__init__ = made  # type: ignore[misc]
        return made.__get__(instance, owner)


def _init(cls: type) -> Any:
    """Compile the `__init__` that the fields of a frozen dataclass ask for."""
    values: dict[str, Any] = {"_set": object.__setattr__, "_absent": MISSING}
    given: list[str] = []
    by_name: list[str] = []
    body: list[str] = []
    for field in dataclasses.fields(cls):
        name, default = field.name, f"_default_{field.name}"
        value = name
        if field.default_factory is not MISSING:
            values[default] = field.default_factory
            value = f"{default}() if {name} is _absent else {name}" if field.init else f"{default}()"
            shown = f"{name}=_absent"
        else:
            values[default] = field.default
            shown = name if field.default is MISSING else f"{name}={default}"
        if field.init:
            (by_name if field.kw_only else given).append(shown)
        if field.init or field.default_factory is not MISSING:
            body.append(f"_set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *given, *(["*", *by_name] if by_name else [])])
    exec(f"def __init__({parameters}):\n " + "\n ".join(body or ["pass"]), values)
    made = values["__init__"]
    made.__qualname__, made.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    made.__annotations__ = {field.name: field.type for field in dataclasses.fields(cls) if field.init}
    made.__annotations__["return"] = None
    return made


def _key(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What tells instances apart: the values of some fields."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda each: tuple(getattr(each, name) for name in names)


def _eq(key: Callable[[Any], tuple[Any, ...]]) -> Any:
    def __eq__(self: Any, other: object) -> Any:  # noqa: N807
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hash(key: Callable[[Any], tuple[Any, ...]]) -> Any:
    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(key(self))

    return __hash__


def _repr(fields: tuple[Any, ...]) -> Any:
    shown = [field.name for field in fields if field.repr]

    @reprlib.recursive_repr()
    def __repr__(self: Any) -> str:  # noqa: N807
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{self.__class__.__qualname__}({values})"

    return __repr__


def _guards(cls: Any, fields: tuple[Any, ...]) -> dict[str, Any]:
    """What refuses to change an instance."""
    names = frozenset(field.name for field in fields)

    def __setattr__(self: Any, name: str, value: Any) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return {"__setattr__": __setattr__, "__delattr__": __delattr__}
