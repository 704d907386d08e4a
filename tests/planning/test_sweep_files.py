"""Files of a sweep are the same, bit for bit, whatever made their pieces, and hold what was priced."""

from __future__ import annotations

import gzip
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import strategies
from perfmodel import Drafter, EngineOverhead, HardwareProfile, ModelSpec, Workload
from perfmodel.deployment import Deployment
from perfmodel.errors import SpecError
from perfmodel.files.checkpoint import LOCK, Parts
from perfmodel.planning.executors import open_executor
from perfmodel.planning.price import Prices, SearchSpace, sweep
from perfmodel.planning.sweep import (
    Making,
    Sweep,
    make_piece,
    rows_of,
    sweep_parts,
    sweep_text,
    sweep_to_file,
)  # fmt: skip
from perfmodel.planning.sweep_formats import format_of

ENDINGS = ("csv", "csv.gz", "npz", "parquet")
LLAMA, SMALL = ModelSpec.load("llama-3.1-8b"), ModelSpec.load("llama-3.2-1b")
GRID = Sweep(
    [Deployment(HardwareProfile.load(name), LLAMA, EngineOverhead.load("ideal"), gpus)
     for name in ("h100-sxm-80gb", "a100-sxm-80gb") for gpus in (1, 8)],
    Workload([1, 8, 64], [1000, 32000]),
    SearchSpace([None, Drafter(strategies.load("streaming_llm")), Drafter(strategies.load("full_kv"), SMALL)],
                [1, 3], [512]),
    chunk=50,
)  # fmt: skip


@pytest.fixture(params=ENDINGS)
def ending(request):
    """A known ending."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
        pytest.importorskip("thrift")
    return request.param


@pytest.fixture(scope="module")
def pool():
    """Two processes."""
    with open_executor("local:2") as two:
        yield two


def written(path, grid=GRID, **settings):
    """Return the bytes of a sweep's file, which lies there alone."""
    sweep_to_file(grid, path, **settings)
    assert [other.name for other in path.parent.iterdir() if other.name.startswith(f"{path.name}.")] == []
    return path.read_bytes()


def frame():
    """The rows as pandas wrote them in 0.1.0."""
    tables = [pd.DataFrame(rows_of(priced)) for priced in sweep(GRID.deployments, GRID.workload, GRID.space)]
    rows = pd.concat(tables, ignore_index=True)
    budgets = rows["kv_budget"]
    return rows.assign(kv_budget=budgets.where(np.isfinite(budgets)).astype("Int64"))


def test_pieces_are_whole_parts_of_no_more_than_so_many_rows():
    assert [GRID.rows(piece) for piece in GRID.pieces] == [30] * 4
    assert [len(piece) for piece in replace(GRID, chunk=60).pieces] == [2, 2]
    assert len(replace(GRID, chunk=1).pieces) == 4 * 6
    assert len(replace(GRID, chunk=10_000).pieces) == 1
    assert sum(map(GRID.rows, GRID.pieces)) == GRID.size


def test_csv_is_what_pandas_writes(tmp_path):
    expected = frame().to_csv(index=False, lineterminator="\n").encode()
    assert written(tmp_path / "all.csv") == expected
    assert gzip.decompress(written(tmp_path / "all.csv.gz")) == expected
    assert "".join(sweep_text(GRID)).encode() == expected


def test_npz_holds_the_arrays(tmp_path):
    written(tmp_path / "all.npz")
    rows = frame()
    with np.load(tmp_path / "all.npz", allow_pickle=False) as arrays:
        for name in ("hardware", "strategy", "draft_model"):
            assert arrays[name].dtype == np.int16
            assert arrays[f"{name}_names"][arrays[name]].tolist() == rows[name].tolist()
        assert np.array_equal(arrays["kv_budget"], rows["kv_budget"].astype(float).fillna(np.inf))
        others = [name for name in rows if name not in ("hardware", "strategy", "draft_model", "kv_budget")]
        assert all(arrays[name].dtype == rows[name].dtype for name in others)
        assert all(np.array_equal(arrays[name], rows[name]) for name in others)
        assert sorted(arrays) == sorted([*rows, "hardware_names", "strategy_names", "draft_model_names"])


def test_parquet_is_read_back_as_it_was_priced(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("thrift")
    written(tmp_path / "all.parquet")
    rows = frame()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "all.parquet"), rows)
    file = parquet.ParquetFile(tmp_path / "all.parquet", page_checksum_verification=True)
    assert file.metadata.num_row_groups == len(GRID.pieces)
    assert file.metadata.num_rows == GRID.size
    begin = 0
    for place, piece in enumerate(GRID.pieces):
        group = file.metadata.row_group(place)
        part = rows.iloc[begin : begin + GRID.rows(piece)]
        begin += group.num_rows
        for number, name in enumerate(rows):
            statistics = group.column(number).statistics
            assert group.column(number).path_in_schema == name
            assert (statistics.min, statistics.max) == (part[name].min(), part[name].max())
            assert statistics.null_count == part[name].isna().sum()
        assert file.read_row_group(place).num_rows == GRID.rows(piece)
    some = parquet.read_table(
        tmp_path / "all.parquet", columns=["speedup"], filters=[("strategy", "==", "full_kv")]
    )
    assert some["speedup"].to_pylist() == rows[rows.strategy == "full_kv"]["speedup"].tolist()


