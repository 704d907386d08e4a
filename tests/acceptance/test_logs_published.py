"""Lines that people posted give the rounds, lengths and rates that their engines had."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.acceptance.logs import read_log
from perfmodel.errors import SpecError

V0 = (
    "INFO 10-02 09:00:0{second} metrics.py:455] Speculative metrics: Draft acceptance rate: 0.760, System "
    "efficiency: {efficiency}, Number of speculative tokens: 4, Number of accepted tokens: {accepted}, "
    "Number of draft tokens: {drafted}, Number of emitted tokens: {emitted}."
)
V0_LOG = "\n".join(
    (
        V0.format(second=1, efficiency=0.551, accepted=3150, drafted=4152, emitted=2880),
        V0.format(second=6, efficiency=0.555, accepted=6310, drafted=8304, emitted=5765),
    )
)
MEDUSA = (
    "INFO 07-24 09:00:31 metrics.py:316] Speculative metrics: Draft acceptance rate: 0.000, System "
    "efficiency: 0.059, Number of speculative tokens: 16, Number of accepted tokens: 0, "
    "Number of draft tokens tokens: 42272, Number of emitted tokens tokens: 2642."
)
SHORT = (
    "INFO 04-20 09:00:01 [metrics.py:72] SpecDecoding metrics: Draft acceptance rate: {}%, "
    "Accepted: {} tokens, Drafted: {} tokens\n"
)
SHORT_LOG = SHORT.format(48.8, 1340, 2745) + SHORT.format(51.2, 1540, 3005)
NGRAM = (
    "INFO 06-06 09:20:34 [metrics.py:86] SpecDecoding metrics: Draft acceptance rate: 38.8%, Mean acceptance "
    "length: 2.16, Accepted: 150 tokens, Drafted: 387 tokens, "
    "Per-position acceptance rate: 0.543, 0.357, 0.264\n"
    "INFO 06-06 09:20:44 [metrics.py:86] SpecDecoding metrics: Draft acceptance rate: 48.7%, Mean acceptance "
    "length: 2.46, Accepted: 725 tokens, Drafted: 1488 tokens, "
    "Per-position acceptance rate: 0.615, 0.464, 0.383"
)
SCHEDULED = (
    "(APIServer pid=6814) INFO 11-28 02:23:03 [metrics.py:120] SpecDecoding metrics: Mean acceptance length: "
    "2.27, Accepted throughput: 0.76 tokens/s, Drafted throughput: 0.76 tokens/s, Accepted: 213 tokens, "
    "Drafted: 213 tokens, Per-position acceptance rate: 1.000, 0.089, 0.089, 0.089, "
    "Avg Draft acceptance rate: 100.0%"
)
OFFLINE = (
    "total_num_output_tokens: 16990\nnum_drafts: 4816\nnum_draft_tokens: 33712\nnum_accepted_tokens: 12208\n"
    "mean acceptance length: 3.53\n"
) + "".join(
    f"acceptance at token {place}: {rate}\n"
    for place, rate in enumerate(("0.78", "0.59", "0.43", "0.30", "0.21", "0.14", "0.08"))
)


def sglang(sign: str, *printed: tuple[str, str]) -> str:
    return "\n".join(
        f"[2025-10-02 09:00:57] Decode batch{sign} #running-req: 1, #token: 108, token usage: 0.00, "
        f"accept len: {length}, accept rate: {rate}, cuda graph: True, gen throughput (token/s): 178.86, "
        "#queue-req: 0, "
        for length, rate in printed
    )


OVER_DRAFT_TOKENS = sglang(
    ".", ("2.17", "0.54"), ("1.95", "0.49"), ("1.80", "0.45"), ("2.05", "0.51"), ("1.80", "0.45")
)
OVER_STEPS = sglang(".", ("3.60", "1.20"), ("3.30", "1.10"))
OVER_DRAFTED = sglang(",", ("3.40", "0.48"), ("3.20", "0.44"), ("3.60", "0.52"), ("3.05", "0.41"))

LOGS = {
    "vLLM V0": (V0_LOG, None, 2076, 2.777, 4),
    "vLLM V0, Medusa": (MEDUSA, None, 2642, 1.000, 16),
    "vLLM 0.8": (SHORT_LOG, 3, 915 + 3005 / 3, 2.503, 3),
    "vLLM 0.9, n-gram": (NGRAM, None, 129 + 496, 2.400, 3),
    "vLLM under a schedule": (SCHEDULED, None, 168, 2.267, 4),
    "vLLM's offline example": (OFFLINE, None, 4816, 3.535, 7),
    "SGLang 0.5.3": (OVER_DRAFT_TOKENS, None, 200, 1.954, 3),
    "SGLang of early October 2025": (OVER_STEPS, None, 80, 3.45, 3),
    "SGLang of 2026": (OVER_DRAFTED, None, 160, 3.3125, 5),
}
"""Log, gamma that is given beside it, rounds, tokens per round, and the longest draft."""


@pytest.mark.parametrize("name", LOGS)
def test_a_posted_log_gives_its_rounds_and_tokens_per_round(name: str, tmp_path: Path) -> None:
    text, gamma, rounds, tokens, longest = LOGS[name]
    file = tmp_path / "posted.log"
    file.write_text(text, encoding="utf-8")
    counts = read_log(file, "auto", gamma)
    assert counts.rounds.sum() == pytest.approx(rounds, rel=2e-3)
    assert 1.0 + counts.accepted.sum() / counts.rounds.sum() == pytest.approx(tokens, abs=2e-3)
    assert set(counts.gamma) == {float(longest)}


def test_tokens_per_round_of_engine_v0_are_its_system_efficiency(tmp_path: Path) -> None:
    file = tmp_path / "v0.log"
    file.write_text(V0_LOG, encoding="utf-8")
    counts = read_log(file)
    tokens = 1.0 + counts.accepted[0] / counts.rounds[0]
    assert tokens / (counts.gamma[0] + 1.0) == pytest.approx(0.555, abs=5e-4)


def test_a_whole_line_is_never_called_damaged(tmp_path: Path) -> None:
    file = tmp_path / "short.log"
    file.write_text(SHORT_LOG, encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        read_log(file)
    assert "0.8.3 to 0.8.5" in str(refused.value) and "--gamma" in str(refused.value)
    assert "again" not in str(refused.value) and "not whole" not in str(refused.value)
