"""Channel mixers, one small file each, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from perfmodel.model.channels.base import ChannelMixer

__all__ = ["ChannelMixer", "channels"]


@cache
def channels() -> Mapping[str, type[ChannelMixer]]:
    """Return the class of every channel mixer by the name of its file."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module.mixer for name, module in modules.items() if hasattr(module, "mixer")}
