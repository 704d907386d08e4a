"""What an export loses is said and can be refused; what it names is found, or says what to fill in."""

import json

import pytest
import yaml
from engine_rules import llamacpp_drafted, tensorrt_llm_length, vllm_lengths
from hypothesis import given, settings
from random_plans import cell_of, plan_of, plans
from test_both_axes import two_axes
from test_export import GAMMAS, HIGH, LOW, stepped
from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.errors import SpecError
from perfmodel.export import ExportOptions, export, exporters, load
from perfmodel.export.checkpoints import FILL_IN, hub_id
from perfmodel.export.loss import loss_of
from perfmodel.model.names import bundled_models
from perfmodel.planning.schedule import collapse, speedups
from perfmodel.software.checked import CHECKED, newer_than

COLLAPSING = [
    ("vllm", None), ("vllm", "per-seq-len"), ("sglang", None), ("sglang", "pinned"), ("tensorrt_llm", None),
    ("llamacpp", None), ("openvino", None), ("transformers", None), ("dynamo", None),
]  # fmt: skip
WHOLE = [("vllm", "context"), ("vllm", "scheduler"), ("sglang", "adaptive"), ("sglang", "context")]


@settings(max_examples=60)
@given(plans())
def test_the_loss_of_a_schedule_is_that_of_its_collapse(plan):
    schedule = collapse(plan, most_lengths=None, merge_loss=0.0)
    loss = loss_of(plan, lambda batch, _: schedule.gamma(batch))
    assert loss.mean == pytest.approx(schedule.collapse_loss, abs=1e-12)
    assert loss.worst == pytest.approx(schedule.collapse_worst, abs=1e-12)
    cell = plan.cell(loss.batch_size, loss.context_len)
    speed = dict(zip(plan.gammas, speedups(cell, plan.gammas), strict=True))
    assert loss.worst == pytest.approx(1.0 - speed[loss.drafted] / speed[loss.planned])
    assert loss_of(plan, lambda batch, context: plan.cell(batch, context).gamma).worst == 0.0


@pytest.mark.parametrize(("engine", "form"), COLLAPSING + WHOLE)
def test_every_export_says_what_it_loses(engine, form):
    exported = export(stepped(("full_kv", "a/b", None)) if engine == "transformers" else stepped(), engine,
                      ExportOptions(form=form)) if engine != "openvino" else export(
        stepped(("full_kv", "a/b", None)), engine)  # fmt: skip
    assert sum("speed" in note and "lost" in note for note in exported.notes) >= 1


@pytest.mark.parametrize(("engine", "form"), COLLAPSING)
def test_a_collapse_that_loses_more_is_refused_with_the_cell(engine, form):
    drafter = ("full_kv", "a/b", None) if engine in ("openvino", "transformers") else ("mtp", None, None)
    cells = [
        cell_of(batch, context, GAMMAS, baseline=0.01, drafter=drafter, **kind)
        for batch in (1, 8)
        for context, kind in ((1000, LOW if batch > 1 else HIGH), (64000, HIGH if batch > 1 else LOW))
    ]
    plan = plan_of(cells, GAMMAS)
    options = {"form": form, "collapse": "regret"}
    notes = export(plan, engine, ExportOptions(**options)).notes
    worst = max(float(note.split("average, ")[1].split("%")[0]) for note in notes if "average, " in note)
    export(plan, engine, ExportOptions(**options, max_loss=worst / 100 + 1e-3))
    with pytest.raises(SpecError, match=r"--max-loss.*batch [18], context (1000|64000)"):
        export(plan, engine, ExportOptions(**options, max_loss=worst / 100 - 1e-3))


@pytest.mark.parametrize(("engine", "form"), WHOLE)
def test_a_form_with_both_axes_loses_nothing(engine, form):
    export(two_axes(), engine, ExportOptions(form=form, max_loss=0.0))


