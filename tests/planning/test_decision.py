"""The sentence of a decision says nothing that the table below it does not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.choose import Constraints
from perfmodel.planning.decision import called, headline
from perfmodel.planning.plan import Elsewhere
from perfmodel.planning.planner import plan, search_drafters
from perfmodel.workload import Workload

QUESTIONS = [
    ("llama-3.3-70b", "h100", "vllm", [4], [1, 8, 32, 128], [32_000]),
    ("llama-3.3-70b", "h100", "vllm", [4], [1, 8], [4_000, 32_000]),
    ("llama-3.1-8b", "h100", "generic", [8], [1, 8, 32, 128], [1_000, 8_000, 32_000, 100_000]),
    ("llama-3.1-8b", "h100", "generic", [8], [32, 64, 128], [32_000]),
    ("deepseek-r1", "h200", "sglang", [8], [1, 32], [8_000]),
    ("qwen3-8b", "a100", "tensorrt_llm", [1], [1, 8, 32, 128], [2_000]),
    ("llama-3.1-8b", "h100,l40s,b200", "generic", [1, 2, 4, 8], [16], [8_000]),
    ("llama-3.1-8b", "h100", "vllm", [1], [1, 4, 512], [1_000]),
    ("qwen3-30b-a3b", "h100", "sglang", [2], [1, 4, 16], [600]),
]


def planned(model, hardware, engine, gpus, batches, contexts, **changed):
    """Plan a question."""
    profiles = [HardwareProfile.load(name) for name in hardware.split(",")]
    target, serving = ModelSpec.load(model), EngineOverhead.load(engine)
    drafters, _ = search_drafters(target, (), serving)
    workload = Workload(batches, contexts, output_tokens=512)
    return plan(
        profiles, target, serving, workload, drafters=drafters, tensor_parallel=gpus, draws=64, **changed
    )


@pytest.fixture(scope="module", params=QUESTIONS, ids=lambda question: f"{question[0]} {question[2]}")
def answer(request):
    return planned(*request.param)


def test_it_speculates_where_any_cell_does(answer):
    sentence = headline(answer).lower()
    drafting = [cell for cell in answer.cells if cell.speculates]
    assert ("do not speculate" in sentence) == (not drafting)
    if drafting:
        assert re.search(r"speculate: |speculation (should|may) pay: ", sentence)


def test_its_gains_are_the_least_and_the_most_of_the_table(answer):
    drafting = sorted(cell.speedup for cell in answer.cells if cell.speculates)
    if drafting:
        low, high = f"{drafting[0]:.2f}x", f"{drafting[-1]:.2f}x"
        assert (low if low == high else f"{low} to {high}") in headline(answer)


def test_every_drafter_it_names_drafts_somewhere_and_needs_what_it_says(answer):
    sentence = headline(answer).split("; nothing")[0]
    every = {called(cell.strategy, cell.draft_model) for cell in answer.cells if cell.speculates}
    for name in {called(name) for name in ("eagle", "dflash", "mtp", "ngram", "snapkv")} - every:
        if answer.elsewhere is None or called(answer.elsewhere.strategy) != name:
            assert name not in sentence
    for cell in answer.cells:
        if cell.needs and len(every) <= 3:
            assert cell.needs in sentence


def test_it_is_sure_where_the_cells_are(answer):
    chances = [cell.probability_beats_plain for cell in answer.cells if cell.speculates]
    if chances:
        mean = sum(chances) / len(chances)
        assert ("Speculate" in headline(answer)) == (mean >= 0.9) or len(answer.hardware.split(",")) > 1
        assert ("chance to be slower" in headline(answer)) == (min(chances) < 0.9)


def test_what_has_no_answer_is_said_with_its_reason():
    answer = planned("llama-3.1-8b", "h100", "vllm", [1], [1, 8, 512], [32_000])
    assert "nothing fits at batch 512" in headline(answer)
    late = planned("llama-3.1-8b", "h100", "generic", [8], [1, 128], [32_000],
                   constraints=Constraints(tpot=0.006))  # fmt: skip
    assert re.search(r"nothing (is fast enough|is feasible) at batch 128", headline(late))


def test_lengths_that_change_once_are_said_with_their_bound():
    answer = planned("deepseek-r1", "h200", "sglang", [8], [1, 32], [8_000])
    first, then = (cell.gamma for cell in answer.cells)
    assert f"{first} tokens at batch 1, {then} beyond" in headline(answer)


def test_plain_decoding_alone_says_its_time():
    answer = planned("llama-3.1-8b", "h100", "vllm", [1], [1, 4], [2_000], gammas=[0])
    low, high = (f"{cell.tpot_s * 1e3:.2f}" for cell in answer.cells)
    assert headline(answer) == f"Plain decoding takes {low} to {high} ms a token"


def test_where_another_software_would_gain_it_says_which():
    plain = planned("llama-3.1-8b", "h20-96gb", "vllm", [1], [64], [1_000], gammas=[0, 7], alpha=0.3)
    assert not any(cell.speculates for cell in plain.cells)
    other = Elsewhere(
        strategy="snapkv", drafter="self", draft_model=None, kv_budget=2049, gamma=4, batch_size=64,
        context_len=1_000, speedup=1.69, planned_speedup=1.0, gain=0.69, runs_in=("MagicDec",),
    )  # fmt: skip
    assert headline(replace(plain, elsewhere=other)) == (
        "Do not speculate with vLLM here; with MagicDec SnapKV would give 1.69x at batch 64, context 1,000"
    )


def test_the_names_people_use():
    assert called("eagle") == "EAGLE-3"
    assert called("full_kv", "Llama-3.2-1B") == "Llama-3.2-1B"
    assert called("streaming_llm", "Llama-3.2-1B") == "Llama-3.2-1B, StreamingLLM"
    assert called("of_mine") == "of_mine"
    assert called("none") == "plain decoding"
