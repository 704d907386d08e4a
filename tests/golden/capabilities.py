"""Everything a user can call or read: commands, flags, keys, names, import paths."""

from __future__ import annotations

import configparser
import importlib
import inspect
import pkgutil
from enum import Enum
from pathlib import Path
from typing import Any

import typer

import perfmodel
import strategies
from golden.questions import QUESTIONS, ask
from perfmodel import EngineOverhead, HardwareProfile, ModelSpec, export
from perfmodel.cli.app import app

ROOT = Path(perfmodel.__file__).parents[1]
PATHS = (
    "acceptance", "engine", "errors", "export", "hardware", "latency", "memory", "model", "plots", "policy",
    "speculation", "workload",
)  # fmt: skip
Capabilities = dict[str, list[str]]


def snapshot() -> Capabilities:
    """Return the names of everything, by kind."""
    kinds: Capabilities = {"commands": [], "flags": []}
    _walk(typer.main.get_command(app), "draftplan", kinds)
    keys: set[str] = set()
    for name in QUESTIONS:
        keys |= {f"{name.partition('-')[0]}: {path}" for path in _keys(ask(name))}
    kinds["keys of answers"] = sorted(keys)
    kinds["public names"] = sorted(map(_signature, perfmodel.__all__))
    kinds["import paths"] = sorted(
        f"perfmodel.{path}.{name}" for path in PATHS for name in _names(f"perfmodel.{path}")
    )
    kinds["integrations"] = [
        module.name for module in pkgutil.iter_modules([str(ROOT / "perfmodel/integrations")])
    ]
    kinds["exporters"] = list(export.exporters())
    kinds["strategies"] = list(strategies.available())
    kinds["names of strategies.base"] = _names("strategies.base")
    kinds["engines"] = list(EngineOverhead.available())
    kinds["hardware"] = list(HardwareProfile.available())
    kinds["models"] = list(ModelSpec.available())
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    kinds["entry points"] = settings["options.entry_points"]["console_scripts"].split("\n")
    kinds["extras"] = sorted(settings["options.extras_require"])
    return kinds


def compare(held: Capabilities, now: Capabilities) -> dict[str, tuple[int, int, list[str]]]:
    """Return, by kind, how many of the names held are there now, how many were held, and which are lost."""
    return {
        kind: (len(names) - len(lost), len(names), lost)
        for kind, names in held.items()
        for lost in [[name for name in names if name not in now.get(kind, [])]]
    }


def _walk(command: Any, path: str, kinds: Capabilities) -> None:
    """Note a command, its flags with their defaults, and its subcommands."""
    kinds["commands"].append(path)
    for option in command.params:
        for spelling in (*option.opts, *option.secondary_opts):
            kinds["flags"].append(f"{path} {spelling}")
        choices = getattr(option.type_descriptor, "annotation", None)
        if isinstance(choices, type) and issubclass(choices, Enum):
            kinds["flags"] += [f"{path} {option.opts[0]}={choice.value}" for choice in choices]
        default = option.default.value if isinstance(option.default, Enum) else option.default
        if isinstance(default, (str, int, float, bool)):
            kinds["flags"].append(f"{path} {option.opts[0]} is {default} where absent")
    for name, child in getattr(command, "commands", {}).items():
        _walk(child, f"{path} {name}", kinds)


def _keys(value: Any, path: str = "") -> set[str]:
    """Return the dotted paths of an answer; every element of a list counts as one."""
    if isinstance(value, dict):
        return {path} | {key for name, item in value.items() for key in _keys(item, f"{path}.{name}")}
    if isinstance(value, list):
        return {path} | {key for item in value for key in _keys(item, f"{path}[]")}
    return {path}


def _signature(name: str) -> str:
    """Return a public name with the parameters that it takes."""
    value = getattr(perfmodel, name)
    return f"{name}({', '.join(inspect.signature(value).parameters)})" if callable(value) else name


def _names(module: str) -> list[str]:
    """Return the public names of a module: those it lists, else those it defines."""
    loaded = importlib.import_module(module)
    own = [
        name
        for name, value in vars(loaded).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    ]
    return sorted(getattr(loaded, "__all__", own))
