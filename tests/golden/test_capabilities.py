"""Nothing that a user can call or read is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden.capabilities import compare, snapshot

HELD = json.loads(Path(__file__).with_name("capabilities.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compared():
    return compare(HELD, snapshot())


@pytest.mark.parametrize("kind", HELD)
def test_nothing_of_a_kind_is_lost(kind, compared):
    kept, everything, lost = compared[kind]
    assert not lost and kept == everything, f"{kind}: lost {lost[:20]}"
