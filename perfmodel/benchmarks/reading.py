"""Tell which tool wrote a benchmark file by what it says, and read it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from perfmodel.acceptance.logs.text import lines_of
from perfmodel.benchmarks.aiperf import read_aiperf_export
from perfmodel.benchmarks.blocks import blocks_of
from perfmodel.benchmarks.guidellm import read_guidellm_report
from perfmodel.benchmarks.result import Benchmark
from perfmodel.benchmarks.sglang import read_sglang_benchmark
from perfmodel.benchmarks.trtllm import read_trtllm_report
from perfmodel.benchmarks.vllm import read_vllm_benchmark
from perfmodel.errors import SpecError
from perfmodel.files.opening import RESULT, read_file, text_of
from perfmodel.files.records import Record, records_of

__all__ = ["read_benchmarks"]


class _Form(NamedTuple):
    """A form of result: who writes it, keys that only it has, keys that it needs, and its reader."""

    tool: str
    own: frozenset[str]
    keys: frozenset[str]
    read: Callable[[Record, int | None], Benchmark | Iterable[Benchmark]]


_SERVED = frozenset({"completed", "total_input_tokens", "total_output_tokens"})
_FORMS = (
    _Form(
        "sglang.bench_serving",
        frozenset({"total_output_tokens_retokenized", "mean_e2e_latency_ms", "random_range_ratio"}),
        _SERVED,
        read_sglang_benchmark,
    ),
    _Form("vllm bench serve", frozenset(), _SERVED, read_vllm_benchmark),
    _Form(
        "guidellm",
        frozenset(),
        frozenset({"benchmarks"}),
        lambda record, _: read_guidellm_report(record),
    ),
    _Form(
        "AIPerf",
        frozenset(),
        frozenset({"input_sequence_length", "output_sequence_length", "request_latency"}),
        read_aiperf_export,
    ),
    _Form(
        "trtllm-bench",
        frozenset(),
        frozenset({"request_info", "performance"}),
        lambda record, _: read_trtllm_report(record),
    ),
)
_NO_SERVER = "{} wrote this, which measures no server"
_OTHERS = (
    ({"elapsed_time", "num_requests"}, _NO_SERVER.format("vllm bench throughput"), "Run vllm bench serve"),
    ({"avg_latency", "latencies"}, _NO_SERVER.format("vllm bench latency"), "Run vllm bench serve"),
    ({"prefill_latency"}, _NO_SERVER.format("sglang.bench_one_batch"), "Run sglang.bench_serving"),
    (
        {"metadata", "metrics"},
        "AIPerf wrote this, request by request",
        "Give profile_export_aiperf.json beside it; acceptance fit reads drafts from this one",
    ),
)
"""Results that are none of a server: keys of each, what they are, and what to give instead."""


def read_benchmarks(path: str | os.PathLike[str], gamma: int | None = None) -> list[Benchmark]:
    """Return the runs in a benchmark file, in the order of the file.

    Read are the JSON results of ``vllm bench serve`` (and of the older benchmark_serving.py),
    ``sglang.bench_serving``, guidellm, AIPerf and ``trtllm-bench``, and the block "Serving Benchmark Result"
    that the first two print, wherever it stands in a log. A file is known by what it says, not by its name.

    Parameters
    ----------
    path : the file, or ``-`` for what comes in on stdin.
    gamma : drafted tokens per round, for tools that do not tell. [tokens]

    Raises
    ------
    SpecError : the file cannot be read, no known tool wrote it, or a key in it is missing or wrong.
    """
    file = os.fspath(path)
    text = text_of(read_file(path, RESULT), file, or_utf_16=True).rstrip()
    if not text:
        raise SpecError.single(file, "", "the file is empty", "Give the file as the tool wrote it")
    if "Serving Benchmark Result" in text:
        records = blocks_of(lines_of(text), file)
    elif text.lstrip()[0] in "{[":
        records = list(records_of(text, file))
    else:
        raise SpecError.single(file, "", "no known benchmark tool wrote this", _remedy())
    runs: list[Benchmark] = []
    for record in records:
        result = _form(record).read(record, gamma)
        for run in [result] if isinstance(result, Benchmark) else result:
            figure, problem = run.why_impossible()
            if problem:
                remedy = f"{run.source} cannot be as it stands: give the file as the tool wrote it"
                raise record.refusal(figure, problem, remedy)
            runs.append(run)
    return runs


def _form(record: Record) -> _Form:
    keys = record.values.keys()
    for form in _FORMS:
        if form.keys <= keys and (not form.own or form.own & keys):
            return form
    for own, problem, remedy in _OTHERS:
        if own <= keys:
            raise record.refusal("", problem, remedy)
    nearest = min(_FORMS[1:], key=lambda form: len(form.keys - keys) / len(form.keys))
    if nearest.keys & keys:
        lacking = ", ".join(sorted(nearest.keys - keys))
        raise record.refusal("", f"looks like {nearest.tool} without {lacking}", _remedy())
    raise record.refusal("", "no known benchmark tool wrote this", _remedy())


def _remedy() -> str:
    return f"Give the result file of {', '.join(form.tool for form in _FORMS)}"
