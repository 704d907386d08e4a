"""Read acceptance counts from the summary lines of llama.cpp's server and example programs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs.lines import NUMBER, Line, Row, counts_of_rows, damaged
from perfmodel.errors import SpecError

__all__ = ["read_llamacpp_text"]


def read_llamacpp_text(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return one row per finished request, else the totals of the statistics or of an example program.

    Raises
    ------
    SpecError : a summary line that is not whole, or one that does not tell the rounds where ``gamma`` is not
        given.
    """
    for read in (_served, _statistics, _example):
        if rows := list(read(lines, file, gamma)):
            if read is _statistics:
                return counts_of_rows("total", rows)
            return counts_of_rows("request", rows, float(len(rows)))
    raise SpecError.single(
        file, "", "no summary of drafted and accepted tokens", "Give the whole log of the server"
    )


_SERVED = re.compile(
    rf"draft acceptance(?: rate)? = +{NUMBER} \( *(\d+) accepted / *(\d+) generated\)"
    rf"(?:, mean len = +{NUMBER})?"
)


def _served(lines: list[Line], file: str, gamma: int | None) -> Iterator[Row]:
    for place, line in enumerate(lines):
        if "draft acceptance" not in line.text:
            continue
        match = _SERVED.search(line.text)
        if match is None or int(match.group(2)) > int(match.group(3)):
            raise damaged(file, line, "the line is not whole, or more tokens are accepted than generated")
        kept, sent = float(match.group(2)), float(match.group(3))
        following = lines[place + 1].text if place + 1 < len(lines) else ""
        survival = _rates_in(following, "acc per pos = (") if "acc per pos" in following else []
        yield _totals(kept, sent, float(match.group(4) or "nan"), survival, file, line, gamma)


def _statistics(lines: list[Line], file: str, gamma: int | None) -> Iterator[Row]:
    last: dict[str, tuple[Line, list[float], list[float]]] = {}
    for line in lines:
        if "#acc tokens" not in line.text:
            continue
        counts = re.search(
            r"statistics +(\S+): #calls\(b,g,a\) = +\d+ +\d+ +(\d+), "
            r".*#gen tokens = +(\d+), #acc tokens = +(\d+)",
            line.text,
        )
        if counts is None:
            raise damaged(file, line, "the statistics are not whole")
        last[counts.group(1)] = (
            line,
            [float(counts.group(part)) for part in (2, 3, 4)],
            _rates_in(line.text, "#acc rate/pos = ("),
        )
    for line, (rounds, sent, kept), survival in last.values():
        if kept > sent:
            raise damaged(file, line, f"{kept:g} accepted of {sent:g} generated")
        if rounds and sent:
            longest = float(len(survival) or gamma or np.ceil(sent / rounds))
            yield rounds, sent, kept, longest, [rate * rounds for rate in survival]


def _example(lines: list[Line], file: str, gamma: int | None) -> Iterator[Row]:
    values: dict[str, float] = {}
    for line in lines:
        match = re.search(r"\b(n_draft|n_predict|n_drafted|n_accept) += +(\S+)\s*$", line.text)
        if match is None:
            continue
        if not match.group(2).isdigit():
            raise damaged(file, line, f"found {match.group(2)!r}", match.group(1))
        values[match.group(1)] = float(match.group(2))
        if match.group(1) == "n_accept":
            if (
                not {"n_draft", "n_predict", "n_drafted"} <= set(values)
                or values["n_accept"] > values["n_drafted"]
            ):
                raise damaged(file, line, "the summary that ends here is not whole or contradicts itself")
            rounds = max(values["n_predict"] - values["n_accept"], 1.0)
            yield rounds, values["n_drafted"], values["n_accept"], gamma or values["n_draft"], []
            values = {}


def _rates_in(text: str, mark: str) -> list[float]:
    inside = text.partition(mark)[2].partition(")")[0]
    return [float(rate) for rate in re.findall(r"\d+\.\d+", inside)]


def _totals(
    kept: float, sent: float, mean_len: float, survival: list[float], file: str, line: Line, gamma: int | None
) -> Row:
    """Return the row of one finished request; its rounds come from the mean length or from ``gamma``."""
    if kept > 0.0 and sum(survival) > 0.0:
        rounds = kept / sum(survival)
    elif kept > 0.0 and mean_len > 1.0:
        rounds = kept / (mean_len - 1.0)
    elif gamma is not None or survival:
        rounds = sent / float(gamma or len(survival))
    else:
        problem = "this form of the line does not tell the rounds"
        raise damaged(file, line, problem, "gamma", "Give gamma: --spec-draft-n-max")
    longest = float(gamma or len(survival) or np.ceil(sent / rounds - 0.02))
    return rounds, sent, kept, max(longest, 1.0), [rate * rounds for rate in survival]
