"""The engines' own code reads our exports: vLLM's config and schedule builder, SGLang's parser and policy.

They need no GPU: `pip install --no-deps sglang`, and vLLM's wheel or sources on the path with its small
dependencies. Where they are not installed, engine_rules.py stands for them in test_export.py.
"""

import importlib.util
import json
import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from engine_rules import sglang_step_time, sglang_steps, vllm_lengths
from hypothesis import HealthCheck, given, settings
from random_plans import plans
from test_export import stepped, unless_off

from perfmodel.errors import SpecError
from perfmodel.export import ExportOptions, export

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
MANY = settings(max_examples=60, suppress_health_check=list(HealthCheck))
HF_CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16,
    "vocab_size": 512, "max_position_embeddings": 2048, "torch_dtype": "float32", "rms_norm_eps": 1e-6,
    "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
HEAD = {"architectures": ["LlamaForCausalLMEagle3"], "num_hidden_layers": 1, "draft_vocab_size": 512}
MTP = {"architectures": ["MiMoForCausalLM"], "model_type": "qwen2", "num_nextn_predict_layers": 1}


@contextmanager
def quietly():
    """Importing an engine warns about the GPU that is not there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def needs(engine):
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders with the config.json of a tiny Llama, of its EAGLE-3 head, and of a model with MTP layers."""
    folders = {}
    for name, more in (("llama", {}), ("head", HEAD), ("mtp", MTP)):
        folders[name] = tmp_path_factory.mktemp(name)
        (folders[name] / "config.json").write_text(json.dumps(HF_CONFIG | more))
    return folders


@pytest.fixture(scope="module")
def vllm_table():
    """vLLM's own expansion of a schedule into one length per batch."""
    needs("vllm")
    with quietly():
        from vllm.v1.spec_decode.dynamic.utils import build_dynamic_sd_schedule_lookup
    return build_dynamic_sd_schedule_lookup


@pytest.fixture(scope="module")
def sglang_policy(tmp_path_factory):
    """SGLang's own routing of a batch to steps."""
    needs("sglang")
    with quietly():
        from sglang.srt.speculative.adaptive_spec_params import AdaptiveSpeculativeParams
    path = tmp_path_factory.mktemp("sglang") / "adaptive.json"

    def read(text, initial_steps):
        path.write_text(text)
        return AdaptiveSpeculativeParams(initial_steps, str(path))

    return read


@MANY
@given(plan=plans())
def test_vllms_own_builder_reads_back_the_ladder(vllm_table, plan):
    exported = unless_off(lambda: export(plan, "vllm", ExportOptions(max_batch=300)))
    if exported is None:
        return
    config = json.loads(exported.text)
    if "num_speculative_tokens_per_batch_size" not in config:
        return
    table = vllm_table(config["num_speculative_tokens_per_batch_size"], 512, config["num_speculative_tokens"])
    assert table[1:] == [exported.schedule.gamma(batch) for batch in range(1, 513)]
    assert table == vllm_lengths(config, 512)


@MANY
@given(plan=plans(most_contexts=1))
def test_vllms_own_builder_reads_back_every_planned_cell(vllm_table, plan):
    exported = unless_off(lambda: export(plan, "vllm", ExportOptions(max_distinct=None, merge_loss=0.0)))
    if exported is None or len(exported.schedule.bands) == 1:
        return
    config = json.loads(exported.text)
    table = vllm_table(config["num_speculative_tokens_per_batch_size"], 300, config["num_speculative_tokens"])
    assert [table[cell.batch_size] for cell in plan.cells] == [cell.gamma for cell in plan.cells]


@pytest.mark.parametrize(
    ("drafter", "target", "draft"),
    [
        (("ngram", None, None), "llama", None),
        (("full_kv", "llama", None), "llama", "llama"),
        (("eagle", None, None), "llama", "head"),
        (("mtp", None, None), "mtp", None),
    ],
)
def test_vllms_own_config_class_accepts_every_method(checkpoints, drafter, target, draft):
    needs("vllm")
    with quietly():
        from vllm.config import ModelConfig, ParallelConfig
        from vllm.config.speculative import SpeculativeConfig
    path = str(checkpoints[draft]) if draft else None
    body = json.loads(export(stepped(drafter), "vllm", ExportOptions(draft_path=path)).text)
    model = ModelConfig(model=str(checkpoints[target]), skip_tokenizer_init=True, dtype="float32")
    config = SpeculativeConfig(target_model_config=model, target_parallel_config=ParallelConfig(), **body)
    expected = [tuple(entry) for entry in body["num_speculative_tokens_per_batch_size"]]
    assert config.num_speculative_tokens_per_batch_size == expected
    assert config.num_speculative_tokens == 5


def test_vllms_own_config_class_refuses_the_form_of_the_open_pull_request():
    needs("vllm")
    with quietly():
        from vllm.config.speculative import SpeculativeConfig
    body = json.loads(export(stepped(("ngram", None, None)), "vllm", ExportOptions(form="context")).text)
    with pytest.raises(ValueError, match="speculative_token_schedule"):
        SpeculativeConfig(**body)


