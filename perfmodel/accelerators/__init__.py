"""Accelerators as such: what people call them, and what they can do at most."""

from perfmodel.accelerators.bounds import CAPACITY, MEMORY_BANDWIDTH, PEAK_FLOPS, Bound
from perfmodel.accelerators.names import Unprofiled, not_profiled, spelling

__all__ = ["CAPACITY", "MEMORY_BANDWIDTH", "PEAK_FLOPS", "Bound", "Unprofiled", "not_profiled", "spelling"]
