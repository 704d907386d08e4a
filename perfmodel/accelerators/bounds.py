"""What accelerators can do at most: the best known part, and what nothing reaches."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.files.units import format_rate

__all__ = ["CAPACITY", "MEMORY_BANDWIDTH", "PEAK_FLOPS", "Bound"]


@dataclass(frozen=True)
class Bound:
    """The most that a figure of one accelerator may be, in SI units.

    Attributes
    ----------
    what : the figure in words.
    dimension : a key of `perfmodel.files.units.DIMENSIONS`.
    known : of the best part with a profile; above it a figure is remarked on.
    physical : what no part can reach; above it a figure is refused.
    reason : where the last one comes from.
    """

    what: str
    dimension: str
    known: float
    physical: float
    reason: str

    def beyond_known(self, value: float) -> str:
        """Return what to say of a figure above that of any known part, an empty text of others."""
        if value <= self.known:
            return ""
        return (
            f"{self.what} of {self.shown(value)} is above that of any known accelerator, "
            f"{self.shown(self.known)}"
        )

    def beyond_physical(self, value: float) -> str:
        """Return what is wrong with a figure that no part can have, an empty text of others."""
        if value <= self.physical:
            return ""
        return f"{self.what} of {self.shown(value)}, and no accelerator has above {self.shown(self.physical)}"

    def shown(self, value: float) -> str:
        """Return a value with its unit."""
        return format_rate(value, self.dimension)


MEMORY_BANDWIDTH = Bound(
    "a memory bandwidth", "bytes_per_s", 8e12, 1e14,
    "16 stacks of HBM4 at 2 TB/s each are 32 TB/s (JEDEC JESD270-4, April 2025); three times that, assumed",
)  # fmt: skip
"""Known: B200, B300, GB200, MI350X and MI355X. [B/s]"""
CAPACITY = Bound(
    "a memory capacity", "bytes", 309.3e9, 4e12,
    "16 stacks of HBM4 of 64 GB are 1 TB (JEDEC JESD270-4, April 2025); four times that, assumed",
)  # fmt: skip
"""Known: MI350X and MI355X, 288 GiB. [B]"""
PEAK_FLOPS = Bound(
    "a peak rate", "flops", 15e15, 1e17,
    "seven times the dense fp4 rate of B300, the highest known, assumed",
)  # fmt: skip
"""Known: B300 in fp4, the upper end of its range. [FLOP/s]"""
