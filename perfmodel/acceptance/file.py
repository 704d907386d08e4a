"""Measured acceptance in a file: rates with the trials behind them, and where they were measured."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import ConfigDict, Field, create_model

from perfmodel.acceptance.counts import MOST_GAMMA
from perfmodel.acceptance.estimate import AcceptanceFit
from perfmodel.acceptance.published import plain_name
from perfmodel.errors import Fault, SpecError
from perfmodel.files.checking import check
from perfmodel.files.document import Document, read_json, read_yaml
from perfmodel.files.opening import ACCEPTANCE
from perfmodel.files.writing import write_whole

__all__ = ["MeasuredAcceptance", "read_acceptance", "write_acceptance"]


FORMAT = "draftplan acceptance 1"


_Rate = Annotated[float, Field(ge=0.0, le=1.0)]
_Error = Annotated[float, Field(ge=1e-9, le=1.0)]
_Tokens = Annotated[float, Field(ge=1.0, le=1e8)]
_Count = Annotated[int, Field(ge=1)]
_Trials = Annotated[float, Field(ge=1e-3, le=1e12)]

_APART = 0.05
"""How far the one rate may lie beyond those of first and later drafts: it weighs otherwise. Assumed. [1]"""
_FIRST_APART = 0.25
"""How far the rate of first drafts may lie from the share that a few rounds accepted. Assumed. [1]"""
_TRIALS_A_DRAFT = 100.0
"""Trials that a drafted token counts for at most; fitted ones count for about one. Assumed. [1]"""


@dataclass(frozen=True, kw_only=True)
class MeasuredAcceptance:
    """Rates that were measured at one place; what is empty or None holds for all of it.

    Attributes
    ----------
    strategy, drafter, target_model, draft_model : what drafted for what.
    kv_budget, context_len : where, [tokens].
    alpha, alpha1, alpha2 : one rate, that of the first draft, that of later ones; ``*_se`` their standard
        errors, ``*_trials`` the independent trials that would know them as well, None in files without.
    draft_share : share of rounds that drafted at all, where rounds without a draft were counted. [0..1]
    gamma, requests, rounds, method, source : how they were found.
    survival : P(the first k drafts are all accepted), k = 1 .. gamma, which never rises; empty if not told.
    """

    alpha: _Rate
    alpha_se: _Error
    alpha1: _Rate
    alpha1_se: _Error
    alpha2: _Rate
    alpha2_se: _Error
    gamma: Annotated[int, Field(ge=1, le=MOST_GAMMA)]
    rounds: _Count
    alpha_trials: _Trials | None = None
    alpha1_trials: _Trials | None = None
    alpha2_trials: _Trials | None = None
    draft_share: _Rate | None = None
    draft_share_se: _Error | None = None
    draft_share_trials: _Trials | None = None
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
        share = fit.draft_share
        return cls(
            alpha=fit.alpha.value,
            alpha_se=fit.alpha.se,
            alpha1=first.value,
            alpha1_se=first.se,
            alpha2=rest.value,
            alpha2_se=rest.se,
            alpha_trials=fit.alpha.trials,
            alpha1_trials=first.trials,
            alpha2_trials=rest.trials,
            draft_share=share.value if share else None,
            draft_share_se=share.se if share else None,
            draft_share_trials=share.trials if share else None,
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
    SpecError : naming every fault with its line: what is no rate or count, a survival that rises with the
        position or is not told of all of them, an entry that is there twice.
    """
    read = read_yaml if Path(path).suffix in (".yaml", ".yml") else read_json
    document = read(path, ACCEPTANCE)
    entries = tuple(
        MeasuredAcceptance(**{**entry.model_dump(), "survival": tuple(entry.survival)})
        for entry in check(_File, document).measured
    )
    if faults := list(_impossible(entries, document)):
        raise SpecError(faults)
    return entries


def _impossible(entries: Sequence[MeasuredAcceptance], document: Document) -> Iterator[Fault]:
    """Yield what no log can have shown, entry by entry."""
    first: dict[MeasuredAcceptance, int] = {}
    for place, entry in enumerate(entries):
        at, shares = ("measured", place, "survival"), entry.survival
        field, line = f"measured.{place}.survival", document.line(at)
        if shares and len(shares) != entry.gamma:
            problem = f"{len(shares)} shares beside gamma {entry.gamma}"
            yield Fault(document.file, line, field, problem, "Give one for each position, or none")
        falls = all(late <= early for early, late in pairwise(shares))
        if not falls:
            begins = ", ".join(f"{share:g}" for share in shares[:6])
            problem = f"found {begins}, which rises with the position"
            remedy = "It is the share of rounds that accept all drafts up to a position, which can only fall"
            yield Fault(document.file, line, field, problem, remedy)
        for key, problem in _contradictions(entry):
            where = document.line(("measured", place, key))
            yield Fault(document.file, where, f"measured.{place}.{key}", problem, "Fit the log again")
        earlier = first.setdefault(entry, place)
        if earlier != place:
            yield Fault(
                document.file, document.line(at[:2]), f"measured.{place}",
                f"is the entry measured.{earlier} again", "Keep one of them: twice it counts as two logs",
            )  # fmt: skip


def _contradictions(entry: MeasuredAcceptance) -> Iterator[tuple[str, str]]:
    """Yield the figures that others of the same entry rule out, and why."""
    low, high = sorted((entry.alpha1, entry.alpha2))
    if not low - _APART <= entry.alpha <= high + _APART:
        yield "alpha", f"found {entry.alpha:g}, where first and later drafts have {low:g} to {high:g}"
    if entry.survival and abs(entry.alpha1 - entry.survival[0]) > _FIRST_APART:
        first = f"{entry.survival[0]:g} of the rounds accept the first draft"
        yield "alpha1", f"found {entry.alpha1:g}, where {first}"
    most = _TRIALS_A_DRAFT * entry.rounds * entry.gamma
    for key in ("alpha_trials", "alpha1_trials", "alpha2_trials", "draft_share_trials"):
        trials = getattr(entry, key)
        if trials is not None and trials > most:
            yield key, f"found {trials:g}, where {entry.rounds} rounds of {entry.gamma} tell at most {most:g}"


def write_acceptance(
    path: str | os.PathLike[str], measured: Sequence[MeasuredAcceptance], *, add: bool = False
) -> None:
    """Write entries to an acceptance file, whole or not at all; ``add`` keeps the entries that are there.

    An entry that is there already is not written again.

    Raises
    ------
    SpecError : the file cannot be written, or what is there is no acceptance file.
    """
    earlier = read_acceptance(path) if add and Path(path).exists() else ()
    entries = dict.fromkeys(replace(entry, survival=tuple(entry.survival)) for entry in (*earlier, *measured))
    rows = [asdict(entry) for entry in entries]
    write_whole(path, json.dumps({"format": FORMAT, "measured": rows}, indent=1) + "\n")
