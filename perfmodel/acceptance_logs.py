"""Read acceptance counts from what serving engines write: metrics, log lines, responses, and a plain CSV."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from perfmodel.acceptance_counts import AcceptanceCounts, counts_of_rounds
from perfmodel.acceptance_llamacpp import read_llamacpp_text
from perfmodel.acceptance_responses import read_responses
from perfmodel.acceptance_text import (
    Line,
    read_prometheus,
    read_sglang_text,
    read_vllm_text,
)
from perfmodel.errors import Fault, SpecError, nearest_name

__all__ = ["LogFormat", "read_log"]

LogFormat = Literal["auto", "vllm", "sglang", "llamacpp", "csv"]
CSV_COLUMNS = ("request", "round", "drafted", "accepted")
LARGEST_LOG = 512_000_000
_MOST_FAULTS = 50

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
    path : the file. format : who wrote it; found out where ``auto``.
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
        if path.stat().st_size > LARGEST_LOG:
            raise SpecError.single(file, "", f"is larger than {LARGEST_LOG:,} bytes", "Give a part of it")
        content = path.read_bytes()
    except OSError as error:
        raise SpecError.single(file, "", f"cannot be read: {error.strerror or error}") from error
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


def read_csv(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return the counts of a CSV with a row per round: request, round, drafted, accepted, others ignored.

    Raises
    ------
    SpecError : naming every bad row by its line.
    """
    header = [name.strip().lower() for name in next(csv.reader([lines[0].text]))]
    faults = [
        Fault(file, lines[0].number, name, "the column is missing", nearest=nearest_name(name, header))
        for name in CSV_COLUMNS
        if header.count(name) != 1
    ]
    if faults:
        raise SpecError(faults)
    place = {name: header.index(name) for name in CSV_COLUMNS}
    seen: dict[tuple[str, int], int] = {}
    rows: list[tuple[str, int, int, int]] = []
    for line in lines[1:]:
        try:
            rows.append(_csv_row(line, file, place, len(header), seen, gamma))
        except SpecError as refused:
            faults.extend(refused.faults)
            if len(faults) > _MOST_FAULTS:
                break
    if faults:
        raise SpecError(faults)
    rows.sort(key=lambda row: row[1])
    order = {name: place for place, name in enumerate(dict.fromkeys(name for name, _ in seen))}
    rows.sort(key=lambda row: order[row[0]])
    numbers = np.array([row[2:] for row in rows], dtype=np.float64).reshape(-1, 2)
    return counts_of_rounds([row[0] for row in rows], numbers[:, 0], numbers[:, 1])


def _csv_row(
    line: Line,
    file: str,
    place: dict[str, int],
    width: int,
    seen: dict[tuple[str, int], int],
    gamma: int | None,
) -> tuple[str, int, int, int]:
    cells = next(csv.reader([line.text]))
    if len(cells) != width:
        raise SpecError.single(file, "", f"{len(cells)} cells where the header has {width}", line=line.number)
    request = cells[place["request"]].strip()
    number, drafted, accepted = (_count(cells[place[name]], name, line, file) for name in CSV_COLUMNS[1:])
    if accepted > drafted:
        raise SpecError.single(
            file,
            "accepted",
            f"found {accepted} of {drafted} drafted",
            "The bonus token is not counted",
            line=line.number,
        )
    if gamma is not None and drafted > gamma:
        raise SpecError.single(file, "drafted", f"found {drafted} where gamma is {gamma}", line=line.number)
    earlier = seen.setdefault((request, number), line.number)
    if earlier != line.number:
        raise SpecError.single(
            file,
            "round",
            f"round {number} of request {request!r} is in line {earlier} already",
            line=line.number,
        )
    return request, number, drafted, accepted


def _count(text: str, field: str, line: Line, file: str) -> int:
    cleaned = text.strip()
    if not (cleaned.isascii() and cleaned.isdigit() and len(cleaned) <= 12):
        raise SpecError.single(
            file, field, f"found {cleaned[:40]!r}", "Give a whole number, 0 or more", line=line.number
        )
    return int(cleaned)


def _from_vllm_metrics(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    return read_prometheus(lines, file, "vllm:", gamma)


def _from_llamacpp_metrics(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    return read_prometheus(lines, file, "llamacpp:", gamma)


_READERS: dict[str, Reader] = {
    "csv": read_csv,
    "responses": read_responses,
    "vllm metrics": _from_vllm_metrics,
    "llamacpp metrics": _from_llamacpp_metrics,
    "vllm": read_vllm_text,
    "sglang": read_sglang_text,
    "llamacpp": read_llamacpp_text,
}
