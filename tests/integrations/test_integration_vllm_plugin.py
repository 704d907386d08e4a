"""vLLM's plug-in and scheduler class over stand-ins with the interface of 0.32.0 and 0.33.0."""

import logging
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from random_plans import cell_of, plan_of
from vllm_stand_in import Scheduler, config_of, install, serving

from perfmodel.integrations import vllm_plugin

pytestmark = pytest.mark.usefixtures("vllm", "plan_file")
ROOT = Path(__file__).parents[2]
GAMMAS = (0, 2, 4)
GOOD = {"alpha": 0.9, "draft": 0.05, "verify": 0.0}
BAD = {"alpha": 0.1, "draft": 0.5, "verify": 0.2}


@pytest.fixture
def vllm(monkeypatch):
    """The stand-ins under vLLM's names."""
    yield SimpleNamespace(SchedulerConfig=install(monkeypatch))
    sys.modules.pop("perfmodel.integrations.vllm", None)


@pytest.fixture
def plan_file(tmp_path, monkeypatch):
    """A plan that drafts 4 tokens at long contexts, none at short ones, named in the environment."""
    drafter = ("ngram", None, None)
    cells = [
        cell_of(batch, context, GAMMAS, baseline=0.01, drafter=drafter, **(GOOD if context > 5000 else BAD))
        for batch in (1, 32)
        for context in (1000, 32000)
    ]
    path = tmp_path / "plan.json"
    path.write_text(plan_of(cells, GAMMAS).to_json())
    monkeypatch.setenv("DRAFTPLAN_PLAN", str(path))
    return path


