"""Read acceptance counts from what benchmark tools write about the drafts of a run.

Keys and lines: github.com/vllm-project/vllm, vllm/benchmarks/serve.py; github.com/sgl-project/sglang,
benchmark/serving.py; github.com/ai-dynamo/aiperf, docs/reference/json-export-schema.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from perfmodel.acceptance.counts import MOST_GAMMA, RISES, AcceptanceCounts, Unit, counts_of_histograms
from perfmodel.acceptance.logs.lines import Line, Row, count_in, counts_of_rows, damaged, number_of
from perfmodel.errors import SpecError
from perfmodel.files.records import Record, records_of

__all__ = [
    "drafts_of_aiperf", "drafts_of_server", "drafts_of_sglang", "drafts_of_vllm", "pooled",
    "read_benchmark_block", "read_benchmark_json",
]  # fmt: skip

_ASK_GAMMA = "Give the tokens drafted per round beside it: --gamma N (--speculative-num-steps)"


def drafts_of_vllm(record: Record, gamma: int | None = None) -> AcceptanceCounts | None:
    """Return what ``vllm bench serve --save-result`` counted while it ran; None where nothing was drafted.

    Keys are ``spec_decode_num_drafts``, ``_draft_tokens``, ``_accepted_tokens`` and
    ``_per_position_acceptance_rates``, the last one per round.

    Raises
    ------
    SpecError : counts that contradict each other.
    """
    if record.number("spec_decode_num_drafts") is None:
        return None
    rounds, drafted, accepted = (
        record.needed(f"spec_decode_{part}") for part in ("num_drafts", "draft_tokens", "accepted_tokens")
    )
    if not rounds:
        return None
    rates = record.numbers("spec_decode_per_position_acceptance_rates") or []
    if accepted > drafted:
        raise record.refusal("spec_decode_accepted_tokens", f"{accepted:g} accepted of {drafted:g} drafted")
    if any(late > early for early, late in pairwise([1.0, *rates])):
        raise record.refusal("spec_decode_per_position_acceptance_rates", RISES)
    reached = [round(rate * rounds, 6) for rate in rates]
    if reached and abs(sum(reached) - accepted) > 0.01 * accepted + 1.0:
        problem = f"the rates give {sum(reached):g} accepted tokens, {accepted:g} are stated"
        raise record.refusal("spec_decode_per_position_acceptance_rates", problem)
    longest = float(len(reached) or gamma or max(-(-drafted // rounds), 1.0))
    row: Row = (rounds, drafted, accepted, longest, reached)
    return _of_run(record, "spec_decode_num_drafts", row, record.number("completed"))


def drafts_of_sglang(record: Record, gamma: int | None = None) -> AcceptanceCounts | None:
    """Return what ``sglang.bench_serving`` says of drafts; None where it says nothing.

    ``accept_length`` is the server's mean since its start, with the bonus token; rounds are the tokens put
    out after the first of each request over it. Drafts per round stand in ``server_info``, else in ``gamma``.

    Raises
    ------
    SpecError : an accept length below 1, or drafts per round that are neither told nor given.
    """
    length = record.number("accept_length")
    if not length:
        return None
    if length < 1.0:
        raise record.refusal("accept_length", f"found {length:g}", "With the bonus token it is 1 or more")
    drafts = gamma or drafts_of_server(record)
    if not drafts:
        problem = "SGLang's benchmark does not tell the tokens drafted per round"
        raise record.refusal("accept_length", problem, _ASK_GAMMA)
    if length > drafts + 1.0:
        problem = f"found {length:g} tokens per round, where {drafts} are drafted"
        raise record.refusal("accept_length", problem, _ASK_GAMMA)
    requests = record.needed("completed")
    tokens = max(record.needed("total_output_tokens") - requests, 1.0)
    rounds = max(round(tokens / length), 1.0)
    row: Row = (rounds, drafts * rounds, (length - 1.0) * rounds, float(drafts), [])
    remark = "accept_length is the mean of the server since its start, not of this run alone"
    return _of_run(record, "accept_length", row, requests, (remark,))


def _of_run(
    record: Record, key: str, row: Row, requests: float | None, remarks: tuple[str, ...] = ()
) -> AcceptanceCounts:
    """Return the counts of one run; a refusal names the line of a key."""
    try:
        return counts_of_rows("total", [row], requests, remarks)
    except SpecError as refused:
        raise refused.located(record.file, record.line_of(key), key) from None


def drafts_of_server(record: Record) -> int:
    """Return the tokens drafted per round by the settings in ``server_info``, 0 where they are not told."""
    for key, more in (("speculative_num_draft_tokens", 1), ("speculative_num_steps", 0)):
        for place in ("server_info", "server_info.internal_states"):
            value = record.value(f"{place}.{key}")
            if isinstance(value, int) and value > more:
                return value - more
    return 0


def drafts_of_aiperf(record: Record, gamma: int | None = None) -> AcceptanceCounts | None:
    """Return the histogram that AIPerf pools over the requests of a run; None where it has none.

    Raises
    ------
    SpecError : a histogram that is none, or totals that contradict it.
    """
    histogram = record.value("pooled_spec_decode_acceptance_histogram")
    if histogram is None:
        return None
    name = "pooled_spec_decode_acceptance_histogram"
    if not isinstance(histogram, dict) or not all(
        count_in(key) is not None and len(key) < 4 and type(value) is int and 0 <= value < 10**12
        for key, value in histogram.items()
    ):
        raise record.refusal(name, "is no map of accepted tokens to rounds")
    longest = max([int(key) for key in histogram] + [gamma or 0])
    table = [int(histogram.get(str(depth), 0)) for depth in range(longest + 1)]
    rounds, accepted = sum(table), sum(depth * times for depth, times in enumerate(table))
    drafted = record.number("total_draft_tokens.avg")
    stated = record.number("total_accepted_draft_tokens.avg")
    if stated is not None and stated != accepted:
        raise record.refusal(name, f"gives {accepted} accepted tokens, {stated:g} are stated")
    if drafted is not None and drafted < accepted:
        raise record.refusal("total_draft_tokens", f"{accepted} accepted of {drafted:g} drafted")
    if drafted is None:
        if not gamma:
            raise record.refusal(name, "tells no drafted tokens", _ASK_GAMMA)
        drafted = float(gamma * rounds)
    if not (rounds and drafted):
        return None
    least = int(-(-drafted // rounds))
    if least > MOST_GAMMA:
        raise record.refusal("total_draft_tokens", f"{drafted:g} tokens in {rounds} rounds, {least} a round")
    table += [0] * (least + 1 - len(table))
    counts = counts_of_histograms([table], np.array([drafted]), unit="total")
    return replace(counts, requests=record.number("request_count.avg"))


_TOOLS: tuple[tuple[str, Callable[[Record, int | None], AcceptanceCounts | None]], ...] = (
    ("spec_decode_num_drafts", drafts_of_vllm),
    ("pooled_spec_decode_acceptance_histogram", drafts_of_aiperf),
    ("accept_length", drafts_of_sglang),
)


def read_benchmark_json(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return the drafts of the runs in a benchmark's result file, one row per run.

    Raises
    ------
    SpecError : text that is not JSON, counts that contradict each other, or no run with drafts.
    """
    parts = []
    for record in records_of(_text(lines), file):
        for key, drafts_of in _TOOLS:
            if key in record.values and (counts := drafts_of(record, gamma)) is not None:
                parts.append(counts)
                break
    if not parts:
        problem = "no run in this result drafted a token"
        raise SpecError.single(file, "", problem, "Let the engine draft first")
    return parts[0] if len(parts) == 1 else pooled(parts)


