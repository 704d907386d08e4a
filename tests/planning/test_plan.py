"""A plan on paper: it reads back as it was written, and what is damaged is refused by name."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, fields

import pytest
from hypothesis import given
from random_plans import plans

from perfmodel.errors import SpecError
from perfmodel.planning.plan import NO_DRAFT, SCHEMA, Cell, Plan

GOOD = Plan(
    "m",
    "h",
    "e",
    8,
    "speedup",
    (
        Cell(
            32, 4096, "snapkv", None, 512, 1, 1.9, 0.01, 0.012, 1.2, "attention",
            round_by_gamma_s=(0.012, 0.019),
        ),
    ),
    gammas=(0, 1),
)


@given(plans())
def test_a_plan_reads_back_as_it_was_written(plan):
    assert Plan.from_dict(json.loads(plan.to_json())) == plan


@given(plans())
def test_its_json_is_plain_and_complete(plan):
    body = json.loads(plan.to_json())
    assert body["schema"] == SCHEMA
    assert [set(cell) for cell in body["cells"]] == [{field.name for field in fields(Cell)}] * len(plan.cells)
    assert body["cells"][0]["speedup"] == plan.cells[0].speedup


def test_the_columns_that_others_rely_on_are_there():
    choice = "batch_size context_len strategy draft_model kv_budget gamma"
    numbers = "tokens_per_round tpot_s baseline_s speedup bound_by"
    assert set(f"{choice} {numbers}".split()) <= set(asdict(GOOD.cells[0]))


def test_numbers_that_json_has_no_word_for_are_never_written():
    broken = Plan("m", "h", "e", 1, "speedup", GOOD.cells, inflection_context_len=math.inf)
    with pytest.raises(ValueError, match="JSON"):
        broken.to_json()


def damaged(place: str, value: object) -> dict:
    body = copy.deepcopy(GOOD.to_dict())
    at, *inner = place.split(".")
    if inner:
        body[at][0][inner[0]] = value
    else:
        body[at] = value
    return body


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema", "draftplan/plan/999"),
        ("cells", []),
        ("cells", 3),
        ("gammas", [1, 0]),
        ("gammas", [0, 2]),
        ("tensor_parallel", "eight"),
        ("cells.batch_size", 0),
        ("cells.batch_size", "many"),
        ("cells.kv_budget", 0),
        ("cells.speedup", -1.0),
        ("cells.tpot_s", math.nan),
        ("cells.alpha", 1.5),
        ("cells.round_by_gamma_s", [1.0, 2.0, 3.0]),
    ],
    ids=str,
)
def test_a_damaged_plan_is_refused_with_a_remedy(place, value):
    with pytest.raises(SpecError) as refusal:
        Plan.from_dict(damaged(place, value), "kept.json")
    assert str(refusal.value).startswith("kept.json")
    assert "draftplan plan" in str(refusal.value)


@pytest.mark.parametrize("body", [None, [], "plan", {}, {"cells": []}], ids=str)
def test_what_is_no_plan_is_refused(body):
    with pytest.raises(SpecError, match="schema"):
        Plan.from_dict(body)


def test_a_plan_without_one_of_its_parts_names_it():
    body = GOOD.to_dict()
    del body["engine"]
    with pytest.raises(SpecError, match="engine"):
        Plan.from_dict(body)


def test_a_cell_speculates_when_it_drafts():
    assert GOOD.cells[0].speculates
    assert not Cell(1, 1, NO_DRAFT, None, None, 0, 1.0, 1.0, 1.0, 1.0, "linear").speculates
