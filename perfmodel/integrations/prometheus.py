"""A policy's figures among those that an engine exposes, where prometheus_client is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from perfmodel.policy_figures import PREFIX, Metric, PolicyFigures

__all__ = ["expose"]

_registered: dict[Any, dict[str, Any]] = {}


def expose(figures: Callable[[], PolicyFigures], registry: Any = None) -> Callable[[], None] | None:
    """Register the figures and return what updates them; None where there is no prometheus_client, or its
    registry refuses them. Never raises; what it returns may, so let `policy_figures.Every` call it.

    The values are kept by prometheus_client itself, so engines whose front end is another process see them
    where PROMETHEUS_MULTIPROC_DIR names the folder that both share. What another policy of this process
    registered before is used again and counts on.

    Parameters
    ----------
    figures : reads the policy's figures.
    registry : where to register; prometheus_client's default where None.
    """
    try:
        from prometheus_client import REGISTRY, Counter, Gauge

        registry = REGISTRY if registry is None else registry
        families = _registered.setdefault(registry, {})
        for metric in figures().metrics():
            if metric.name not in families:
                labels = (metric.label,) if metric.label else ()
                name, options = PREFIX + metric.name, {"registry": registry}
                families[metric.name] = (
                    Counter(name, metric.help, labels, **options)
                    if metric.kind == "counter"
                    else Gauge(name, metric.help, labels, multiprocess_mode="mostrecent", **options)
                )
    except Exception:
        return None
    counted: dict[tuple[str, str], float] = {}

    def update() -> None:
        for metric in figures().metrics():
            _set(families[metric.name], metric, counted)

    with suppress(Exception):
        update()
    return update


def _set(family: Any, metric: Metric, counted: dict[tuple[str, str], float]) -> None:
    """Give a family the values of now; a counter takes what came since the last time."""
    values: Mapping[str, float] = metric.values
    for label, value in values.items():
        child = family.labels(label) if metric.label else family
        if metric.kind != "counter":
            child.set(value)
            continue
        key = metric.name, label
        child.inc(max(0.0, value - counted.get(key, 0.0)))
        counted[key] = value
