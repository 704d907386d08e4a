"""A benchmark is believed only if its figures can be of one run; damage ends in a refusal with its line."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_files import AIPERF, SGLANG, SGLANG_BLOCK, TRTLLM, VLLM, VLLM_BLOCK, guided

from perfmodel.benchmarks import read_benchmarks
from perfmodel.errors import SpecError

RESULTS: dict[str, dict[str, Any]] = {
    "vllm": VLLM,
    "sglang": {**SGLANG, "request_rate": "inf"},
    "aiperf": AIPERF,
    "trtllm": TRTLLM,
    "guidellm": {"benchmarks": [guided({"type_": "concurrent", "streams": 4})]},
}
BAD = (
    0, -1, 1e300, 1e18, float("nan"), float("inf"), 10**40, True, "\uff11", "1e999", None, [], {}, [1, "x"],
    0.5,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of all that is no mapping or list."""
    if not isinstance(value, (dict, list)):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [place for key, part in items for place in places(part, (*path, key))]


def changed(result: dict[str, Any], place: tuple[Any, ...], new: Any) -> dict[str, Any]:
    other = deepcopy(result)
    inside: Any = other
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = new
    return other


@pytest.mark.parametrize("tool", RESULTS)
def test_any_figure_that_is_damaged_gives_what_can_be_or_a_refusal(tool: str, tmp_path: Path) -> None:
    draw, file = random.Random(tool), tmp_path / "result.json"
    refused = 0
    for place in places(RESULTS[tool]):
        for new in draw.sample(BAD, 6):
            file.write_text(json.dumps(changed(RESULTS[tool], place, new), indent=1))
            try:
                runs = read_benchmarks(file)
            except SpecError as error:
                refused += 1
                lines = {(fault.file, fault.line is None) for fault in error.faults}
                assert lines == {(str(file), False)}
                continue
            for run in runs:
                assert run.why_impossible() == ("", "")
                assert run.requests >= 1 and np.isfinite(run.prompt_tokens) and np.isfinite(run.output_tokens)
                assert run.duration is None or 0.0 < run.duration < 1e9
                for times in (run.ttft, run.tpot, run.itl, run.latency):
                    assert list(times.quantiles.values()) == sorted(times.quantiles.values())
    assert refused > 10


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"p99_ttft_ms": 50.0}, "ttft: the p99 is 50 ms, below the median of 100 ms"),
        ({"median_tpot_ms": 25.0, "p99_tpot_ms": 30.0}, "tpot: the median is 25 ms beside a mean of 10 ms"),
        ({"mean_e2el_ms": 60.0}, "ttft: the mean is 120 ms, where the last token takes 60 ms"),
        ({"duration": 0.0}, "duration: found 0 s"),
        ({"output_throughput": 500.0}, "output_throughput: makes 1000 tokens of the run, 200 are told"),
        ({"p99_ttft_ms": 1e12, "mean_ttft_ms": 1e11}, "ttft: the mean is 1e+08 s"),
        ({"total_input_tokens": 4e9}, "tokens: found 1e+09"),
        ({"spec_decode_per_position_acceptance_rates": [0.3, 0.6, 0.1]}, "a later position is accepted more"),
        ({"spec_decode_draft_tokens": 3e6}, "drafted: 3000000 drafted tokens are more than 100 rounds of 3"),
        ({"itls": [["x"]], "ttfts": [0.1]}, "itls: holds what is no time"),
    ],
)
def test_figures_that_no_run_can_have_are_refused(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps({**VLLM, **change}))
    with pytest.raises(SpecError) as refused:
        read_benchmarks(file)
    assert complaint in str(refused.value)
    assert str(refused.value).startswith(f"{file}:1: ")


@pytest.mark.parametrize("block", [VLLM_BLOCK, SGLANG_BLOCK])
def test_a_damaged_block_never_ends_in_an_exception(block: str, tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    lines = block.splitlines()
    for place, line in enumerate(lines):
        for new in ("nan", "inf", "-1", "1e300", "\uff11", "1_0", "9" * 5000, "0"):
            head, colon, _ = line.partition(": ")
            file.write_text("\n".join([*lines[:place], f"{head}{colon}    {new}", *lines[place + 1 :]]))
            try:
                runs = read_benchmarks(file)
            except SpecError as error:
                files = {fault.file for fault in error.faults}
                assert files == {str(file)}
                continue
            assert all(run.why_impossible() == ("", "") for run in runs)
