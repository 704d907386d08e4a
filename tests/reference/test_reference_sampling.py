"""Rejection sampling leaves the target's distribution as it is: every outcome of a round is enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import strategies  # noqa: E402
from perfmodel.reference.acceptance_rule import Draft, RandomChance, RejectionSampling, residual  # noqa: E402
from perfmodel.reference.drafting import drafter_of  # noqa: E402
from perfmodel.reference.rounds import decode, draft_verify_round, generate  # noqa: E402
from perfmodel.reference.sequences import prefill  # noqa: E402

pytestmark = pytest.mark.torch


class Scripted:
    """Chance that takes every branch: each sequence of the batch follows a script and weighs what it follows.

    A script is the drafted tokens, how many of them are accepted, and the token after them.
    """

    def __init__(self, vocabulary, gamma, rounds, drawn_drafts=True):
        drafts = list(itertools.product(range(vocabulary), repeat=gamma)) if drawn_drafts else [()]
        scripts_of_a_round = [
            (*draft, accepted, token)
            for draft in drafts
            for accepted in range(gamma + 1)
            for token in range(vocabulary)
        ]
        scripts = [sum(parts, ()) for parts in itertools.product(scripts_of_a_round, repeat=rounds)]
        self.columns = torch.tensor(scripts).T
        self.gamma, self.place = gamma, 0
        self.weights = torch.ones(len(scripts), dtype=torch.float64)

    def draw(self, probabilities):
        token = self.columns[self.place]
        self.place += 1
        self.weights = self.weights * probabilities.gather(1, token[:, None])[:, 0]
        return token

    def happens(self, probabilities):
        accepted = self.columns[self.place][:, None]
        self.place += 1
        places = torch.arange(self.gamma)
        chance = torch.where(places < accepted, probabilities, torch.ones_like(probabilities))
        chance = torch.where(places == accepted, 1.0 - probabilities, chance)
        self.weights = self.weights * chance.prod(-1)
        return places < accepted


def joint_of_rounds(target, prompt, first, name, gamma, rounds, length, draft_model=None, temperature=1.0):
    """Return P(the next `length` tokens) under speculation, over all branches of `rounds` rounds."""
    vocabulary = target.architecture.vocab_size
    chance = Scripted(vocabulary, gamma, rounds, drawn_drafts=name != "ngram")
    lanes = len(chance.weights)
    sequences, _ = prefill(target, [prompt] * lanes, 64)
    make = drafter_of(
        strategies.load(name), target, kv_budget=4, gamma=gamma, output_len=40, draft_model=draft_model
    )
    drafter = make(sequences)
    sequences.tokens[:, len(prompt)] = first
    drafter.begin(sequences)
    rule = RejectionSampling(chance, temperature)
    for _ in range(rounds):
        draft_verify_round(target, drafter, sequences, gamma, rule)
    assert (sequences.generated > length).all(), "some branch gave too few tokens"
    output = sequences.tokens[:, len(prompt) + 1 : len(prompt) + 1 + length]
    codes = (output * vocabulary ** torch.arange(length)).sum(-1)
    return torch.zeros(vocabulary**length, dtype=torch.float64).scatter_add_(0, codes, chance.weights)


def joint_of_plain(target, prompt, first, length, temperature=1.0):
    """Return P(the next `length` tokens) of the target itself."""
    vocabulary = target.architecture.vocab_size
    texts = torch.tensor(list(itertools.product(range(vocabulary), repeat=length)))
    prompts = [[*prompt, first, *text] for text in texts.tolist()]
    sequences, _ = prefill(target, prompts, 1)
    begin = np.full(len(prompts), len(prompt))
    view = sequences.cache.view(begin, length, begin)
    logits = target.forward(sequences.tokens[:, len(prompt) : len(prompt) + length], view)
    chosen = (logits / temperature).softmax(-1).gather(-1, texts[..., None])[..., 0].prod(-1)
    codes = (texts * vocabulary ** torch.arange(length)).sum(-1)
    return torch.zeros(vocabulary**length, dtype=torch.float64).scatter_add_(0, codes, chosen)


PROMPT, FIRST = [0, 1, 2, 1, 0, 0, 2, 1, 1, 0, 2], 1
CASES = [
    ("streaming_llm", "self", 3, 3, 1, 1),
    ("streaming_llm", "self", 2, 2, 2, 2),
    ("streaming_llm", "draft", 2, 2, 2, 2),
    ("full_kv", "draft", 2, 1, 3, 3),
    ("full_kv", "draft", 3, 2, 1, 1),
    ("quantized_kv", "self", 2, 2, 2, 2),
    ("layer_skip", "self", 2, 2, 2, 2),
    ("snapkv", "self", 2, 2, 2, 2),
    ("quest", "self", 3, 2, 1, 1),
    ("topk_oracle", "self", 3, 1, 2, 2),
    ("ngram", "none", 3, 3, 2, 2),
    pytest.param("ngram", "none", 3, 3, 3, 3, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "kind", "vocabulary", "gamma", "rounds", "length"), CASES)
def test_the_joint_distribution_is_the_targets_to_twelve_digits(
    tiny, name, kind, vocabulary, gamma, rounds, length
):
    target = tiny(vocab_size=vocabulary)
    draft_model = tiny(vocab_size=vocabulary, seed=7, num_hidden_layers=1) if kind == "draft" else None
    sampled = joint_of_rounds(target, PROMPT_OF[vocabulary], FIRST, name, gamma, rounds, length, draft_model)
    expected = joint_of_plain(target, PROMPT_OF[vocabulary], FIRST, length)
    assert float(expected.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(expected.max()) < 0.99, "a certain outcome proves little"
    assert float((sampled - expected).abs().max()) <= 1e-12


PROMPT_OF = {3: PROMPT, 2: [token % 2 for token in PROMPT]}


def test_temperature_applies_to_both_models(tiny):
    target, draft_model = tiny(vocab_size=3), tiny(vocab_size=3, seed=7)
    sampled = joint_of_rounds(target, PROMPT, FIRST, "full_kv", 1, 2, 2, draft_model, temperature=0.5)
    assert float((sampled - joint_of_plain(target, PROMPT, FIRST, 2, temperature=0.5)).abs().max()) <= 1e-12
    assert float((sampled - joint_of_plain(target, PROMPT, FIRST, 2)).abs().max()) > 1e-3


class WithoutResidual(RejectionSampling):
    """A fault on purpose: after a rejection the token is drawn from the target's distribution."""

    def accept(self, logits, draft):
        accepted, _ = super().accept(logits, draft)
        here = accepted[:, None, None].expand(-1, 1, logits.shape[-1])
        self.chance.place -= 1
        return accepted, self.chance.draw(self._distribution(logits).gather(1, here)[:, 0])


