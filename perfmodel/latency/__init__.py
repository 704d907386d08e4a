"""Seconds of kernels and of forward passes."""

from perfmodel.latency.all_reduce import all_gather, all_reduce
from perfmodel.latency.attention import attention
from perfmodel.latency.distinct import Places, by_budget, distinct, spread
from perfmodel.latency.forward_pass import (
    CAUSES,
    StepLatency,
    least_eager_s,
    prefill_latency,
    price_pass,
    price_prefill,
    step_latency,
)
from perfmodel.latency.linear import linear
from perfmodel.latency.once import Once
from perfmodel.latency.recurrence import recurrence
from perfmodel.model import ForwardPass

__all__ = [
    "CAUSES", "ForwardPass", "Once", "Places", "StepLatency", "all_gather", "all_reduce", "attention",
    "by_budget", "distinct", "least_eager_s", "linear", "prefill_latency", "price_pass", "price_prefill",
    "recurrence", "spread", "step_latency",
]  # fmt: skip
