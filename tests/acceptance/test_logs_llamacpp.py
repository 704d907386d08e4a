"""What llama.cpp and TensorRT-LLM write is read with the rounds that it tells, by drafter and by request."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs import read_log
from perfmodel.errors import SpecError

REQUESTS = [(400, 297, 171), (100, 100, 40), (50, 0, 0), (211, 162, 128)]
"""Tokens put out, drafted and accepted of each request; the third drafted nothing."""


def read(tmp_path: Path, text: str, gamma: int | None = None, only: str | None = None) -> AcceptanceCounts:
    file = tmp_path / "server.log"
    file.write_text(text, encoding="utf-8")
    return read_log(file, "auto", gamma, only)


def old_request(task: int, tokens: int, sent: int, kept: int) -> str:
    lines = [
        f"slot print_timing: id  0 | task {task} | ",
        "prompt eval time =    4063.11 ms /  2104 tokens (    1.93 ms per token,   517.83 tokens per second)",
        f"       eval time =   12000.00 ms / {tokens:5d} tokens (   30.00 ms per token)",
        f"      total time =   16063.11 ms /  {tokens + 2104} tokens",
    ]
    if sent:
        lines.append(f"draft acceptance rate = {kept / sent:.5f} ({kept:5d} accepted / {sent:5d} generated)")
    return "\n".join(lines)


def new_request(task: int, tokens: int, sent: int, kept: int) -> list[str]:
    start = f"0.06.895.980 I slot print_timing: id  {task % 4} | task {task} | "
    lines = [
        f"{start}prompt eval time =     300.11 ms /    20 tokens (   15.01 ms per token)",
        f"{start}       eval time =    2296.72 ms / {tokens:5d} tokens (    8.97 ms per token)",
    ]
    if sent:
        share = kept / sent
        lines.append(f"{start}draft acceptance = {share:.5f} ({kept:5d} accepted / {sent:5d} generated)")
    return lines


def test_rounds_are_tokens_put_out_less_accepted(tmp_path: Path) -> None:
    drafting = [request for request in REQUESTS if request[1]]
    text = "\n".join(old_request(task, *request) for task, request in enumerate(REQUESTS))
    expected = [tokens - kept for tokens, _, kept in drafting]
    for gamma in (None, 16):
        counts = read(tmp_path, text, gamma)
        assert counts.rounds.tolist() == expected
        assert counts.accepted.tolist() == [kept for *_, kept in drafting]
    assert set(counts.gamma) == {16.0} and any("drafted nothing are among" in text for text in counts.remarks)
    timings = [
        {"timings": {"predicted_n": tokens, "draft_n": sent, "draft_n_accepted": kept}}
        for tokens, sent, kept in REQUESTS
    ]
    assert read(tmp_path, json.dumps(timings)).rounds.tolist() == expected


def test_requests_of_several_slots_may_interleave(tmp_path: Path) -> None:
    drafting = [request for request in REQUESTS if request[1]]
    tasks = [new_request(task, *request) for task, request in enumerate(drafting)]
    interleaved = [line for lines in zip(*tasks, strict=True) for line in lines]
    assert read(tmp_path, "\n".join(interleaved)).rounds.tolist() == [
        tokens - kept for tokens, _, kept in drafting
    ]


@pytest.mark.parametrize("spelling", ["mean len", "mean acceptance length"])
def test_positions_on_the_line_tell_the_rounds_that_drafted(spelling: str, tmp_path: Path) -> None:
    first, last = new_request(0, 256, 259, 167)[1:]
    rates = ", acceptance rate per position = (0.805, 0.632, 0.483)" if "acceptance" in spelling else ""
    counts = read(tmp_path, f"{first}\n{last}, {spelling} =  2.92{rates}\n")
    assert 1.0 + counts.accepted[0] / counts.rounds[0] == pytest.approx(2.92)
    assert counts.rounds[0] == pytest.approx(87.0, abs=0.1) and counts.gamma.tolist() == [3.0]
    assert (counts.reached is not None) == bool(rates)
    assert counts.idle is not None and counts.idle.tolist() == [256 - 1 - 167 - 87]


def test_a_line_without_tokens_put_out_asks_for_gamma(tmp_path: Path) -> None:
    line = "draft acceptance rate = 0.57576 (  171 accepted /   297 generated)\n"
    refusal = r"gamma: this line, which llama-server wrote from December 2024 .* Give the log with the 'eval"
    with pytest.raises(SpecError, match=refusal):
        read(tmp_path, line)
    counts = read(tmp_path, line, gamma=3)
    assert counts.rounds.tolist() == [99.0]
    assert any("every draft is taken to be as long as --gamma" in text for text in counts.remarks)


NGRAM = (
    "5.05 I statistics ngram-mod: #calls(b,g,a) = 11 800 4, #gen drafts = 4, #acc drafts = 4, "
    "#gen tokens = 256, #acc tokens = 47, dur(b,g,a) = 0.340, 2.107, 1.102 ms"
)
MTP = (
    "5.05 I statistics draft-mtp: #calls(b,g,a) = 11 796 796, #gen drafts = 796, #acc drafts = 694, "
    "#gen tokens = 1585, #acc tokens = 1252, dur(b,g,a) = 0.008, 33271.024, 1.264 ms"
)
EARLY = (
    "statistics ngram_simple: #calls = 15, #gen drafts = 5, #acc drafts = 5, #gen tokens = 187, "
    "#acc tokens = 73"
)


def test_two_drafters_are_two_strategies(tmp_path: Path) -> None:
    both = f"{NGRAM}\n{MTP}\n"
    refusal = r"only: 2 drafters ran.*: ngram-mod \(4 rounds of 64 tokens\), draft-mtp \(796 rounds of 1.9"
    with pytest.raises(SpecError, match=refusal):
        read(tmp_path, both)
    mtp, ngram = read(tmp_path, both, only="draft-mtp"), read(tmp_path, both, only="ngram-mod")
    assert (mtp.rounds[0], mtp.gamma[0], ngram.rounds[0], ngram.gamma[0]) == (796.0, 2.0, 4.0, 64.0)
    assert mtp.idle is None
    with pytest.raises(SpecError, match="no drafter 'eagle' drafted; the log has ngram-mod, draft-mtp"):
        read(tmp_path, both, only="eagle")
    request = "\n".join(new_request(765, 211, 162, 128))
    pooled = read(tmp_path, f"{request}\n{both}")
    assert pooled.rounds.tolist() == [83.0]
    assert any("ngram-mod and draft-mtp ran together" in remark for remark in pooled.remarks)
    assert read(tmp_path, f"{request}\n{both}", only="draft-mtp").rounds.tolist() == [796.0]


def test_statistics_of_one_drafter_tell_the_rounds_that_drafted_nothing(tmp_path: Path) -> None:
    ngram, early = read(tmp_path, NGRAM), read(tmp_path, EARLY)
    assert ngram.idle is not None and ngram.idle.tolist() == [796.0]
    assert (early.rounds[0], early.drafted[0], early.accepted[0]) == (5.0, 187.0, 73.0)
    assert early.idle is not None and early.idle.tolist() == [10.0]


CONTRADICTION = ", mean acceptance length = 2.92, acceptance rate per position = (0.995, 0.994, 0.993)"


def iterations(count: int, seed: int = 3) -> list[dict[str, object]]:
    """Iterations of eight requests, of which some draft three tokens and the others none."""
    draw = np.random.default_rng(seed)
    told = []
    for number in range(count):
        rounds = int(draw.integers(0, 9))
        accepted = int(draw.binomial(3 * rounds, 0.6)) if rounds else 0
        told.append(
            {
                "iter": number,
                "inflightBatchingStats": {"numGenRequests": 8},
                "specDecodingStats": {
                    "numDraftTokens": 3 * rounds,
                    "numAcceptedTokens": accepted,
                    "numRequestsWithDraftTokens": rounds,
                    "acceptanceLength": (accepted + rounds) / rounds if rounds else 0.0,
                },
            }
        )
    return told


@pytest.mark.parametrize("form", ["a line each", "answer of /metrics", "as Python prints them", "indented"])
def test_iterations_of_tensorrt_llm_are_pooled_to_windows(form: str, tmp_path: Path) -> None:
    told = iterations(100)
    others = [{**entry, "attentionDpRank": 1} for entry in told] + [{"iter": 100, "specDecodingStats": None}]
    text = {
        "a line each": "\n".join(json.dumps(entry) for entry in told + others),
        "answer of /metrics": json.dumps(told + others),
        "as Python prints them": "\n".join(f"INFO iteration {entry}" for entry in told + others),
        "indented": json.dumps(told + others, indent=2),
    }[form]
    counts = read(tmp_path, text)
    figures = [entry["specDecodingStats"] for entry in told]
    assert counts.units == 3 and counts.rounds.sum() == sum(f["numRequestsWithDraftTokens"] for f in figures)
    assert counts.accepted.sum() == sum(f["numAcceptedTokens"] for f in figures)
    assert set(counts.gamma) == {3.0}
    assert counts.idle is not None and counts.idle.sum() + counts.rounds.sum() == 800.0


def test_counters_and_responses_of_tensorrt_llm(tmp_path: Path) -> None:
    counters = (
        'trtllm_spec_decode_num_draft_tokens_total{engine_type="trtllm",model_name="m"} 300.0\n'
        'trtllm_spec_decode_num_accepted_tokens_total{engine_type="trtllm",model_name="m"} 120.0\n'
    )
    with pytest.raises(SpecError, match="TensorRT-LLM does not tell them"):
        read(tmp_path, counters)
    assert read(tmp_path, counters, gamma=3).rounds.tolist() == [100.0]
    figures = {
        "acceptance_rate": 0.5, "total_accepted_draft_tokens": 30, "total_draft_tokens": 60,
        "num_spec_steps": 20, "acceptance_histogram": [8, 0, 6, 6], "num_spec_tokens": None,
    }  # fmt: skip
    counts = read(tmp_path, json.dumps({"choices": [{"speculative_decoding": figures}]}))
    assert counts.reached is not None and counts.reached.tolist() == [[12.0, 12.0, 6.0]]
    bare = {key: figures[key] for key in ("total_accepted_draft_tokens", "total_draft_tokens")}
    with pytest.raises(SpecError, match="this form of TensorRT-LLM does not tell the rounds"):
        read(tmp_path, json.dumps(bare))
    assert read(tmp_path, json.dumps(bare), gamma=3).rounds.tolist() == [20.0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (NGRAM[:90], ":1: the statistics are not whole"),
        (NGRAM.replace("47", "470"), ":1: 470 accepted of 256 generated"),
        (old_request(0, 400, 297, 171)[:-12], ":5: the line is not whole"),
        (new_request(0, 256, 259, 167)[2] + CONTRADICTION, "259 tokens are more than 56 rounds of 3"),
        (json.dumps(iterations(2)[1])[:-30], "not valid JSON|not whole"),
        (json.dumps(iterations(9)).replace('"numDraftTokens": 3', '"numDraftTokens": -3'), "numDraftTokens"),
    ],
)
def test_damage_is_refused_with_its_line(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=complaint):
        read(tmp_path, text)
