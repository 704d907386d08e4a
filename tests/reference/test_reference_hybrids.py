"""Speculation changes no token of any mixer: greedy outputs are equal to plain decoding, in float64."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hybrids import BOUNDED, FULL, MODELS, decoder_of, disturbed  # noqa: E402

import strategies  # noqa: E402
from perfmodel.errors import SpecError  # noqa: E402
from perfmodel.reference.drafting import RUNNABLE, drafter_of  # noqa: E402
from perfmodel.reference.rounds import generate  # noqa: E402

pytestmark = pytest.mark.torch

COUNT = 14
PAIRS = [
    (name, kind)
    for name in RUNNABLE
    for kind in strategies.load(name).drafters
    if kind in ("self", "draft", "none")
]


@pytest.fixture(scope="module")
def prompts():
    """Return prompts on both sides of windows, chunks and choices; one has a single token."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 64, length).tolist() for length in (1, 30, 47, 90)]


@pytest.fixture(scope="module")
def decoders(prompts):
    """Return each decoder, one to draft for it, and its own output."""
    made = {}

    def get(name):
        if name not in made:
            target = decoder_of({**MODELS, **BOUNDED}[name])
            made[name] = target, disturbed(target), generate(target, prompts, COUNT).tokens
        return made[name]

    return get


def run(target, prompts, name, gamma, draft_model=None, kv_budget=10, count=COUNT):
    make = drafter_of(
        strategies.load(name), target,
        kv_budget=kv_budget, gamma=gamma, output_len=count, draft_model=draft_model,
    )  # fmt: skip
    return generate(target, prompts, count, drafter=make, gamma=gamma)


@pytest.mark.parametrize("gammas", [(4,), pytest.param((1, 7), marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "kind"), PAIRS)
@pytest.mark.parametrize("model", MODELS)
def test_greedy_output_is_the_targets_own_for_every_mixer_and_strategy(
    decoders, prompts, model, name, kind, gammas
):
    target, draft_model, plain = decoders(model)
    accepted = rejected = 0
    for gamma in gammas:
        decoded = run(target, prompts, name, gamma, draft_model if kind == "draft" else None)
        assert torch.equal(decoded.tokens, plain), f"{model}: {name} ({kind}) with gamma {gamma}"
        tokens = np.concatenate(decoded.rounds)
        accepted += (tokens[tokens > 0] - 1).sum()
        rejected += (tokens[tokens > 0] <= gamma).sum()
    assert accepted > 0, "no draft was ever accepted: the test proves little"
    assert rejected > 0, "no draft was ever rejected: the test proves little"


@pytest.mark.parametrize("model", BOUNDED)
@pytest.mark.parametrize("name", ["ngram", "layer_skip", "full_kv"])
def test_what_chooses_nothing_applies_without_a_growing_cache(decoders, prompts, model, name):
    target, draft_model, plain = decoders(model)
    decoded = run(target, prompts, name, 3, draft_model if name == "full_kv" else None)
    assert torch.equal(decoded.tokens, plain)
    assert decoded.tokens_per_round > 1.0


@pytest.mark.parametrize(
    ("model", "name"),
    [("states only", "streaming_llm"), ("states only", "quest"), ("states only", "quantized_kv"),
     ("windows only", "streaming_llm"), ("windows only", "snapkv"), ("windows only", "quest"),
     ("windows only", "quantized_kv")],
)  # fmt: skip
def test_what_does_not_apply_is_refused_and_says_what_does(decoders, model, name):
    target, _, _ = decoders(model)
    with pytest.raises(SpecError, match=f"{name} chooses or copies .* growing cache") as refusal:
        drafter_of(strategies.load(name), target, kv_budget=8, gamma=2, output_len=8)
    assert "ngram, layer_skip" in str(refusal.value)


@pytest.mark.parametrize(
    ("target_name", "drafter_name"), [("gated_delta", "plain"), ("plain", "gated_delta")]
)
@pytest.mark.parametrize("name", ["full_kv", "streaming_llm", "quest", "snapkv"])
def test_a_draft_model_may_be_of_other_mixers_than_its_target(
    decoders, prompts, target_name, drafter_name, name
):
    llama = decoder_of((FULL, FULL))
    models = {"plain": llama, "gated_delta": decoders("gated_delta")[0]}
    target = models[target_name]
    plain = generate(target, prompts, COUNT).tokens
    assert torch.equal(run(target, prompts, name, 3, models[drafter_name]).tokens, plain)


@pytest.mark.parametrize("model", MODELS)
def test_every_draft_is_accepted_where_a_budget_leaves_nothing_out(decoders, prompts, model):
    target, _, plain = decoders(model)
    pairs = (("streaming_llm", None), ("quest", None), ("full_kv", target), ("snapkv", target))
    for name, draft_model in pairs:
        decoded = run(target, prompts, name, 3, draft_model, kv_budget=10_000)
        assert torch.equal(decoded.tokens, plain)
        for tokens in decoded.rounds[:3]:
            assert (tokens == 4).all(), f"{name}: a draft of the same decoder was rejected"


@pytest.mark.parametrize("name", ["streaming_llm", "quantized_kv"])
def test_a_recurrent_target_in_float32_drafts_and_finishes(prompts, name):
    target = decoder_of(MODELS["gated_delta"], dtype=torch.float32)
    assert run(target, prompts, name, 3).tokens.shape == (4, COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_many_tokens_do_not_drift(decoders, prompts, model):
    target, draft_model, _ = decoders(model)
    plain = generate(target, prompts, 150).tokens
    assert torch.equal(run(target, prompts, "streaming_llm", 5, None, 40, 150).tokens, plain)
    assert torch.equal(run(target, prompts, "full_kv", 5, draft_model, 40, 150).tokens, plain)
