"""The laws of a prefix cache: blocks are held once, found as the longest beginning, and go oldest first."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import ENGINE, H100, SMALL, SNAP, replica, tight

from perfmodel.deployment import Deployment
from perfmodel.model import ModelSpec
from perfmodel.traffic.prefix_cache import PrefixCache, cannot_share, sharing_remarks
from perfmodel.traffic.prefixes import Prefixes
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.simulate import FixedGamma, simulate
from perfmodel.traffic.trace import Trace

TOKENS = 16


def prefixes_of(requests):
    ids = np.array([number for ids in requests for number in ids], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in requests])]).astype(np.int64)
    return Prefixes.of_ids(ids, offsets, TOKENS)


class Blocks:
    """What the cache has to do, block by block: one count of users each, and the unused in order of use."""

    def __init__(self, prefixes):
        self.paths = [
            prefixes.blocks[start:end].tolist()
            for start, end in zip(prefixes.offsets[:-1], prefixes.offsets[1:], strict=True)
        ]
        self.users, self.unused, self.running = {}, OrderedDict(), {}

    def held(self, block):
        return block in self.users or block in self.unused

    def match(self, request):
        path = self.paths[request]
        return next((run for run, block in enumerate(path) if not self.held(block)), len(path))

    def hold(self, request, count):
        for block in self.paths[request][len(self.running.get(request, ())) : count]:
            self.users[block] = self.users.get(block, 0) + 1
            self.unused.pop(block, None)
        self.running[request] = self.paths[request][:count]

    def release(self, request):
        for block in reversed(self.running.pop(request, ())):
            self.users[block] -= 1
            if not self.users[block]:
                del self.users[block]
                self.unused[block] = None

    def shrink(self, most):
        while len(self.unused) > most:
            self.unused.popitem(last=False)


chains = st.lists(st.lists(st.integers(0, 1), min_size=0, max_size=6), min_size=1, max_size=7)


@settings(max_examples=300)
@given(chains, st.data())
def test_segments_do_what_single_blocks_would(requests, data):
    prefixes = prefixes_of(requests)
    cache, blocks = PrefixCache(prefixes), Blocks(prefixes)
    for _ in range(data.draw(st.integers(1, 25))):
        request = data.draw(st.integers(0, len(requests) - 1))
        assert cache.match(request) == blocks.match(request) * TOKENS
        if request in blocks.running:
            cache.release(request)
            blocks.release(request)
        else:
            cache.hold(request, blocks.match(request) * TOKENS)
            cache.hold(request, len(requests[request]) * TOKENS)
            blocks.hold(request, len(requests[request]))
        most = data.draw(st.integers(0, 12))
        cache.shrink(most * TOKENS + 3)
        blocks.shrink(most)
        uses = sum(map(len, blocks.running.values()))
        assert cache.used == len(blocks.users) * TOKENS
        assert cache.spare == len(blocks.unused) * TOKENS
        assert cache.shared == (uses - len(blocks.users)) * TOKENS


@given(chains)
def test_with_room_for_all_one_request_after_the_other_finds_all_that_repeats(requests):
    prefixes = prefixes_of(requests)
    cache = PrefixCache(prefixes)
    prompts = np.array([max(1, len(ids) * TOKENS) for ids in requests])
    for request, repeated in enumerate(prefixes.repeated(prompts)):
        assert min(cache.match(request), prompts[request] - 1) == repeated
        cache.hold(request, int(prompts[request]))
        cache.release(request)
    assert cache.used == cache.shared == 0
    assert cache.spare == len(set(prefixes.blocks.tolist())) * TOKENS


@given(chains)
def test_without_room_nothing_is_found_of_requests_that_ended(requests):
    cache = PrefixCache(prefixes_of(requests))
    for request, ids in enumerate(requests):
        assert cache.match(request) == 0
        cache.hold(request, len(ids) * TOKENS)
        cache.release(request)
        cache.shrink(0.0)


def test_half_a_prompt_can_be_found_before_the_rest_is_there():
    cache = PrefixCache(prefixes_of([[1, 2, 3, 4], [1, 2, 3, 4]]))
    cache.hold(0, 2 * TOKENS + 5)
    assert cache.match(1) == 2 * TOKENS
    cache.hold(1, 2 * TOKENS)
    assert (cache.used, cache.shared) == (2 * TOKENS, 2 * TOKENS)
    cache.hold(1, 4 * TOKENS)
    assert (cache.used, cache.shared) == (4 * TOKENS, 2 * TOKENS)
    cache.release(1)
    assert cache.match(0) == 4 * TOKENS
    cache.release(0)
    cache.shrink(3 * TOKENS)
    assert cache.match(0) == 3 * TOKENS


# On a replica.


def chats(count, shared, own, *, gap, output=20):
    """Requests that begin with the same blocks and go on with their own."""
    ids = [[*range(shared), *range(1000 * (1 + index), 1000 * (1 + index) + own)] for index in range(count)]
    prompt = (shared + own) * TOKENS
    arrival = np.arange(count) * gap
    return Trace("chats", arrival, np.full(count, prompt), np.full(count, output), prefixes_of(ids))


@pytest.mark.parametrize("drafter", [None, SNAP, SMALL], ids=["plain", "snapkv", "draft model"])
def test_requests_that_do_not_overlap_find_all_that_repeats_and_prefill_the_rest(drafter):
    trace = chats(6, shared=300, own=20, gap=100.0)
    outcome = simulate(replica(drafter), trace, FixedGamma(0 if drafter is None else 3))
    summary = outcome.summary()
    assert outcome.cached.tolist() == [0, *[300 * TOKENS] * 5]
    assert summary["prefix_cache_hit_rate"] == pytest.approx(trace.repeated_share)
    assert summary["prefilled_tokens"] + summary["cached_tokens"] == trace.prompt_tokens.sum()
    assert outcome.ttft[1:].max() < 0.2 * outcome.ttft[0]


def test_the_last_token_of_a_prompt_is_always_computed():
    trace = chats(2, shared=100, own=0, gap=100.0)
    outcome = simulate(replica(), trace, FixedGamma(0))
    assert outcome.cached.tolist() == [0, 100 * TOKENS - 1]
    assert np.all(outcome.ttft > 0.0)


@given(st.integers(1, 8), st.integers(0, 200), st.integers(0, 50), st.sampled_from([0.0, 0.05, 5.0]))
@settings(max_examples=25)
def test_never_more_is_found_than_repeats_nor_is_any_request_slower(count, shared, own, gap):
    trace = chats(count, shared, max(own, 1), gap=gap)
    with_cache = simulate(replica(), trace, FixedGamma(0))
    without = simulate(replica(), trace.without_prefixes(), FixedGamma(0))
    assert with_cache.cached.sum() <= trace.prefixes.repeated(trace.prompt_tokens).sum()
    assert with_cache.makespan <= without.makespan * (1 + 1e-9)
    assert with_cache.summary()["kv_occupancy_peak"] <= without.summary()["kv_occupancy_peak"] * (1 + 1e-9)


def test_running_requests_hold_what_they_share_once():
    trace = chats(8, shared=600, own=10, gap=0.2, output=2000)
    served = replica()
    a_token = served.shared_bytes_per_token
    outcome = simulate(served, trace, FixedGamma(0))
    unique = (600 + 8 * 10) * TOKENS + 8 * 2000
    assert 0.9 * unique < outcome.timeline["held"].max() / a_token < unique + 8


def test_more_requests_run_at_once_where_they_share():
    trace = chats(12, shared=400, own=10, gap=0.0, output=100)
    served = tight(3, trace)
    shares, alone = (simulate(served, each, FixedGamma(0)) for each in (trace, trace.without_prefixes()))
    assert shares.timeline["decoding"].max() == 12
    assert alone.timeline["decoding"].max() == 3


def test_prefixes_go_when_others_need_the_room():
    first, other = [*range(400)], [*range(1000, 1400)]
    trace = Trace(
        "three", np.array([0.0, 100.0, 200.0]), np.full(3, 6400), np.full(3, 5),
        prefixes_of([first, other, first]),
    )  # fmt: skip
    assert simulate(tight(3, trace), trace, FixedGamma(0)).cached.tolist() == [0, 0, 6399]
    found = simulate(tight(1.5, trace), trace, FixedGamma(0)).cached
    assert 0.4 * 6400 < found[2] < 0.6 * 6400
    assert simulate(tight(1.01, trace), trace, FixedGamma(0)).cached[2] < 0.05 * 6400


@pytest.mark.parametrize("schedules", ["mixed", "prefill-first", "in-flight"])
def test_every_kind_of_scheduler_serves_all_requests_within_its_cache(schedules, steps):
    trace = chats(20, shared=200, own=50, gap=0.02, output=300)
    served = tight(2.2, trace, scheduler=schedules)
    outcome = simulate(served, trace, FixedGamma(0))
    assert np.all(outcome.finish >= outcome.first_token)
    assert max(step.held_last for step in steps) <= served.cache_bytes
    assert outcome.summary()["prefix_cache_hit_rate"] > 0.7


def test_a_request_that_lost_its_cache_finds_its_prefix_again():
    trace = chats(4, shared=300, own=10, gap=0.0, output=3000)
    summary = simulate(tight(1.9, trace), trace, FixedGamma(0)).summary()
    assert summary["preemptions"] > 0
    assert summary["prefilled_tokens"] < trace.prompt_tokens.sum() + summary["preemptions"] * 3100


def test_a_trace_without_ids_is_served_as_before_and_says_nothing_of_prefixes():
    trace = chats(6, shared=0, own=50, gap=0.01)
    same = simulate(replica(), trace.without_prefixes(), FixedGamma(0))
    other = simulate(replica(), trace, FixedGamma(0))
    assert np.array_equal(same.finish, other.finish)
    assert "prefix_cache_hit_rate" not in same.summary()
    assert other.summary()["cached_tokens"] == 0.0


# Which layers can share.


def on(model):
    return Replica(Deployment(H100, ModelSpec.load(model), ENGINE, 1), max_batch=8)


def test_recurrent_layers_share_nothing_and_people_are_told():
    hybrid, trace = on("granite-4-h-small"), chats(3, shared=50, own=5, gap=9.0)
    assert "recurrent" in cannot_share(hybrid)
    (remark,) = sharing_remarks(hybrid, trace)
    assert "upper bounds" in remark
    whole = simulate(hybrid, trace, FixedGamma(0))
    assert whole.cached is None
    assert whole.summary()["prefilled_tokens"] == trace.prompt_tokens.sum()
    assert sharing_remarks(hybrid, trace.without_prefixes()) == sharing_remarks(replica(), trace) == []


def test_windows_are_each_sequences_own_and_full_layers_shared():
    windowed = on("gemma-3-4b")
    dense = ModelSpec.load("gemma-3-4b")
    full = [(cache, count) for cache, count in dense.caches if not cache.window]
    every = sum(cache.elements * count for cache, count in dense.caches)
    share = sum(cache.elements * count for cache, count in full) / every
    assert 0.1 < share < 0.3
    assert windowed.shared_bytes_per_token / windowed.kept_bytes_per_token == pytest.approx(share, rel=1e-3)


def test_a_draft_cache_of_fixed_size_is_not_shared_and_a_draft_models_is():
    plain, snap, model = (replica(drafter) for drafter in (None, SNAP, SMALL))
    assert snap.shared_bytes_per_token == pytest.approx(plain.shared_bytes_per_token)
    assert plain.kept_bytes_per_token == pytest.approx(plain.shared_bytes_per_token)
    both = plain.shared_bytes_per_token + on("llama-3.2-1b").shared_bytes_per_token
    assert model.shared_bytes_per_token == pytest.approx(both)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 1), max_size=4), min_size=1, max_size=14),
    st.sampled_from([0.0, 0.02, 1.0]),
    st.sampled_from([1.1, 1.6, 3.0]),
    st.sampled_from(["mixed", "prefill-first", "in-flight"]),
    st.sampled_from([(None, 0), (SNAP, 3), (SMALL, 2)]),
)
def test_whatever_shares_what_all_are_served_within_the_cache(chains, gap, room, scheduler, drafts):
    drafter, gamma = drafts
    long = [[40 * number + block for number in ids for block in range(40)] for ids in chains]
    prompts = np.array([40 * TOKENS * len(ids) + 77 for ids in chains])
    trace = Trace(
        "any", np.arange(len(chains)) * gap, prompts, np.full(len(chains), 90), prefixes_of(long)
    )
    served = tight(room, trace, drafter, scheduler=scheduler)
    outcome = simulate(served, trace, FixedGamma(gamma))
    lines = outcome.timeline
    assert np.all(outcome.finish >= outcome.first_token)
    assert lines["held"].max() <= served.cache_bytes
    assert np.all(outcome.cached <= trace.prefixes.repeated(prompts).max(initial=0))
    again = lines["stopped"].sum() or (lines["prefilled"].sum() > prompts.sum())
    assert again or lines["prefilled"].sum() + outcome.cached.sum() >= prompts.sum()
