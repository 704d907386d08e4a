"""Tell which tool wrote a benchmark file by what it says, and read it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from perfmodel.benchmarks.result import Benchmark
from perfmodel.benchmarks.vllm import read_vllm_benchmark
from perfmodel.errors import SpecError
from perfmodel.files.records import Record, read_records

__all__ = ["read_benchmarks"]


class _Form(NamedTuple):
    """A form of file: who writes it, the keys that only it has, and its reader."""

    tool: str
    keys: frozenset[str]
    read: Callable[[Record], Benchmark]


_FORMS = (
    _Form(
        "vllm bench serve",
        frozenset({"completed", "total_input_tokens", "total_output_tokens", "model_id"}),
        read_vllm_benchmark,
    ),
)


def read_benchmarks(path: str | os.PathLike[str]) -> list[Benchmark]:
    """Return the runs in a benchmark file, in the order of the file.

    Parameters
    ----------
    path : the file, or ``-`` for what comes in on stdin.

    Raises
    ------
    SpecError : the file cannot be read, no known tool wrote it, or a key in it is missing or wrong.
    """
    records = read_records(path)
    if not records:
        raise SpecError.single(str(path), "", "the file is empty", "Give the file as the tool wrote it")
    return [_form(record).read(record) for record in records]


def _form(record: Record) -> _Form:
    for form in _FORMS:
        if form.keys <= record.values.keys():
            return form
    nearest = min(_FORMS, key=lambda form: len(form.keys - record.values.keys()))
    lacking = ", ".join(sorted(nearest.keys - record.values.keys()))
    known = ", ".join(form.tool for form in _FORMS)
    problem = f"no known benchmark tool wrote this; nearest is {nearest.tool}, whose {lacking} are missing"
    raise record.refusal("", problem, f"Give the result file of {known}")
