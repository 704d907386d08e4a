"""How fast a sweep becomes a file: `make bench` measures it, pricing included, on one core."""

from __future__ import annotations

import time

import pytest

import strategies
from perfmodel import Drafter, EngineOverhead, HardwareProfile, ModelSpec, Workload
from perfmodel.deployment import Deployment
from perfmodel.planning.price import SearchSpace
from perfmodel.planning.sweep import Sweep, sweep_to_file

BUDGETS = tuple(128.0 * 2**power for power in range(8))
GRID = Sweep(
    [Deployment(HardwareProfile.load("h100-sxm-80gb"), ModelSpec.load("llama-3.1-8b"),
                EngineOverhead.load("magicdec-h100"))],
    Workload(range(1, 65), range(1024, 1024 * 33, 1024)),
    SearchSpace([None, *(Drafter(strategies.load(name)) for name in ("streaming_llm", "snapkv"))],
                range(1, 17), BUDGETS),
)  # fmt: skip


@pytest.mark.bench
@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "npz", "parquet"])
def test_a_sweep_is_written(benchmark, ending, tmp_path):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
        pytest.importorskip("thrift")
    path = tmp_path / f"all.{ending}"
    benchmark.pedantic(sweep_to_file, args=(GRID, path), rounds=3, warmup_rounds=1)
    benchmark.extra_info["rows_per_second"] = GRID.size / benchmark.stats.stats.min
    assert path.stat().st_size > GRID.size
