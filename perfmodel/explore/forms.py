"""Requests and answers as pydantic models, made of the flags and of the fields that answers have."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, create_model

from perfmodel.explore.asked import Flag
from perfmodel.planning.cases import INPUTS, OUTPUTS, REQUIRED
from perfmodel.planning.columns import Cell
from perfmodel.planning.plan import SCHEMA, Plan
from perfmodel.policy_table import Decision

__all__ = [
    "CONFIG",
    "DecideAnswer",
    "Health",
    "Listed",
    "PlanAnswer",
    "PriceAnswer",
    "PriceRequest",
    "decide_request",
    "explore_request",
    "export_request",
    "question_request",
]  # fmt: skip

_STRICT = ConfigDict(extra="forbid")
_TEXT = str | int | float | list[str | int | float]
CONFIG = "model"
"""The key of a request that takes a whole config.json, too."""
_CONFIG_HELP = "The target: a bundled name, or its config.json as an object."
_MOST_TEXT = 10_000


def _field(flag: Flag) -> tuple[Any, Any]:
    """Return the annotation of a flag in a request, and its field."""
    kind: Any = flag.kind if flag.kind is not str else _TEXT
    if flag.name == CONFIG:
        kind = _TEXT | dict[str, Any]
    described = _CONFIG_HELP if flag.name == CONFIG else flag.help
    bounds: dict[str, Any] = {"ge": flag.least, "le": flag.most} if flag.kind is int else {}
    return (
        kind if flag.required or flag.default is not None else kind | None,
        Field(
            ... if flag.required else flag.default, description=described,
            validation_alias=AliasChoices(flag.name, *flag.spellings), **bounds,
        ),
    )  # fmt: skip


def question_request(flags: Iterable[Flag]) -> type[BaseModel]:
    """Return the model of a question: a key for each flag, in any of its spellings, and no other key."""
    fields: dict[str, Any] = {flag.name: _field(flag) for flag in flags}
    return create_model(
        "Question", __config__=ConfigDict(extra="forbid", protected_namespaces=()),
        __doc__="A deployment, its workload and what may draft, by the names of the flags of `plan`.",
        **fields,
    )  # fmt: skip


def export_request(question: type[BaseModel]) -> type[BaseModel]:
    """Return the model of a question with the engine whose words its answer is wanted in."""
    return create_model("ExportRequest", __config__=_STRICT, question=(question, ...), format=(str, ...))


def explore_request(question: type[BaseModel]) -> type[BaseModel]:
    """Return the model of what the page asks: a question of one cell, and the axes of its map."""
    axes: dict[str, Any] = {
        "batches": (str, Field("1:256:x2", max_length=_MOST_TEXT)),
        "contexts": (str, Field("1k:128k:x2", max_length=_MOST_TEXT)),
    }
    return create_model("ExploreRequest", __config__=_STRICT, question=(question, ...), **axes)


def decide_request(question: type[BaseModel]) -> type[BaseModel]:
    """Return the model of what a controller asks: a plan or a question, and what decodes now."""
    fields: dict[str, Any] = {
        "plan": (dict[str, Any] | None, Field(None, description=f"What POST /plan answered ({SCHEMA}).")),
        "question": (question | None, Field(None, description="In place of a plan.")),
        "batch_size": (int, Field(..., ge=0, le=1_000_000, description="Sequences that decode.")),
        "kv_tokens": (int, Field(..., ge=0, description="Tokens of all their contexts together.")),
    }
    return create_model("DecideRequest", __config__=_STRICT, **fields)


_COLUMN = str | int | float | bool
_cases: dict[str, Any] = {
    name: (_COLUMN, ...) if name in REQUIRED else (_COLUMN | None, None) for name in INPUTS
}
Case = create_model(
    "Case", __config__=_STRICT, __doc__="One configuration, by the columns of `draftplan price`.", **_cases
)
PriceRequest = create_model(
    "PriceRequest", __config__=_STRICT, cases=(list[Case], Field(..., min_length=1, max_length=1024))  # type: ignore[valid-type]
)


def _answer(name: str, described: str, hints: Mapping[str, Any], **more: Any) -> type[BaseModel]:
    fields = {key: (hint, ...) for key, hint in hints.items()}
    return create_model(name, __config__=_STRICT, __doc__=described, **{**fields, **more})


def _plain_hints(record: type, change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass with their types, as JSON has them."""
    hints = get_type_hints(record)
    return {field.name: change.get(field.name, hints[field.name]) for field in dataclasses.fields(record)}


CellAnswer = _answer(
    "Cell", "One recommendation; units stand in the names.",
    _plain_hints(Cell, {"round_by_gamma_s": list[float]}),
)
PlanBody = _answer(
    "Plan", "What `draftplan plan --format json` writes.",
    _plain_hints(Plan, {
        "cells": list[CellAnswer], "gammas": list[int], "assumed": list[str],  # type: ignore[valid-type]
        "runs_in": dict[str, list[str]], "elsewhere": dict[str, Any] | None,
    }),
    schema_=(str, Field(..., alias="schema")),
)  # fmt: skip
PlanAnswer = _answer(
    "PlanAnswer", "A recommendation for every batch size and context.",
    {"headline": str, "remarks": list[str], "plan": PlanBody},
)  # fmt: skip
PricedCase = create_model(
    "PricedCase", __doc__="A configuration with its answers; milliseconds, and null where it is not priced.",
    __config__=_STRICT,
    **dict.fromkeys((*INPUTS, *OUTPUTS, "error"), (float | bool | str | None, None)),  # type: ignore[call-overload]
)  # fmt: skip
PriceAnswer = _answer(
    "PriceAnswer", "The configurations in the order of the request.",
    {"remarks": list[str], "cases": list[PricedCase]},  # type: ignore[valid-type]
)  # fmt: skip
DecideAnswer = _answer("Decision", "What to do in the next round.", get_type_hints(Decision))


class Listed(BaseModel):
    """What there is by name; each line is that of `draftplan models list`, and so on."""

    names: Sequence[dict[str, Any]]


class Health(BaseModel):
    """That it answers."""

    status: str
    version: str
