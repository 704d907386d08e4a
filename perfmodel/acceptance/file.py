"""Measured acceptance in a file, and the posterior that it makes of a law at any budget and context."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
from pydantic import ConfigDict, Field, create_model

from perfmodel.acceptance.estimate import AcceptanceFit
from perfmodel.acceptance.laws import acceptance_rate
from perfmodel.acceptance.odds import expit, logit
from perfmodel.acceptance.published import plain_name
from perfmodel.acceptance.rates import Acceptance
from perfmodel.files.checking import check
from perfmodel.files.document import read_json, read_yaml
from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.files.writing import write_whole
from strategies.base import Drafter, DraftStrategy

__all__ = ["MeasuredAcceptance", "posterior_acceptance", "read_acceptance", "write_acceptance"]


FORMAT = "draftplan acceptance 1"
CORRELATION_LENGTH = 2.0
"""Distance in ln(context) + ln(budget) over which a measured deviation from the law fades to 1/e. Assumed."""

SURPRISE = 2.0
"""Standard deviations from the law beyond which measurements widen its spread: tasks differ more than runs of
one, .10 against .025."""


_Rate = Annotated[float, Field(ge=0.0, le=1.0)]
_Error = Annotated[float, Field(gt=0.0, le=1.0)]
_Tokens = Annotated[float, Field(ge=1.0, le=1e8)]
_Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class MeasuredAcceptance:
    """Rates that were measured at one place; what is empty or None holds for all of it.

    Attributes
    ----------
    strategy, drafter, target_model, draft_model : what drafted for what.
    kv_budget, context_len : where, [tokens].
    alpha, alpha1, alpha2 : one rate, that of the first draft, that of later ones; ``*_se`` their standard
        errors.
    gamma, requests, rounds, survival, method, source : how they were found.
    """

    alpha: _Rate
    alpha_se: _Error
    alpha1: _Rate
    alpha1_se: _Error
    alpha2: _Rate
    alpha2_se: _Error
    gamma: Annotated[int, Field(ge=1, le=1000)]
    rounds: _Count
    requests: _Count | None = None
    survival: Sequence[_Rate] = ()
    strategy: str = ""
    drafter: Literal["", "self", "draft", "head", "none"] = ""
    target_model: str = ""
    draft_model: str = ""
    kv_budget: _Tokens | None = None
    context_len: _Tokens | None = None
    method: str = ""
    source: str = ""

    @classmethod
    def of_fit(cls, fit: AcceptanceFit, source: str, **place: Any) -> MeasuredAcceptance:
        """Return the entry of a fit; ``place`` gives strategy, drafter, models, budget, context if known."""
        first, rest = fit.first or fit.alpha, fit.rest or fit.alpha
        return cls(
            alpha=fit.alpha.value,
            alpha_se=fit.alpha.se,
            alpha1=first.value,
            alpha1_se=first.se,
            alpha2=rest.value,
            alpha2_se=rest.se,
            gamma=fit.gamma,
            rounds=round(fit.rounds),
            requests=None if fit.requests is None else int(fit.requests),
            survival=fit.survival,
            method=fit.method,
            source=source,
            **place,
        )

    @property
    def subject(self) -> str:
        """What was measured, and where, in words."""
        what = " of ".join(filter(None, [self.strategy, self.draft_model])) or "any strategy"
        target = f" for {self.target_model}" if self.target_model else ""
        places = [
            f"{name} {value:,.0f}"
            for name, value in (("budget", self.kv_budget), ("context", self.context_len))
            if value is not None
        ]
        return what + target + (f" at {', '.join(places)}" if places else "")

    def is_about(self, strategy: str, drafter: str, target_name: str, draft_name: str) -> bool:
        """Whether the entry was measured on this strategy, drafter and pair, as far as it says."""
        pairs = ((self.strategy, strategy), (self.target_model, target_name), (self.draft_model, draft_name))
        names = all(not own or plain_name(own) == plain_name(asked) for own, asked in pairs)
        return names and self.drafter in ("", drafter)


_STRICT: Any = {"__config__": ConfigDict(extra="forbid", allow_inf_nan=False)}
_TYPES: Any = get_type_hints(MeasuredAcceptance, include_extras=True)
_FIELDS: Any = {
    field.name: (_TYPES[field.name], ... if field.default is MISSING else field.default)
    for field in fields(MeasuredAcceptance)
}
_Entry: Any = create_model("Entry", **_STRICT, **_FIELDS)
_SHEET: Any = {
    "format": (Literal["draftplan acceptance 1"], ...),
    "measured": (Annotated[list[_Entry], Field(min_length=1)], ...),
}
_File: Any = create_model("File", **_STRICT, **_SHEET)


def read_acceptance(path: str | os.PathLike[str]) -> tuple[MeasuredAcceptance, ...]:
    """Return the entries of an acceptance file (JSON, or YAML by its suffix).

    Raises
    ------
    SpecError : naming every fault with its line.
    """
    document = read_yaml(path) if Path(path).suffix in (".yaml", ".yml") else read_json(path)
    entries = check(_File, document).measured
    return tuple(
        MeasuredAcceptance(**{**entry.model_dump(), "survival": tuple(entry.survival)}) for entry in entries
    )


def write_acceptance(
    path: str | os.PathLike[str], measured: Sequence[MeasuredAcceptance], *, add: bool = False
) -> None:
    """Write entries to an acceptance file, whole or not at all; ``add`` keeps the entries that are there.

    Raises
    ------
    SpecError : the file cannot be written, or what is there is no acceptance file.
    """
    earlier = read_acceptance(path) if add and Path(path).exists() else ()
    rows = [asdict(entry) for entry in (*earlier, *measured)]
    write_whole(path, json.dumps({"format": FORMAT, "measured": rows}, indent=1) + "\n")


def posterior_acceptance(
    measured: Sequence[MeasuredAcceptance],
    strategy: DraftStrategy,
    *,
    drafter: Drafter,
    context_len: Numeric,
    kv_budget: Numeric,
    target_name: str = "",
    draft_name: str = "",
    **law: Any,
) -> Acceptance:
    """Return the acceptance after measurements: the strategy's law is the prior, and keeps its limits.

    The deviation of the truth from the law, on the logit scale, is a Gaussian process over ln(context) +
    ln(budget) with the law's own spread; each entry observes it with its standard error. So ten rounds hardly
    move what a thousand say, a measurement counts for less the further away it was taken, and a budget that
    covers the context still accepts everything. Where sure measurements contradict the law, its spread is
    widened until they do so by no more than `SURPRISE`: they win. Engines count the rounds that draft, so the
    match share stays what it is without measurements.

    Parameters
    ----------
    measured : entries; those about other strategies, drafters or models are passed over.
    strategy, drafter, context_len, kv_budget, target_name, draft_name, law : as for ``acceptance_rate``.
    """

    def at(context: Numeric, budget: Numeric) -> Acceptance:
        return acceptance_rate(
            strategy,
            drafter=drafter,
            context_len=context,
            kv_budget=budget,
            target_name=target_name,
            draft_name=draft_name,
            **law,
        )

    prior = at(context_len, kv_budget)
    entries = [entry for entry in measured if entry.is_about(strategy.name, drafter, target_name, draft_name)]
    if not entries:
        return prior
    contexts = [context_len if entry.context_len is None else entry.context_len for entry in entries]
    budgets = [kv_budget if entry.kv_budget is None else entry.kv_budget for entry in entries]
    laws = [at(context, budget) for context, budget in zip(contexts, budgets, strict=True)]
    where = zip([context_len, *contexts], [kv_budget, *budgets], strict=True)
    places = [_place(context, budget) for context, budget in where]
    laws = [prior, *laws]
    arrays = [law.first for law in laws] + [part for place in places for part in place]
    near = _correlation(places, np.broadcast_shapes(*(np.shape(array) for array in arrays)))
    firsts, rests, spreads = ([getattr(law, name) for law in laws] for name in ("first", "rest", "sd"))
    first, first_sd = _updated(firsts, spreads, [(entry.alpha1, entry.alpha1_se) for entry in entries], near)
    rest, rest_sd = _updated(rests, spreads, [(entry.alpha2, entry.alpha2_se) for entry in entries], near)
    origins = (f"{entry.source or 'measured'} ({entry.rounds} rounds)" for entry in entries)
    return Acceptance(
        first=first,
        rest=rest,
        sd=0.5 * (first_sd + rest_sd),
        kind="measured",
        source="; ".join(dict.fromkeys(origins)),
        match=prior.match,
        match_sd=prior.match_sd,
    )


def _place(context: Numeric, budget: Numeric) -> tuple[FloatArray, FloatArray]:
    read = np.maximum(np.minimum(budget, context), 1.0)
    return np.log(np.maximum(context, 1.0)), np.log(read)


def _correlation(places: list[tuple[FloatArray, FloatArray]], shape: tuple[int, ...]) -> FloatArray:
    """Return the correlation between all places, the asked one first, shape ``[..., places, places]``."""
    spots = np.stack(
        [np.stack([np.broadcast_to(part, shape) for part in place], axis=-1) for place in places], axis=-2
    )
    distance = np.abs(spots[..., :, None, :] - spots[..., None, :, :]).sum(axis=-1)
    return np.asarray(np.exp(-distance / CORRELATION_LENGTH))


def _updated(
    law: list[Numeric], law_sd: list[Numeric], data: list[tuple[float, float]], near: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return rate and deviation at the first place after ``data`` (rate, standard error) at the others."""
    shape = near.shape[:-2]
    rates = np.stack([np.broadcast_to(rate, shape) for rate in law], axis=-1)
    spreads = np.stack([np.broadcast_to(sd, shape) for sd in law_sd], axis=-1)
    inside = np.clip(rates, 1e-6, 1.0 - 1e-6)
    tau = np.where(rates < 1.0, spreads / (inside * (1.0 - inside)), 0.0)
    kernel = near * tau[..., :, None] * tau[..., None, :]
    seen = np.clip(np.array([rate for rate, _ in data]), 1e-3, 1.0 - 1e-3)
    noise = np.array([error for _, error in data]) / (seen * (1.0 - seen))
    prior = np.asarray(logit(inside))
    offset = logit(seen) - prior[..., 1:]
    misfit = (offset * _solved(kernel[..., 1:, 1:] + np.diag(noise**2), offset)).mean(axis=-1)
    kernel = kernel * np.maximum(misfit / SURPRISE**2, 1.0)[..., None, None]
    weight = _solved(kernel[..., 1:, 1:] + np.diag(noise**2), kernel[..., 1:, 0])
    moved = prior[..., 0] + (weight * offset).sum(axis=-1)
    variance = np.maximum(kernel[..., 0, 0] - (weight * kernel[..., 0, 1:]).sum(axis=-1), 0.0)
    rate = np.where(tau[..., 0] > 0.0, expit(moved), rates[..., 0])
    return rate, np.sqrt(variance) * rate * (1.0 - rate)


def _solved(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.solve(matrix, vector[..., None])[..., 0])