def _text(lines: list[Line]) -> str:
    """Return the lines with empty ones where they were, so that JSON tells the file's own line numbers."""
    rows = [""] * (lines[-1].number if lines else 0)
    for line in lines:
        rows[line.number - 1] += line.text
    return "\n".join(rows)


def pooled(parts: list[AcceptanceCounts]) -> AcceptanceCounts:
    """Return the rows of several counts as those of one, by position where all tell positions."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    def by_position(name: str) -> np.ndarray | None:
        tables = [getattr(part, name) for part in parts]
        if any(table is None for table in tables):
            return None
        longest = max(table.shape[1] for table in tables)
        return np.concatenate([np.pad(table, ((0, 0), (0, longest - table.shape[1]))) for table in tables])

    requests = [part.requests for part in parts if part.requests is not None]
    return AcceptanceCounts(
        unit="window",
        rounds=joined("rounds"),
        drafted=joined("drafted"),
        accepted=joined("accepted"),
        gamma=joined("gamma"),
        reached=by_position("reached"),
        tried=by_position("tried"),
        idle=None if any(part.idle is None for part in parts) else joined("idle"),
        requests=sum(requests) if len(requests) == len(parts) else None,
        remarks=tuple(dict.fromkeys(remark for part in parts for remark in part.remarks)),
    )


_ENTRY = re.compile(
    r"(?:^|\W)(Drafts|Draft tokens|Accepted tokens|Acceptance length[^:]*|Accept length): +(\S+)\s*$"
)
_POSITION = re.compile(r"(?:^|\W)Position ([0-9]+): +(\S+)\s*$")


def read_benchmark_block(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return the drafts in the block that a benchmark prints: vLLM's with counts, SGLang's with a length.

    Raises
    ------
    SpecError : a count that is none or missing, or a length without the drafts per round.
    """
    blocks: list[tuple[Line, dict[str, float], list[float]]] = []
    for line in lines:
        match = _ENTRY.search(line.text)
        if match:
            name = match.group(1).partition(" (")[0]
            if not blocks or (match.group(1) in blocks[-1][1]):
                blocks.append((line, {}, []))
            value = _figure(match.group(2), name, line, file)
            blocks[-1][1][match.group(1)] = blocks[-1][1][name] = value
        elif (match := _POSITION.search(line.text)) and blocks:
            blocks[-1][2].append(_figure(match.group(2), "Position", line, file) / 100.0)
    rows = [(block[0], _block(*block, file, gamma)) for block in blocks]
    drafted = [(line, row) for line, row in rows if row[0]]
    at = [line for line, _ in drafted]
    unit: Unit = "total" if len(rows) == 1 else "window"
    return counts_of_rows(unit, [row for _, row in drafted], at=at, file=file)


