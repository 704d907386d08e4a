"""Exports that keep batch and context: every planned cell is read back, and every length has its graphs."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from engine_rules import (
    SGLANG_CAPTURED,
    sglang_candidates,
    sglang_steps_with_context,
    vllm_graph_lengths,
    vllm_lengths,
    vllm_lengths_with_context,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from random_plans import cell_of, plan_of, plans

from perfmodel.errors import SpecError
from perfmodel.export import ExportOptions, export
from perfmodel.export.grid import grid_of
from perfmodel.policy import SpeculationPolicy

GAMMAS = (0, 1, 2, 3, 4)
SURE, DOUBTFUL, RARE = (
    {"alpha": 0.95, "draft": 0.02, "verify": 0.0},
    {"alpha": 0.6, "draft": 0.1, "verify": 0.25},
    {"alpha": 0.1, "draft": 0.5, "verify": 0.6},
)


def two_axes(drafter=("mtp", None, None), **header):
    """Nothing, 1 and nothing at context 64 of batch 1, 4 and 16; 4, 4 and 1 at context 1024."""
    kinds = {(1, 64): RARE, (1, 1024): SURE, (4, 64): DOUBTFUL, (4, 1024): SURE, (16, 64): RARE,
             (16, 1024): DOUBTFUL}  # fmt: skip
    cells = [
        cell_of(batch, context, GAMMAS, baseline=0.01, drafter=drafter, **kind)
        for (batch, context), kind in kinds.items()
    ]
    assert [cell.gamma for cell in cells] == [0, 4, 1, 4, 0, 1]
    return plan_of(cells, GAMMAS, **header)


def test_the_context_form_is_a_full_grid_from_one_to_infinity():
    config = json.loads(export(two_axes(), "vllm", ExportOptions(form="context")).text)
    far = 2**31 - 1
    assert config["speculative_token_schedule"] == [
        [1, 1, 1, 255, 0], [1, 1, 256, far, 4],
        [2, 7, 1, 255, 1], [2, 7, 256, far, 4],
        [8, 16, 1, 255, 0], [8, 16, 256, far, 1],
    ]  # fmt: skip
    assert config["ctx_agg"] == "mean"


def test_equal_neighbours_are_not_merged_into_a_grid_with_holes():
    plan = two_axes()
    same = replace(plan, cells=tuple(cell for cell in plan.cells if cell.context_len == 1024))
    more = [replace(cell, context_len=64) if cell.batch_size == 4 else cell for cell in same.cells]
    both = replace(plan, cells=(*same.cells, *(cell for cell in more if cell.context_len == 64)))
    config = json.loads(export(both, "vllm", ExportOptions(form="context")).text)
    assert len(config["speculative_token_schedule"]) == 3 * 2
    vllm_lengths_with_context(config, 16)


@settings(max_examples=60)
@given(plans(), st.sampled_from([None, 1, 50, 1000]))
def test_vllm_with_contexts_reads_back_every_planned_cell(plan, max_batch):
    options = ExportOptions(form="context", max_batch=max_batch)
    length = vllm_lengths_with_context(json.loads(export(plan, "vllm", options).text), 400)
    for cell in plan.cells:
        if max_batch is None or cell.batch_size <= max_batch:
            assert length(cell.batch_size, cell.context_len) == cell.gamma


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([[1, 4, 0, 9, 1]], "positive"),
        ([[1, 4, 1, 9, 1], [5, 8, 1, 5, 1], [5, 8, 6, 9, 1]], "full grid"),
        ([[1, 4, 1, 9, 1], [1, 4, 11, 20, 1]], "without gaps"),
        ([[2, 4, 1, 9, 1]], "start at 1"),
        ([[1, 4, 1]], "five numbers"),
    ],
)
def test_the_rules_of_the_pull_request_refuse_what_its_tests_refuse(entries, says):
    config = {"num_speculative_tokens": 4, "speculative_token_schedule": entries, "ctx_agg": "mean"}
    with pytest.raises(ValueError, match=says):
        vllm_lengths_with_context(config, 16)
    with pytest.raises(ValueError, match="alias"):
        vllm_lengths_with_context({"num_speculative_tokens_per_batch_size": entries}, 16)


def test_the_scheduler_class_has_decode_graphs_for_every_length_at_the_widest_batch():
    text = export(two_axes(), "vllm", ExportOptions(form="scheduler", max_batch=256)).text
    config = json.loads(text.split("'")[1])
    assert config["num_speculative_tokens_per_batch_size"] == [[1, 254, 0], [255, 255, 1], [256, 256, 4]]
    assert vllm_graph_lengths(config, 256) == [0, 1, 4]


@settings(max_examples=60)
@given(plans(), st.sampled_from([None, 64, 512]))
def test_every_length_that_the_scheduler_class_may_choose_has_graphs_or_is_named(plan, max_batch):
    exported = export(plan, "vllm", ExportOptions(form="scheduler", max_batch=max_batch))
    config = json.loads(exported.text.split("'")[1])
    last = max_batch or max(cell.batch_size for cell in plan.cells)
    planned = {cell.gamma for cell in plan.cells}
    captured = set(vllm_graph_lengths(config, last))
    assert captured <= planned and vllm_lengths(config, last)[last] == max(planned)
    left_out = any("no batch is left" in note for note in exported.notes)
    assert captured == planned or (left_out and last < len(planned))


def test_a_key_of_sglang_holds_every_length_of_its_batch():
    text = export(two_axes(), "sglang", ExportOptions(form="adaptive")).text
    assert {key: entry["candidate_steps"] for key, entry in json.loads(text).items()} == {
        "1": [0, 4], "2": [1, 4], "8": [0, 1],
    }  # fmt: skip
    pinned = export(two_axes(), "sglang", ExportOptions(form="pinned"))
    assert all(len(entry["candidate_steps"]) == 1 for entry in json.loads(pinned.text).values())


def test_the_batch_that_a_remedy_names_leaves_one_for_every_length():
    def exported(max_batch):
        return export(two_axes(), "vllm", ExportOptions(form="scheduler", max_batch=max_batch))

    (note,) = [note for note in exported(1).notes if "no batch is left" in note]
    enough = int(note.split("max_num_seqs ")[1].split()[0])
    assert enough == 3 and not any("no batch is left" in note for note in exported(enough).notes)
    assert vllm_graph_lengths(json.loads(exported(enough).text.split("'")[1]), enough) == [0, 1, 4]


def test_a_file_that_the_flags_do_not_name_is_told():
    merged = {"max_distinct": 1, "contexts": (1024, 1024)}
    assert "--speculative-adaptive" not in export(two_axes(), "sglang", ExportOptions(**merged)).text
    notes = export(two_axes(), "sglang", ExportOptions(form="adaptive", **merged)).notes
    assert any("one length is left" in note and "--speculative-adaptive-config" in note for note in notes)
    for form in ("adaptive", "pinned"):
        notes = export(two_axes(), "sglang", ExportOptions(form=form)).notes
        assert not any("one length is left" in note for note in notes)


@settings(max_examples=60)
@given(plans())
def test_a_graph_of_sglang_is_captured_for_every_planned_cell(plan):
    """At the sizes it captures by itself and those that the remark adds, the padded batch has the length."""
    exported = export(plan, "sglang", ExportOptions(form="adaptive"))
    (more,) = [note for note in exported.notes if note.startswith("capture batch")] or [""]
    extra = [int(word.strip(",")) for word in more.split(" too:")[0].split()[2:]]
    grid = grid_of(plan, max(cell.batch_size for cell in plan.cells))
    for batch in range(1, 257):
        candidates = sglang_candidates(exported.text, batch, {*SGLANG_CAPTURED, *extra})
        for cell in plan.cells:
            assert grid.length(batch, cell.context_len) in candidates


@settings(max_examples=60)
@given(plans())
def test_sglang_with_contexts_reads_back_every_planned_cell_and_releases_the_candidates(plan):
    text = export(plan, "sglang", ExportOptions(form="context")).text
    for cell in plan.cells:
        assert sglang_steps_with_context(text, cell.batch_size, cell.context_len) == cell.gamma
        assert cell.gamma in sglang_candidates(text, cell.batch_size)


def test_the_steps_at_the_start_are_one_of_the_files():
    for form in ("adaptive", "pinned", "context"):
        exported = export(two_axes(), "sglang", ExportOptions(form=form))
        (start,) = [note for note in exported.notes if note.startswith("start with")]
        steps = int(start.split("--speculative-num-steps ")[1].split()[0])
        assert steps in {
            step for entry in json.loads(exported.text).values() for step in entry["candidate_steps"]
        }
    flags = export(two_axes(), "sglang").text
    assert "--speculative-num-steps 4" in flags and "--speculative-num-draft-tokens 5" in flags


@settings(max_examples=40)
@given(plans(), st.sampled_from([0, 1000]))
def test_grid_and_policy_change_at_the_same_running_context(plan, output_tokens):
    """A running context has half of the output in the mean, which is where a cell is priced."""
    plan = replace(plan, request={"output_tokens": output_tokens})
    policy = SpeculationPolicy.from_plan(plan, hysteresis=0.0)
    grid = grid_of(plan, 400)
    for cell in plan.cells:
        running = cell.context_len + output_tokens // 2
        assert grid.length(cell.batch_size, running) == cell.gamma
        assert policy.decide(cell.batch_size, cell.batch_size * running).gamma == cell.gamma
    text = export(plan, "vllm", ExportOptions(form="context", max_batch=400)).text
    length = vllm_lengths_with_context(json.loads(text), 400)
    for batch in range(1, 401, 7):
        for context in (1, 300, 5000, 40_000, 10**6):
            assert length(batch, context) == policy.decide(batch, batch * context).gamma


def test_a_context_that_is_left_out_is_in_no_range():
    options = ExportOptions(form="context", contexts=(1024, 1024))
    config = json.loads(export(two_axes(), "vllm", options).text)
    assert {tuple(entry[2:4]) for entry in config["speculative_token_schedule"]} == {(1, 2**31 - 1)}
    assert {entry[4] for entry in config["speculative_token_schedule"]} == {1, 4}


def test_lengths_per_context_start_at_one_and_reach_on():
    config = json.loads(export(two_axes(), "vllm", ExportOptions(form="per-seq-len")).text)
    ranges = config["num_speculative_tokens_per_seq_len"]
    assert ranges[0][0] == 1 and ranges[-1][1] == 2**31 - 1
    assert all(before[1] + 1 == after[0] for before, after in pairwise(ranges))


def test_a_plan_that_never_speculates_has_no_form():
    plan = two_axes()
    off = replace(plan, cells=tuple(cell for cell in plan.cells if cell.gamma == 0))
    for engine, form in (("vllm", "context"), ("vllm", "scheduler"), ("sglang", "adaptive")):
        with pytest.raises(SpecError, match="without speculation"):
            export(off, engine, ExportOptions(form=form))
