"""Plans survive being wrong about acceptance, choose carefully when asked, and say what knowing is worth."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from perfmodel.acceptance import Acceptance, tokens_per_round
from perfmodel.acceptance.file import MeasuredAcceptance
from perfmodel.acceptance.intervals import requests_for
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.choose import Choice
from perfmodel.planning.near_tie import NEAR_TIE
from perfmodel.planning.plan import Cell
from perfmodel.planning.planner import Constraints, plan
from perfmodel.planning.price import SearchSpace, price_drafters
from perfmodel.planning.uncertainty import draw, worth_of_measuring
from perfmodel.speculation import Drafter, price_round
from perfmodel.workload import Workload

H100, ENGINE = HardwareProfile.load("h100-sxm-80gb"), replace(
    EngineOverhead.load("magicdec-h100"), software=""
)
LLAMA = ModelSpec.load("llama-3.1-8b")
WINDOW, SNAPKV = (strategies.load(name) for name in ("streaming_llm", "snapkv"))
SMALL = {"Llama-3.1-8B": "llama-3.2-1b", "Llama-2-7B-32K": "tinyllama-1.1b"}
ANYWHERE = Constraints(fit_memory=False)
EXACTLY = replace(ANYWHERE, near_tie=0.0)
GAMMAS = tuple(range(1, 17))


@dataclass(frozen=True)
class Mistaken(Drafter):
    """A drafter whose acceptance is believed to be `error` higher than it is."""

    error: float = 0.0

    def acceptance(self, target, **place):
        truth = super().acceptance(target, **place)
        first, rest = (
            np.where(np.less(rate, 1.0), np.clip(np.add(rate, self.error), 0.0, 1.0), rate)
            for rate in (truth.first, truth.rest)
        )
        return replace(truth, first=first, rest=rest)


# alpha that is wrong


@cache
def magicdec_deployments() -> dict[tuple[str, str, int, str], tuple[tuple[int, int], ...]]:
    """Every cell of MagicDec's tables once: (batch, context) by hardware, engine, GPUs and target."""
    cells: dict[tuple[str, str, int, str], set[tuple[int, int]]] = {}
    for table in ("magicdec", "magicdec_blog"):
        text = (files("perfmodel") / "data" / "measurements" / f"{table}.csv").read_text(encoding="utf-8")
        for row in csv.DictReader(text.splitlines()):
            deployment = row["hardware"], row["engine"], int(row["tensor_parallel"]), row["target_model"]
            cells.setdefault(deployment, set()).add((int(row["batch_size"]), int(row["context_len"])))
    return {deployment: tuple(sorted(each)) for deployment, each in cells.items()}


def choices(deployment, workload, drafters, constraints, gammas=GAMMAS, kv_budgets=None) -> list[Choice]:
    """What plain decoding and every drafter would do in every cell."""
    space = SearchSpace([None, *drafters], gammas, kv_budgets)
    every = price_drafters(deployment, workload, space)
    return [Choice.among(priced, constraints, Counter()) for priced in every]


def regrets(errors: tuple[float, float, float]) -> list[float]:
    """Speed lost in every cell when the acceptance of window, SnapKV and small model is wrong by `errors`."""
    lost = []
    for (hardware, engine, gpus, target), cells in magicdec_deployments().items():
        nouns = HardwareProfile.load(hardware), ModelSpec.load(target), EngineOverhead.load(engine)
        small = ModelSpec.load(SMALL[target])
        workload = Workload(*(sorted(set(axis)) for axis in zip(*cells, strict=True)))
        drafters = [Mistaken(WINDOW), Mistaken(SNAPKV), Mistaken(WINDOW, small)]
        deployment = Deployment(*nouns, gpus)
        best = np.min([choice.tpot for choice in choices(deployment, workload, drafters, EXACTLY)], axis=0)
        wrong = [replace(drafter, error=error) for drafter, error in zip(drafters, errors, strict=True)]
        mistaken = choices(deployment, workload, wrong, ANYWHERE)
        first = np.argmin([choice.tpot for choice in mistaken], axis=0)
        for place, cell in enumerate(product(workload.batch_sizes, workload.context_lens)):
            if cell not in cells:
                continue
            choice = mistaken[first[place]]
            chosen = choice.at(slice(place, place + 1))
            truly = price_round(
                *nouns,
                choice.drafter and replace(choice.drafter, error=0.0),
                batch=float(cell[0]),
                context_len=float(cell[1]),
                kv_budget=chosen.kv_budget[0],
                gamma=chosen.gamma[0],
                tensor_parallel=float(gpus),
            )
            lost.append(1.0 - best[place] / float(np.asarray(truly.tpot)))
    return lost


