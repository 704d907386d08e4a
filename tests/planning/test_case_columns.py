"""Cases as columns: the short way and the long way read, understand and write the same."""

from __future__ import annotations

import csv
import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.files import csv_columns
from perfmodel.files.csv_columns import CsvColumns, read_columns
from perfmodel.files.csv_rows import csv_text, read_csv
from perfmodel.files.number_texts import number_signs
from perfmodel.planning.case_columns import understand
from perfmodel.planning.case_rows import CaseReader
from perfmodel.planning.cases import INPUTS, PricedCases, price_cases

HEADER = (
    "hardware,engine,tensor_parallel,target_model,strategy,kv_budget,context_len,batch_size,gamma,topk,nodes,"
    "acceptance_rate,tokens_per_round,note"
)
GOOD = "h100-sxm-80gb,ideal,8,llama-3.1-8b,streaming_llm,512,32000,32,3,,,0.8,,"
HINTS = {
    "hardware": ["a100", "=1", "nothing", ""], "strategy": ["none", "SnapKV", "eagle", "+x"],
    "kv_budget": ["", "all", "0", "1k"], "context_len": ["1k", " 32K", "-5", "1e30", "½"],
    "batch_size": ["1", "0.5", ""], "gamma": ["0", "7", "65", ""], "topk": ["2", "0"], "nodes": ["4", "8"],
    "acceptance_rate": ["", "1.2", "70 %", "nan"], "tokens_per_round": ["2.5", "9", "0"],
    "tensor_parallel": ["3", "1", "x"],
    "note": ["-1", "-1|x", '"a, b"', '"two\nlines"', 'a"b', "\x07", "é", "\t", "x" * 10_001],
}  # fmt: skip
damage = st.sampled_from([(name, text) for name, texts in HINTS.items() for text in texts])
row = st.one_of(
    st.just(GOOD),
    damage.map(lambda change: _with(*change)),
    st.sampled_from(["", "a,b", "a," * 20, 'a,"open', "\r", " "]),
)


def _with(name: str, text: str) -> str:
    cells = GOOD.split(",")
    cells[HEADER.split(",").index(name)] = text
    return ",".join(cells)


def read_both(content: bytes) -> tuple[CsvColumns | str, object]:
    try:
        rows = read_csv(content, "file")
    except SpecError as refusal:
        with pytest.raises(SpecError) as other:
            read_columns(content, "file")
        return str(other.value), str(refusal)
    table = read_columns(content, "file")
    texts = [
        {name: column.distinct[column.codes[place]] for name, column in table.texts.items()}
        for place in range(len(table))
    ]
    columns = [
        (index + 1, int(line), cells, table.faults.get(index))
        for index, (line, cells) in enumerate(zip(table.lines, texts, strict=True))
    ]
    wanted = [
        (each.number, each.line, dict(zip(rows.columns, each.cells, strict=True)), each.fault)
        for each in rows.rows
    ]
    return columns, wanted  # type: ignore[return-value]


@settings(max_examples=150, deadline=None)
@given(st.lists(row, max_size=12), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.integers(1, 400))
@example(['a,"open', *[GOOD] * 9], "\n", True, 1)
@example([_with("note", '"two\nlines"')] * 3, "\r\n", False, 1)
@example(["\ufeff" + GOOD, GOOD], "\n", False, 1)
def test_rows_read_as_columns_are_those_read_one_by_one(rows, end, ended, block) -> None:
    content = (end.join([HEADER, *rows]) + (end if ended else "")).encode()
    usual, csv_columns._BLOCK = csv_columns._BLOCK, block
    try:
        columns, wanted = read_both(content)
    finally:
        csv_columns._BLOCK = usual
    assert columns == wanted


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_read_alike(content, block) -> None:
    usual, csv_columns._BLOCK = csv_columns._BLOCK, block
    try:
        columns, wanted = read_both(b"a,b\n" + content)
    finally:
        csv_columns._BLOCK = usual
    assert columns == wanted


def one_by_one(content: bytes) -> tuple[dict[int, str], set[int]]:
    """What the reader of rows says: the fault of every row, and which are well-formed."""
    table, reader = read_csv(content, "cases", known=INPUTS), CaseReader(None)
    faults, fine = {}, set()
    columns = {name: table.column(name) for name in INPUTS}
    for index, each in enumerate(table.rows):
        try:
            if each.fault:
                raise SpecError([each.fault])
            reader.case(each, {name: column[index] for name, column in columns.items()})
            fine.add(index)
        except SpecError as refusal:
            fault = refusal.faults[0]
            faults[index] = (fault.field, fault.problem, fault.remedy, fault.nearest)
    return faults, fine


