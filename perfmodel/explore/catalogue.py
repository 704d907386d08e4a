"""What a request may name: what there is by name, and a model's config that it brings; never a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError, nearest_name, printable
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.model.names import bundled_name

__all__ = ["NAMED", "POSTED", "Names", "check_name", "with_config"]

POSTED = "posted-config"
"""What a model is called whose config a request brings."""
_NO_NAME = re.compile(r"[/\\~]|\.\.|^[.]|\.(ya?ml|json|py)$|[^ -~]|^.{101}", re.IGNORECASE | re.DOTALL)
"""What paths, addresses and ids of hubs have, and no name of the catalogue has."""


def check_name(name: str) -> str:
    """Return what can be a name of the catalogue; SpecError for a path, an address or the id of a hub."""
    if _NO_NAME.search(name):
        problem = f"found {printable(name)[:60]!r}, which is no name of the catalogue"
        remedy = "This service reads no files and asks no hub: give a name that GET /models, /hardware, "
        raise SpecError.single("", "", problem, remedy + "/engines or /strategies lists")
    return name


@lru_cache(maxsize=256)
def _model(name: str) -> ModelSpec:
    bundled = bundled_name(check_name(name))
    if bundled is None:
        known = ModelSpec.available()
        problem = f"there is no bundled model called {name!r}"
        remedy = "Give a name that GET /models lists, or the model's config.json itself as an object"
        raise SpecError.single("", "", problem, remedy, nearest_name(name, known))
    return ModelSpec.load(bundled)


@lru_cache(maxsize=256)
def _hardware(name: str, profiles_path: str | None = None) -> HardwareProfile:
    del profiles_path  # no request names folders
    return HardwareProfile.load(check_name(name))


@lru_cache(maxsize=256)
def _engine(name: str, profiles_path: str | None = None) -> EngineOverhead:
    del profiles_path
    return EngineOverhead.load(check_name(name))


@dataclass(frozen=True)
class Names:
    """What the names of a request are looked up by; each is read once."""

    model: Callable[[str], ModelSpec] = _model
    hardware: Callable[[str, str | None], HardwareProfile] = _hardware
    engine: Callable[[str, str | None], EngineOverhead] = _engine


NAMED = Names()


def with_config(config: Mapping[str, Any]) -> Names:
    """Return what names are looked up by where the target is a config.json that was posted.

    Raises
    ------
    SpecError
        Where the config cannot be read, as for a file.
    """
    posted = ModelSpec.from_config(config, POSTED)
    return replace(NAMED, model=lambda name: posted if name == POSTED else _model(name))
