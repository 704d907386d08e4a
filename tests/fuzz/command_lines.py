"""Random command lines: every command, every flag that it declares, values that people and others give."""

from __future__ import annotations

import functools
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any

import typer

from fuzz.seeds import NAME, seeds
from perfmodel.cli.app import app

__all__ = ["command_line"]

SKIPPED = ("measure", "demo", "report", "plot", "validate", "calibrate", "explore")
"""Commands that take seconds whatever they are asked; their files are tried by the readers."""

CELL = (
    "--model", "llama-3.1-8b", "--hardware", "h100", "--tp", "8", "--engine", "ideal",
    "--context", "8k", "-b", "16", "--strategy", "streaming_llm", "--draft-budget", "512", "--gamma", "0:2:1",
)  # fmt: skip
LOAD = (
    "--model", "llama-3.1-8b", "--hardware", "h100", "--engine", "ideal",
    "--context", "8k", "--output-tokens", "100", "--target-qps", "1", "--tpot", "50", "--ttft", "5s",
    "--strategy", "streaming_llm", "--draft-budget", "512", "--gamma", "0:2:1",
)  # fmt: skip
TRAFFIC = (
    "--synthetic", "qps=1,prompt=1k,output=10", "--requests", "5",
    "--model", "llama-3.1-8b", "--hardware", "h100", "--engine", "ideal", "--policy", "none",
)  # fmt: skip
FILES = {
    ("export",): ("plan", "--engine", "neutral"),
    ("price",): ("cases",),
    ("acceptance", "fit"): ("log-vllm-metrics",),
    ("acceptance", "show"): ("acceptance",),
    ("hardware", "check"): ("hardware",),
    ("engines", "check"): ("engine",),
    ("models", "check"): ("model",),
}
"""What commands that take a file are given: the kind of a valid one, and what else they need."""
BASES = {"plan": CELL, "explain": CELL, "sweep": CELL, "size": LOAD, "simulate": TRAFFIC}
VALUES = (
    "", "0", "1", "-1", "2", "16", "nan", "inf", "-inf", "1e999", "1e-300", "1e30", "0.5", "1.5", "32k",
    "1M", "1G", "9" * 40, "9" * 5000, "1:4:1", "4:1:1", "1:9999999999:1", "1..4", "0:0:0", ",", ",,",
    "a,b", "1,1", "16,8", "x", "none", "all", "-", "--", "/", ".", "..", "/nonexistent", "~",
    "llama-3.1-8b", "h100-sxm-80gb", "ideal", "streaming_llm", "snapkv,full_kv", "bf16", "fp8", "table",
    "json", "csv", "3@4", "0.8@3", "100%", "80 GB", "10ms", "qps=1,prompt=1k,output=10", "qps=0", "true",
    "false", "\uff11", "\u0663", "\x1b[31mx", "a\u202eb", "a\nb", "a\tb", "\x07", "'; x", "$(x)", "`x`", "%s",
    "{0}", "\\", '"', "é", "大", "💥", "\udcff", "x" * 3000, "local:2000", "dask:", "os:system",
)  # fmt: skip


@functools.cache
def _commands() -> dict[tuple[str, ...], Any]:
    """Every command that may be asked, by its words."""
    leaves: dict[tuple[str, ...], Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*words, name))
        if not hasattr(command, "commands") and words[0] not in SKIPPED:
            leaves[words] = command

    walk(typer.main.get_command(app), ())
    return leaves


def command_line(draw: Random, folder: Path) -> list[str]:
    """Return one random command line that writes, where it writes, below a folder."""
    words, command = draw.choice(list(_commands().items()))
    arguments = [*words]
    if words[0] in BASES and draw.random() < 0.9:
        arguments += BASES[words[0]]
        if words[0] == "sweep":
            arguments += ["-o", str(folder / "sweep.csv")]
    if words in FILES and draw.random() < 0.9:
        kind, *more = FILES[words]
        path = folder / f"{NAME}.{'json' if kind in ('plan', 'acceptance', 'model') else 'yaml'}"
        path.write_bytes(seeds()[kind][0])
        arguments += [str(path), *more]
    flags = [
        param for param in command.params if getattr(param, "opts", None) and param.opts[0].startswith("-")
    ]
    flags = [flag for flag in flags if not {"--output", "--executor"} & set(flag.opts)]
    for flag in draw.choices(flags, k=draw.choice((1, 1, 2, 3))) if flags else ():
        word = draw.choice(flag.opts)
        if draw.random() < 0.05:
            word = word[: draw.randrange(1, len(word) + 1)] + draw.choice(("", "x", "\x1b", "="))
        arguments.append(word)
        if not getattr(flag, "is_flag", False) or draw.random() < 0.05:
            arguments.append(_value(flag, draw))
    if draw.random() < 0.1:
        arguments.insert(draw.randrange(len(arguments) + 1), draw.choice(VALUES))
    if draw.random() < 0.05:
        del arguments[draw.randrange(len(arguments))]
    return _harmless(arguments, folder)


def _value(flag: Any, draw: Random) -> str:
    """Return a value: one that the flag knows, a number, or one of `VALUES`."""
    kind = flag.type_descriptor.annotation
    if draw.random() < 0.5:
        if isinstance(kind, type) and issubclass(kind, Enum):
            return str(draw.choice(list(kind)).value)
        if kind in (int, float):
            return draw.choice(("0", "1", "2", "8", "0.5", "0.9", "100"))
    return draw.choice(VALUES)


def _harmless(arguments: list[str], folder: Path) -> list[str]:
    """Leave out what would write elsewhere, ask a hub, or open a cluster."""
    kept: list[str] = []
    for place, word in enumerate(arguments):
        before = arguments[place - 1] if place else ""
        if before in ("-o", "--output") and not word.startswith(str(folder)):
            word = str(folder / "answer")
        if word.startswith("dask:") or word in ("--install-completion", "--show-completion"):
            word = "x"
        kept.append(word)
    return kept
