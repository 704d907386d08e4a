"""Stages, groups and nodes from the question to the engine: checks, plan, columns, case file, exports."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

import strategies
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.export import ExportOptions, export
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.breakdown import break_down
from perfmodel.planning.cases import price_cases
from perfmodel.planning.parallelism import check_parallelism, describe_parallelism
from perfmodel.planning.plan import Plan
from perfmodel.planning.planner import plan
from perfmodel.speculation import price_round
from perfmodel.workload import Workload
from tests.cli.asking import asked, refused, run

H100, ENGINE = HardwareProfile.load("h100-sxm-80gb"), EngineOverhead.load("generic")
DENSE, MOE = ModelSpec.load("llama-3.1-8b"), ModelSpec.load("qwen3-30b-a3b")
HEAD = Drafter(strategies.load("eagle"))
SMALL = Drafter(strategies.load("full_kv"), ModelSpec.load("qwen2.5-0.5b"))
CELLS = Workload((8, 64), (4000,))
LAYOUTS = [{}, {"pipeline_parallel": 2}, {"data_parallel": 4}, {"data_parallel": 4, "expert_parallel": True}]
ASK = ["--model", "qwen3-30b-a3b", "--hardware", "h100-sxm-80gb", "--context", "4k", "-b", "8,64"]


class TestWhatGoesTogether:
    @pytest.mark.parametrize(
        ("layout", "drafters", "wrong", "remedy"),
        [
            ({"tensor_parallel": 3}, (), "has 32 attention heads", "1, 2, 4, 8, 16, 32"),
            ({"expert_parallel": True}, (), "has no experts", "Leave it out"),
            ({"pipeline_parallel": 33}, (), "has 32 layers", "1 to 32"),
            ({"pipeline_parallel": 0}, (), "found 0", "1 to 32"),
            ({"pipeline_parallel": 2}, (None, HEAD), "eagle drafts", "--gamma 0"),
            ({"data_parallel": 0}, (), "found 0", "at least 1"),
            ({"tensor_parallel": 32, "data_parallel": 64}, (), "2048 GPUs", "at most 1024"),
            ({"tensor_parallel": 8}, (SMALL,), "14 attention heads", "--draft-tp 1 or 2"),
        ],
    )
    def test_what_does_not_is_refused_with_what_does(self, layout, drafters, wrong, remedy):
        with pytest.raises(SpecError) as refusal:
            check_parallelism([Deployment(H100, DENSE, ENGINE, **layout)], drafters)
        assert wrong in refusal.value.faults[0].problem
        assert remedy in refusal.value.faults[0].remedy

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_what_does_is_not(self, layout):
        check_parallelism([Deployment(H100, MOE, ENGINE, 4, **layout)], (None,))

    def test_plain_replicas_are_allowed_and_said(self):
        check_parallelism([Deployment(H100, DENSE, ENGINE, 4, data_parallel=4)], (HEAD,))
        (sentence,) = describe_parallelism(Deployment(H100, DENSE, ENGINE, 4, data_parallel=4))
        assert "plain replicas" in sentence

    def test_nodes_are_said_with_what_is_assumed_of_their_network(self):
        assert describe_parallelism(Deployment(H100, DENSE, ENGINE, 8)) == []
        (sentence,) = describe_parallelism(Deployment(H100, DENSE, ENGINE, 16))
        assert "16 x h100-sxm-80gb fill 2 nodes of 8" in sentence
        assert "7 us to 55 us, assumed" in sentence


class TestAPlan:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_it_prices_what_it_says(self, layout):
        answer = plan(H100, MOE, ENGINE, CELLS, gammas=(0,), tensor_parallel=2, draws=0, **layout)
        cell = answer.cell(64, 4000)
        priced = price_round(
            H100, MOE, ENGINE, None, batch=64.0, context_len=4000.0, tensor_parallel=2.0, **layout
        )
        assert_allclose(cell.baseline_s, priced.baseline.total)
        assert_allclose(cell.memory_bytes_per_gpu, priced.memory.total)
        stages, groups = layout.get("pipeline_parallel", 1), layout.get("data_parallel", 1)
        assert (cell.pipeline_parallel, cell.data_parallel) == (stages, groups)
        assert cell.gpus == 2 * stages * groups
        rent = float(H100.price_per_hour) * cell.gpus / 3600.0
        assert_allclose(cell.cost_per_million_tokens_usd, rent / cell.throughput_tokens_per_s * 1e6)
        again = Plan.from_dict(json.loads(answer.to_json()))
        assert (again.pipeline_parallel, again.data_parallel) == (stages, groups)

    def test_a_file_without_the_fields_means_one_of_each(self):
        body = plan(H100, MOE, ENGINE, CELLS, gammas=(0,), draws=0).to_dict()
        del body["pipeline_parallel"], body["data_parallel"]
        assert (Plan.from_dict(body).pipeline_parallel, Plan.from_dict(body).data_parallel) == (1, 1)

    def test_over_stages_nobody_drafts_by_default_and_whoever_is_named_is_refused(self):
        answer = plan(H100, DENSE, ENGINE, CELLS, pipeline_parallel=2, draws=0)
        assert not any(cell.speculates for cell in answer.cells)
        with pytest.raises(SpecError, match="do not draft in a pipeline"):
            plan(H100, DENSE, ENGINE, CELLS, drafters=[HEAD], pipeline_parallel=2, draws=0)

    def test_a_breakdown_is_of_the_same_deployment(self):
        layout = {"tensor_parallel": 2, "data_parallel": 4, "expert_parallel": True}
        cell = {"batch_size": 64, "context_len": 4000, "drafters": [], "draws": 0}
        laid_out = break_down(H100, MOE, ENGINE, **cell, **layout)
        assert_allclose(laid_out.passes[0].total_s, laid_out.cell.baseline_s)
        assert laid_out.plan.data_parallel == 4

    def test_what_an_own_profile_does_not_say_is_assumed_and_listed(self, tmp_path):
        path = tmp_path / "own.yaml"
        path.write_text(
            "name: own\nmemory: {capacity: {value: 80 GiB, source: x, kind: published}, bandwidth: "
            "{value: 3 TB/s, source: x, kind: published}}\npeak: {bf16: {value: 900 TFLOPS, source: x, kind: "
            "published}}\nlink: {bandwidth: {value: 450 GB/s, source: x, kind: published}}\n"
        )
        own = HardwareProfile.load(path)
        sentences = {
            gpus: plan(own, DENSE, ENGINE, CELLS, gammas=(0,), tensor_parallel=gpus, draws=0).assumed
            for gpus in (1, 8, 16)
        }
        said = {gpus: [word for word in ("link.gpus", "network.bandwidth", "network.latency")
                       if any(sentence.startswith(word) for sentence in sentences[gpus])]
                for gpus in sentences}  # fmt: skip
        assert said == {
            1: [], 8: ["link.gpus"], 16: ["link.gpus", "network.bandwidth", "network.latency"]
        }  # fmt: skip


class TestTheCommandLine:
    def test_flags_of_both_engines_mean_the_same_deployment(self):
        sglang = asked("plan", *ASK, "--tp", "8", "--dp-size", "4", "--enable-dp-attention", "--gamma", "0")
        vllm = asked("plan", *ASK, "--tensor-parallel-size", "2", "--data-parallel-size", "4", "--gamma", "0")
        assert sglang == vllm
        assert (vllm["tensor_parallel"], vllm["data_parallel"]) == (2, 4)

    def test_stages_leave_plain_decoding_and_say_why(self):
        result = run("plan", *ASK, "--tp", "2", "--pp", "2")
        assert result.exit_code == 0
        assert "on 4 x h100-sxm-80gb, 2 stages" in result.stdout
        assert "plain decoding only" in result.stderr

    def test_groups_that_do_not_divide_the_gpus_are_refused(self):
        assert "does not divide the 8 GPUs" in refused(
            "plan", *ASK, "--tp", "8", "--dp", "3", "--enable-dp-attention"
        )

    @pytest.mark.parametrize("command", ["explain", "report", "size", "simulate", "sweep"])
    def test_every_command_that_deploys_takes_them(self, command):
        for flag in ("--pp", "--dp", "--enable-dp-attention"):
            assert flag in run(command, "--help", env={"COLUMNS": "200"}).stdout


class TestACaseFile:
    HEADER = "hardware,engine,target_model,strategy,context_len,batch_size,gamma,tensor_parallel,"

    def priced(self, more: str, *rows: str) -> list[dict[str, str]]:
        row = "h100-sxm-80gb,generic,qwen3-30b-a3b,none,4000,64,0,2,"
        answer = price_cases("\n".join([self.HEADER + more, *(row + each for each in rows)]).encode())
        return [dict(zip(answer.columns, each, strict=True)) for each in answer.rows]

    def test_columns_price_stages_and_groups_row_by_row(self):
        plain, staged, grouped, empty = self.priced(
            "pipeline_parallel,data_parallel", "1,1", "4,1", "1,4", ","
        )
        assert plain["tpot_ms"] == empty["tpot_ms"]
        for row, layout in ((staged, {"pipeline_parallel": 4.0}), (grouped, {"data_parallel": 4.0})):
            priced = price_round(
                H100, MOE, ENGINE, None, batch=64.0, context_len=4000.0, tensor_parallel=2.0, **layout
            )
            assert_allclose(float(row["tpot_ms"]), 1e3 * float(priced.tpot), rtol=1e-9)
            assert float(row["tpot_low_ms"]) < float(row["tpot_ms"]) < float(row["tpot_high_ms"])

    def test_a_row_that_cannot_be_is_named_and_costs_no_other(self):
        good, bad = self.priced("pipeline_parallel", "2", "49")
        assert good["tpot_ms"]
        assert "has 48 layers" in bad["error"]


class TestExports:
    @staticmethod
    def answer() -> Plan:
        """Four groups of two GPUs."""
        return plan(
            H100, MOE, ENGINE, CELLS, drafters=[HEAD], kv_budgets=[np.inf], gammas=(0, 3), alpha=0.9,
            tensor_parallel=2, data_parallel=4, expert_parallel=True, one_deployment=True, draws=0,
        )  # fmt: skip

    def test_vllm_counts_the_gpus_of_a_group(self):
        exported = export(self.answer(), "vllm", ExportOptions(draft_path="x/y"))
        flags = "--tensor-parallel-size 2 --data-parallel-size 4 --enable-expert-parallel"
        assert any(flags in note for note in exported.notes)
        assert any("disables the schedule" in note for note in exported.notes)

    def test_sglang_counts_those_of_all(self):
        text = export(self.answer(), "sglang", ExportOptions(draft_path="x/y")).text
        assert "--tp-size 8 --dp-size 4 --enable-dp-attention --ep-size 8" in text

    def test_tensorrt_llm_has_attention_of_its_own_on_every_gpu(self):
        exported = export(self.answer(), "tensorrt_llm", ExportOptions(draft_path="x/y"))
        assert exported.text.startswith(
            "tensor_parallel_size: 8\nmoe_expert_parallel_size: 8\nenable_attention_dp: true\n"
        )
        assert any("one GPU to a group" in note for note in exported.notes)
