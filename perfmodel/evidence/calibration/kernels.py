"""Which kernels ran: of those that the hardware profile names, the pair that foretells unseen cells best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError, nearest_name
from perfmodel.evidence.calibration.fit import fit_figures
from perfmodel.evidence.calibration.residuals import held_out_errors
from perfmodel.evidence.calibration.response import KINDS, Observations, bare_seconds, priors, respond
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.hardware import ALL_REDUCE_ALIASES, HardwareProfile

__all__ = ["KernelPair", "rank_kernels"]


@dataclass(frozen=True)
class KernelPair:
    """An attention kernel and an all-reduce of a hardware profile, and how well they explain measured steps.

    `error` is the mean absolute error of log seconds of passes, each predicted from the other cells; nan
    where there are no others. [1]
    """

    attention_kernel: str
    all_reduce: str
    error: float

    def __str__(self) -> str:
        return f"{self.attention_kernel} and {self.all_reduce}"


def rank_kernels(
    rows: Sequence[Measurement],
    seen: Observations,
    start: EngineOverhead,
    free: NDArray[np.bool_],
    *,
    attention_kernel: str = "",
    all_reduce: str = "",
) -> tuple[KernelPair, ...]:
    """Return every pair of kernels that may have run, the one to believe in first, the others by their error.

    Parameters
    ----------
    free : which of the engine's seconds may be fitted. [figures]
    attention_kernel, all_reduce : the kernel that ran, where it is known; each of the profile is tried where
        empty. One GPU reduces nothing, so the start's all-reduce stays.

    Raises
    ------
    SpecError
        When the profile has no kernel of that name.

    Notes
    -----
    Of the pairs that err by at most one standard error more than the least (Breiman et al. 1984, section
    3.4.3) the one that has most in common with the start is believed in: kernels that the points hardly tell
    apart are no news. They are told apart at the profile's own shares of the peak rates.
    """
    hardware = rows[0].group.hardware
    figures = priors(start, hardware)
    response = respond(rows, seen, start, figures)  # the slopes are those of any kernel: no kernel is in them
    passes = seen.kind != KINDS.index("overhead")
    pairs = list(
        product(
            _attention_kernels(hardware, start, attention_kernel),
            _all_reduces(hardware, start, all_reduce, max(row.tensor_parallel for row in rows)),
        )
    )
    errors = []
    for attention, reduction in pairs:
        engine = start.calling(attention_kernel=attention, all_reduce=reduction)
        of_pair = replace(response, base=bare_seconds(rows, seen, engine))
        fit = fit_figures(of_pair, seen, figures, free)
        errors.append(np.abs(held_out_errors(rows, seen, fit)[passes]))
    known = np.stack(errors)
    known = known[:, np.isfinite(known).all(axis=0)]
    if not known.size:
        return tuple(KernelPair(*pair, float("nan")) for pair in pairs)
    mean = known.mean(axis=-1)
    behind = known - known[mean.argmin()]
    as_good = mean - mean.min() <= behind.std(axis=-1) / np.sqrt(known.shape[-1])
    common = [(attention == pairs[0][0]) + (reduction == pairs[0][1]) for attention, reduction in pairs]
    order = sorted(range(len(pairs)), key=lambda index: float(mean[index]))
    best = min(order, key=lambda index: (not as_good[index], -common[index]))
    return tuple(
        KernelPair(*pairs[index], float(mean[index]))
        for index in (best, *(index for index in order if index != best))
    )


def _attention_kernels(hardware: HardwareProfile, start: EngineOverhead, known: str) -> list[str]:
    if known:
        _refuse_unknown("attention_kernel", known, list(hardware.attention), hardware)
        return [known]
    used = hardware.attention_kernel(start.attention_kernel)
    return [start.attention_kernel, *(name for name, each in hardware.attention.items() if each is not used)]


def _all_reduces(hardware: HardwareProfile, start: EngineOverhead, known: str, gpus: int) -> list[str]:
    if known:
        names = [*hardware.all_reduce, *ALL_REDUCE_ALIASES]
        _refuse_unknown("all_reduce", known.strip().lower(), names, hardware)
        return [known]
    used = hardware.all_reduce_table(start.all_reduce)
    others = [name for name, each in hardware.all_reduce.items() if each is not used]
    return [start.all_reduce, *(others if gpus > 1 else ())]


def _refuse_unknown(field: str, name: str, names: Sequence[str], hardware: HardwareProfile) -> None:
    if name not in names:
        raise SpecError.single(
            "", field, f"{hardware.name} has no {name!r}; it has {', '.join(names)}",
            "Name one of these, add yours to the profile, or leave it out and each is tried",
            nearest_name(name, names),
        )  # fmt: skip
