"""Clocks that time a piece of work honestly: processor time of a thread, or events on a GPU."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from perfmodel.errors import SpecError

__all__ = [
    "CudaClock", "Machine", "Stopwatch", "ThreadClock", "Work",
    "device_named", "machine_of", "one_thread", "repeats_for", "stopwatch_for",
]  # fmt: skip

Work = Callable[[], object]
_cuda: Any = torch.cuda
SHORTEST = 1e-3
"""A sample repeats shorter work until it takes about this long. [s]"""
MOST_REPEATS = 64


class Stopwatch(Protocol):
    """Times one piece of work: what runs on the device, and what the host does with its result."""

    def name_for(self, work: Work) -> str:
        """Return what it counts of work that is ready, for the column `clock`."""
        ...

    def ready(self, work: Work) -> Work:
        """Return the work in the form in which it is timed best; it has run once then."""
        ...

    def seconds(self, work: Work, repeats: int = 1, host: Work | None = None) -> float:
        """Return seconds of one run of the work and of the host's part, mean over `repeats` runs. [s]"""
        ...


class ThreadClock:
    """Processor time of this thread: what other jobs on a shared machine take is not counted.

    It counts one thread only, so torch must run on one; what neighbours take of the bandwidth still shows.
    """

    def name_for(self, work: Work) -> str:
        """Return ``thread``."""
        del work
        return "thread"

    def ready(self, work: Work) -> Work:
        """Return the work, run once."""
        work()
        return work

    def seconds(self, work: Work, repeats: int = 1, host: Work | None = None) -> float:
        """Return processor seconds of one run."""
        start = time.thread_time()
        for _ in range(repeats):
            work()
            if host is not None:
                host()
        return (time.thread_time() - start) / repeats


class CudaClock:
    """Events on the GPU around a CUDA graph, or around single launches where the work cannot be captured.

    In a graph the host's launches cost nothing, as in an engine that decodes with graphs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def name_for(self, work: Work) -> str:
        """Return ``cuda-graph`` for the replay of a graph, ``cuda`` for work launched piece by piece."""
        captured = isinstance(getattr(work, "__self__", None), torch.cuda.CUDAGraph)
        return "cuda-graph" if captured else "cuda"

    def ready(self, work: Work) -> Work:
        """Return a replay of the captured work; the work itself where it cannot be captured."""
        with torch.cuda.device(self.device):
            side: Any = _cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    work()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph):
                    work()
            except RuntimeError:
                torch.cuda.synchronize()
                return work
            graph.replay()
            torch.cuda.synchronize()
            return graph.replay

    def seconds(self, work: Work, repeats: int = 1, host: Work | None = None) -> float:
        """Return seconds of one run on the GPU; wall time with a host's part, for which the GPU waits."""
        with torch.cuda.device(self.device):
            if host is not None:
                torch.cuda.synchronize()
                begun = time.perf_counter()
                for _ in range(repeats):
                    work()
                    host()
                torch.cuda.synchronize()
                return (time.perf_counter() - begun) / repeats
            start, end = (_cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(repeats):
                work()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end)) * 1e-3 / repeats


def repeats_for(seconds: float) -> int:
    """Return how often work of that length is repeated within one sample."""
    return min(MOST_REPEATS, max(1, math.ceil(SHORTEST / max(seconds, 1e-9))))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread for a while, without gradients."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Machine:
    """What the times were taken on. memory, l2 [B]; sms are threads on a CPU."""

    device: str
    sms: int
    memory_bytes: float
    l2_bytes: float
    torch: str


def machine_of(device: torch.device) -> Machine:
    """Return what is known of a device."""
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        cache = float(getattr(card, "L2_cache_size", 0) or 40e6)
        memory = float(card.total_memory)
        return Machine(card.name, card.multi_processor_count, memory, cache, torch.__version__)
    return Machine(_read_processor(), 1, _read_memory(), _read_last_level_cache(), torch.__version__)


def stopwatch_for(device: torch.device) -> Stopwatch:
    """Return the clock for a device."""
    return CudaClock(device) if device.type == "cuda" else ThreadClock()


def device_named(name: str) -> torch.device:
    """Return the device `cpu`, `cuda` or `cuda:1`. Raises SpecError where there is none."""
    known = name == "cpu" or name.partition(":")[0] == "cuda"
    if not known:
        raise SpecError.single("request", "device", f"found {name!r}", "Use cpu, cuda or cuda:1")
    if name != "cpu" and not torch.cuda.is_available():
        raise SpecError.single("request", "device", "torch finds no CUDA device", "Use --device cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise SpecError.single("request", "device", f"there is no {name}", "Use --device cuda")
    except RuntimeError as error:
        raise SpecError.single("request", "device", f"found {name!r}", "Use cpu, cuda or cuda:1") from error
    return device


def _read_processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            named = [line.partition(":")[2].strip() for line in stream if line.startswith("model name")]
    except OSError:
        named = []
    return f"{named[0] if named else platform.processor() or platform.machine()}, one thread"


def _read_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return 8e9


def _read_last_level_cache() -> float:
    """Largest cache that Linux tells of, else 32 MB."""
    sizes = [32e6]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            sizes.append(float(file.read_text().strip().removesuffix("K")) * 1024.0)
    return max(sizes[1:] or sizes)
