"""One run of vLLM, written in every form that its releases have, is read back to the same counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs import read_log
from perfmodel.errors import SpecError

GAMMA = 4
ACCEPTED = np.random.default_rng(7).binomial(GAMMA, 0.55, size=(3, 500))
"""Tokens accepted per round, three windows of 500 rounds of four drafts."""


def read(tmp_path: Path, text: str, gamma: int | None = None, only: str | None = None) -> AcceptanceCounts:
    file = tmp_path / "vllm.log"
    file.write_text(text, encoding="utf-8")
    return read_log(file, "auto", gamma, only)


def reached(accepted: np.ndarray) -> list[int]:
    return [int(np.sum(accepted >= k)) for k in range(1, GAMMA + 1)]


def v1_line(accepted: np.ndarray) -> str:
    rounds, kept = accepted.size, int(accepted.sum())
    rates = ", ".join(f"{count / rounds:.3f}" for count in reached(accepted))
    return (
        f"INFO 06-06 09:20:34 [metrics.py:86] SpecDecoding metrics: Draft acceptance rate: "
        f"{100 * kept / rounds / GAMMA:.1f}%, Mean acceptance length: {1 + kept / rounds:.2f}, "
        f"Accepted: {kept} tokens, Drafted: {GAMMA * rounds} tokens, Per-position acceptance rate: {rates}"
    )


def short_line(accepted: np.ndarray) -> str:
    return v1_line(accepted).partition("Draft acc")[0] + (
        f"Draft acceptance rate: {100 * accepted.mean() / GAMMA:.1f}%, Accepted: {accepted.sum()} tokens, "
        f"Drafted: {GAMMA * accepted.size} tokens"
    )


def v0_line(accepted: np.ndarray, word: str = "") -> str:
    """Counters since the start; engine V0 counts accepted tokens after the first refusal too."""
    drafted = GAMMA * accepted.size
    return (
        f"INFO 10-02 09:00:01 metrics.py:455] Speculative metrics: Draft acceptance rate: 0.760, System "
        f"efficiency: 0.555, Number of speculative tokens: {GAMMA}, Number of accepted tokens: "
        f"{drafted - 1}, Number of draft tokens{word}: {drafted}, "
        f"Number of emitted tokens{word}: {accepted.size + accepted.sum()}."
    )


def metrics(accepted: np.ndarray, engine: int = 0, model: str = "m", created: float = 1.76e9) -> str:
    labels = f'engine="{engine}",model_name="{model}"'
    rows = {"drafts": accepted.size, "draft_tokens": GAMMA * accepted.size, "accepted_tokens": accepted.sum()}
    text = [f"vllm:spec_decode_num_{name}_total{{{labels}}} {value:.1f}" for name, value in rows.items()]
    text.append(f"vllm:spec_decode_num_drafts_created{{{labels}}} {created}")
    text += [
        f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{{labels},position="{k}"}} {count:.1f}'
        for k, count in enumerate(reached(accepted))
    ]
    return "\n".join(text) + "\n"


def offline(accepted: np.ndarray) -> str:
    rounds, kept = accepted.size, int(accepted.sum())
    text = f"num_drafts: {rounds}\nnum_draft_tokens: {GAMMA * rounds}\nnum_accepted_tokens: {kept}\n"
    text += f"mean acceptance length: {1 + kept / rounds:.2f}\n{'-' * 50}\n"
    return text + "".join(
        f"acceptance at token {k}: {count / rounds:.2f}\n" for k, count in enumerate(reached(accepted))
    )


def get_metrics(accepted: np.ndarray) -> str:
    labels = "{'model_name': 'm', 'engine': '0'}"
    counters = {
        "drafts": accepted.size, "draft_tokens": GAMMA * accepted.size, "accepted_tokens": accepted.sum(),
    }  # fmt: skip
    listed = [
        f"Counter(name='vllm:spec_decode_num_{name}', labels={labels}, value={value})"
        for name, value in counters.items()
    ]
    vector = f"Vector(name='vllm:spec_decode_num_accepted_tokens_per_pos', labels={labels}, values="
    return "[" + ", ".join([*listed, f"{vector}{reached(accepted)})"]) + "]"


def metrics_example(accepted: np.ndarray) -> str:
    return (
        f"vllm:spec_decode_num_drafts (counter) = {accepted.size}\n"
        f"vllm:spec_decode_num_draft_tokens (counter) = {GAMMA * accepted.size}\n"
        f"vllm:spec_decode_num_accepted_tokens (counter) = {accepted.sum()}\n"
        f"vllm:spec_decode_num_accepted_tokens_per_pos (vector) = {reached(accepted)}\n"
    )


def block(accepted: np.ndarray) -> str:
    rounds = accepted.size
    lines = [("Acceptance rate (%):", 50.0), ("Acceptance length:", 1 + accepted.sum() / rounds)]
    lines += [("Drafts:", rounds), ("Draft tokens:", GAMMA * rounds), ("Accepted tokens:", accepted.sum())]
    text = "---------------Speculative Decoding---------------\n"
    text += "".join(f"{name:<40} {value:<10}\n" for name, value in lines) + "Per-position acceptance (%):\n"
    rates = [f"{f'  Position {k}:':<40} {100 * n / rounds:<10.2f}\n" for k, n in enumerate(reached(accepted))]
    return text + "".join(rates) + "=" * 50 + "\n"


def bench_json(accepted: np.ndarray) -> str:
    return json.dumps(
        {
            "completed": 9,
            "spec_decode_num_drafts": accepted.size,
            "spec_decode_draft_tokens": GAMMA * accepted.size,
            "spec_decode_accepted_tokens": int(accepted.sum()),
            "spec_decode_per_position_acceptance_rates": [n / accepted.size for n in reached(accepted)],
        },
        indent=1,
    )


TOTAL = ACCEPTED.ravel()
FORMS = {
    "lines of V1": ("\n".join(map(v1_line, ACCEPTED)), None),
    "short lines of 0.8": ("\n".join(map(short_line, ACCEPTED)), GAMMA),
    "lines of V0": (f"{v0_line(ACCEPTED[0])}\n{v0_line(TOTAL)}", None),
    "lines of V0 with tokens tokens": (v0_line(TOTAL, " tokens"), None),
    "metrics": (metrics(TOTAL), None),
    "metrics of two engines": (metrics(ACCEPTED[0]) + metrics(ACCEPTED[1:].ravel(), 1), None),
    "offline example": (offline(TOTAL), None),
    "printed list of get_metrics": (get_metrics(TOTAL), None),
    "metrics example": (metrics_example(TOTAL), None),
    "printed block": (block(TOTAL), None),
    "benchmark's JSON": (bench_json(TOTAL), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_counts(form: str, tmp_path: Path) -> None:
    text, gamma = FORMS[form]
    counts = read(tmp_path, text, gamma)
    assert counts.rounds.sum() == pytest.approx(TOTAL.size, rel=2e-3)
    assert counts.drafted.sum() == GAMMA * TOTAL.size and counts.accepted.sum() == TOTAL.sum()
    assert set(counts.gamma) == {float(GAMMA)}
    if counts.reached is not None:
        assert counts.reached.sum(axis=0) == pytest.approx(reached(TOTAL), rel=0.02)
    assert (counts.reached is None) == ("0.8" in form or "V0" in form)


def test_counters_since_the_start_add_up_over_restarts(tmp_path: Path) -> None:
    log = "\n".join(v0_line(part) for part in (ACCEPTED[0], ACCEPTED[:2].ravel(), ACCEPTED[2]))
    assert read(tmp_path, log).accepted.tolist() == [ACCEPTED[:2].sum(), ACCEPTED[2].sum()]


def test_an_engine_that_starts_again_with_longer_drafts_began_at_nothing(tmp_path: Path) -> None:
    lengths = (f"speculative tokens: {length}" for length in (GAMMA, 2 * GAMMA))
    longer = v0_line(ACCEPTED.ravel()).replace(*lengths)
    counts = read(tmp_path, f"{v0_line(ACCEPTED[0])}\n{longer}")
    assert counts.gamma.tolist() == [GAMMA, 2 * GAMMA] and counts.accepted[0] == ACCEPTED[0].sum()


def test_an_engine_that_restarts_between_scrapes_begins_at_nothing(tmp_path: Path) -> None:
    steady = metrics(ACCEPTED[0], 1), metrics(ACCEPTED[:2].ravel(), 1)
    falls = metrics(ACCEPTED[:2].ravel()) + steady[0] + metrics(ACCEPTED[2]) + steady[1]
    assert read(tmp_path, falls).accepted.tolist() == [ACCEPTED[2].sum() + ACCEPTED[1].sum()]
    grows = metrics(ACCEPTED[0], created=1.0e9) + metrics(ACCEPTED[:2].ravel(), created=1.1e9)
    assert read(tmp_path, grows).accepted.tolist() == [ACCEPTED[:2].sum()]


def test_counters_of_two_models_are_not_added_up(tmp_path: Path) -> None:
    text = metrics(ACCEPTED[0], model="a") + metrics(ACCEPTED[1], model="b")
    with pytest.raises(SpecError, match=r"only: the counters are of the models a, b\. Give --only a"):
        read(tmp_path, text)
    assert read(tmp_path, text, only="b").accepted.tolist() == [ACCEPTED[1].sum()]
    with pytest.raises(SpecError, match="none of c"):
        read(tmp_path, text, only="c")


def test_counters_without_rounds_ask_for_gamma(tmp_path: Path) -> None:
    text = "".join(line + "\n" for line in metrics(TOTAL).splitlines() if "_drafts_total" not in line)
    with pytest.raises(SpecError, match=r"gamma: the rounds are not counted: vLLM's engine V0 and V1 of rel"):
        read(tmp_path, text)
    assert read(tmp_path, text, gamma=GAMMA).rounds.tolist() == [TOTAL.size]
    emitted = f'vllm:spec_decode_num_emitted_tokens_total{{model_name="m"}} {TOTAL.size + TOTAL.sum() - 9}\n'
    total = "\n".join(line for line in text.splitlines() if "per_pos" not in line)
    assert read(tmp_path, f"{total}\n{emitted}", gamma=GAMMA).accepted.tolist() == [TOTAL.sum() - 9]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (short_line(TOTAL), ":1: gamma: this form, which vLLM 0.8.3 to 0.8.5 wrote.*Give .* --gamma N"),
        (short_line(TOTAL)[:-9], ":1: the line is not whole"),
        (v0_line(TOTAL)[:-9], ":1: the line is not whole"),
        (v0_line(TOTAL).replace("emitted tokens: ", "emitted tokens: 9"), ":1: 5999 accepted and 9"),
        (block(TOTAL).replace("6000", "6x"), ":5: Draft tokens: found '6x'"),
        (block(TOTAL).replace("Drafts:", "Rounds:"), ":3: Drafts: the block that begins here lacks"),
        (block(TOTAL).replace("Position 0: ", "Position 0: 9"), ":3: Per-position acceptance"),
        (offline(TOTAL).replace("num_draft_tokens", "drafted"), ":1: num_draft_tokens: the run that begins"),
        (offline(TOTAL).replace("num_drafts: 1", "num_drafts: 9"), ":1: num_accepted_tokens: "),
        (offline(TOTAL).replace("at token 1: 0", "at token 1: x"), ":7: 1: found 'x"),
        (bench_json(TOTAL).replace("6000", "60"), ":5: spec_decode_accepted_tokens"),
        (bench_json(TOTAL)[:-5], ": not valid JSON"),
    ],
)
def test_a_damaged_form_is_refused_with_its_line(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=complaint):
        read(tmp_path, text)


def test_take_the_log_again_is_said_of_damaged_lines_alone(tmp_path: Path) -> None:
    for text, damaged in ((short_line(TOTAL), False), (short_line(TOTAL)[:-9], True)):
        with pytest.raises(SpecError) as refused:
            read(tmp_path, text)
        assert ("Take the log again" in str(refused.value)) is damaged


def test_a_length_that_the_positions_contradict_is_refused(tmp_path):
    positions = "".join(
        f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{position="{place}"}} {count}\n'
        for place, count in enumerate(reached(ACCEPTED))
    )
    text = (
        f"vllm:spec_decode_num_drafts_total {ACCEPTED.size}\n"
        f"vllm:spec_decode_num_draft_tokens_total {GAMMA * ACCEPTED.size}\n"
        f"vllm:spec_decode_num_accepted_tokens_total {ACCEPTED.sum()}\n{positions}"
    )
    assert read(tmp_path, text, GAMMA).rounds.sum() == ACCEPTED.size
    with pytest.raises(SpecError, match="3 is given, the metrics have 4 positions"):
        read(tmp_path, text, 3)
