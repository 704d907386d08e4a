"""OpenVINO GenAI drafts what a plan says, within its budget, and generates what it does without a draft."""

import json
import math

import numpy as np
import pytest
from random_plans import cell_of, plan_of

from perfmodel.export import export
from perfmodel.integrations.openvino import PlannedRequests, pipeline_properties
from perfmodel.policy import SpeculationPolicy

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
VOCAB, HIDDEN, HEADS, WIDTH, LAYERS = 512, 64, 2, 32, 2
CONTEXT, NEW = 1000, 96
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


def llama(seed=0):
    """A small Llama of random weights, with the inputs and the cache that the engine looks for."""
    import openvino as ov
    from openvino import opset13 as ops
    from openvino.op.util import Variable, VariableInfo

    draw = np.random.default_rng(seed)

    def whole(*values):
        return ops.constant(np.array(values, np.int64))

    def scalar(value, kind=np.int64):
        return ops.constant(np.array(value, kind))

    def given(name, kind=np.int64, rank=2):
        node = ops.parameter([-1] * rank, kind, name=name)
        node.output(0).set_names({name})
        return node

    def dense(rows, wide, narrow):
        weights = draw.standard_normal((wide, narrow)) / math.sqrt(narrow)
        return ops.matmul(rows, ops.constant(weights.astype(np.float32)), False, True)

    def norm(rows):
        mean = ops.reduce_mean(ops.power(rows, scalar(2, np.float32)), whole(-1), True)
        return ops.divide(rows, ops.sqrt(ops.add(mean, scalar(1e-5, np.float32))))

    def turned(rows):
        low, high = ops.split(rows, scalar(-1), 2).outputs()
        across = ops.concat([ops.negative(high), low], -1)
        return ops.add(ops.multiply(rows, ops.cos(angle)), ops.multiply(across, ops.sin(angle)))

    def kept(layer, name, now):
        info = VariableInfo()
        info.data_shape, info.data_type = ov.PartialShape([-1, HEADS, -1, WIDTH]), ov.Type.f32
        info.variable_id = f"past_key_values.{layer}.{name}present.{layer}.{name}"
        variable = Variable(info)
        shape = ops.concat([batch, whole(HEADS), whole(0), whole(WIDTH)], 0)
        past = ops.read_value(ops.broadcast(scalar(0, np.float32), shape), variable)
        both = ops.concat([ops.gather(past, beam, scalar(0)), now], 2)
        sinks.append(ops.assign(both, variable))
        return both

    ids, mask, places = given("input_ids"), given("attention_mask"), given("position_ids")
    beam = given("beam_idx", np.int32, rank=1)
    batch = ops.gather(ops.shape_of(ids), whole(0), scalar(0))
    new, seen = (ops.gather(ops.shape_of(tensor), scalar(1), scalar(0)) for tensor in (ids, mask))
    turns = (10000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)).astype(np.float32)
    position = ops.convert(ops.unsqueeze(places, whole(-1)), "f32")
    angle = ops.multiply(position, ops.constant(turns[None, None]))
    angle = ops.unsqueeze(ops.concat([angle, angle], -1), whole(1))
    asked = ops.add(ops.range(scalar(0), new, scalar(1), "i64"), ops.subtract(seen, new))
    stored = ops.range(scalar(0), seen, scalar(1), "i64")
    causal = ops.less_equal(ops.unsqueeze(stored, whole(0)), ops.unsqueeze(asked, whole(1)))
    bias = ops.unsqueeze(ops.select(causal, scalar(0, np.float32), scalar(-1e9, np.float32)), whole(0, 1))
    table = ops.constant(draw.standard_normal((VOCAB, HIDDEN)).astype(np.float32))
    rows, sinks = ops.gather(table, ops.convert(ids, "i32"), scalar(0)), []
    for layer in range(LAYERS):
        normed = norm(rows)
        query, key, value = (
            ops.transpose(
                ops.reshape(dense(normed, HIDDEN, HIDDEN), whole(0, 0, HEADS, WIDTH), True),
                whole(0, 2, 1, 3),
            )
            for _ in range(3)
        )
        read = ops.scaled_dot_product_attention(
            turned(query), kept(layer, "key", turned(key)), kept(layer, "value", value), bias
        )
        read = ops.reshape(ops.transpose(read, whole(0, 2, 1, 3)), whole(0, 0, HIDDEN), True)
        rows = ops.add(rows, dense(read, HIDDEN, HIDDEN))
        normed = norm(rows)
        gated = ops.multiply(ops.swish(dense(normed, 2 * HIDDEN, HIDDEN)), dense(normed, 2 * HIDDEN, HIDDEN))
        rows = ops.add(rows, dense(gated, HIDDEN, 2 * HIDDEN))
    logits = dense(norm(rows), VOCAB, HIDDEN)
    logits.output(0).set_names({"logits"})
    return ov.Model([ops.result(logits, name="logits")], sinks, [ids, mask, places, beam], "llama")


def letters():
    """A tokenizer of single letters: the engine asks for one, the prompts here are token ids."""
    from openvino import opset13 as ops
    from openvino_tokenizers import build_rwkv_tokenizer

    tokenizer, detokenizer = build_rwkv_tokenizer([f"{code} {chr(code)!r} 1" for code in range(1, 128)])
    ids = tokenizer.outputs[0].get_node().input_value(0)
    mask = ops.convert(ops.greater_equal(ids, ops.constant(np.array(0, np.int64))), "i64")
    mask.output(0).set_names({"attention_mask"})
    tokenizer.add_results([ops.result(mask)])
    return tokenizer, detokenizer


