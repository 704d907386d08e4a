"""What serving software can run, one file each, found by being there."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache

from perfmodel.errors import SpecError, nearest_name
from perfmodel.software.base import DRAFT_MODEL, SCHEDULERS, Limits, Method, Older, SchedulerKind, Software

__all__ = [
    "DRAFT_MODEL", "SCHEDULERS", "Limits", "Method", "Older", "SchedulerKind", "Software", "available",
    "labels", "load",
]  # fmt: skip

_NO_SOFTWARE = ("base", "checked")


@lru_cache(maxsize=1)
def available() -> tuple[str, ...]:
    """Return the names of all software, sorted."""
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_SOFTWARE)
    )


def labels() -> tuple[str, ...]:
    """Return what people call all software, sorted."""
    return tuple(sorted((load(name).label for name in available()), key=str.lower))


def load(name: str) -> Software:
    """Return a software by its name; ``-`` and ``_`` mean the same. SpecError for an unknown one."""
    plain = name.strip().lower().replace("-", "_").replace(".", "")
    if plain not in available():
        raise SpecError.single(
            "", "software", f"found {name[:60]!r}",
            f"Give one of {', '.join(available())}, or leave it out: then every strategy may run",
            nearest_name(plain, available()),
        )  # fmt: skip
    software: Software = importlib.import_module(f"{__name__}.{plain}").software
    return software
