"""Read acceptance counts from the decode lines of SGLang."""

from __future__ import annotations

import re

import numpy as np

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs.lines import NUMBER, Line, Row, counts_of_rows, damaged
from perfmodel.errors import SpecError

__all__ = ["read_sglang_text"]


def read_sglang_text(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return one row per ``Decode batch`` line, 40 rounds (the log interval) per running request.

    Raises
    ------
    SpecError : a line of that kind that is not whole, or a number of drafts that the lines do not tell.
    """
    printed: list[tuple[Line, float, float, float]] = []
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
        printed.append((line, float(running.group(1)), *values))
    drafted = np.array([(length - 1.0) / rate for _, _, length, rate in printed if rate >= 0.05])
    likely = float(np.round(np.median(drafted))) if drafted.size else 0.0
    drafts = likely if gamma is None else float(gamma)
    if gamma is None and (drafts < 1.0 or abs(float(np.median(drafted)) - drafts) > 0.2):
        raise SpecError.single(
            file,
            "gamma",
            "the lines do not tell how many tokens are drafted per round",
            "Give gamma: --speculative-num-steps",
        )
    rows: list[Row] = []
    for line, requests, accept_len, _ in printed:
        if accept_len > drafts + 1.0:
            raise damaged(
                file, line, f"accept len {accept_len:g} is more than {drafts:g} drafts and the bonus token"
            )
        rounds = 40.0 * requests
        rows.append((rounds, drafts * rounds, (accept_len - 1.0) * rounds, drafts, []))
    remark = "rounds are estimated: 40 per running request and line, the default of --decode-log-interval"
    return counts_of_rows("window", rows, remarks=(remark,))
