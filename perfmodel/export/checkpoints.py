"""What an engine is told to load: an id or a file that it finds, else a mark that says what to fill in."""

from __future__ import annotations

import os
import re
from typing import Literal

from perfmodel.model.names import bundled_name, hub_ids

__all__ = ["FILL_IN", "Checkpoints", "checkpoint", "hub_id"]

Checkpoints = Literal["hub", "gguf", "folder"]
"""What an engine loads: ids of a hub or folders of theirs, GGUF files, or folders of its own export."""

FILL_IN = "FILL-IN"
"""Begins whatever stands for a checkpoint that nobody named."""


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
    mark = f"{FILL_IN}-{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}" + ".gguf" * (loads == "gguf")
    return mark, f"{mark} stands for {what} of {known or name}, which {engine} loads: give it as --draft-path"
