"""Read acceptance counts from the responses of serving engines and from exported acceptance histograms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from perfmodel.acceptance.counts import MOST_GAMMA, AcceptanceCounts, counts_of_histograms, counts_of_rounds
from perfmodel.acceptance.logs.lines import Line
from perfmodel.errors import SpecError

__all__ = ["read_responses"]

_DEEPEST = 40
_ASK_GAMMA = "Give the tokens drafted per round beside it: --gamma N"
_KEYS = ("acceptance_histogram", "spec_verify_ct", "draft_n", "total_draft_tokens")
_SIGNATURE = re.compile(rf'"({"|".join(_KEYS)})"\s*:')


class _Record(NamedTuple):
    """One request: its rounds, tokens, longest draft; a histogram or its single rounds if written."""

    rounds: float
    drafted: float
    accepted: float
    gamma: float
    histogram: list[int]
    steps: tuple[list[int], list[int]] | None


def read_responses(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return one row per response that carries speculation figures.

    Understood are vLLM's and TensorRT-LLM's ``speculative_decoding``, the same histogram as AIPerf exports it
    (``SpecDecodeAcceptanceRecord``), SGLang's ``meta_info`` (``spec_verify_ct`` and its neighbours, in the
    spellings of 2025 and 2026), and llama.cpp's ``timings`` (``draft_n``).

    Raises
    ------
    SpecError : text that is not JSON, figures that contradict each other (both with the line), or none at
        all.
    """
    records: list[_Record] = []
    for number, figures in _figures(lines, file):
        if (record := _record(figures, file, number, gamma)) is not None:
            records.append(record)
    if not records:
        raise SpecError.single(
            file,
            "",
            "no response carries speculation figures",
            "vLLM: --per-request-spec-decode-metrics summary; SGLang: read meta_info; llama.cpp: timings",
        )
    if all(record.steps for record in records):
        steps = [record.steps for record in records if record.steps]
        names = [str(place) for place, (drafted, _) in enumerate(steps) for _ in drafted]
        return counts_of_rounds(
            names,
            np.array([count for drafted, _ in steps for count in drafted], dtype=np.float64),
            np.array([count for _, accepted in steps for count in accepted], dtype=np.float64),
        )
    columns = zip(*(record[:4] for record in records), strict=True)
    rounds, drafted, accepted, longest = (np.array(column, dtype=np.float64) for column in columns)
    if all(record.histogram for record in records):
        return counts_of_histograms([record.histogram for record in records], drafted)
    if not longest.all():
        longest = np.full(longest.size, max(float(np.max(np.ceil(drafted / rounds - 1e-9))), 1.0))
    return AcceptanceCounts(
        unit="request",
        rounds=rounds,
        drafted=drafted,
        accepted=accepted,
        gamma=longest,
        requests=float(len(records)),
        remarks=("the responses tell totals only, so one rate is fitted to the tokens per round",),
    )


