"""Exports: what an engine reads back is what was planned, and what it cannot say is said beside it."""

import json
from dataclasses import replace

import pytest
import yaml
from engine_rules import sglang_step_time, sglang_steps, tensorrt_llm_length, vllm_lengths
from hypothesis import given, settings
from hypothesis import strategies as st
from random_plans import cell_of, plan_of, plans

from perfmodel.errors import SpecError
from perfmodel.export import ExportOptions, export, exporters, load
from perfmodel.planning.schedule import collapse
from perfmodel.policy import SpeculationPolicy

EXACT = ExportOptions(max_distinct=None, merge_loss=0.0)
GAMMAS = (0, 1, 2, 3, 5)
HIGH, LOW = {"alpha": 0.9, "draft": 0.05, "verify": 0.0}, {"alpha": 0.1, "draft": 0.5, "verify": 0.2}


def stepped(drafter=("mtp", None, None)):
    """Five up to batch 16, nothing above."""
    cells = [
        cell_of(batch, 8000, GAMMAS, baseline=0.01, drafter=drafter, **(HIGH if batch <= 16 else LOW))
        for batch in (1, 16, 64, 256)
    ]
    return plan_of(cells, GAMMAS)


def unless_off(make):
    """What is made, or None where the contexts together are best served without speculation."""
    try:
        return make()
    except SpecError as refusal:
        if "no speculation" not in str(refusal):
            raise
        return None


def config_of(plan, options=EXACT):
    return json.loads(export(plan, "vllm", options).text)


@settings(max_examples=60)
@given(plans(most_contexts=1))
def test_vllm_reads_back_the_planned_length_of_every_planned_cell(plan):
    config = unless_off(lambda: config_of(plan))
    if config is None:
        return
    table = vllm_lengths(config, 400)
    for cell in plan.cells:
        assert table[cell.batch_size] == cell.gamma


@settings(max_examples=60)
@given(plans(), st.sampled_from(["weight", "regret"]), st.integers(1, 5), st.integers(1, 400))
def test_vllm_reads_back_the_ladder_at_every_batch(plan, by, most, max_batch):
    options = ExportOptions(collapse=by, max_distinct=most, max_batch=max_batch)
    exported = unless_off(lambda: export(plan, "vllm", options))
    if exported is None:
        return
    schedule = exported.schedule
    table = vllm_lengths(json.loads(exported.text), 500)
    assert [schedule.gamma(batch) for batch in range(1, 501)] == table[1:]
    assert len(set(table[1:])) <= most


@settings(max_examples=60)
@given(plans(most_contexts=1))
def test_sglang_reads_back_the_planned_length_of_every_planned_cell(plan):
    text = unless_off(lambda: export(plan, "sglang", replace(EXACT, form="adaptive")).text)
    if text is None:
        return
    for cell in plan.cells:
        assert sglang_steps(text, cell.batch_size) == cell.gamma


@settings(max_examples=60)
@given(plans(), st.sets(st.integers(1, 400), min_size=1, max_size=20))
def test_sglang_reads_back_the_ladder_at_the_padded_batch(plan, graph_sizes):
    exported = unless_off(lambda: export(plan, "sglang", ExportOptions(form="pinned")))
    if exported is None:
        return
    for batch in range(1, 401):
        padded = min((size for size in graph_sizes if size >= batch), default=batch)
        assert sglang_steps(exported.text, batch, graph_sizes) == exported.schedule.gamma(padded)


@settings(max_examples=60)
@given(plans(drafter=("ngram", None, None)), st.sampled_from(["upper", "lower"]))
def test_tensorrt_llm_reads_back_the_ladder_at_every_batch(plan, semantics):
    options = ExportOptions(semantics=semantics)
    exported = unless_off(lambda: export(plan, "tensorrt_llm", options))
    if exported is None:
        return
    config = yaml.safe_load(exported.text)["speculative_config"]
    planned = collapse(plan)
    for batch in range(1, exported.schedule.last_batch + 1):
        length = tensorrt_llm_length(config, batch, semantics)
        assert length == exported.schedule.gamma(batch)
        raised = batch == 1 and any("smallest key" in note for note in exported.notes)
        assert raised or length == planned.gamma(batch)


