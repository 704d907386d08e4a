"""A Dask cluster that grows and shrinks as the work asks, and loses a worker: the answer is the same."""

import json
import os
import subprocess
import sys

import pytest

from tests.planning.test_cluster import NO_DASK, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NO_DASK, reason="dask.distributed is absent")]

ADAPTING = """
import json, sys
from distributed import Client, LocalCluster
from perfmodel.planning.executors import in_order, open_executor
from tests.planning.test_workers import Counted, added_unless_killed, who_read

if __name__ == "__main__":
    counted, seen = Counted(sys.argv[1]), []
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None) as cluster:
        cluster.adapt(minimum=1, maximum=3, interval="200ms", target_duration="50ms", wait_count=2)
        with Client(cluster) as client:
            client.wait_for_workers(1)
        with open_executor(f"dask:{cluster.scheduler_address}") as executor:
            done = []
            for result in in_order(executor, added_unless_killed, range(1500), common=counted):
                done.append(result)
                seen.append(len(cluster.scheduler_info["workers"]))
    totals, workers = zip(*done)
    print(json.dumps([totals == tuple(range(100, 1600)), sorted(set(workers)), who_read(counted), max(seen)]))
"""


def test_workers_come_and_go_and_each_reads_what_it_needs_once(tmp_path):
    (tmp_path / "adapting.py").write_text(ADAPTING)
    ran = subprocess.run(
        [sys.executable, "adapting.py", str(tmp_path / "log")], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    same, workers, readers, most = json.loads(ran.stdout.splitlines()[-1])
    assert same
    assert most >= 2, "it grew"
    assert len(workers) >= 2
    assert len(readers) == len(set(readers))
    assert set(map(str, workers)) <= set(readers)
