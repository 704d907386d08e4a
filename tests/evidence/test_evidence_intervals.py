"""Intervals of the engine that saw no table, held against every published round of self- and small drafts."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.evidence.published import measurements
from perfmodel.planning.uncertainty import draw, interval, price_draws

GENERIC = EngineOverhead.load("generic")


@pytest.fixture(scope="module")
def inside():
    """Whether each published verification and speedup lies inside its 80 % interval, by accelerator."""
    worlds, found = {}, defaultdict(list)
    for row in measurements.load():
        group = row.group
        if group.drafter is None or not np.isfinite(row.gamma) or row.gamma == 0:
            continue
        deployment = Deployment(group.hardware, group.target, GENERIC, float(row.tensor_parallel))
        key = str(group.hardware.name), group.target.name, deployment.tensor_parallel
        if key not in worlds:
            worlds[key] = draw(deployment, count=400)
        names = ("batch", "context_len", "kv_budget", "gamma")
        configuration = {name: float(getattr(row, name)) for name in names}
        tokens = row.tokens_per_round if np.isfinite(row.tokens_per_round) else None
        drawn = price_draws(worlds[key], group.drafter, configuration, tokens_per_round=tokens)
        for name, published, values in (
            ("verification", row.verify, drawn.verify.total), ("speedup", row.speedup, drawn.speedup),
        ):  # fmt: skip
            if np.isfinite(published):
                low, high = interval(values)
                found[key[0], name].append(low <= published <= high)
    return found


@pytest.mark.parametrize("name", ["verification", "speedup"])
@pytest.mark.parametrize(
    ("hardware", "least", "rows"),
    [("a100-sxm-80gb", 0.75, 40), ("h100-sxm-80gb", 0.9, 12), ("l40-48gb", 0.9, 3)],
)
def test_what_was_published_lies_inside_as_often_as_promised(inside, hardware, least, rows, name):
    hits = inside[hardware, name]
    assert len(hits) >= rows
    assert np.mean(hits) >= least
