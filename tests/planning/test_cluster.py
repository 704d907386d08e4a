"""A real Dask cluster on loopback: whatever is killed, nothing done is lost and the output is the same."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perfmodel.hardware import HardwareProfile

ROOT = Path(__file__).parents[2]

NO_DASK = importlib.util.find_spec("distributed") is None
pytestmark = [pytest.mark.slow, pytest.mark.skipif(NO_DASK, reason="dask.distributed is absent")]

SWEEP = [
    "sweep", "--model", "llama-3.1-8b", "--hardware", ",".join(HardwareProfile.available()),
    "--tp", "1,2,4,8", "--engine", "ideal", "--context", "1k:20k:1k", "-b", "1:20:1",
    "--strategy", "streaming_llm", "--gamma", "1:2:1", "--draft-budget", "512,1024",
]  # fmt: skip
PIECES = 4 * len(HardwareProfile.available())
IN_PIECES = """
import sys
from perfmodel.cli import main
from perfmodel.planning.sweep import Sweep

Sweep.__init__.__defaults__ = (2000,)
sys.exit(main())
"""
"""The command whose pieces are those of one deployment: many, of which some are done when others are not."""


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


class Cluster:
    """A scheduler and two workers, each a process of its own without anyone to bring it back."""

    def __init__(self, folder, scheme="tcp", **settings):
        self.folder, self.settings = folder, settings
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"{scheme}://127.0.0.1:{free.getsockname()[1]}"
        port = self.address.rpartition(":")[2]
        self.scheduler = self._start(
            "scheduler", "--protocol", scheme, "--host", "127.0.0.1", "--port", port, "--no-dashboard"
        )
        self.workers = [self.worker() for _ in range(2)]
        self.wait_for_workers(2)

    def wait_for_workers(self, count):
        deadline = time.monotonic() + 60
        while self._log().count("Register worker") < count:
            assert time.monotonic() < deadline, self._log()
            time.sleep(0.05)

    def worker(self, **settings):
        quiet = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
        place = ("--local-directory", str(self.folder))
        return self._start("worker", self.address, *quiet, *place, **settings)

    def _start(self, *arguments, **settings):
        log = (self.folder / "cluster.log").open("a")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                env=environment(**self.settings, **settings),
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def _log(self):
        return (self.folder / "cluster.log").read_text()

    def close(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def command(output, executor=None):
    where = ["--executor", executor] if executor else []
    return [sys.executable, "-c", IN_PIECES, *SWEEP, "-o", str(output), *where]


def started(output, executor, **settings):
    return subprocess.Popen(
        command(output, executor),
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(output, executor=None, **settings):
    return subprocess.run(
        command(output, executor), env=environment(**settings), capture_output=True, text=True, timeout=180
    )


def pieces_done(folder, least, process):
    """Wait until so many pieces are reported done; returns their contents."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        found = {path.name: path.read_bytes() for path in folder.glob("*.parts-*/[0-9]*.npz")}
        if len(found) >= least:
            assert len(found) < PIECES, "too late to kill anything in the middle"
            return found
        time.sleep(0.002)
    raise AssertionError(f"no {least} pieces: {process.communicate()}")


def gone_on(stderr):
    return int(re.search(r"goes on after (\d+) of (\d+) pieces", stderr)[1])


def test_a_cluster_writes_what_one_process_writes_and_a_killed_worker_loses_nothing(cluster, tmp_path, whole):
    output = tmp_path / "out.npz"
    process = started(output, f"dask:{cluster.address}")
    pieces_done(tmp_path, 5, process)
    cluster.workers[0].send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert output.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_without_its_scheduler_a_command_ends_and_the_next_one_goes_on(cluster, tmp_path, whole):
    output = tmp_path / "out.npz"
    process = started(output, f"dask:{cluster.address}")
    done = pieces_done(tmp_path, 5, process)
    cluster.scheduler.kill()
    _, stderr = process.communicate(timeout=90)
    assert process.returncode == 2, stderr
    assert "was lost" in stderr
    assert "the same command goes on" in stderr
    assert "Traceback" not in stderr
    for name, content in done.items():
        assert next(tmp_path.glob(f"*.parts-*/{name}")).read_bytes() == content
    again = finished(output, "local:2")
    assert again.returncode == 0, again.stderr
    assert gone_on(again.stderr) >= len(done)
    assert output.read_bytes() == whole


def test_a_killed_command_is_gone_on_with_on_the_same_cluster(cluster, tmp_path, whole):
    output = tmp_path / "out.npz"
    process = started(output, f"dask:{cluster.address}")
    done = pieces_done(tmp_path, 5, process)
    process.kill()
    process.communicate()
    assert not output.exists()
    again = finished(output, f"dask:{cluster.address}")
    assert again.returncode == 0, again.stderr
    assert gone_on(again.stderr) >= len(done)
    assert output.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


SIMULATE = [
    "simulate", "--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--engine", "ideal",
    "--synthetic", "qps=3,prompt=8k,output=200,requests=400", "--speed", "0.7,1,1.3",
    "--strategy", "snapkv", "--draft-budget", "1024", "--policy", "none,fixed:1,fixed:2,schedule,adaptive",
]  # fmt: skip


def test_simulations_on_a_cluster_answer_the_same_though_a_worker_and_then_the_command_are_killed(
    cluster, tmp_path
):
    def simulate(name, *where):
        told = [sys.executable, "-m", "perfmodel", *SIMULATE, "-o", str(tmp_path / name), *where]
        return subprocess.Popen(told, env=environment(), stderr=subprocess.PIPE, text=True)

    here = simulate("here.json")
    _, stderr = here.communicate(timeout=120)
    assert here.returncode == 0, stderr
    there = simulate("there.json", "--executor", f"dask:{cluster.address}")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("there.json.parts-*/[0-9]*.npz")):
        assert there.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    cluster.workers[1].kill()
    while len(list(tmp_path.glob("there.json.parts-*/[0-9]*.npz"))) < 3:
        assert there.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    there.kill()
    there.communicate()
    again = simulate("there.json", "--executor", f"dask:{cluster.address}")
    _, stderr = again.communicate(timeout=120)
    assert again.returncode == 0, stderr
    assert int(re.search(r"goes on after (\d+) of 15 simulations", stderr)[1]) >= 3
    assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()


def test_a_scheduler_that_does_not_answer_is_named(tmp_path):
    ran = finished(tmp_path / "out.npz", "dask:tcp://127.0.0.1:9")
    assert ran.returncode == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in ran.stderr
    assert "Traceback" not in ran.stderr