def _figures(lines: list[Line], file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object that looks like speculation figures with the line of its first telling key."""
    bodies = [Line(line.number, line.text.strip().removeprefix("data:").strip()) for line in lines]
    bodies = [line for line in bodies if line.text != "[DONE]"]
    single = [line for line in bodies if line.text.startswith("{") and line.text.endswith("}")]
    if len(single) == len(bodies):
        for line in bodies:
            for figures in _inside(_parsed(line.text, file, line.number), file, line.number):
                yield line.number, figures
        return
    text = "\n".join(line.text for line in lines)
    numbers = [lines[text.count("\n", 0, match.start())].number for match in _SIGNATURE.finditer(text)]
    document = _parsed(text, file, lines[0].number)
    for place, figures in enumerate(_inside(document, file, lines[0].number)):
        yield numbers[min(place, len(numbers) - 1)], figures


def _parsed(text: str, file: str, first: int) -> Any:
    def refuse(word: str) -> NoReturn:
        raise ValueError(f"found {word}")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        line = first + error.lineno - 1
        raise SpecError.single(
            file, "", f"not valid JSON: {error.msg}", "Give whole responses", line=line
        ) from error
    except (ValueError, RecursionError) as error:
        raise SpecError.single(file, "", f"not valid JSON: {str(error)[:80]}", line=first) from error


def _inside(value: Any, file: str, line: int, depth: int = 0) -> Iterator[dict[str, Any]]:
    if depth > _DEEPEST:
        raise SpecError.single(file, "", f"nested deeper than {_DEEPEST}", line=line)
    if isinstance(value, dict):
        if any(key in value for key in _KEYS):
            yield value
        else:
            for part in value.values():
                yield from _inside(part, file, line, depth + 1)
    elif isinstance(value, list):
        for part in value:
            yield from _inside(part, file, line, depth + 1)


def _record(figures: dict[str, Any], file: str, line: int, gamma: int | None) -> _Record | None:
    def refusal(field: str, problem: str, remedy: str = "") -> SpecError:
        return SpecError.single(file, field, problem, remedy, line=line)

    def whole(field: str, value: Any) -> int:
        if type(value) is not int or not 0 <= value < 10**12:
            raise refusal(field, f"found {str(value)[:40]!r}", "Give a whole number, 0 or more")
        return value

    def count(field: str) -> int:
        if field not in figures:
            raise refusal(field, "is missing beside the other speculation figures")
        return whole(field, figures[field])

    def series(field: str) -> list[int]:
        values = figures.get(field)
        if values is None:
            return []
        if not isinstance(values, list) or len(values) > 10**7:
            raise refusal(field, f"found {str(values)[:40]!r}", "Give a list of counts")
        return [whole(field, value) for value in values]

    def dense(field: str) -> list[int]:
        """A histogram that is a list already, or a mapping of accepted tokens to rounds."""
        rounds = figures[field]
        if isinstance(rounds, list):
            return series(field)
        if not isinstance(rounds, dict) or not all(
            key.isascii() and key.isdigit() and len(key) < 4 for key in rounds
        ):
            raise refusal(field, f"found {str(rounds)[:40]!r}", "Give a list of counts")
        listed = [0] * (max((int(key) for key in rounds), default=0) + 1)
        for key, value in rounds.items():
            listed[int(key)] = whole(field, value)
        return listed

    def agree(holds: bool, field: str, problem: str) -> None:
        if not holds:
            raise refusal(field, problem, "Take the log again, or leave this response out")

    def fits(rounds: float, longest: float, field: str) -> None:
        """Refuse drafts longer than are believed, and more tokens than the rounds can draft."""
        agree(longest <= MOST_GAMMA, field, f"found {longest:g} a round, above {MOST_GAMMA}")
        holds = drafted <= 1.03 * rounds * longest + 1.0
        agree(holds, field, f"{drafted} drafted tokens are more than {rounds:g} rounds of {longest:g}")

    def first_of(*fields: str) -> str:
        return next((field for field in fields if field in figures), fields[0])

    def drafts_of(rounds: int, drafted: int) -> int:
        """Longest draft: given, else the least that makes the drafted tokens."""
        return gamma or -(-drafted // max(rounds, 1))

    if "draft_n" in figures:
        drafted, accepted = count("draft_n"), count("draft_n_accepted")
        agree(accepted <= drafted, "draft_n_accepted", f"{accepted} accepted of {drafted} drafted")
        agree(count("predicted_n") > 0 or not drafted, "predicted_n", f"found 0 beside {drafted} drafted")
        rounds = max(count("predicted_n") - accepted, 1)
        fits(rounds, gamma or -(-drafted // rounds), "draft_n")
        return _Record(rounds, drafted, accepted, float(gamma or 0), [], None) if drafted else None
    steps = None
    if "spec_verify_ct" in figures:
        rounds = count("spec_verify_ct")
        kept_name = first_of("spec_num_correct_drafts", "spec_accept_token_num")
        sent_name = first_of("spec_num_proposed_drafts", "spec_draft_token_num")
        if kept_name in figures or sent_name in figures:
            accepted, drafted = count(kept_name), count(sent_name)
        elif gamma is None and rounds:
            problem = "this form, which SGLang wrote before October 2025, does not tell the drafts"
            raise refusal("spec_verify_ct", problem, _ASK_GAMMA)
        else:
            drafted = rounds * (gamma or 0)
            accepted = min(max(count("completion_tokens") - rounds, 0), drafted) if rounds else 0
        histogram = series(first_of("spec_correct_drafts_histogram", "spec_accept_histogram"))
        longest = drafts_of(rounds, drafted)
    else:
        accepted = count(first_of("num_accepted_draft_tokens", "total_accepted_draft_tokens"))
        drafted = count(first_of("num_draft_tokens", "total_draft_tokens"))
        if "acceptance_histogram" not in figures and "num_spec_steps" not in figures:
            if gamma is None:
                problem = "this form of TensorRT-LLM does not tell the rounds"
                raise refusal("total_draft_tokens", problem, _ASK_GAMMA)
            rounds_told = max(drafted / gamma, 1.0)
            agree(accepted <= drafted, "accepted", f"{accepted} accepted of {drafted} drafted")
            return _Record(rounds_told, drafted, accepted, float(gamma), [], None) if drafted else None
        rounds = count("num_spec_steps")
        histogram = dense("acceptance_histogram")
        given = figures.get("num_spec_tokens")
        least = max(len(histogram) - 1, -(-drafted // max(rounds, 1)))
        longest = gamma or (whole("num_spec_tokens", given) if given is not None else least)
        sent, kept = series("per_step_drafted"), series("per_step_accepted")
        possible = len(sent) == len(kept) and all(k <= d for d, k in zip(sent, kept, strict=False))
        agree(possible or not (sent and kept), "per_step_accepted", "contradicts per_step_drafted")
        whole_log = not (sent and kept) or (sum(sent), sum(kept)) == (drafted, accepted)
        agree(whole_log, "per_step_drafted", "contradicts the totals")
        steps = (sent, kept) if sent and kept else None
        agree(max(sent, default=0) <= MOST_GAMMA, "per_step_drafted", f"found more than {MOST_GAMMA} a round")
    if rounds:
        fits(rounds, max(longest, len(histogram) - 1), "drafted")
    agree(accepted <= drafted, "accepted", f"{accepted} accepted of {drafted} drafted")
    if histogram:
        counted = sum(histogram)
        agree(counted == rounds, "histogram", f"holds {counted} rounds where {rounds} are stated")
        total = sum(tokens * times for tokens, times in enumerate(histogram))
        agree(total == accepted, "histogram", f"does not give the {accepted} accepted")
        agree(not any(histogram[longest + 1 :]), "histogram", f"has rounds with more than {longest} accepted")
        histogram = (histogram + [0] * (longest + 1))[: longest + 1]
    if not (rounds and drafted):
        return None
    return _Record(rounds, drafted, accepted, float(longest), histogram, steps)