@settings(max_examples=60)
@given(plans())
def test_what_is_not_refused_at_no_loss_is_read_back_as_planned_in_speed(plan):
    exported = unless(("--max-loss", "no speculation"), plan, "vllm", max_loss=0.0)
    if exported is not None:
        table = vllm_lengths(json.loads(exported.text), 400)
        assert loss_of(plan, lambda batch, _: table[batch]).worst <= 1e-9
    exported = unless(("--max-loss", "no speculation"), plan, "tensorrt_llm", max_loss=0.0)
    if exported is not None:
        config = yaml.safe_load(exported.text)["speculative_config"]
        assert loss_of(plan, lambda batch, _: tensorrt_llm_length(config, batch)).worst <= 1e-9


def test_a_context_of_no_weight_loses_nothing():
    plan = two_axes()
    options = {"weights": {64: 0.0, 1024: 1.0}, "merge_loss": 0.0}
    export(plan, "vllm", ExportOptions(**options, max_loss=1e-9))
    with pytest.raises(SpecError, match="--max-loss"):
        export(plan, "vllm", ExportOptions(max_loss=1e-9))


def test_the_command_refuses_a_loss_with_its_remedy(tmp_path):
    (tmp_path / "plan.json").write_text(two_axes().to_json())
    arguments = ["export", str(tmp_path / "plan.json"), "--engine", "vllm", "--max-loss", "0.05"]
    refused = CliRunner().invoke(app, arguments, prog_name="draftplan")
    assert refused.exit_code != 0 and "Traceback" not in refused.output
    assert "--max-loss" in refused.output and "batch 1, context 1024" in refused.output


@settings(max_examples=60)
@given(plans(drafter=("ngram", None, None)))
def test_llamacpp_drafts_the_planned_tokens_after_every_match(plan):
    exported = unless(("batch 1",), plan, "llamacpp")
    if exported is not None:
        gamma = exported.schedule.gamma(1)
        assert llamacpp_drafted(exported.text, following=1000) == gamma
        assert "--spec-draft-n-max" not in exported.text
        words = exported.text.split()
        lookup = int(words[words.index("--spec-ngram-simple-size-n") + 1])
        assert 1 <= lookup <= gamma


def unless(words, plan, engine, **options):
    """What is exported, or None where it is refused in one of these words."""
    try:
        return export(plan, engine, ExportOptions(**options))
    except SpecError as refusal:
        if not any(word in str(refusal) for word in words):
            raise
        return None


def test_lookups_of_llamacpp_have_flags_of_their_own():
    plan = stepped(("ngram", None, None))
    assert export(plan, "llamacpp").text == (
        "--spec-type ngram-simple --spec-ngram-simple-size-n 3 --spec-ngram-simple-size-m 5 --metrics\n"
    )
    assert "--spec-ngram-map-k-size-m 5" in export(plan, "llamacpp", ExportOptions(method="ngram-map-k")).text
    assert "--spec-ngram-mod-n-max 5" in export(plan, "llamacpp", ExportOptions(method="ngram-mod")).text
    with pytest.raises(SpecError, match="no flag for the length"):
        export(plan, "llamacpp", ExportOptions(method="ngram-cache"))
    heads = export(stepped(("mtp", None, None)), "llamacpp").text
    assert "--spec-draft-n-max 5" in heads and "--metrics" in heads
    assert "--speculative-ngram-max-bfs-breadth 1" in export(plan, "sglang").text
    assert json.loads(export(plan, "openvino").text)["generation_config"]["max_ngram_size"] == 3


def test_one_thing_is_told_in_the_singular():
    plan = plan_of([cell_of(1, 8000, (0, 1), baseline=0.01, drafter=("ngram", None, None), **HIGH)], (0, 1))
    notes = export(plan, "llamacpp").notes
    assert any("a lookup of 1 token:" in note for note in notes)
    notes = export(two_axes(), "vllm", ExportOptions(form="scheduler", max_batch=1)).notes
    assert any("read for its 1 length alone" in note for note in notes)


