"""Every drafting strategy, found by being there, obeys the same laws of counting and choosing."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from perfmodel.acceptance import acceptance_rate, expected_tokens
from strategies.base import EXACT, AcceptanceLaw, Drafter, DraftPass, DraftStrategy, Figure

NAMES = strategies.available()
EVERY = pytest.mark.parametrize("name", NAMES)
BUDGETED = [name for name in NAMES if strategies.load(name).default_budgets]
DROPPING = [
    name
    for name in NAMES
    if strategies.load(name).acceptance.first == EXACT and "self" in strategies.load(name).drafters
]
CHOOSING = pytest.mark.parametrize("name", BUDGETED)

NEW_IDEA = '''
"""Draft with every second entry."""
from strategies.base import WHOLE_CACHE, AcceptanceLaw, DraftPass, Figure, Strategy, drafted_so_far


class EverySecond(Strategy):
    def draft_pass(self, *, context_len, kv_budget, gamma, drafter=None):
        half = 0.5 * context_len + drafted_so_far(gamma)
        return DraftPass(weights=self.weights_of(drafter), passes=gamma, kv_tokens=half)


GUESS = Figure(0.5, 0.1, "assumed", "a guess")
strategy = EverySecond(
    name="every_second",
    summary="every second entry",
    source="this test",
    drafters=("self",),
    selector=WHOLE_CACHE,
    acceptance=AcceptanceLaw(first=GUESS, rest=GUESS),
)
'''


@pytest.fixture
def extra_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for module in set(sys.modules) - before:
        if module.startswith("strategies."):
            del sys.modules[module]
            vars(strategies).pop(module.removeprefix("strategies."), None)


def counts(draft_pass: DraftPass) -> list[Any]:
    return [getattr(draft_pass, part.name) for part in dataclasses.fields(draft_pass)]


def test_the_eleven_ideas_that_ship_are_there() -> None:
    shipped = "streaming_llm snapkv full_kv quest pqcache topk_oracle quantized_kv layer_skip eagle mtp ngram"
    assert set(shipped.split()) <= set(NAMES)


@EVERY
def test_a_strategy_introduces_itself(name: str) -> None:
    strategy = strategies.load(name)
    assert isinstance(strategy, DraftStrategy)
    assert strategy.name == name
    assert strategy.summary and strategy.source
    assert strategy.lossless
    assert strategy.drafters and set(strategy.drafters) <= set(get_args(Drafter))
    assert list(strategy.default_budgets) == sorted(set(strategy.default_budgets))
    assert strategy.needs_draft_model == (strategy.drafters == ("draft",))


@EVERY
def test_every_figure_of_a_law_names_its_source_and_how_far_to_trust_it(name: str) -> None:
    law = strategies.load(name).acceptance
    figures = [value for value in vars(law).values() if isinstance(value, Figure)] + list(law.levels.values())
    for figure in figures:
        assert figure.source and figure.kind in ("measured", "published", "assumed")
        assert np.isfinite(figure.sd) and figure.sd >= 0.0


@EVERY
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_an_array_call_equals_scalar_calls(name: str, data: st.DataObject) -> None:
    strategy = strategies.load(name)
    contexts = np.array(data.draw(st.lists(st.integers(1, 200_000), min_size=1, max_size=4)), dtype=float)
    budget = float(data.draw(st.integers(1, 10_000)))
    gamma = float(data.draw(st.integers(0, 16)))
    together = strategy.draft_pass(context_len=contexts, kv_budget=budget, gamma=gamma)
    for place, context in enumerate(contexts):
        alone = strategy.draft_pass(context_len=float(context), kv_budget=budget, gamma=gamma)
        for many, single in zip(counts(together), counts(alone), strict=True):
            if isinstance(single, str):
                assert many == single
            else:
                assert np.broadcast_to(many, contexts.shape)[place] == single


@EVERY
@given(
    context=st.integers(1, 10**6),
    budget=st.integers(1, 10**6),
    more=st.integers(0, 10**6),
    gamma=st.integers(1, 32),
)
@settings(max_examples=30, deadline=None)
def test_a_larger_budget_never_reads_less_and_nothing_reads_more_than_there_is(
    name: str, context: int, budget: int, more: int, gamma: int
) -> None:
    strategy = strategies.load(name)
    less = strategy.draft_pass(context_len=context, kv_budget=budget, gamma=gamma)
    larger = strategy.draft_pass(context_len=context, kv_budget=budget + more, gamma=gamma)
    assert np.all(less.kv_tokens <= larger.kv_tokens)
    assert np.all(less.resident_kv_tokens <= larger.resident_kv_tokens)
    assert 0.0 <= less.kv_tokens <= context + (gamma - 1) / 2
    assert 0.0 <= less.selection_kv_tokens <= context


@EVERY
def test_without_drafts_no_pass_runs(name: str) -> None:
    strategy = strategies.load(name)
    assert strategy.draft_pass(context_len=1000.0, kv_budget=100.0, gamma=0.0).passes == 0.0


@EVERY
def test_an_infinite_budget_reads_everything_and_nothing_is_undefined(name: str) -> None:
    strategy = strategies.load(name)
    whole = strategy.draft_pass(context_len=np.array([1.0, 32_000.0]), kv_budget=np.inf, gamma=1.0)
    for value in counts(whole):
        assert isinstance(value, str) or np.all(np.isfinite(value))
    if strategy.drafters != ("none",):
        assert np.all(whole.kv_tokens == np.array([1.0, 32_000.0]))


@EVERY
def test_a_drafter_that_a_strategy_does_not_know_is_refused(name: str) -> None:
    strategy = strategies.load(name)
    for drafter in set(get_args(Drafter)) - set(strategy.drafters):
        with pytest.raises(ValueError, match=f"{name} cannot draft with '{drafter}'"):
            strategy.draft_pass(context_len=10, kv_budget=5, gamma=1, drafter=drafter)


@EVERY
@given(context=st.integers(1, 400), budget=st.integers(1, 500), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_selector_keeps_what_was_priced_in_order_with_the_latest_entry(
    name: str, context: int, budget: int, seed: int
) -> None:
    strategy = strategies.load(name)
    scores = np.random.default_rng(seed).normal(size=(2, context))
    kept = np.broadcast_to(
        strategy.selector.keep(context, budget, scores),
        (2, *np.shape(strategy.selector.keep(context, budget, scores))[-1:]),
    )
    for row in kept:
        assert np.all(np.diff(row) > 0)
        assert row[0] >= 0 and row[-1] == context - 1
    if budget >= context:
        assert kept.shape[-1] == context
    if strategy.default_budgets:
        priced = strategy.draft_pass(context_len=context, kv_budget=budget, gamma=1)
        assert kept.shape[-1] == priced.kv_tokens


@CHOOSING
def test_the_best_scored_entries_are_kept_by_a_selector_that_looks_at_scores(name: str) -> None:
    selector = strategies.load(name).selector
    scores = np.zeros(1000)
    scores[137] = 5.0
    assert (137 in selector.keep(1000, 64, scores)) == selector.needs_scores


@CHOOSING
def test_a_selector_that_needs_scores_says_so(name: str) -> None:
    selector = strategies.load(name).selector
    if selector.needs_scores:
        with pytest.raises(ValueError, match="scores are needed"):
            selector.keep(1000, 64)
        with pytest.raises(ValueError, match="last axis"):
            selector.keep(1000, 64, np.zeros(999))
    assert selector.moment in ("position", "prompt", "pass")


@EVERY
def test_whoever_selects_in_every_pass_launches_kernels_for_it(name: str) -> None:
    strategy = strategies.load(name)
    counted = strategy.draft_pass(context_len=1000.0, kv_budget=100.0, gamma=1.0)
    selects = strategy.selector.moment == "pass"
    assert (counted.selection_launches > 0) == selects
    assert (counted.selection_kv_tokens > 0) == selects


@EVERY
@given(
    context=st.floats(1, 1e7),
    budget=st.floats(1, 1e7),
    more=st.floats(1, 100),
    far=st.floats(0, 1),
    heat=st.floats(0, 1.5),
)
@settings(max_examples=40, deadline=None)
def test_more_budget_never_accepts_less_and_more_context_never_accepts_more(
    name: str, context: float, budget: float, more: float, far: float, heat: float
) -> None:
    """The first of them for a head up to the entries that it was trained to read, as far as that is known."""
    strategy = strategies.load(name)
    law = strategy.acceptance
    trained = law.trained_length.value / law.trained_range
    for drafter in strategy.drafters:

        def rate(context_len: float, kv_budget: float, drafter: Drafter = drafter) -> float:
            accepted = acceptance_rate(
                strategy,
                drafter=drafter,
                context_len=context_len,
                kv_budget=kv_budget,
                far_share=far,
                temperature=heat,
            )
            assert 0.0 <= accepted.first <= 1.0 and 0.0 <= accepted.rest <= 1.0 and accepted.sd >= 0.0
            return float(accepted.rest)

        assert rate(context, min(budget * more, trained)) >= rate(context, min(budget, trained)) - 1e-12
        assert rate(context * more, budget) <= rate(context, budget) + 1e-12


@pytest.mark.parametrize("name", DROPPING)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_budget_that_covers_the_context_accepts_everything_where_dropping_is_all_there_is(
    name: str, share: float
) -> None:
    whole = acceptance_rate(
        strategies.load(name),
        drafter="self",
        context_len=np.array([10.0, 512.0, 600.0]),
        kv_budget=600.0,
        far_share=share,
        temperature=1.0,
    )
    assert np.all(whole.first == 1.0) and np.all(whole.rest == 1.0) and np.all(whole.sd == 0.0)


def test_the_counts_of_a_hand_computed_case() -> None:
    def counted(name: str, **choice: Any) -> DraftPass:
        return strategies.load(name).draft_pass(context_len=32_000.0, kv_budget=512.0, gamma=4.0, **choice)

    window = counted("streaming_llm")
    assert (window.kv_tokens, window.resident_kv_tokens, window.selection_kv_tokens) == (513.5, 516.0, 0.0)
    assert counted("snapkv").prefill_kv_tokens == 16_000.0 + 2 * 512.0
    assert counted("quest").selection_kv_tokens == 32_000.0 / 16
    assert counted("quest").resident_kv_tokens == 2_000.0
    assert counted("quest", drafter="draft").resident_kv_tokens == 34_004.0
    assert counted("pqcache").selection_kv_tokens == 1_000.0
    assert counted("topk_oracle").selection_kv_tokens == 16_000.0
    assert counted("full_kv").kv_tokens == 32_001.5
    assert counted("full_kv").weights == "draft"
    assert (
        counted("quantized_kv").kv_fraction == counted("quantized_kv").resident_weight_fraction == 4.25 / 16
    )
    assert counted("layer_skip").layer_fraction == 0.25
    assert counted("layer_skip").resident_kv_tokens == 0.0
    assert counted("eagle").weights == counted("mtp").weights == "head"
    assert (counted("ngram").passes, counted("ngram").kv_tokens, counted("ngram").weights) == (1, 0, "none")
    assert counted("ngram").lookup_tokens == 32_000.0


def test_a_window_keeps_the_sinks_and_the_latest_entries() -> None:
    keep = strategies.load("streaming_llm").selector.keep
    assert keep(100, 10).tolist() == [0, 1, 2, 3, 94, 95, 96, 97, 98, 99]
    assert keep(100, 1).tolist() == [99]


def test_snapkv_keeps_its_observation_window_and_the_neighbours_of_a_peak() -> None:
    scores = np.zeros(1000)
    scores[500] = 1.0
    kept = strategies.load("snapkv").selector.keep(1000, 37, scores)
    assert kept.tolist() == [498, 499, 500, 501, 502, *range(968, 1000)]


@given(seed=st.integers(0, 2**32 - 1), context=st.integers(1, 70))
@settings(max_examples=30, deadline=None)
def test_a_page_bound_is_never_below_a_score_in_its_page(seed: int, context: int) -> None:
    from strategies.quest import page_bounds

    draw = np.random.default_rng(seed)
    query, keys = draw.normal(size=(3, 8)), draw.normal(size=(3, context, 8))
    assert np.all(page_bounds(query, keys) >= np.einsum("hd,hnd->hn", query, keys) - 1e-9)


def test_a_new_idea_is_one_file(extra_folder: Path) -> None:
    (extra_folder / "every_second.py").write_text(NEW_IDEA)
    assert set(strategies.available()) == {*NAMES, "every_second"}
    idea = strategies.load("every-second")
    assert idea.draft_pass(context_len=1000.0, kv_budget=np.inf, gamma=3.0).kv_tokens == 501.0
    accepted = acceptance_rate(idea, drafter="self", context_len=1000.0, kv_budget=np.inf)
    assert expected_tokens(accepted, 1.0) == 1.5
    assert accepted.kind == "assumed" and "a guess" in accepted.source


def test_an_idea_can_lie_anywhere_and_be_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "every_second.py").write_text(NEW_IDEA)
    assert strategies.load_file(tmp_path / "every_second.py").summary == "every second entry"
    for name in (tmp_path / "every_second.py", str(tmp_path / "every_second.py")):
        with pytest.raises(strategies.StrategyError, match="A file is run by"):
            strategies.load(name)  # a name is never a file: plans and tables hold names
    with pytest.raises(strategies.StrategyError, match="there is no file"):
        strategies.load_file(tmp_path / "absent.py")


def test_two_strategies_of_one_name_are_refused(extra_folder: Path) -> None:
    (extra_folder / "quest.py").write_text(NEW_IDEA)
    with pytest.raises(strategies.StrategyError, match=r"two strategies are called 'quest'.*Rename one"):
        strategies.available()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "exposes no object called 'strategy'"),
        ("strategy = 3", "strategy lacks name, summary"),
        (NEW_IDEA.replace('name="every_second"', 'name="other"'), "calls itself 'other'"),
        ("strategy = ", "does not load: SyntaxError"),
        ("import nowhere_to_be_found", "does not load: ModuleNotFoundError"),
    ],
)
def test_a_file_that_is_no_strategy_is_refused_with_its_reason(
    text: str, reason: str, tmp_path: Path, extra_folder: Path
) -> None:
    for file in (tmp_path / "broken_idea.py", extra_folder / "broken_idea.py"):
        file.write_text(text)
    with pytest.raises(strategies.StrategyError, match=reason):
        strategies.load("broken_idea")
    strategies._from_file.cache_clear()
    with pytest.raises(strategies.StrategyError, match=reason):
        strategies.load_file(tmp_path / "broken_idea.py")


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(strategies.StrategyError, match="Did you mean 'streaming_llm'") as refused:
        strategies.load("streaminglm")
    assert refused.value.nearest == "streaming_llm" and refused.value.name == "streaminglm"
    with pytest.raises(strategies.StrategyError, match="There are: dflash"):
        strategies.load("zzz")


def test_strategies_load_numpy_and_nothing_else() -> None:
    code = (
        "import sys, strategies; [strategies.load(name) for name in strategies.available()]; "
        "others = {'perfmodel', 'scipy', 'pandas', 'torch', 'pydantic', 'yaml'}; "
        "print(*sorted({m.partition('.')[0] for m in sys.modules} & others))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(strategies.__file__).parents[1],
    )
    assert done.stdout.strip() == ""


def test_a_law_without_figures_of_its_own_is_exact() -> None:
    assert AcceptanceLaw().first == EXACT and AcceptanceLaw().level.value == 0.0
