"""Read acceptance counts from the summary lines of llama.cpp's server and example programs.

Forms: github.com/ggml-org/llama.cpp, tools/server/server-context.cpp (the lines after a request),
common/speculative.cpp and docs/speculative.md (statistics of a drafter), examples/speculative.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs.lines import (
    NUMBER,
    Line,
    Row,
    count_in,
    counts_of_rows,
    damaged,
    rates_in,
)  # fmt: skip
from perfmodel.errors import SpecError
from perfmodel.files.quoting import shell

__all__ = ["read_llamacpp_text"]

_IDLE_AMONG = (
    "rounds are tokens put out less accepted ones: rounds that drafted nothing are among them, because the "
    "line does not tell them apart, nor how long the longest draft was (--gamma N: --spec-draft-n-max)"
)

_FULL_DRAFTS = (
    "no 'eval time' line tells the rounds of some requests: every draft is taken to be as long as --gamma. "
    "Where drafts stop early (--spec-draft-p-min) there were more rounds, and tokens per round and alpha are "
    "lower"
)


def read_llamacpp_text(
    lines: list[Line], file: str, gamma: int | None, only: str | None = None
) -> AcceptanceCounts:
    """Return one row per finished request, else the totals of a drafter's statistics or of an example.

    A round puts out the accepted tokens and one of the target's own, so rounds are tokens put out less
    accepted ones where the line does not tell them. With ``only`` the statistics of one drafter are read.

    Raises
    ------
    SpecError : a summary line that is not whole, one that tells no rounds where ``gamma`` is not given, or
        statistics of several drafters where ``only`` names none.
    """
    drafters = list(_drafters(lines, file))
    used = [drafter for drafter in drafters if drafter.rounds and drafter.drafted]
    if only is None and (requests := list(_served(lines, file, gamma))):
        return _of_requests(requests, used, file)
    if drafters:
        return _of_drafter(used, file, gamma, only)
    if only is not None:
        raise SpecError.single(file, "only", f"the log has no statistics of {only!r}", "Leave --only out")
    if runs := list(_example(lines, file, gamma)):
        at, rows = [line for line, _ in runs], [row for _, row in runs]
        return counts_of_rows("request", rows, float(len(rows)), at=at, file=file)
    raise SpecError.single(
        file, "", "no summary of drafted and accepted tokens", "Give the whole log of the server"
    )


class _Request(NamedTuple):
    """A row, its rounds that drafted nothing (NaN: not told), and how its rounds were found.

    ``among`` where the rounds that drafted nothing are among them; ``full`` where every draft is taken to be
    as long as the longest.
    """

    line: Line
    row: Row
    idle: float
    among: bool
    full: bool


def _of_requests(requests: list[_Request], drafters: list[_Drafter], file: str) -> AcceptanceCounts:
    idle = np.array([request.idle for request in requests])
    remarks = []
    if any(request.among for request in requests):
        remarks.append(_IDLE_AMONG)
    if any(request.full for request in requests):
        remarks.append(_FULL_DRAFTS)
    if len(drafters) > 1:
        names = [drafter.name for drafter in drafters]
        remarks.append(
            f"the drafters {' and '.join(names)} ran together, and a request's line counts them as one; "
            f"--only {shell(names[0])} reads the statistics of one"
        )
    counts = counts_of_rows(
        "request", [request.row for request in requests], float(len(requests)), tuple(remarks),
        at=[request.line for request in requests], file=file,
    )  # fmt: skip
    return counts if np.any(np.isnan(idle)) else replace(counts, idle=idle)


_COUNTED_LATER = 1e-3
"""How far a printed share lies from its own line's counts; 2e-4 is published. [1]"""
_SERVED = re.compile(
    rf"draft acceptance(?: rate)? = +{NUMBER} \( *([0-9]+) accepted / *([0-9]+) generated\)"
    rf"(?:, mean (?:len|acceptance length) = +{NUMBER})?"
)
_PUT_OUT = re.compile(r"(?<!prompt )\beval time = +[0-9.]+ ms / +([0-9]+) (?:tokens|runs)")
_OF_ANSWER = re.compile(r"(?<!prompt )\beval time =.*\b(?:tokens|runs)\b")
_TASK = re.compile(r"\bid +([0-9]+) \| task +(-?[0-9]+)")


