"""A sweep prices every configuration once, in pieces of any size, anywhere, and never holds them all."""

from __future__ import annotations

import math
import multiprocessing
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.columns import SWEPT, swept
from perfmodel.planning.executors import in_order
from perfmodel.planning.price import Priced, SearchSpace, price_task, split, sweep
from perfmodel.planning.sweep import Sweep, rows_of
from perfmodel.speculation import Drafter, price_round
from perfmodel.workload import Workload

H100, A100 = HardwareProfile.load("h100-sxm-80gb"), HardwareProfile.load("a100-sxm-80gb")
ENGINE = EngineOverhead.load("magicdec-h100")
LLAMA, SMALL = ModelSpec.load("llama-3.1-8b"), ModelSpec.load("llama-3.2-1b")
SNAPKV, FULL = Drafter(strategies.load("snapkv")), Drafter(strategies.load("full_kv"), SMALL)
GRID = Sweep(
    [Deployment(profile, LLAMA, ENGINE, gpus) for profile in (H100, A100) for gpus in (1, 8)],
    Workload((1, 3, 16, 50, 200), (1000, 8000, 32000, 100_000)),
    SearchSpace([None, SNAPKV, FULL], (1, 2, 5), (128, 2048)),
)
NAMES = (*SWEPT, "fits")
PROPERTIES = ("tokens_per_round", "round_s", "tpot", "speedup", "throughput")


def everything(chunk: int = 262_144, **options) -> list[Priced]:
    """What a sweep of the grid yields."""
    return list(sweep(GRID.deployments, GRID.workload, GRID.space, chunk=chunk, **options))


def by_configuration(every: list[Priced]) -> dict[tuple, tuple[float, ...]]:
    """Every configuration of some blocks and its columns."""
    values: dict[tuple, tuple[float, ...]] = {}
    for priced in every:
        label = priced.drafter.label if priced.drafter else ""
        axes = product(*(axis.ravel() for axis in priced.axes))
        columns = [swept(priced, name).ravel().tolist() for name in SWEPT]
        columns.append(priced.expand(priced.round.memory.fits).ravel().tolist())
        for place, row in zip(axes, zip(*columns, strict=True), strict=True):
            key = (priced.deployment.hardware.name, priced.deployment.tensor_parallel, label, *place)
            assert key not in values
            values[key] = row
    return values


WHOLE = by_configuration(everything())


def test_every_configuration_is_priced_once():
    """2 accelerators x 2 widths x 20 cells: plain decoding, 2 x 3 with SnapKV, 3 with a draft model each."""
    assert len(WHOLE) == GRID.size == 2 * 2 * 20 * (1 + 6 + 3)


@given(st.sampled_from(sorted(WHOLE)))
def test_a_configuration_costs_what_it_costs_alone(key):
    hardware, tensor_parallel, label, batch, context_len, kv_budget, gamma = key
    alone = price_round(
        H100 if hardware == H100.name else A100,
        LLAMA,
        ENGINE,
        {"": None, SNAPKV.label: SNAPKV, FULL.label: FULL}[label],
        batch=batch,
        context_len=context_len,
        kv_budget=kv_budget,
        gamma=gamma,
        tensor_parallel=float(tensor_parallel),
    )
    numbers = [float(getattr(alone, attribute)) for attribute in PROPERTIES]
    assert WHOLE[key] == pytest.approx((*numbers, float(alone.memory.fits)), rel=1e-11)


@settings(max_examples=15)
@given(st.integers(1, 300))
def test_the_size_of_the_pieces_changes_nothing(chunk):
    every = everything(chunk)
    assert by_configuration(every) == WHOLE
    assert all(math.prod(priced.shape) <= max(chunk, GRID.space.most) for priced in every)


def test_many_threads_find_the_same_in_the_same_order():
    def places(every: list[Priced]) -> list[tuple]:
        return [(priced.deployment, priced.batch.flat[0], priced.context_len.flat[0]) for priced in every]

    with ThreadPoolExecutor(3) as executor:
        every = everything(20, executor=executor)
    assert by_configuration(every) == WHOLE
    assert places(every) == places(everything(20))


def test_many_processes_find_the_same():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert by_configuration(everything(60, executor=executor)) == WHOLE


def test_an_executor_is_never_given_more_than_is_asked_for():
    """What it has priced and nobody has consumed is what is held in memory."""
    given_out, most = 0, 0

    class Eager:
        def map(self, fn, some):
            nonlocal given_out
            done = [fn(task) for task in some]
            given_out += len(done)
            return iter(done)

    everywhere = slice(None), slice(None)
    spaces = [replace(GRID.space, kv_budgets=[kept]) for kept in range(1, 41)]
    tasks = [(GRID.deployments[0], GRID.workload, space, everywhere) for space in spaces]
    for number, _ in enumerate(in_order(Eager(), price_task, tasks, in_flight=6)):
        most = max(most, given_out - number)
    assert most <= 6
    assert given_out == len(tasks)


def test_plain_decoding_has_neither_budget_nor_drafts():
    plain = everything()[0]
    assert plain.drafter is None
    assert plain.shape == (5, 4, 1, 1)
    assert np.all(swept(plain, "speedup") == 1.0)
    assert np.isinf(plain.kv_budget[0])


def test_a_strategy_without_a_budget_is_priced_once():
    assert GRID.space.budgets_of(FULL, LLAMA).tolist() == [np.inf]
    assert GRID.space.budgets_of(SNAPKV, LLAMA).tolist() == [128, 2048]
    own = SearchSpace([SNAPKV], (1,))
    assert own.budgets_of(SNAPKV, LLAMA).tolist() == list(SNAPKV.strategy.default_budgets)


def test_there_is_one_tidy_row_per_configuration():
    priced = everything()[1]
    frame = pd.DataFrame(rows_of(priced))
    assert len(frame) == math.prod(priced.shape)
    assert list(frame.columns[:4]) == ["hardware", "tensor_parallel", "strategy", "draft_model"]
    row = frame[(frame.batch_size == 16) & (frame.context_len == 32000) & (frame.kv_budget == 2048)].iloc[1]
    deployment = priced.deployment
    key = (deployment.hardware.name, deployment.tensor_parallel, SNAPKV.label, 16.0, 32000.0, 2048.0, 2.0)
    assert tuple(row[list(NAMES)]) == WHOLE[key]


class TestABillionConfigurations:
    """1000 batch sizes x 1000 contexts x 2 drafters x 32 budgets x 16 gammas."""

    GRID = Sweep(
        [Deployment(H100, LLAMA, ENGINE)],
        Workload(range(1, 1001), range(1000, 101_000, 100)),
        SearchSpace([SNAPKV, Drafter(strategies.load("streaming_llm"))], range(1, 17), range(64, 2112, 64)),
    )

    def test_memory_stays_bounded(self):
        """A slice of it, column by column; its 8 GB of speedups alone would not fit."""
        assert self.GRID.size == 1_024_000_000
        tracemalloc.start()
        try:
            every = sweep(self.GRID.deployments, self.GRID.workload, self.GRID.space)
            total = sum(float(swept(priced, "speedup").sum()) for priced in islice(every, 12))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert total > 0.0
        assert peak < 64e6

    def test_pieces_are_large_and_few(self):
        pieces = split(self.GRID.workload, self.GRID.space)
        assert len(pieces) < 3000
        assert len(self.GRID.pieces) < 6000
        assert math.prod(self.GRID.price(self.GRID.pieces[0])[0].shape) > 100_000
