"""Requests as they arrive: traces read from files in the public forms, and synthetic ones with a seed."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import Fault, SpecError, nearest_name

MAX_BYTES = 2**31
MOST_FAULTS = 20

ARRIVAL = ("arrival_s", "arrived_at", "timestamp", "arrival_time", "time")
PROMPT = ("prompt_tokens", "contexttokens", "input_length", "num_prefill_tokens", "input_tokens", "prompt_len")
OUTPUT = ("output_tokens", "generatedtokens", "output_length", "num_decode_tokens", "output_len")


@dataclass(frozen=True)
class Trace:
    """Requests in order of arrival; one element per request. [s], [tokens], [tokens]"""

    name: str
    arrival: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.arrival.size)

    def faster(self, factor: float) -> Trace:
        """The same requests arriving `factor` times as fast."""
        return Trace(self.name, self.arrival / factor, self.prompt_tokens, self.output_tokens)

    def first(self, count: int) -> Trace:
        """The first `count` requests."""
        return Trace(self.name, self.arrival[:count], self.prompt_tokens[:count], self.output_tokens[:count])


def read_trace(path: str | Path) -> Trace:
    """Read a CSV or JSONL trace: an arrival time, prompt tokens and output tokens per request, sorted by arrival.

    The columns of the Azure LLM inference traces (``TIMESTAMP, ContextTokens, GeneratedTokens``; date and time) and of
    the Mooncake traces (``timestamp`` in milliseconds, ``input_length``, ``output_length``) are known; plain ones are
    ``arrival_s, prompt_tokens, output_tokens``.

    Raises
    ------
    SpecError
        Naming file, line and value of every fault, at most 20 of them.
    """
    file = str(path)
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise SpecError.single(file, "file", "is larger than 2 GiB", "split it")
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as fault:
        raise SpecError.single(file, "file", f"cannot be read ({fault.strerror})", "check the path") from None
    except UnicodeDecodeError:
        raise SpecError.single(file, "file", "is not UTF-8 text", "give a CSV or JSONL trace") from None
    rows = list(_jsonl_rows(text, file) if text.lstrip().startswith("{") else _csv_rows(text, file))
    if not rows:
        raise SpecError.single(file, "file", "holds no requests", "give at least one row")
    return _trace(Path(path).stem, file, rows)


def synthetic_trace(
    *,
    requests: int,
    qps: float,
    prompt_tokens: float,
    output_tokens: float,
    spread: float = 0.5,
    burstiness: float = 1.0,
    seed: int = 0,
) -> Trace:
    """Requests with log-normal lengths and gamma-distributed gaps between arrivals.

    Parameters
    ----------
    qps : mean arrivals per second; infinite puts all requests at time 0. [1/s]
    prompt_tokens, output_tokens : means. [tokens]
    spread : standard deviation of the logarithm of both lengths; 0 makes all equal. [1]
    burstiness : squared coefficient of variation of the gaps; 1 is a Poisson process, 0 is evenly spaced. [1]
    """
    checks = {
        "requests": 1 <= requests <= 10_000_000,
        "qps": qps > 0,
        "prompt_tokens": prompt_tokens >= 1,
        "output_tokens": output_tokens >= 1,
        "spread": 0 <= spread <= 5,
        "burstiness": 0 <= burstiness <= 1e4,
    }
    wrong = [name for name, fine in checks.items() if not fine]
    if wrong:
        raise SpecError(Fault("synthetic trace", None, name, "is out of range") for name in wrong)
    random = np.random.default_rng(seed)

    def lengths(mean: float) -> NDArray[np.int64]:
        drawn = random.lognormal(math.log(mean) - spread**2 / 2.0, spread, requests) if spread else np.full(requests, mean)
        return np.maximum(np.rint(drawn), 1).astype(np.int64)

    gaps = np.full(requests, 1.0)
    if burstiness > 0:
        gaps = random.gamma(1.0 / burstiness, burstiness, requests)
    arrival = np.zeros(requests) if math.isinf(qps) else np.cumsum(gaps) / qps
    return Trace(f"synthetic, {qps:g} requests/s", arrival, lengths(prompt_tokens), lengths(output_tokens))


def _csv_rows(text: str, file: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text), restkey="")
    if not reader.fieldnames:
        raise SpecError.single(file, "header", "is missing", "name the columns in the first line", line=1)
    try:
        for row in reader:
            yield reader.line_num, {str(key).strip().lower(): value for key, value in row.items()}
    except csv.Error as fault:
        raise SpecError.single(file, "row", f"is not CSV ({fault})", line=reader.line_num) from None


def _jsonl_rows(text: str, file: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise SpecError.single(file, "row", "is not JSON", "one object per line", line=number) from None
        if not isinstance(row, dict):
            raise SpecError.single(file, "row", f"is a {type(row).__name__}", "one object per line", line=number)
        yield number, {str(key).strip().lower(): value for key, value in row.items()}


def _trace(name: str, file: str, rows: list[tuple[int, Mapping[str, Any]]]) -> Trace:
    keys = [_column(file, rows[0][1], known) for known in (ARRIVAL, PROMPT, OUTPUT)]
    scale = 1e-3 if keys[0] == "timestamp" and keys[1] == "input_length" else 1.0  # Mooncake counts milliseconds
    faults: list[Fault] = []
    values = np.zeros((len(rows), 3))
    for index, (line, row) in enumerate(rows):
        for place, (key, read) in enumerate(zip(keys, (_seconds, _tokens, _tokens), strict=True)):
            try:
                values[index, place] = read(row.get(key))
            except (TypeError, ValueError, OverflowError):
                faults.append(Fault(file, line, key, f"found {row.get(key)!r:.60}", read.__doc__ or ""))
        if len(faults) >= MOST_FAULTS:
            break
    if faults:
        raise SpecError(faults)
    order = np.argsort(values[:, 0], kind="stable")
    arrival = (values[order, 0] - values[:, 0].min()) * scale
    return Trace(name, arrival, values[order, 1].astype(np.int64), values[order, 2].astype(np.int64))


def _column(file: str, row: Mapping[str, Any], known: tuple[str, ...]) -> str:
    for key in known:
        if key in row:
            return key
    nearest = next((near for near in (nearest_name(key, known) for key in row) if near), None)
    raise SpecError.single(file, known[0], "no such column", f"name it one of {', '.join(known)}", nearest, line=1)


def _seconds(value: Any) -> float:
    """Give seconds, or a date and time."""
    if isinstance(value, bool) or value is None:
        raise ValueError(value)
    try:
        number = float(value)
    except ValueError:
        number = datetime.fromisoformat(str(value).strip()[:26].rstrip("Z")).timestamp()
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _tokens(value: Any) -> float:
    """Give a whole number of tokens from 1 to 100 million."""
    if isinstance(value, bool):
        raise ValueError(value)
    number = float(value)
    if not 1 <= number <= 1e8 or number != round(number):
        raise ValueError(value)
    return number