@MANY
@given(plan=plans())
def test_sglangs_own_policy_reads_back_the_ladder(sglang_policy, plan):
    exported = unless_off(lambda: export(plan, "sglang", ExportOptions(form="pinned")))
    if exported is None:
        return
    policy = sglang_policy(exported.text, exported.schedule.most)
    for batch in range(1, 320, 3):
        assert policy.get_steps_for_batch(batch) == exported.schedule.gamma(batch)
    for _ in range(50):
        policy.on_verify_complete([0, 0], 7)
    assert policy.get_steps_for_batch(7) == exported.schedule.gamma(7), "a pinned length does not move"
    sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    policy.set_cuda_graph_bs(sizes)
    for batch in range(1, 256, 5):
        assert policy.get_steps_for_batch(batch) == sglang_steps(exported.text, batch, sizes)


@MANY
@given(plan=plans(most_contexts=1))
def test_sglangs_own_policy_reads_back_every_planned_cell(sglang_policy, plan):
    options = ExportOptions(form="pinned", max_distinct=None, merge_loss=0.0)
    exported = unless_off(lambda: export(plan, "sglang", options))
    if exported is None:
        return
    policy = sglang_policy(exported.text, exported.schedule.most)
    for cell in plan.cells:
        assert policy.get_steps_for_batch(cell.batch_size) == cell.gamma


@pytest.mark.parametrize(
    ("drafter", "draft", "algorithm"),
    [
        (("ngram", None, None), None, "NGRAM"),
        (("full_kv", "llama", None), "llama", "STANDALONE"),
        (("eagle", None, 2048), "head", "EAGLE3"),
        (("mtp", None, 2048), None, "NEXTN"),
    ],
)
def test_sglangs_own_parser_accepts_every_algorithm(
    checkpoints, tmp_path, monkeypatch, drafter, draft, algorithm
):
    needs("sglang")
    with quietly():
        from sglang.srt.server_args import prepare_server_args
    monkeypatch.chdir(tmp_path)
    plan, path = stepped(drafter), str(checkpoints[draft]) if draft else None
    flags = export(plan, "sglang", ExportOptions(draft_path=path)).text.split()
    if "--speculative-adaptive" in flags:
        text = export(plan, "sglang", ExportOptions(draft_path=path, form="guided")).text
        (tmp_path / "adaptive.json").write_text(text)
    parsed = prepare_server_args(["--model-path", str(checkpoints["llama"]), "--device", "cpu", *flags])
    assert parsed.speculative_algorithm in (algorithm, "EAGLE" if algorithm == "NEXTN" else algorithm)
    window = parsed.speculative_draft_window_size
    assert window == {"EAGLE3": 2048, "NEXTN": 2044}.get(algorithm)


@pytest.mark.parametrize("form", ["sps", "sps-additive"])
def test_sglangs_own_loader_reads_both_cost_tables(tmp_path, form):
    needs("sglang")
    with quietly():
        from sglang.srt.speculative.dspark_components.dspark_sps import load_sps_table_from_path
    text = export(stepped(), "sglang", ExportOptions(form=form)).text
    path = tmp_path / "sps.json"
    path.write_text(text)
    table = load_sps_table_from_path(str(path))
    for batch, budget in ((1, 0), (1, 4), (16, 30), (64, 64)):
        if form == "sps":
            read = 1.0 / table.lookup(batch + budget)
        else:
            read = table.step_time(num_reqs=batch, budget=budget)
        assert read == pytest.approx(sglang_step_time(json.loads(text), batch, batch + budget))


def test_our_refusal_is_sglangs_own():
    needs("sglang")
    with pytest.raises(SpecError) as refusal:
        export(stepped(("full_kv", "small", None)), "sglang", ExportOptions(form="adaptive"))
    with quietly():
        from sglang.srt.server_args import prepare_server_args
        from sglang.srt.speculative.adaptive_spec_params import adaptive_unsupported_reason
    args = prepare_server_args(
        ["--model-path", "m", "--device", "cpu", "--speculative-algorithm", "STANDALONE"]
    )
    assert adaptive_unsupported_reason(args) in str(refusal.value)


def test_sglangs_own_hook_registry_lets_the_plan_choose_the_steps(sglang_policy, tmp_path, monkeypatch):
    needs("sglang")
    with quietly():
        from sglang.srt.plugins.hook_registry import HookRegistry
    from perfmodel.integrations import sglang as shim

    plan = stepped()
    text = export(plan, "sglang", ExportOptions(form="guided")).text
    assert sglang_policy(text, 5).get_steps_for_batch(100) in (0, 5)
    (tmp_path / "plan.json").write_text(plan.to_json())
    monkeypatch.setenv("DRAFTPLAN_PLAN", str(tmp_path / "plan.json"))
    steps = shim.register()
    HookRegistry.apply_hooks()
    hooked = sglang_policy(text, 5)
    for batch in (1, 16, 64, 256):
        assert hooked.get_steps_for_batch(batch) == plan.cell(batch, 8000).gamma
    steps.policy = SimpleNamespace(decide=lambda *_: SimpleNamespace(gamma=3))  # a length not captured
    assert hooked.get_steps_for_batch(1) in hooked.candidate_steps
    assert steps.not_captured == 1
