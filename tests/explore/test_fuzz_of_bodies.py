"""Whatever a body holds, the answer is one that the documentation declares, and no fault of ours."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("plotly")

from explored import QUESTION, client
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.explore.desk import Limits

SERVICE = client(limits=Limits(cells=40, configurations=60_000))
DOCUMENT = SERVICE.get("/openapi.json").json()
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=False)
    | st.text(max_size=12)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
TEXTS = st.sampled_from([
    "1", "64", "0", "-1", "1:8:x2", "1:64:1", "all", "usual", "5,4,16", "worst", "quantile:0.2", "0.8",
    "3.2@4", "fp8", "int4", "bf16", "snapkv", "eagle", "ngram", "all", "32k", "1e9", "nan", "inf", "\u202e",
    "1,2,3", "50ms", "vllm", "sglang@0.4", "llama-3.2-1b", "cost,expected", "",
])  # fmt: skip


def keys_of(name):
    return sorted(DOCUMENT["components"]["schemas"][name]["properties"])


def judge(path, body):
    """Ask, and hold the answer to the documentation."""
    reply = SERVICE.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    responses = DOCUMENT["paths"].get(path, {}).get("post", {}).get("responses", ["200", "422"])
    declared = {*map(int, responses), 400}
    assert reply.status_code in declared, (reply.status_code, reply.text[:500])
    said = reply.json()
    if reply.status_code != 200:
        assert said["status"] == reply.status_code
        assert said["detail"]
    assert "Traceback" not in reply.text
    return said


@given(st.sampled_from(["/plan", "/price", "/decide"]), ANYTHING)
def test_anything_at_all_is_answered_in_words(path, body):
    judge(path, body)


@given(st.dictionaries(st.sampled_from(keys_of("Question")), TEXTS | SCALARS, max_size=3))
def test_a_question_with_strange_values_is_answered_in_words(values):
    judge("/plan", QUESTION | values)


@given(st.dictionaries(st.sampled_from(keys_of("Case")), TEXTS | SCALARS, max_size=4))
def test_a_case_with_strange_values_keeps_its_place(values):
    case = {
        "hardware": "h100-sxm-80gb", "target_model": "llama-3.1-8b", "strategy": "snapkv",
        "context_len": 1000, "batch_size": 4, "gamma": 2,
    }  # fmt: skip
    said = judge("/price", {"cases": [case | values, case]})
    if "cases" in said:
        assert len(said["cases"]) == 2
        assert said["cases"][1]["speedup"] is not None


PLAN = SERVICE.post("/plan", json=QUESTION).json()["plan"]


@given(st.sampled_from(sorted(PLAN)), ANYTHING, st.integers(0, 10**6), st.integers(0, 10**12))
def test_a_damaged_plan_is_refused_or_decided_upon(key, value, batch, tokens):
    judge("/decide", {"plan": PLAN | {key: value}, "batch_size": batch, "kv_tokens": tokens})


@given(st.dictionaries(st.sampled_from(sorted(PLAN["cells"][0])), SCALARS, min_size=1, max_size=2))
def test_a_damaged_cell_is_refused_or_decided_upon(values):
    cells = [PLAN["cells"][0] | values]
    judge("/decide", {"plan": PLAN | {"cells": cells}, "batch_size": 8, "kv_tokens": 80_000})


@given(ANYTHING, TEXTS, TEXTS)
def test_what_the_page_asks_is_answered_in_words(strategy, batches, contexts):
    body = {"question": QUESTION | {"strategy": strategy}, "batches": batches, "contexts": contexts}
    judge("/explore", body)
    judge("/export", {"question": QUESTION, "format": batches})
