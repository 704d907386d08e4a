"""The product against the oracle: random questions over all that is bundled, and mutants to be noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
from hypothesis import settings

import strategies
from perfmodel.acceptance import Acceptance
from perfmodel.engine import EngineOverhead
from perfmodel.files.quantity import figures_of
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, price_round

LIMIT = 1e-12
"""Largest relative difference between the two: rounding, and nothing else. [1]"""
NOTICED = 1e3 * LIMIT
"""A relative difference that no rounding makes. [1]"""
ROWS = 25
"""Questions of one call of the product. [1]"""
PROFILES = [HardwareProfile.load(name) for name in HardwareProfile.available()]
ENGINES = [EngineOverhead.load(name) for name in EngineOverhead.available()]
KNOWN = ("FullAttention", "SlidingWindow")
MODELS = [
    model
    for model in map(ModelSpec.load, ModelSpec.available())
    if all(type(mixer).__name__ in KNOWN and not mixer.kept_inputs for mixer, _ in model.token_mixers)
]
DRAFTS = [model for model in MODELS if not model.experts and model.parameters < 2e9]
STRATEGIES = ("streaming_llm", "full_kv", "quantized_kv", "quest")


def draw_group(rng):
    """An accelerator, a target, an engine, a strategy and perhaps a draft model."""

    def pick(choices):
        return choices[int(rng.integers(len(choices)))]

    hardware, target = pick(PROFILES), pick(MODELS)
    strategy = strategies.load(pick(STRATEGIES))
    engine = pick(ENGINES).on(hardware)
    drafts = "self" not in strategy.drafters or ("draft" in strategy.drafters and rng.random() < 0.4)
    if not target.experts and rng.random() < 0.5:
        weights = pick(("bf16", "fp16", "fp8", "int8", "int4", "mxfp4"))
        target = target.with_dtypes(weights=weights, kv=pick(("bf16", "fp8", "int8")))
    return hardware, target, engine, strategy, pick(DRAFTS) if drafts else None


def draw_questions(rng, gpus):
    """`ROWS` questions, sizes spread evenly over their decades, and acceptance from never to always."""
    sizes = {"batch": 4.0, "context": 6.0, "budget": 4.5}
    asked = {name: np.floor(10 ** rng.uniform(0, decades, ROWS)) for name, decades in sizes.items()}
    asked |= {"gamma": rng.integers(0, 18, ROWS).astype(float), "gpus": rng.choice(gpus, ROWS)}
    first, rest, match = (np.clip(rng.uniform(-0.1, 1.1, ROWS), 0.0, 1.0) for _ in range(3))
    asked["match"] = np.where(rng.random(ROWS) < 0.5, 1.0, match)
    return asked, first, rest


def answers_of(group, asked, first, rest):
    """What the product says, one array a name of the oracle's."""
    hardware, target, engine, strategy, draft = group
    acceptance = Acceptance(first=first, rest=rest, match=asked["match"], kind="given")
    priced = price_round(
        hardware, target, engine, Drafter(strategy, draft),
        batch=asked["batch"], context_len=asked["context"],
        kv_budget=asked["budget"], gamma=asked["gamma"], tensor_parallel=asked["gpus"], alpha=acceptance,
    )  # fmt: skip
    memory = priced.memory
    answers = {
        "step": priced.baseline.total, "draft": priced.draft.total, "verify": priced.verify.total,
        "tokens": priced.tokens_per_round, "round": priced.round_s, "speedup": priced.speedup,
        "weights": memory.weights, "kv": memory.target_kv + memory.lookahead_kv, "draft_kv": memory.draft_kv,
        "memory": memory.total, "usable": memory.usable,
    }  # fmt: skip
    return {name: np.broadcast_to(value, ROWS) for name, value in answers.items()}


def largest_difference(questions, seed, change=lambda group: group, enough=np.inf):
    """Return the largest relative difference over so many questions, and where it is.

    change : what the product, not the oracle, is asked about instead of a group.
    enough : a difference that ends the search.
    """
    rng, worst, where = np.random.default_rng(seed), 0.0, ""
    for _ in range(0, questions, ROWS):
        if worst > enough:
            break
        group = draw_group(rng)
        hardware, target, engine, strategy, draft = group
        asked, first, rest = draw_questions(rng, [n for n in (1.0, 2.0, 4.0, 8.0) if n <= hardware.link_gpus])
        answers = answers_of(change(group), asked, first, rest)
        for row in range(ROWS):
            sizes = {name: float(values[row]) for name, values in asked.items()}
            gamma = sizes["gamma"] = int(sizes["gamma"])
            rates = [float(rate[row]) for rate in [first, *[rest] * 17][:gamma]]
            tokens = oracle.tokens_of(rates, sizes["match"])
            expected = oracle.price(hardware, target, engine, strategy.name, draft, **sizes, tokens=tokens)
            for name, value in expected.items():
                difference = abs(float(answers[name][row]) - value) / max(abs(value), 1e-300)
                if not difference <= worst:  # a difference that is no number too
                    names = [hardware.name, target.name, engine.name, strategy.name, draft and draft.name]
                    worst, where = difference, f"{name} of {names} {sizes}: {answers[name][row]} for {value}"
    return worst, where


def test_random_questions_are_answered_alike():
    """A hundred for every example of the hypothesis profile: 2,000, and 100,000 in a deep run."""
    worst, where = largest_difference(100 * settings().max_examples, seed=16)
    assert worst <= LIMIT, where


@pytest.mark.slow
def test_ten_thousand_questions_are_answered_alike():
    worst, where = largest_difference(10_000, seed=2408_11049)
    assert worst <= LIMIT, where


MUTANTS = {
    "memory.bandwidth": 0, "memory.l2": 0, "memory.capacity": 0, "sms": 0, "peak.bf16": 0, "gemm.t0": 0,
    "gemm.compute_fraction": 0, "gemm.contention": 0, "gemm.k_latency": 0, "gemm.wave_overlap": 0,
    "forward": 2, "layer": 2, "row": 2, "row_layer": 2, "round": 2, "round_row": 2, "streaming": 2,
    "memory_utilization": 2, "fixed_memory": 2,
}  # fmt: skip
"""Figures of an accelerator (0 in a group) or of an engine (2)."""


@pytest.mark.parametrize("path", MUTANTS)
def test_a_thousandth_more_of_one_figure_of_the_product_is_noticed(path):
    place = MUTANTS[path]

    def mutate(group):
        noun = group[place]
        figures = {name: value for name, _, value in figures_of(noun)}
        changed = noun.with_values({path: 1.001 * figures[path]})
        return (*group[:place], changed, *group[place + 1 :])

    worst, _ = largest_difference(40 * ROWS, seed=5, change=mutate, enough=NOTICED)
    assert worst > NOTICED


@pytest.mark.parametrize("name", ["n", "k", "vectors"])
def test_one_more_in_a_shape_of_the_product_is_noticed(name):
    def mutate(group):
        hardware, target, *others = group
        wider = target.with_products(lambda p: replace(p, **{name: getattr(p, name) + 16}))
        return hardware, wider, *others

    worst, _ = largest_difference(8 * ROWS, seed=5, change=mutate, enough=NOTICED)
    assert worst > NOTICED
