"""What an engine is told to load: an id or a file that it finds, else a mark that says what to fill in."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from perfmodel.files.document import read_yaml
from perfmodel.model.names import bundled_name, guess_model, hub_ids

__all__ = ["FILL_IN", "Checkpoints", "Head", "checkpoint", "head_checkpoint", "hub_id", "published_heads"]

Checkpoints = Literal["hub", "gguf", "folder"]
"""What an engine loads: ids of a hub or folders of theirs, GGUF files, or folders of its own export."""

FILL_IN = "FILL-IN"
"""Begins whatever stands for a checkpoint that nobody named."""
SPECULATORS = ("vllm",)
"""Engines that load heads in the format of vLLM's speculators library."""
_HEADS = Path(__file__).resolve().parents[1] / "data" / "heads.yaml"


@dataclass(frozen=True)
class Head:
    """A draft head that is published: for which target, by which strategy it drafts, its id and form."""

    target: str
    strategy: str
    id: str
    form: str
    source: str


@lru_cache(maxsize=1)
def published_heads() -> tuple[Head, ...]:
    """Return the draft heads of `data/heads.yaml`; of a target the first that an engine loads is offered."""
    return tuple(Head(**entry) for entry in read_yaml(_HEADS).data["heads"])


def head_checkpoint(
    model: str, strategy: str, loads: Checkpoints, engine: str, label: str
) -> tuple[str, str]:
    """Return the head that an engine loads for a model of a plan, or a mark to fill in, with a remark.

    Parameters
    ----------
    model, strategy : what the plan calls the target, and how the head drafts.
    loads : what the engine loads.
    engine, label : its software, and what people call it.
    """
    for head in published_heads() if loads == "hub" else ():
        meant = guess_model(head.target)
        fits = meant is not None and meant.model == model and head.strategy == strategy
        if fits and (head.form == "plain" or engine in SPECULATORS):
            return head.id, f"{head.id} is a head for {head.target}; --draft-path names another one"
    kind = "" if loads == "hub" else " as a GGUF file" if loads == "gguf" else " as an exported folder"
    mark = _mark(f"{strategy}-head-of-{model}", loads)
    what = f"a {strategy} head for {model}{kind}"
    return mark, f"{mark} stands for {what}, which {label} loads: give it as --draft-path"


def hub_id(name: str) -> str | None:
    """Return the id under which a model is published, None where no catalogue says one."""
    if "/" in name:
        return name
    model = bundled_name(name)
    ids = hub_ids(model) if model else ()
    return ids[0] if ids else None


def checkpoint(name: str, loads: Checkpoints, engine: str) -> tuple[str, str]:
    """Return what an engine loads for a model of a plan, and a remark; empty where it is as the plan says.

    Parameters
    ----------
    name : what the plan calls the model.
    loads : what the engine loads.
    engine : its name, for people.
    """
    if os.path.exists(name):
        return name, ""
    known = hub_id(name)
    if loads == "hub" and known is not None:
        again = "" if known == name else f"{name} is published as {known}; --draft-path names another one"
        return known, again
    what = {"hub": "the id or folder", "gguf": "the GGUF file", "folder": "the exported folder"}[loads]
    mark = _mark(name, loads)
    return mark, f"{mark} stands for {what} of {known or name}, which {engine} loads: give it as --draft-path"


def _mark(name: str, loads: Checkpoints) -> str:
    return f"{FILL_IN}-{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}" + ".gguf" * (loads == "gguf")