def test_a_lookup_longer_than_the_draft_drafts_nothing():
    assert llamacpp_drafted("--spec-type ngram-simple --spec-draft-n-max 4", 1000) == 48
    flags = "--spec-type ngram-simple --spec-ngram-simple-size-n 12 --spec-ngram-simple-size-m 4"
    assert llamacpp_drafted(flags, 1000) == 0
    assert llamacpp_drafted(flags.replace("12", "3"), 1000) == 4


@pytest.mark.parametrize(
    ("version", "means"),
    [("1.2.1", "lower"), ("1.2.0rc4", "lower"), ("1.3.0", "upper"), ("1.4.0rc4", "upper")],
)
def test_tensorrt_llm_is_told_in_the_words_of_its_release(version, means):
    exported = export(stepped(("ngram", None, None)), "tensorrt_llm", ExportOptions(engine_version=version))
    config = yaml.safe_load(exported.text)["speculative_config"]
    assert [tensorrt_llm_length(config, batch, means) for batch in (1, 16, 64, 256)] == [5, 5, 0, 0]
    assert f"# keys are {'lower' if means == 'lower' else 'inclusive upper'} bounds" in exported.text


@pytest.mark.parametrize("drafter", ["mtp", "eagle"])
def test_a_schedule_that_a_release_does_not_follow_is_neither_written_nor_priced(drafter):
    plan = stepped((drafter, None, None))
    options = {"engine_version": "1.2.1", "draft_path": "org/head"}
    exported = export(plan, "tensorrt_llm", ExportOptions(**options))
    config = yaml.safe_load(exported.text)["speculative_config"]
    assert "draft_len_schedule" not in config and config["max_draft_len"] == 5
    assert {exported.schedule.gamma(batch) for batch in (1, 16, 64, 256)} == {5}
    loss = loss_of(plan, lambda *_: 5)
    assert loss.worst > 0.0 and f"one length for every cell: {loss}" in exported.notes
    assert any("max_draft_len of 5 holds for every batch" in note for note in exported.notes)
    with pytest.raises(SpecError, match="--max-loss"):
        export(plan, "tensorrt_llm", ExportOptions(**options, max_loss=loss.worst / 2.0))
    followed = export(plan, "tensorrt_llm", ExportOptions(draft_path="org/head", engine_version="1.3.0"))
    assert "draft_len_schedule" in yaml.safe_load(followed.text)["speculative_config"]


@pytest.mark.parametrize(("version", "says"), [("1.1", "no draft_len_schedule"), ("new", "write a release")])
def test_a_release_without_a_schedule_is_refused(version, says):
    with pytest.raises(SpecError, match=says):
        export(stepped(), "tensorrt_llm", ExportOptions(engine_version=version))


def test_tensorrt_llm_says_what_raising_batch_one_loses_and_what_a_floor_of_one_would():
    cells = [cell_of(batch, 8000, GAMMAS, baseline=0.01, **(LOW if batch != 16 else HIGH))
             for batch in (1, 4, 16, 64)]  # fmt: skip
    plan = plan_of(cells, GAMMAS)
    exported = export(plan, "tensorrt_llm")
    lost = 1.0 - dict(zip(GAMMAS, speedups(cells[0], GAMMAS), strict=True))[5]
    assert any(f"{lost:.2%} in the worst cell (batch 1," in note for note in exported.notes)
    assert any("keeps at least 1; with it" in note for note in exported.notes)
    with pytest.raises(SpecError, match="--max-loss"):
        export(plan, "tensorrt_llm", ExportOptions(max_loss=lost / 2.0))


