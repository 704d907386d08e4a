"""Read acceptance counts from what serving engines write: metrics, log lines, responses, and a plain CSV."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from perfmodel.acceptance.counts import AcceptanceCounts
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

__all__ = ["LogFormat", "read_log"]

LogFormat = Literal["auto", "vllm", "sglang", "llamacpp", "trtllm", "csv"]
LARGEST_LOG = 512_000_000

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
    """A form of log: who writes it, patterns that only its lines match, and its reader."""

    engines: tuple[str, ...]
    marks: str
    read: Reader


_JSON_FORMS = (
    Form(("trtllm",), r"specDecodingStats|spec_decoding_stats", _whole(read_trtllm_iterations)),
    Form(
        ("vllm", "sglang"),
        r'"(?:spec_decode_num_drafts|pooled_spec_decode_acceptance_histogram|accept_length)"\s*:',
        _whole(read_benchmark_json),
    ),
    Form(("vllm", "sglang", "llamacpp", "trtllm"), "", _whole(read_responses)),
)
_FORMS = (
    Form(("vllm",), r"vllm:spec_decode_num_", prometheus_reader("vllm:")),
    Form(("llamacpp",), r"llamacpp:spec_decode_num_", prometheus_reader("llamacpp:")),
    Form(("trtllm",), r"trtllm_spec_decode_num_", prometheus_reader("trtllm_")),
    Form(("sglang",), r"sglang:spec_(?:accept|verify)", read_sglang_metrics),
    Form(("vllm",), r"SpecDecoding metrics:", _whole(read_vllm_text)),
    Form(("vllm",), r"Speculative metrics:", _whole(read_vllm_v0)),
    Form(("sglang",), r"(?<!block )\baccept len:", _whole(read_sglang_text)),
    Form(("llamacpp",), r"draft acceptance|#acc tokens|\bn_drafted\b", read_llamacpp_text),
    Form(("trtllm",), r"specDecodingStats", _whole(read_trtllm_iterations)),
    Form(("vllm",), r"\bnum_drafts: ", _whole(read_vllm_offline)),
    Form(
        ("vllm", "sglang"),
        r"^\W*(?:Drafts|Draft tokens|Accept length|Acceptance length[^:]*): +\S+\s*$",
        _whole(read_benchmark_block),
    ),
)
"""The forms of text, in the order they are tried: what counts comes before what estimates."""


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
    if format not in get_args(LogFormat):
        near = nearest_name(format, get_args(LogFormat))
        raise SpecError.single(
            "", "format", f"found {format!r}", f"one of {', '.join(get_args(LogFormat))}", near
        )
    if gamma is not None and gamma < 1:
        raise SpecError.single("", "gamma", f"found {gamma}", "Give the drafted tokens per round, 1 or more")
    file = str(path)
    lines = _lines(Path(path), file)
    counts = _reader(lines, file, format)(lines, file, gamma, only)
    if not counts.rounds.sum():
        raise SpecError.single(
            file, "", "the log holds no round with a drafted token", "Let the engine draft first"
        )
    return counts


def _lines(path: Path, file: str) -> list[Line]:
    try:
        with sys.stdin.buffer if file == "-" else path.open("rb") as stream:
            content = stream.read(LARGEST_LOG + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError.single(file, "", f"cannot be read: {reason}", "Name a readable log") from error
    if len(content) > LARGEST_LOG:
        raise SpecError.single(file, "", f"is larger than {LARGEST_LOG:,} bytes", "Give a part of it")
    return lines_of(content)


def _reader(lines: list[Line], file: str, format: LogFormat) -> Reader:
    """Return the reader of the first form whose marks a line bears."""
    if not lines:
        raise SpecError.single(file, "", "the file is empty")
    start = lines[0].text.lstrip()
    if format == "csv" or (format == "auto" and start.lower().startswith("request,")):
        return _whole(read_csv)
    in_json = re.match(r"\{|data:|\[\s*(?:[\[\]{]|$)", start)
    present = []
    for form in _JSON_FORMS if in_json else _FORMS:
        marks = re.compile(form.marks)
        if (format == "auto" or format in form.engines) and any(marks.search(line.text) for line in lines):
            present.append(form)
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
