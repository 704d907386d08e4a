"""Read acceptance counts from the periodic log line of vLLM."""

from __future__ import annotations

import re

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs.lines import NUMBER, Line, counts_of_rows, damaged
from perfmodel.errors import SpecError

__all__ = ["read_vllm_text"]


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
            problem = f"mean length {length:g} contradicts the rates per position, which sum to {total:.3f}"
            raise damaged(file, line, problem)
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
