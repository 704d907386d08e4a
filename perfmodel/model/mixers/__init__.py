"""Token mixers, one small file each, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from perfmodel.model.mixers.base import Cache, Sizes, State, TokenMixer

__all__ = ["Cache", "Sizes", "State", "TokenMixer", "mixers"]


@cache
def mixers() -> Mapping[str, type[TokenMixer]]:
    """Return the class of every mixer by the name of its file."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module.mixer for name, module in modules.items() if hasattr(module, "mixer")}
