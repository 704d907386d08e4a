"""Computed seconds of measured cells: the same equations as the planner's, one element a cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import expected_tokens
from perfmodel.engine import EngineOverhead
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.files.numbers import FloatArray
from perfmodel.hardware import HardwareProfile
from perfmodel.speculation import Round, price_round

__all__ = ["ComputedSteps", "price_measurements"]



@dataclass(frozen=True)
class ComputedSteps:
    """Computed terms of measured cells, shape ``[cells]`` or ``[cells, gammas]``.

    ``target``: one plain step, ``draft``: one draft pass on average over a round, ``verify``: one
    verification, ``overhead``: what else a round takes. [s] ``tokens``: tokens per round by the acceptance
    law.
    """

    gamma: FloatArray
    target: FloatArray
    draft: FloatArray
    verify: FloatArray
    overhead: FloatArray
    tokens: FloatArray
    fits: NDArray[np.bool_]

    @property
    def round(self) -> FloatArray:
        """Seconds of one round; a plain step where nothing is drafted. [s]"""
        drafted = self.gamma * self.draft + self.verify + self.overhead
        return np.where(self.gamma > 0.0, drafted, self.target)

    def tpot(self, tokens: FloatArray) -> FloatArray:
        """Seconds per token when a round yields `tokens`. [s]"""
        return np.asarray(self.round / tokens)

    def speedup(self, tokens: FloatArray) -> FloatArray:
        """Plain step over seconds per token. [1]"""
        return np.asarray(self.target / self.tpot(tokens))


def price_measurements(
    rows: Sequence[Measurement],
    *,
    engine: EngineOverhead | None = None,
    hardware: Callable[[HardwareProfile], HardwareProfile] | None = None,
    gammas: FloatArray | None = None,
) -> ComputedSteps:
    """Price measured cells.

    Parameters
    ----------
    engine : used in place of each row's own.
    hardware : changes each row's own profile.
    gammas : speculation lengths to price every cell at, on a second axis; each cell's own where absent (the
        terms of a cell whose length is not known are then those of length 1). [tokens]
    """
    shape = (len(rows),) if gammas is None else (len(rows), np.size(gammas))
    terms = {field.name: np.zeros(shape) for field in fields(ComputedSteps)}
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.key, []).append(index)
    for members in groups.values():
        group = rows[members[0]].group

        def column(name: str, members: list[int] = members) -> FloatArray:
            values = np.array([getattr(rows[index], name) for index in members], dtype=float)
            return values if gammas is None else values[:, None]

        own = column("gamma")
        gamma = np.where(np.isnan(own), 1.0, own) if gammas is None else np.where(own == 0.0, 0.0, gammas)
        profile = group.hardware if hardware is None else hardware(group.hardware)
        priced = price_round(
            profile,
            group.target,
            group.engine if engine is None else engine,
            group.drafter,
            batch=column("batch"),
            context_len=column("context_len"),
            kv_budget=column("kv_budget"),
            gamma=gamma,
            tensor_parallel=column("tensor_parallel"),
            expert_parallel=column("expert_parallel"),
        )
        for name, value in _terms(priced, gamma).items():
            terms[name][members] = value
    return ComputedSteps(**{**terms, "fits": terms["fits"] > 0.5})  # type: ignore[arg-type]


def _terms(priced: Round, gamma: FloatArray) -> dict[str, NDArray[Any]]:
    passes = np.maximum(priced.passes, 1.0)
    tokens = 1.0 if priced.acceptance is None else expected_tokens(priced.acceptance, gamma)
    terms = {
        "gamma": gamma,
        "target": priced.baseline.total,
        "draft": np.divide(priced.draft_s, passes),
        "verify": priced.verify.total,
        "overhead": priced.overhead,
        "tokens": np.where(gamma > 0.0, tokens, 1.0),
        "fits": priced.memory.fits,
    }
    return {name: np.asarray(term) for name, term in terms.items()}
