"""Read the block "Serving Benchmark Result" that vLLM's and SGLang's benchmarks print.

Its lines say what the keys of the JSON results say (vllm/benchmarks/serve.py, sglang/bench_serving.py), so a
block becomes an object with those keys.
"""

from __future__ import annotations

import re
from typing import Any

from perfmodel.acceptance.logs.lines import Line
from perfmodel.files.records import Record

__all__ = ["blocks_of"]

_KEYS = {
    "Backend": "backend",
    "Successful requests": "completed",
    "Failed requests": "failed",
    "Traffic request rate": "request_rate",
    "Request rate configured (RPS)": "request_rate",
    "Burstiness factor": "burstiness",
    "Maximum request concurrency": "max_concurrency",
    "Max request concurrency": "max_concurrency",
    "Benchmark duration (s)": "duration",
    "Total input tokens": "total_input_tokens",
    "Total generated tokens": "total_output_tokens",
    "Total generated tokens (retokenized)": "total_output_tokens_retokenized",
    "Request throughput (req/s)": "request_throughput",
    "Output token throughput (tok/s)": "output_throughput",
    "Concurrency": "concurrency",
    "Accept length": "accept_length",
    "Drafts": "spec_decode_num_drafts",
    "Draft tokens": "spec_decode_draft_tokens",
    "Accepted tokens": "spec_decode_accepted_tokens",
}
_TIMES = {"TTFT": "ttft", "TPOT": "tpot", "ITL": "itl", "E2EL": "e2el", "E2E Latency": "e2e_latency"}
_NAMES = "|".join(re.escape(name) for name in sorted(_KEYS, key=len, reverse=True))
_ENTRY = re.compile(
    rf"(?<!\w)(?P<name>(?P<part>Mean|Median|P[0-9]+) (?P<time>{'|'.join(_TIMES)}) \(ms\)|"
    rf"Position [0-9]+|{_NAMES})"
    r":\s+(?P<figure>\S+)"
)
_RATES = "spec_decode_per_position_acceptance_rates"


def blocks_of(lines: list[Line], file: str) -> list[Record]:
    """Return an object for every block of a text, with what stands before it about arrivals and the model.

    Raises
    ------
    SpecError : a figure that is no number, where it is asked for.
    """
    records: list[Record] = []
    values: dict[str, Any] = {}
    places: dict[str, int] = {}
    inside = 0
    for line in lines:
        if "Serving Benchmark Result" in line.text:
            inside = line.number
        elif inside and re.search(r"={20,}\s*$", line.text):
            records.append(Record(file, values, "", inside, lines=places))
            values, places, inside = {}, {}, 0
        elif match := re.search(r"\bmodel(?:_id)?='([^']+)'", line.text):
            values.setdefault("model_id", match.group(1))
        elif entry := _entry(line.text):
            key, figure = entry
            if key == _RATES:
                values.setdefault(key, []).append(figure / 100.0 if isinstance(figure, float) else figure)
            else:
                values[key] = figure
            places.setdefault(key, line.number)
    if inside:
        records.append(Record(file, values, "", inside, lines=places))
    return records


def _entry(text: str) -> tuple[str, Any] | None:
    """Return the key and figure of a line such as ``Mean TTFT (ms):   173.46``; None for other lines."""
    match = _ENTRY.search(text)
    if match is None:
        return None
    name, figure = match.group("name"), match.group("figure")
    if match.group("part"):
        key = f"{match.group('part').lower()}_{_TIMES[match.group('time')]}_ms"
    else:
        key = _KEYS.get(name, _RATES)
    return key, None if figure in ("not", "None") else _figure(figure)


def _figure(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
