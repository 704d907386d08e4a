"""What is believed of acceptance before it is measured: its spread, and published points with limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import perfmodel.acceptance.fit as fit
import strategies
from perfmodel import acceptance as acc
from perfmodel.errors import SpecError

RATES = st.floats(0.0, 1.0)
MAGICDEC_BLOG = {4e3: 0.84, 8e3: 0.83, 16e3: 0.82, 32e3: 0.81, 64e3: 0.79, 100e3: 0.79}


def column(table: dict[str, list[str]], name: str) -> NDArray[np.float64]:
    return np.array([float(value) for value in table[name]])


# what is known of one configuration


def test_a_stated_rate_and_stated_tokens_are_used_as_they_are() -> None:
    rate = acc.Acceptance.given(0.8)
    assert acc.expected_tokens(rate, 4) == pytest.approx(3.3616)
    tokens = acc.Acceptance(first=np.nan, rest=np.nan, tokens=3.0)
    assert acc.expected_tokens(tokens, np.array([0.0, 1.0, 4.0])).tolist() == [1.0, 2.0, 3.0]  # type: ignore[union-attr]
    assert acc.expected_tokens(tokens.quantile(0.1), 4) == 3.0


@given(alpha=RATES, sd=st.floats(0.0, 0.3), low=st.floats(0.01, 0.99), high=st.floats(0.01, 0.99))
def test_quantiles_are_ordered_and_stay_probabilities(
    alpha: float, sd: float, low: float, high: float
) -> None:
    given_rate = acc.Acceptance.given(alpha, sd)
    below, above = (given_rate.quantile(q).first for q in sorted((low, high)))
    assert 0.0 <= below <= above + 1e-8 <= 1.0 + 1e-8
    assert given_rate.quantile(0.5).first == alpha


def test_published_pairs_heads_and_targets_are_found_under_any_spelling() -> None:
    full_kv, eagle, window = (strategies.load(name) for name in ("full_kv", "eagle", "streaming_llm"))
    whole: dict[str, Any] = {"context_len": 1000.0, "kv_budget": np.inf}

    def pair(target: str, draft: str) -> acc.Acceptance:
        return acc.acceptance_rate(full_kv, drafter="draft", target_name=target, draft_name=draft, **whole)

    known = pair("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.2-1B")
    assert (known.first, known.kind) == (0.69, "published")
    other = pair("a-100b", "b-10b")
    assert other.kind == "assumed" and other.sd > 2.0 * known.sd
    head = acc.acceptance_rate(eagle, drafter="head", target_name="Qwen/Qwen3-8B", **whole)
    assert (head.first, head.rest) == (0.65, 0.57)
    sparse: dict[str, Any] = {"context_len": 32e3, "kv_budget": 512.0}
    seen = acc.acceptance_rate(window, drafter="self", target_name="llama-3.1-8b", **sparse)
    unseen = acc.acceptance_rate(window, drafter="self", target_name="another-model", **sparse)
    assert unseen.sd > seen.sd
    assert 0.02 < seen.sd < 0.03 and 0.035 < unseen.sd < 0.05


def test_a_larger_draft_model_is_accepted_more_often() -> None:
    full_kv = strategies.load("full_kv")
    rates = [
        acc.acceptance_rate(
            full_kv, drafter="draft", context_len=1e3, kv_budget=np.inf, size_ratio=ratio
        ).first
        for ratio in (0.01, 0.05, 0.2)
    ]
    assert rates == sorted(rates)


def test_temperature_hurts_a_small_draft_and_hardly_the_target_itself() -> None:
    window = strategies.load("streaming_llm")
    where: dict[str, Any] = {
        "context_len": 122e3,
        "kv_budget": 1024.0,
        "target_name": "llama-2-7b",
        "draft_name": "llama-68m",
    }
    published = {0.0: 0.465, 0.6: 0.404, 1.0: 0.287, 1.2: 0.266}
    for heat, alpha in published.items():
        small = acc.acceptance_rate(window, drafter="draft", temperature=heat, **where)
        assert small.first == pytest.approx(alpha, abs=0.06)
        assert small.first == pytest.approx(alpha, abs=2.0 * float(small.sd))
    cold, warm = (
        acc.acceptance_rate(window, drafter="self", temperature=heat, context_len=32e3, kv_budget=512.0)
        for heat in (0.0, 1.0)
    )
    assert cold.first == warm.first and warm.sd > cold.sd


def test_retrieval_breaks_a_window_and_not_a_choice_that_sees_the_query() -> None:
    published = {"streaming_llm": 0.052, "quest": 0.988, "topk_oracle": 0.999}
    for name, alpha in published.items():
        acceptance = acc.acceptance_rate(
            strategies.load(name), drafter="self", context_len=120e3, kv_budget=4096.0, far_share=1.0
        )
        assert acceptance.first == pytest.approx(alpha, abs=0.04)


# published points


def test_the_law_gives_the_six_contexts_of_magicdec() -> None:
    acceptance = acc.acceptance_rate(
        strategies.load("streaming_llm"),
        drafter="self",
        target_name="llama-3.1-8b",
        context_len=np.array(list(MAGICDEC_BLOG)),
        kv_budget=512.0,
    )
    assert np.mean(np.abs(acceptance.first - np.array(list(MAGICDEC_BLOG.values())))) <= 0.008


@pytest.mark.parametrize(
    ("name", "context", "budget", "alpha", "limit"),
    [
        ("snapkv", 32e3, 2049, 0.891, 0.012),
        ("quest", 120e3, 4096, 0.965, 0.010),
        ("quest", 120e3, 1024, 0.905, 0.015),
        ("quest", 10e3, 700, 0.914, 0.020),
        ("topk_oracle", 120e3, 4096, 0.992, 0.010),
        ("topk_oracle", 10e3, 700, 0.964, 0.010),
        ("streaming_llm", 120e3, 4096, 0.916, 0.020),
    ],
)
def test_the_law_gives_published_points(
    name: str, context: float, budget: float, alpha: float, limit: float
) -> None:
    law = acc.acceptance_rate(strategies.load(name), drafter="self", context_len=context, kv_budget=budget)
    assert law.first == pytest.approx(alpha, abs=limit)


def test_the_window_law_predicts_points_that_it_has_not_seen() -> None:
    points = fit.published_points("window")
    law = fit.fit_budget_law(
        column(points, "context_len"), column(points, "kv_budget"), column(points, "alpha"), points["family"]
    )
    assert law.leave_one_out <= 0.0115
    assert law.rmse <= 0.0075
    shipped = strategies.load("streaming_llm").acceptance
    assert shipped.eta.value == pytest.approx(law.eta, abs=0.001)
    assert shipped.levels["llama-3.1-8b"].value == pytest.approx(law.levels["Llama-3.1-8B"], abs=0.001)
    assert shipped.levels["llama-2-7b"].value == pytest.approx(law.levels["Llama-2-7B"], abs=0.001)
    family = law.alpha("Llama-3.1-8B", np.array(list(MAGICDEC_BLOG)), 512.0)
    assert np.mean(np.abs(family - np.array(list(MAGICDEC_BLOG.values())))) <= 0.008


def test_points_of_one_budget_need_the_exponent_and_then_give_the_level() -> None:
    contexts, rates = np.array(list(MAGICDEC_BLOG)), np.array(list(MAGICDEC_BLOG.values()))
    with pytest.raises(SpecError, match="eta: cannot be told"):
        fit.fit_budget_law(contexts, np.full(6, 512.0), rates)
    with pytest.raises(SpecError, match="covers the context"):
        fit.fit_budget_law(contexts, np.full(6, 5000.0), rates, eta=0.3)
    assert fit.fit_budget_law(contexts, np.full(6, 512.0), rates, eta=0.3).levels[""] == pytest.approx(
        0.24, abs=0.01
    )


def test_a_fit_finds_the_law_that_made_the_points() -> None:
    contexts, budgets = (axis.ravel() for axis in np.meshgrid([2e3, 8e3, 64e3], [64.0, 256.0, 1024.0]))
    truth = 1.0 - acc.missed(0.2, 0.4, contexts, budgets, 512.0)
    law = fit.fit_budget_law(contexts, budgets, np.asarray(truth))
    assert (law.levels[""], law.eta) == pytest.approx((0.2, 0.4), abs=1e-4)
    assert law.leave_one_out < 1e-5


def test_longer_drafts_are_predicted_from_shorter_ones_over_published_chains() -> None:
    chains = fit.published_points("chains")
    lengths = np.stack([column(chains, "tokens_gamma3"), column(chains, "tokens_gamma5")], axis=-1)
    first, rest = fit.fit_first_rest([3, 5], lengths)
    seven = column(chains, "tokens_gamma7")
    error = acc.tokens_from_first_rest(first, rest, 7) / seven - 1.0
    assert error.size == 87
    assert np.sqrt(np.mean(error**2)) <= 0.0115
    one_rate = acc.tokens_per_round(acc.alpha_from_mean_length(lengths[:, 0], 3), 7) / seven - 1.0
    assert np.sqrt(np.mean(one_rate**2)) > 0.06


@pytest.mark.parametrize(
    ("strategy", "limit"),
    [("streaming_llm", 0.013), ("snapkv", 0.011), ("quest", 0.013), ("topk_oracle", 0.011)],
)
def test_the_form_of_the_law_holds_for_a_small_model_whose_every_cell_was_measured(
    strategy: str, limit: float
) -> None:
    tiny = fit.published_points("tiny")
    rows = [
        task == "code" and name == strategy for task, name in zip(tiny["task"], tiny["strategy"], strict=True)
    ]
    context, budget, alpha = (column(tiny, name)[rows] for name in ("context_len", "kv_budget", "alpha"))
    law = fit.fit_budget_law(context, budget, alpha, level_budget=128.0)
    assert law.leave_one_out <= limit
    spread = np.sqrt(np.mean((alpha - alpha.mean()) ** 2))
    assert law.leave_one_out < 0.7 * spread


def test_recall_breaks_the_window_of_a_small_model_and_not_its_query_aware_choice() -> None:
    tiny = fit.published_points("tiny")
    recall = {
        name: np.array(
            [
                float(alpha)
                for task, strategy, budget, alpha in zip(
                    tiny["task"], tiny["strategy"], tiny["kv_budget"], tiny["alpha"], strict=True
                )
                if task == "recall" and strategy == name and 32 <= int(budget) <= 64
            ]
        )
        for name in ("streaming_llm", "snapkv", "quest", "topk_oracle")
    }
    assert recall["streaming_llm"].mean() < 0.4 < 0.6 < recall["quest"].mean() < recall["topk_oracle"].mean()
    far = {name: strategies.load(name).acceptance.far.value for name in recall}
    assert far["streaming_llm"] < 0.1 < 0.9 < far["quest"] <= far["topk_oracle"]


def test_acceptance_loads_numpy_and_nothing_heavier() -> None:
    code = (
        "import sys, perfmodel.acceptance; heavy = {'scipy', 'pandas', 'torch', 'matplotlib', 'typer'}; "
        "print(*sorted({m.partition('.')[0] for m in sys.modules} & heavy))"
    )
    root = Path(strategies.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == ""
