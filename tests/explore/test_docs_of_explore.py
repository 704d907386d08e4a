"""The page of documentation says what the service does, with answers that it gives."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("plotly")

from explored import QUESTION, client

import perfmodel
from perfmodel.explore.desk import Limits

PAGE = (Path(perfmodel.__file__).parents[1] / "docs" / "explore.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:json|text)\n(.*?)\n```", PAGE, re.DOTALL)
SERVICE = client()


def test_its_examples_give_the_answers_that_it_shows():
    question, headline, now, decision, refusal = BLOCKS
    assert SERVICE.post("/plan", json=json.loads(question)).json()["headline"] == headline
    answer = SERVICE.post("/decide", json=json.loads(now)).json()
    shown = json.loads(decision)
    assert answer.pop("expected_speedup") == pytest.approx(shown.pop("expected_speedup"), rel=1e-9)
    assert answer == shown
    assert SERVICE.post("/plan", json={**QUESTION, "gama": 3}).json() == json.loads(refusal)


def test_it_names_every_address_and_every_limit():
    paths = SERVICE.get("/openapi.json").json()["paths"]
    assert all(f"`{path}`" in PAGE or f" {path}`" in PAGE or f"`{path}" in PAGE for path in paths)
    limits = Limits()
    configurations = f"{limits.configurations:,} configurations"
    for text in (f"{limits.cells:,} cells", configurations, f"{limits.waiting} requests"):
        assert text in PAGE
    assert f"{limits.seconds:g} s (`--seconds`)" in PAGE
    assert limits.body == 1 << 20
    assert len(PAGE.splitlines()) <= 90
