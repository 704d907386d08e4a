"""transformers drafts as planned: the same greedy output, the planned length and budget, and faster."""

import time

import pytest
from random_plans import cell_of, plan_of

from perfmodel.errors import SpecError
from perfmodel.policy import SpeculationPolicy

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

GAMMAS = (0, 1, 2, 4, 8)


def llama(hidden, layers, heads, context, attention=1.0):
    """A Llama with random weights; with a small `attention` far context matters little."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        vocab_size=512,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= attention
    return model


def policy_of(context, *, gamma, budget, kind="streaming_llm"):
    """A policy that drafts `gamma` tokens from `budget` entries above `context`, and none below."""
    fast, slow = {"alpha": 0.95, "draft": 0.02, "verify": 0.0}, {"alpha": 0.1, "draft": 0.8, "verify": 0.3}
    gammas = (0, gamma)
    cells = [
        cell_of(1, at, gammas, baseline=0.01, drafter=(kind, None, budget), **how)
        for at, how in ((context // 4, slow), (context * 4, fast))
    ]
    return SpeculationPolicy.from_plan(plan_of(cells, gammas))


def plain(model, ids, tokens):
    return model.generate(ids, max_new_tokens=tokens, do_sample=False)


@pytest.mark.parametrize(("gamma", "budget"), [(1, 16), (4, 64), (8, 4000)])
def test_greedy_output_is_identical_and_length_and_budget_are_the_plans(gamma, budget):
    from perfmodel.integrations.transformers import drafting

    model = llama(64, 2, 4, 4096)
    ids = torch.randint(0, 512, (1, 300), generator=torch.Generator().manual_seed(1))
    expected = plain(model, ids, 40)
    with drafting(model, policy_of(100, gamma=gamma, budget=budget)) as generator:
        output = model.generate(ids, max_new_tokens=40, do_sample=False, prompt_lookup_num_tokens=1)
    assert torch.equal(output, expected)
    assert {decision.gamma for decision in generator.decisions} == {gamma}
    assert {decision.kv_budget for decision in generator.decisions} == {budget}
    assert all(kept == budget or 300 <= kept <= 340 for kept in generator.kept)
    assert "_get_candidate_generator" not in vars(model)


def test_a_whole_cache_drafts_what_the_target_says():
    from perfmodel.integrations.transformers import generate

    model = llama(64, 2, 4, 4096)
    ids = torch.randint(0, 512, (1, 300), generator=torch.Generator().manual_seed(2))
    policy = policy_of(100, gamma=4, budget=4000)
    assert torch.equal(
        generate(model, ids, policy, max_new_tokens=41, do_sample=False), plain(model, ids, 41)
    )
    ((rounds, accepted),) = policy.learned.rounds.values()
    assert accepted / (4 * rounds) > 0.9, "only the end of the text may cut a round"


def test_a_short_context_is_decoded_plainly():
    from perfmodel.integrations.transformers import drafting

    model = llama(64, 2, 4, 4096)
    ids = torch.randint(0, 512, (1, 20), generator=torch.Generator().manual_seed(3))
    with drafting(model, policy_of(1000, gamma=4, budget=64)) as generator:
        output = model.generate(ids, max_new_tokens=20, do_sample=False, prompt_lookup_num_tokens=1)
    assert torch.equal(output, plain(model, ids, 20))
    assert {decision.gamma for decision in generator.decisions} == {0}
    assert generator.kept == []


def test_two_sequences_are_refused():
    from perfmodel.integrations.transformers import generate

    with pytest.raises(SpecError, match="one sequence"):
        generate(None, torch.zeros((2, 3)), policy_of(100, gamma=1, budget=16))


def test_a_strategy_that_needs_scores_is_refused():
    from perfmodel.integrations.transformers import PlannedGenerator

    with pytest.raises(SpecError, match="streaming_llm"):
        PlannedGenerator(None, policy_of(100, gamma=1, budget=16, kind="topk_oracle"))


class Clock:
    """A streamer that notes the processor time at every call: prompt, first token, and so on. [s]"""

    def __init__(self):
        self.times = []

    def put(self, value):  # noqa: ARG002
        self.times.append(time.process_time())

    def end(self):
        pass

    @property
    def decoding(self):
        """From the first token to the last."""
        return self.times[-1] - self.times[1]


def test_where_the_cache_is_heavy_it_is_faster_than_plain():
    from perfmodel.integrations.transformers import generate

    model = llama(256, 3, 4, 8192, attention=0.05)
    ids = torch.randint(0, 512, (1, 5000), generator=torch.Generator().manual_seed(4))
    policy = policy_of(1000, gamma=6, budget=256)
    best = {}
    for _ in range(2):
        for name in ("plain", "planned"):
            clock = Clock()
            options = {"max_new_tokens": 37, "do_sample": False, "streamer": clock}
            if name == "plain":
                expected = model.generate(ids, **options)
            else:
                assert torch.equal(generate(model, ids, policy, **options), expected)
            best[name] = min(best.get(name, 1e9), clock.decoding)
    assert best["planned"] < best["plain"]
    print(f"speedup {best['plain'] / best['planned']:.2f}")
