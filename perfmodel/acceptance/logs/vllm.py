"""Read acceptance counts from the log lines of vLLM, of engine V0 and V1, and from its offline example.

Forms and counts: github.com/vllm-project/vllm, vllm/v1/spec_decode/metrics.py (0.8.3 to 0.8.5: no lengths;
since 0.9: lengths and rates per position), vllm/spec_decode/metrics.py and vllm/engine/metrics.py (engine
V0), examples/offline_inference/spec_decode.py.
"""

from __future__ import annotations

import re

from perfmodel.acceptance.counts import RISES, AcceptanceCounts
from perfmodel.acceptance.logs.lines import (
    NUMBER,
    Line,
    Row,
    agrees,
    count_in,
    counts_of_rows,
    damaged,
    number_of,
)  # fmt: skip
from perfmodel.errors import SpecError

__all__ = ["read_vllm_offline", "read_vllm_text", "read_vllm_v0"]

_TWO_RELEASES = "this form, which vLLM 0.8.3 to 0.8.5 wrote (engine V1), does not tell the rounds"
_ASK_GAMMA = "Give the tokens drafted per round beside it: --gamma N (num_speculative_tokens)"
_SHORT = re.compile(
    rf"^\s*Draft acceptance rate: {NUMBER}%, Accepted: ([0-9]+) tokens, Drafted: ([0-9]+) tokens\s*$"
)


