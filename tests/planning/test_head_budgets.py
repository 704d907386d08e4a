"""Windowed drafting of heads: a budget changes time, memory and acceptance, or it is not offered."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

import strategies
from perfmodel import EngineOverhead, HardwareProfile, ModelSpec, Workload, plan
from perfmodel.deployment import Deployment, Drafter
from perfmodel.export import ExportOptions, load
from perfmodel.planning.breakdown import break_down, cause_bars
from perfmodel.planning.cases import price_cases
from perfmodel.planning.drafters import ships
from perfmodel.planning.price import SearchSpace
from perfmodel.speculation import price

H200, GENERIC = HardwareProfile.load("h200"), EngineOverhead.load("generic")
NAMES = sorted(file.stem for file in (resources.files("perfmodel") / "data" / "models").iterdir())  # type: ignore[attr-defined]
EAGLE = Drafter(strategies.load("eagle"))
LLAMA = ModelSpec.load("llama-3.1-8b")


def heads_of(target: ModelSpec) -> list[Drafter]:
    """Return the heads that a target may draft with, its own layers among them."""
    own = [Drafter(strategies.load("mtp"))] if ships(target, strategies.load("mtp")) else []
    return [] if target.drafts else [EAGLE, *own]


@pytest.mark.parametrize("name", NAMES)
def test_every_budget_that_is_offered_changes_time_and_memory(name: str) -> None:
    target = ModelSpec.load(name)
    for drafter in heads_of(target):
        budgets = SearchSpace([drafter], [3]).budgets_of(drafter, target)
        deployed = Deployment(H200, target, GENERIC, 8.0)
        priced = price(deployed, drafter, batch=64.0, context_len=2e5, kv_budget=budgets, gamma=3.0)
        assert len(set(np.broadcast_to(priced.memory.draft_kv, budgets.shape))) == budgets.size
        assert len(set(np.broadcast_to(priced.draft.total, budgets.shape))) == budgets.size


def test_a_head_whose_cache_is_compressed_is_offered_the_whole_of_it_only() -> None:
    target = ModelSpec.load("deepseek-v4-flash")
    own = Drafter(strategies.load("mtp"))
    assert own.default_budgets and own.budgets(target) == ()
    answer = plan(H200, target, GENERIC, Workload([1], [100_000]), drafters=[own], tensor_parallel=8, draws=0)
    assert {cell.kv_budget for cell in answer.cells} == {None}


def test_plan_and_price_agree_on_a_window_and_sglang_is_told_it() -> None:
    where = {"drafters": [EAGLE], "kv_budgets": [1024], "gammas": [3], "draws": 0}
    cell = plan(H200, LLAMA, GENERIC, Workload([4], [32_000], output_tokens=512), **where).cells[0]
    assert (cell.strategy, cell.kv_budget, cell.gamma) == ("eagle", 1024, 3)
    row = "hardware,target_model,strategy,kv_budget,context_len,output_tokens,batch_size,gamma\n"
    priced = price_cases(f"{row}h200,llama-3.1-8b,eagle,1024,32000,512,4,3\n".encode())
    got = dict(zip(priced.columns, priced.rows[0], strict=True))
    assert float(got["tpot_ms"]) == pytest.approx(1e3 * cell.tpot_s)
    assert float(got["tokens_per_round"]) == pytest.approx(cell.tokens_per_round)
    answer = plan(H200, LLAMA, GENERIC, Workload([4], [32_000], output_tokens=512), **where)
    flags = load("sglang").export(answer, ExportOptions(draft_path="an/eagle3")).text
    assert "--speculative-draft-window-size 1024" in flags


def test_a_smaller_window_drafts_faster_holds_less_and_accepts_less() -> None:
    budgets = np.array([512.0, 1024.0, 2048.0])
    deployed = Deployment(H200, LLAMA, GENERIC)
    priced = price(deployed, EAGLE, batch=64.0, context_len=32_000.0, kv_budget=budgets, gamma=3.0)
    for rising in (priced.draft.total, priced.memory.draft_kv, priced.tokens_per_round):
        assert np.all(np.diff(rising) > 0.0)
    assert np.ndim(priced.verify.total) == 0 or np.all(np.diff(priced.verify.total) == 0.0)


@pytest.mark.parametrize("name", ["p_eagle", "dflash", "medusa"])
def test_what_is_drafted_in_one_pass_is_told_as_one_pass(name: str) -> None:
    behind = break_down(
        H200, LLAMA, GENERIC, batch_size=1, context_len=1000, drafters=[Drafter(strategies.load(name))],
        gammas=[4], draws=0,
    )  # fmt: skip
    drafts, whole = cause_bars(behind)[1], cause_bars(behind)[-2]
    assert drafts.name == "1 draft pass"
    assert whole.total == pytest.approx(behind.cell.round_s)
