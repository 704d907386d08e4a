"""What the header of a plan file may say: its schema, and the faults of one that says something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from perfmodel.errors import Fault, SpecError
from perfmodel.files.checking import check
from perfmodel.files.document import Document
from perfmodel.model import BYTES
from perfmodel.workload import MAX_BATCH, MAX_CONTEXT, MOST_GAMMA, MOST_GPUS

__all__ = ["LONGEST_NAME", "LONGEST_SENTENCE", "header_faults"]

LONGEST_NAME, LONGEST_SENTENCE = 400, 4000
"""Characters of a name (a path may be one) and of a sentence or a list of names."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that are not printed")
    return text


def _rising(numbers: list[int]) -> list[int]:
    if not numbers or any(after <= before for before, after in pairwise(numbers)):
        raise ValueError("do not rise: each has to be there once, in order")
    return numbers


def _from_nothing(gammas: list[int]) -> list[int]:
    if gammas[0] != 0:
        raise ValueError("do not rise from 0, which is plain decoding")
    return gammas


def _dtype(name: str) -> str:
    if name not in BYTES:
        raise ValueError(f"is not known: there are {', '.join(BYTES)}")
    return name


_Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(_printable)]
_Sentence = Annotated[str, Field(max_length=LONGEST_SENTENCE), AfterValidator(_printable)]
_Gpus = Annotated[int, Field(ge=1, le=MOST_GPUS)]
_Batch = Annotated[int, Field(ge=1, le=MAX_BATCH)]
_Tokens = Annotated[int, Field(ge=1, le=MAX_CONTEXT)]
_Gamma = Annotated[int, Field(ge=0, le=MOST_GAMMA)]
_Gain = Annotated[float, Field(gt=0, le=MOST_GAMMA + 1)]
_Dtype = Annotated[str, AfterValidator(_dtype)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Request(_Strict):
    """What was asked; a plan made by hand may leave it out."""

    batch_sizes: Annotated[list[_Batch], AfterValidator(_rising)] | None = None
    context_lens: Annotated[list[_Tokens], AfterValidator(_rising)] | None = None
    output_tokens: Annotated[float, Field(ge=0, le=MAX_CONTEXT)] | None = None
    tensor_parallel: Annotated[list[_Gpus], Field(min_length=1)] | None = None
    kv_budgets: list[Annotated[float, Field(ge=1, le=MAX_CONTEXT)] | None] | None = None
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    one_deployment: bool = False
    tpot_limit_s: Annotated[float, Field(gt=0, le=1e7)] | None = None
    weight_dtype: _Dtype | None = None
    kv_dtype: _Dtype | None = None


class _Elsewhere(_Strict):
    """What another software would gain."""

    strategy: _Name
    drafter: Literal["self", "draft", "head", "none"]
    draft_model: _Name | None
    kv_budget: _Tokens | None
    gamma: Annotated[int, Field(ge=1, le=MOST_GAMMA)]
    batch_size: _Batch
    context_len: _Tokens
    speedup: _Gain
    planned_speedup: _Gain
    gain: Annotated[float, Field(ge=0, le=MOST_GAMMA)]
    runs_in: list[_Name]
    needs: _Sentence = ""


class _Header(_Strict):
    """A plan but for its cells."""

    model: _Name
    hardware: Annotated[_Sentence, Field(min_length=1)]
    engine: _Name
    tensor_parallel: _Gpus
    objective: _Name
    gammas: Annotated[list[_Gamma], AfterValidator(_rising), AfterValidator(_from_nothing)]
    assumed: list[_Sentence]
    inflection_context_len: Annotated[float, Field(ge=1, le=MAX_CONTEXT)] | None
    versions: dict[_Name, _Name]
    request: _Request
    infeasible: dict[_Name, Annotated[int, Field(ge=0, le=10**15)]]
    expert_parallel: bool = False
    pipeline_parallel: _Gpus = 1
    data_parallel: _Gpus = 1
    software: _Sentence = ""
    elsewhere: _Elsewhere | None = None
    runs_in: dict[_Name, list[_Name]] = {}


def header_faults(header: Mapping[str, Any], file: str, remedy: str) -> list[Fault]:
    """Return what is wrong with a plan's header, each fault with its key and value; none where it can be.

    Parameters
    ----------
    header : a plan as plain values, but for its schema and its cells.
    remedy : what to do, beside what would be allowed.
    """
    try:
        check(_Header, Document(file, dict(header)))
    except SpecError as error:
        return [
            replace(fault, remedy=". ".join(filter(None, (fault.remedy.rstrip("."), remedy))))
            for fault in error.faults
        ]
    return []
