"""SGLang's plug-in over stand-ins with the interface of 0.5.23: hooks, adaptive policy, scheduler."""

import bisect
import functools
import sys
from types import ModuleType, SimpleNamespace

import pytest
from random_plans import cell_of, plan_of

from perfmodel.integrations.sglang import TARGETS, PlannedSteps, register
from perfmodel.policy import SpeculationPolicy

GAMMAS = (0, 1, 2, 4)
GOOD = {"alpha": 0.9, "draft": 0.05, "verify": 0.0}
BAD = {"alpha": 0.1, "draft": 0.5, "verify": 0.2}


def plan():
    """Drafts four tokens where the context is long, none where it is short."""
    cells = [
        cell_of(batch, context, GAMMAS, baseline=0.01, **(GOOD if context > 5000 else BAD))
        for batch in (1, 32)
        for context in (1000, 32000)
    ]
    return plan_of(cells, GAMMAS)


class Params:
    """The routing of SGLang's adaptive policy: pad to a captured batch, then the key at or below it."""

    def __init__(self, steps_by_batch, graphs):
        self.steps_by_batch, self.graphs = steps_by_batch, graphs
        self.keys = sorted(steps_by_batch)
        self.told = []

    @property
    def candidate_steps(self):
        return sorted({step for steps in self.steps_by_batch.values() for step in steps})

    def cuda_graph_bs_for_step(self, step):
        if self.graphs is None:
            return None
        return [size for size in self.graphs if step in self._slot(size)]

    def _slot(self, size):
        return self.steps_by_batch[self.keys[max(0, bisect.bisect_right(self.keys, size) - 1)]]

    def get_steps_for_batch(self, batch_size):
        return self._slot(batch_size)[-1]

    def on_verify_complete(self, num_correct_drafts_per_req, batch_size):
        self.told.append((num_correct_drafts_per_req, batch_size))
        return 1


class Engine:
    """A scheduler that runs decode batches of requests, hooked as the registry hooks it."""

    def __init__(self, params, steps=None):
        self.params = params
        self.get_steps, self.verified, self.forward = (
            params.get_steps_for_batch, params.on_verify_complete, lambda *_: None,
        )  # fmt: skip
        if steps:
            self.get_steps = functools.partial(steps, Params.get_steps_for_batch, params)
            self.verified = functools.partial(steps.verify, Params.on_verify_complete, params)
            self.forward = functools.partial(steps.run, lambda *_: None, SimpleNamespace())

    def run(self, *contexts):
        self.forward(SimpleNamespace(reqs=[SimpleNamespace(seqlen=context) for context in contexts]))
        return self.get_steps(len(contexts))


@pytest.fixture
def steps():
    return PlannedSteps(SpeculationPolicy.from_plan(plan()))


EVERY = {1: [0, 4]}


def test_the_running_batch_is_seen(steps):
    engine = Engine(Params(EVERY, [1, 2, 4, 8]), steps)
    assert [engine.run(32000), engine.run(1000, 1200), engine.run(31000, 30000)] == [4, 0, 4]
    assert steps.policy.not_captured == 0


@pytest.mark.parametrize(
    ("captured", "graphs", "contexts", "length", "clamped"),
    [
        ({1: [0], 2: [4], 8: [0]}, [1, 2, 4, 8], (32000,), 0, 1),  # 4 has no graph at batch 1
        ({1: [0], 2: [4], 8: [0]}, [1, 2, 4, 8], (32000, 32000, 32000), 4, 0),
        ({1: [0], 2: [4], 8: [0]}, [2, 4, 8], (32000,), 4, 0),  # padded to 2
        ({1: [4], 2: [0, 4]}, [1, 2], (1000,), 4, 1),  # no lower length was captured: the engine's own
        ({1: [0, 1, 2]}, [1, 2], (32000,), 2, 1),  # the nearest lower one
        ({1: [0], 2: [4]}, None, (32000,), 4, 0),  # no graphs at all
        ({1: [0], 2: [4]}, [1], (32000, 32000), 4, 0),  # above the graphs none is padded
    ],
)
def test_only_lengths_that_were_captured_for_the_padded_batch_run(
    steps, captured, graphs, contexts, length, clamped
):
    assert Engine(Params(captured, graphs), steps).run(*contexts) == length
    assert steps.policy.clamped.length == clamped


