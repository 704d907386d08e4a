"""The pages of the API reference: the public names, then the modules that hold equations and searches."""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache

import perfmodel

EQUATIONS = {
    "acceptance": ("acceptance.laws", "acceptance.tokens", "acceptance.rates", "acceptance.inverse"),
    "latency": ("latency.linear", "latency.attention", "latency.recurrence", "latency.all_reduce",
                "latency.forward_pass"),
    "round": ("speculation", "drafting"),
    "memory": ("memory",),
    "planning": ("planning.price", "planning.choose", "planning.planner", "planning.inflection",
                 "planning.uncertainty", "planning.explain", "planning.sweep", "planning.cases"),
    "nouns": ("deployment", "workload", "hardware", "engine"),
    "traffic": ("traffic.simulate", "traffic.sizing"),
    "policy": ("policy",),
}  # fmt: skip
"""Page of the reference -> modules of the library on it, in the order of reading."""
TITLES = {
    "acceptance": "Acceptance and tokens per round", "latency": "Seconds of a pass", "round": "One round",
    "memory": "Memory", "planning": "Search and choice", "nouns": "Deployments and workloads",
    "traffic": "Traffic", "policy": "In an engine's loop",
}  # fmt: skip


@cache
def members(module):
    """The functions and classes of a module that have no underscore, in the order of its source."""
    tree = ast.parse(inspect.getsource(importlib.import_module(f"perfmodel.{module}")))
    kinds = (ast.FunctionDef, ast.ClassDef)
    return tuple(node.name for node in tree.body
                 if isinstance(node, kinds) and node.name[0] != "_" and ast.get_docstring(node))  # fmt: skip


@cache
def names():
    """Every name that the reference shows, in full."""
    modules = [module for page in EQUATIONS.values() for module in page]
    return frozenset(f"perfmodel.{module}.{name}" for module in modules for name in members(module))


def home(name):
    """The full name of a public name."""
    value = getattr(perfmodel, name)
    return f"{value.__module__}.{value.__qualname__}"


def made():
    """Every page: its address and its text."""
    public = [name for name in perfmodel.__all__ if not name.startswith("__")]
    lines = [
        "# API reference", "",
        "The public names, each `from perfmodel import ...`. What is not among them may change.", "",
        "| name | what it is |", "|---|---|",
    ]  # fmt: skip
    elsewhere = []
    for name in public:
        value = getattr(perfmodel, name)
        first = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")
        lines.append(f"| [`{name}`][{home(name)}] | {first} |")
        if home(name) not in names():
            elsewhere.append(home(name))
    subjects = ", ".join(f"[{TITLES[page].lower()}]({page}.md)" for page in EQUATIONS)
    lines += ["", f"By subject: {subjects}.", ""]
    lines += [f"::: {full}\n" for full in elsewhere]
    pages = {"reference/index.md": "\n".join(lines)}
    for page, modules in EQUATIONS.items():
        text = [f"# {TITLES[page]}", ""]
        for module in modules:
            described = inspect.getdoc(importlib.import_module(f"perfmodel.{module}")) or ""
            first = described.partition("\n\n")[0]
            text += [f"`perfmodel.{module}`: {first}", ""]
            text += [f"::: perfmodel.{module}.{name}\n" for name in members(module)]
        pages[f"reference/{page}.md"] = "\n".join(text)
    return pages
