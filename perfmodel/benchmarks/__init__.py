"""What benchmark tools print of a serving run, brought to one form."""

from perfmodel.benchmarks.result import Benchmark, Times

__all__ = ["Benchmark", "Times"]