@pytest.mark.parametrize(("error", "limit"), [(0.03, 0.02), (0.05, 0.045)])
def test_a_plan_with_wrong_acceptance_loses_little_over_the_cells_of_magicdec(error, limit):
    """Wrong in the same direction for every drafter, and in the directions that mislead most."""
    for signs in [(1, 1, 1), (-1, -1, -1), (1, -1, 1), (-1, 1, -1)]:
        lost = regrets(tuple(sign * error for sign in signs))
        assert len(lost) >= 40
        assert min(lost) >= -1e-12
        assert np.mean(lost) <= limit, signs


def test_what_a_wrong_plan_loses_is_seen():
    assert np.mean(regrets((0.0, 0.0, 0.0))) <= 0.005
    assert np.mean(regrets((-0.4, -0.4, -0.4))) > 0.1


# careful objectives

cells = st.tuples(st.integers(1, 256), st.integers(2000, 120_000))


def chosen_gamma(drafter: Drafter, cell: tuple[int, int], risk: float | None, budget: int = 512) -> Cell:
    answer = plan(
        H100, LLAMA, ENGINE, Workload([cell[0]], [cell[1]]), drafters=[drafter], kv_budgets=[budget],
        tensor_parallel=8, risk=risk, draws=0, constraints=ANYWHERE,
    )  # fmt: skip
    return answer.cells[0]


@given(cell=cells, name=st.sampled_from(["streaming_llm", "snapkv", "quest"]))
@settings(max_examples=25)
def test_the_more_careful_the_choice_the_shorter_the_draft(cell, name):
    drafter = Drafter(strategies.load(name))
    gammas = [chosen_gamma(drafter, cell, risk).gamma for risk in (0.05, 0.2, 0.5, None, 0.8)]
    assert gammas == sorted(gammas)
    assert gammas[2] == gammas[3]


@given(cell=cells)
@settings(max_examples=15)
def test_a_careful_choice_is_the_better_one_where_acceptance_is_bad_and_costs_where_it_is_not(cell):
    bold, careful = (chosen_gamma(Drafter(WINDOW), cell, risk) for risk in (None, 0.05))
    assert careful.speedup <= bold.speedup * 1.01

    def speedup(gamma: int) -> float:
        priced = price_round(
            H100, LLAMA, ENGINE, Drafter(WINDOW), batch=float(cell[0]), context_len=float(cell[1]),
            kv_budget=512.0, gamma=float(gamma), tensor_parallel=8.0, deviations=-1.645,
        )  # fmt: skip
        return float(np.asarray(priced.speedup))

    assert speedup(careful.gamma) >= speedup(bold.gamma) / 1.0101


@given(cell=cells)
@settings(max_examples=25)
def test_among_near_ties_the_shortest_draft_is_taken_and_nothing_shorter_is_near(cell):
    workload = Workload([cell[0]], [cell[1]])
    asked = (Deployment(H100, LLAMA, ENGINE, 8), workload, [Drafter(WINDOW)])
    _, best = choices(*asked, ANYWHERE, kv_budgets=[512])
    _, exact = choices(*asked, EXACTLY, kv_budgets=[512])
    drafted = best.at().gamma
    assert drafted <= exact.at().gamma
    assert exact.tpot <= best.tpot <= exact.tpot * (1.0 + NEAR_TIE) <= exact.tpot * 1.01
    for gamma in (gamma for gamma in GAMMAS if gamma < drafted):
        _, other = choices(*asked, ANYWHERE, gammas=(gamma,), kv_budgets=[512])
        assert other.tpot > exact.tpot * (1.0 + NEAR_TIE)


# what knowing is worth


def judged(alpha: Acceptance | float | None, cell: tuple[int, int] = (64, 32000), **request) -> Cell:
    request = {"drafters": [Drafter(WINDOW)], "kv_budgets": [512], "constraints": ANYWHERE, **request}
    workload = Workload([cell[0]], [cell[1]])
    return plan(H100, LLAMA, ENGINE, workload, tensor_parallel=8, alpha=alpha, **request).cells[0]


@given(cell=cells, alpha=st.floats(0.1, 0.98), sd=st.floats(0.0, 0.2))
@settings(max_examples=25)
def test_knowing_is_never_worth_less_than_nothing_nor_more_than_choosing_wrong_loses(cell, alpha, sd):
    verdict = judged(Acceptance.given(alpha, sd), cell, draws=64)
    assert verdict.regret_if_alpha_wrong >= verdict.value_of_knowing_alpha - 1e-12
    assert verdict.value_of_knowing_alpha >= -1e-12


@pytest.mark.parametrize("alpha", [0.02, 0.5, 0.83, Acceptance.given(0.83, 0.0)])
def test_what_is_known_is_not_worth_measuring(alpha):
    verdict = judged(alpha)
    assert verdict.value_of_knowing_alpha == verdict.regret_if_alpha_wrong == 0.0
    assert worth_of_measuring([verdict]) is None


