"""Read acceptance counts from metrics text and from the log lines of vLLM and SGLang."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from perfmodel.acceptance_counts import SHORTER, AcceptanceCounts, Unit
from perfmodel.errors import SpecError

__all__ = ["Line", "counts_of_rows", "damaged", "read_prometheus", "read_sglang_text", "read_vllm_text"]

NUMBER = r"(nan|\d+(?:\.\d+)?)"
_DAMAGED = "Take the log again, or leave this line out"


class Line(NamedTuple):
    """One line of a log with its number, counted from 1."""

    number: int
    text: str


def damaged(file: str, line: Line, problem: str, field: str = "", remedy: str = _DAMAGED) -> SpecError:
    """Return the refusal of one line."""
    return SpecError.single(file, field, problem, remedy, line=line.number)


def counts_of_rows(
    unit: Unit,
    rows: list[tuple[float, float, float, float, list[float]]],
    requests: float | None = None,
    remarks: tuple[str, ...] = (),
) -> AcceptanceCounts:
    """Return the counts of rows: rounds, drafted, accepted, gamma, rounds that reach each position."""
    table = np.array([row[:4] for row in rows], dtype=np.float64).reshape(-1, 4)
    rounds, drafted, accepted, gamma = table.T
    reached = tried = None
    if rows and all(row[4] for row in rows):
        longest = max(len(row[4]) for row in rows)
        reached = np.array([row[4] + [0.0] * (longest - len(row[4])) for row in rows])
        possible = np.arange(1, longest + 1) <= np.array([len(row[4]) for row in rows])[:, None]
        tried = np.concatenate([rounds[:, None], reached[:, :-1]], axis=1) * possible
        if np.any(drafted < 0.995 * rounds * gamma):
            remarks = (*remarks, SHORTER)
    return AcceptanceCounts(
        unit=unit,
        rounds=rounds,
        drafted=drafted,
        accepted=accepted,
        gamma=gamma,
        reached=reached,
        tried=tried,
        requests=requests,
        remarks=remarks,
    )


def read_prometheus(lines: list[Line], file: str, prefix: str, gamma: int | None) -> AcceptanceCounts:
    """Return the counts of a metrics text, or of the windows between several scrapes in one file.

    Series of several engines in one scrape are added up; a counter that falls was restarted.

    Raises
    ------
    SpecError : a damaged series, a scrape without its counters, or counters that contradict each other.
    """
    series = re.compile(
        rf"{prefix}(spec_decode_num_\w+?|request_success)(?:_total)?(?:\{{(.*)\}})?\s+(\S+)(?:\s+-?\d+)?\s*$"
    )
    scrapes: list[dict[str, float]] = []
    starts: list[Line] = []
    seen: set[str] = set()
    for line in lines:
        text = line.text.strip()
        if (
            not text.startswith((prefix + "spec_decode_num_", prefix + "request_success"))
            or "_created" in text
        ):
            continue
        found = series.match(text)
        value = _counter(found.group(3)) if found else None
        if found is None or value is None:
            raise damaged(file, line, f"found {text[:80]!r}, not a counter")
        name, labels = found.group(1), found.group(2) or ""
        if not scrapes or f"{name}{labels}" in seen:
            scrapes.append({})
            starts.append(line)
            seen.clear()
        seen.add(f"{name}{labels}")
        if name == "spec_decode_num_accepted_tokens_per_pos":
            position = re.search(r'position="(\d{1,3})"', labels)
            if position is None:
                raise damaged(file, line, "a counter per position has no position label")
            name = position.group(1)
        scrapes[-1][name] = scrapes[-1].get(name, 0.0) + value
    for scrape, line in zip(scrapes, starts, strict=True):
        _check_scrape(scrape, file, line)
    windows = [_difference(after, before) for before, after in pairwise(scrapes)] or scrapes[:1]
    requests = sum(window.get("request_success", 0.0) for window in windows) or None
    rows = [_scraped(window, gamma) for window in windows if window["spec_decode_num_drafts"] > 0]
    return counts_of_rows("window" if len(scrapes) > 1 else "total", rows, requests)


def _counter(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value < 1e15 and value == int(value) else None


def _check_scrape(scrape: dict[str, float], file: str, line: Line) -> None:
    for name in ("drafts", "draft_tokens", "accepted_tokens"):
        if f"spec_decode_num_{name}" not in scrape:
            raise damaged(
                file, line, "the scrape that begins here lacks the counter", f"spec_decode_num_{name}"
            )
    rounds, drafted, accepted = (
        scrape[f"spec_decode_num_{name}"] for name in ("drafts", "draft_tokens", "accepted_tokens")
    )
    reached = _positions(scrape)
    slack = 64.0 + 0.01 * accepted
    if accepted > drafted or (reached and abs(sum(reached) - accepted) > slack):
        raise damaged(
            file,
            line,
            f"{accepted:g} accepted of {drafted:g} drafted, by position {sum(reached):g}",
            "accepted_tokens",
        )
    if any(late > early + slack for early, late in zip([rounds, *reached], reached, strict=False)):
        raise damaged(
            file,
            line,
            "a later position is accepted more often than the one before",
            "accepted_tokens_per_pos",
        )


def _positions(scrape: dict[str, float]) -> list[float]:
    positions = sorted(int(name) for name in scrape if name.isdigit())
    return [scrape[str(position)] for position in positions]


def _difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    restarted = after["spec_decode_num_drafts"] < before["spec_decode_num_drafts"]
    return {name: value - (0.0 if restarted else before.get(name, 0.0)) for name, value in after.items()}


def _scraped(window: dict[str, float], gamma: int | None) -> tuple[float, float, float, float, list[float]]:
    rounds, drafted = window["spec_decode_num_drafts"], window["spec_decode_num_draft_tokens"]
    reached = _positions(window)
    longest = float(len(reached) or gamma or max(round(drafted / rounds), 1))
    return rounds, drafted, window["spec_decode_num_accepted_tokens"], longest, reached


def read_vllm_text(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return one row per ``SpecDecoding metrics`` line; rates per position are rounded there to three digits.

    Raises
    ------
    SpecError : a line of that kind that is not whole or contradicts itself, or no line with drafts.
    """
    rows = []
    for line in lines:
        _, mark, rest = line.text.partition("SpecDecoding metrics:")
        if not mark:
            continue
        mean = re.search(rf"Mean acceptance length: {NUMBER},", rest)
        accepted = re.search(r"Accepted: (\d+) tokens,", rest)
        drafted = re.search(r"Drafted: (\d+) tokens", rest)
        rates = re.search(rf"Per-position acceptance rate: ({NUMBER}(?:, {NUMBER})*)", rest)
        overall = re.search(rf"[Dd]raft acceptance rate: {NUMBER}%", rest)
        if not (mean and accepted and drafted and rates and overall):
            raise damaged(file, line, "the line is not whole: a length, a count or a rate is missing")
        if int(drafted.group(1)) == 0:
            continue
        survival = [float(rate) for rate in rates.group(1).split(", ")]
        total, kept, sent = sum(survival), float(accepted.group(1)), float(drafted.group(1))
        length = float(mean.group(1))
        off = min(abs(length - 1.0 - total), abs(length - total))
        if not off <= 0.006 + 0.001 * len(survival) or kept > sent:
            raise damaged(
                file,
                line,
                f"mean length {length:g} contradicts the rates per position, which sum to {total:.3f}",
            )
        if any(late > early for early, late in zip([1.0, *survival], survival, strict=False)):
            raise damaged(file, line, "a later position is accepted more often than the one before")
        longest = float(len(survival))
        rounds = sent / longest
        if kept > 0.0 and abs(kept / total / rounds - 1.0) > 0.02:
            rounds = kept / total
        scale = kept / total if kept > 0.0 else 0.0
        rows.append((rounds, sent, kept, longest, [rate * scale for rate in survival]))
    if gamma is not None and any(row[3] != gamma for row in rows):
        raise SpecError.single(
            file, "gamma", f"{gamma} is given, the log has {rows[0][3]:g} positions", "Leave it out"
        )
    return counts_of_rows("window", rows)


