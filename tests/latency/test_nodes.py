"""Several nodes, stages of a pipeline and data-parallel groups: laws first, then what was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import CAUSES, ForwardPass, all_reduce, price_pass, step_latency
from perfmodel.latency.all_reduce import NETWORK_SHARE, all_gather, all_to_all, hop
from perfmodel.latency.forward_pass import prefill_latency
from perfmodel.model import ModelSpec
from perfmodel.planning.uncertainty import draw, interval, price_draws
from perfmodel.speculation import price

H100, GB200 = HardwareProfile.load("h100-sxm-80gb"), HardwareProfile.load("gb200")
IDEAL, GENERIC = EngineOverhead.load("ideal"), EngineOverhead.load("generic")
DENSE, LARGE, MOE, LATENT = map(
    ModelSpec.load, ("llama-3.1-8b", "llama-3.1-70b", "qwen3-30b-a3b", "deepseek-v3")
)
STEP = ForwardPass(batch=64.0, kv_tokens=4096.0)
BYTES_OF = st.floats(1.0, 1e9)


def seconds(model: ModelSpec, passed: ForwardPass = STEP, on: HardwareProfile = H100, **layout) -> float:
    return float(price_pass(Deployment(on, model, GENERIC, **layout), passed).total)


class TestSeveralNodes:
    @pytest.mark.parametrize("exchange", [all_reduce, all_gather])
    @given(bytes=BYTES_OF, gpus=st.integers(1, 8))
    def test_one_node_knows_no_network_to_the_last_bit(self, exchange, bytes, gpus):
        slow = H100.with_values({"network.bandwidth": 1e7, "network.latency": 0.1})
        for implementation in H100.all_reduce:
            size = {"bytes": bytes, "gpus": gpus, "implementation": implementation}
            assert exchange(H100, **size) == exchange(slow, **size)
            assert exchange(H100, **size) == exchange(H100.with_values({"link.gpus": 64.0}), **size)

    def test_counts_within_and_beyond_a_node_are_priced_together_as_alone(self):
        gpus = np.array([1.0, 2.0, 8.0, 12.0, 16.0, 64.0])
        together = all_reduce(H100, bytes=14336.0, gpus=gpus)
        assert_array_equal(together, [all_reduce(H100, bytes=14336.0, gpus=count) for count in gpus])
        assert np.all(np.diff(together) > 0.0)

    @given(bytes=BYTES_OF, gpus=st.sampled_from([12.0, 16.0, 24.0, 64.0, 1024.0]))
    def test_more_network_is_never_slower_and_less_latency_neither(self, bytes, gpus):
        for change in ({"network.bandwidth": 1e11}, {"network.latency": 1e-6}):
            better = H100.with_values(change)
            for exchange in (all_reduce, all_gather, all_to_all):
                assert exchange(better, bytes=bytes, gpus=gpus) <= exchange(H100, bytes=bytes, gpus=gpus)

    def test_two_nodes_reduce_in_each_and_send_half_of_a_share_up_and_down(self):
        """16 GPUs: an all-reduce of 8, two hops, and an eighth of the bytes on each network card."""
        size = 1e6
        inside = all_reduce(H100, bytes=size, gpus=8.0, implementation="nccl")
        network = 2.0 * H100.network_latency + size / 8.0 / (NETWORK_SHARE * H100.network_bandwidth)
        assert_allclose(all_reduce(H100, bytes=size, gpus=16.0), inside + network)

    def test_four_nodes_take_twice_the_hops_of_two(self):
        two, four = (
            all_reduce(H100, bytes=1.0, gpus=8.0 * nodes) - all_reduce(
                H100, bytes=1.0, gpus=8.0, implementation="nccl")
            for nodes in (2, 4)
        )  # fmt: skip
        assert_allclose(four, 2.0 * two, rtol=1e-6)

    def test_72_gpus_of_one_nvlink_domain_are_one_node(self):
        assert GB200.link_gpus == 72.0
        beyond = GB200.with_values({"link.gpus": 8.0})
        assert seconds(LATENT, on=GB200, tensor_parallel=16.0) < seconds(
            LATENT, on=beyond, tensor_parallel=16.0
        )

    def test_experts_sent_to_other_nodes_take_the_network(self):
        """Half of the bytes stays with 7 of 15 other GPUs of the node, the rest leaves over the network."""
        size = 1e8
        slower = H100.with_values({"network.bandwidth": 25e9})
        more = all_to_all(slower, bytes=size, gpus=16.0) - all_to_all(H100, bytes=size, gpus=16.0)
        assert_allclose(more, size / 2.0 / NETWORK_SHARE * (1.0 / 25e9 - 1.0 / 50e9))

    def test_sixteen_h100_of_two_nodes_are_as_measured_within_the_range(self):
        """NCCL on two nodes of 8 H100: 75 us at 4 KiB, eager (NVIDIA/nccl issue 1453)."""
        low, high = (
            all_reduce(H100.with_values({"network.latency": latency}), bytes=4096.0, gpus=16.0)
            for latency in (
                H100.quantities["network.latency"].low, H100.quantities["network.latency"].high
            )
        )  # fmt: skip
        assert low < 75e-6 < high

    @pytest.mark.parametrize(("context", "measured"), [(192.0, 23.1e-3), (8192.0, 24.0e-3)])
    def test_deepseek_v3_on_two_nodes_of_8_h100(self, context, measured):
        """SGLang over InfiniBand, concurrency 1, no speculation, engine not calibrated: within the range."""
        runs = Deployment(H100, LATENT, GENERIC, 16.0)
        cell = {"batch": np.ones(1), "context_len": np.full(1, context)}
        cell |= {"kv_budget": np.full(1, np.inf), "gamma": np.zeros(1)}
        low, high = interval(price_draws(draw(runs), None, cell).tpot)
        assert low[0] < measured < high[0]
        assert price(runs, None, **cell).baseline.communication > 122 * 50e-6


class TestStages:
    PLAIN = Deployment(H100, LARGE, GENERIC, 4.0)

    @pytest.mark.parametrize("model", [DENSE, MOE, LATENT], ids=lambda model: model.name)
    @pytest.mark.parametrize("name", ["pipeline_parallel", "data_parallel"])
    def test_one_of_them_is_the_plain_case_to_the_last_bit(self, model, name):
        shape = {"batch": np.array([1.0, 7.0, 64.0]), "tensor_parallel": np.array([1.0, 4.0, 8.0])[:, None]}
        for count in (1, 1.0, np.ones((2, 1, 1))):
            plain = step_latency(H100, model, GENERIC, kv_tokens=4096.0, **shape)
            alone = step_latency(H100, model, GENERIC, kv_tokens=4096.0, **shape, **{name: count})
            for cause in CAUSES:
                expected = np.broadcast_to(getattr(plain, cause), np.shape(getattr(alone, cause)))
                assert_array_equal(getattr(alone, cause), expected)
        chunk = {"batch": 1.0, "prompt_tokens": 2048.0, "tensor_parallel": 8.0}
        chunks = [prefill_latency(H100, model, GENERIC, **chunk, **more) for more in ({}, {name: 1.0})]
        assert chunks[0].total == chunks[1].total

    @pytest.mark.parametrize("name", ["pipeline_parallel", "data_parallel"])
    def test_some_and_none_in_one_array_are_priced_as_alone(self, name):
        mixed = Deployment(H100, MOE, GENERIC, 2.0, **{name: np.array([1.0, 2.0, 4.0])})
        together = price_pass(mixed, STEP).total
        alone = [seconds(MOE, tensor_parallel=2.0, **{name: count}) for count in (1.0, 2.0, 4.0)]
        assert_allclose(together, alone, rtol=1e-14)

    def test_one_sequence_passes_all_stages_one_after_the_other(self):
        """What it gains is nothing: the same layers, two more forwards of the engine, two hops."""
        single = replace(STEP, batch=1.0)
        plain, three = (seconds(LARGE, single, tensor_parallel=4.0, pipeline_parallel=p) for p in (1.0, 3.0))
        carried = 2.0 * LARGE.hidden_size * 2.0
        hops = [hop(H100, bytes=carried, gpus=4.0, across=across) for across in (False, True)]
        assert_allclose(three, plain + 2.0 * GENERIC.forward_s + sum(hops), rtol=1e-12)

    def test_a_batch_goes_in_as_many_micro_batches_as_there_are_stages(self):
        """Even stages never wait: a token takes what a micro-batch takes through the whole model."""
        even = Deployment(H100, LARGE, IDEAL, 4.0, pipeline_parallel=2.0)
        small = price_pass(replace(even, pipeline_parallel=1.0), replace(STEP, batch=32.0))
        both = price_pass(even, STEP)
        assert small.total < both.total < 1.1 * small.total

    def test_uneven_stages_wait_for_the_fullest(self):
        """80 layers over 3 stages are 27, 27 and 26; over 79 stages one has two layers, and rounds double."""
        runs = replace(self.PLAIN, engine=IDEAL, pipeline_parallel=79.0)
        few, many = (price_pass(runs, replace(STEP, batch=batch)).total for batch in (1.0, 79.0))
        assert many > 1.5 * few

    def test_throughput_of_a_large_batch_grows_with_the_stages(self):
        many = replace(STEP, batch=512.0)
        times = [seconds(LARGE, many, tensor_parallel=4.0, pipeline_parallel=p) for p in (1.0, 2.0, 4.0)]
        assert times == sorted(times, reverse=True)

    @pytest.mark.parametrize("model", [LARGE, MOE], ids=lambda model: model.name)
    @pytest.mark.parametrize("groups", [1.0, 2.0, 8.0])
    @pytest.mark.parametrize("engine", [GENERIC, EngineOverhead.load("vllm")], ids=lambda engine: engine.name)
    def test_a_step_never_falls_with_the_batch(self, model, groups, engine):
        stages, batches = np.arange(1.0, 9.0)[:, None], np.arange(1.0, 65.0)
        runs = Deployment(H100, model, engine, 2.0, pipeline_parallel=stages, data_parallel=groups)
        total = price_pass(runs, replace(STEP, batch=batches)).total
        assert np.all(np.diff(total, axis=1) >= -1e-12 * total[:, 1:])

    @given(bytes=BYTES_OF, gpus=st.sampled_from([1.0, 2.0, 8.0]))
    def test_a_hop_over_more_network_is_never_slower(self, bytes, gpus):
        better = H100.with_values({"network.bandwidth": 1e11})
        slow, fast = (hop(on, bytes=bytes, gpus=gpus, across=True) for on in (H100, better))
        assert fast <= slow


class TestDataParallelGroups:
    def test_replicas_without_experts_are_steps_of_their_share(self):
        groups = seconds(DENSE, tensor_parallel=2.0, data_parallel=4.0)
        assert groups == seconds(DENSE, replace(STEP, batch=16.0), tensor_parallel=2.0)

    def test_the_fullest_group_is_waited_for(self):
        share = replace(STEP, batch=17.0)
        for batch in (65.0, 68.0):
            step = seconds(DENSE, replace(STEP, batch=batch), tensor_parallel=2.0, data_parallel=4.0)
            assert step == seconds(DENSE, share, tensor_parallel=2.0)

    @pytest.mark.parametrize("dealt", [False, True])
    def test_experts_see_the_tokens_of_all_groups_and_attention_those_of_one(self, dealt):
        """One sequence a GPU: experts cost what they cost 8 GPUs, attention what it costs one sequence."""
        eight = replace(STEP, batch=8.0)
        shared = price_pass(Deployment(H100, LATENT, IDEAL, 8.0, dealt), eight)
        groups = price_pass(Deployment(H100, LATENT, IDEAL, 1.0, dealt, 1.0, 8.0), eight)
        alone = price_pass(Deployment(H100, LATENT, IDEAL, 1.0), replace(STEP, batch=1.0))
        assert groups.attention == alone.attention
        assert groups.linear > shared.linear  # each GPU multiplies by all of attention
        assert groups.linear < price_pass(Deployment(H100, LATENT, IDEAL, 1.0), eight).linear / 2.0

    def test_latent_attention_at_a_long_context_gains_by_groups(self):
        """Every GPU reads the latent cache of its own sequences, not a copy of all (DeepSeek-V3)."""
        many = ForwardPass(batch=256.0, kv_tokens=32_000.0)
        shared = seconds(LATENT, many, tensor_parallel=8.0)
        groups = seconds(LATENT, many, tensor_parallel=1.0, data_parallel=8.0, expert_parallel=True)
        assert groups < shared / 2.0

    def test_rows_are_gathered_and_scattered_in_place_of_one_reduction(self):
        groups = Deployment(H100, MOE, IDEAL, 1.0, data_parallel=8.0)
        size = 64.0 * MOE.hidden_size * 2.0
        exchange = 2.0 * all_gather(H100, bytes=size, gpus=8.0, implementation=groups.all_gather)
        assert_allclose(price_pass(groups, STEP).communication, MOE.num_layers * exchange)

    @pytest.mark.parametrize("sends", [0.0, 1.0])
    def test_groups_over_more_network_are_never_slower(self, sends):
        engine = GENERIC.with_values({"expert_all_to_all": sends})
        layout = {"expert_parallel": True, "data_parallel": 32.0}
        times = [
            price_pass(Deployment(on, LATENT, engine, 1.0, **layout), STEP).total
            for on in (H100, H100.with_values({"network.bandwidth": 1e11}))
        ]
        assert times[1] < times[0]
