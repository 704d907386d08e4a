"""Read acceptance counts from what serving engines write: metrics, log lines, responses, and a plain CSV."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs.lines import Line
from perfmodel.acceptance.logs.llamacpp import read_llamacpp_text
from perfmodel.acceptance.logs.prometheus import read_prometheus
from perfmodel.acceptance.logs.responses import read_responses
from perfmodel.acceptance.logs.rounds import CSV_COLUMNS, read_csv
from perfmodel.acceptance.logs.sglang import read_sglang_text
from perfmodel.acceptance.logs.vllm import read_vllm_text
from perfmodel.errors import SpecError, nearest_name

__all__ = ["LogFormat", "read_log"]

LogFormat = Literal["auto", "vllm", "sglang", "llamacpp", "csv"]
LARGEST_LOG = 512_000_000

Reader = Callable[[list[Line], str, "int | None"], AcceptanceCounts]


def read_log(
    path: str | os.PathLike[str], format: LogFormat = "auto", gamma: int | None = None
) -> AcceptanceCounts:
    """Return the acceptance counts of a log.

    Read are, for ``vllm``, the Prometheus text of ``/metrics`` (one scrape, or several one after the other),
    the periodic ``SpecDecoding metrics`` line, and responses with ``metrics.speculative_decoding``; for
    ``sglang`` the ``Decode batch`` line and responses with ``meta_info``; for ``llamacpp`` the server's and
    the examples' summary lines, ``/metrics``, and responses with ``timings``; for ``csv`` the columns
    request, round, drafted, accepted. Responses may be one JSON document, one per line, or server-sent
    events; acceptance histograms per request in the form that benchmarks export are read too. Lines about
    other things are passed over.

    Parameters
    ----------
    path : the file, or ``-`` for what comes in on stdin.
    format : who wrote it; told by its lines where ``auto``.
    gamma : drafted tokens per round, for logs that do not tell.

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
    kind = _kind(lines, file, format)
    counts = _READERS[kind](lines, file, gamma)
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
    text = content.decode("utf-8-sig", errors="replace")
    return [Line(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _kind(lines: list[Line], file: str, format: LogFormat) -> str:
    """Return which reader fits, by the first line that says something about speculation."""
    if not lines:
        raise SpecError.single(file, "", "the file is empty")
    start = lines[0].text.lstrip()
    if format == "csv" or (format == "auto" and start.lower().startswith("request,")):
        return "csv"
    if re.match(r"\{|data:|\[\s*(?:[\[\]{]|$)", start):
        return "responses"
    for kind, marks in _MARKS.items():
        if format in ("auto", kind.partition(" ")[0]):
            for line in lines:
                if any(mark in line.text for mark in marks):
                    return kind
    wanted = "speculative decoding" if format == "auto" else f"speculative decoding in the form of {format}"
    raise SpecError.single(
        file,
        "",
        f"no line is about {wanted}",
        "Give the engine's log or the text of its /metrics, or a CSV that starts with "
        + ",".join(CSV_COLUMNS),
    )


_MARKS = {
    "vllm metrics": ("vllm:spec_decode_num_drafts",),
    "llamacpp metrics": ("llamacpp:spec_decode_num_drafts",),
    "vllm": ("SpecDecoding metrics:",),
    "sglang": ("accept len:",),
    "llamacpp": ("draft acceptance", "#acc tokens", "n_drafted"),
}


_READERS: dict[str, Reader] = {
    "csv": read_csv,
    "responses": read_responses,
    "vllm metrics": lambda lines, file, gamma: read_prometheus(lines, file, "vllm:", gamma),
    "llamacpp metrics": lambda lines, file, gamma: read_prometheus(lines, file, "llamacpp:", gamma),
    "vllm": read_vllm_text,
    "sglang": read_sglang_text,
    "llamacpp": read_llamacpp_text,
}
