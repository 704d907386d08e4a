"""One table, three faces: what is printed, the JSON and the CSV are the columns that the glossary lists."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.planning.columns import Cell, columns_of, number

ROOT = Path(__file__).parents[2]
COLUMNS = columns_of(Cell)
ROW = re.compile(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)
QUESTION = [
    "plan", "--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb,l40s-48gb", "--tp", "8",
    "--context", "8k,32k", "-b", "16,64", "--draft-model", "llama-3.2-1b", "--gamma", "0,2",
]  # fmt: skip


def ask(*more: str) -> str:
    result = CliRunner().invoke(app, [*QUESTION, *more], prog_name="draftplan")
    assert result.exit_code == 0, result.output
    return result.stdout


def in_one_line(title: str) -> str:
    return title.replace("\n", " ").replace("/ ", "/")


def test_the_glossary_lists_every_column_with_its_unit_and_title():
    text = (ROOT / "GLOSSARY.md").read_text(encoding="utf-8")
    section = text[text.index("## The columns of an answer") : text.index("## Trust")]
    listed = {name: (unit, title) for name, unit, title, _ in ROW.findall(section)}
    assert listed == {column.name: (column.unit, in_one_line(column.title)) for column in COLUMNS}


def test_json_and_csv_hold_the_same_numbers_under_the_same_names():
    cells = json.loads(ask("--format", "json"))["cells"]
    rows = list(csv.DictReader(io.StringIO(ask("--format", "csv"))))
    assert [list(cell) for cell in cells] == [[column.name for column in COLUMNS]] * len(cells)
    for cell, row in zip(cells, rows, strict=True):
        assert set(cell) - set(row) == {"round_by_gamma_s"}
        for name, text in row.items():
            value = cell[name]
            assert text == ("" if value is None else str(value)), name


def test_what_is_printed_is_what_the_json_holds():
    cells, table = json.loads(ask("--format", "json"))["cells"], ask()
    sometimes = ("memory_left_bytes", "topk", "nodes", "needs")
    always = [column for column in COLUMNS if column.title and column.name not in sometimes]
    titles = {line for column in always for line in column.title.split("\n")}
    assert all(title in table for title in titles)
    lines = [line for line in table.splitlines() if re.match(r"\s*\d+\s+[\d,]+\s", line)]
    for cell, line in zip(cells, lines, strict=True):
        for shown in (number(cell["tpot_s"] * 1e3), f"{cell['speedup']:.2f}x", f"{cell['context_len']:,}"):
            assert shown in line
