"""Both names of the cache, and what fails in a draft, against a stand-in of transformers."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from random_plans import cell_of, plan_of

from perfmodel.policy import SpeculationPolicy


class Tokens(np.ndarray):
    """An array with the few methods of a tensor that the shim uses."""

    def new_tensor(self, values):
        return np.array(values).view(Tokens)

    def new_empty(self, shape):
        return np.empty(shape, dtype=int).view(Tokens)

    def long(self):
        return self.astype(int).view(Tokens)

    def argmax(self, dim):
        return np.argmax(np.asarray(self), axis=dim).view(Tokens)

    def index_select(self, dim, positions):
        return np.take(np.asarray(self), np.asarray(positions), axis=dim).view(Tokens)


class Cache:
    """Stands for DynamicCache: it keeps what it is given, a layer after the other."""

    def __init__(self, length=0):
        entry = np.zeros((1, 1, length, 1)).view(Tokens)
        self.layers = [SimpleNamespace(keys=entry, values=entry)] if length else []

    def get_seq_length(self):
        return self.layers[0].keys.shape[-2]

    def update(self, keys, values, index):
        assert index == len(self.layers)
        self.layers.append(SimpleNamespace(keys=keys, values=values))


@pytest.fixture
def shim(monkeypatch):
    """The module, imported over the stand-in."""
    module, generation, candidates = (
        ModuleType(name) for name in ("transformers", "transformers.generation", "c")
    )
    module.DynamicCache = Cache
    candidates.CandidateGenerator = object
    monkeypatch.setitem(sys.modules, "transformers", module)
    monkeypatch.setitem(sys.modules, "transformers.generation", generation)
    monkeypatch.setitem(sys.modules, "transformers.generation.candidate_generator", candidates)
    monkeypatch.delitem(sys.modules, "perfmodel.integrations.transformers", raising=False)
    import perfmodel.integrations.transformers as shim

    yield shim
    del sys.modules["perfmodel.integrations.transformers"]


@pytest.fixture
def policy():
    good = {"alpha": 0.95, "draft": 0.02, "verify": 0.0}
    cell = cell_of(1, 100, (0, 3), baseline=0.01, drafter=("streaming_llm", None, 16), **good)
    return SpeculationPolicy.from_plan(plan_of([cell], (0, 3)))


def model_that_takes(name):
    """A model whose forward knows one name of the cache only and always says token 7."""

    def forward(*, input_ids, position_ids, use_cache, **cache):
        assert list(cache) == [name]
        assert use_cache
        assert position_ids.shape == input_ids.shape
        logits = np.zeros((1, input_ids.shape[1], 9)).view(Tokens)
        logits[..., 7] = 1.0
        return SimpleNamespace(logits=logits)

    return forward


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_cache_is_handed_over_under_the_name_it_came_with(shim, policy, name):
    generator = shim.PlannedGenerator(model_that_takes(name), policy)
    ids = np.arange(101).reshape(1, -1).view(Tokens)
    drafted, _ = generator.get_candidates(ids, model_kwargs={name: Cache(100), "use_cache": True})
    assert drafted[0, 101:].tolist() == [7, 7, 7]
    assert generator.kept == [16]
    assert policy.failures == 0
    generator.update_candidate_strategy(drafted, None, 2)
    assert policy.figures().accepted == 2


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (model_that_takes("cache"), {"past_key_values": Cache(100)}),
        (model_that_takes("cache"), {}),
        (model_that_takes("cache"), {"cache": None}),
    ],
)
def test_what_fails_leaves_the_round_without_a_draft(shim, policy, model, arguments):
    generator = shim.PlannedGenerator(model, policy)
    ids = np.arange(101).reshape(1, -1).view(Tokens)
    assert generator.get_candidates(ids, model_kwargs=arguments) == (ids, None)
    assert policy.failures == 1
    generator.update_candidate_strategy(ids, None, 0)
    assert policy.figures().drafted == 0
