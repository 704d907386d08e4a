"""Named configurations from a CSV: every row answered or refused by number, none lost."""

from __future__ import annotations

import contextlib
import csv
import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.files.csv_rows import csv_text, read_csv
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.cases import ANSWERS, INPUTS, OUTPUTS, REQUIRED, PricedCases, price_cases, price_file
from perfmodel.planning.columns import Column
from perfmodel.planning.drafters import read_spelling
from perfmodel.speculation import Drafter, price_round

GOOD = {
    "hardware": "h100-sxm-80gb",
    "engine": "ideal",
    "tensor_parallel": "8",
    "target_model": "llama-3.1-8b",
    "draft_model": "",
    "strategy": "streaming_llm",
    "kv_budget": "512",
    "context_len": "32000",
    "output_tokens": "0",
    "batch_size": "32",
    "gamma": "3",
    "acceptance_rate": "0.8",
    "tokens_per_round": "",
    "draft_tensor_parallel": "",
    "expert_parallel": "",
    "topk": "",
    "nodes": "",
    "pipeline_parallel": "",
    "data_parallel": "",
    "weight_dtype": "",
    "kv_dtype": "",
    "draft_vocabulary": "",
}


def cases(*changes: dict[str, str], columns: tuple[str, ...] = INPUTS) -> bytes:
    rows = [[{**GOOD, **change}.get(name, "") for name in columns] for change in changes]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([columns, *rows])
    return stream.getvalue().encode()


def answers(priced: PricedCases) -> list[dict[str, str]]:
    return [dict(zip(priced.columns, row, strict=True)) for row in priced.rows]


def test_an_empty_budget_is_the_one_the_strategy_was_published_at_and_a_remark_says_so() -> None:
    priced = price_cases(cases({"kv_budget": ""}))
    (usual,), (given,) = answers(priced), answers(price_cases(cases({"kv_budget": "512"})))
    assert usual["t_draft_ms"] == given["t_draft_ms"]
    assert [remark for remark in priced.remarks if "kv_budget is empty" in remark and "512" in remark]


def test_a_row_says_what_price_round_says() -> None:
    (row,) = answers(price_cases(cases({})))
    engine, target = EngineOverhead.load("ideal"), ModelSpec.load("llama-3.1-8b")
    drafter = Drafter(read_spelling("streaming_llm").strategy)  # type: ignore[arg-type]
    priced = price_round(
        HardwareProfile.load("h100-sxm-80gb"), target, engine, drafter,
        batch=32.0, context_len=32000.0, kv_budget=512.0, gamma=3.0, tensor_parallel=8.0, alpha=0.8,
    )  # fmt: skip
    expected = {
        "t_target_ms": priced.baseline.total * 1e3, "t_draft_ms": priced.draft.total * 1e3,
        "t_verify_ms": priced.verify.total * 1e3, "round_ms": priced.round_s * 1e3,
        "tokens_per_round": float(priced.tokens_per_round), "tpot_ms": priced.tpot * 1e3,
        "baseline_ms": priced.baseline.total * 1e3, "throughput_tokens_per_s": priced.throughput,
        "speedup": priced.speedup,
    }  # fmt: skip
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-8)
    assert row["fits"] == "true"
    assert set(OUTPUTS) <= set(row)


def test_numbers_of_a_row_agree_with_each_other() -> None:
    (row,) = answers(price_cases(cases({"tokens_per_round": "2.5"})))
    value = {name: float(row[name]) for name in OUTPUTS if name != "fits"}
    assert value["tokens_per_round"] == 2.5
    assert value["tpot_ms"] == pytest.approx(value["round_ms"] / 2.5, rel=1e-8)
    assert value["speedup"] == pytest.approx(value["baseline_ms"] / value["tpot_ms"], rel=1e-8)
    assert value["throughput_tokens_per_s"] == pytest.approx(32 / value["tpot_ms"] * 1e3, rel=1e-8)
    assert value["round_ms"] >= 3 * value["t_draft_ms"] + value["t_verify_ms"] - 1e-6


def test_tokens_per_round_wins_over_the_acceptance_rate() -> None:
    (both,) = answers(price_cases(cases({"tokens_per_round": "3", "acceptance_rate": "0.1"})))
    assert both["tokens_per_round"] == "3"


def test_without_acceptance_the_law_of_the_strategy_holds() -> None:
    small, large = answers(
        price_cases(cases({"acceptance_rate": ""}, {"acceptance_rate": "", "kv_budget": "8192"}))
    )
    assert 1.0 < float(small["tokens_per_round"]) < float(large["tokens_per_round"]) < 4.0


