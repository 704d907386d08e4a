"""Who drafts, as people write it: strategies in any spelling, draft models, the target itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

import strategies
from perfmodel import EngineOverhead, HardwareProfile, ModelSpec, Workload, plan
from perfmodel.deployment import Deployment, Drafter
from perfmodel.errors import SpecError
from perfmodel.export import export
from perfmodel.planning.cases import price_cases
from perfmodel.planning.drafters import find_drafter, is_self, read_spelling
from perfmodel.planning.parallelism import check_parallelism
from perfmodel.speculation import price_round


@pytest.mark.parametrize(
    ("spelled", "name", "drafter"),
    [
        ("streaming_llm", "streaming_llm", None),
        ("StreamingLLM", "streaming_llm", None),
        ("self-spec + StreamingLLM", "streaming_llm", "self"),
        ("Self-Speculation+snapkv", "snapkv", "self"),
        ("standalone small draft + StreamingLLM", "streaming_llm", "draft"),
        ("EAGLE-3", "eagle", None),
        ("quantised KV", "quantized_kv", None),
        ("self-spec (sparse variant not stated)", "streaming_llm", "self"),
        ("standalone draft", "full_kv", "draft"),
    ],
)
def test_strategies_are_known_as_people_spell_them(spelled: str, name: str, drafter: str | None) -> None:
    spelling = read_spelling(spelled)
    assert spelling.strategy is not None
    assert (spelling.strategy.name, spelling.drafter) == (name, drafter)
    assert bool(spelling.remark) == ("not stated" in spelled or spelled == "standalone draft")


@pytest.mark.parametrize("spelled", ["", "none", "AR", "autoregressive", "plain decoding"])
def test_plain_decoding_has_many_names(spelled: str) -> None:
    assert find_drafter(read_spelling(spelled), None) is None


@pytest.mark.parametrize("spelled", ["quest + snapkv", "x", "self-spec + x", "+"])
def test_what_is_no_strategy_is_refused(spelled: str) -> None:
    with pytest.raises(SpecError, match="no strategy called"):
        read_spelling(spelled)


@pytest.mark.parametrize(
    ("draft", "itself"),
    [
        ("", True),
        ("self", True),
        ("Llama-3.1-8B (self)", True),
        ("llama-3.1-8b", True),
        ("llama-3.2-1b", False),
    ],
)
def test_the_target_as_its_own_draft_model(draft: str, itself: bool) -> None:
    assert is_self(draft, "LLaMA-3.1-8B") is itself


class TestDraftModelsOnTheirOwnGPUs:
    """Qwen2.5-0.5B has 14 attention heads and 2 of keys and values."""

    DEPLOYED = HardwareProfile.load("h100"), ModelSpec.load("qwen2.5-72b"), EngineOverhead.load("ideal")
    SMALL = Drafter(strategies.load("full_kv"), ModelSpec.load("qwen2.5-0.5b"))
    CELL = Workload([4], [16_000])

    def test_gpus_that_do_not_divide_the_heads_are_refused_with_those_that_do(self):
        check_parallelism([Deployment(*self.DEPLOYED, gpus) for gpus in (1, 2)], [None, self.SMALL])
        with pytest.raises(SpecError, match=r"14 attention heads, which 8 GPUs .*--draft-tp 1 or 2"):
            plan(*self.DEPLOYED, self.CELL, drafters=[self.SMALL], tensor_parallel=[1, 8], draws=0)

    @pytest.mark.parametrize("gpus", [1, 2])
    def test_a_draft_costs_and_holds_what_it_does_on_so_many_gpus_alone(self, gpus):
        one = {"batch": 4.0, "context_len": 16_000.0, "gamma": 3.0}
        apart = replace(self.SMALL, draft_tensor_parallel=gpus)
        among_eight = price_round(*self.DEPLOYED, apart, **one, tensor_parallel=8.0)
        among_few = price_round(*self.DEPLOYED, self.SMALL, **one, tensor_parallel=float(gpus))
        assert among_eight.draft.total == among_few.draft.total
        assert among_eight.memory.draft_weights == among_few.memory.draft_weights
        assert among_eight.memory.draft_kv == among_few.memory.draft_kv
        assert among_eight.verify.total < among_few.verify.total

    def test_a_target_on_fewer_gpus_has_the_draft_on_as_many(self):
        apart = replace(self.SMALL, draft_tensor_parallel=2)
        one = {"batch": 4.0, "context_len": 16_000.0, "gamma": 3.0, "tensor_parallel": 1.0}
        both, alone = (price_round(*self.DEPLOYED, drafter, **one) for drafter in (apart, self.SMALL))
        assert both.tpot == alone.tpot

    def test_a_plan_says_it_and_vllm_is_told(self):
        apart = replace(self.SMALL, draft_tensor_parallel=1)
        answer = plan(
            *self.DEPLOYED, self.CELL, drafters=[apart], gammas=[2], alpha=0.8, tensor_parallel=8, draws=0
        )
        assert answer.cells[0].draft_tensor_parallel == 1
        assert '"draft_tensor_parallel_size": 1' in export(answer, "vllm").text
        assert any("1 of 8 GPUs is not exported" in note for note in export(answer, "sglang").notes)
        two = replace(answer, cells=tuple(replace(cell, draft_tensor_parallel=2) for cell in answer.cells))
        with pytest.raises(SpecError, match="on one GPU or on all 8"):
            export(two, "vllm")

    def test_a_case_names_it_in_a_column(self):
        head = "hardware,tensor_parallel,target_model,draft_model,draft_tensor_parallel,strategy,context_len,"
        rows = [f"h100,8,qwen2.5-72b,qwen2.5-0.5b,{own},full_kv,16000,4,2" for own in ("", "1")]
        priced = price_cases("\n".join([head + "batch_size,gamma", *rows]).encode())
        (fault,) = priced.faults
        assert fault.file == "row 1" and "do not divide" in str(fault)
        assert float(dict(zip(priced.columns, priced.rows[1], strict=True))["speedup"]) > 0.5
