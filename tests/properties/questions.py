"""Random deployments, drafters and sizes over everything that is bundled."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from hypothesis import strategies as st

import strategies
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, price_round

NOUNS = (HardwareProfile, EngineOverhead, ModelSpec)
load_profile, load_engine, load_model = (cache(noun.load) for noun in NOUNS)
MOST_BATCH, MOST_CONTEXT, MOST_GAMMA = 10**9, 10**8, 64

profiles = st.sampled_from(HardwareProfile.available()).map(load_profile)
engines = st.sampled_from(EngineOverhead.available()).map(load_engine)
models = st.sampled_from(ModelSpec.available()).map(load_model)


def all_drafters() -> list[Drafter]:
    known, small = map(strategies.load, strategies.available()), load_model("llama-3.2-1b")
    return [
        Drafter(strategy, model)
        for strategy in known
        for model in (None, small)
        if (model and "draft" in strategy.drafters) or (not model and not strategy.needs_draft_model)
    ]


DRAFTERS = all_drafters()
drafters = st.sampled_from(DRAFTERS)


def spread(most: int) -> st.SearchStrategy[float]:
    """Whole numbers from 1, as many of every decade, and the ends."""
    decades = st.floats(0.0, float(np.log10(most))).map(lambda power: float(np.floor(10.0**power)))
    return st.one_of(decades, st.sampled_from([1.0, float(most)]))


sizes = st.fixed_dictionaries(
    {
        "batch": spread(MOST_BATCH),
        "context_len": spread(MOST_CONTEXT),
        "kv_budget": spread(MOST_CONTEXT),
        "gamma": st.integers(0, MOST_GAMMA).map(float),
        "tensor_parallel": st.sampled_from([1.0, 2.0, 4.0, 8.0, 16.0, 64.0]),
    }
)
pricers = st.builds(lambda *parts: partial(price_round, *parts), profiles, models, engines, drafters)
"""`price_round` of an accelerator, a model, an engine and a drafter: sizes are left to give."""