@settings(max_examples=60)
@given(plans())
def test_the_neutral_table_holds_every_planned_cell(plan):
    body = json.loads(export(plan, "neutral").text)
    for cell in plan.cells:
        row = body["num_speculative_tokens"][body["batch_sizes"].index(cell.batch_size)]
        assert row[body["context_lens"].index(cell.context_len)] == cell.gamma


@settings(max_examples=60)
@given(plans(drafter=("streaming_llm", "small", 512)))
def test_the_other_engines_read_back_what_they_can_hold(plan):
    schedule = collapse(plan)
    openvino = json.loads(export(plan, "openvino").text)
    for first, last, gamma in openvino["num_assistant_tokens_by_batch"]:
        assert {schedule.gamma(first), schedule.gamma(last)} == {gamma}
    assert json.loads(export(plan, "transformers").text)["num_assistant_tokens"] == schedule.gamma(1)
    assert json.loads(export(plan, "dynamo").text)["nextn"] == schedule.most
    if schedule.gamma(1):
        words = export(plan, "llamacpp").text.split()
        assert int(words[words.index("--spec-draft-n-max") + 1]) == schedule.gamma(1)


def test_limits_of_the_cache_hold_the_output_too():
    """8,000 tokens of context and 16,000 of output: 24,000 entries at the end."""
    window = replace(
        stepped(("streaming_llm", None, 2048)), request={"batch_sizes": [1, 16], "output_tokens": 16_000}
    )
    ratio = json.loads(export(window, "vegas", EXACT).text)["sparse_attn_ratio"]
    assert ratio * 24_000 == pytest.approx(2048, rel=1e-4)
    drafting = replace(
        window,
        cells=tuple(replace(cell, strategy="streaming_llm", draft_model="tiny") for cell in window.cells),
    )
    limit = json.loads(export(drafting, "openvino", EXACT).text)["target_cache_eviction"]["max_cache_size"]
    assert limit >= 24_000 + max(window.gammas)


@settings(max_examples=50)
@given(plans(drafter=("streaming_llm", None, 512)))
def test_vegas_keeps_the_budget_in_every_band(plan):
    for band in json.loads(export(plan, "vegas", ExportOptions(form="bands")).text)["bands"]:
        kept = max(band["sparse_attn_min_tokens"], band["sparse_attn_ratio"] * band["context_len"])
        assert kept == pytest.approx(512, abs=0.2)


@settings(max_examples=40)
@given(plans())
def test_the_policy_and_the_neutral_table_answer_alike(plan):
    policy = SpeculationPolicy.from_plan(plan, hysteresis=0.0)
    for cell in plan.cells:
        assert policy.decide(cell.batch_size, cell.batch_size * cell.context_len).gamma == cell.gamma


@pytest.mark.parametrize("form", ["sps", "sps-additive"])
def test_sglang_step_costs_are_the_plans_times(form):
    plan = stepped()
    table = json.loads(export(plan, "sglang", ExportOptions(form=form)).text)
    for cell in plan.cells:
        assert sglang_step_time(table, cell.batch_size, cell.batch_size) == pytest.approx(
            cell.baseline_s, rel=0.02
        )


def test_tensorrt_llm_step_costs_are_milliseconds():
    table = json.loads(export(stepped(), "tensorrt-llm", ExportOptions(form="sps")).text)
    assert table["step_time_ms"][0] == pytest.approx(10.0, rel=0.02)
    assert len(table["batch_sizes"]) == len(table["batch_overhead_ms"]) >= 2


def test_llamacpp_costs_fall_per_token_and_start_at_one():
    text = export(stepped(), "llamacpp", ExportOptions(form="costs")).text
    costs = [float(number) for number in text.strip().removeprefix("GGML_BATCH_COSTS=").split(",")]
    assert costs[0] == 1.0
    assert costs == sorted(costs, reverse=True)
    assert costs[1] == pytest.approx(0.5)  # verification is free in this plan


