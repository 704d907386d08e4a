"""Read acceptance counts from TensorRT-LLM's iteration statistics.

Fields: github.com/NVIDIA/TensorRT-LLM, ``specDecodingStats`` of the executor's iteration statistics, which
``trtllm-serve`` answers at /metrics and ``trtllm-bench --iteration_log`` writes, one object a line.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs.lines import Line, Row, counts_of_rows, damaged
from perfmodel.errors import SpecError, shown

__all__ = ["read_trtllm_iterations"]

_ITERATIONS = 40
"""Iterations of a window, as in SGLang's log: single ones are not independent."""


def read_trtllm_iterations(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return windows of 40 iterations; requests that generated without a draft are idle rounds.

    Copies of the figures under other ranks of attention data parallelism are left out.

    Raises
    ------
    SpecError : an object that is not whole, or figures that contradict each other.
    """
    iterations = []
    for line, iteration in _iterations(lines, file):
        figures = iteration.get("specDecodingStats") or iteration.get("spec_decoding_stats")
        if isinstance(figures, dict) and not iteration.get("attentionDpRank"):
            iterations.append(_counts(iteration, figures, line, file))
    rows: list[Row] = []
    idle = []
    for start in range(0, len(iterations), _ITERATIONS):
        rounds, drafted, accepted, without = np.sum(iterations[start : start + _ITERATIONS], axis=0)
        if rounds:
            rows.append((rounds, drafted, accepted, float(gamma or np.ceil(drafted / rounds)), []))
            idle.append(without)
    longest = max((row[3] for row in rows), default=1.0)
    counts = counts_of_rows("window", [(*row[:3], longest, []) for row in rows])
    return counts if np.any(np.isnan(idle)) else replace(counts, idle=np.array(idle))


def _counts(
    iteration: dict[str, Any], figures: dict[str, Any], line: Line, file: str
) -> tuple[float, float, float, float]:
    """Return rounds, drafted, accepted, and rounds without a draft (NaN where not told) of one iteration."""
    values = []
    for key in ("numRequestsWithDraftTokens", "numDraftTokens", "numAcceptedTokens"):
        value = figures.get(key)
        if type(value) is not int or not 0 <= value < 10**12:
            raise damaged(file, line, f"found {shown(value)}", f"specDecodingStats.{key}")
        values.append(float(value))
    rounds, drafted, accepted = values
    if accepted > drafted or (drafted and not rounds):
        problem = f"{accepted:g} accepted of {drafted:g} drafted in {rounds:g} requests"
        raise damaged(file, line, problem, "specDecodingStats")
    batching = iteration.get("inflightBatchingStats")
    running = batching.get("numGenRequests") if isinstance(batching, dict) else None
    if isinstance(running, int) and not 0 <= running < 10**12:
        raise damaged(file, line, f"found {shown(running)}", "inflightBatchingStats.numGenRequests")
    idle = max(running - rounds, 0.0) if isinstance(running, int) else float("nan")
    return rounds, drafted, accepted, idle


def _iterations(lines: list[Line], file: str) -> Iterator[tuple[Line, dict[str, Any]]]:
    """Yield the objects of a file: one a line, as JSON or as Python prints them, or one JSON list of them."""
    whole = [line for line in lines if line.text.strip() not in ("[", "]")]
    single = [line.text.strip().rstrip(",") for line in whole]
    if all(text.startswith("{") and text.endswith("}") for text in single):
        for line, text in zip(whole, single, strict=True):
            yield line, _object(text, line, file)
        return
    if lines[0].text.lstrip()[0] in "[{":
        try:
            document = json.loads("\n".join(line.text for line in lines))
        except (ValueError, RecursionError) as error:
            number = getattr(error, "lineno", 1) + lines[0].number - 1
            remedy = "Give the whole answer of /metrics"
            raise SpecError.single(file, "", "not valid JSON", remedy, line=number) from error
        for iteration in document if isinstance(document, list) else [document]:
            if isinstance(iteration, dict):
                yield lines[0], iteration
        return
    for line in lines:
        if "specDecodingStats" in line.text and "{" in line.text:
            yield line, _object("{" + line.text.partition("{")[2], line, file)


def _object(text: str, line: Line, file: str) -> dict[str, Any]:
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            return value
    raise damaged(file, line, "the statistics of the iteration are not whole")
