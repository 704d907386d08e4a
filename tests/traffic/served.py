"""Replicas, traces and schedules that the tests of traffic share."""

from functools import lru_cache

import numpy as np

import strategies
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.planner import plan
from perfmodel.speculation import Drafter
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.simulate import FollowPlan
from perfmodel.traffic.synthetic import synthetic_trace
from perfmodel.workload import Workload

H100 = HardwareProfile.load("h100-sxm-80gb")
LLAMA = ModelSpec.load("llama-3.1-8b")
ENGINE = EngineOverhead.load("ideal")
BUSY_ENGINE = ENGINE.with_values(
    {"forward": 1e-4, "layer": 1e-5, "row_layer": 1e-7, "round": 2e-3, "round_row": 5e-5}, source="test"
)
SNAP = Drafter(strategies.load("snapkv"))
SMALL = Drafter(strategies.load("full_kv"), ModelSpec.load("llama-3.2-1b"))
INF = float("inf")


def replica(drafter=None, *, kv_budget=None, target=LLAMA, hardware=H100, engine=ENGINE, **limits):
    own = 1024.0 if drafter is SNAP else np.inf
    settings = {"max_batch": 32, "max_gamma": 6} | limits
    deployment = Deployment(hardware, target, engine, settings.pop("tensor_parallel", 1))
    return Replica(deployment, drafter, own if kv_budget is None else kv_budget, **settings)


def tight(sequences, trace, drafter=None, **limits):
    """A replica whose cache holds about so many of the longest requests of a trace."""
    roomy = replica(drafter, **limits)
    wanted = sequences * float(roomy.kv_bytes(trace.longest + roomy.look_ahead, trace.output_tokens).max())
    capacity = float(np.asarray(H100.memory_capacity))
    share = float(np.asarray(ENGINE.memory_utilization)) - (roomy.cache_bytes - wanted) / capacity
    return replica(drafter, engine=ENGINE.with_values({"memory_utilization": share}, source="test"), **limits)


@lru_cache
def scheduled(gammas=(0, 1, 2, 3, 4), alpha=None, adaptive=False, batches=(1, 4, 16, 64), tp=1):
    answer = plan(
        H100,
        LLAMA,
        ENGINE,
        Workload(batches, (1000, 4000, 16000, 64000)),
        drafters=[SNAP],
        kv_budgets=[1024],
        gammas=gammas,
        tensor_parallel=tp,
        alpha=alpha,
        one_deployment=True,
        draws=0,
    )
    return FollowPlan(answer, adaptive)


def drawn(requests=40, qps=8.0, prompt=3000, output=40, **more):
    return synthetic_trace(requests=requests, qps=qps, prompt_tokens=prompt, output_tokens=output, **more)