def _served(lines: list[Line], file: str, gamma: int | None) -> Iterator[_Request]:
    """Yield the requests; tokens put out are those of the same task, else of the last line with them."""
    put_out: dict[str, float] = {}
    for place, line in enumerate(lines):
        named = _TASK.search(line.text) if "task" in line.text else None
        task = " ".join(named.groups()) if named else ""
        if "eval time" in line.text and _OF_ANSWER.search(line.text):
            if (match := _PUT_OUT.search(line.text)) is None:
                raise damaged(file, line, "the line is not whole: its tokens are no number", "eval time")
            put_out[task] = put_out[""] = float(match.group(1))
        if "draft acceptance" not in line.text:
            continue
        match = _SERVED.search(line.text)
        kept, sent = (0.0, 0.0) if match is None else (float(match.group(2)), float(match.group(3)))
        if match is None or kept > sent:
            raise damaged(file, line, "the line is not whole, or more tokens are accepted than generated")
        if sent and not abs(float(match.group(1)) - kept / sent) <= _COUNTED_LATER:
            problem = f"{kept:g} of {sent:g} is not the share that is printed, {match.group(1)}"
            raise damaged(file, line, problem, "draft acceptance")
        tokens = put_out.pop(task, put_out.get("", float("nan")))
        put_out.pop("", None)
        after = lines[place + 1] if place + 1 < len(lines) else line
        rates = rates_in(after.text, "acc per pos = (", after, file)
        rates = rates_in(line.text, "per position = (", line, file) or rates
        if sent:
            yield _request(kept, sent, float(match.group(4) or "nan"), tokens, rates, file, line, gamma)


def _request(
    kept: float, sent: float, mean_len: float, tokens: float, survival: list[float], file: str, line: Line,
    gamma: int | None,
) -> _Request:  # fmt: skip
    """Return one finished request; its rounds come from rates, the mean length, tokens put out, or gamma."""
    idle, among, full = float("nan"), False, False
    if kept > 0.0 and (sum(survival) > 0.0 or mean_len > 1.0):
        rounds = kept / (sum(survival) or mean_len - 1.0)
        idle = max(float(np.round(tokens - 1.0 - kept - rounds)), 0.0) if tokens > kept else idle
    elif tokens > kept:
        rounds, among = tokens - kept, True
    elif gamma is not None or survival:
        rounds, full = sent / float(gamma or len(survival)), not survival
    else:
        problem = (
            "this line, which llama-server wrote from December 2024 to spring 2026, does not tell the "
            "rounds, and no 'eval time' line of the request stands before it"
        )
        remedy = "Give the log with the 'eval time' lines, or the drafts per round: --gamma N"
        raise SpecError.single(file, "gamma", problem, remedy, line=line.number)
    if gamma is not None and len(survival) > gamma:
        problem = f"{gamma} is given, the line has {len(survival)} positions"
        raise SpecError.single(file, "gamma", problem, "Leave it out", line=line.number)
    if survival and sent > 1.02 * rounds * len(survival) + 1.0:
        problem = f"{sent:g} tokens are more than {rounds:.0f} rounds of {len(survival)} can draft"
        raise damaged(file, line, problem)
    total = sum(survival)
    if survival and (abs(mean_len - 1.0 - total) > 0.006 + 0.001 * len(survival) or (total and not kept)):
        problem = f"{kept:g} accepted, mean length {mean_len:g}: the rates per position sum to {total:.3f}"
        raise damaged(file, line, problem)
    longest = float(gamma or len(survival) or np.ceil(sent / rounds - 0.02))
    row: Row = (rounds, sent, kept, max(longest, 1.0), [rate * rounds for rate in survival])
    return _Request(line, row, idle, among, full)


class _Drafter(NamedTuple):
    line: Line
    name: str
    rounds: float
    drafted: float
    accepted: float
    idle: float
    survival: list[float]


