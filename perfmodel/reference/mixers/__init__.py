"""Token mixers that the reference decoder runs, one file each, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from perfmodel.reference.mixers.base import Entry, Mixer

__all__ = ["Entry", "Mixer", "mixers"]


@cache
def mixers() -> Mapping[str, type[Mixer]]:
    """Return the class of every mixer by the name of its file, which is that of the priced mixer."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module.mixer for name, module in modules.items() if hasattr(module, "mixer")}
