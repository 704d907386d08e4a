"""A sweep prices every configuration once, in pieces of any size, anywhere, and never holds them all."""

from __future__ import annotations

import multiprocessing
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.price import COLUMNS, Block, Grid, price_task, sweep, tasks
from perfmodel.speculation import Drafter, price_round
from perfmodel.workload import Workload

H100, A100 = HardwareProfile.load("h100-sxm-80gb"), HardwareProfile.load("a100-sxm-80gb")
ENGINE = EngineOverhead.load("magicdec-h100")
LLAMA, SMALL = ModelSpec.load("llama-3.1-8b"), ModelSpec.load("llama-3.2-1b")
SNAPKV, FULL = Drafter(strategies.load("snapkv")), Drafter(strategies.load("full_kv"), SMALL)
GRID = Grid(
    hardware=[H100, A100],
    target=LLAMA,
    engine=ENGINE,
    workload=Workload((1, 3, 16, 50, 200), (1000, 8000, 32000, 100_000)),
    drafters=[None, SNAPKV, FULL],
    gammas=(1, 2, 5),
    kv_budgets=(128, 2048),
    tensor_parallel=(1, 8),
)
NAMES = (*COLUMNS, "fits")


def priced(blocks: list[Block]) -> dict[tuple, tuple[float, ...]]:
    """Every configuration of some blocks and its columns."""
    found: dict[tuple, tuple[float, ...]] = {}
    for block in blocks:
        label = block.drafter.label if block.drafter else ""
        axes = product(block.batch_sizes, block.context_lens, block.kv_budgets, block.gammas)
        columns = zip(*(block.column(name).ravel().tolist() for name in NAMES), strict=True)
        for place, values in zip(axes, columns, strict=True):
            key = (block.hardware, block.tensor_parallel, label, *place)
            assert key not in found
            found[key] = values
    return found


WHOLE = priced(list(sweep(GRID)))


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
    numbers = [float(getattr(alone, attribute)) for attribute in COLUMNS.values()]
    assert WHOLE[key] == pytest.approx((*numbers, float(alone.memory.fits)), rel=1e-11)


@settings(max_examples=15)
@given(st.integers(1, 300))
def test_the_size_of_the_pieces_changes_nothing(chunk):
    blocks = list(sweep(GRID, chunk=chunk))
    assert priced(blocks) == WHOLE
    assert all(block.column("speedup").size <= max(chunk, max(GRID.per_cell())) for block in blocks)


@pytest.mark.parametrize("in_flight", [1, 5, 1000])
def test_many_threads_find_the_same_in_the_same_order(in_flight):
    with ThreadPoolExecutor(3) as executor:
        blocks = list(sweep(GRID, executor=executor, chunk=20, in_flight=in_flight))
    alone = list(sweep(GRID, chunk=20))
    assert priced(blocks) == WHOLE
    assert [(block.hardware, block.batch_sizes[0], block.context_lens[0]) for block in blocks] == [
        (block.hardware, block.batch_sizes[0], block.context_lens[0]) for block in alone
    ]


def test_many_processes_find_the_same():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert priced(list(sweep(GRID, executor=executor, chunk=60))) == WHOLE


def test_an_executor_is_never_given_more_than_is_asked_for():
    """What it has priced and nobody has consumed is what is held in memory."""
    given_out, consumed, most = 0, 0, 0

    class Eager:
        def map(self, fn, some):
            nonlocal given_out
            done = [fn(one) for one in some]
            given_out += len(done)
            return iter(done)

    for number, _ in enumerate(sweep(GRID, executor=Eager(), chunk=20, in_flight=6)):
        consumed = number // len(GRID.drafters)
        most = max(most, given_out - consumed)
    assert most <= 6
    assert given_out == len(tasks(GRID, chunk=20))


def test_plain_decoding_has_neither_budget_nor_drafts():
    plain = next(iter(sweep(GRID)))
    assert plain.drafter is None
    assert plain.shape == (5, 4, 1, 1)
    assert np.all(plain.column("speedup") == 1.0)
    assert np.isinf(plain.kv_budgets[0])


def test_a_strategy_without_a_budget_is_priced_once():
    assert GRID.budgets_of(FULL).tolist() == [np.inf]
    assert GRID.budgets_of(SNAPKV).tolist() == [128, 2048]
    own = Grid([H100], LLAMA, ENGINE, GRID.workload, [SNAPKV], (1,))
    assert own.budgets_of(SNAPKV).tolist() == list(SNAPKV.strategy.default_budgets)


def test_a_frame_has_one_tidy_row_per_configuration():
    block = list(sweep(GRID))[1]
    frame = block.to_frame()
    assert len(frame) == block.column("speedup").size
    assert list(frame.columns[:4]) == ["hardware", "tensor_parallel", "strategy", "draft_model"]
    row = frame[(frame.batch_size == 16) & (frame.context_len == 32000) & (frame.kv_budget == 2048)].iloc[1]
    key = (block.hardware, block.tensor_parallel, SNAPKV.label, 16.0, 32000.0, 2048.0, 2.0)
    assert tuple(row[list(NAMES)]) == WHOLE[key]


class TestABillionConfigurations:
    """1000 batch sizes x 1000 contexts x 2 drafters x 32 budgets x 16 gammas."""

    GRID = Grid(
        hardware=[H100],
        target=LLAMA,
        engine=ENGINE,
        workload=Workload(range(1, 1001), range(1000, 101_000, 100)),
        drafters=[SNAPKV, Drafter(strategies.load("streaming_llm"))],
        gammas=range(1, 17),
        kv_budgets=range(64, 2112, 64),
    )

    def test_memory_stays_bounded(self):
        """A slice of it, column by column; its 8 GB of speedups alone would not fit."""
        assert self.GRID.size == 1_024_000_000
        tracemalloc.start()
        try:
            total = sum(float(block.column("speedup").sum()) for block in islice(sweep(self.GRID), 12))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert total > 0.0
        assert peak < 64e6

    def test_pieces_are_large_and_few(self):
        pieces = tasks(self.GRID)
        assert len(pieces) < 3000
        assert price_task(pieces[0])[0].column("speedup").size > 200_000