@pytest.mark.parametrize("strategy", ["none", "autoregressive", "streaming_llm"])
def test_gamma_zero_is_plain_decoding_with_speedup_exactly_one(strategy: str) -> None:
    (row,) = answers(price_cases(cases({"strategy": strategy, "gamma": "0", "acceptance_rate": ""})))
    assert row["speedup"] == "1"
    assert row["t_target_ms"] == row["round_ms"] == row["tpot_ms"] == row["baseline_ms"]


def test_unknown_columns_pass_through_in_their_place() -> None:
    priced = price_cases(cases({"note": 'mine, "quoted"\nand broken'}, columns=("note", *INPUTS)))
    assert priced.columns[0] == "note"
    assert answers(priced)[0]["note"] == 'mine, "quoted"\nand broken'
    (read_back,) = csv.DictReader(io.StringIO(priced.to_csv(), newline=""))
    assert read_back["note"] == 'mine, "quoted"\nand broken'
    assert "error" not in priced.columns


def test_columns_called_like_an_answer_are_replaced_with_a_remark() -> None:
    priced = price_cases(
        cases({"speedup": "9", "t_draft_ms": "9"}, columns=(*INPUTS, "speedup", "t_draft_ms"))
    )
    assert answers(priced)[0]["speedup"] != "9"
    assert priced.columns.count("speedup") == 1
    assert any(
        "speedup, t_draft_ms" in remark or "t_draft_ms, speedup" in remark for remark in priced.remarks
    )


def test_pricing_the_answer_again_changes_nothing() -> None:
    first = price_cases(cases({}, {"gamma": "5"}, {"gamma": "x"}))
    again = price_cases(first.to_csv().encode())
    assert again.rows == first.rows


def test_only_the_required_columns_have_to_be_there() -> None:
    (row,) = answers(price_cases(cases({"strategy": "none", "gamma": "0"}, columns=(*REQUIRED, "engine"))))
    assert float(row["speedup"]) == 1.0


