"""What benchmark tools print of a serving run, brought to one form."""

from perfmodel.benchmarks.reading import read_benchmarks
from perfmodel.benchmarks.result import Benchmark, Times

__all__ = ["Benchmark", "Times", "read_benchmarks"]
