"""What goes wrong, as problem details (RFC 9457) in JSON: which key, what is wrong with it, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, Field

from perfmodel.errors import Fault, InfeasibleError, SpecError, nearest_name, printable

__all__ = ["MEDIA_TYPE", "Details", "Problem", "infeasible", "invalid", "problem", "wrong"]

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "The request cannot be read",
    403: "This name is not served",
    404: "There is nothing here",
    405: "This is not done here",
    408: "The request did not come in time",
    413: "The request is too large",
    415: "The request is not JSON",
    422: "The question cannot be asked so",
    500: "A fault of draftplan",
    503: "All workers are busy",
    504: "The answer takes too long",
}
_MOST = 50


class Problem(BaseModel):
    """One thing that is wrong: the key of the request, what is wrong, what to give instead."""

    key: str
    problem: str
    remedy: str = ""
    value: Any = None
    nearest: str | None = None
    line: int | None = None


class Details(BaseModel):
    """Problem details of RFC 9457. `counts` and `nearest_miss` are of questions with nothing feasible."""

    type: str = Field(examples=["/docs#422"])
    title: str
    status: int
    detail: str
    problems: list[Problem] = []
    counts: dict[str, int] | None = None
    nearest_miss: str | None = None


def problem(status: int, detail: str, problems: Iterable[Problem] = (), **more: Any) -> dict[str, Any]:
    """Return the body of a refusal."""
    details = Details(
        type=f"/docs#{status}", title=TITLES[status], status=status, detail=printable(detail),
        problems=list(problems), **more,
    )  # fmt: skip
    return details.model_dump(exclude_none=True)


def wrong(
    refusal: SpecError, values: Mapping[str, Any] | None = None, *, status: int = 422
) -> dict[str, Any]:
    """Return the body for what cannot be asked.

    Parameters
    ----------
    values : what was asked, by key.
    """
    problems = [_of(fault, values or {}) for fault in refusal.faults[:_MOST]]
    return problem(status, str(refusal.faults[0]), problems)


def infeasible(refusal: InfeasibleError) -> dict[str, Any]:
    """Return the body for a question that nothing satisfies."""
    return problem(422, str(refusal), counts=refusal.counts, nearest_miss=printable(refusal.nearest_miss))


def invalid(errors: Iterable[Mapping[str, Any]], known: Iterable[str]) -> dict[str, Any]:
    """Return the body for a request of the wrong form.

    Parameters
    ----------
    errors : what pydantic says.
    known : the keys that a request may have.
    """
    problems = [_of_form(error, known) for error in errors][:_MOST]
    first = problems[0]
    detail = ": ".join(part for part in (first.key, first.problem) if part)
    return problem(422, f"{detail}. {first.remedy}".strip(), problems)


def _of(fault: Fault, values: Mapping[str, Any]) -> Problem:
    names = [part.strip().lstrip("-").replace("-", "_") for part in fault.field.split(",")]
    value = values.get(names[0])
    return Problem(
        key=printable(", ".join(names)), problem=printable(fault.problem), remedy=printable(fault.remedy),
        value=value if isinstance(value, (str, int, float, bool)) else None, nearest=fault.nearest,
        line=fault.line,
    )  # fmt: skip


def _of_form(error: Mapping[str, Any], known: Iterable[str]) -> Problem:
    place = [part for part in error["loc"] if part != "body" and not _says_a_type(part)]
    key, kind = ".".join(map(str, place)), error["type"]
    value = error.get("input")
    nearest = nearest_name(str(place[-1]), known) if kind == "extra_forbidden" and place else None
    remedy = {
        "extra_forbidden": "Leave it out, or give a key that /docs lists",
        "missing": "Give it",
    }.get(kind, "")
    message = "there is no such key" if kind == "extra_forbidden" else _lower(str(error["msg"]))
    return Problem(
        key=printable(key)[:100], problem=printable(message), remedy=remedy, nearest=nearest,
        value=value if isinstance(value, (str, int, bool)) and len(str(value)) <= 100 else None,
    )  # fmt: skip


def _says_a_type(part: object) -> bool:
    """Whether a part of a place names which of several types was tried."""
    kinds = r"(str|int|float|bool|dict|list)(\[.*\])?"
    return isinstance(part, str) and re.fullmatch(kinds, part) is not None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
