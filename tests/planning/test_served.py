"""What an engine's software can run is what is planned, and what another would gain is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import strategies
from perfmodel import software
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.plan import Plan
from perfmodel.planning.planner import default_drafters, plan, search_drafters
from perfmodel.planning.served import check_served, runs_in, why_not_served
from perfmodel.speculation import Drafter
from perfmodel.workload import Workload
from strategies.base import Tree

H100 = HardwareProfile.load("h100-sxm-80gb")
LLAMA, SMALL = ModelSpec.load("llama-3.1-8b"), ModelSpec.load("llama-3.2-1b")
VLLM, MAGICDEC, GENERIC = (EngineOverhead.load(name) for name in ("vllm-h100", "magicdec-h100", "generic"))
SGLANG = replace(GENERIC, software="sglang")
ENGINES = [EngineOverhead.load(name) for name in EngineOverhead.available()]
CELL = Workload((32,), (32_000,))


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v3", "qwen3-30b-a3b"])
def test_nothing_is_searched_that_the_software_cannot_run(engine, model):
    for drafter in default_drafters(ModelSpec.load(model), [SMALL], engine):
        assert not why_not_served(drafter, engine.served_by)


@pytest.mark.parametrize("name", software.available())
def test_a_software_runs_strategies_that_exist_by_drafters_that_they_have(name):
    served_by = software.load(name)
    assert served_by.name == name
    assert served_by.methods
    for key in served_by.methods:
        strategy = strategies.load(key.removesuffix(software.DRAFT_MODEL))
        assert not key.endswith(software.DRAFT_MODEL) or "draft" in strategy.drafters


def test_vllm_is_never_planned_to_draft_with_the_target_itself():
    searched = default_drafters(LLAMA, [SMALL], VLLM)
    assert {drafter.kind for drafter in searched} == {"head", "none", "draft"}
    assert all(drafter.default_budgets in ((), (np.inf,)) for drafter in searched)
    assert "mtp" not in {drafter.strategy.name for drafter in searched}


@pytest.mark.parametrize("model", ["deepseek-r1", "deepseek-v3", "glm-4.5"])
def test_layers_that_a_model_ships_are_searched_and_need_nothing(model):
    target = ModelSpec.load(model)
    for engine in (VLLM, GENERIC):
        shipped = [each for each in default_drafters(target, (), engine) if each.strategy.name == "mtp"]
        assert [each.needs(target) for each in shipped] == [""]


def test_an_answer_that_rests_on_a_head_says_so_in_its_row():
    answer = plan(H100, LLAMA, VLLM, CELL, tensor_parallel=8, drafters=[Drafter(strategies.load("eagle"))])
    assert answer.cells[0].needs == "a trained EAGLE head"
    assert answer.cells[0].kv_budget is None


def test_what_another_software_gains_is_priced_and_said():
    answer = plan(H100, LLAMA, VLLM, CELL, tensor_parallel=8, draws=0)
    other, cell = answer.elsewhere, answer.cells[0]
    assert other is not None and answer.software == "vLLM"
    assert other.gain == pytest.approx(other.speedup / cell.speedup - 1.0, rel=1e-9)
    assert other.gain > 0.008 and "vLLM" not in other.runs_in
    assert other.sentence("vLLM").startswith(f"Not in vLLM: {other.strategy}")
    assert Plan.from_dict(answer.to_dict()) == answer


def test_where_any_software_may_serve_the_plan_says_which_can():
    answer = plan(H100, LLAMA, GENERIC, CELL, tensor_parallel=8, draws=0)
    assert answer.elsewhere is None
    assert answer.runs_in == {"snapkv": ("MagicDec",)}


@pytest.mark.parametrize("name", ["snapkv", "streaming_llm", "quest", "medusa"])
def test_what_an_engine_cannot_run_is_refused_with_its_reason_and_a_remedy_that_works(name):
    drafter = Drafter(strategies.load(name))
    with pytest.raises(SpecError, match=r"vLLM cannot run .*--engine generic") as refusal:
        plan(H100, LLAMA, VLLM, CELL, drafters=[drafter])
    if name == "snapkv":
        assert "RFC 47351" in str(refusal.value) and "magicdec-h100" in str(refusal.value)
    assert check_served([drafter], GENERIC) == [drafter]


def test_a_draft_budget_is_kept_or_refused_but_never_dropped():
    eagle = Drafter(strategies.load("eagle"))
    with pytest.raises(SpecError, match=r"draft_budget.*--draft-budget all"):
        check_served([eagle], VLLM, [2048.0])
    assert check_served([eagle], VLLM, [2048.0, np.inf])[0].default_budgets == (np.inf,)
    assert check_served([eagle], SGLANG, [2048.0]) == [eagle]
    assert runs_in(eagle, [2048]) == ("SGLang",)


def test_a_draft_model_runs_on_as_many_gpus_as_its_engine_allows():
    drafter = Drafter(strategies.load("full_kv"), SMALL, draft_tensor_parallel=2)
    with pytest.raises(SpecError, match=r"one GPU or on all.*--draft-tp 1"):
        check_served([drafter], VLLM, tensor_parallel=[4])
    assert check_served([drafter], VLLM, tensor_parallel=[2])
    with pytest.raises(SpecError, match="Leave --draft-tp out"):
        check_served([replace(drafter, draft_tensor_parallel=1)], SGLANG, tensor_parallel=[4])


def test_budgets_that_some_cannot_keep_leave_these_out_with_a_remark():
    searched, remarks = search_drafters(LLAMA, (), VLLM, [2048.0])
    assert [drafter.label for drafter in searched] == ["ngram"]
    assert any("eagle" in remark and "PR 53827" in remark for remark in remarks)


def test_an_engine_file_that_names_unknown_software_is_refused_by_its_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nsoftware: vlm\n")
    with pytest.raises(SpecError, match=r"mine\.yaml:2: software: .*Did you mean 'vllm'"):
        EngineOverhead.load(file)


def test_software_that_drafts_chains_runs_no_tree():
    head = Drafter(strategies.load("eagle"), tree=Tree(4, 4, 16))
    assert "vLLM" not in runs_in(head, [None])
    assert "SGLang" in runs_in(head, [None])