def read_sglang_text(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return one row per ``Decode batch`` line, 40 rounds (the log interval) per running request.

    Raises
    ------
    SpecError : a line of that kind that is not whole, or a number of drafts that the lines do not tell.
    """
    found: list[tuple[Line, float, float, float]] = []
    for line in lines:
        if "accept len:" not in line.text:
            continue
        running = re.search(r"#running-req: (\d+),", line.text)
        length = re.search(rf"accept len: {NUMBER},", line.text)
        rate = re.search(rf"accept rate: {NUMBER},", line.text)
        if not (running and length and "gen throughput" in line.text):
            raise damaged(
                file, line, "the line is not whole: requests, accept length or throughput is missing"
            )
        values = float(length.group(1)), float(rate.group(1)) if rate else float("nan")
        if not values[0] >= 1.0 or values[1] > 1.0 or (gamma is not None and values[0] > gamma + 1.0):
            raise damaged(file, line, f"found accept len {values[0]:g}, accept rate {values[1]:g}")
        found.append((line, float(running.group(1)), *values))
    told = np.array([(length - 1.0) / rate for _, _, length, rate in found if rate >= 0.05])
    drafts = float(gamma) if gamma is not None else (float(np.round(np.median(told))) if told.size else 0.0)
    if gamma is None and (drafts < 1.0 or abs(float(np.median(told)) - drafts) > 0.2):
        raise SpecError.single(
            file,
            "gamma",
            "the lines do not tell how many tokens are drafted per round",
            "Give gamma: --speculative-num-steps",
        )
    rows: list[tuple[float, float, float, float, list[float]]] = []
    for line, requests, accept_len, _ in found:
        if accept_len > drafts + 1.0:
            raise damaged(
                file, line, f"accept len {accept_len:g} is more than {drafts:g} drafts and the bonus token"
            )
        rounds = 40.0 * requests
        rows.append((rounds, drafts * rounds, (accept_len - 1.0) * rounds, drafts, []))
    remark = "rounds are estimated: 40 per running request and line, the default of --decode-log-interval"
    return counts_of_rows("window", rows, remarks=(remark,))
