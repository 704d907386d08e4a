"""Flags from a YAML file: the same names, strictly read, each fault with its line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import typer

from perfmodel.cli.ask.defaults import Defaults, place_of, set_defaults
from perfmodel.cli.ask.served import missing_from
from perfmodel.errors import Fault, SpecError, nearest_name

__all__ = ["NOUNS", "as_typed", "blamed", "has_place", "place_of", "read_config", "sentence_on"]

_META = "draftplan.config"
_NOT_IN_FILES = ("config", "served", "offline", "help", "ctx", "allow_code", "executor")
"""What no file may say; that code may run is only typed."""
_MOST_FAULTS = 50
NOUNS = ("policy", "synthetic trace")
"""What one flag can hold the whole text of, so that a fault names a part of it."""
_NO_FILES = ("", "request", "workload", "replica", "simulation", *NOUNS)
"""What stands for a file in the faults of flags."""


_PARAMETERS = {
    "tensor_parallel": "tp", "pipeline_parallel": "pp", "data_parallel": "dp",
    "draft_tensor_parallel": "draft_tp", "kv_budget": "draft_budget", "kv_budgets": "draft_budget",
    "gammas": "gamma", "context_lens": "context",
    "batch_sizes": "batch_size", "alpha": "acceptance_rate", "memory_utilization": "gpu_memory_utilization",
}  # fmt: skip
"""Flags by the names of the library's own parameters, where these differ."""


def read_config(ctx: typer.Context, value: str | None) -> str | None:
    """Read the file that --config names as defaults of the command's other flags.

    Raises
    ------
    SpecError
        Naming every unknown key, with the nearest flag, and every value that is no text, number or list.
    """
    if value is None or ctx.resilient_parsing:
        return value
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
        if len(faults) >= _MOST_FAULTS:
            faults.append(Fault(value, None, "", "there are further faults", "Mend these first"))
            break
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
        elif (text := as_typed(given, is_flag=getattr(param, "is_flag", False))) is None:
            wanted = (
                "true or false" if getattr(param, "is_flag", False) else "a text, a number or a list of them"
            )
            faults.append(Fault(value, line, key, f"found {str(given)[:60]!r}", f"Give {wanted}"))
        else:
            defaults[param.name], keys[param.name] = text, key
    if faults:
        raise SpecError(faults)
    places = {name: (document.file, document.line((key,)), key) for name, key in keys.items()}
    set_defaults(ctx, "config", Defaults(defaults, places))
    ctx.meta[_META] = (document, keys)
    return value


def has_place(fault: Fault) -> bool:
    """Tell whether a fault names a place in a file."""
    return fault.line is not None or fault.file not in _NO_FILES


def blamed(ctx: typer.Context, refusal: SpecError) -> SpecError:
    """Return the refusal of a command in words of its flags, with the places of those that a config names."""
    refusal = SpecError(_in_flags(ctx, fault) for fault in refusal.faults)
    if _META not in ctx.meta:
        return refusal
    return SpecError(fault if has_place(fault) else _blamed(ctx, fault) for fault in refusal.faults)


def _in_flags(ctx: typer.Context, fault: Fault) -> Fault:
    """Return a fault of a function's parameters as one of the flags that these are."""
    names = [name.strip() for name in fault.field.split(",")]
    params = [_PARAMETERS.get(name, name) for name in names]
    if has_place(fault) or not all(name in ctx.params for name in params):
        return fault
    file = "" if fault.file in ("request", "workload", "replica", "simulation") else fault.file
    return replace(fault, file=file, field=", ".join(f"--{name.replace('_', '-')}" for name in params))


def _blamed(ctx: typer.Context, fault: Fault) -> Fault:
    document, keys = ctx.meta[_META]
    names = [name.strip().lstrip("-").replace("-", "_") for name in fault.field.split(",")]
    for name in names:
        if name in keys and ctx.get_parameter_source(name).name == "DEFAULT_MAP":  # type: ignore[union-attr]
            file, line, _ = place_of(ctx, name)
            return replace(fault, file=file, line=line, field=", ".join(names))
    return fault if any(names) else replace(fault, file=document.file)


def sentence_on(failure: Any, message: str) -> str:
    """Return what typer says of a flag, with the place in the config that it was read from or is not in."""
    ctx, param = getattr(failure, "ctx", None), getattr(failure, "param", None)
    if ctx is None or param is None:
        return message
    missing = type(failure).__name__ == "MissingParameter"
    if missing and (why := missing_from(ctx, param.name)):
        message = f"{message.rstrip('.')}: {why}."
    if _META not in ctx.meta:
        return message
    document, _ = ctx.meta[_META]
    if missing:
        return f"{document.file}: {message.rstrip('.')}, and the file has no key {param.name!r}."
    file, line, field = place_of(ctx, param.name)
    return f"{file}:{line}: {field}: {message}" if file else message


def as_typed(given: Any, *, is_flag: bool) -> str | bool | None:
    """Return a value as it would be typed on the command line, or None where it cannot be."""
    if is_flag or isinstance(given, bool):
        return given if is_flag and isinstance(given, bool) else None
    parts = given if isinstance(given, list) else [given]
    if not parts or any(isinstance(part, bool) or not isinstance(part, (str, int, float)) for part in parts):
        return None
    return ", ".join(str(part) for part in parts)  # with a space: a comma alone may separate thousands


def _key(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")