@pytest.fixture(scope="module")
def genai():
    return pytest.importorskip("openvino_genai")


@pytest.fixture(scope="module")
def folders(genai, tmp_path_factory):  # noqa: ARG001
    """A target, and a model of the same size whose drafts it rejects."""
    import openvino as ov

    made = {}
    for name, seed in (("target", 0), ("stranger", 5)):
        folder = tmp_path_factory.mktemp(name)
        parts = dict(zip(("tokenizer", "detokenizer"), letters(), strict=True)) | {"model": llama(seed)}
        for part, model in parts.items():
            ov.save_model(model, folder / f"openvino_{part}.xml", compress_to_fp16=False)
        (folder / "config.json").write_text('{"model_type": "llama", "eos_token_id": 0}')
        made[name] = str(folder)
    return made


@pytest.fixture(scope="module")
def prompt(genai):  # noqa: ARG001
    import openvino as ov

    return ov.Tensor(np.random.default_rng(1).integers(1, VOCAB, (1, CONTEXT)))


@pytest.fixture(scope="module")
def plain(genai, folders, prompt):
    """What the target generates alone."""
    pipeline = genai.LLMPipeline(folders["target"], "CPU", **EXACT)
    return pipeline.generate(prompt, greedy(genai)).tokens


def greedy(genai):
    return genai.GenerationConfig(max_new_tokens=NEW, ignore_eos=True)


def drafting(gamma, budget, draft, batch=1):
    """A plan that always drafts `gamma` tokens."""
    drafter = ("full_kv" if budget is None else "streaming_llm", draft, budget)
    how = {"alpha": 0.9, "baseline": 0.01, "draft": 0.02, "verify": 0.0}
    return plan_of([cell_of(batch, CONTEXT, (0, gamma), drafter=drafter, **how)], (0, gamma))


def planned(genai, folders, prompt, gamma, budget, draft="target"):
    """Tokens, rounds, drafted and accepted tokens of one request under an exported plan."""
    plan = drafting(gamma, budget, folders[draft])
    exported = json.loads(export(plan, "openvino").text)
    pipeline = genai.LLMPipeline(folders["target"], "CPU", **pipeline_properties(exported), **EXACT)
    requests = PlannedRequests(SpeculationPolicy.from_plan(plan))
    result = pipeline.generate(prompt, requests.config(greedy(genai), prompt_tokens=CONTEXT))
    counts = result.extended_perf_metrics
    rounds = len(counts.main_model_metrics.raw_metrics.m_batch_sizes)
    return result.tokens, rounds, counts.get_num_draft_tokens(), counts.get_num_accepted_tokens()


@pytest.mark.parametrize("gamma", [1, 2, 4, 7])
def test_a_round_drafts_the_tokens_of_the_plan_and_the_output_stays(genai, folders, prompt, plain, gamma):
    tokens, rounds, drafted, accepted = planned(genai, folders, prompt, gamma, None)
    assert tokens == plain
    assert drafted == accepted, "the target drafts for itself"
    assert math.ceil(NEW / (1 + gamma)) <= rounds <= math.ceil(NEW / (1 + gamma)) + 1


def test_a_smaller_budget_is_accepted_less_and_the_output_stays(genai, folders, prompt, plain):
    rates = []
    for budget in (96, 512, 2048):
        tokens, _, drafted, accepted = planned(genai, folders, prompt, 2, budget)
        assert tokens == plain
        rates.append(accepted / drafted)
    assert rates[0] < rates[1] < rates[2] == 1.0, "only the budget beyond the context reads all of it"


def test_a_budget_and_two_tokens_survive_a_draft_that_is_always_rejected(genai, folders, prompt, plain):
    tokens, rounds, drafted, accepted = planned(genai, folders, prompt, 2, 128, "stranger")
    assert tokens == plain
    assert accepted < 0.1 * drafted
    assert 1.9 * rounds < drafted <= 2 * rounds


def test_a_budget_and_three_tokens_abort_when_they_are_rejected(genai, folders, prompt):
    with pytest.raises(RuntimeError, match="new_size_in_tokens"):
        planned(genai, folders, prompt, 3, 128, "stranger")


@pytest.mark.parametrize("budget", [None, 128])
def test_four_requests_prefilled_whole_keep_their_output(genai, folders, budget):
    import openvino as ov

    prompts = [ov.Tensor(prompt) for prompt in np.random.default_rng(2).integers(1, VOCAB, (4, 1, CONTEXT))]
    plan = drafting(2, budget, folders["target"], batch=4)
    extra = pipeline_properties(json.loads(export(plan, "openvino").text))
    scheduler = extra.pop("scheduler_config", genai.SchedulerConfig())
    scheduler.max_num_batched_tokens = 4 * CONTEXT + 64
    requests = PlannedRequests(SpeculationPolicy.from_plan(plan))
    planned_configs = [
        requests.config(greedy(genai), CONTEXT, running=3, running_context=3 * CONTEXT) for _ in prompts
    ]
    answers = []
    for properties, configs in (({}, [greedy(genai) for _ in prompts]), (extra, planned_configs)):
        pipeline = genai.ContinuousBatchingPipeline(
            folders["target"], scheduler if properties else genai.SchedulerConfig(), "CPU", properties | EXACT
        )
        answers.append([result.m_generation_ids[0] for result in pipeline.generate(prompts, configs)])
    assert answers[0] == answers[1]