_STATISTICS = re.compile(
    r"statistics +(?P<name>\S+): +"
    r"#calls(?:\(b,g,a\) = +[0-9]+ +(?P<asked>[0-9]+) +(?P<used>[0-9]+)| = +(?P<calls>[0-9]+)), "
    r"+#gen drafts = +(?P<drafts>[0-9]+),.*#gen tokens = +(?P<sent>[0-9]+), +#acc tokens = +(?P<kept>[0-9]+)"
)


def _drafters(lines: list[Line], file: str) -> Iterator[_Drafter]:
    """Yield the last statistics of each drafter, which are counted since the start of the server."""
    last: dict[str, _Drafter] = {}
    for line in lines:
        if "#" not in line.text or not re.search(r"#acc tokens|statistics +\S+: +#calls", line.text):
            continue
        match = _STATISTICS.search(line.text)
        if match is None:
            raise damaged(file, line, "the statistics are not whole")
        sent, kept, drafts = (float(match[part]) for part in ("sent", "kept", "drafts"))
        if kept > sent:
            raise damaged(file, line, f"{kept:g} accepted of {sent:g} generated")
        rounds = float(match["used"] or drafts)
        idle = max(float(match["asked"] or match["calls"]) - rounds, 0.0)
        rates = rates_in(line.text, "#acc rate/pos = (", line, file)
        last[match["name"]] = _Drafter(line, match["name"], rounds, sent, kept, idle, rates)
    yield from last.values()


def _of_drafter(
    drafters: list[_Drafter], file: str, gamma: int | None, only: str | None
) -> AcceptanceCounts:
    names = [drafter.name for drafter in drafters]
    if only is None and len(drafters) > 1:
        listed = ", ".join(
            f"{drafter.name} ({drafter.rounds:g} rounds of {drafter.drafted / drafter.rounds:.3g} tokens)"
            for drafter in drafters
        )
        problem = f"{len(drafters)} drafters ran, which are strategies of their own: {listed}"
        raise SpecError.single(file, "only", problem, f"Give the one to fit: --only {shell(names[0])}")
    chosen = [drafter for drafter in drafters if only in (None, drafter.name)]
    if only is not None and not chosen:
        problem = f"no drafter {only!r} drafted; the log has {', '.join(names) or 'none'}"
        raise SpecError.single(file, "only", problem, "Give one of them")
    rows: list[Row] = []
    for drafter in chosen:
        rounds, sent = drafter.rounds, drafter.drafted
        longest = float(len(drafter.survival) or gamma or np.ceil(sent / rounds - 1e-9))
        reached = [rate * rounds for rate in drafter.survival]
        if reached and abs(sum(reached) - drafter.accepted) > (0.0006 * rounds + 1.0) * len(reached):
            problem = f"{drafter.accepted:g} accepted, by position {sum(reached):.0f}"
            raise damaged(file, drafter.line, problem, "#acc tokens")
        rows.append((rounds, sent, drafter.accepted, longest, reached))
    counts = counts_of_rows("total", rows, at=[drafter.line for drafter in chosen], file=file)
    return counts if len(drafters) > 1 else replace(counts, idle=np.array([each.idle for each in chosen]))


def _example(lines: list[Line], file: str, gamma: int | None) -> Iterator[tuple[Line, Row]]:
    values: dict[str, float] = {}
    for line in lines:
        match = re.search(r"\b(n_draft|n_predict|n_drafted|n_accept) += +(\S+)\s*$", line.text)
        if match is None:
            continue
        if (figure := count_in(match.group(2))) is None:
            raise damaged(file, line, f"found {match.group(2)[:40]!r}", match.group(1))
        values[match.group(1)] = float(figure)
        if match.group(1) == "n_accept":
            if (
                not {"n_draft", "n_predict", "n_drafted"} <= set(values)
                or values["n_accept"] > values["n_drafted"]
            ):
                raise damaged(file, line, "the summary that ends here is not whole or contradicts itself")
            rounds = max(values["n_predict"] - values["n_accept"], 1.0)
            yield line, (rounds, values["n_drafted"], values["n_accept"], gamma or values["n_draft"], [])
            values = {}

