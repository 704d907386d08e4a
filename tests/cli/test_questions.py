"""Questions that people ask, answered in the direction that was measured: tests/data/questions.csv."""

import csv
from pathlib import Path

import pytest
from asking import asked

FILE = Path(__file__).parents[1] / "data" / "questions.csv"
QUESTIONS = list(csv.DictReader(FILE.read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("row", QUESTIONS, ids=[row["question"] for row in QUESTIONS])
def test_the_answer_lies_where_it_was_measured(row):
    (cell,) = asked("plan", *row["ask"].split())["cells"]
    numbers = {
        "speedup": cell["speedup"],
        "speedup_low": cell["speedup_low"],
        "tpot_ms": cell["tpot_s"] * 1e3,
        "memory_left_gib": cell["memory_left_bytes"] / 2**30,
    }
    number = numbers[row["number"]]
    assert float(row["at_least"]) <= number <= float(row["at_most"]), row["why"]