def test_the_loss_of_one_length_for_two_contexts_is_said_and_right():
    cells = [
        cell_of(4, context, GAMMAS, baseline=0.01, **kind) for context, kind in ((1000, LOW), (64000, HIGH))
    ]
    plan = plan_of(cells, GAMMAS)
    schedule = collapse(plan, by="regret")
    index = GAMMAS.index(schedule.bands[0].gamma)
    worst = 0.0
    for cell in cells:
        from perfmodel.planning.schedule import speedups

        gains = speedups(cell, GAMMAS)
        worst = max(worst, 1.0 - gains[index] / max(gains))
    assert schedule.collapse_worst == pytest.approx(worst)
    assert worst > 0.01
    assert any(
        f"{worst:.2%} in the worst cell" in note
        for note in export(plan, "neutral", ExportOptions(collapse="regret")).notes
    )


def test_the_weight_of_a_context_decides():
    cells = [
        cell_of(4, context, GAMMAS, baseline=0.01, **kind) for context, kind in ((1000, LOW), (64000, HIGH))
    ]
    plan = plan_of(cells, GAMMAS)
    assert collapse(plan, weights={1000: 1.0, 64000: 0.0}).gamma(4) == 0
    assert collapse(plan, weights={1000: 0.0, 64000: 1.0}).gamma(4) == 5
    assert collapse(plan, contexts=(1000, 1000)).gamma(4) == 0


@settings(max_examples=40)
@given(plans())
def test_regret_never_has_a_worse_worst_cell_than_weight(plan):
    exact = {"most_lengths": None, "merge_loss": 0.0}
    by_regret, by_weight = (collapse(plan, by=by, **exact) for by in ("regret", "weight"))
    assert by_regret.collapse_worst <= by_weight.collapse_worst + 1e-9
    assert by_weight.collapse_loss <= by_regret.collapse_loss + 0.02


@settings(max_examples=40)
@given(plans(most_contexts=1), st.floats(0.001, 0.2))
def test_merging_loses_no_more_than_is_allowed(plan, allowed):
    schedule = collapse(plan, most_lengths=None, merge_loss=allowed)
    assert schedule.merge_loss < allowed
    assert len({band.gamma for band in schedule.bands}) <= len({cell.gamma for cell in plan.cells})


def test_bands_cover_every_batch_once():
    schedule = collapse(stepped(), max_batch=512)
    assert schedule.bands[0].first == 1
    assert schedule.bands[-1].last == 512
    assert all(
        before.last + 1 == after.first
        for before, after in zip(schedule.bands, schedule.bands[1:], strict=False)
    )


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt_llm", "llamacpp"])
def test_drafting_with_the_targets_own_weights_is_refused_with_the_engines_reason(engine):
    with pytest.raises(SpecError, match="own weights"):
        export(stepped(("streaming_llm", None, 512)), engine)


@pytest.mark.parametrize("engine", exporters())
def test_a_plan_of_two_deployments_is_refused(engine):
    plan = stepped()
    other = replace(plan.cells[0], kv_budget=64, batch_size=2)
    with pytest.raises(SpecError, match="one-deployment"):
        export(replace(plan, cells=(*plan.cells, other)), engine)


@pytest.mark.parametrize(
    "engine", ["vllm", "sglang", "tensorrt_llm", "transformers", "openvino", "llamacpp", "vegas"]
)
def test_a_plan_that_never_speculates_says_to_start_without(engine):
    plan = stepped()
    off = replace(plan, cells=(plan.cells[-1],))
    with pytest.raises(SpecError, match="without speculation"):
        export(off, engine)