def test_enumeration_finds_a_bonus_token_drawn_from_the_wrong_distribution(tiny, monkeypatch):
    target = tiny(vocab_size=3)
    monkeypatch.setattr(f"{__name__}.RejectionSampling", WithoutResidual)
    sampled = joint_of_rounds(target, PROMPT, FIRST, "streaming_llm", 1, 2, 2)
    assert float((sampled - joint_of_plain(target, PROMPT, FIRST, 2)).abs().max()) > 1e-3


def test_accepting_and_drawing_the_residual_makes_up_the_target_distribution():
    generator = torch.Generator().manual_seed(0)
    target, drafter = (
        torch.rand(1000, 7, generator=generator, dtype=torch.float64).pow(4).softmax(-1) for _ in range(2)
    )
    accepted = torch.minimum(target, drafter)
    rest = (1.0 - accepted.sum(-1, keepdim=True)) * residual(target, drafter)
    assert float((accepted + rest - target).abs().max()) < 1e-12


def test_a_residual_of_equal_distributions_is_the_distribution():
    same = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    assert torch.equal(residual(same, same), same)


def test_a_named_token_is_accepted_with_its_probability_and_never_drawn_again():
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], dtype=torch.float64))
    draft = Draft(torch.ones(2000, 1, dtype=torch.long))
    accepted, bonus = RejectionSampling(RandomChance(3)).accept(logits.expand(2000, -1, -1), draft)
    assert float(accepted.double().mean()) == pytest.approx(0.5, abs=0.04)
    assert bonus[accepted == 0].unique().tolist() == [0, 2]


def test_the_same_seed_gives_the_same_sample(tiny):
    target = tiny(vocab_size=8)

    def sample(seed):
        make = drafter_of(strategies.load("streaming_llm"), target, kv_budget=4, gamma=2, output_len=30)
        rule = RejectionSampling(RandomChance(seed))
        return generate(target, [[1, 2, 3]], 30, drafter=make, gamma=2, rule=rule).tokens

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))


@pytest.mark.slow
def test_sampled_outputs_follow_the_targets_distribution(tiny):
    from scipy.stats import chisquare

    target, lanes, length = tiny(vocab_size=6), 20_000, 3
    sequences, _ = prefill(target, [PROMPT] * lanes, 32)
    make = drafter_of(strategies.load("streaming_llm"), target, kv_budget=4, gamma=3, output_len=20)
    rule = RejectionSampling(RandomChance(0))
    first = torch.full((lanes,), FIRST)
    sampled = decode(target, sequences, first, length + 1, drafter=make, gamma=3, rule=rule).tokens[:, 1:]
    counts = np.bincount((sampled * 6 ** torch.arange(length)).sum(-1).numpy(), minlength=6**length)
    expected = joint_of_plain(target, PROMPT, FIRST, length).numpy()
    common = expected * lanes >= 5
    observed = np.append(counts[common], counts[~common].sum())
    predicted = np.append(expected[common], expected[~common].sum()) * lanes
    assert chisquare(observed, predicted * observed.sum() / predicted.sum()).pvalue > 1e-3
