"""No shim takes its engine down: what is raised is counted and logged once, the plan's length holds."""

import itertools
import logging
import sys
import threading
from importlib import import_module
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_plans import cell_of, plan_of
from vllm_stand_in import AsyncScheduler, config_of, install, serving

from perfmodel.integrations import vllm_plugin
from perfmodel.integrations.environment import learns, plan_path, say
from perfmodel.integrations.guard import Guard, PlannedCells
from perfmodel.integrations.openvino import PlannedRequests
from perfmodel.integrations.prometheus import expose
from perfmodel.integrations.sglang import PlannedSteps, register
from perfmodel.planning.plan import Plan
from perfmodel.policy import SpeculationPolicy
from perfmodel.policy_figures import FAULTS, Every

GAMMAS = (0, 2, 4)
GOOD = {"alpha": 0.9, "draft": 0.05, "verify": 0.0}
BAD = {"alpha": 0.1, "draft": 0.5, "verify": 0.2}
ODD = [None, -1, 0, 7.5, "x", "\x1b[31m", [], {}, float("nan"), 10**400, True, object(), SimpleNamespace()]


def plan() -> Plan:
    """Drafts four tokens where the context is long, none where it is short."""
    drafter = ("streaming_llm", None, 64)
    cells = [
        cell_of(batch, context, GAMMAS, baseline=0.01, drafter=drafter, **(GOOD if context > 5000 else BAD))
        for batch in (1, 32)
        for context in (1000, 32000)
    ]
    return plan_of(cells, GAMMAS)


class Raising(SpeculationPolicy):
    """A policy that raises whatever it is called for."""

    def fail(self, *args, **kwargs):
        raise KeyError("\x1b[2Jbroken", args, kwargs)

    decide = decide_each = observe = observe_step_time = refresh = figures = metrics = fail


@pytest.fixture
def raising():
    return Raising.from_plan(plan())


@pytest.fixture
def vllm(monkeypatch, tmp_path):
    """The shim over stand-ins, its environment naming a plan, learning at every other step."""
    install(monkeypatch)
    path = tmp_path / "plan.json"
    path.write_text(plan().to_json())
    monkeypatch.setenv("DRAFTPLAN_PLAN", str(path))
    monkeypatch.setenv("DRAFTPLAN_LEARN", "1")
    shim = import_module("perfmodel.integrations.vllm")
    monkeypatch.setattr(shim, "STEPS_PER_REFRESH", 2)
    yield shim
    sys.modules.pop("perfmodel.integrations.vllm", None)


