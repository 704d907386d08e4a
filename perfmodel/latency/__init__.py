"""Seconds of kernels and of forward passes."""

from perfmodel.latency.forward_pass import CAUSES, StepLatency, prefill_latency, step_latency
from perfmodel.latency.kernels import all_reduce, attention, linear

__all__ = ["CAUSES", "StepLatency", "all_reduce", "attention", "linear", "prefill_latency", "step_latency"]