@settings(max_examples=25, deadline=None)
@given(st.lists(row, min_size=1, max_size=8))
def test_a_table_is_refused_row_by_row_as_its_rows_are(rows) -> None:
    content = "\n".join([HEADER, *rows, GOOD]).encode()
    priced, (faults, fine) = price_cases(content), one_by_one(content)
    refused = {int(fault.file[4:]) - 1: fault for fault in priced.faults}
    assert {
        place: (fault.field, fault.problem, fault.remedy, fault.nearest) for place, fault in refused.items()
    } == faults
    speedup = priced.columns.index("speedup")
    assert {place for place, cells in enumerate(priced.rows) if cells[speedup]} == fine
    assert priced.to_csv() == csv_text(priced.columns, priced.rows)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats() | st.floats(1e-5, 1e11) | st.integers(0, 10**11).map(float), max_size=30))
@example([9999999999.5, 999999999.95, 0.99999999995, 99.999999995, 0.0001, 9.9999999999e-5, 1e9, -0.0, 0.5])
def test_numbers_are_written_as_python_writes_them(values) -> None:
    signs = number_signs(np.array(values, dtype=float))
    assert [bytes(each[each > 0]).decode() for each in signs] == [f"{value:.10g}" for value in values]


def test_a_column_of_numbers_is_written_as_python_writes_them() -> None:
    random = np.random.default_rng(0)
    values = 10.0 ** random.uniform(-6.0, 12.0, 20_000)
    ties = (random.integers(10**9, 10**10, 20_000) + 0.5) * 10.0 ** -random.integers(0, 13, 20_000)
    for each in (values, np.round(values, 3), ties):
        texts = [bytes(signs[signs > 0]).decode() for signs in number_signs(each)]
        assert texts == [f"{value:.10g}" for value in each]


def many(rows: int) -> bytes:
    random = np.random.default_rng(0)
    sizes = zip(random.integers(1, 100_000, rows), random.integers(1, 256, rows), strict=True)
    lines = [GOOD.replace("32000", str(context)).replace(",32,", f",{batch},") for context, batch in sizes]
    return "\n".join([HEADER, *lines]).encode()


def test_settings_are_understood_once_whatever_the_number_of_rows(monkeypatch) -> None:
    calls: Counter[str] = Counter()
    for name in ("setting", "case"):
        usual = getattr(CaseReader, name)

        def counted(*given, name=name, usual=usual):
            calls[name] += 1
            return usual(*given)

        monkeypatch.setattr(CaseReader, name, counted)
    assert not price_cases(many(500)).faults
    assert calls == {"setting": 1}


def test_more_rows_than_are_priced_at_once_are_answered_the_same(monkeypatch) -> None:
    whole = price_cases(many(300))
    monkeypatch.setattr("perfmodel.planning.cases.AT_ONCE", 1000)
    assert price_cases(many(300)).rows == whole.rows


def test_rows_are_made_when_asked_for_and_are_those_that_are_written() -> None:
    priced: PricedCases = price_cases(many(5))
    written = list(csv.reader(io.StringIO(priced.to_csv())))
    assert [tuple(each) for each in written[1:]] == list(priced.rows) == [*priced.rows[:3], *priced.rows[-2:]]
    assert tuple(written[0]) == priced.columns
    with pytest.raises(IndexError):
        priced.rows[5]


def test_numbers_of_a_group_take_the_fewest_bytes_and_are_exact() -> None:
    budgets = (256, 2**24 + 1, 512)
    rows = [f"h100,llama-3.1-8b,snapkv,{budget},4096,32,{gamma}" for gamma, budget in enumerate(budgets, 1)]
    header = "hardware,target_model,strategy,kv_budget,context_len,batch_size,gamma"
    table = read_columns("\n".join([header, *rows]).encode(), "cases", required=(), known=INPUTS)
    (cases,), _ = understand(table, INPUTS, CaseReader(None), lambda *_: None)
    assert cases.numbers["kv_budget"].tolist() == list(budgets), "no single precision holds the second"
    assert cases.numbers["gamma"].tolist() == [1, 2, 3]
    assert cases.numbers["gamma"].itemsize == 4
    assert cases.numbers["context_len"].strides == (0,), "one number for all rows"
