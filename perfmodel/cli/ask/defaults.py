"""What stands for flags that were not typed: values from files and from other flags, with their places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import typer

__all__ = ["Defaults", "Place", "by_hand", "origin_of", "place_of", "set_defaults"]

_META = "draftplan.defaults"
_ORIGINS = ("from", "config", "gpus")
"""Of two that name one flag the later wins."""

Place: TypeAlias = tuple[str, int | None, str]
"""File, line and field."""


@dataclass(frozen=True)
class Defaults:
    """Values by the names of a command's parameters, and where each was read."""

    values: Mapping[str, Any]
    places: Mapping[str, Place] = field(default_factory=dict)


def set_defaults(ctx: typer.Context, origin: str, defaults: Defaults) -> None:
    """Let values stand for the flags of a command that are not typed.

    Parameters
    ----------
    origin : one of `from`, `config` and `gpus`.
    """
    every: dict[str, Defaults] = ctx.meta.setdefault(_META, {})
    every[origin] = defaults
    ctx.default_map = {
        name: value
        for source in _ORIGINS
        if source in every
        for name, value in every[source].values.items()
    }


def by_hand(ctx: typer.Context, name: str) -> int:
    """Return how a flag got its value: 2 it was typed, 1 it was read from a file, 0 nobody named it."""
    source = ctx.get_parameter_source(name)
    if source is None or source.name == "DEFAULT":
        return 0
    if source.name != "DEFAULT_MAP":
        return 2
    return 2 if _origin(ctx, name) == "gpus" else 1


def place_of(ctx: typer.Context, name: str) -> Place:
    """Return file, line and field of what was given for a flag: where it was read, or the flag itself."""
    source = ctx.get_parameter_source(name)
    if source is not None and source.name == "DEFAULT_MAP" and (origin := _origin(ctx, name)):
        defaults: Defaults = ctx.meta[_META][origin]
        if name in defaults.places:
            return defaults.places[name]
    return "", None, "--" + name.replace("_", "-")


def origin_of(ctx: typer.Context, name: str) -> str:
    """Return which of the origins a flag's value is from; empty where it was typed, or nobody named it."""
    source = ctx.get_parameter_source(name)
    return _origin(ctx, name) if source is not None and source.name == "DEFAULT_MAP" else ""


def _origin(ctx: typer.Context, name: str) -> str:
    every: Mapping[str, Defaults] = ctx.meta.get(_META, {})
    naming = [origin for origin in _ORIGINS if origin in every and name in every[origin].values]
    return naming[-1] if naming else ""
