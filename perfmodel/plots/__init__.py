"""Figures of what was priced: axes in (or none), axes out, no global state."""

from __future__ import annotations

from perfmodel.plots.acceptance import plot_acceptance_against_budget
from perfmodel.plots.bottleneck import plot_kv_bottleneck
from perfmodel.plots.causes import plot_time_by_cause
from perfmodel.plots.curves import (
    plot_ratios_against_batch,
    plot_speedup_against_batch,
    plot_speedup_against_context,
)
from perfmodel.plots.engines import plot_engine_maps
from perfmodel.plots.maps import plot_strategy_map
from perfmodel.plots.needed import plot_acceptance_needed
from perfmodel.plots.pareto import plot_throughput_against_tpot
from perfmodel.plots.published import plot_predicted_against_published, plot_published_speedup
from perfmodel.plots.roofline import plot_roofline
from perfmodel.plots.sensitivity import plot_sensitivity
from perfmodel.plots.style import caption_of, panels, save
from perfmodel.plots.traffic import plot_simulation

__all__ = [
    "caption_of", "panels", "plot_acceptance_against_budget", "plot_acceptance_needed", "plot_engine_maps",
    "plot_kv_bottleneck", "plot_predicted_against_published", "plot_published_speedup",
    "plot_ratios_against_batch", "plot_roofline", "plot_sensitivity", "plot_simulation",
    "plot_speedup_against_batch", "plot_speedup_against_context", "plot_strategy_map",
    "plot_throughput_against_tpot", "plot_time_by_cause", "save",
]  # fmt: skip
