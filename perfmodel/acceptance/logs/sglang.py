"""Read acceptance counts from the decode lines and the metrics text of SGLang."""

from __future__ import annotations

import re
from itertools import pairwise

from perfmodel.acceptance.counts import AcceptanceCounts, Unit
from perfmodel.acceptance.logs.lines import NUMBER, Line, Row, counts_of_rows, damaged
from perfmodel.acceptance.logs.meanings import ASK_GAMMA, drafted_per_round, readings
from perfmodel.acceptance.logs.samples import Scrape, increases, of_one_model, samples_of, scrapes_of
from perfmodel.errors import SpecError

__all__ = ["read_sglang_metrics", "read_sglang_text"]

_INTERVAL = 40.0
_ESTIMATED = "rounds are estimated: 40 per running request and line, the default of --decode-log-interval"


def read_sglang_text(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return one row per ``Decode batch`` line, 40 rounds (the log interval) per running request.

    Ranks of tensor parallelism that repeat the line of the first are left out.

    Raises
    ------
    SpecError : a line of that kind that is not whole, or a number of drafts that the lines do not tell.
    """
    printed: list[tuple[Line, float, str, str]] = []
    for line in _first_ranks(lines):
        running = re.search(r"#running-req: ([0-9]{1,9})\b", line.text)
        length = re.search(rf"\baccept len: {NUMBER},", line.text)
        rate = re.search(rf"\baccept rate: {NUMBER},", line.text)
        if not (running and length and "gen throughput" in line.text):
            raise damaged(
                file, line, "the line is not whole: requests, accept length or throughput is missing"
            )
        value, share = float(length.group(1)), float(rate.group(1)) if rate else float("nan")
        if not value >= 1.0 or (rate and not share <= value) or (gamma is not None and value > gamma + 1.0):
            raise damaged(file, line, f"found accept len {value:g}, accept rate {share:g}")
        printed.append((line, float(running.group(1)), length.group(1), rate.group(1) if rate else ""))
    drafts, remarks = _drafts([entry[2:] for entry in printed if entry[3]], file, gamma)
    rows: list[Row] = []
    for line, requests, text, _ in printed:
        accept_len = float(text)
        if accept_len > drafts + 1.0:
            raise damaged(
                file, line, f"accept len {accept_len:g} is more than {drafts:g} drafts and the bonus token"
            )
        rounds = _INTERVAL * requests
        rows.append((rounds, drafts * rounds, (accept_len - 1.0) * rounds, drafts, []))
    at = [entry[0] for entry in printed]
    return counts_of_rows("window", rows, remarks=(_ESTIMATED, *remarks), at=at, file=file)


def _drafts(printed: list[tuple[str, str]], file: str, gamma: int | None) -> tuple[float, tuple[str, ...]]:
    """Return the drafts per round, given or as the lines settle them, and what was taken for the rate."""
    if gamma is not None:
        return float(gamma), ()
    if not printed:
        problem = "the lines do not tell how many tokens are drafted per round (SGLang before October 2025)"
        raise SpecError.single(file, "gamma", problem, ASK_GAMMA)
    drafts = drafted_per_round(printed)
    if isinstance(drafts, str):
        raise SpecError.single(file, "gamma", drafts, ASK_GAMMA)
    (meaning, *_) = readings(printed)
    if meaning == "accepted over drafted":
        return float(drafts), ()
    remark = f"accept rate is read as {meaning}, which makes {drafts} drafts a round"
    if meaning == "tokens over draft tokens":
        remark += f"; builds of early October 2025 divide by draft steps: give --gamma {drafts + 1} there"
    return float(drafts), (remark,)


def _first_ranks(lines: list[Line]) -> list[Line]:
    """Return the decode lines, of each data-parallel rank those of its first tensor-parallel rank."""
    entries = []
    for line in lines:
        if "accept len:" in line.text and re.search(r"(?<!block )\baccept len:", line.text):
            ranks = dict(re.findall(r"\b(DP|TP)([0-9]{1,4})\b", line.text.partition("Decode batch")[0]))
            entries.append((line, ranks.get("DP", ""), int(ranks.get("TP", "0"))))
    first: dict[str, int] = {}
    for _, replica, rank in entries:
        first[replica] = min(rank, first.get(replica, rank))
    return [line for line, replica, rank in entries if rank == first[replica]]


_WANTED = "spec_|generation_tokens|num_requests|num_running_reqs"


def read_sglang_metrics(
    lines: list[Line], file: str, gamma: int | None, only: str | None = None
) -> AcceptanceCounts:
    """Return the counts of SGLang's metrics text, one row per scrape or window between two.

    Finished requests are counted (``spec_verify_calls_total`` and ``generation_tokens_total``) by releases of
    2026; else the gauges of the last log interval are taken, 40 rounds per running request.

    Raises
    ------
    SpecError : a damaged series, or a number of drafts that the gauges do not tell.
    """
    samples = list(samples_of(lines, file, "sglang:", _WANTED))
    samples = of_one_model([sample for sample in samples if not _of_buckets(sample.name)], file, only)
    scrapes = scrapes_of(samples)
    gauges = [_means(scrape) for scrape in scrapes]
    windows = [increases(before, after) for before, after in pairwise(scrapes)] or scrapes[:1]
    counted = [_sums(window) for window in windows]
    drafts, remarks = _gauged_drafts(gauges, file, gamma)
    rows: list[Row] = []
    for counts in counted:
        rounds = counts.get("spec_verify_calls", 0.0)
        tokens = counts.get("generation_tokens", 0.0) - counts.get("num_requests", 0.0)
        if rounds and tokens >= rounds:
            accepted = min(tokens - rounds, drafts * rounds)
            rows.append((rounds, drafts * rounds, accepted, drafts, []))
    if rows:
        unit: Unit = "window" if len(scrapes) > 1 else "total"
        return counts_of_rows(unit, rows, remarks=remarks, file=file)
    for gauge in gauges:
        length = gauge.get("spec_accept_length", 0.0)
        if length < 1.0:
            continue
        rounds = _INTERVAL * max(gauge.get("num_running_reqs", 1.0), 1.0)
        accepted = min(length - 1.0, drafts) * rounds
        rows.append((rounds, drafts * rounds, accepted, drafts, []))
    last = "gauges hold the last log interval only; the log has a line for every interval"
    return counts_of_rows("window", rows, remarks=(last, _ESTIMATED, *remarks), file=file)


def _gauged_drafts(
    gauges: list[dict[str, float]], file: str, gamma: int | None
) -> tuple[float, tuple[str, ...]]:
    for name, more in (("spec_num_draft_tokens", 1.0), ("spec_num_steps", 0.0)):
        values = [gauge[name] - more for gauge in gauges if gauge.get(name, 0.0) > more]
        if values and gamma is None:
            return float(round(max(values))), ()
    printed = [
        (_digits(gauge["spec_accept_length"]), _digits(gauge["spec_accept_rate"]))
        for gauge in gauges
        if {"spec_accept_length", "spec_accept_rate"} <= gauge.keys()
    ]
    return _drafts(printed, file, gamma)


def _digits(value: float) -> str:
    text = f"{value:.10g}"
    return text if len(text.partition(".")[2]) >= 2 else f"{value:.2f}"


def _of_buckets(name: str) -> bool:
    return name.endswith(("_bucket", "_sum", "_count"))


def _means(scrape: Scrape) -> dict[str, float]:
    """Return gauges, averaged over the ranks that report a value."""
    values: dict[str, list[float]] = {}
    for sample in scrape:
        values.setdefault(sample.name, []).extend(value for value in sample.values if value)
    return {name: sum(several) / len(several) for name, several in values.items() if several}


def _sums(scrape: Scrape) -> dict[str, float]:
    totals: dict[str, float] = {}
    for sample in scrape:
        if not sample.name.endswith("_created"):
            totals[sample.name] = totals.get(sample.name, 0.0) + sum(sample.values)
    return totals
