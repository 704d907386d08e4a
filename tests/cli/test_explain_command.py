"""`draftplan explain`: one cell in depth."""

from __future__ import annotations

import pytest
from asking import CELL, ON, QUICK, asked, run


def test_an_explanation_adds_up():
    explanation = asked("explain", *CELL, "--strategy", "streaming_llm,snapkv")
    behind = explanation["breakdown"]
    (cell,) = explanation["cells"]
    target, draft, verify = behind["passes"]
    for row in behind["passes"]:
        causes = [row[f"{cause}_s"] for cause in ("linear", "attention", "communication", "overhead")]
        assert row["total_s"] >= max(causes)
        assert row["weight_bytes"] > 0
        assert row["kv_bytes"] > 0
        assert row["flops"] > 0
    assert target["total_s"] == pytest.approx(cell["baseline_s"])
    assert verify["total_s"] == pytest.approx(cell["verify_s"])
    mean_context = cell["context_len"] + explanation["request"]["output_tokens"] / 2
    with_drafts = (mean_context + cell["gamma"]) / mean_context
    assert draft["kv_bytes"] < target["kv_bytes"]
    assert verify["kv_bytes"] == pytest.approx(with_drafts * target["kv_bytes"])
    assert verify["flops"] > target["flops"]
    resident = dict(behind["resident_bytes"])
    total, usable = resident.pop("total"), resident.pop("usable")
    assert sum(resident.values()) == pytest.approx(total)
    assert total == pytest.approx(cell["memory_bytes_per_gpu"])
    assert total < usable
    best, *others = behind["options"]
    assert best["tpot_s"] == pytest.approx(cell["tpot_s"])
    assert {row["drafter"] for row in behind["options"]} == {"streaming_llm", "snapkv", "none"}
    assert all(other["tpot_s"] >= best["tpot_s"] for other in others)


def test_every_speculation_length_has_its_break_even():
    rows = asked("explain", *CELL, *QUICK, "--acceptance-rate", "0.7")["breakdown"]["by_gamma"]
    assert [row["gamma"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["speedup"] == 1.0
    assert rows[0]["break_even_alpha"] is None
    for row in rows[1:]:
        assert row["break_even_alpha"] is None or (row["break_even_alpha"] < 0.7) == (row["speedup"] > 1.0)


def test_an_explanation_is_drawn_in_sections():
    result = run("explain", *CELL)
    assert result.exit_code == 0
    for title in ("Time of each pass", "reads and computes", "Resident memory", "Every speculation length",
                  "The best of every strategy", "Assumed"):  # fmt: skip
        assert title in result.stdout


def test_plain_decoding_is_explained_with_what_would_have_drafted():
    result = run("explain", *ON, "--context", "1k", "-b", "1", *QUICK, "--acceptance-rate", "0.01")
    assert result.exit_code == 0
    assert "plain decoding, 1.00 tokens per round" in result.stdout
    assert "Every speculation length of streaming_llm" in result.stdout
    assert run("explain", *CELL, "--gamma", "0").exit_code == 0
