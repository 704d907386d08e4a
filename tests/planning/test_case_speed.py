"""How fast tables of cases are priced: `make bench` measures it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from perfmodel.planning.cases import price_cases

HARDWARE = ("h100-sxm-80gb", "a100-sxm-80gb", "h200")
MODELS = ("llama-3.1-8b", "qwen3-8b", "llama-3.1-70b")
STRATEGIES = ("streaming_llm", "snapkv", "none", "eagle")


def table(rows: int, groups: int) -> bytes:
    """A table over the first so many hardware, models and strategies, at random sizes."""
    random = np.random.default_rng(5)
    lines = ["hardware,engine,tensor_parallel,target_model,strategy,kv_budget,context_len,batch_size,gamma"]
    for _ in range(rows):
        strategy = random.choice(STRATEGIES[: groups + 1 if groups > 1 else 1])
        gamma = 0 if strategy == "none" else random.integers(1, 9)
        sizes = [random.choice((256, 512, 1024)), random.integers(1, 128_000), random.integers(1, 513), gamma]
        names = [random.choice(HARDWARE[:groups]), "ideal", 8, random.choice(MODELS[:groups]), strategy]
        lines.append(",".join(map(str, names + sizes)))
    return "\n".join(lines).encode()


@pytest.mark.bench
@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("groups", [1, 3])
def test_a_hundred_thousand_cases_are_priced_and_written(benchmark, groups) -> None:
    rows = 100_000
    content = table(rows, groups)
    written = benchmark.pedantic(
        lambda: sum(map(len, price_cases(content).csv_blocks())), rounds=2, warmup_rounds=0
    )
    benchmark.extra_info["microseconds_per_row"] = benchmark.stats.stats.min / rows * 1e6
    assert written > 100 * rows
