"""A log that was damaged anywhere is read to sound counts or refused: it never ends in a traceback."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from engine_logs import (
    CSV,
    LLAMACPP_EXAMPLE,
    LLAMACPP_SERVER,
    LLAMACPP_STATISTICS,
    SGLANG_LINE,
    SGLANG_RESPONSE,
    VLLM_LINE,
    VLLM_METRICS,
    VLLM_RESPONSE,
)

from perfmodel.acceptance.counts import MOST_GAMMA, AcceptanceCounts
from perfmodel.acceptance.estimate import fit_acceptance
from perfmodel.acceptance.logs import read_log
from perfmodel.errors import SpecError

ITERATION = {
    "iter": 1,
    "inflightBatchingStats": {"numGenRequests": 8},
    "specDecodingStats": {"numDraftTokens": 12, "numAcceptedTokens": 7, "numRequestsWithDraftTokens": 4},
}
LOGS = {
    "vLLM's line": VLLM_LINE,
    "vLLM's metrics": VLLM_METRICS,
    "vLLM's response": json.dumps(VLLM_RESPONSE),
    "SGLang's lines": "\n".join(
        SGLANG_LINE.format(running=8, length=a, rate=(a - 1) / 3) for a in (2.1, 2.6)
    ),
    "SGLang's response": json.dumps(SGLANG_RESPONSE),
    "llama-server": LLAMACPP_SERVER,
    "statistics of llama.cpp": LLAMACPP_STATISTICS,
    "example of llama.cpp": LLAMACPP_EXAMPLE,
    "iterations of TensorRT-LLM": "\n".join([json.dumps(ITERATION)] * 3),
    "rounds": CSV,
}
PIECES = ["0", "-", "9" * 30, "nan", "inf", "null", "1e999", "true", "\uff11", "\u0663", *'"{[]}\n\r.,_']
NUMBERS = ["0", "1", "-1", "1e18", "0.5", "null", "inf", "\uff11", "1_0", "9" * 5000, "0.6000.600", ".5"]


def damaged(text: str, draw: random.Random) -> str:
    start, end = sorted((draw.randrange(len(text)), draw.randrange(len(text))))
    number = draw.choice(list(re.finditer(r"\d+(\.\d+)?", text)) or [re.match("", text)])
    assert number is not None
    return draw.choice(
        [
            text[:start],
            text[:start] + text[end:],
            text[:start] + draw.choice(PIECES) + text[start:],
            text[:end] + text[start:],
            text[start:] + text[:start],
            text[: number.start()] + draw.choice(NUMBERS) + text[number.end() :],
        ]
    )


@pytest.mark.parametrize("log", LOGS)
def test_damage_gives_sound_counts_or_a_refusal(log: str, tmp_path: Path) -> None:
    draw, file = random.Random(log), tmp_path / "engine.log"
    refused = 0
    for trial in range(150):
        text = damaged(LOGS[log], draw) or " "
        file.write_text(text, encoding="utf-8")
        try:
            counts = read_log(file, "auto", 3 if trial % 2 else None)
        except SpecError:
            refused += 1
            continue
        assert_sound(counts)
    assert refused


def assert_sound(counts: AcceptanceCounts) -> None:
    """The laws of counts, and of the rates that are fitted to them."""
    for column in (counts.rounds, counts.drafted, counts.accepted, counts.gamma):
        assert np.all(np.isfinite(column)) and np.all(column >= 0.0)
    assert np.all(counts.accepted <= counts.drafted + 1e-6)
    assert np.all(counts.accepted <= counts.rounds * counts.gamma + 1e-6)
    assert np.all(counts.drafted <= 1.03 * counts.rounds * counts.gamma + 65.0)
    assert np.all(counts.gamma <= MOST_GAMMA)
    if counts.reached is not None:
        assert np.all(np.diff(counts.reached, prepend=counts.rounds[:, None], axis=1) <= 0.0)
        assert counts.reached.shape[1] <= MOST_GAMMA
    fit = fit_acceptance(counts)
    assert 1.0 <= fit.tokens <= fit.gamma + 1.0 + 1e-6
    assert len(fit.survival) == fit.gamma
    assert np.all(np.diff(fit.survival, prepend=1.0, append=0.0) <= 1e-12)


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "1e300", "0", "9" * 400])
@pytest.mark.parametrize("log", LOGS)
def test_no_number_of_a_log_may_be_what_none_is(log: str, number: str, tmp_path: Path) -> None:
    """Each number in turn: the counts stay sound or the log is refused, and nothing else ends the reading."""
    file, text = tmp_path / "engine.log", LOGS[log]
    for place in re.finditer(r"[0-9]+(\.[0-9]+)?", text):
        file.write_text(text[: place.start()] + number + text[place.end() :], encoding="utf-8")
        try:
            counts = read_log(file)
        except SpecError:
            continue
        assert np.all(np.isfinite(counts.accepted)) and np.all(counts.accepted <= counts.drafted + 1e-6)
        assert np.all((counts.rounds >= 0.0) & (counts.rounds < 1e18))