def test_the_less_is_known_the_more_knowing_is_worth():
    worths = [judged(Acceptance.given(0.8, sd)).value_of_knowing_alpha for sd in (0.01, 0.05, 0.1, 0.2)]
    assert worths == sorted(worths)
    assert worths[-1] > 0.02


def test_worth_and_regret_are_what_trying_every_world_gives():
    believed, draws = Acceptance.given(0.8, 0.1), 100
    verdict = judged(believed, draws=draws)
    worlds = draw(Deployment(H100, LLAMA, ENGINE), count=draws, seed=0)
    table = np.empty((draws, 1 + len(GAMMAS)))
    for world, deviation in enumerate(worlds.deviations(Drafter(WINDOW))):
        rate = float(np.asarray(believed.shifted(float(deviation)).first))
        for place, gamma in enumerate((0, *GAMMAS)):
            round_s = verdict.round_by_gamma_s[place]
            tokens = tokens_per_round(rate, gamma)
            table[world, place] = verdict.baseline_s * float(np.asarray(tokens)) / round_s
    perfect, mean = table.max(axis=1).mean(), table.mean(axis=0)
    assert verdict.value_of_knowing_alpha == pytest.approx(perfect / mean.max() - 1.0, rel=1e-9)
    assert verdict.regret_if_alpha_wrong == pytest.approx(perfect / mean[verdict.gamma] - 1.0, rel=1e-9)


def test_not_to_speculate_may_be_wrong_too_and_a_runner_up_may_step_in():
    unsure = judged(Acceptance.given(0.6, 0.15), (128, 8000))
    assert not unsure.speculates
    assert unsure.value_of_knowing_alpha > 0.005
    alone, rivalled = (
        judged(None, (128, 32000), drafters=[Drafter(strategy) for strategy in drafters], kv_budgets=None)
        for drafters in ([SNAPKV], [SNAPKV, WINDOW])
    )
    assert alone.strategy == rivalled.strategy == "snapkv"
    assert rivalled.value_of_knowing_alpha > alone.value_of_knowing_alpha


def test_what_measuring_would_be_worth_is_one_sentence_where_it_matters():
    vague, sure = judged(Acceptance.given(0.8, 0.1)), judged(Acceptance.given(0.8, 0.005))
    sentence = worth_of_measuring([sure, vague])
    assert sentence is not None
    assert "about 61 requests would be worth up to" in sentence
    assert f"{vague.value_of_knowing_alpha:.1%}" in sentence
    assert f"{vague.regret_if_alpha_wrong:.1%}" in sentence
    assert "batch 64, context 32,000" in sentence
    assert worth_of_measuring([sure]) is None
    assert worth_of_measuring([]) is None


def test_requests_that_narrow_an_interval_are_counted_as_published():
    """Half-widths .01, .02, .03 at three spreads; what is known already counts."""
    table = {0.05: (97, 25, 11), 0.08: (246, 62, 28), 0.12: (554, 139, 62)}
    for spread, counts in table.items():
        assert tuple(requests_for(width, between_sd=spread) for width in (0.01, 0.02, 0.03)) == counts
    assert 0 == requests_for(0.02, known_sd=0.01) < requests_for(0.02, known_sd=0.025) < requests_for(0.02)


# acceptance that was measured


def measured(alpha: float, se: float, strategy: str = "streaming_llm") -> tuple[MeasuredAcceptance, ...]:
    return (
        MeasuredAcceptance(
            alpha=alpha, alpha_se=se, alpha1=alpha, alpha1_se=se, alpha2=alpha, alpha2_se=se, gamma=4,
            rounds=5000, requests=100, strategy=strategy, target_model="Llama-3.1-8B", kv_budget=512.0,
            context_len=32000.0,
        ),
    )  # fmt: skip


def test_measured_acceptance_moves_the_plan():
    law, good, poor = (
        judged(None, drafters=[Drafter(WINDOW, measured=entries)])
        for entries in ((), measured(0.95, 0.004), measured(0.30, 0.02))
    )
    assert good.alpha_kind == "measured" and good.alpha == pytest.approx(0.95, abs=0.01)
    assert good.gamma > law.gamma > 0
    assert good.speedup > law.speedup > 1.0
    assert not poor.speculates
    assert good.alpha_sd < 0.5 * law.alpha_sd
    other = judged(None, drafters=[Drafter(WINDOW, measured=measured(0.95, 0.004, "snapkv"))])
    assert other == law


def test_what_was_measured_decides_between_drafters():
    def choice(*entries: tuple[MeasuredAcceptance, ...]) -> str:
        drafters = [Drafter(strategy, measured=sum(entries, ())) for strategy in (WINDOW, SNAPKV)]
        return judged(None, drafters=drafters, kv_budgets=[512], draws=0).strategy

    assert choice(measured(0.95, 0.004), measured(0.70, 0.004, "snapkv")) == "streaming_llm"
    assert choice(measured(0.70, 0.004), measured(0.95, 0.004, "snapkv")) == "snapkv"
