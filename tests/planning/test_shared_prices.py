"""What is shared between configurations changes no bit of any price, and is priced once."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from itertools import islice

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import strategies
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import Once, by_budget, distinct, forward_pass, linear, spread
from perfmodel.model import ForwardPass, ModelSpec
from perfmodel.planning.price import CHUNK, Prices, SearchSpace, price_drafters, price_pieces, split, sweep
from perfmodel.speculation import price
from perfmodel.workload import Workload
from strategies.base import Tree

H100 = HardwareProfile.load("h100-sxm-80gb")
LLAMA = ModelSpec.load("llama-3.1-8b")
SMALL = ModelSpec.load("llama-3.2-1b")
ENGINE = EngineOverhead.load("magicdec-h100")
WINDOWS, SNAPKV = (Drafter(strategies.load(name)) for name in ("streaming_llm", "snapkv"))


def every_drafter():
    """Return every kind of drafter that there is, trees and a model of its own among them."""
    alone = [strategies.load(name) for name in strategies.available()]
    every = [None, *(Drafter(strategy) for strategy in alone if not strategy.needs_draft_model)]
    every += [Drafter(strategies.load("eagle"), tree=Tree(3, 2, 8))]
    return every + [Drafter(strategies.load(name), SMALL) for name in ("streaming_llm", "full_kv")]


def same(here, there, place=""):
    """Whether two rounds are equal in every term and what is made of them, to the last bit."""
    for field in fields(here):
        left, right = getattr(here, field.name), getattr(there, field.name)
        if is_dataclass(left) and not isinstance(left, Tree):
            same(left, right, f"{place}{field.name}.")
        elif isinstance(left, (float, np.ndarray)):
            assert_array_equal(*np.broadcast_arrays(left, right), err_msg=place + field.name)


def same_prices(shared, alone):
    same(shared, alone)
    for name in ("draft_s", "round_s", "tpot", "speedup", "throughput", "bound_by"):
        assert_array_equal(*np.broadcast_arrays(getattr(shared, name), getattr(alone, name)), err_msg=name)
    assert_array_equal(*np.broadcast_arrays(shared.memory.fits, alone.memory.fits))


CASES = [
    ("llama-3.1-8b", "magicdec-h100", {}),
    ("llama-3.1-8b", "vllm-v1-h100", {"tensor_parallel": 2}),
    ("llama-3.1-8b", "sglang-h100", {"tensor_parallel": 2, "pipeline_parallel": 2}),
    ("qwen3-30b-a3b", "vllm-h100", {"tensor_parallel": 4, "expert_parallel": True}),
    ("gpt-oss-20b", "vllm-h100", {}),
    ("gemma-3-27b", "sglang-h100", {"tensor_parallel": 2}),
    ("llama-4-scout", "vllm-h100", {"tensor_parallel": 8}),
    ("deepseek-v3.2", "sglang-h100", {"tensor_parallel": 8}),
    ("deepseek-v2-lite", "vllm-h100", {"tensor_parallel": 2, "data_parallel": 2, "expert_parallel": True}),
    ("deepseek-v4-flash", "vllm-h100", {"tensor_parallel": 8}),
    ("kimi-linear-48b-a3b", "vllm-h100", {"tensor_parallel": 4}),
    ("falcon-h1-34b", "vllm-h100", {"tensor_parallel": 2}),
    ("minimax-m3", "vllm-h100", {"tensor_parallel": 8}),
]


@pytest.mark.parametrize(("model", "engine", "layout"), CASES)
def test_no_bit_of_a_price_hangs_on_what_is_shared(model, engine, layout):
    """Several pieces and slabs of them, beside the grid where each configuration has a price of its own."""
    target = ModelSpec.load(model)
    deployment = Deployment(H100, target, EngineOverhead.load(engine), **layout)
    random = np.random.default_rng(len(model) + len(engine))
    sizes = [random.choice(high, count, replace=False) + 1 for high, count in ((300, 5), (90_000, 6))]
    output_tokens = float(random.choice([0, 700]))
    workload = Workload(*sizes, output_tokens=output_tokens)
    space = SearchSpace(every_drafter(), (0, 1, 4), (64, 1000, 4096, np.inf))
    prices = Prices(deployment, workload, space, chunk=144)
    for part in split(workload, space, 144):
        cells = workload.part(*part)
        batch = np.asarray(cells.batch_sizes, dtype=float)[:, None, None, None]
        context = np.asarray(cells.context_lens, dtype=float)[:, None, None]
        for priced in prices.of(part):
            assert priced.batch.shape == batch.shape
            alone = price(
                deployment, priced.drafter, batch=batch, context_len=context, kv_budget=priced.kv_budget,
                gamma=priced.gamma, output_tokens=output_tokens,
            )  # fmt: skip
            same_prices(priced.round, alone)


def test_a_configuration_alone_has_the_price_that_it_has_in_a_sweep():
    deployment, workload = Deployment(H100, LLAMA, ENGINE), Workload([1, 7, 64], [900, 30_000, 64_000])
    space = SearchSpace([WINDOWS, SNAPKV], (1, 3), (256, 4096))
    for priced in sweep([deployment], workload, space, chunk=8):
        for place in np.ndindex(priced.shape):
            here = priced.at(place)
            alone = price(deployment, here.drafter, **here.configuration)
            assert float(here.round.speedup) == pytest.approx(float(alone.speedup), rel=1e-14)
            assert float(here.round.draft_s) == pytest.approx(float(alone.draft_s), rel=1e-14)


GRID = Workload(range(1, 65), range(1024, 1024 * 33, 1024))
SPACE = SearchSpace([WINDOWS, SNAPKV], range(1, 9), (256, 1024, 4096, 16_384))


@pytest.fixture
def attended(monkeypatch):
    """Elements that attention was priced for, call by call."""
    elements, priced = [], forward_pass.attention

    def counting(*about, **arguments):
        seconds = priced(*about, **arguments)
        elements.append(np.size(seconds))
        return seconds

    monkeypatch.setattr(forward_pass, "attention", counting)
    return elements


def test_attention_of_drafts_is_priced_for_distinct_counts_only(attended):
    """16 contexts up to the largest budget and a smaller budget make 17, which both drafters read."""
    price_drafters(Deployment(H100, LLAMA, ENGINE), GRID, SPACE)
    plain, verified, *drafts = attended
    assert plain == 64 * 32
    assert verified == 64 * 32 * 8
    assert drafts == [64 * 17 * 8]


def test_a_sweep_prices_attention_as_often_as_its_terms_need(attended):
    """8 batch sizes at once: 32 contexts at 8 lengths each."""
    chunk = 2 * 32 * 32
    parts = [part for part, _ in price_pieces(Deployment(H100, LLAMA, ENGINE), GRID, SPACE, chunk)]
    assert len(parts) == 32
    assert len(attended) == 3 * 8
    assert max(attended) == chunk


def test_equal_products_are_priced_once(monkeypatch):
    """The plain step and the drafts of both run through the same rows; the verification has its own."""
    asked = []

    def counting(*about, **arguments):
        asked.append(arguments["n"])
        return linear(*about, **arguments)

    monkeypatch.setattr(forward_pass, "linear", counting)
    price_drafters(Deployment(H100, LLAMA, ENGINE), GRID, SPACE)
    assert len(asked) == 2 * len(LLAMA.linears)


def test_a_function_is_asked_once_for_equal_arguments_only():
    calls, once = [], Once()

    def twice(owner, *, by, of):
        calls.append((owner, by))
        return 2.0 * of

    one, other = [1], [1]
    answers = [once(twice, owner, by="n", of=of) for owner in (one, one, other) for of in (np.ones(2), 3.0)]
    assert len(calls) == 4
    assert answers[0] is answers[2]
    assert_array_equal(answers[4], [2.0, 2.0])
    once(twice, one, by="n", of=np.ones((2, 1)))
    assert len(calls) == 5


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1), slice(None, None, 3)])
def test_pieces_may_be_asked_for_in_any_order(order):
    deployment, workload = Deployment(H100, LLAMA, ENGINE), Workload(range(1, 40), range(500, 40_000, 3300))
    space = SearchSpace([WINDOWS, None], (1, 4), (256, 4096))
    prices = Prices(deployment, workload, space, 200)
    for part in split(workload, space, 200)[order]:
        for here, alone in zip(
            prices.of(part), price_drafters(deployment, workload.part(*part), space), strict=True
        ):
            same_prices(here.round, alone.round)
            assert_array_equal(here.batch, alone.batch)


def test_a_sweep_that_is_left_early_has_priced_a_first_piece_only(attended):
    list(islice(sweep([Deployment(H100, LLAMA, ENGINE)], GRID, SPACE, chunk=2048), 2))
    assert sum(attended) < 8 * 2048


def test_what_has_no_counts_alike_is_priced_as_it_is():
    forward = ForwardPass(batch=np.ones((2, 1, 1, 1)), kv_tokens=np.arange(12.0).reshape(3, 4, 1))
    assert distinct(LLAMA, forward) == (forward, None)
    alike = ForwardPass(batch=np.ones((2, 1, 1, 1)), kv_tokens=np.arange(12.0).reshape(3, 4, 1) // 6.0)
    few, places = distinct(LLAMA, alike)
    assert few.kv_tokens.shape == (2, 1, 1)
    assert_array_equal(spread(few.kv_tokens, places), alike.kv_tokens)


def test_layout_in_memory_is_no_value():
    term = np.arange(24.0).reshape(2, 3, 4)
    assert_array_equal(by_budget(term), term)
    assert by_budget(3.0) == 3.0


def test_prices_are_pickled_by_their_rounds():
    workload, space = Workload([2], [9000]), SearchSpace([WINDOWS], (3,))
    (priced,) = price_drafters(Deployment(H100, LLAMA, ENGINE), workload, space)
    same(pickle.loads(pickle.dumps(priced)).round, priced.round)


def test_one_piece_is_priced_at_once():
    workload = Workload([1, 2], [100, 200])
    assert len(split(workload, SPACE, CHUNK)) == 1


def test_prices_of_one_deployment_may_be_asked_for_in_many_threads():
    workload = Workload(range(1, 33), range(1000, 33_000, 1000))
    space = SearchSpace([None, WINDOWS, SNAPKV], [0, 2, 5], (512.0, 1024.0))
    deployment = Deployment(H100, LLAMA, ENGINE)
    parts, prices = split(workload, space, 512), Prices(deployment, workload, space, 512)
    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(prices.of, parts))
    for part, every in zip(parts, shared, strict=True):
        for here, there in zip(every, price_drafters(deployment, workload.part(*part), space), strict=True):
            same_prices(here.round, there.round)
