"""The answers to a dozen questions stay what they are, to ten digits."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from golden.questions import QUESTIONS, ask, differences

HELD = json.loads(Path(__file__).with_name("answers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", QUESTIONS)
def test_an_answer_is_what_it_was(name):
    changed = list(islice(differences(HELD[name], ask(name)), 20))
    assert not changed, (
        f"draftplan {QUESTIONS[name]}\n" + "\n".join(changed) + "\n"
        "If this is meant, say so in CHANGELOG.md and run: make golden"
    )


def test_every_question_has_an_answer():
    assert list(HELD) == list(QUESTIONS)
