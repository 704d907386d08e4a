"""Read acceptance counts from the counters of vLLM, llama.cpp and TensorRT-LLM in a metrics text.

Names and labels: docs.vllm.ai (design/metrics), github.com/ggml-org/llama.cpp (tools/server/README.md),
github.com/NVIDIA/TensorRT-LLM (tensorrt_llm/metrics).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress, pairwise

from perfmodel.acceptance.counts import MOST_GAMMA, RISES, AcceptanceCounts, Unit
from perfmodel.acceptance.logs.lines import Line, Row, count_in, counts_of_rows, damaged
from perfmodel.acceptance.logs.samples import Scrape, increases, of_one_model, samples_of, scrapes_of
from perfmodel.errors import SpecError

__all__ = ["prometheus_reader"]

Reader = Callable[[list[Line], str, "int | None", "str | None"], AcceptanceCounts]
_WANTED = r"spec_decode_num_|request_success"
_NO_ROUNDS = {
    "vllm:": "vLLM's engine V0 and V1 of releases 0.8.3 to 0.8.5 do",
    "trtllm_": "TensorRT-LLM does",
    "llamacpp:": "early releases of llama.cpp do",
}


def prometheus_reader(prefix: str) -> Reader:
    """Return the reader of an engine's counters, whose names begin with ``prefix``."""

    def read(lines: list[Line], file: str, gamma: int | None, only: str | None) -> AcceptanceCounts:
        """Return the counts of a metrics text, or of the windows between several scrapes in one file.

        Series of several engines in one scrape are added up; an engine whose counter falls was restarted.

        Raises
        ------
        SpecError : a damaged series, a scrape without its counters, counters that contradict each other,
            counters of several models, or a release that does not count the rounds where gamma is not given.
        """
        samples = of_one_model(list(samples_of(lines, file, prefix, _WANTED)), file, only)
        scrapes = scrapes_of(samples)
        for scrape in scrapes:
            _check_scrape(_totals(scrape, file), file, scrape[0].line, prefix, gamma)
        windows = [increases(before, after) for before, after in pairwise(scrapes)] or scrapes[:1]
        totals = [_totals(window, file) for window in windows]
        at = [scrape[0].line for scrape in scrapes[-len(windows) :]]
        requests = sum(total.get("request_success", 0.0) for total in totals) or None
        drafted = [total["spec_decode_num_draft_tokens"] > 0 for total in totals]
        rows = [_row(total, gamma) for total in compress(totals, drafted)]
        unit: Unit = "window" if len(scrapes) > 1 else "total"
        return counts_of_rows(unit, rows, requests, at=list(compress(at, drafted)), file=file)

    return read


def _totals(scrape: Scrape, file: str) -> dict[str, float]:
    """Return the counters of a scrape over all engines, those per position under their position."""
    totals: dict[str, float] = {}
    for sample in scrape:
        if sample.name.endswith("_created"):
            continue
        names = [sample.name]
        if sample.name == "spec_decode_num_accepted_tokens_per_pos":
            position = sample.labels.get("position", "")
            if (place := count_in(position)) is not None and place < MOST_GAMMA:
                names = [str(place)]
            elif sample.line.text.count("["):
                names = [str(place) for place in range(len(sample.values))]
            else:
                problem = f"a counter per position has no position below {MOST_GAMMA}: {position!r}"
                raise damaged(file, sample.line, problem)
        for name, value in zip(names, sample.values, strict=False):
            if value != int(value):
                raise damaged(file, sample.line, f"found {value:g}, not a count")
            totals[name] = totals.get(name, 0.0) + value
    return totals


def _check_scrape(
    totals: dict[str, float], file: str, line: Line, prefix: str, gamma: int | None
) -> None:
    for name in ("draft_tokens", "accepted_tokens"):
        if f"spec_decode_num_{name}" not in totals:
            raise damaged(
                file, line, "the scrape that begins here lacks the counter", f"spec_decode_num_{name}"
            )
    drafted, accepted = (totals[f"spec_decode_num_{name}"] for name in ("draft_tokens", "accepted_tokens"))
    rounds = totals.get("spec_decode_num_drafts")
    if rounds is None and gamma is None:
        problem = f"the rounds are not counted: {_NO_ROUNDS[prefix]} not tell them"
        remedy = "Give the tokens drafted per round beside it: --gamma N (num_speculative_tokens)"
        raise SpecError.single(file, "gamma", problem, remedy, line=line.number)
    reached = _positions(totals)
    if any(str(place) not in totals for place in range(len(reached))):
        problem = "a position is missing between 0 and the last"
        raise damaged(file, line, problem, "accepted_tokens_per_pos")
    if gamma is not None and reached and len(reached) != gamma:
        problem = f"{gamma} is given, the metrics have {len(reached)} positions"
        raise SpecError.single(file, "gamma", problem, "Leave it out")
    slack = 64.0 + 0.01 * accepted
    if accepted > drafted or (reached and abs(sum(reached) - accepted) > slack):
        problem = f"{accepted:g} accepted of {drafted:g} drafted, by position {sum(reached):g}"
        raise damaged(file, line, problem, "accepted_tokens")
    first = drafted if rounds is None else rounds
    if any(late > early + slack for early, late in zip([first, *reached], reached, strict=False)):
        raise damaged(file, line, RISES, "accepted_tokens_per_pos")


def _positions(totals: dict[str, float]) -> list[float]:
    return [totals[str(place)] for place in sorted(int(name) for name in totals if name.isdigit())]


def _row(totals: dict[str, float], gamma: int | None) -> Row:
    drafted, accepted = (totals[f"spec_decode_num_{name}"] for name in ("draft_tokens", "accepted_tokens"))
    reached = _positions(totals)
    rounds = totals.get("spec_decode_num_drafts") or drafted / float(gamma or len(reached) or 1)
    if "spec_decode_num_emitted_tokens" in totals:
        accepted = max(totals["spec_decode_num_emitted_tokens"] - rounds, 0.0)
    longest = float(len(reached) or gamma or max(-(-drafted // rounds), 1))
    return rounds, drafted, accepted, longest, reached
