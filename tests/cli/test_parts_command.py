"""`draftplan parts list|remove`: what lies around is shown, and only what is draftplan's is deleted."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from asking import refused, run

from perfmodel._version import __version__
from perfmodel.errors import SpecError
from perfmodel.files.checkpoint import LOCK, MANIFEST, Parts
from perfmodel.files.leftovers import leftovers_in, read_age, remove_leftover
from perfmodel.files.writing import replacing

KEYS = ["0" * 16, "1" * 16]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with pieces to two outputs, an unfinished file of a killed process, and a file of people."""
    monkeypatch.chdir(tmp_path)
    for name, key in zip(("out.csv", "served.json"), KEYS, strict=True):
        Parts(name, key, 4).write(0, {"a": np.arange(3)})
    unfinished = tmp_path / ".page.html.draftplan-abcd1234"
    unfinished.mkdir()
    (unfinished / "page.html").write_text("half")
    (tmp_path / "mine.txt").write_text("keep")
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_lies_around_is_listed_in_every_form(folder):
    table = run("parts", "list").stdout
    assert "1 of 4" in table and "abandoned" in table and "the same command goes on" in table
    rows = json.loads(run("parts", "list", folder, "--format", "json").stdout)["parts"]
    assert [row["output"] for row in rows] == ["page.html", "out.csv", "served.json"]
    assert [row["pieces_done"] for row in rows] == [None, 1, 1]
    assert rows[1]["version"] == __version__ and rows[1]["size_bytes"] > 0 and rows[1]["used_by"] == ""
    table = list(csv.DictReader(io.StringIO(run("parts", "list", "--format", "csv").stdout)))
    assert [row["name"] for row in table] == [row["name"] for row in rows]
    assert "mine.txt" not in str(rows)


def test_an_empty_folder_lists_nothing(tmp_path):
    assert "nothing lies here" in run("parts", "list", tmp_path).stderr
    assert json.loads(run("parts", "list", tmp_path, "--format", "json").stdout) == {"parts": []}
    assert len(run("parts", "list", tmp_path, "--format", "csv").stdout.splitlines()) == 1
    assert "nothing to remove" in run("parts", "remove", tmp_path).stderr


def test_everything_of_a_folder_is_removed_and_told(folder):
    result = run("parts", "remove")
    assert result.exit_code == 0
    assert result.stderr.count("removed ") == 3
    assert names(folder) == ["mine.txt"]


@pytest.mark.parametrize("name", ["out.csv", "out.csv.parts-" + KEYS[0], "./out.csv.parts-" + KEYS[0] + "/"])
def test_an_output_or_a_folder_of_pieces_can_be_named(name, folder):
    assert run("parts", "remove", name).exit_code == 0
    assert names(folder) == [".page.html.draftplan-abcd1234", "mine.txt", "served.json.parts-" + KEYS[1]]


def test_only_what_is_older_is_listed_and_removed(folder):
    long_ago = time.time() - 8 * 86400
    for path in [*Path("out.csv.parts-" + KEYS[0]).iterdir()]:
        os.utime(path, (long_ago, long_ago))
    listed = run("parts", "list", "--older-than", "7d", "--format", "json").stdout
    assert len(json.loads(listed)["parts"]) == 1
    assert run("parts", "remove", "--older-than", "9d").exit_code == 0
    assert len(names(folder)) == 4
    assert run("parts", "remove", "--older-than", "7d").exit_code == 0
    assert len(names(folder)) == 3


def test_ages_have_units_and_nonsense_is_refused():
    assert [read_age(text) for text in ("90", "30m", "1.5h", "7d", "2w")] == [90, 1800, 5400, 604800, 1209600]
    for text in ("", "d", "-1d", "1y", "1e9d", "nan"):
        with pytest.raises(SpecError):
            read_age(text)
    assert "--older-than" in refused("parts", "list", "--older-than", "soon")


def test_what_is_in_use_is_shown_and_refused(folder):
    with Parts("out.csv", KEYS[0], 4).held(), replacing("page2.html") as unfinished:
        unfinished.write_text("half")
        listed = json.loads(run("parts", "list", "--format", "json").stdout)["parts"]
        rows = {row["output"]: row for row in listed}
        assert rows["out.csv"]["used_by"] == f"process {os.getpid()}"
        assert rows["page2.html"]["used_by"] == "another process"
        result = run("parts", "remove")
        assert result.exit_code == 2
        assert result.stderr.count("it is used by") == 2
        assert result.stderr.count("removed ") == 2
        assert unfinished.exists() and Path("out.csv.parts-" + KEYS[0], LOCK).exists()
    assert names(folder) == ["mine.txt", "out.csv.parts-" + KEYS[0], "page2.html"]


def test_a_folder_with_anything_foreign_in_it_stays(folder):
    foreign = {}
    for number, put in enumerate((
        lambda path: (path / "notes.txt").write_text("keep"),
        lambda path: (path / "sub").mkdir(),
        lambda path: (path / MANIFEST).unlink(),
        lambda path: (path / MANIFEST).write_text('{"key": "another"}'),
        lambda path: (path / "1.npz").symlink_to(folder / "mine.txt"),
        lambda path: (path / "2.npz").mkdir(),
    )):  # fmt: skip
        parts = Parts(f"foreign{number}", KEYS[0], 4)
        parts.write(0, {"a": np.arange(3)})
        put(parts.folder)
        foreign[parts.folder] = names(parts.folder)
    link = folder / f"linked.parts-{KEYS[0]}"
    link.symlink_to(folder / f"out.csv.parts-{KEYS[0]}")
    hidden = folder / ".theirs.draftplan-00000000"
    (hidden / "sub").mkdir(parents=True)
    result = run("parts", "remove")
    assert result.exit_code == 2
    assert result.stderr.count("draftplan did not write") == len(foreign) + 2
    assert {path: names(path) for path in foreign} == foreign
    assert link.is_symlink() and (hidden / "sub").is_dir()
    assert (folder / "mine.txt").read_text() == "keep"


def test_names_that_stand_for_nothing_are_refused(folder):
    for name in ("absent", "no/such", "a\0b", "mine.txt", ""):
        assert "error: " in refused("parts", "remove", name)
    assert "cannot be read" in refused("parts", "list", "mine.txt")
    assert len(names(folder)) == 4


def test_names_are_shown_with_nothing_invisible_in_them(tmp_path):
    parts = Parts(tmp_path / "a\x1b[31m\u202eb.csv", KEYS[0], 1)
    parts.write(0, {"a": np.arange(3)})
    for form in ("table", "json", "csv"):
        shown = run("parts", "list", tmp_path, "--format", form).stdout
        assert "\x1b" not in shown and "\u202e" not in shown and "x1b[31m" in shown
    assert "\x1b" not in run("parts", "remove", tmp_path).stderr
    assert list(tmp_path.iterdir()) == []


def test_what_changed_since_it_was_listed_is_looked_at_again(folder):
    (leftover,) = [each for each in leftovers_in(folder) if each.output == "out.csv"]
    (leftover.folder / "notes.txt").write_text("keep")
    with pytest.raises(SpecError, match="did not write"):
        remove_leftover(leftover)
    assert (leftover.folder / "notes.txt").exists()