@pytest.mark.parametrize(
    ("engine", "drafter", "says"),
    [
        ("vllm", ("mtp", None, 2048), "PR 53827"),
        ("sglang", ("full_kv", "small", 2048), "no effect with speculative_algorithm=STANDALONE"),
        ("tensorrt_llm", ("mtp", None, 2048), "no window"),
        ("llamacpp", ("mtp", None, 2048), "not exported"),
        ("transformers", ("streaming_llm", "small", 2048), "integrations.transformers"),
        ("openvino", ("streaming_llm", "small", 2048), "--gamma 1,2"),
        ("openvino", ("streaming_llm", "small", 2048), "prefilled whole"),
    ],
)
def test_a_budget_that_an_engine_cannot_hold_is_said(engine, drafter, says):
    assert any(says in note for note in export(stepped(drafter), engine).notes)


def test_sglang_splits_the_budget_into_sinks_and_window():
    words = export(stepped(("mtp", None, 2048)), "sglang").text.split()
    window = int(words[words.index("--speculative-draft-window-size") + 1])
    sinks = int(words[words.index("--speculative-draft-sink-size") + 1])
    assert (window + sinks, sinks) == (2048, 4)


def test_data_parallel_ranks_get_one_length_and_the_reason():
    exported = export(stepped(), "vllm", ExportOptions(data_parallel=2))
    assert "num_speculative_tokens_per_batch_size" not in json.loads(exported.text)
    assert any("ranks could diverge" in note for note in exported.notes)
    with pytest.raises(SpecError, match="not synchronized across DP ranks"):
        export(stepped(), "sglang", ExportOptions(form="adaptive", data_parallel=2))


def test_an_algorithm_that_cannot_change_its_steps_is_refused_with_sglangs_reason():
    plan = stepped(("full_kv", "small", None))
    with pytest.raises(SpecError, match="only EAGLE/EAGLE3 are supported"):
        export(plan, "sglang", ExportOptions(form="adaptive"))
    assert any("keeps 5 steps for all" in note for note in export(plan, "sglang").notes)


def test_a_head_is_a_published_one_or_a_mark_until_one_is_named():
    plan = stepped(("eagle", None, None))
    unknown = export(replace(plan, model="of-mine"), "vllm")
    assert json.loads(unknown.text)["model"] == "FILL-IN-eagle-head-of-of-mine"
    assert any("FILL-IN-eagle-head-of-of-mine stands for" in note for note in unknown.to_do)
    assert config_of(plan, ExportOptions(draft_path="org/head"))["model"] == "org/head"


def test_tensorrt_llm_raises_batch_one_where_its_rule_wants_it():
    cells = [
        cell_of(batch, 8000, GAMMAS, baseline=0.01, **(LOW if batch < 8 else HIGH))
        for batch in (1, 4, 16, 64)
    ]
    exported = export(plan_of(cells, GAMMAS), "tensorrt_llm")
    assert any("batch 1 drafts 5 instead of the planned 0" in note for note in exported.notes)
    assert [exported.schedule.gamma(batch) for batch in (1, 2, 4, 16)] == [5, 0, 0, 5]


@pytest.mark.parametrize(
    ("engine", "options", "says"),
    [
        ("vllmm", {}, "vllm"),
        ("vllm", {"form": "contexts"}, "context"),
        ("vllm", {"collapse": "mean"}, "weight or regret"),
        ("vllm", {"weights": {7: 1.0}}, "give a share"),
        ("vllm", {"contexts": (1, 2)}, "no planned context"),
        ("vllm", {"max_distinct": 0}, "at least one length"),
        ("tensorrt_llm", {"semantics": "middle"}, "upper or lower"),
    ],
)
def test_a_wrong_wish_is_refused_with_what_to_write(engine, options, says):
    with pytest.raises(SpecError, match=says):
        export(stepped(), engine, ExportOptions(**options))


@pytest.mark.parametrize("engine", exporters())
def test_every_exporter_says_which_version_and_when_in_its_first_line(engine):
    import importlib

    exporter = load(engine)
    first = importlib.import_module(f"perfmodel.export.{engine}").__doc__.splitlines()[0]
    assert "2026" in first
    assert "2026" in exporter.checked_with
    assert exporter.forms
