"""A simulated SGLang server, whatever its release means by accept rate, is read back to the same counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs import read_log
from perfmodel.acceptance.logs.meanings import readings
from perfmodel.errors import SpecError

MEANINGS = {
    "tokens over draft steps": lambda tokens, steps: tokens / steps,
    "tokens over draft tokens": lambda tokens, steps: tokens / (steps + 1),
    "accepted over drafted": lambda tokens, steps: (tokens - 1) / steps,
}


def read(tmp_path: Path, text: str, gamma: int | None = None, only: str | None = None) -> AcceptanceCounts:
    file = tmp_path / "sglang.log"
    file.write_text(text, encoding="utf-8")
    return read_log(file, "auto", gamma, only)


def line(tokens: float, rate: float, sign: str = ".", rank: str = " TP0", running: int = 8) -> str:
    return (
        f"[2025-10-12 09:00:56{rank}] Decode batch{sign} #running-req: {running}, #token: 108, token usage: "
        f"0.00, accept len: {tokens:.2f}, accept rate: {rate:.2f}, cuda graph: True, "
        "gen throughput (token/s): 178.86, #queue-req: 0, "
    )


def windows(steps: int, alpha: float, seed: int, count: int = 25) -> np.ndarray:
    """Tokens per round of windows whose rate of acceptance moves around alpha, bonus token included."""
    draw = np.random.default_rng(seed)
    rates = np.clip(alpha + draw.normal(0.0, 0.1, count), 0.02, 0.98)
    kept = draw.random((count, 320, steps)) < rates[:, None, None]
    return 1.0 + np.cumprod(kept, axis=2).sum(axis=2).mean(axis=1)


@given(
    meaning=st.sampled_from(sorted(MEANINGS)), steps=st.integers(1, 8), alpha=st.floats(0.3, 0.95),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_the_drafts_per_round_are_read_under_every_meaning(
    meaning: str, steps: int, alpha: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tokens = windows(steps, alpha, seed)
    rates = MEANINGS[meaning](tokens, steps)
    if meaning == "tokens over draft steps" and not np.any(rates > 1.01):
        return  # below 1 throughout it looks like the later release; the remark names both
    log = "\n".join(line(length, rate) for length, rate in zip(tokens, rates, strict=True))
    folder = tmp_path_factory.mktemp("sglang")
    fits = readings([(f"{a:.2f}", f"{b:.2f}") for a, b in zip(tokens, rates, strict=True)])
    assert steps in fits[meaning]
    if len({draft for drafts in fits.values() for draft in drafts}) > 1:
        with pytest.raises(SpecError, match="gamma: the lines do not tell"):
            read(folder, log)
        return
    counts = read(folder, log)
    assert set(counts.gamma) == {float(steps)}
    assert 1.0 + counts.accepted / counts.rounds == pytest.approx(tokens, abs=0.0051)


def test_it_is_seldom_asked_and_never_wrong() -> None:
    settled = 0
    for seed in range(60):
        tokens = windows(4, 0.7, seed)
        for meaning in ("tokens over draft tokens", "accepted over drafted"):
            rates = MEANINGS[meaning](tokens, 4)
            fits = readings([(f"{a:.2f}", f"{b:.2f}") for a, b in zip(tokens, rates, strict=True)])
            settled += fits == {meaning: [4]}
    assert settled == 120


def test_lines_that_settle_nothing_ask_for_gamma(tmp_path: Path) -> None:
    both = line(2.0, 0.5)  # 2 / (3 + 1), and (2 - 1) / 2
    with pytest.raises(SpecError, match="2 if the rate is accepted over drafted; 3 if the rate is tokens ov"):
        read(tmp_path, both)
    with pytest.raises(SpecError, match=r"neither .* is the same in all of them\. Give .* --gamma N"):
        read(tmp_path, f"{line(2.0, 0.33)}\n{line(2.5, 0.72)}")
    assert read(tmp_path, both, gamma=3).gamma.tolist() == [3.0]


def test_a_rate_above_one_is_over_draft_steps(tmp_path: Path) -> None:
    counts = read(tmp_path, f"{line(3.6, 1.2)}\n{line(2.7, 0.9)}")
    assert counts.gamma.tolist() == [3.0, 3.0]
    assert any("read as tokens over draft steps" in remark for remark in counts.remarks)


def test_ranks_that_repeat_a_line_count_once_and_replicas_each(tmp_path: Path) -> None:
    tensor = "\n".join(line(a, (a - 1) / 3, rank=f" TP{rank}") for a in (2.1, 2.6) for rank in (0, 1, 2))
    assert read(tmp_path, tensor).units == 2
    data = "\n".join(line(a, (a - 1) / 3, rank=f" DP{rank} TP{rank}") for a in (2.1, 2.6) for rank in (0, 1))
    assert read(tmp_path, data).units == 4


GAUGES = """\
# HELP sglang:spec_accept_length Mean acceptance length of speculative decoding
sglang:spec_accept_length{{engine_type="unified",model_name="m",tp_rank="0"}} {length}
sglang:spec_accept_rate{{engine_type="unified",model_name="m",tp_rank="0"}} {rate}
sglang:num_running_reqs{{engine_type="unified",model_name="m",tp_rank="0"}} 4.0
"""
STEPS = 'sglang:spec_num_steps{model_name="m"} 5.0\nsglang:spec_num_draft_tokens{model_name="m"} 6.0\n'
COUNTERS = """\
sglang:generation_tokens_total{{is_streaming="true",model_name="m"}} {tokens}
sglang:num_requests_total{{model_name="m"}} {requests}
sglang:spec_verify_calls_total{{model_name="m"}} {rounds}
"""


def test_gauges_give_the_last_interval(tmp_path: Path) -> None:
    counts = read(tmp_path, GAUGES.format(length=3.09, rate=0.70))
    assert counts.gamma.tolist() == [3.0]
    assert 1.0 + counts.accepted[0] / counts.rounds[0] == pytest.approx(3.09)
    assert counts.rounds.tolist() == [160.0] and any("last log interval" in text for text in counts.remarks)
    exact = read(tmp_path, GAUGES.format(length=13 / 6, rate=13 / 24))
    assert exact.gamma.tolist() == [3.0]
    assert read(tmp_path, GAUGES.format(length=2.0, rate=0.5) + STEPS).gamma.tolist() == [5.0]
    two = GAUGES.format(length=3.09, rate=0.70) + GAUGES.format(length=2.5, rate=0.5)
    assert read(tmp_path, two).units == 2
    with pytest.raises(SpecError, match="only: the counters are of the models m, n"):
        read(tmp_path, two.replace('"m"', '"n"', 1))


def test_counters_of_finished_requests_go_before_gauges(tmp_path: Path) -> None:
    gauges = GAUGES.format(length=3.09, rate=0.70)
    first = gauges + COUNTERS.format(tokens=1000, requests=10, rounds=330)
    counts = read(tmp_path, first)
    assert (counts.rounds.tolist(), counts.accepted.tolist()) == ([330.0], [660.0])
    later = gauges + COUNTERS.format(tokens=3020, requests=30, rounds=1330)
    assert read(tmp_path, first + later).accepted.tolist() == [1000.0]


@pytest.mark.parametrize("kept", ["spec_num_correct_drafts", "spec_accept_token_num"])
def test_responses_of_every_release_give_the_same_counts(kept: str, tmp_path: Path) -> None:
    sent = {"spec_num_correct_drafts": "spec_num_proposed_drafts"}.get(kept, "spec_draft_token_num")
    figures = {"completion_tokens": 61, "spec_verify_ct": 20, kept: 40, sent: 100}
    counts = read(tmp_path, json.dumps({"meta_info": figures}))
    assert (counts.rounds[0], counts.drafted[0], counts.accepted[0], counts.gamma[0]) == (20, 100, 40, 5)
    oldest = json.dumps({"meta_info": {"completion_tokens": 60, "spec_verify_ct": 20}})
    with pytest.raises(SpecError, match="SGLang wrote before October 2025, does not tell the drafts"):
        read(tmp_path, oldest)
    assert read(tmp_path, oldest, gamma=5).accepted.tolist() == [40.0]


def test_the_benchmark_tells_drafts_with_the_server_s_settings(tmp_path: Path) -> None:
    run = {"completed": 10, "total_output_tokens": 3010, "accept_length": 3.0}
    server = {"server_info": {"speculative_num_steps": 3, "speculative_num_draft_tokens": 4}}
    counts = read(tmp_path, json.dumps({**run, **server}) + "\n" + json.dumps({**run, **server}))
    assert counts.rounds.tolist() == [1000.0, 1000.0] and counts.gamma.tolist() == [3.0, 3.0]
    assert counts.accepted.tolist() == [2000.0, 2000.0] and counts.requests == 20.0
    with pytest.raises(SpecError, match="accept_length: SGLang's benchmark does not tell the tokens drafted"):
        read(tmp_path, json.dumps(run))
    assert read(tmp_path, json.dumps(run), gamma=5).gamma.tolist() == [5.0]
    block = f"{'Concurrency:':<40} {7.99:<10}\n{'Accept length:':<40} {3.0:<10}\n"
    with pytest.raises(SpecError, match="prints the accept length, not the tokens drafted per round"):
        read(tmp_path, block)
    printed = read(tmp_path, block, gamma=3)
    assert 1.0 + printed.accepted[0] / printed.rounds[0] == 3.0


def test_the_server_s_block_with_counts_is_read(tmp_path: Path) -> None:
    text = "".join(
        f"{name:<40} {value:<10}\n"
        for name, value in (
            ("Acceptance length (server):", 3.09), ("Acceptance length (benchmark):", 3.09),
            ("Draft tokens:", 8187), ("Accepted tokens:", 5709), ("Drafts:", 2729),
        )
    )  # fmt: skip
    counts = read(tmp_path, text)
    assert counts.rounds.tolist() == [2729.0] and counts.gamma.tolist() == [3.0]
    assert 1.0 + counts.accepted[0] / counts.rounds[0] == pytest.approx(3.092, abs=5e-4)