def test_two_processes_and_bytes_that_are_handed_over_make_the_same_file(ending, tmp_path, pool, monkeypatch):
    here = written(tmp_path / f"here.{ending}")
    assert written(tmp_path / f"two.{ending}", executor=pool) == here
    monkeypatch.setattr(Parts, "are_seen", lambda _: False)
    monkeypatch.setattr(Parts, "add", pytest.fail)
    with ThreadPoolExecutor(3) as threads:
        assert written(tmp_path / f"threads.{ending}", executor=threads) == here


def test_workers_that_see_the_folder_hand_over_nothing(tmp_path):
    parts = sweep_parts(GRID, tmp_path / "all.csv")
    with parts.held():
        there = pickle.loads(pickle.dumps(Making(GRID, "all.csv", "", parts)))
        assert make_piece(there, (1, GRID.pieces[1])) is None
        assert parts.done() == {1}
        parts.remove()


def refuse(parts, *_):
    raise parts._unwritable(PermissionError(13, "Permission denied"))


def test_workers_hand_over_what_they_cannot_keep_where_it_is_asked_for(tmp_path, monkeypatch):
    parts, piece = sweep_parts(GRID, tmp_path / "all.csv"), GRID.pieces[1]
    making = Making(GRID, "all.csv", "", parts)
    with parts.held():
        before = pickle.loads(pickle.dumps(making))
        with monkeypatch.context() as refused:
            refused.setattr(Parts, "_write_piece", refuse)
            assert make_piece(making, (1, piece)) is not None
        (parts.folder / LOCK).write_text('{"token": "of a folder of that name on another disk"}')
        assert make_piece(making, (1, piece)) is not None
        assert not parts.done()
        parts.remove()
    with parts.held():  # by a later run, for which the worker does not work
        assert make_piece(before, (1, piece)) is not None
        assert make_piece(making, (1, piece)) is None
        parts.remove()


def test_a_piece_that_comes_after_the_end_leaves_nothing(tmp_path):
    parts = sweep_parts(GRID, tmp_path / "all.csv")
    with pytest.raises(SpecError, match="cannot be written"):
        parts.add(0, {"a": np.arange(3)})
    parts.folder.mkdir()
    parts.add(0, {"a": np.arange(3)})
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_would_write_other_bytes_is_refused():
    with pytest.raises(SpecError, match=r"zlib .*here zlib 0\.1"):
        make_piece(Making(GRID, "all.npz", "zlib 0.1", None), (0, GRID.pieces[0]))


def test_pieces_of_another_format_are_other_pieces(tmp_path):
    assert sweep_parts(GRID, tmp_path / "a.csv").key != sweep_parts(GRID, tmp_path / "a.npz").key
    assert sweep_parts(GRID, tmp_path / "a.csv").key == sweep_parts(GRID, tmp_path / "b.csv").key


def test_a_sweep_that_was_cut_off_goes_on_and_prices_nothing_twice(ending, tmp_path, monkeypatch):
    expected = written(tmp_path / f"whole.{ending}")
    cut, priced, told = tmp_path / f"cut.{ending}", [], []

    of, most = Prices.of, 3

    def counted(prices, part):
        if len(priced) == most:
            raise KeyboardInterrupt
        priced.append(part)
        return of(prices, part)

    def progress(done, of):
        told.append((done, of))

    monkeypatch.setattr(Prices, "of", counted)
    with pytest.raises(KeyboardInterrupt):
        sweep_to_file(GRID, cut, progress=progress)
    assert not cut.exists()
    parts = sweep_parts(GRID, cut)
    assert parts.done() == {0, 1, 2}
    assert told[-1] == (3 * GRID.size / 4, GRID.size)
    (parts.folder / "1.npz").write_bytes(b"damaged")
    most = np.inf
    sweep_to_file(GRID, cut, progress=progress)
    assert len(priced) == 3 + 1 + 1, "the one that was missing and the one that was damaged"
    assert told[-1] == (GRID.size, GRID.size)
    assert cut.read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([cut.name, f"whole.{ending}"])


def test_a_piece_with_one_byte_changed_is_made_again(ending, tmp_path):
    expected = written(tmp_path / f"whole.{ending}")
    parts = sweep_parts(GRID, tmp_path / f"cut.{ending}")
    with parts.held():
        for index, piece in enumerate(GRID.pieces):
            make_piece(Making(GRID, parts.output.name, format_of(parts.output).library(), parts),
                       (index, piece))  # fmt: skip
    content = bytearray((parts.folder / "2.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (parts.folder / "2.npz").write_bytes(content)
    assert written(parts.output) == expected


def test_two_processes_of_which_one_is_killed_make_the_same_file(tmp_path, pool):
    small = replace(GRID, chunk=8)
    expected = written(tmp_path / "here.npz", small)
    assert written(tmp_path / "two.npz", small, executor=pool) == expected
    next(iter(pool._pool._processes.values())).kill()
    assert written(tmp_path / "killed.npz", small, executor=pool) == expected
