"""Every token mixer computes what its definition says, by laws and by naive counterparts."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from hybrids import (  # noqa: E402
    CHUNK,
    CONVOLUTION,
    DELTA,
    FULL,
    KIMI,
    LATENT,
    LIGHTNING,
    MAMBA,
    MIXERS,
    RECURRENT,
    SELECTIVE,
    SPARSE,
    WINDOW,
    architecture_of,
    decoder_of,
    with_mixers,
)

from perfmodel.errors import SpecError  # noqa: E402
from perfmodel.reference.cache import KVCache  # noqa: E402
from perfmodel.reference.layer import IndexRows, normalize, rotate  # noqa: E402
from perfmodel.reference.mixers import mixers  # noqa: E402
from perfmodel.reference.mixers.base import LayerPass  # noqa: E402
from perfmodel.reference.mixers.gated_delta import GatedDelta  # noqa: E402
from perfmodel.reference.mixers.mamba2 import Mamba2  # noqa: E402
from perfmodel.reference.mixers.recurrence import convolve, scan  # noqa: E402
from perfmodel.reference.sequences import prefill  # noqa: E402

pytestmark = pytest.mark.torch

TOKENS = torch.arange(80).reshape(2, 40) * 7 % 64
EPS = 1e-5


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def new_cache(decoder, batch=2, capacity=64):
    return KVCache(decoder.architecture, batch, capacity, dtype=torch.float64)


def logits_of(decoder, tokens=TOKENS, steps=None):
    cache, logits, start = new_cache(decoder), [], 0
    for count in steps or (tokens.shape[1],):
        logits.append(decoder.forward(tokens[:, start : start + count], cache.next(count)))
        start += count
        cache.lens = cache.lens + count
    return torch.cat(logits, dim=1)


def test_every_mixer_is_proved():
    assert set(mixers().values()) == {type(mixer) for mixer in MIXERS.values()}


@pytest.mark.parametrize("steps", [(1,) * 40, (13, 1, 26), (2, 30, 8)])
@pytest.mark.parametrize("name", MIXERS)
def test_a_pass_of_many_tokens_is_as_many_passes_of_one(name, steps):
    decoder = decoder_of((MIXERS[name], FULL, MIXERS[name]))
    assert torch.allclose(logits_of(decoder, steps=steps), logits_of(decoder), atol=1e-10)


@pytest.mark.parametrize("name", MIXERS)
def test_a_ragged_batch_gives_what_each_sequence_gives_alone(name, monkeypatch):
    monkeypatch.setattr("perfmodel.reference.sequences.CHUNK", 16)
    decoder = decoder_of((MIXERS[name], MIXERS[name]))
    prompts = [TOKENS[0, :count].tolist() for count in (1, 16, 17, 39)]
    _, together = prefill(decoder, prompts, 1)
    for row, prompt in enumerate(prompts):
        _, alone = prefill(decoder, [prompt], 1)
        assert torch.allclose(together[row], alone[0], atol=1e-10)


@pytest.mark.parametrize("changed", [3, 20])
@pytest.mark.parametrize("name", MIXERS)
def test_no_token_sees_the_future_and_each_is_seen(name, changed):
    decoder = decoder_of((MIXERS[name], MIXERS[name]))
    other = TOKENS.clone()
    other[:, changed] += 1
    before, after = logits_of(decoder), logits_of(decoder, other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.allclose(before[:, changed + 1], after[:, changed + 1])


@pytest.mark.parametrize(("mixer", "longest"), [
    (WINDOW, {"window": 40}), (CHUNK, {"chunk": 40}), (WINDOW, {"window": 1000}), (CHUNK, {"chunk": 41}),
])  # fmt: skip
def test_a_window_or_chunk_as_long_as_the_context_is_full_attention(mixer, longest):
    full = decoder_of((FULL, FULL))
    whole = logits_of(full)
    assert torch.equal(logits_of(with_mixers(full, (replace(mixer, **longest),) * 2)), whole)
    assert not torch.allclose(logits_of(with_mixers(full, (mixer,) * 2)), whole)


@pytest.mark.parametrize(
    ("mixer", "first"), [(WINDOW, lambda place: max(0, place - 11)), (CHUNK, lambda place: place // 16 * 16)]
)
def test_a_window_hides_what_lies_before_it_and_a_chunk_starts_anew(mixer, first):
    cache = new_cache(decoder_of((mixer,)), batch=3)
    cache.lens[:] = 3, 20, 37
    seen = cache.next(4).visible_in(0).seen()[:, 0]
    for row, length in enumerate(cache.lens):
        for token in range(4):
            position = int(length) + token
            assert seen[row, token].nonzero()[:, 0].tolist() == list(range(first(position), position + 1))


def test_a_window_forgets_what_a_chunk_forgets_at_its_restart():
    windowed, chunked = decoder_of((WINDOW,)), decoder_of((CHUNK,))
    other = TOKENS.clone()
    other[:, 2] += 1
    for decoder, last in ((windowed, 13), (chunked, 15)):
        before, after = logits_of(decoder), logits_of(decoder, other)
        assert not torch.allclose(before[:, last], after[:, last])
        assert torch.equal(before[:, last + 1 :], after[:, last + 1 :])


def test_a_layer_without_a_cache_reads_that_of_the_last_of_its_kind():
    shared_window, shared = replace(WINDOW, owns_cache=False), replace(FULL, owns_cache=False)
    architecture = architecture_of((FULL, WINDOW, FULL, shared_window, shared, shared_window))
    full, window = FULL.entry, WINDOW.entry
    assert architecture.places == ((full, 0), (window, 0), (full, 1), (window, 0), (full, 1), (window, 0))
    assert architecture.entries == {full: (0, 2), window: (1,)}
    cache = KVCache(architecture, 3, 10)
    assert sum(part.numel() for stack in cache.stacks.values() for part in stack.stored) == 3 * 10 * 3 * 32


def test_a_shared_cache_is_the_owners_keys_under_queries_of_its_own():
    sharing = decoder_of((FULL, replace(FULL, owns_cache=False)))
    _, second = sharing.weights.layers
    assert second.qkv.shape == (32, 32)
    cache = new_cache(sharing)
    sharing.forward(TOKENS, cache.next(40))
    hidden = random(2, 1, 32)
    view = cache.view(cache.lens + 40, 1)
    angles = view.positions[..., None] * torch.tensor(sharing.architecture.frequencies(8))
    run = LayerPass(view, 1, lambda heads: rotate(heads, angles.cos(), angles.sin()), EPS)
    mixed = sharing.architecture.mixers[1].mix(hidden, second, run)
    query = rotate((hidden @ second.qkv.T).reshape(2, 4, 1, 8), angles.cos(), angles.sin())
    keys, values = (part[0].repeat_interleave(2, dim=1)[:, :, :41] for part in (cache.keys, cache.values))
    read = (query @ keys.transpose(-1, -2) / 8**0.5).softmax(-1) @ values
    assert torch.allclose(mixed, read.transpose(1, 2).flatten(2) @ second.output.T, atol=1e-12)


def test_a_layer_that_shares_with_nobody_is_refused():
    sharing = replace(FULL, owns_cache=False)
    for stack in ((sharing,), (WINDOW, sharing)):
        with pytest.raises(SpecError, match="shares a cache, and no layer before it of its kind has one"):
            _ = architecture_of(stack).places


def test_a_hybrid_without_other_layers_is_the_plain_model(target):
    prompts = TOKENS.tolist()
    plain = decoder_of((FULL, FULL))
    assert plain.architecture == target.architecture
    assert torch.equal(prefill(plain, prompts, 1)[1], prefill(target, prompts, 1)[1])


@pytest.mark.parametrize("mixer", [LATENT, replace(LATENT, q_rank=0)])
def test_absorbed_latent_attention_is_the_one_written_out(mixer):
    decoder = decoder_of((mixer,))
    weights, cache, hidden = decoder.weights.layers[0], new_cache(decoder), random(2, 9, 32)
    view = cache.next(9)
    rates = torch.tensor(decoder.architecture.frequencies(4), dtype=torch.float64)
    angles = view.positions[..., None] * rates

    def turn(heads):
        return rotate(heads, angles.cos(), angles.sin())

    mixed = mixer.mix(hidden, weights, LayerPass(view, 0, turn, EPS))
    extra, fused = weights.extra, hidden @ weights.qkv.T
    query, latent, rotary = fused.split((fused.shape[-1] - 16, 12, 4), dim=-1)
    if mixer.q_rank:
        query = normalize(query, extra["query_norm"], EPS) @ extra["query_up"].T
    latent = normalize(latent, extra["latent_norm"], EPS)
    query = query.unflatten(-1, (4, 12)).transpose(1, 2)
    query = torch.cat((query[..., :8], turn(query[..., 8:])), dim=-1)
    keys = (latent @ extra["key_up"].T).unflatten(-1, (4, 8)).transpose(1, 2)
    keys = torch.cat((keys, turn(rotary[:, None]).expand(-1, 4, -1, -1)), dim=-1)
    values = (latent @ extra["value_up"].T).unflatten(-1, (4, 6)).transpose(1, 2)
    scores = query @ keys.transpose(-1, -2) / 12**0.5
    read = (scores + torch.full((9, 9), -torch.inf).triu(1)).softmax(-1) @ values
    assert torch.allclose(mixed, read.transpose(1, 2).flatten(2) @ weights.output.T, atol=1e-12)


def test_a_latent_is_stored_once_and_is_key_and_value():
    cache = new_cache(decoder_of((SPARSE,)), batch=1, capacity=10)
    (stack,) = cache.stacks.values()
    assert sum(part.numel() for part in stack.stored) == 10 * (12 + 4 + 8) == 10 * SPARSE.entry.elements
    assert stack.values.data_ptr() == stack.keys.data_ptr()


def test_an_index_that_chooses_everything_is_latent_attention():
    indexed = decoder_of((SPARSE, SPARSE))
    latent = logits_of(with_mixers(indexed, (LATENT, LATENT)))
    for topk in (40, 1000):
        assert torch.equal(logits_of(with_mixers(indexed, (replace(SPARSE, top_k=topk),) * 2)), latent)
    chosen = logits_of(indexed)
    assert torch.equal(chosen[:, :10], latent[:, :10]), "a context of up to top-k tokens is read whole"
    assert not torch.allclose(chosen[:, 10:], latent[:, 10:])


def test_an_index_reads_the_entries_of_the_best_scores_for_every_query_apart():
    rows = IndexRows(random(2, 3, 4, 8), random(2, 3, 4, seed=1), random(2, 1, 4, 8), 5)
    keys, seen = random(2, 1, 20, 8, seed=2), torch.ones(4, 20, dtype=torch.bool).tril(16)[None, None]
    chosen = rows.choose(keys, seen)
    for row in range(2):
        for token in range(4):
            scores = [
                sum(
                    float(rows.weight[row, head, token]) * max(0.0, float(rows.query[row, head, token] @ key))
                    for head in range(3)
                )
                for key in keys[row, 0, : 17 + token]
            ]
            best = sorted(sorted(range(len(scores)), key=lambda slot: -scores[slot])[:5])
            assert chosen[row, 0, token].nonzero()[:, 0].tolist() == best
    assert len({tuple(choice.tolist()) for choice in chosen[0, 0]}) > 1


def test_of_equal_index_scores_the_first_slots_are_read():
    blank = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    rows = IndexRows(blank, blank[..., 0], blank, 3)
    chosen = rows.choose(random(1, 1, 50, 2), torch.ones(1, 1, 1, 50, dtype=torch.bool))
    assert chosen[0, 0, 0].nonzero()[:, 0].tolist() == [0, 1, 2]


def mix_alone(mixer, hidden):
    """Return what a recurrent mixer makes of a text, and its weights."""
    decoder = decoder_of((mixer,))
    weights, cache = decoder.weights.layers[0], new_cache(decoder, batch=1)
    run = LayerPass(cache.next(hidden.shape[1]), 0, lambda heads: heads, EPS)
    return mixer.mix(hidden, weights, run), weights


def convolved(fused, kernel):
    """Return the causal convolution of [tokens, channels], by torch."""
    channels, width = kernel.shape
    padded = F.pad(fused.T[None], (width - 1, 0))
    return F.silu(F.conv1d(padded, kernel[:, None], groups=channels)[0].T)


def test_the_gated_delta_rule_is_its_recurrence_written_out():
    hidden = random(1, 30, 32)
    mixed, weights = mix_alone(DELTA, hidden)
    extra, fused = weights.extra, hidden[0] @ weights.qkv.T
    inner = convolved(fused[:, :56], extra["convolution"])
    read = torch.zeros(30, 4, 6, dtype=torch.float64)
    for head in range(4):
        shared = slice(head // 2 * 8, head // 2 * 8 + 8)
        state = torch.zeros(6, 8, dtype=torch.float64)
        for token in range(30):
            query, key = inner[token, :16][shared], inner[token, 16:32][shared]
            query, key = query / query.norm(), key / key.norm()
            value = inner[token, 32 + 6 * head : 38 + 6 * head]
            beta = torch.sigmoid(fused[token, 80 + head])
            alpha = torch.exp(
                -extra["decay"][head].exp() * F.softplus(fused[token, 84 + head] + extra["step"][head])
            )
            # S_t = S_{t-1} (alpha (I - beta k k^T)) + beta v k^T, as arXiv 2412.06464 writes it
            kept = torch.eye(8, dtype=torch.float64) - beta * torch.outer(key, key)
            state = state @ (alpha * kept) + beta * torch.outer(value, key)
            read[token, head] = state @ query / 8**0.5
    gated = normalize(read, extra["gate_norm"], EPS).flatten(1) * F.silu(fused[:, 56:80])
    assert torch.allclose(mixed[0], gated @ weights.output.T, atol=1e-12)


def test_kimi_delta_attention_with_one_decay_for_all_channels_is_the_gated_delta_rule():
    query, key, value = (random(1, 12, 2, 8, seed=seed) for seed in range(3))
    decay, strength = random(1, 12, 2, 1, seed=3).sigmoid(), random(1, 12, 2, 1, seed=4).sigmoid()
    start = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    by_channel, _ = scan(start, query, key, value, decay.expand(-1, -1, -1, 8), strength)
    by_head, _ = scan(start, query, key, value, decay, strength)
    assert torch.equal(by_channel, by_head)
    hidden = random(1, 20, 32)
    mixed, weights = mix_alone(KIMI, hidden)
    extra, fused = weights.extra, hidden[0] @ weights.qkv.T
    query, key, value = convolved(fused[:, :72], extra["convolution"]).reshape(20, 3, 3, 8).unbind(1)
    step = (fused[:, 72:80] @ extra["decay_up"].T + extra["step"]).reshape(20, 3, 8)
    alpha = torch.exp(-extra["decay"].exp()[:, None] * F.softplus(step))
    read = torch.zeros(20, 3, 8, dtype=torch.float64)
    state = torch.zeros(3, 8, 8, dtype=torch.float64)
    for token in range(20):
        for head in range(3):
            q, k = (F.normalize(part[token, head], dim=0) for part in (query, key))
            beta = torch.sigmoid(fused[token, 88 + head])
            state[head] = torch.diag(alpha[token, head]) @ state[head]
            state[head] += beta * torch.outer(k, value[token, head] - k @ state[head])
            read[token, head] = q @ state[head] / 8**0.5
    gate = torch.sigmoid(fused[:, 80:88] @ extra["gate_up"].T)
    gated = normalize(read, extra["gate_norm"], EPS).flatten(1) * gate
    assert torch.allclose(mixed[0], gated @ weights.output.T, atol=1e-12)


def test_mamba_2_is_attention_with_decays_as_its_duality_says():
    hidden = random(1, 20, 32)
    mixed, weights = mix_alone(MAMBA, hidden)
    extra, fused = weights.extra, hidden[0] @ weights.qkv.T
    inner = convolved(fused[:, 32:88], extra["convolution"])
    entering, written, asked = inner[:, :32].reshape(20, 4, 8), inner[:, 32:44], inner[:, 44:]
    step = F.softplus(fused[:, 88:] + extra["step"])
    fall = (-extra["decay"].exp() * step).cumsum(0)
    read = torch.zeros(20, 4, 8, dtype=torch.float64)
    for head in range(4):
        shared = slice(head // 2 * 6, head // 2 * 6 + 6)
        left = torch.exp((fall[:, None, head] - fall[None, :, head]).tril()).tril()
        scores = asked[:, shared] @ written[:, shared].T * left * step[None, :, head]
        read[:, head] = scores @ entering[:, head] + extra["skip"][head] * entering[:, head]
    gated = normalize(read.flatten(1) * F.silu(fused[:, :32]), extra["gate_norm"], EPS)
    assert torch.allclose(mixed[0], gated @ weights.output.T, atol=1e-12)


def test_lightning_attention_is_attention_whose_scores_fall_with_the_distance():
    hidden = random(1, 20, 32)
    mixed, weights = mix_alone(LIGHTNING, hidden)
    *parts, gate = (hidden[0] @ weights.qkv.T).chunk(4, dim=-1)
    query, key, value = (F.silu(part).reshape(20, 4, 8) for part in parts)
    distance = (torch.arange(20)[:, None] - torch.arange(20)).double()
    read = torch.zeros(20, 4, 8, dtype=torch.float64)
    for head in range(4):
        left = torch.exp(-(2.0 ** (-2.0 * (head + 1))) * distance).tril()
        read[:, head] = (query[:, head] @ key[:, head].T * left) @ value[:, head]
    gated = normalize(read.flatten(1), weights.extra["gate_norm"], EPS) * gate.sigmoid()
    assert torch.allclose(mixed[0], gated @ weights.output.T, atol=1e-12)


def test_mamba_is_its_recurrence_written_out():
    hidden = random(1, 20, 32)
    mixed, weights = mix_alone(SELECTIVE, hidden)
    extra, fused = weights.extra, hidden[0] @ weights.qkv.T
    inner = convolved(fused[:, :24], extra["convolution"])
    maps = inner @ extra["maps"].T
    step = F.softplus(maps[:, :4] @ extra["step_up"].T + extra["step"])
    state, read = torch.zeros(24, 6, dtype=torch.float64), torch.zeros(20, 24, dtype=torch.float64)
    for token in range(20):
        state = torch.exp(-step[token, :, None] * extra["decay"].exp()) * state
        state = state + torch.outer(step[token] * inner[token], maps[token, 4:10])
        read[token] = state @ maps[token, 10:] + extra["skip"] * inner[token]
    assert torch.allclose(mixed[0], (read * F.silu(fused[:, 24:])) @ weights.output.T, atol=1e-12)


def test_a_short_convolution_is_a_gated_sum_over_the_last_tokens():
    hidden = random(1, 20, 32)
    mixed, weights = mix_alone(CONVOLUTION, hidden)
    before, after, entering = (hidden[0] @ weights.qkv.T).chunk(3, dim=-1)
    padded = F.pad(before * entering, (0, 0, 2, 0))
    kernel = weights.extra["convolution"]
    summed = sum(kernel[:, place] * padded[place : place + 20] for place in range(3))
    assert torch.allclose(mixed[0], (after * summed) @ weights.output.T, atol=1e-12)


def test_a_convolution_of_one_token_sees_that_token_only():
    entering = random(2, 5, 3)
    doubled, windows = convolve(entering[:, :0], entering, torch.full((3, 1), 2.0, dtype=torch.float64))
    assert torch.equal(doubled, 2.0 * entering)
    assert windows.shape == (5, 2, 0, 3)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_state_has_one_size_at_any_length(name):
    decoder = decoder_of((RECURRENT[name],))
    cache = new_cache(decoder)
    before = cache.states.at(0, cache.lens)
    decoder.forward(TOKENS, cache.next(40))
    after = cache.states.at(0, cache.lens + 40)
    assert not cache.stacks
    assert [part.shape for part in before] == [part.shape for part in after]
    assert tuple(part.shape[1:] for part in after) == RECURRENT[name].state_shapes


def test_the_states_of_qwen3_next_and_nemotron_have_their_published_sizes():
    (width, channels), state = GatedDelta(32, 128, 16, 128, 4).state_shapes
    assert (width, channels, state) == (3, 8192, (32, 128, 128))
    assert Mamba2(128, 64, 8, 128, 4).state_shapes == ((3, 10240), (128, 128, 64))
