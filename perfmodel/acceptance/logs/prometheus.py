"""Read acceptance counts from the Prometheus text of an engine's metrics."""

from __future__ import annotations

import re
from itertools import pairwise

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs.lines import Line, Row, counts_of_rows, damaged

__all__ = ["read_prometheus"]


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
        match = series.match(text)
        value = _counter(match.group(3)) if match else None
        if match is None or value is None:
            raise damaged(file, line, f"found {text[:80]!r}, not a counter")
        name, labels = match.group(1), match.group(2) or ""
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
        problem = f"{accepted:g} accepted of {drafted:g} drafted, by position {sum(reached):g}"
        raise damaged(file, line, problem, "accepted_tokens")
    if any(late > early + slack for early, late in zip([rounds, *reached], reached, strict=False)):
        problem = "a later position is accepted more often than the one before"
        raise damaged(file, line, problem, "accepted_tokens_per_pos")


def _positions(scrape: dict[str, float]) -> list[float]:
    positions = sorted(int(name) for name in scrape if name.isdigit())
    return [scrape[str(position)] for position in positions]


def _difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    restarted = after["spec_decode_num_drafts"] < before["spec_decode_num_drafts"]
    return {name: value - (0.0 if restarted else before.get(name, 0.0)) for name, value in after.items()}


def _scraped(window: dict[str, float], gamma: int | None) -> Row:
    rounds, drafted = window["spec_decode_num_drafts"], window["spec_decode_num_draft_tokens"]
    reached = _positions(window)
    longest = float(len(reached) or gamma or max(round(drafted / rounds), 1))
    return rounds, drafted, window["spec_decode_num_accepted_tokens"], longest, reached
