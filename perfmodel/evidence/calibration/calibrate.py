"""An engine from measured steps: what the points determine, how surely, and what they leave open."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError, nearest_name
from perfmodel.evidence.calibration.design import Informing, NextCell, candidates
from perfmodel.evidence.calibration.fit import Fit, fit_figures
from perfmodel.evidence.calibration.guard import Standing, stand, ways
from perfmodel.evidence.calibration.kernels import KernelPair, rank_kernels
from perfmodel.evidence.calibration.residuals import (
    MOST_RESIDUAL,
    KindError,
    held_out_errors,
    kind_errors,
    refuse_unexplained,
    residual_figures,
)
from perfmodel.evidence.calibration.response import (
    KINDS,
    OF_EVERY_ENGINE,
    Observations,
    Prior,
    observations,
    priors,
    reprice,
    respond,
)
from perfmodel.evidence.calibration.result import Calibration, FittedFigure
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.files.nouns import read_back
from perfmodel.files.numbers import FloatArray
from perfmodel.files.quantity import Z90, Quantity
from perfmodel.files.spec import to_yaml
from perfmodel.hardware import HardwareProfile

__all__ = [
    "Calibration", "FittedFigure", "KernelPair", "KindError", "calibrate", "profile_text", "usual_shares",
]  # fmt: skip


FEWEST = 4
_DIGITS = 4


def usual_shares(hardware: HardwareProfile, engine: EngineOverhead) -> list[str]:
    """Return the dotted paths of the shares that decode steps under an engine can tell something about."""
    kernel = engine.attention_kernel
    if kernel not in hardware.attention:
        kernel = next(iter(hardware.attention))
    usual = (
        f"attention.{kernel}.memory_fraction", f"attention.{kernel}.compute_fraction", "gemm.memory_fraction",
        "gemm.compute_fraction", f"all_reduce.{engine.all_reduce}.scale",
    )  # fmt: skip
    return [path for path in usual if path in hardware.quantities]


def calibrate(
    rows: Sequence[Measurement],
    *,
    start: EngineOverhead,
    name: str,
    attention_kernel: str = "",
    all_reduce: str = "",
    achieved: Sequence[str] | None = (),
    keep: Sequence[str] = (),
    calibrated_on: str = "",
    source: str = "",
    most_residual: float = MOST_RESIDUAL,
) -> Calibration:
    """Fit an engine's kernels and its seconds per pass, layer, row and round to measured cells.

    Parameters
    ----------
    rows : measured cells on one accelerator.
    start : where each figure stays that the points do not determine: those of what stands for it on that
        accelerator, `EngineOverhead.on`; its description and aliases are those of the result, which is of
        this one accelerator and has no presets.
    attention_kernel, all_reduce : the kernel of the hardware profile that ran; empty tries each that the
        profile has, see `rank_kernels`.
    achieved : dotted paths of figures of the hardware to fit as well, where the points tell them apart; None
        fits those of `usual_shares`. A share of one kernel says that it ran.
    keep : dotted paths of the engine's figures that stay at their start whatever the points say.
    calibrated_on : the profile that the engine will be used with, where the fitted shares go into a new one.
    source : where the points come from, as the written file will say.
    most_residual : relative spread of target passes above which the points are refused. [1]

    Raises
    ------
    SpecError
        Fewer than `FEWEST` measured times, rows of several accelerators, rows that differ in nothing that a
        figure depends on, a kernel that the profile does not have, points that determine no figure at all, or
        points that no kernels explain, see `residuals.refuse_unexplained`.

    Notes
    -----
    Robust least squares (soft L1) on log seconds; every step is linear in the engine's seconds, and priced
    again wherever shares of the hardware go. Each figure is held by a weak prior, which points that
    contradict it widen, and one that the points do not narrow to half of its prior variance keeps its start.
    The result stands on the points no worse than the start, in mean error and in regret: it stops on the way
    to the least squares where it would not.
    """
    _check(rows, start, achieved or (), keep)
    hardware = rows[0].group.hardware
    start = replace(
        start.on(hardware), description=start.description, aliases=start.aliases, presets=(),
        families=(), fitted_to="",
    )
    seen = observations(rows)
    attention_kernel = attention_kernel or _kernel_in("attention", achieved)
    all_reduce = all_reduce or _kernel_in("all_reduce", achieved)
    before = stand(rows, seen, _calling(start, attention_kernel, all_reduce), {})
    kernels = rank_kernels(
        rows, seen, start, _free(priors(start, hardware), keep), attention_kernel=attention_kernel,
        all_reduce=all_reduce,
    )  # fmt: skip
    best = kernels[0]
    ranked, start = start, start.calling(attention_kernel=best.attention_kernel, all_reduce=best.all_reduce)
    figures = priors(start, hardware, usual_shares(hardware, start) if achieved is None else achieved)
    fit = _fitted(rows, seen, start, figures, _free(figures, keep))
    values, after, of_fit = _no_worse(rows, seen, start, figures, fit, before)
    if not after.no_worse_than(before):  # the start's own kernels stand better than any that were found
        attention_kernel = attention_kernel or ranked.attention_kernel
        all_reduce = all_reduce or ranked.all_reduce
        return calibrate(
            rows, start=ranked, name=name, attention_kernel=attention_kernel, all_reduce=all_reduce,
            achieved=achieved, keep=keep, calibrated_on=calibrated_on, source=source,
            most_residual=most_residual,
        )  # fmt: skip
    reached, free = _with(start, figures, fit, values), _free(figures, keep)
    informing = Informing(candidates(rows, reached, figures), fit.information, figures).of(free)
    if not fit.determined.any():
        remedy = "Measure cells of other batch sizes and contexts"
        suggested = informing.next_cells(1)
        if suggested:
            remedy = f"{remedy}: {suggested[0].request}"
        raise SpecError.single("", "points", "they determine no figure of the engine", remedy)
    held_out = held_out_errors(rows, seen, fit)
    refuse_unexplained(rows, seen, held_out, str(best), most_residual)
    measured_from = (
        source or "; ".join(dict.fromkeys(row.source for row in rows if row.source)) or "own measurements"
    )
    note = f"fitted to {len(rows)} rows on {hardware.name}: {measured_from}"
    figures_after = tuple(
        _figure(
            figure, start, hardware.quantities.get(figure.path), index, fit, float(values[index]), note,
            informing.best_for(figure.path),
        )
        for index, figure in enumerate(figures)
        if figure.relative or figure.path in OF_EVERY_ENGINE or np.any(fit.response.slopes[:, index])
    )  # fmt: skip
    fitted = {
        figure.path: figure.after for figure in figures_after if figure.determined and not figure.relative
    }
    fitted |= residual_figures(rows, seen, held_out, note + _why_these(kernels))
    description = (
        start.description or f"Calibrated on {hardware.name} from {len(rows)} measured rows, with {best}"
    )
    named = replace(
        start, name=name, description=description, calibrated_on=calibrated_on or str(hardware.name)
    )
    given = {path: quantity for path, quantity in start.quantities.items() if quantity.given}
    engine = read_back(named.with_quantities({**given, **fitted}, _DIGITS))
    chosen = fit.determined
    deviation = fit.deviation[chosen]
    computed = reprice(fit.response, rows, seen, start, figures, values).seconds(values, figures)
    residuals = np.log(computed / seen.seconds)
    return Calibration(
        engine=engine,
        hardware=str(hardware.name),
        rows=len(rows),
        kernels=kernels,
        figures=figures_after,
        correlation=fit.covariance[np.ix_(chosen, chosen)] / np.outer(deviation, deviation),
        errors=tuple(kind_errors(rows, seen, residuals, held_out)),
        residuals=tuple(
            (rows[row].place, KINDS[kind], float(seconds), float(residual))
            for row, kind, seconds, residual in zip(seen.row, seen.kind, seen.seconds, residuals, strict=True)
        ),
        next_cells=informing.next_cells(),
        before=before,
        after=after,
        least_squares=of_fit,
    )


def profile_text(
    name_or_path: str | os.PathLike[str],
    name: str,
    fitted: Mapping[str, Quantity],
    profiles_path: str | os.PathLike[str] | None = None,
) -> str:
    """Return the YAML text of a profile called `name`: as the one it comes from, but for the fitted figures.

    Raises
    ------
    SpecError
        When there is no such profile, or the result would not load.
    """
    profile = replace(HardwareProfile.load(name_or_path, profiles_path), name=name, aliases=())
    return to_yaml(read_back(profile.with_quantities(fitted, _DIGITS)))


def _check(
    rows: Sequence[Measurement], start: EngineOverhead, achieved: Sequence[str], keep: Sequence[str]
) -> None:
    count = observations(rows).seconds.size
    if count < FEWEST:
        problem = f"{count} measured {'time is' if count == 1 else 'times are'} too few to fit an engine"
        raise SpecError.single("", "points", problem, f"Give at least {FEWEST}, of different cells")
    names = {str(row.group.hardware.name) for row in rows}
    if len(names) > 1:
        raise SpecError.single(
            "",
            "hardware",
            f"the rows are of {', '.join(sorted(names))}",
            "Calibrate one accelerator at a time",
        )
    same = [name for name in ("batch", "context_len") if len({getattr(row, name) for row in rows}) == 1]
    if len(same) == 2 and len({row.tensor_parallel for row in rows}) == 1:
        problem = (
            "batch_size and context_len are the same in every row, so the rows cannot tell figures apart"
        )
        raise SpecError.single(
            "", "points", problem, "Vary the batch size, and the context length where you can"
        )
    hardware = rows[0].group.hardware
    for paths, noun in ((achieved, hardware), (keep, start)):
        for path in paths:
            if path not in noun.quantities:
                nearest = nearest_name(path, noun.quantities)
                raise SpecError.single("", path, f"no such figure of {noun.name}", nearest=nearest)


def _free(figures: Sequence[Prior], keep: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([figure.path not in keep for figure in figures])


def _kernel_in(section: str, achieved: Sequence[str] | None) -> str:
    """Return the kernel whose shares are to be fitted, by dotted path; empty where there is none."""
    named = {path.split(".")[1] for path in achieved or () if path.startswith(f"{section}.")}
    return named.pop() if len(named) == 1 else ""


def _why_these(kernels: Sequence[KernelPair]) -> str:
    """Return why the first pair of kernels was taken, in words; empty where no other was tried."""
    if len(kernels) == 1:
        return ""
    best, second = kernels[:2]
    return (
        f"; of {len(kernels)} pairs of kernels, {best} foretell cells from the others to {best.error:.1%}, "
        f"{second} to {second.error:.1%}"
    )


def _calling(start: EngineOverhead, attention_kernel: str, all_reduce: str) -> EngineOverhead:
    """Return the start with the kernels that are known to run."""
    if not attention_kernel and not all_reduce:
        return start
    return start.calling(
        attention_kernel=attention_kernel or start.attention_kernel, all_reduce=all_reduce or start.all_reduce
    )


def _fitted(
    rows: Sequence[Measurement],
    seen: Observations,
    start: EngineOverhead,
    figures: Sequence[Prior],
    free: NDArray[np.bool_],
) -> Fit:
    """Fit; shares of the hardware are priced again at each step. Raises SpecError if it never settles."""
    response = respond(rows, seen, start, figures)
    again = partial(reprice, response, rows, seen, start, figures)
    shares = any(figure.relative for figure in figures)
    fit = fit_figures(response, seen, figures, free, overrule=True, reprice=again if shares else None)
    if fit.converged:
        return fit
    names = ", ".join(figure.path for figure in figures if figure.relative)
    raise SpecError.single(
        "", "achieved", f"the fit does not settle on {names}",
        "Name fewer shares, or measure more cells of different batch sizes, contexts and lengths",
    )  # fmt: skip


def _no_worse(
    rows: Sequence[Measurement],
    seen: Observations,
    start: EngineOverhead,
    figures: Sequence[Prior],
    fit: Fit,
    before: Standing,
) -> tuple[FloatArray, Standing, Standing]:
    """Return figures that stand no worse than the start, neither in error nor in regret, and how they stand.

    Those of the fit, else the nearest of what the points leave open, else on the way to them. The last is
    how the fit itself stands.
    """

    def stand_at(values: FloatArray) -> Standing:
        return stand(rows, seen, _with(start, figures, fit, values), _shares(figures, fit, values))

    values, after = fit.values, stand_at(fit.values)
    of_fit, others = after, ways(fit)
    while not after.no_worse_than(before) and (other := next(others, None)) is not None:
        values, after = other, stand_at(other)
    return values, after, of_fit


def _with(
    start: EngineOverhead, figures: Sequence[Prior], fit: Fit, values: FloatArray
) -> EngineOverhead:
    """Return the start with the determined figures of the engine at these values."""
    return start.with_values({
        figure.path: float(value)
        for figure, value, determined in zip(figures, values, fit.determined, strict=True)
        if determined and not figure.relative
    })  # fmt: skip


def _shares(figures: Sequence[Prior], fit: Fit, values: FloatArray) -> dict[str, float]:
    """Return the determined shares of the hardware at these values, by dotted path."""
    return {
        figure.path: float(value)
        for figure, value, determined in zip(figures, values, fit.determined, strict=True)
        if determined and figure.relative
    }


def _figure(
    prior: Prior,
    start: EngineOverhead,
    achieved: Quantity | None,
    index: int,
    fit: Fit,
    value: float,
    note: str,
    by: NextCell | None,
) -> FittedFigure:
    before = start.quantities[prior.path] if achieved is None else achieved
    deviation, determined = float(fit.deviation[index]), bool(fit.determined[index])
    after = before
    if determined:
        reach = Z90 * deviation
        fitted = float(fit.values[index])
        ends = (
            (fitted * np.exp(-reach), fitted * np.exp(reach))
            if prior.relative
            else (fitted - reach, fitted + reach)
        )
        low, high = max(float(ends[0]), prior.least), min(float(ends[1]), prior.most)
        after = Quantity(value, min(low, value), max(high, value), before.unit, note, "measured")
    return FittedFigure(
        prior.path, before, after, determined, float(fit.learned[index]), prior.relative,
        overruled=bool(fit.overruled[index]), by=None if determined else by,
    )  # fmt: skip
