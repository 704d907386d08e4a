"""Accelerators as such: what people call them, and what they can do at most."""

from perfmodel.accelerators.bounds import CAPACITY, MEMORY_BANDWIDTH, PEAK_FLOPS, Bound
from perfmodel.accelerators.names import MAKERS, Unprofiled, counted, not_profiled, spelling

__all__ = [
    "CAPACITY", "MAKERS", "MEMORY_BANDWIDTH", "PEAK_FLOPS", "Bound", "Unprofiled", "counted", "not_profiled",
    "spelling",
]  # fmt: skip
