"""One draft-verify round: laws that hold for every drafter, then rounds worked out by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import strategies
from perfmodel.acceptance import Acceptance
from perfmodel.deployment import Deployment
from perfmodel.drafting import lookup
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import StepLatency
from perfmodel.memory import resident_memory
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, Round, price_round, price_steps, target_passes
from strategies.base import EXACT

H100 = HardwareProfile.load("h100-sxm-80gb")
ENGINE, IDEAL = EngineOverhead.load("magicdec-h100"), EngineOverhead.load("ideal")
LLAMA, SMALL = ModelSpec.load("llama-3.1-8b"), ModelSpec.load("llama-3.2-1b")
STRATEGIES = [strategies.load(name) for name in strategies.available()]
DRAFTERS = [Drafter(strategy) for strategy in STRATEGIES if not strategy.needs_draft_model]
DRAFTERS += [Drafter(strategy, SMALL) for strategy in STRATEGIES if "draft" in strategy.drafters]
BUDGETED = [drafter for drafter in DRAFTERS if drafter.strategy.default_budgets]
WHOLE_WEIGHTS = [
    drafter
    for drafter in DRAFTERS
    if drafter.kind == "self"
    and drafter.strategy.acceptance.first == drafter.strategy.acceptance.rest == EXACT
]
EVERY = pytest.mark.parametrize("drafter", DRAFTERS, ids=lambda drafter: drafter.label)

price = partial(price_round, H100, LLAMA, ENGINE)
drafters = st.sampled_from(DRAFTERS)


def whole(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(float)


configurations = st.fixed_dictionaries(
    {
        "batch": whole(1, 512),
        "context_len": whole(1, 131072),
        "kv_budget": whole(1, 16384),
        "gamma": whole(1, 16),
        "tensor_parallel": st.sampled_from([1.0, 2.0, 8.0]),
    }
)


class TestGammaZero:
    @EVERY
    def test_it_is_plain_decoding_with_speedup_exactly_one(self, drafter):
        contexts = np.array([1.0, 777.0, 32768.0, 131072.0])
        nothing = price(drafter, batch=np.array([[1.0], [96.0]]), context_len=contexts, gamma=0.0)
        plain = price(None, batch=np.array([[1.0], [96.0]]), context_len=contexts)
        for found in (nothing, plain):
            assert np.all(found.speedup == 1.0)
            assert np.all(found.tpot == found.baseline.total)
        assert np.all(nothing.tpot == plain.tpot)

    @given(configurations)
    def test_plain_decoding_needs_only_the_target(self, one):
        plain = price(None, **one)
        alone = {name: one[name] for name in ("batch", "context_len", "tensor_parallel")}
        assert plain.memory.total == resident_memory(H100, LLAMA, ENGINE, **alone).total


class TestLaws:
    @given(drafters, st.lists(configurations, min_size=2, max_size=4))
    def test_an_array_call_is_its_scalar_calls(self, drafter, several):
        columns = {name: np.array([one[name] for one in several]) for name in several[0]}
        together, alone = price(drafter, **columns), [price(drafter, **one) for one in several]
        for name in ("tokens_per_round", "round_s", "tpot", "throughput", "speedup", "break_even_tokens"):
            assert_allclose(getattr(together, name), [getattr(one, name) for one in alone], rtol=1e-11)
        assert together.memory.fits.tolist() == [bool(one.memory.fits) for one in alone]

    @given(drafters, configurations)
    def test_a_grid_call_is_its_scalar_calls(self, drafter, one):
        """Axes in the order of the package: tensor parallelism, batch, context, budget, gamma."""
        axes = dict(
            zip(("tensor_parallel", "batch", "context_len", "kv_budget", "gamma"), range(5), strict=True)
        )
        wide = {
            name: np.array([1.0, one[name]]).reshape([2 if axis == place else 1 for place in range(5)])
            for name, axis in axes.items()
        }
        grid = price(drafter, **wide).speedup
        assert grid.shape == (2,) * 5
        assert grid[1, 1, 1, 1, 1] == pytest.approx(price(drafter, **one).speedup, rel=1e-11)

    @given(drafters, configurations, st.floats(1.01, 8.0))
    def test_a_better_accelerator_is_never_slower(self, drafter, one, factor):
        peaks = {f"peak.{dtype}": factor * peak for dtype, peak in H100.peak_flops.items()}
        for better in (peaks, {"memory.bandwidth": factor * H100.memory_bandwidth}):
            faster = price_round(H100.with_values(better), LLAMA, ENGINE, drafter, **one).tpot
            assert faster <= price(drafter, **one).tpot * (1 + 1e-12)

    @given(drafters, configurations, whole(1, 4096))
    def test_a_round_is_never_cheaper_for_more_sequences_context_or_drafts(self, drafter, one, extra):
        for name in ("batch", "context_len", "gamma"):
            longer = price(drafter, **{**one, name: one[name] + extra})
            assert longer.round_s >= price(drafter, **one).round_s * (1 - 1e-12)

    @given(st.sampled_from(BUDGETED), configurations, whole(1, 8192))
    def test_more_draft_budget_never_costs_less(self, drafter, one, extra):
        more = price(drafter, **{**one, "kv_budget": one["kv_budget"] + extra})
        assert more.draft_s >= price(drafter, **one).draft_s * (1 - 1e-12)
        assert more.memory.total >= price(drafter, **one).memory.total * (1 - 1e-12)

    @given(st.sampled_from(BUDGETED), configurations, whole(1, 8192))
    def test_more_draft_budget_never_accepts_less(self, drafter, one, extra):
        """Within what a head was trained to read."""
        trained = drafter.strategy.acceptance.trained_length.value
        budget = min(one["kv_budget"], trained)
        more = min(budget + extra, trained)
        found = [price(drafter, **{**one, "kv_budget": kept}).tokens_per_round for kept in (budget, more)]
        assert found[1] >= found[0] - 1e-12

    @given(st.sampled_from(WHOLE_WEIGHTS), configurations, st.floats(1.0, 4.0))
    def test_the_target_accepts_all_of_its_own_drafts_from_the_whole_cache(self, drafter, one, factor):
        covered = {**one, "kv_budget": factor * one["context_len"]}
        assert price(drafter, **covered).tokens_per_round == one["gamma"] + 1.0

    @given(drafters, configurations, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
    def test_accepting_more_is_never_slower_and_never_yields_more_than_was_drafted(
        self, drafter, one, low, high
    ):
        less, more = (price(drafter, **one, alpha=alpha) for alpha in sorted((low, high)))
        assert more.tpot <= less.tpot
        assert 1.0 <= less.tokens_per_round <= more.tokens_per_round <= one["gamma"] + 1.0

    @given(drafters, configurations)
    def test_speedup_is_tokens_per_round_over_those_that_break_even(self, drafter, one):
        found = price(drafter, **one)
        assert found.speedup == pytest.approx(found.tokens_per_round / found.break_even_tokens)
        assert found.break_even_tokens >= 1.0
        assert found.speedup <= one["gamma"] + 1.0
        assert found.throughput == pytest.approx(one["batch"] / found.tpot)
        assert found.draft_ratio == pytest.approx(found.draft.total / found.baseline.total)
        assert found.verify_ratio == pytest.approx(found.verify.total / found.baseline.total)

    @given(drafters, configurations)
    def test_the_passes_of_the_target_may_be_priced_once_for_all_drafters(self, drafter, one):
        shape = {name: one[name] for name in ("batch", "context_len", "gamma")}
        shared = price_steps(Deployment(H100, LLAMA, ENGINE, one["tensor_parallel"]), **shape)
        assert price(drafter, **one, steps=shared).tpot == price(drafter, **one).tpot

    def test_measured_tokens_per_round_override_rates(self):
        found = price(DRAFTERS[0], batch=8, context_len=9000, gamma=4, alpha=0.1, tokens_per_round=3.5)
        assert found.tokens_per_round == 3.5
        rate = price(DRAFTERS[0], batch=8, context_len=9000, gamma=4, alpha=Acceptance.given(0.8))
        assert rate.tokens_per_round == pytest.approx(1 + 0.8 + 0.8**2 + 0.8**3 + 0.8**4)


class TestByHand:
    def test_the_paper_adds_up(self):
        """MagicDec Table 6, 16 sequences of 32000 on 8 H100s, budget 512: T_T 6.18, T_D 3.443, T_V 6.73 ms,
        3.09 tokens a round of gamma 3. With .64 ms a round beside: (3 x 3.443 + 6.73 + .64) / 3.09 = 5.73 ms,
        6.18 / 5.73 = 1.08 times as fast, as published. Without those .64 ms it would be 1.12."""
        target, draft, verify = (
            StepLatency(0.0, seconds, 0.0, 0.0) for seconds in (6.18e-3, 3.443e-3, 6.73e-3)
        )
        memory = resident_memory(H100, LLAMA, ENGINE, batch=16, context_len=32000)
        found = Round(3.0, 3.0, 16.0, draft, verify, target, 0.64e-3, 3.09, memory)
        assert found.draft_s == pytest.approx(10.329e-3)
        assert found.round_s == pytest.approx(17.699e-3)
        assert found.tpot == pytest.approx(5.728e-3, rel=1e-3)
        assert found.speedup == pytest.approx(1.08, abs=0.005)
        assert found.break_even_tokens == pytest.approx(17.699 / 6.18)

    def test_a_round_costs_its_engine_time_once_whatever_gamma_is(self):
        """0.62 ms and 1.4 us for each of 100 sequences: 0.76 ms."""
        engine = ENGINE.with_values({"round": 0.62e-3, "round_row": 1.4e-6})
        found = price_round(
            H100, LLAMA, engine, DRAFTERS[0], batch=100, context_len=9000, gamma=np.array([0, 1, 8])
        )
        assert_allclose(found.overhead, [0.0, 0.76e-3, 0.76e-3])

    def test_the_last_query_of_a_verification_reads_every_draft(self):
        """At 200 entries and length 16 that is 8 % more of the cache than a decode step reads."""
        step, verification = target_passes(batch=64.0, context_len=200.0, gamma=16.0)
        assert verification.query_tokens == 17.0
        assert verification.kv_tokens / step.kv_tokens == pytest.approx(1.08)
        assert verification.entries(100) == 100 + 16
        plain, idle = target_passes(batch=64.0, context_len=200.0, gamma=0.0)
        assert (plain.kv_tokens, plain.query_tokens) == (idle.kv_tokens, idle.query_tokens)

    def test_looking_a_draft_up_takes_the_host_alone(self):
        found = price(Drafter(strategies.load("ngram")), batch=16, context_len=9000, gamma=4)
        searched = ENGINE.lookup_s + 16 * 9000 * ENGINE.lookup_token_s
        assert found.draft_s == found.draft.overhead == pytest.approx(searched, rel=1e-12)
        assert found.memory.draft_weights == found.memory.draft_kv == 0.0

    def test_groups_look_up_beside_each_other(self):
        """Each data-parallel group has a host of its own: four of four sequences look up four."""
        grouped = Deployment(H100, LLAMA, ENGINE, data_parallel=4.0)
        alone = Deployment(H100, LLAMA, ENGINE)
        assert lookup(grouped, 16.0, 9000.0) == lookup(alone, 4.0, 9000.0) < lookup(alone, 16.0, 9000.0)

    def test_skipping_three_quarters_of_the_layers_leaves_eight_and_the_output_layer(self):
        """8 of 32 layers have 1.745e9 weights and the output layer .525e9: .302 of 7.505e9."""
        found = price(Drafter(strategies.load("layer_skip")), batch=1, context_len=1, gamma=4)
        layers, output = 32 * 218_103_808, 128256 * 4096
        assert found.draft.linear / found.baseline.linear == pytest.approx(
            (layers / 4 + output) / (layers + output), rel=0.02
        )
        assert found.memory.draft_weights == 0.0

    def test_a_pretrained_head_runs_one_layer_a_projection_and_the_output_layer_of_the_target(self):
        """.218e9, .034e9 and .525e9 weights of 7.505e9; the first two are held, and a cache of one layer."""
        found = price(Drafter(strategies.load("mtp")), batch=1, context_len=8192, kv_budget=4096, gamma=4)
        read, layer = 7_504_658_432, 218_103_808
        share = (layer + 8192 * 4096 + 128256 * 4096) / read
        assert found.draft.linear / found.baseline.linear == pytest.approx(share, rel=0.05)
        assert found.memory.draft_weights == pytest.approx(2 * (layer + 8192 * 4096), rel=0.001)
        assert found.memory.draft_kv == (4096 + 4) * 131072 / 32

    def test_an_eagle_head_reads_and_holds_the_gigabytes_of_the_released_one(self):
        """EAGLE3-LLaMA3.1-Instruct-8B is 0.85 GB, its output layer of 32000 tokens 0.26 of them; 0.10 fuse
        features, in the first pass of the round only."""
        fused, shared = 0.1007, 0.8498 - 0.1007
        found, longer = (
            price(Drafter(strategies.load("eagle")), batch=1, context_len=8192, kv_budget=4096, gamma=gamma)
            for gamma in (1, 4)
        )
        assert found.draft.linear / found.baseline.linear == pytest.approx(0.85 / 15.01, rel=0.1)
        mean = (shared + fused / 4) / (shared + fused)
        assert longer.draft.linear / found.draft.linear == pytest.approx(mean, rel=0.01)
        assert found.memory.draft_weights == pytest.approx(0.85e9, rel=0.005)

    @pytest.mark.parametrize("name", ["quest", "pqcache", "topk_oracle"])
    def test_at_like_acceptance_what_is_chosen_once_beats_what_is_chosen_in_every_pass(self, name):
        """MagicDec section 4, 32000 entries on 8 H100s: choosing again must earn its launches, two of 20 us
        in each of 32 layers, 1.3 ms a pass."""
        cell = {"batch": np.array([16.0, 64.0, 128.0])[:, None], "context_len": 32_000.0}
        cell |= {"gamma": np.arange(1.0, 13.0), "tensor_parallel": 8.0, "alpha": 0.88}
        once = price(Drafter(strategies.load("snapkv")), kv_budget=2049.0, **cell)
        again = price(Drafter(strategies.load(name)), kv_budget=2048.0, **cell)
        assert np.all(once.speedup > again.speedup)
        assert np.all(again.draft.attention - once.draft.attention > 1.28e-3)

    @pytest.mark.parametrize(("dtype", "share"), [("bf16", 4.25 / 16), ("fp8", 4.25 / 8), ("int4", 1.0)])
    def test_a_four_bit_copy_saves_only_what_the_target_stores_wider(self, dtype, share):
        """Copies of 4.25 bits beside 16 or 8; of a target that has four bits already no copy is shorter."""
        target = LLAMA.with_dtypes(weights=dtype, kv=dtype)
        free_arithmetic = H100.with_values({"peak.bf16": 1e30})
        found = price_round(
            free_arithmetic,
            target,
            IDEAL,
            Drafter(strategies.load("quantized_kv")),
            batch=64,
            context_len=100_000,
            gamma=1,
        )
        assert found.draft.attention / found.baseline.attention == pytest.approx(share, rel=0.03)
        assert found.memory.draft_weights == pytest.approx(share * found.memory.weights, rel=0.01)

    def test_a_draft_needs_a_model_only_where_its_strategy_says_so(self):
        with pytest.raises(SpecError, match=r"full_kv.*none is named"):
            Drafter(strategies.load("full_kv"))
        with pytest.raises(SpecError, match=r"eagle does not take a draft model"):
            Drafter(strategies.load("eagle"), SMALL)