BAD = {
    "an unknown accelerator": ({"hardware": "h100-sxm-80bg"}, "hardware", "h100-sxm-80gb"),
    "no accelerator": ({"hardware": ""}, "hardware", "empty"),
    "an unknown engine": ({"engine": "idael"}, "engine", "ideal"),
    "an unknown model": ({"target_model": "llama-3.1-8"}, "target_model", "lama-3.1-8"),
    "no model": ({"target_model": " "}, "target_model", "empty"),
    "an unknown draft model": ({"draft_model": "nothing-like-it"}, "draft_model", "nothing-like-it"),
    "an unknown strategy": ({"strategy": "strming_llm"}, "strategy", "streaming_llm"),
    "plain decoding with drafts": ({"strategy": "none"}, "strategy", "gamma"),
    "self-speculation by another model": (
        {"strategy": "self-spec + StreamingLLM", "draft_model": "llama-3.2-1b"}, "draft_model", "self",
    ),
    "a draft model of its own, unnamed": ({"strategy": "standalone + SnapKV"}, "draft_model", "empty"),
    "a strategy without models": (
        {"strategy": "ngram", "draft_model": "llama-3.2-1b"}, "draft_model", "ngram",
    ),
    "three GPUs for 32 heads": ({"tensor_parallel": "3"}, "tensor_parallel", "32"),
    "no GPUs": ({"tensor_parallel": "0"}, "tensor_parallel", "0"),
    "a budget of nothing": ({"kv_budget": "0"}, "kv_budget", "0"),
    "a budget of not a number": ({"kv_budget": "nan"}, "kv_budget", "nan"),
    "a negative context": ({"context_len": "-5"}, "context_len", "-5"),
    "a huge context": ({"context_len": "1e30"}, "context_len", "1e30"),
    "an infinite batch": ({"batch_size": "inf"}, "batch_size", "inf"),
    "half a sequence": ({"batch_size": "0.5"}, "batch_size", "0.5"),
    "no batch": ({"batch_size": ""}, "batch_size", "empty"),
    "a long gamma": ({"gamma": "65"}, "gamma", "65"),
    "no gamma": ({"gamma": ""}, "gamma", "empty"),
    "an acceptance above one": ({"acceptance_rate": "1.2"}, "acceptance_rate", "1.2"),
    "an acceptance of not a number": ({"acceptance_rate": "nan"}, "acceptance_rate", "nan"),
    "more tokens than drafted": ({"tokens_per_round": "4.5"}, "tokens_per_round", "4"),
    "fewer tokens than one": ({"tokens_per_round": "0.5"}, "tokens_per_round", "0.5"),
    "a formula": ({"draft_model": "=HYPERLINK(1)"}, "draft_model", "formula"),
    "a formula in disguise": ({"strategy": "+cmd|' /C calc'!A0"}, "strategy", "formula"),
    "a control character": ({"strategy": "none\x07"}, "strategy", "UTF-8"),
    "a later control character": ({"gamma": "0\x85"}, "gamma", "UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_refused_by_number_field_and_reason(name: str) -> None:
    change, field, said = BAD[name]
    priced = price_cases(cases({}, change, {}))
    (fault,) = priced.faults
    assert (fault.file, fault.field) == ("row 2", field)
    assert said in str(fault)
    assert fault.remedy or fault.nearest
    good, bad, after = answers(priced)
    assert bad["error"]
    assert "\n" not in str(fault)
    assert all(bad[name] == "" for name in OUTPUTS if name not in INPUTS)
    assert good == after == {**answers(price_cases(cases({})))[0], "error": ""}


COMMAS = len(INPUTS) - 11
DAMAGED = {
    "too few cells": ("a100,ideal", "has 2 cells"),
    "too many cells": ("a," * 20, "has 21 cells"),
    "an open quote": ('a100,"ideal,8,llama-3.1-8b,,none,,32000,,32,0,,,', "quote"),
    "text behind a quote": ('a100,"ideal"x,8,llama-3.1-8b,,none,,32000,,32,0,,,', "quote"),
    "no UTF-8": (b"a100,ideal,8,llama-3.1-8b,,n\xff\xfene,,32000,,32,0" + b"," * COMMAS, "UTF-8"),
    "a NUL": ("a100,id\x00eal,8,llama-3.1-8b,,none,,32000,,32,0" + "," * COMMAS, "UTF-8"),
    "an endless cell": ("a100,ideal,8,llama-3.1-8b,," + "x" * 20_000 + "," * (COMMAS + 5), "characters"),
    "a cell beyond what a reader takes": ("x" * 200_000 + "," * (len(INPUTS) - 1), "characters"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_row_costs_no_other_row(name: str) -> None:
    text, said = DAMAGED[name]
    damaged = text if isinstance(text, bytes) else text.encode()
    header, good = cases({}).splitlines()
    priced = price_cases(b"\n".join([header, good, damaged, good, good]))
    assert [fault.file for fault in priced.faults] == ["row 2"]
    assert said in str(priced.faults[0])
    assert len(priced.rows) == 4
    assert [row["speedup"] != "" for row in answers(priced)] == [True, False, True, True]
    assert len(list(csv.reader(io.StringIO(priced.to_csv(), newline="")))) == 5


def test_formulas_are_written_as_text() -> None:
    priced = price_cases(cases({"hardware": "=1+1"}))
    assert "'=1+1" in priced.to_csv()
    assert csv_text(["a"], [["-0.5"], ["@x"]]) == "a\n-0.5\n'@x\n"


def test_a_price_that_is_not_finite_is_a_row_error(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = tuple(Column(column.name, "ms", lambda _: math.nan) for column in ANSWERS)
    monkeypatch.setattr("perfmodel.planning.cases.ANSWERS", nothing)
    priced = price_cases(cases({}))
    assert "not a finite number" in str(priced.faults[0])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"hardware;strategy\n", "separated by ';'"),
        (b"\xff\xfeh\x00", "UTF-16"),
        (b'"hardware\n', "header"),
        (b"hardware,hardware\n", "twice"),
        (b"hardware,target,strategy,context,batch_size,gamma\n", "context_len"),
        (b"=1,hardware,target_model,strategy,context_len,batch_size,gamma\n", "name"),
    ],
)
def test_a_header_that_cannot_be_used_refuses_the_file(content: bytes, said: str) -> None:
    with pytest.raises(SpecError, match=said) as refusal:
        price_cases(content, "mine.csv")
    assert "mine.csv" in str(refusal.value)


def test_every_missing_column_is_named_at_once() -> None:
    with pytest.raises(SpecError) as refusal:
        price_cases(b"hardware,target,strategy\n")
    assert {fault.field for fault in refusal.value.faults} == {
        "target_model", "context_len", "batch_size", "gamma",
    }  # fmt: skip
    assert any(fault.nearest == "target" for fault in refusal.value.faults)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(SpecError, match=r"absent\.csv"):
        price_file(tmp_path / "absent.csv")
    with pytest.raises(SpecError):
        price_file(tmp_path)


@pytest.mark.parametrize(
    "rewritten",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\r"),
        lambda text: b"\n\n" + text.replace(b"\n", b"\n\n"),
        lambda text: text.replace(b"tensor_parallel", b" Tensor-Parallel "),
        lambda text: text.replace(b"batch_size", b"BATCH SIZE"),
        lambda text: text.replace(b"32000,32,3", b" 32k , 32.0 ,3"),
        lambda text: text.rstrip(b"\n"),
    ],
)  # fmt: skip
def test_how_a_file_was_saved_does_not_matter(rewritten) -> None:
    plain, other = price_cases(cases({}, {})), price_cases(rewritten(cases({}, {})))
    assert not other.faults
    column = plain.columns.index("speedup")
    assert [row[column] for row in other.rows] == [row[column] for row in plain.rows]


def test_a_draft_model_gets_its_own_price() -> None:
    own, small = answers(price_cases(cases({}, {"draft_model": "llama-3.2-1b"})))
    assert float(small["t_draft_ms"]) < float(own["t_draft_ms"])
    assert small["t_verify_ms"] == own["t_verify_ms"]


row_changes = st.fixed_dictionaries(
    {},
    optional={
        "hardware": st.sampled_from(["a100", "H100", "l40-48gb", "nothing"]),
        "strategy": st.sampled_from(["streaming_llm", "SnapKV", "quest", "none"]),
        "batch_size": st.sampled_from(["1", "64", "256", "-1"]),
        "context_len": st.sampled_from(["1k", "32k", "128K"]),
        "gamma": st.sampled_from(["0", "1", "7"]),
        "tensor_parallel": st.sampled_from(["1", "8"]),
        "tokens_per_round": st.sampled_from(["", "1", "1.5"]),
    },
)


@settings(max_examples=6, deadline=None)
@given(st.lists(row_changes, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_neither_order_nor_company_changes_a_row(changes, random) -> None:
    together = price_cases(cases(*changes))
    shuffled = list(range(len(changes)))
    random.shuffle(shuffled)
    mixed = price_cases(cases(*(changes[index] for index in shuffled)))
    column = together.columns.index("tpot_ms")
    for place, index in enumerate(shuffled):
        alone = price_cases(cases(changes[index]))
        assert together.rows[index][column] == mixed.rows[place][column] == alone.rows[0][column]


cell_text = st.one_of(
    st.text(max_size=12),
    st.floats().map(repr),
    st.integers().map(str),
    st.sampled_from(
        ["", '"', '""', "'", ",", "\n", "\r", "=1", "@", "1e308", "1" * 40, "0x10", "½", "\u202e", "٣"]
    ),
    st.sampled_from(list(GOOD.values())),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(cell_text, min_size=len(INPUTS), max_size=len(INPUTS)), min_size=1, max_size=4))
def test_whatever_a_row_says_it_is_priced_or_refused(rows) -> None:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([INPUTS, *rows, [GOOD[name] for name in INPUTS]])
    priced = price_cases(stream.getvalue().encode("utf-8", errors="surrogatepass"))
    assert priced.rows[-1][priced.columns.index("speedup")] != ""
    for row in answers(priced):
        assert (row["speedup"] == "") == bool(row.get("error"))
    assert len(list(csv.reader(io.StringIO(priced.to_csv(), newline="")))) == len(priced.rows) + 1


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_bytes_follow_the_header_the_last_row_is_not_lost(damage: bytes) -> None:
    header, good = cases({}).splitlines()
    last = good.replace(b"32000", b"31999")
    priced = price_cases(header + b"\n" + damage.replace(b'"', b"") + b"\n" + last)
    assert priced.rows[-1][priced.columns.index("context_len")] == "31999"
    assert priced.rows[-1][priced.columns.index("speedup")] != ""


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_bytes_a_file_holds_it_is_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(SpecError):
        table = read_csv(content, "file")
        assert all(len(row.cells) == len(table.columns) for row in table.rows)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.text(alphabet='ab",\n', max_size=6), min_size=2, max_size=2), max_size=6))
def test_what_was_written_is_read_back(rows) -> None:
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    table = read_csv(csv_text(("one", "two"), rows).encode(), "file")
    assert [list(row.cells) for row in table.rows] == rows
    assert not any(row.fault for row in table.rows)