def _block(line: Line, values: dict[str, float], rates: list[float], file: str, gamma: int | None) -> Row:
    names = ("Drafts", "Draft tokens", "Accepted tokens")
    if not set(names) & set(values):
        problem = "SGLang's benchmark prints the accept length, not the tokens drafted per round"
        length = values.get("Accept length", values.get("Acceptance length", 0.0))
        if gamma is None:
            raise SpecError.single(file, "gamma", problem, _ASK_GAMMA, line=line.number)
        if not 1.0 <= length <= gamma + 1.0:
            raise damaged(file, line, f"{length:g} tokens per round where {gamma} are drafted")
        return 1.0, float(gamma), length - 1.0, float(gamma), []
    for name in names:
        if name not in values:
            raise damaged(file, line, "the block that begins here lacks the count", name)
    rounds, drafted, accepted = (values[name] for name in names)
    if accepted > drafted or (drafted and not rounds):
        raise damaged(file, line, f"{accepted:g} accepted of {drafted:g} drafted in {rounds:g} rounds")
    total = sum(rates)
    if rates and abs(total * rounds - accepted) > (1e-4 * rounds + 1.0) * len(rates):
        problem = f"{accepted:g} accepted, by position {total * rounds:.0f}"
        raise damaged(file, line, problem, "Per-position acceptance (%)")
    scale = accepted / total if total else 0.0
    longest = float(len(rates) or gamma or (max(-(-drafted // rounds), 1.0) if rounds else 1.0))
    return rounds, drafted, accepted, longest, [rate * scale for rate in rates]


def _figure(text: str, name: str, line: Line, file: str) -> float:
    value = number_of(text)
    if value is None or not 0.0 <= value < 1e15:
        raise damaged(file, line, f"found {text[:40]!r}", name)
    return value