def test_capacity_planners_get_the_keys_of_today():
    plan = stepped()
    body = json.loads(export(plan, "dynamo").text)
    flags = export(plan, "dynamo", ExportOptions(form="aiconfigurator")).text
    assert flags == f"--nextn {body['nextn']} --nextn-accepted {body['nextn_accepted']}\n"
    engine = yaml.safe_load(export(plan, "dynamo", ExportOptions(form="aisimulate")).text)["engine"]
    assert engine == body and 0.0 <= engine["nextn_accepted"] <= engine["nextn"] <= 5
    long = plan_of([cell_of(1, 8000, (0, 8), baseline=0.01, **HIGH)], (0, 8))
    with pytest.raises(SpecError, match="--gamma 0,1,2,3,4,5"):
        export(long, "dynamo", ExportOptions(form="aisimulate"))


def test_a_draft_model_of_the_catalogue_is_named_by_its_published_id():
    plan = stepped(("full_kv", "llama-3.2-1b", None))
    exported = export(plan, "vllm")
    assert json.loads(exported.text)["model"] == "meta-llama/Llama-3.2-1B"
    assert any("--draft-path" in note for note in exported.notes)
    body = json.loads(export(plan, "neutral").text)
    assert body["draft_model_id"] == "meta-llama/Llama-3.2-1B" and body["model_id"] is None


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt_llm", "llamacpp", "openvino"])
def test_a_name_that_no_engine_finds_is_marked_and_said(engine):
    exported = export(stepped(("full_kv", "our draft; v2", None)), engine)
    assert f"{FILL_IN}-our-draft-v2" in exported.text and "our draft" not in exported.text
    assert any("--draft-path" in note and FILL_IN in note for note in exported.notes)
    named = export(stepped(("full_kv", "our draft", None)), engine, ExportOptions(draft_path="a/b.gguf"))
    assert "a/b.gguf" in named.text and FILL_IN not in named.text


@pytest.mark.parametrize(("engine", "kind"), [("llamacpp", "GGUF file"), ("openvino", "exported folder")])
def test_an_id_is_no_file_where_an_engine_loads_files(engine, kind):
    exported = export(stepped(("full_kv", "llama-3.2-1b", None)), engine)
    assert FILL_IN in exported.text
    assert any(f"the {kind} of meta-llama/Llama-3.2-1B" in note for note in exported.notes)


def test_what_is_on_disk_is_named_as_it_is(tmp_path):
    exported = export(stepped(("full_kv", str(tmp_path), None)), "vllm")
    assert json.loads(exported.text)["model"] == str(tmp_path)


def test_ids_of_the_catalogue_are_those_of_a_hub():
    ids = [hub_id(model) for model in bundled_models()]
    assert sum(name is None for name in ids) <= 1
    assert all(name.count("/") == 1 for name in ids if name)


@pytest.mark.parametrize("engine", exporters())
def test_the_version_that_was_checked_stands_in_one_place(engine):
    import importlib

    checked = CHECKED[engine]
    assert load(engine).checked_with == str(checked)
    first = importlib.import_module(f"perfmodel.export.{engine}").__doc__.splitlines()[0]
    assert checked.version in first and checked.on in first


def test_releases_are_ordered_candidates_before_them():
    rising = ["0.9", "1.2.1", "1.3.0rc2", "1.3.0rc11", "1.3", "1.3.1", "1.10", "2026.4.1"]
    for index, version in enumerate(rising):
        assert [newer_than(other, version) for other in rising] == [at > index for at in range(len(rising))]
    assert not newer_than("2026.4.1.0", "2026.4.1")


def test_the_report_of_versions_fails_softly(monkeypatch):
    from perfmodel.software import checked

    monkeypatch.setattr(checked, "newest", lambda _: None)
    assert all("did not answer" in line for line in checked.report())
    monkeypatch.setattr(checked, "newest", lambda _: "9999.1")
    assert all("9999.1 is newer" in line for line in checked.report())
    monkeypatch.undo()
    monkeypatch.setattr(checked.sys, "executable", "/nowhere/python")
    assert checked.newest("vllm") is None