def test_without_the_variable_the_plug_in_imports_and_does_nothing():
    code = (
        "import sys; from perfmodel.integrations.vllm_plugin import register; assert register() is False;"
        "heavy = {'numpy', 'pandas', 'vllm', 'perfmodel.policy'} & set(sys.modules); assert not heavy, heavy"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DRAFTPLAN_PLAN"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)


def test_the_variable_alone_puts_the_planned_class_in_and_twice_is_once(vllm):
    assert vllm_plugin.register()
    once = vllm.SchedulerConfig.get_scheduler_cls
    assert vllm_plugin.register()
    assert vllm.SchedulerConfig.get_scheduler_cls is once
    shim = import_module("perfmodel.integrations.vllm")
    assert vllm.SchedulerConfig().get_scheduler_cls() is shim.PlannedScheduler
    assert vllm.SchedulerConfig(async_scheduling=False).get_scheduler_cls() is shim.PlannedSyncScheduler
    other = type("Other", (), {})
    assert vllm.SchedulerConfig(scheduler_cls=other).get_scheduler_cls() is other
    scheduler = shim.PlannedScheduler(config_of())
    assert scheduler.schedule(serving(scheduler, 30000, 31000), {"0": [1], "1": [1]}) == 4
    assert scheduler.schedule(serving(scheduler, 900, 1000), {"0": [1], "1": [1]}) == 0


@pytest.mark.parametrize("plan", ["read", "missing"])
def test_the_schedulers_own_attributes_stay(plan, plan_file):
    """vLLM's scheduler has a `policy` of its own, by which it sorts requests."""
    if plan == "missing":
        plan_file.unlink()
    own = vars(Scheduler(None))
    planned = vars(import_module("perfmodel.integrations.vllm").PlannedScheduler(None))
    assert {name: value for name, value in planned.items() if name in own} == own
    assert set(planned) - set(own) <= {"draftplan"}


def test_a_vllm_of_another_shape_goes_on_without_us(vllm, monkeypatch, caplog):
    monkeypatch.delattr(vllm.SchedulerConfig.__mro__[1], "get_scheduler_cls")
    assert vllm_plugin.register() is False
    assert "no scheduler class to replace" in caplog.text


def test_a_prefill_that_joins_does_not_count_as_decoding():
    scheduler = import_module("perfmodel.integrations.vllm").PlannedScheduler(config_of())
    scheduled = serving(scheduler, 31000)
    scheduler.requests["new"] = SimpleNamespace(num_computed_tokens=0, num_prompt_tokens=9000)
    assert scheduler.schedule({**scheduled, "new": 2048}, {"0": [1]}) == 4
    assert scheduler.draftplan.place == (1, 31000)


@pytest.mark.parametrize("damage", ["", "{", "missing"])
def test_a_plan_that_cannot_be_used_leaves_the_engine_its_own_lengths(plan_file, caplog, damage):
    plan_file.unlink() if damage == "missing" else plan_file.write_text(damage)
    scheduler = import_module("perfmodel.integrations.vllm").PlannedScheduler(config_of())
    assert scheduler.schedule(serving(scheduler, 900), {}) == 4
    assert scheduler.make_spec_decoding_stats(None, 4, 2, None, "0") == "stats"
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("vllm.draftplan", "ERROR")
    assert "plan.json" in record.getMessage()


def test_engines_that_do_not_speculate_or_have_many_ranks_are_left_alone():
    shim = import_module("perfmodel.integrations.vllm")
    assert shim.PlannedScheduler(config_of(), most=0).draftplan is None
    assert shim.PlannedScheduler(config_of(data_parallel=2)).draftplan is None


@pytest.mark.parametrize(
    ("table", "eager", "missing"),
    [
        (None, False, "lengths 0"),
        ([[1, 8, 4], [9, 32, 0]], False, None),
        ([(1, 32, 4)], False, "lengths 0"),
        (None, True, None),
    ],
)
def test_lengths_without_graphs_are_named(caplog, table, eager, missing):
    config = config_of()
    config.speculative_config = SimpleNamespace(
        num_speculative_tokens=4, num_speculative_tokens_per_batch_size=table
    )
    config.model_config = SimpleNamespace(enforce_eager=eager)
    scheduler = import_module("perfmodel.integrations.vllm").PlannedScheduler(config)
    assert scheduler.draftplan is not None
    warned = [record.getMessage() for record in caplog.records if "no decode graphs" in record.getMessage()]
    assert [missing in line for line in warned] == ([True] if missing else [])


def test_an_exception_in_a_step_leaves_that_step_the_engines_length_and_is_counted(caplog):
    scheduler = import_module("perfmodel.integrations.vllm").PlannedScheduler(config_of())
    for _ in range(3):
        assert scheduler.schedule({"unknown": 1}, {}) == 4
    assert scheduler.draftplan.policy.failures == 3
    assert sum("vLLM's own length" in record.getMessage() for record in caplog.records) == 1
    assert scheduler.schedule(serving(scheduler, 900), {}) == 0


def test_a_length_above_the_engines_is_cut_and_counted():
    scheduler = import_module("perfmodel.integrations.vllm").PlannedScheduler(config_of(), most=3)
    assert scheduler.schedule(serving(scheduler, 32000), {"0": [1]}) == 3
    assert scheduler.draftplan.policy.clamped.length == 1


def test_rounds_with_and_without_drafts_are_counted():
    scheduler = import_module("perfmodel.integrations.vllm").PlannedScheduler(config_of())
    scheduler.draftplan.finds_none = True  # as in a plan whose drafter may find nothing
    scheduler.schedule(serving(scheduler, 31000, 32000), {})  # the first step after a prefill has no drafts
    scheduler.schedule(serving(scheduler, 31000, 32000), {"0": [1, 2, 3, 4]})
    assert scheduler.make_spec_decoding_stats("before", 4, 3, None, "0") == "stats"
    assert scheduler.counted == [("before", 4, 3, None, "0")]
    figures = scheduler.draftplan.policy.figures()
    assert (figures.drafting, figures.idle, figures.drafted, figures.accepted) == (1, 1, 4, 3)


@pytest.mark.parametrize("learning", ["1", "0"])
def test_one_step_in_a_hundred_that_draft_nothing_is_a_probe_while_it_learns(monkeypatch, learning):
    monkeypatch.setenv("DRAFTPLAN_LEARN", learning)
    scheduler = import_module("perfmodel.integrations.vllm").PlannedScheduler(config_of())
    scheduled = serving(scheduler, 900)
    lengths = []
    for _ in range(300):
        scheduler.requests["0"].num_computed_tokens = 899
        lengths.append(scheduler.schedule(scheduled, {}))
    probes = [step for step, length in enumerate(lengths, 1) if length]
    assert probes == ([100, 200, 300] if learning == "1" else [])
    assert set(lengths) <= {0, 4}, "the plan's shortest draft"


def test_acceptance_that_comes_back_is_seen_by_the_probes(monkeypatch):
    monkeypatch.setenv("DRAFTPLAN_LEARN", "1")
    scheduler = import_module("perfmodel.integrations.vllm").PlannedScheduler(config_of())
    policy = scheduler.draftplan.policy
    policy.observe(4000, 0, 1000, 1, 31000)
    policy.refresh()
    scheduled = serving(scheduler, 31000)
    for step in range(60_000):
        scheduler.requests["0"].num_computed_tokens = 30999
        length = scheduler.schedule(scheduled, {"0": [1]})
        assert length == 0 or step
        if length:
            scheduler.make_spec_decoding_stats(None, length, length, None, "0")
    policy.refresh()
    assert scheduler.schedule(scheduled, {"0": [1]}) == 4


def test_the_line_is_one_that_vllm_shows(caplog):
    caplog.set_level(logging.INFO)
    scheduler = import_module("perfmodel.integrations.vllm").PlannedScheduler(config_of())
    scheduler.draftplan.ticks[0].due = 0.0
    scheduler.schedule(serving(scheduler, 31000), {"0": [1]})
    lines = [record for record in caplog.records if record.getMessage().startswith("draftplan: length")]
    assert [record.name for record in lines] == ["vllm.draftplan"]