def test_verifications_teach_and_switch_nothing(steps):
    engine = Engine(Params(EVERY, [1, 2]), steps)
    engine.run(32000, 32000)
    engine.run(32000, 32000)  # the scheduler works one batch ahead
    assert engine.verified([4, 3], 2) is None
    assert engine.verified([1, 0], 2) is None
    assert engine.params.told == [([4, 3], 2), ([1, 0], 2)], "the engine's own average goes on"
    figures = steps.policy.figures()
    assert (figures.drafting, figures.drafted, figures.accepted) == (4, 16, 8)
    assert engine.verified([2], 1) == 1, "of a batch that the plan did not decide the engine decides"


def test_a_learning_plug_in_refreshes_at_the_same_verification_on_every_rank(monkeypatch):
    monkeypatch.setattr("perfmodel.integrations.sglang.STEPS_PER_REFRESH", 100)
    ranks = [PlannedSteps(SpeculationPolicy.from_plan(plan()), learns=True) for _ in range(2)]
    engines = [Engine(Params(EVERY, [1]), rank) for rank in ranks]
    for _ in range(250):
        assert len({engine.run(32000) for engine in engines}) == 1
        for engine in engines:
            engine.verified([0], 1)
    assert ranks[0].policy.shift == ranks[1].policy.shift < -0.1


class Broken:
    """Raises whatever is asked of it."""

    def __getattr__(self, name):
        raise RuntimeError(name)


def test_whatever_fails_leaves_the_engine_its_own_length(steps, caplog):
    steps.run(lambda *_: None, SimpleNamespace(), SimpleNamespace(reqs=[Broken()]))
    assert steps(lambda *_: 7, Broken(), 1) == 7
    assert steps(lambda *_: 7, SimpleNamespace(candidate_steps=None), 1) == 7
    assert steps.verify(lambda *_: 3, Broken(), None) == 3
    assert steps.policy.failures >= 3
    assert sum("SGLang's own length" in record.getMessage() for record in caplog.records) == 1


@pytest.fixture
def registry(monkeypatch):
    """The registry of hooks, which keeps what is registered."""
    module = ModuleType("sglang.srt.plugins.hook_registry")
    module.registered = {}
    module.HookType = SimpleNamespace(AROUND="around")
    module.HookRegistry = SimpleNamespace(
        register=lambda target, hook, kind: module.registered.update({target: (hook, kind)})
    )
    for name in ("sglang", "sglang.srt", "sglang.srt.plugins"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_the_plug_in_hooks_the_three_places(registry, monkeypatch, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(plan().to_json())
    monkeypatch.setenv("DRAFTPLAN_PLAN", str(path))
    steps = register()
    assert registry.registered == {
        TARGETS["steps"]: (steps, "around"),
        TARGETS["verified"]: (steps.verify, "around"),
        TARGETS["batch"]: (steps.run, "around"),
    }


@pytest.mark.parametrize("text", ["", "{}", None])
def test_a_plan_that_cannot_be_used_is_said_and_nothing_is_hooked(
    registry, monkeypatch, tmp_path, caplog, text
):
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("DRAFTPLAN_PLAN", str(path))
    assert register() is None
    assert registry.registered == {}
    assert "plan.json" in caplog.text


def test_without_a_plan_nothing_is_done(registry, monkeypatch):
    monkeypatch.delenv("DRAFTPLAN_PLAN", raising=False)
    assert register() is None
    assert registry.registered == {}
