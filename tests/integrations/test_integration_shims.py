"""The shims of engines that are not installed here, against stand-ins with the engine's own names."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from random_plans import cell_of, plan_of

from perfmodel.errors import SpecError
from perfmodel.export import ExportOptions, export
from perfmodel.integrations.openvino import PlannedRequests, eviction_arguments, pipeline_properties
from perfmodel.policy import SpeculationPolicy

GAMMAS = (0, 2, 4)


def plan(budget=None, strategy="streaming_llm", draft_model="small"):
    """Drafts four tokens where the context is long, none where it is short."""
    good, bad = {"alpha": 0.9, "draft": 0.05, "verify": 0.0}, {"alpha": 0.1, "draft": 0.5, "verify": 0.2}
    drafter = (strategy, draft_model, budget)
    cells = [
        cell_of(batch, context, GAMMAS, baseline=0.01, drafter=drafter, **(good if context > 5000 else bad))
        for batch in (1, 32)
        for context in (1000, 32000)
    ]
    return plan_of(cells, GAMMAS)


@pytest.fixture
def genai(monkeypatch):
    """Stands for openvino_genai 2026.4.1: it keeps what it was given."""
    module = ModuleType("openvino_genai")
    module.draft_model = lambda path, device, **options: (path, device, options)
    module.SchedulerConfig = SimpleNamespace
    module.CacheEvictionConfig = lambda **sizes: sizes
    module.AggregationMode = SimpleNamespace(NORM_SUM="norm_sum")
    monkeypatch.setitem(sys.modules, "openvino_genai", module)
    return module


def test_openvino_requests_get_the_length_of_their_moment():
    requests = PlannedRequests(SpeculationPolicy.from_plan(plan()))
    assert requests.config(SimpleNamespace(), prompt_tokens=32000).num_assistant_tokens == 4
    with pytest.raises(SpecError, match="without a draft model"):
        requests.config(SimpleNamespace(), prompt_tokens=1000)


@pytest.mark.usefixtures("genai")
def test_openvino_evicts_the_drafts_cache_to_the_budget():
    exported = json.loads(export(plan(512), "openvino", ExportOptions(draft_path="small")).text)
    draft, target = eviction_arguments(exported)
    assert draft == {"start_size": 32, "recent_size": 448, "max_cache_size": 512}
    assert target["max_cache_size"] >= 2 * 32000
    assert sum(target[key] for key in ("start_size", "recent_size")) + 32 == target["max_cache_size"]
    properties = pipeline_properties(exported)
    path, _, options = properties["draft_model"]
    assert path == "small"
    assert options["scheduler_config"].cache_eviction_config["max_cache_size"] == 512
    assert options["scheduler_config"].cache_eviction_config["snapkv_window_size"] == 0
    assert properties["scheduler_config"].use_cache_eviction


@pytest.mark.usefixtures("genai")
def test_openvino_looks_prompts_up_and_needs_a_folder_otherwise():
    lookup = json.loads(export(plan(strategy="ngram", draft_model=None), "openvino").text)
    assert pipeline_properties(lookup) == {"prompt_lookup": True}
    alone = json.loads(export(plan(512, draft_model=None), "openvino").text)
    with pytest.raises(SpecError, match="folder"):
        pipeline_properties(alone)