def read_vllm_text(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return one row per ``SpecDecoding metrics`` line; rates per position are rounded there to three digits.

    Raises
    ------
    SpecError : a line of that kind that is not whole or contradicts itself, or one of a release that does not
        tell the rounds where gamma is not given.
    """
    rows: list[Row] = []
    at: list[Line] = []
    lengths: set[float] = set()
    for line in lines:
        _, mark, rest = line.text.partition("SpecDecoding metrics:")
        if not mark:
            continue
        short = _SHORT.match(rest)
        row = _short(short, line, file, gamma) if short else _long(rest, line, file)
        if row is not None:
            rows.append(row)
            at.append(line)
            lengths |= set() if short else {row[3]}
    if gamma is not None and lengths - {float(gamma)}:
        raise SpecError.single(
            file, "gamma", f"{gamma} is given, the log has {max(lengths):g} positions", "Leave it out"
        )
    return counts_of_rows("window", rows, at=at, file=file)


def _short(match: re.Match[str], line: Line, file: str, gamma: int | None) -> Row | None:
    if gamma is None:
        raise SpecError.single(file, "gamma", _TWO_RELEASES, _ASK_GAMMA, line=line.number)
    accepted, drafted = float(match.group(2)), float(match.group(3))
    if drafted and not agrees(match.group(1), 100.0 * accepted / drafted):
        problem = f"{accepted:g} accepted of {drafted:g} drafted are not {match.group(1)} %"
        raise damaged(file, line, problem)
    return (drafted / gamma, drafted, accepted, float(gamma), []) if drafted else None


def _long(rest: str, line: Line, file: str) -> Row | None:
    mean = re.search(rf"Mean acceptance length: {NUMBER},", rest)
    accepted = re.search(r"Accepted: ([0-9]+) tokens,", rest)
    drafted = re.search(r"Drafted: ([0-9]+) tokens", rest)
    rates = re.search(rf"Per-position acceptance rate: ({NUMBER}(?:, {NUMBER})*)", rest)
    overall = re.search(rf"[Dd]raft acceptance rate: {NUMBER}%", rest)
    if not (mean and accepted and drafted and rates and overall):
        raise damaged(file, line, "the line is not whole: a length, a count or a rate is missing")
    if float(drafted.group(1)) == 0.0:
        return None
    survival = [float(rate) for rate in rates.group(1).split(", ")]
    total, kept, sent = sum(survival), float(accepted.group(1)), float(drafted.group(1))
    length = float(mean.group(1))
    off = min(abs(length - 1.0 - total), abs(length - total))
    if not off <= 0.006 + 0.001 * len(survival) or kept > sent or (kept and not total):
        problem = f"mean length {length:g} contradicts the rates per position, which sum to {total:.3f}"
        raise damaged(file, line, problem)
    if any(late > early for early, late in zip([1.0, *survival], survival, strict=False)):
        raise damaged(file, line, RISES)
    if not agrees(overall.group(1), 100.0 * kept / sent):
        problem = f"{kept:g} accepted of {sent:g} drafted are not {overall.group(1)} %"
        raise damaged(file, line, problem)
    longest = float(len(survival))
    rounds = sent / longest
    if kept > 0.0 and abs(kept / total / rounds - 1.0) > 0.02:
        rounds = kept / total
    scale = kept / total if kept > 0.0 else 0.0
    return rounds, sent, kept, longest, [rate * scale for rate in survival]


_V0 = re.compile(
    r"Number of speculative tokens: ([0-9]+), Number of accepted tokens: ([0-9]+), "
    r"Number of draft tokens(?: tokens)?: ([0-9]+), Number of emitted tokens(?: tokens)?: ([0-9]+)\."
)


def read_vllm_v0(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return the totals of the ``Speculative metrics`` lines, counted since the start of an engine.

    A round of engine V0 puts out the accepted tokens and one more, so accepted are emitted less rounds; the
    accepted tokens that it prints also count those after the first refusal.

    Raises
    ------
    SpecError : a line of that kind that is not whole, or one whose counters contradict each other.
    """
    last: list[Row] = []
    at: list[Line] = []
    before: tuple[float, ...] = ()
    for line in lines:
        if "Speculative metrics:" not in line.text:
            continue
        match = _V0.search(line.text)
        if match is None:
            raise damaged(file, line, "the line is not whole: a number of tokens is missing")
        longest, kept, drafted, emitted = (float(part) for part in match.groups())
        if not drafted:
            continue
        if not longest or kept > drafted or emitted > drafted / longest * (longest + 1.0) + 1.0:
            problem = f"{kept:g} accepted and {emitted:g} emitted of {drafted:g} drafted, {longest:g} a round"
            raise damaged(file, line, problem)
        if gamma is not None and gamma != longest:
            problem = f"{gamma} is given, the log has {longest:g} speculative tokens"
            raise SpecError.single(file, "gamma", problem, "Leave it out", line=line.number)
        rounds = drafted / longest
        row: Row = (rounds, drafted, min(max(emitted - rounds, 0.0), drafted), longest, [])
        counters = (kept, drafted, emitted)
        grown = bool(last) and longest == last[-1][3]
        grown = grown and all(now >= then for now, then in zip(counters, before, strict=True))
        last, at = ([*last[:-1], row], [*at[:-1], line]) if grown else ([*last, row], [*at, line])
        before = counters
    return counts_of_rows("total", last, at=at, file=file)


_OFFLINE = re.compile(r"\b(num_drafts|num_draft_tokens|num_accepted_tokens): *(\S*)")
_AT_POSITION = re.compile(r"acceptance at (?:token|position) ([0-9]+): *(\S*)")


def read_vllm_offline(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return what the offline example prints: one row per run, by position where it prints the rates.

    Raises
    ------
    SpecError : a number that is none, or a run without one of its counts.
    """
    runs: list[tuple[Line, dict[str, float], list[float]]] = []
    for line in lines:
        if "num_" in line.text and (match := _OFFLINE.search(line.text)):
            if not runs or match.group(1) in runs[-1][1]:
                runs.append((line, {}, []))
            runs[-1][1][match.group(1)] = _figure(match, line, file)
        elif runs and (match := _AT_POSITION.search(line.text)):
            runs[-1][2].append(_figure(match, line, file))
    rows: list[Row] = []
    at: list[Line] = []
    for line, counts, rates in runs:
        for name in ("num_drafts", "num_draft_tokens", "num_accepted_tokens"):
            if name not in counts:
                raise damaged(file, line, "the run that begins here lacks the count", name)
        rounds, drafted, accepted = (
            counts[f"num_{part}"] for part in ("drafts", "draft_tokens", "accepted_tokens")
        )
        total = sum(rates)
        off = abs(total * rounds - accepted) > (0.006 * rounds + 1.0) * len(rates)
        if accepted > drafted or (rates and off):
            problem = f"{accepted:g} accepted of {drafted:g} drafted, by position {total * rounds:.0f}"
            raise damaged(file, line, problem, "num_accepted_tokens")
        if not rounds:
            continue
        scale = accepted / total if total else 0.0
        longest = float(len(rates) or gamma or max(-(-drafted // rounds), 1.0))
        rows.append((rounds, drafted, accepted, longest, [rate * scale for rate in rates]))
        at.append(line)
    return counts_of_rows("total", rows, at=at, file=file)


def _figure(match: re.Match[str], line: Line, file: str) -> float:
    counts = match.group(1).startswith("num_")
    figure = count_in(match.group(2)) if counts else number_of(match.group(2))
    if figure is None or figure < 0.0:
        raise damaged(file, line, f"found {match.group(2)[:40]!r}", match.group(1))
    return float(figure)
