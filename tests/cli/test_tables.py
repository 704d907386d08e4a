"""Printed tables: lists of columns over rows of objects."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from perfmodel.cli.ask.format import Format, OutputFlags
from perfmodel.cli.tell.output import tell
from perfmodel.cli.tell.tables import Column, change, draw, gain, left, lines, section
from perfmodel.errors import SpecError


def printed(print_to, width=80):
    stream = io.StringIO()
    print_to(Console(file=stream, width=width, markup=False, emoji=False, highlight=False))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_table_is_columns_over_rows_of_objects():
    columns = (left("name", lambda row: row[0]), Column("seconds\nper step", lambda row: row[1]))
    rows = [("plain", 1.5), ("drafting", 10)]
    deep, titles, _, *cells = printed(lambda console: draw(console, columns, iter(rows)))
    assert [text.split() for text in (deep, titles, *cells)] == [
        ["seconds"], ["name", "per", "step"], ["plain", "1.5"], ["drafting", "10"],
    ]  # fmt: skip
    assert titles.startswith("name ") and cells[0].startswith("plain "), "words stand to the left"
    assert titles.index("step") + 4 == len(cells[0]) == len(cells[1]), "numbers stand to the right"


def test_anything_with_a_title_and_a_text_is_a_column():
    @dataclass
    class OfAPlan:
        name: str
        title: str
        left: bool = True

        def show(self, row):
            return row.upper()

    assert printed(lambda console: draw(console, [OfAPlan("x", "word")], ["a"]))[-1] == "A"


def test_nothing_of_a_table_is_lost_on_a_narrow_terminal():
    columns = [left(f"column {place}", lambda row: row) for place in range(8)]
    text = "".join(printed(lambda console: draw(console, columns, ["value"]), width=20))
    assert text.count("value") == 8


def test_an_empty_table_has_its_titles():
    assert printed(lambda console: draw(console, [left("name", str)], []))[0] == "name"


def test_text_in_brackets_is_shown_as_it_is():
    def print_to(console):
        section(console, "[bold]")
        lines(console, ["[a]", "[/b]"])

    assert printed(print_to) == ["", "[bold]", "  [a]", "  [/b]"]


@pytest.mark.parametrize(
    ("speedup", "text", "colour"),
    [(None, "-", ""), (1.2, "1.20x", "green"), (0.8, "0.80x", "red"), (1, "1.00x", "")],
)
def test_a_speedup_is_coloured_by_whether_it_is_one(speedup, text, colour):
    assert (gain(speedup).plain, gain(speedup).style) == (text, colour)


def test_a_change_has_its_sign_and_nothing_is_never_less_than_nothing():
    assert [change(share) for share in (0.031, -0.02, 0.0, -0.0004)] == ["+3.1%", "-2.0%", "+0.0%", "+0.0%"]


def test_an_answer_without_rows_refuses_csv(tmp_path):
    flags = OutputFlags(format=Format.CSV, output=str(tmp_path / "a.csv"), no_color=False)
    with pytest.raises(SpecError, match="Use table, json or yaml"):
        tell(lambda: {"a": 1}, flags, table=lambda console: console.print("a"))
    assert list(tmp_path.iterdir()) == []


def test_the_ending_of_a_file_says_how_it_is_written(tmp_path):
    texts = {"a.json": '{\n "a": null\n}\n', "a.yml": "a: null\n", "a.csv": "a\n1\n", "a.txt": "A\n"}
    for name, text in texts.items():
        flags = OutputFlags(format=None, output=str(tmp_path / name), no_color=False)
        answer, rows = {"a": float("inf")}, [{"a": 1}]
        tell(lambda: answer, flags, table=lambda console: console.print("A"), rows=lambda: rows)  # noqa: B023
        assert (tmp_path / name).read_text() == text
