"""What could change a decision is what planning again with that one figure would say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.files.quantity import Z90
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.choose import Constraints
from perfmodel.planning.planner import DEFAULT_GAMMAS, plan, search_drafters
from perfmodel.planning.price import SearchSpace
from perfmodel.planning.sensitivity import WORTH_A_CHANGE, influences, telling
from perfmodel.workload import Workload

CASES = [
    ("llama-3.1-8b", "h100", "generic", 8, 64, 32_000),
    ("llama-3.3-70b", "h100", "vllm", 4, 8, 32_000),
    ("deepseek-r1", "h200", "sglang", 8, 32, 8_000),
    ("llama-3.1-8b", "h100", "generic", 1, 1, 4_000),
]


class Asked:
    """A question of one cell, its plan, and what could change it."""

    def __init__(self, model, hardware, engine, gpus, batch, context):
        self.hardware, self.model = HardwareProfile.load(hardware), ModelSpec.load(model)
        self.engine = EngineOverhead.load(engine).on(self.hardware)
        self.workload = Workload([batch], [context], output_tokens=512)
        self.drafters = search_drafters(self.model, (), EngineOverhead.load(engine))[0]
        self.gpus = gpus
        self.cell = self.plan().cells[0]
        space = SearchSpace([None, *self.drafters], DEFAULT_GAMMAS)
        deployment = Deployment(self.hardware, self.model, self.engine, gpus)
        self.every = influences(deployment, self.workload, space, Constraints(), self.cell)

    def plan(self, **changed):
        """Plan the same cell with other nouns."""
        nouns = {"hardware": self.hardware, "engine": self.engine, "drafters": self.drafters} | changed
        hardware, engine = nouns.pop("hardware"), nouns.pop("engine")
        return plan(
            hardware, self.model, engine, self.workload, tensor_parallel=self.gpus, draws=0, **nouns
        )

    def with_figure(self, noun, path, end):
        """Plan with one figure at an end of its range."""
        spec = getattr(self, noun)
        value = float(np.asarray(getattr(spec.quantities[path], end)))
        return self.plan(**{noun: replace(spec, presets=()).with_values({path: value})
                            if noun == "engine" else spec.with_values({path: value})}).cells[0]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} {case[2]}")
def asked(request):
    return Asked(*request.param)


def test_a_figure_does_what_planning_with_it_says(asked):
    figures = [each for each in asked.every if each.noun != "acceptance"][:4]
    for influence in figures:
        path = influence.name.split(" of ")[0]
        for end in ("low", "high"):
            planned = asked.with_figure(influence.noun, path, end)
            instead = getattr(influence, f"instead_{end}")
            if instead:
                name = "plain" if planned.strategy == "none" else planned.strategy
                assert instead.startswith(name)
            elif planned.strategy == asked.cell.strategy and planned.gamma == asked.cell.gamma > 0:
                assert planned.speedup == pytest.approx(getattr(influence, f"speedup_{end}"), rel=1e-9)


def test_those_that_decide_come_first_then_those_that_move_most(asked):
    order = [(not each.decides, -each.moves) for each in asked.every]
    assert order == sorted(order)
    for each in asked.every:
        assert each.decides == (max(each.gain_low, each.gain_high) >= WORTH_A_CHANGE)


def test_each_has_a_command_and_ends_for_people(asked):
    for each in asked.every:
        assert each.command and each.low and each.high
        assert each.kind in ("measured", "published", "assumed")


def test_one_of_each_noun_is_told_and_every_drafter():
    every = Asked(*CASES[1]).every
    nouns = [each.noun for each in telling(every, 100)]
    assert nouns.count("engine") <= 1 and nouns.count("hardware") <= 1
    assert nouns.count("acceptance") == sum(each.noun == "acceptance" for each in every)


def test_drafters_of_one_model_are_told_once():
    small = ModelSpec.load("llama-3.2-1b")
    hardware, target = HardwareProfile.load("h200"), ModelSpec.load("llama-3.3-70b")
    engine, workload = EngineOverhead.load("generic"), Workload([1], [4_000], output_tokens=512)
    drafters = search_drafters(target, [small])[0]
    cell = plan(hardware, target, engine, workload, drafters=drafters, tensor_parallel=2, draws=0).cells[0]
    space = SearchSpace([None, *drafters], DEFAULT_GAMMAS)
    every = influences(Deployment(hardware, target, engine, 2), workload, space, Constraints(), cell)
    of_model = [each for each in every if each.measured_with == small.name]
    assert len(of_model) > 1
    assert telling(every, 100).count(of_model[0]) == 1
    assert not set(of_model[1:]) & set(telling(every, 100))


def test_more_acceptance_never_slows_the_recommended_draft():
    for case in CASES[:3]:
        asked = Asked(*case)
        own = next(each for each in asked.every if each.name == f"acceptance of {asked.cell.strategy}")
        assert own.speedup_low < asked.cell.speedup < own.speedup_high


def test_acceptance_at_its_ends_is_planning_at_that_quantile():
    asked = Asked(*CASES[2])
    own = next(each for each in asked.every if each.name == "acceptance of mtp")
    space = SearchSpace([None, *asked.drafters], [0, asked.cell.gamma], None, None, -Z90)
    from perfmodel.planning.price import price_drafters

    deployment = Deployment(asked.hardware, asked.model, asked.engine, asked.gpus)
    priced = next(
        each for each in price_drafters(deployment, asked.workload, space)
        if each.drafter and each.drafter.label == "mtp"
    )
    budget = np.inf if asked.cell.kv_budget is None else asked.cell.kv_budget
    here = np.flatnonzero(priced.kv_budget[:, 0] == budget)[0]
    assert priced.expand(priced.round.speedup)[0, 0, here, 1] == pytest.approx(own.speedup_low, rel=1e-9)


def test_what_was_given_is_no_doubt():
    asked = Asked(*CASES[1])
    deployment = Deployment(asked.hardware, asked.model, asked.engine, asked.gpus)
    space = SearchSpace([None, *asked.drafters], DEFAULT_GAMMAS, alpha=0.8)
    cell = asked.plan(alpha=0.8).cells[0]
    every = influences(deployment, asked.workload, space, Constraints(), cell)
    heads = [each.name for each in every if each.noun == "acceptance" and "ngram" not in each.name]
    assert not heads
