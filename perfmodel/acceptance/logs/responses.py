"""Read acceptance counts from the responses of serving engines and from exported acceptance histograms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from perfmodel.acceptance.counts import AcceptanceCounts, counts_of_histograms, counts_of_rounds
from perfmodel.acceptance.logs.lines import Line
from perfmodel.errors import SpecError

__all__ = ["read_responses"]

_DEEPEST = 40
_SIGNATURE = re.compile(r'"(acceptance_histogram|spec_verify_ct|draft_n)"\s*:')


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

    Understood are vLLM's ``metrics.speculative_decoding`` and the same histogram as benchmarks export it,
    SGLang's ``meta_info`` (``spec_verify_ct`` and its neighbours), and llama.cpp's ``timings`` (``draft_n``).

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
        if any(key in value for key in ("acceptance_histogram", "spec_verify_ct", "draft_n")):
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

    if "draft_n" in figures:
        drafted, accepted = count("draft_n"), count("draft_n_accepted")
        agree(accepted <= drafted, "draft_n_accepted", f"{accepted} accepted of {drafted} drafted")
        rounds = max(count("predicted_n") - accepted, 1)
        return _Record(rounds, drafted, accepted, float(gamma or 0), [], None) if drafted else None
    if "spec_verify_ct" in figures:
        rounds, accepted, drafted = (
            count(f"spec_{part}") for part in ("verify_ct", "num_correct_drafts", "num_proposed_drafts")
        )
        histogram, steps = series("spec_correct_drafts_histogram"), None
        longest = gamma or (round(drafted / rounds) if rounds else 0)
    else:
        rounds, accepted, drafted = (
            count(f"num_{part}") for part in ("spec_steps", "accepted_draft_tokens", "draft_tokens")
        )
        histogram = dense("acceptance_histogram")
        given = figures.get("num_spec_tokens")
        least = max(len(histogram) - 1, -(-drafted // max(rounds, 1)))
        longest = gamma or (whole("num_spec_tokens", given) if given is not None else least)
        sent, kept = series("per_step_drafted"), series("per_step_accepted")
        possible = len(sent) == len(kept) and all(k <= d for d, k in zip(sent, kept, strict=False))
        agree(possible, "per_step_accepted", "contradicts per_step_drafted")
        whole_log = not sent or (sum(sent), sum(kept)) == (drafted, accepted)
        agree(whole_log, "per_step_drafted", "contradicts the totals")
        steps = (sent, kept) if sent else None
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
