"""Cells are columns, and behave as the tuple of cells that they were."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutated import H100, IDEAL, LLAMA, QUESTIONS, SNAP
from random_plans import plans

from perfmodel.planning import answers, plan_json
from perfmodel.planning.cells import Cells
from perfmodel.planning.columns import Cell
from perfmodel.planning.packed import Coded, join, pack
from perfmodel.planning.plan import OBJECTIVES, Plan
from perfmodel.planning.planner import plan
from perfmodel.policy import SpeculationPolicy
from perfmodel.workload import Workload

SQUARE = Workload(tuple(range(1, 101)), tuple(range(1000, 101_000, 1000)))
VALUES = [
    st.floats() | st.none(), st.floats(), st.integers(), st.integers() | st.none(), st.text() | st.none(),
    st.lists(st.floats(allow_nan=False)).map(tuple), st.lists(st.integers()).map(tuple),
    st.booleans() | st.integers() | st.floats() | st.none(), st.lists(st.integers()),
]  # fmt: skip


def same(value, other) -> bool:
    """Whether two values are of one type and print alike: -0.0 is not 0.0, 1 not 1.0 and nan is nan."""
    return type(value) is type(other) and repr(value) == repr(other)


@given(st.one_of(*map(st.lists, VALUES)))
def test_what_is_packed_comes_back_as_it_was(values):
    assert all(map(same, pack(values, len(values)).listed(), values))


@given(st.one_of(*[st.lists(st.lists(each, min_size=1), min_size=1, max_size=4) for each in VALUES]),
       st.randoms())
def test_parts_are_joined_in_their_places(parts, random):
    size = sum(map(len, parts))
    order = random.sample(range(size), size)
    places = np.split(np.array(order), np.cumsum([len(part) for part in parts])[:-1])
    joined = join([pack(part, len(part)) for part in parts], places, size).listed()
    flat = [value for part in parts for value in part]
    assert all(same(joined[place], value) for place, value in zip(order, flat, strict=True))


def test_one_value_takes_no_memory_a_cell():
    packed = pack(np.full(10**6, 3.5), 10**6)
    assert isinstance(packed, Coded)
    assert packed.codes.strides == (0,)


@given(plans(), st.data())
def test_cells_behave_as_their_tuple(planned, data):
    cells, whole = planned.cells, tuple(planned.cells)
    start, stop, step = (data.draw(st.integers(-8, 8) | st.none()) for _ in range(3))
    assert cells == whole
    assert whole == cells
    assert hash(cells) == hash(whole)
    assert repr(cells) == repr(whole)
    assert (len(cells), cells[0], cells[-1]) == (len(whole), whole[0], whole[-1])
    assert tuple(cells[start:stop:step or 1]) == whole[start:stop:step or 1]
    assert [*reversed(cells)] == [*reversed(whole)]
    assert whole[0] in cells
    assert cells != whole[1:]
    assert pickle.loads(pickle.dumps(cells)) == copy.deepcopy(cells) == whole
    with pytest.raises(IndexError):
        cells[len(whole)]


@given(plans())
def test_a_cell_that_is_asked_for_is_a_cell(planned):
    for cell in planned.cells:
        made = Cell(**asdict(cell))
        assert type(cell) is Cell
        assert made == cell
        assert hash(made) == hash(cell)
        assert [*vars(cell)] == [*vars(made)]
        assert replace(cell, gamma=3).gamma == 3
        assert planned.cell(cell.batch_size, cell.context_len) == cell
    with pytest.raises(KeyError):
        planned.cell(301, 7)


def test_the_first_of_several_cells_of_one_place_is_its_cell():
    cell = Cell(8, 1000, "none", None, None, 0, 1.0, 0.01, 0.01, 1.0, "linear")
    cells = [replace(cell, batch_size=9), cell, replace(cell, tpot_s=0.02)]
    assert Plan("m", "h", "e", 1, "speedup", cells).cell(8, 1000) == cell


@pytest.mark.parametrize("name", QUESTIONS)
def test_rows_dict_and_json_are_those_of_the_cells(name, monkeypatch):
    monkeypatch.setattr(plan_json, "BLOCK", 3)
    question, more = QUESTIONS[name]
    planned = plan(*question, **more)
    cells = [asdict(cell) for cell in planned.cells]
    body = {"schema": "draftplan/plan/1", **planned.header, "cells": cells}
    listed = [{**cell, "round_by_gamma_s": [*cell["round_by_gamma_s"]]} for cell in cells]
    assert planned.to_dict() == {**body, "cells": listed}
    assert planned.to_json() == json.dumps(body, indent=1) + "\n"
    assert planned.rows == [
        {key: value for key, value in cell.items() if key != "round_by_gamma_s"} for cell in cells
    ]
    more = {"more": [{"%s": 1.5}]}
    assert json.loads("".join(planned.json_texts(more=more))) == json.loads(json.dumps(body | more))


def test_a_number_that_json_lacks_is_refused_or_written_by_who_asks():
    cell = Cell(8, 1000, "a%\n", None, None, 0, 1.0, float("inf"), 0.01, 1.0, "linear")
    odd = Plan("m", "h", "e", 1, "speedup", (cell, replace(cell, tpot_s=0.5)))
    with pytest.raises(ValueError, match="JSON"):
        odd.to_json()
    text = "".join(odd.json_texts(lambda value: json.dumps(value, indent=1)))
    assert text == json.dumps(odd.to_dict(), indent=1) + "\n"


def test_a_cell_of_a_plan_takes_few_bytes():
    tracemalloc.start()
    planned = plan(H100, LLAMA, IDEAL, SQUARE, drafters=[SNAP], gammas=(3,), tensor_parallel=8, draws=0)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(planned.cells) < 600


def test_json_is_written_in_bounded_memory(monkeypatch):
    planned = plan(H100, LLAMA, IDEAL, SQUARE, drafters=[SNAP], gammas=(3,), tensor_parallel=8, draws=0)
    monkeypatch.setattr(plan_json, "BLOCK", 256)
    tracemalloc.start()
    length = sum(map(len, planned.json_texts()))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert length > 1000 * len(planned.cells)
    assert most < 0.3 * length


def test_cells_are_made_only_where_somebody_asks(monkeypatch):
    made = []
    whole = Cells._made

    def counted(self, *at):
        cells = [*whole(self, *at)]
        made.extend(cells)
        return iter(cells)

    monkeypatch.setattr(Cells, "_made", counted)
    planned = plan(H100, LLAMA, IDEAL, SQUARE, drafters=[SNAP], gammas=(3,), tensor_parallel=8)
    planned.check()
    planned.to_json()
    assert len(made) < 10


def test_of_several_machines_the_first_of_the_best_is_taken():
    cell = Cell(8, 1000, "none", None, None, 0, 1.0, 0.01, 0.01, 1.0, "linear")
    cell = replace(cell, cost_per_million_tokens_usd=2.0)
    offers = [
        replace(cell, hardware="slow and dear", tpot_s=0.02, cost_per_million_tokens_usd=3.0, speedup=9.0),
        replace(cell, hardware="first"), replace(cell, hardware="as good"),
        replace(cell, hardware="cheap", tpot_s=0.04, cost_per_million_tokens_usd=1.0),
    ]  # fmt: skip

    def best(objective):
        answered = [answers.Answered(Cells.of([each], Cell), np.array([0]), Counter()) for each in offers]
        return answers.best_answers(answered, objective)[0].hardware

    assert {name: best(name) for name in OBJECTIVES} == {
        "speedup": "first", "throughput": "first", "tpot": "first", "cost": "cheap",
    }  # fmt: skip


def test_a_policy_checks_what_it_reads_once(tmp_path, monkeypatch):
    from perfmodel.planning import believed

    planned = plan(H100, LLAMA, IDEAL, Workload((4, 8), (1000,)), drafters=[SNAP], gammas=(3,), draws=0)
    (tmp_path / "plan.json").write_text(planned.to_json())
    checked = []
    whole = believed.believe
    monkeypatch.setattr(believed, "believe", lambda *given: checked.append(1) or whole(*given))
    SpeculationPolicy.load(tmp_path / "plan.json")
    assert len(checked) == 1
    SpeculationPolicy.from_plan(planned)
    assert len(checked) == 2


def test_pieces_are_answered_wherever_they_are_sent():
    class Elsewhere:
        """An executor that pickles what it is sent and what it returns."""

        def map(self, fn, *work):
            for arguments in zip(*work, strict=True):
                yield pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(fn))(*arguments)))

    question, more = QUESTIONS["self"]
    planned = plan(*question, **more)
    hardware, target, engine, workload = question
    deployment = answers.Deployment(hardware, target, engine, 1)
    space = answers.SearchSpace([None, SNAP], [*range(6)])
    asked = {"draws": 200, "seed": 0}
    here, there = (
        answers.answer_cells(deployment, workload, space, answers.Constraints(), executor=executor, **asked)
        for executor in (None, Elsewhere())
    )
    assert here.cells == there.cells == planned.cells
    assert np.array_equal(here.place, there.place)
