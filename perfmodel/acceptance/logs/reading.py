"""Read acceptance counts from what serving engines write: metrics, log lines, responses, and a plain CSV."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

from perfmodel.acceptance.counts import (
    MOST_GAMMA,
    AcceptanceCounts,
    first_impossible,
    joined_counts,
    within_bounds,
)  # fmt: skip
from perfmodel.acceptance.logs.benchmarks import read_benchmark_block, read_benchmark_json
from perfmodel.acceptance.logs.lines import Line
from perfmodel.acceptance.logs.llamacpp import read_llamacpp_text
from perfmodel.acceptance.logs.prometheus import prometheus_reader
from perfmodel.acceptance.logs.responses import read_responses
from perfmodel.acceptance.logs.rounds import CSV_COLUMNS, read_csv
from perfmodel.acceptance.logs.sglang import read_sglang_metrics, read_sglang_text
from perfmodel.acceptance.logs.text import lines_of
from perfmodel.acceptance.logs.trtllm import read_trtllm_iterations
from perfmodel.acceptance.logs.vllm import read_vllm_offline, read_vllm_text, read_vllm_v0
from perfmodel.errors import SpecError, nearest_name
from perfmodel.files.json_text import refuse_many
from perfmodel.files.opening import LOG, read_file, text_of

__all__ = ["LogFormat", "read_log", "read_logs"]

LogFormat = Literal["auto", "vllm", "sglang", "llamacpp", "trtllm", "csv"]

Reader = Callable[[list[Line], str, "int | None", "str | None"], AcceptanceCounts]


def _whole(read: Callable[[list[Line], str, int | None], AcceptanceCounts]) -> Reader:
    """Return a reader of a form that holds one drafter and one model: nothing is chosen from it."""

    def reader(lines: list[Line], file: str, gamma: int | None, only: str | None) -> AcceptanceCounts:
        if only is not None:
            problem = "this form of log names no drafters or models to choose from"
            raise SpecError.single(file, "only", problem, "Leave --only out")
        return read(lines, file, gamma)

    return reader


class Form(NamedTuple):
    """A form of log: who writes it, words of which its lines have one, and its reader."""

    engines: tuple[str, ...]
    marks: tuple[str, ...]
    read: Reader


_BENCHMARKED = ("spec_decode_num_drafts", "pooled_spec_decode_acceptance_histogram", "accept_length")
_JSON_FORMS = (
    Form(("trtllm",), ("specDecodingStats", "spec_decoding_stats"), _whole(read_trtllm_iterations)),
    Form(("vllm", "sglang"), tuple(f'"{key}"' for key in _BENCHMARKED), _whole(read_benchmark_json)),
    Form(("vllm", "sglang", "llamacpp", "trtllm"), ("",), _whole(read_responses)),
)
_FORMS = (
    Form(("vllm",), ("vllm:spec_decode_num_",), prometheus_reader("vllm:")),
    Form(("llamacpp",), ("llamacpp:spec_decode_num_",), prometheus_reader("llamacpp:")),
    Form(("trtllm",), ("trtllm_spec_decode_num_",), prometheus_reader("trtllm_")),
    Form(("draftplan",), ("draftplan_spec_decode_num_",), prometheus_reader("draftplan_")),
    Form(("sglang",), ("sglang:spec_accept_", "sglang:spec_verify_"), read_sglang_metrics),
    Form(("vllm",), ("SpecDecoding metrics:",), _whole(read_vllm_text)),
    Form(("vllm",), ("Speculative metrics:",), _whole(read_vllm_v0)),
    Form(("sglang",), (" accept len:",), _whole(read_sglang_text)),
    Form(("llamacpp",), ("draft acceptance", "#acc tokens", ": #calls", "n_drafted"), read_llamacpp_text),
    Form(("trtllm",), ("specDecodingStats",), _whole(read_trtllm_iterations)),
    Form(("vllm",), ("num_drafts: ",), _whole(read_vllm_offline)),
    Form(
        ("vllm", "sglang"),
        ("Draft tokens: ", "Accept length: ", "Acceptance length"),
        _whole(read_benchmark_block),
    ),
)
"""The forms of text, in the order they are tried: what counts comes before what estimates."""

_MOST_LINES = 2_000_000
"""More of them take more memory than reading a log may."""

_TEXTS = frozenset(form.read for form in _FORMS)


def read_log(
    path: str | os.PathLike[str],
    format: LogFormat = "auto",
    gamma: int | None = None,
    only: str | None = None,
) -> AcceptanceCounts:
    """Return the acceptance counts of a log.

    Read are, for ``vllm``, the Prometheus text of ``/metrics`` (one scrape, or several one after the other)
    and what ``LLM.get_metrics()`` prints, the periodic lines of engine V1 and V0, the offline example, and
    responses with ``metrics.speculative_decoding``; for ``sglang`` the ``Decode batch`` line, ``/metrics``,
    and responses with ``meta_info``; for ``llamacpp`` the server's and the examples' summary lines,
    ``/metrics``, and responses with ``timings``; for ``trtllm`` iteration statistics, ``/prometheus/metrics``
    and responses; for ``csv`` the columns request, round, drafted, accepted. Benchmarks' results and printed
    blocks are read where they tell drafts. Responses may be one JSON document, one per line, or server-sent
    events. A form is known by what it says; lines about other things are passed over.

    Parameters
    ----------
    path : the file, or ``-`` for what comes in on stdin.
    format : who wrote it; told by its lines where ``auto``.
    gamma : drafted tokens per round, for logs that do not tell.
    only : the drafter or model to read, for logs that hold several.

    Raises
    ------
    SpecError : the file cannot be read, holds nothing about speculation, or has a damaged line, which is
        named.
    """
    return read_logs([path], format, gamma, only)


def read_logs(
    paths: Sequence[str | os.PathLike[str]],
    format: LogFormat = "auto",
    gamma: int | None = None,
    only: str | None = None,
) -> AcceptanceCounts:
    """Return the acceptance counts of several logs, each of which can be read alone.

    Texts of one form are the log of one server in pieces, in order of time: of several scrapes of its metrics
    what was counted between them is read. Responses, benchmarks' results and CSVs are added up.

    Parameters
    ----------
    paths : the files, at least one.
    format, gamma, only : as for ``read_log``.

    Raises
    ------
    SpecError : as ``read_log`` does, naming the file.
    """
    if format not in get_args(LogFormat):
        near = nearest_name(format, get_args(LogFormat))
        raise SpecError.single(
            "", "format", f"found {format!r}", f"one of {', '.join(get_args(LogFormat))}", near
        )
    if gamma is not None and not 1 <= gamma <= MOST_GAMMA:
        remedy = f"Give the drafted tokens per round, 1 to {MOST_GAMMA}"
        raise SpecError.single("", "gamma", f"found {gamma}", remedy)
    pieces: dict[Reader, list[Line]] = {}
    files: dict[Reader, list[str]] = {}
    counts = []
    for path in paths:
        file = os.fspath(path)
        text = text_of(read_file(path, LOG), file, or_utf_16=True, errors="replace")
        if text.count("\n") > _MOST_LINES:
            raise SpecError.single(file, "", f"more than {_MOST_LINES:,} lines", "Give a part of the log")
        lines = lines_of(text)
        del text
        reader = _reader(lines, file, format)
        each = _checked(reader(lines, file, gamma, only), file, gamma)
        if reader in _TEXTS and len(paths) > 1:
            pieces.setdefault(reader, []).extend(lines)
            files.setdefault(reader, []).append(file)
        else:
            counts.append(each)
    for reader, lines in pieces.items():
        file = ", ".join(files[reader])
        counts.append(_checked(reader(lines, file, gamma, only), file, gamma))
    return joined_counts(counts)


def _checked(counts: AcceptanceCounts, file: str, gamma: int | None) -> AcceptanceCounts:
    if not counts.rounds.sum():
        raise SpecError.single(
            file, "", "the log holds no round with a drafted token", "Let the engine draft first"
        )
    if (impossible := first_impossible(counts)) is not None:
        _, problem, field = impossible
        remedy = "Give the longest draft, or leave --gamma out" if gamma else "Take the log again"
        raise SpecError.single(file, "gamma" if gamma and field == "drafted" else field, problem, remedy)
    return within_bounds(counts)


def _reader(lines: list[Line], file: str, format: LogFormat) -> Reader:
    """Return the reader of the first form whose marks a line bears."""
    if not lines:
        raise SpecError.single(file, "", "the file is empty, or its lines are endless")
    start = lines[0].text.lstrip()
    if format == "csv" or (format == "auto" and start.lower().startswith("request,")):
        return _whole(read_csv)
    in_json = re.match(r"\{|data:|\[\s*(?:[\[\]{]|$)", start)
    text = "\n".join(line.text for line in lines)
    if in_json:
        refuse_many(text, file)
    present = [
        form
        for form in (_JSON_FORMS if in_json else _FORMS)
        if format in ("auto", *form.engines) and any(mark in text for mark in form.marks)
    ]
    if not present:
        raise _nothing(file, format)
    others = {form.engines for form in present} if not in_json else set()
    if len({engines for engines in others if len(engines) == 1}) > 1:
        names = sorted({engines[0] for engines in others if len(engines) == 1})
        problem = f"the file holds figures of {' and '.join(names)}"
        raise SpecError.single(file, "format", problem, f"Give the one to read: --format {names[0]}")
    return present[0].read


def _nothing(file: str, format: LogFormat) -> SpecError:
    wanted = "speculative decoding" if format == "auto" else f"speculative decoding in the form of {format}"
    return SpecError.single(
        file,
        "",
        f"no line is about {wanted}",
        "Give the engine's log, the text of its /metrics or a benchmark's result, or a CSV that starts with "
        + ",".join(CSV_COLUMNS),
    )
