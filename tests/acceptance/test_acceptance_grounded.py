"""Acceptance that a decoder shows on texts that plant it: fitted from its rounds, and foretold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import strategies  # noqa: E402
from perfmodel.acceptance import expected_tokens  # noqa: E402
from perfmodel.acceptance.estimate import AcceptanceFit, fit_acceptance  # noqa: E402
from perfmodel.acceptance.file import MeasuredAcceptance  # noqa: E402
from perfmodel.acceptance.logs import read_log  # noqa: E402
from perfmodel.acceptance.posterior import posterior_acceptance  # noqa: E402
from perfmodel.reference.decoder import Decoder  # noqa: E402
from perfmodel.reference.demo.induction import (  # noqa: E402
    induction_architecture,
    induction_weights,
    planted_text,
)
from perfmodel.reference.drafting import drafter_of  # noqa: E402
from perfmodel.reference.rounds import Decoded, generate  # noqa: E402

pytestmark = pytest.mark.torch

WINDOW, CONTEXT, OUTPUT = 448, 800, 48


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    architecture = induction_architecture(100, context=4096)
    return Decoder(architecture, induction_weights(architecture))


def text_of(coverage: float) -> Any:
    """Prompts whose next token is foretold inside the window with this chance, and elsewhere always."""
    return planted_text(
        symbols=100,
        context_len=CONTEXT,
        window=WINDOW,
        coverage=coverage,
        batch=12,
        output_len=OUTPUT,
        seed=0,
    )


def decoded(decoder: Decoder, text: Any, strategy: str, gamma: int) -> Decoded:
    torch.set_num_threads(1)
    drafter = drafter_of(strategies.load(strategy), decoder, kv_budget=WINDOW, gamma=gamma, output_len=OUTPUT)
    return generate(decoder, text.prompts, OUTPUT, drafter=drafter, gamma=gamma)


def fitted(run: Decoded, gamma: int, file: Path) -> AcceptanceFit:
    """Write the rounds as a log, and fit what the log says."""
    lines = ["request,round,drafted,accepted"]
    for number, came in enumerate(run.rounds):
        lines += [f"{row},{number},{gamma},{count - 1}" for row, count in enumerate(came) if count > 0]
    file.write_text("\n".join(lines) + "\n")
    return fit_acceptance(read_log(file))


@pytest.mark.parametrize("coverage", [0.6, 0.9])
def test_a_fit_finds_the_planted_rate_and_foretells_another_length(
    decoder: Decoder, coverage: float, tmp_path: Path
) -> None:
    text = text_of(coverage)
    four = decoded(decoder, text, "streaming_llm", 4)
    fit = fitted(four, 4, tmp_path / "rounds.csv")
    assert fit.alpha.low <= text.coverage <= fit.alpha.high
    assert fit.alpha.value == pytest.approx(text.coverage, abs=0.04)
    assert fit.tokens == pytest.approx(four.tokens_per_round)
    assert fit.requests == 12
    entry = MeasuredAcceptance.of_fit(fit, "decoder", kv_budget=float(WINDOW), context_len=float(CONTEXT))
    believed = posterior_acceptance(
        [entry], strategies.load("streaming_llm"), drafter="self", context_len=800.0, kv_budget=448.0
    )
    shown = decoded(decoder, text, "streaming_llm", 7).tokens_per_round
    assert expected_tokens(believed, 7) == pytest.approx(shown, rel=0.06)


def test_what_a_window_misses_a_query_finds_as_the_laws_say(decoder: Decoder, tmp_path: Path) -> None:
    text = text_of(0.5)
    rates = {
        name: fitted(decoded(decoder, text, name, 4), 4, tmp_path / f"{name}.csv").alpha.value
        for name in ("streaming_llm", "topk_oracle")
    }
    assert rates["streaming_llm"] < 0.6 < 0.95 < rates["topk_oracle"]
    assert np.diff([strategies.load(name).acceptance.far.value for name in rates])[0] > 0.9
