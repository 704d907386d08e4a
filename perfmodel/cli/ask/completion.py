"""Names for the shell to complete, read only when it asks."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "engine_names", "exporter_names", "hardware_names", "model_names", "plan_formats", "strategy_names",
    "table_names",
]  # fmt: skip


def hardware_names(incomplete: str) -> list[str]:
    """Complete the names of hardware profiles."""
    from perfmodel.hardware import HardwareProfile

    return _complete(HardwareProfile.available(), incomplete)


def engine_names(incomplete: str) -> list[str]:
    """Complete the names of engines."""
    from perfmodel.engine import EngineOverhead

    return _complete(EngineOverhead.available(), incomplete)


def model_names(incomplete: str) -> list[str]:
    """Complete the names of bundled models."""
    from perfmodel.model import ModelSpec

    return _complete(ModelSpec.available(), incomplete)


def strategy_names(incomplete: str) -> list[str]:
    """Complete the names of strategies."""
    import strategies

    return _complete(("all", *strategies.available()), incomplete)


def table_names(incomplete: str) -> list[str]:
    """Complete the names of published tables."""
    from perfmodel.evidence.published.validate import available

    return _complete(available(), incomplete)


def exporter_names() -> list[str]:
    """Names of the engines that a plan can be exported to."""
    from perfmodel.export import exporters

    return list(exporters())


def plan_formats() -> list[str]:
    """How a plan can be written: for people, for programs, for an engine."""
    from perfmodel.cli.ask.format import Format

    return [*(form.value for form in Format), *exporter_names()]


def _complete(names: Iterable[str], incomplete: str) -> list[str]:
    """Complete the last name of a comma-separated list, in any case."""
    from perfmodel.errors import printable

    before, comma, last = incomplete.rpartition(",")
    starting = (name for name in names if name.lower().startswith(last.lower()))
    return [f"{before}{comma}{name}" for name in map(printable, starting)]
