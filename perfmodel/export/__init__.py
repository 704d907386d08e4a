"""A plan in a serving engine's own arguments: one exporter a file, found by being there."""

from __future__ import annotations

import importlib
import pkgutil

from perfmodel.errors import SpecError, nearest_name
from perfmodel.export.base import Exported, Exporter, ExportOptions
from perfmodel.planning.plan import Plan

__all__ = ["ExportOptions", "Exported", "Exporter", "export", "exporters", "load"]

_NO_ENGINES = ("base", "checkpoints", "costs", "grid", "loss")


def exporters() -> tuple[str, ...]:
    """Names of all engines that a plan can be exported to, sorted."""
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_ENGINES)
    )


def load(engine: str) -> Exporter:
    """The exporter of an engine; ``-`` and ``_`` mean the same. SpecError for an unknown one."""
    name = engine.strip().lower().replace("-", "_").replace(".", "")
    if name not in exporters():
        raise SpecError.single(
            "request", "--engine", f"there is no exporter called {engine!r}",
            f"Known: {', '.join(exporters())}", nearest_name(name, exporters()),
        )  # fmt: skip
    exporter: Exporter = importlib.import_module(f"{__name__}.{name}").exporter
    return exporter


def export(plan: Plan, engine: str, options: ExportOptions | None = None) -> Exported:
    """A plan in the words of one engine; SpecError says what that engine cannot do and why."""
    return load(engine).export(plan, options or ExportOptions())
