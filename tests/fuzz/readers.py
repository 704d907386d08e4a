"""The readers of every kind of file: in the library, on the command line, and what of them is sound."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fuzz.judge import finite, sound_json
from fuzz.plan_laws import problem_of_plan
from perfmodel.acceptance.file import read_acceptance
from perfmodel.acceptance.logs import read_logs
from perfmodel.benchmarks.reading import read_benchmarks
from perfmodel.engine import EngineOverhead
from perfmodel.evidence.machine.points import read_points
from perfmodel.evidence.published.measurements import read_file
from perfmodel.evidence.published.validate import limits_of
from perfmodel.files.document import read_yaml
from perfmodel.files.quantity import Grid, figures_of
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.cases import price_file
from perfmodel.planning.plan import read_plan
from perfmodel.policy import SpeculationPolicy
from perfmodel.traffic.trace import read_trace

__all__ = ["READERS", "Reader"]

ON = ("--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--tp", "8", "--engine", "ideal")
CELL = (
    *ON, "--context", "8k", "-b", "16", "--strategy", "streaming_llm", "--draft-budget", "512", "--gamma",
    "0:3:1",
)  # fmt: skip


class Reader(NamedTuple):
    """One kind of file.

    Attributes
    ----------
    ending : of the file's name.
    read : reads a file by the library.
    sound : what is nonsense about what was read, empty where nothing is.
    ask : the command line that reads it.
    answer : what is nonsense about what that prints.
    places : words that say where, beside the file's own name.
    asked : share of its inputs that are read by the command; the library alone is ten times as fast.
    """

    ending: str
    read: Callable[[str], Any]
    sound: Callable[[Any], str]
    ask: Callable[[str], Sequence[str]]
    answer: Callable[[str], str] = sound_json
    places: tuple[str, ...] = ("--",)
    asked: float = 0.1


def _sound_plan(value: tuple[Any, str]) -> str:
    return problem_of_plan(value[1])


def _read_plan(path: str) -> tuple[Any, str]:
    plan = read_plan(path)
    policy = SpeculationPolicy.load(path)
    for batch, context in ((1, 1), (16, 8000), (10**6, 10**8)):
        assert 0 <= policy.decide(batch, context).gamma <= policy.max_gamma
    with open(path, encoding="utf-8-sig") as stream:
        return plan, stream.read()


def _sound_acceptance(entries: Any) -> str:
    for entry in entries:
        survival = np.asarray(entry.survival, dtype=float)
        if survival.size and (survival.size != entry.gamma or np.any(np.diff(survival, prepend=1.0) > 1e-9)):
            return f"survival {survival.tolist()} at gamma {entry.gamma}"
        numbers = [entry.alpha, entry.alpha1, entry.alpha2]
        if not all(0.0 <= number <= 1.0 for number in numbers):
            return f"rates {numbers}"
    return ""


def _sound_counts(logs: Any) -> str:
    for counts in logs:
        columns = (counts.rounds, counts.drafted, counts.accepted, counts.gamma)
        if not all(
            np.all(np.isfinite(column)) and np.all((column >= 0) & (column < 1e18)) for column in columns
        ):
            return "a count that cannot be"
        if np.any(counts.accepted > counts.drafted + 1e-6):
            return "more accepted than drafted"
        if np.any(counts.drafted > 1.03 * counts.rounds * counts.gamma + 64.0):
            return "more drafted than rounds of the longest draft"
        if np.any(counts.gamma > 1000):
            return f"drafts of {counts.gamma.max():g} tokens"
        if counts.reached is not None:
            reached = counts.reached.sum(axis=0)
            slack = 0.02 * counts.rounds.sum() + 1.0  # rates are printed in three digits
            if np.any(np.diff(reached, prepend=counts.rounds.sum()) > slack):
                return f"later positions are accepted more often: {reached.tolist()}"
    return ""


def _sound_fit(text: str) -> str:
    body = json.loads(text)
    problem = finite(body)
    for entry in body.get("measured", [body]):
        survival = [1.0, *entry.get("survival", [])]
        if any(later > earlier + 0.02 for earlier, later in pairwise(survival)):
            return f"survival {survival}"
    return problem


def _sound_times(values: Any) -> str:
    names = ("target", "draft", "verify", "round", "tokens_per_round")
    for value in values:
        numbers = [float(getattr(value, name)) for name in names if getattr(value, name, None) is not None]
        if any(number <= 0.0 or number > 3600.0 for number in numbers if not np.isnan(number)):
            return f"times {numbers}"
        if any(number < 1e-7 for number in (float(value.target), float(value.round)) if not np.isnan(number)):
            return f"a step of {value.target} s, a round of {value.round} s"
    return ""


def _sound_machine(points: Any) -> str:
    for point in points:
        if not 1e-9 <= point.seconds <= 3600.0:
            return f"{point.seconds} s"
        counts = (
            "tokens", "n", "k", "batch", "query_tokens", "kv_tokens", "heads", "kv_heads", "head_dim",
            "layers",
        )  # fmt: skip
        for name in counts:
            number = getattr(point, name, None)
            if number is not None and not 1 <= number < 1e16:
                return f"{point.kind}: {name} {number}"
    return ""


def _sound_limits(limits: Any) -> str:
    for limit in limits:
        least, most = limit.at_least, limit.at_most
        if (
            (least != -np.inf and not 0.0 <= least < 1e6)
            or (most != np.inf and not 0.0 <= most < 1e6)
            or least > most
        ):
            return f"bounds {least} to {most}"
    return ""


def _sound_rows(text: str) -> str:
    for row in csv.DictReader(io.StringIO(text)):
        if row.get("error") or row.get("unknown") or not row.get("speedup"):
            continue
        speedup, gamma = float(row["speedup"]), float(row["gamma"] or 0)
        if not 0.0 < speedup <= gamma + 1.0 + 1e-9:
            return f"speedup {speedup} at gamma {gamma}"
    return ""


def _sound_trace(trace: Any) -> str:
    if (
        not np.all(np.isfinite(trace.arrival))
        or np.any(np.diff(trace.arrival) < 0.0)
        or trace.arrival[0] != 0.0
    ):
        return "arrivals"
    if trace.arrival[-1] > 30 * 365.25 * 86400:
        return f"a trace of {trace.arrival[-1]} s"
    return "" if min(trace.prompt_tokens.min(), trace.output_tokens.min()) >= 1 else "lengths"


def _sound_benchmarks(benchmarks: Any) -> str:
    for run in benchmarks:
        numbers = {
            "duration": run.duration,
            "throughput": run.output_throughput,
            "concurrency": run.concurrency,
        }
        for name in ("ttft", "tpot", "itl", "latency"):
            times = getattr(run, name)
            numbers |= {
                f"{name}.{key}": getattr(times, key) for key in ("mean", "median", "p90", "p95", "p99")
            }
            ladder = [value for value in (times.median, times.p90, times.p95, times.p99) if value is not None]
            if any(high < low * (1.0 - 1e-6) for low, high in pairwise(ladder)):
                return f"{name}: percentiles {ladder}"
        wrong = [name for name, number in numbers.items() if number is not None and not 0.0 <= number < 1e9]
        if wrong or not 0 <= run.requests < 1e12 or not run.output_tokens >= 0.0:
            return f"{wrong} of {run}"[:300]
        if problem := _sound_counts([run.drafts]) if run.drafts is not None else "":
            return problem
    return ""


def _sound_figures(noun: Any) -> str:
    for path, declared, value in figures_of(noun):
        numbers = value.seconds if isinstance(value, Grid) else np.asarray(value)
        if not np.all(np.isfinite(numbers) & (numbers >= declared.least) & (numbers <= declared.most)):
            return f"{path}: {numbers}"
    return ""


def _sound_model(model: Any) -> str:
    weights, cache = float(model.weight_bytes), float(model.kv_bytes(1000))
    return (
        ""
        if 0.0 < weights < 1e14 and 0.0 <= cache < 1e12
        else f"{weights} bytes of weights, {cache} of cache"
    )


def _read_points(path: str) -> Any:
    return read_file(path)


def _price(path: str) -> Any:
    return price_file(path).to_csv()


def _log(path: str) -> Any:
    return [read_logs([path], "auto", None)]


def _config(path: str) -> Any:
    return read_yaml(path)


def _nothing(_: Any) -> str:
    return ""


def _of(reader: Reader, *kinds: str) -> dict[str, Reader]:
    return dict.fromkeys(kinds, reader)


LOG = Reader(".log", _log, _sound_counts, lambda file: ("acceptance", "fit", file, "--json"), _sound_fit)
TRACE = Reader(
    ".csv",
    read_trace,
    _sound_trace,
    lambda file: ("simulate", file, *ON, "--policy", "none", "--requests", "5", "--format", "json"),
)
BENCHMARK = Reader(
    ".json",
    read_benchmarks,
    _sound_benchmarks,
    lambda file: ("acceptance", "fit", file, "--json"),
    _sound_fit,
)

READERS: dict[str, Reader] = {
    "plan": Reader(
        ".json",
        _read_plan,
        _sound_plan,
        lambda file: ("export", file, "--engine", "neutral"),
        _nothing,
        ("--",),
    ),
    "acceptance": Reader(
        ".json",
        read_acceptance,
        _sound_acceptance,
        lambda file: ("plan", *CELL, "--acceptance", file, "--format", "json"),
    ),
    "cases": Reader(".csv", _price, _sound_rows, lambda file: ("price", file), _sound_rows),
    "points": Reader(
        ".csv", _read_points, _sound_times, lambda file: ("calibrate", file, "--format", "json"), asked=0.01
    ),
    "machine": Reader(
        ".csv", read_points, _sound_machine, lambda file: ("calibrate", file, "--format", "json"), asked=0.05
    ),
    "limits": Reader(
        ".csv",
        limits_of,
        _sound_limits,
        lambda file: ("validate", "--limits", file, "--format", "json"),
        _nothing,
        asked=0.02,
    ),
    "config": Reader(
        ".yaml", _config, _nothing, lambda file: ("plan", "--config", file, "--format", "json"),
        sound_json, (), 0.2,
    ),
    **_of(TRACE, "trace-azure", "trace-plain"),
    "trace-mooncake": TRACE._replace(ending=".jsonl"),
    **_of(
        LOG, "log-vllm", "log-vllm-metrics", "log-vllm-response", "log-sglang", "log-sglang-response",
        "log-llamacpp-server", "log-llamacpp-statistics", "log-llamacpp-example", "log-llamacpp-response",
        "log-rounds",
    ),
    **_of(BENCHMARK, "benchmark-vllm", "benchmark-sglang"),
    "benchmark-block": BENCHMARK._replace(ending=".txt"),
    "hardware": Reader(
        ".yaml",
        HardwareProfile.load,
        _sound_figures,
        lambda file: ("hardware", "show", file, "--format", "json"),
        sound_json,
    ),
    "engine": Reader(
        ".yaml",
        EngineOverhead.load,
        _sound_figures,
        lambda file: ("engines", "show", file, "--format", "json"),
    ),
    "model": Reader(
        ".json", ModelSpec.load, _sound_model, lambda file: ("models", "show", file, "--format", "json")
    ),
}
