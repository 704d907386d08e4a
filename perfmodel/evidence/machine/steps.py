"""The engine that a measured machine ran: what passes and rounds take beside their kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from perfmodel.engine import EngineOverhead
from perfmodel.evidence.calibration.calibrate import Calibration, calibrate
from perfmodel.evidence.machine.fit import KERNEL, FittedMachine, fit_machine
from perfmodel.evidence.machine.points import MachinePoint
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.hardware import HardwareProfile
from perfmodel.planning.case_rows import CaseGroup
from perfmodel.planning.drafters import load_strategy
from perfmodel.speculation import Drafter

__all__ = ["fit_engine", "fit_machine_and_engine", "steps_of"]

PASSES = ("forward", "draft", "round")
"""Kinds of points that are whole steps."""
SHARES = ("memory_fraction", "compute_fraction")
"""Figures of the kernels that whole passes correct: inside a model a kernel finds other caches than alone."""


def fit_machine_and_engine(
    points: Sequence[MachinePoint], name: str, engine_name: str, like: HardwareProfile | None = None
) -> tuple[FittedMachine, Calibration]:
    """Return the machine, its shares corrected by whole passes, and the engine that ran them.

    Parameters and errors as `perfmodel.evidence.machine.fit.fit_hardware` and `fit_engine`.
    """
    machine = fit_machine(points, name, like)
    engine = fit_engine(points, machine.profile, engine_name)
    return machine.with_shares(engine.achieved), engine


def fit_engine(
    points: Sequence[MachinePoint], profile: HardwareProfile, name: str, refine: bool = True
) -> Calibration:
    """Fit seconds per pass, layer, row and round to the passes and rounds that were measured.

    Parameters
    ----------
    points : of the machine that `profile` is of; rows of kinds ``forward``, ``draft`` and ``round`` count.
    refine : correct the shares of the peak rates that the kernels reach, too; see `Calibration.achieved`.

    Raises
    ------
    SpecError
        Where the points are too few or too alike, see `perfmodel.evidence.calibration.calibrate.calibrate`.
    """
    start = _start(points)
    rows = steps_of(points, profile, start)
    shares = [f"{place}.{share}" for place in (f"attention.{KERNEL}", "gemm") for share in SHARES]
    return calibrate(
        rows,
        start=start,
        name=name,
        achieved=[path for path in shares if path in profile.quantities] if refine else (),
        source="passes and rounds of draftplan measure",
        most_residual=np.inf,  # the profile is of these points and has one kernel: what is left is noise
    )


def steps_of(
    points: Sequence[MachinePoint], profile: HardwareProfile, engine: EngineOverhead
) -> tuple[Measurement, ...]:
    """Return the passes and rounds among the points as measured steps."""
    return tuple(
        _step(point, index, profile, engine) for index, point in enumerate(points) if point.kind in PASSES
    )


def _step(point: MachinePoint, index: int, profile: HardwareProfile, engine: EngineOverhead) -> Measurement:
    queries = point.query_tokens or 1
    gamma = {"forward": queries - 1, "draft": 1}.get(point.kind, point.gamma or 0)
    drafter = Drafter(load_strategy(point.strategy or "streaming_llm")) if gamma else None
    group = CaseGroup(profile, engine, point.model, drafter, "")
    unknown = math.nan
    blank = Measurement(
        table="",
        cell=f"{point.kind} row {index + 1}",
        row=index + 1,
        group=group,
        key=(str(point.shape_of_model), point.dtype, drafter.label if drafter else "plain"),
        tensor_parallel=1,
        batch=int(point.batch or 1),
        context_len=int(point.kv_tokens or 1) - (int(gamma) if point.kind == "forward" else 0),
        kv_budget=float(point.kv_budget or np.inf) if drafter else math.inf,
        gamma=float(gamma),
        gamma_is_best=False,
        target=unknown,
        draft=unknown,
        verify=unknown,
        round=unknown,
        tokens_per_round=unknown,
        tpot=unknown,
        speedup=unknown,
        source="",
        unknown="",
    )
    measured = {"draft": "draft", "round": "round"}.get(point.kind, "verify" if gamma else "target")
    return replace(blank, **{measured: point.seconds})  # type: ignore[arg-type]


def _start(points: Sequence[MachinePoint]) -> EngineOverhead:
    """An engine that says nothing yet: wide about what the shortest pass takes beside its kernels."""
    ideal = EngineOverhead.load("ideal")
    passes = [point for point in points if point.kind in ("forward", "draft")]
    shortest = min((point.seconds for point in passes), default=1e-3)
    layers = max((point.layers or 1 for point in passes), default=1)
    rows = max(((point.batch or 1) * (point.query_tokens or 1) for point in passes), default=1)
    guessed = {
        "forward": 0.1 * shortest,
        "layer": 0.1 * shortest / layers,
        "row_layer": 0.1 * shortest / (layers * rows),
    }
    return replace(
        ideal.with_values(guessed, "a start"),
        description="The reference decoder of draftplan on this machine",
        aliases=(),
        attention_kernel=KERNEL,
    )
