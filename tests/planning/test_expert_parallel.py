"""Expert parallelism from the question to the engine: flag, plan, file, schedule, exporters, case files."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import strategies
from perfmodel.cli import main
from perfmodel.deployment import Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.export import ExportOptions, export
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.breakdown import break_down
from perfmodel.planning.cases import price_cases
from perfmodel.planning.plan import Plan
from perfmodel.planning.planner import plan
from perfmodel.planning.schedule import collapse, planned_drafter
from perfmodel.policy import SpeculationPolicy
from perfmodel.speculation import price_round
from perfmodel.workload import Workload

H100, ENGINE = HardwareProfile.load("h100-sxm-80gb"), EngineOverhead.load("generic")
MOE, DENSE = ModelSpec.load("qwen3-30b-a3b"), ModelSpec.load("llama-3.1-8b")
HEAD = Drafter(strategies.load("eagle"))
ASK = ["plan", "--model", "qwen3-30b-a3b", "--hardware", "h100-sxm-80gb", "--tp", "4", "--context", "4k",
       "-b", "1,4", "--gamma", "0:3:1", "--strategy", "eagle", "--format", "json"]  # fmt: skip


def planned(*, dealt: bool, model: ModelSpec = MOE) -> Plan:
    """One deployment on four GPUs."""
    return plan(
        H100, model, ENGINE, Workload((1, 4, 64), (4000,)), drafters=[HEAD], kv_budgets=[np.inf],
        gammas=(0, 1, 3), tensor_parallel=4, one_deployment=True, draws=0, expert_parallel=dealt,
    )  # fmt: skip


class TestAPlan:
    def test_it_says_how_the_experts_lie_and_prices_accordingly(self):
        split, dealt = planned(dealt=False), planned(dealt=True)
        assert (split.expert_parallel, dealt.expert_parallel) == (False, True)
        priced = price_round(
            H100, MOE, ENGINE, None, batch=64.0, context_len=4000.0, tensor_parallel=4.0, expert_parallel=True
        )
        assert dealt.cell(64, 4000).baseline_s == pytest.approx(float(priced.baseline.total))
        assert dealt.cell(64, 4000).baseline_s != split.cell(64, 4000).baseline_s

    def test_a_file_holds_it_and_one_without_the_field_means_off(self):
        body = planned(dealt=True).to_dict()
        assert Plan.from_dict(json.loads(json.dumps(body))).expert_parallel
        del body["expert_parallel"]
        assert not Plan.from_dict(body).expert_parallel

    def test_a_breakdown_is_of_the_same_deployment(self):
        sizes = {"batch_size": 64, "context_len": 4000, "drafters": [HEAD], "tensor_parallel": 4, "draws": 0}
        parts = break_down(H100, MOE, ENGINE, **sizes, expert_parallel=True)
        assert parts.plan.expert_parallel
        assert parts.plan.cells[0].baseline_s == pytest.approx(planned(dealt=True).cell(64, 4000).baseline_s)

    def test_it_is_assumed_that_no_expert_is_popular(self):
        said = [" ".join(planned(dealt=dealt).assumed) for dealt in (False, True)]
        assert ["popular experts" in text for text in said] == [False, True]

    def test_a_model_without_experts_is_refused_with_a_remedy(self):
        with pytest.raises(SpecError, match=r"has no experts\. Leave it out"):
            planned(dealt=True, model=DENSE)

    def test_policies_and_schedules_follow_it(self):
        dealt = planned(dealt=True)
        assert planned_drafter(dealt).expert_parallel
        assert collapse(dealt).deployment.expert_parallel
        assert SpeculationPolicy.from_plan(dealt).max_gamma <= 3


class TestExports:
    OPTIONS = ExportOptions(draft_path="head", max_distinct=None, merge_loss=0.0)

    @staticmethod
    def drafting(*, dealt: bool) -> Plan:
        """A plan whose every cell drafts, so that there is something to export."""
        answer = planned(dealt=dealt)
        cells = [
            replace(cell, strategy="eagle", gamma=3, alpha=0.8, round_by_gamma_s=(0.01, 0.011, 0.012))
            for cell in answer.cells
        ]
        return replace(answer, cells=tuple(cells))

    @pytest.mark.parametrize(
        ("engine", "words"),
        [("sglang", "--tp-size 4 --ep-size 4"), ("tensorrt_llm", "moe_expert_parallel_size: 4")],
    )
    def test_engines_that_are_told_everything_are_told(self, engine, words):
        for dealt in (False, True):
            text = export(self.drafting(dealt=dealt), engine, self.OPTIONS).text
            assert (words in text) == dealt

    def test_vllm_is_told_beside_its_config_and_in_its_arguments(self):
        words = "--tensor-parallel-size 4 --enable-expert-parallel"
        for dealt in (False, True):
            answer = self.drafting(dealt=dealt)
            told = export(answer, "vllm", self.OPTIONS)
            assert json.loads(told.text)["method"] == "eagle3"
            assert any(words in note for note in told.notes) == dealt
            arguments = export(answer, "vllm", replace(self.OPTIONS, form="scheduler")).text
            assert arguments.startswith(words) == dealt


class TestTheCommandLine:
    @pytest.fixture
    def run(self, capsys, monkeypatch):
        def run(*words):
            monkeypatch.setattr(sys, "argv", ["draftplan", *words])
            with pytest.raises(SystemExit) as left:
                main()
            written = capsys.readouterr()
            return left.value.code, written.out, written.err

        return run

    @pytest.mark.parametrize("spelling", ["--expert-parallel", "--enable-expert-parallel", "--ep"])
    def test_every_spelling_means_it(self, run, spelling):
        code, out, _ = run(*ASK, spelling)
        assert code == 0
        assert json.loads(out)["expert_parallel"] is True

    def test_off_where_nobody_asks(self, run):
        assert json.loads(run(*ASK)[1])["expert_parallel"] is False

    def test_a_model_without_experts_leaves_no_traceback(self, run):
        code, _, err = run(*["llama-3.1-8b" if word == "qwen3-30b-a3b" else word for word in ASK], "--ep")
        assert code == 2
        assert "has no experts" in err
        assert "Traceback" not in err


class TestCaseFiles:
    HEADER = "hardware,target_model,tensor_parallel,strategy,context_len,batch_size,gamma,expert_parallel\n"

    def priced(self, model: str, *answers: str):
        rows = "".join(f"h100-sxm-80gb,{model},8,none,4096,64,0,{answer}\n" for answer in answers)
        return price_cases((self.HEADER + rows).encode(), "cases.csv", None, ())

    def test_a_column_says_it_for_each_row(self):
        table = self.priced("qwen3-30b-a3b", "", "no", "yes", "true")
        place = table.columns.index("t_target_ms")
        milliseconds = [row[place] for row in table.rows]
        assert milliseconds[0] == milliseconds[1] != milliseconds[2] == milliseconds[3]

    @pytest.mark.parametrize(("model", "answer"), [("qwen3-30b-a3b", "perhaps"), ("llama-3.1-8b", "yes")])
    def test_anything_else_is_a_fault_of_that_column(self, model, answer):
        (fault,) = self.priced(model, answer).faults
        assert "expert_parallel" in str(fault)