@pytest.fixture
def transformers(monkeypatch):
    """The shim over stand-ins."""
    for name in ("transformers", "transformers.generation", "transformers.generation.candidate_generator"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["transformers"].DynamicCache = None
    sys.modules["transformers.generation.candidate_generator"].CandidateGenerator = object
    monkeypatch.delitem(sys.modules, "perfmodel.integrations.transformers", raising=False)
    yield import_module("perfmodel.integrations.transformers")
    del sys.modules["perfmodel.integrations.transformers"]


def test_vllm_gets_the_plans_length_from_a_policy_that_raises(vllm, raising, monkeypatch, caplog):
    monkeypatch.setattr(vllm.SpeculationPolicy, "load", lambda _: raising)
    scheduler = vllm.PlannedScheduler(config_of())
    for context, length in ((31000, 4), (900, 0)) * 3:
        assert scheduler.schedule(serving(scheduler, context, context), {"0": [1], "1": [1]}) == length
        assert scheduler.make_spec_decoding_stats(None, 4, 2, None, "0") == "stats"
        scheduler.draftplan.refreshing and scheduler.draftplan.refreshing.join()
    counts = scheduler.draftplan.guard.counts
    assert counts == {"figures": 1, "length": 6, "observation": 6, "refresh": 3}
    assert raising.failures == counts.total()
    assert len(caplog.records) == 4, "one line a kind"
    assert "\x1b" not in caplog.text


def test_sglang_gets_the_plans_length_from_a_policy_that_raises(raising):
    steps = PlannedSteps(raising, learns=True)
    params = SimpleNamespace(candidate_steps=[0, 4], cuda_graph_bs_for_step=lambda _: [1, 2])
    for context, length in ((32000, 4), (1000, 0)):
        batch = SimpleNamespace(reqs=[SimpleNamespace(seqlen=context)])
        assert steps.run(lambda *_: "ran", None, batch) == "ran"
        assert steps(lambda *_: 7, params, 1) == length
        assert steps.verify(lambda *_: 3, params, [length]) in (3, None)
    assert steps.guard.counts["length"] == 2
    assert raising.faults == steps.guard.counts


def test_transformers_and_openvino_get_the_plans_length_from_a_policy_that_raises(transformers, raising):
    generator = transformers.PlannedGenerator(None, raising)
    ids = SimpleNamespace(shape=(1, 900))
    cache = SimpleNamespace(get_seq_length=lambda: 899)
    assert generator.get_candidates(ids, model_kwargs={"cache": cache}) == (ids, None)
    assert [decision.gamma for decision in generator.decisions] == [0]
    ids.shape = (1, 31000)
    assert generator.get_candidates(ids, model_kwargs={"cache": cache}) == (ids, None), "no model to draft"
    assert [decision.gamma for decision in generator.decisions] == [0, 4]
    generator._drafted = 4
    generator.update_candidate_strategy(ids, None, 2)
    assert generator.guard.counts == {"length": 2, "draft": 1, "observation": 1}
    requests = PlannedRequests(raising)
    assert requests.config(SimpleNamespace(), 31000).num_assistant_tokens == 4
    assert requests.config(SimpleNamespace(), None).num_assistant_tokens == 4
    untouched = object()
    assert requests.config(untouched, 31000) is untouched


def everything(hooks, count):
    """Call every hook with every odd argument at every place, too few and too many."""
    for hook in hooks:
        for wide in range(count):
            for args in itertools.product(ODD, repeat=min(wide, 2)):
                hook(*args, *ODD[: max(0, wide - 2)])
        hook(unknown=1)


def test_odd_arguments_of_the_engine_are_survived_by_every_hook(vllm, transformers, caplog):
    scheduler = vllm.PlannedScheduler(config_of())
    for name in ("_update_after_schedule", "make_spec_decoding_stats"):
        setattr(AsyncScheduler, name, lambda *_, **__: "own")
    try:
        everything([scheduler._update_after_schedule, scheduler.make_spec_decoding_stats], 5)
    finally:
        for name in ("_update_after_schedule", "make_spec_decoding_stats"):
            delattr(AsyncScheduler, name)
    assert scheduler.draftplan.guard.counts["engine"] > 50
    assert scheduler.schedule(serving(scheduler, 31000), {"0": [1]}) == 4, "and the plan is followed again"

    steps = PlannedSteps(SpeculationPolicy.from_plan(plan()))

    def hooked(hook):
        return lambda *args, **kwargs: hook(lambda *_, **__: "own", *args, **kwargs)

    everything([hooked(steps), hooked(steps.verify), hooked(steps.run)], 4)
    generator = transformers.PlannedGenerator(None, SpeculationPolicy.from_plan(plan()))
    everything([generator.update_candidate_strategy], 4)
    for ids in ODD:
        assert generator.get_candidates(ids, *ODD[:2], unknown=3) == (ids, None)
        assert generator.get_candidates(ids, model_kwargs=ids) == (ids, None)
    for shim in (scheduler.draftplan, steps, generator):
        assert set(shim.guard.counts) <= set(FAULTS)
    assert len(caplog.records) < 10, "one line a kind and shim"


@pytest.mark.parametrize("answer", [None, 3, 4.0, True, -1, 10**9, "4"])
def test_a_length_that_is_none_of_the_plans_is_not_run(vllm, answer):
    scheduler = vllm.PlannedScheduler(config_of())
    scheduler.draftplan.policy.decide = lambda *_: SimpleNamespace(gamma=answer)
    assert scheduler.schedule(serving(scheduler, 31000), {"0": [1]}) == 4
    assert scheduler.draftplan.policy.faults == {"length": 1}


def test_a_vllm_without_the_length_in_its_output_is_named_and_left_alone(vllm, caplog):
    scheduler = vllm.PlannedScheduler(config_of())
    output = SimpleNamespace(num_scheduled_tokens=serving(scheduler, 31000), scheduled_spec_decode_tokens={})
    scheduler._update_after_schedule(output)
    assert not hasattr(output, "num_spec_tokens_to_schedule")
    assert "num_spec_tokens_to_schedule" in caplog.text


def test_the_plans_file_may_go_away_while_it_is_followed(vllm, tmp_path):
    scheduler = vllm.PlannedScheduler(config_of())
    (tmp_path / "plan.json").unlink()
    for context, length in ((31000, 4), (900, 0)):
        assert scheduler.schedule(serving(scheduler, context), {"0": [1]}) == length
    assert scheduler.draftplan.policy.failures == 0


def test_a_metrics_registry_that_raises_costs_the_figures_alone(vllm, monkeypatch):
    def broken():
        raise RuntimeError("registry")

    monkeypatch.setattr(vllm, "expose", lambda figures: broken)  # noqa: ARG005
    monkeypatch.setattr(vllm, "SECONDS_PER_PUBLISHING", 0.0)
    scheduler = vllm.PlannedScheduler(config_of())
    for _ in range(3):
        assert scheduler.schedule(serving(scheduler, 31000), {"0": [1]}) == 4
    assert scheduler.draftplan.policy.faults == {"figures": 3}
    text = scheduler.draftplan.policy.metrics()
    assert 'draftplan_faults_total{kind="figures"} 3\n' in text
    assert 'draftplan_faults_total{kind="length"} 0\n' in text
    monkeypatch.setattr(vllm, "expose", lambda figures: broken())  # noqa: ARG005
    assert vllm.PlannedScheduler(config_of()).draftplan is not None


def test_the_metrics_door_never_raises_when_it_is_opened(raising):
    pytest.importorskip("prometheus_client")
    assert expose(raising.figures) is None
    for registry in (object(), [], 3):
        assert expose(SpeculationPolicy.from_plan(plan()).figures, registry) is None


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_process_passes(raising, stop):
    guard = Guard(raising, logging.getLogger("draftplan"), "E")
    with pytest.raises(stop), guard("length"):
        raise stop
    raising.decide = lambda *_: (_ for _ in ()).throw(stop)
    with pytest.raises(stop):
        guard.decide(1, 1000)
    with pytest.raises(stop):
        Every(0.0, lambda: (_ for _ in ()).throw(stop)).tick()
    assert not guard.counts


def test_a_hundred_threads_lose_no_failure_and_log_one_line(raising, caplog):
    guard = Guard(raising, logging.getLogger("draftplan"), "E")
    threads = [
        threading.Thread(target=lambda: [guard.decide(1, 32000) for _ in range(50)]) for _ in range(100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guard.counts == raising.faults == {"length": 5000}
    assert raising.failures == 5000
    assert len(caplog.records) == 1


def test_a_logger_that_raises_stops_nothing(raising):
    class Broken(logging.Logger):
        def error(self, *args, **kwargs):
            raise OSError(args, kwargs)

    guard = Guard(raising, Broken("b"), "E")
    assert guard.decide(1, 32000).gamma == 4
    say(Broken("b"), "line", ValueError())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.integers(), st.floats(), st.text(), st.none()), st.one_of(st.integers(), st.floats()))
def test_the_plans_own_length_is_one_of_its_own_whatever_is_asked(n_decode, sum_context):
    cells = PlannedCells(plan())
    assert cells.at(n_decode, sum_context).gamma in GAMMAS
    assert cells.at(1, 900).gamma == cells.at(64, 64 * 900).gamma == 0
    assert cells.at().gamma == cells.at(2).gamma == 4, "what is unknown is the longest context"


@pytest.mark.parametrize("value", ["yes", "2", "true", "\x1b[31m", "1 1", "\u202e1"])
def test_a_switch_with_a_value_that_says_nothing_is_off_and_told(monkeypatch, caplog, value):
    monkeypatch.setenv("DRAFTPLAN_LEARN", value)
    assert learns(logging.getLogger("draftplan")) is False
    (record,) = caplog.records
    assert "give 1 or 0" in record.getMessage()
    assert record.getMessage().isprintable()


@pytest.mark.parametrize(("value", "answer"), [("1", True), (" 1 ", True), ("0", False), ("", False)])
def test_a_switch_is_read_without_a_word(monkeypatch, caplog, value, answer):
    monkeypatch.setenv("DRAFTPLAN_LEARN", value)
    assert learns(logging.getLogger("draftplan")) is answer
    assert not caplog.records


@pytest.mark.parametrize("value", ["/", "/none/\x1b[2Jplan.json", "no such file", "-", ".", "a" * 5000])
def test_a_path_that_is_no_plan_is_one_clear_line_and_the_engine_starts(vllm, monkeypatch, caplog, value):
    monkeypatch.setenv("DRAFTPLAN_PLAN", value)
    assert vllm_plugin.register() is True
    from vllm.config.scheduler import SchedulerConfig as Config

    scheduler = Config().get_scheduler_cls()(config_of())
    assert scheduler.schedule(serving(scheduler, 900), {}) == 4, "vLLM's own length"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().isprintable()
    assert vllm.PlannedScheduler is type(scheduler)


def test_a_blank_path_is_no_path(monkeypatch):
    monkeypatch.setenv("DRAFTPLAN_PLAN", "  ")
    assert plan_path() is None
    assert vllm_plugin.register() is False
    assert register() is None


def test_hooks_that_were_registered_in_part_stand_aside(vllm, monkeypatch, caplog):  # noqa: ARG001
    module, hooks = ModuleType("sglang.srt.plugins.hook_registry"), []
    module.HookType = SimpleNamespace(AROUND="around")

    def add(target, hook, kind):
        if hooks:
            raise RuntimeError("no more", target, kind)
        hooks.append(hook)

    module.HookRegistry = SimpleNamespace(register=add)
    for name in ("sglang", "sglang.srt", "sglang.srt.plugins"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert register() is None
    assert hooks[0](lambda *_: 7, SimpleNamespace(), 1) == 7
    assert hooks[0].guard.counts == {}
    assert "SGLang's own lengths hold" in caplog.text
