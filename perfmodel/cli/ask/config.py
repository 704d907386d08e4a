"""Flags from a YAML file: the same names, strictly read, each fault with its line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from perfmodel.files.document import Document

__all__ = ["place_of", "read_config"]

_META = "draftplan.config"
_NOT_IN_FILES = ("config", "help", "ctx", "allow_code")
"""What no file may say; that code may run is only typed."""


def read_config(ctx: typer.Context, value: str | None) -> str | None:
    """Read the file that --config names as defaults of the command's other flags.

    Raises
    ------
    SpecError
        Naming every unknown key, with the nearest flag, and every value that is no text, number or list.
    """
    if value is None or ctx.resilient_parsing:
        return value
    from perfmodel.errors import Fault, SpecError, nearest_name
    from perfmodel.files.document import read_yaml

    document = read_yaml(value)
    flags = {
        _key(flag): param for param in ctx.command.params for flag in param.opts if flag.startswith("--")
    }
    flags = {key: param for key, param in flags.items() if param.name not in _NOT_IN_FILES}
    faults = list(document.faults)
    defaults: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for key, given in document.data.items():
        line = document.line((key,))
        param = flags.get(_key(key))
        if param is None or param.name is None:
            known = f"Known: {', '.join(sorted({str(param.name) for param in flags.values()}))}"
            faults.append(
                Fault(value, line, key, "there is no such flag", known, nearest_name(_key(key), flags))
            )
        elif param.name in defaults:
            faults.append(
                Fault(value, line, key, f"the same as {keys[param.name]} above", "Keep one of them")
            )
        elif (text := _as_typed(given, is_flag=getattr(param, "is_flag", False))) is None:
            wanted = (
                "true or false" if getattr(param, "is_flag", False) else "a text, a number or a list of them"
            )
            faults.append(Fault(value, line, key, f"found {str(given)[:60]!r}", f"Give {wanted}"))
        else:
            defaults[param.name], keys[param.name] = text, key
    if faults:
        raise SpecError(faults)
    ctx.default_map = defaults
    ctx.meta[_META] = (document, keys)
    return value


def place_of(ctx: typer.Context, name: str) -> tuple[str, int | None, str]:
    """Return file, line and field of what was given for a flag: a place in the config, or the flag itself."""
    config: tuple[Document, Mapping[str, str]] | None = ctx.meta.get(_META)
    source = ctx.get_parameter_source(name)
    if config is not None and source is not None and source.name == "DEFAULT_MAP":
        document, keys = config
        return document.file, document.line((keys[name],)), keys[name]
    return "", None, "--" + name.replace("_", "-")


def _as_typed(given: Any, *, is_flag: bool) -> str | bool | None:
    """Return a value as it would be typed on the command line, or None where it cannot be."""
    if is_flag or isinstance(given, bool):
        return given if is_flag and isinstance(given, bool) else None
    parts = given if isinstance(given, list) else [given]
    if not parts or any(isinstance(part, bool) or not isinstance(part, (str, int, float)) for part in parts):
        return None
    return ",".join(str(part) for part in parts)


def _key(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")
