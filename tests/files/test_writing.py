"""Files are written whole or not at all, and a reader never sees a part of one."""

import os
import threading

import pytest

from perfmodel.errors import SpecError
from perfmodel.files.writing import write_whole


def test_writing_leaves_the_whole_new_content_and_nothing_else(tmp_path):
    path = tmp_path / "out.json"
    write_whole(path, "first")
    write_whole(path, "zweite \u2026")
    assert path.read_text(encoding="utf-8") == "zweite \u2026"
    write_whole(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert os.listdir(tmp_path) == ["out.json"]


def test_writing_keeps_the_permissions_of_the_file_and_follows_links(tmp_path):
    path, link = tmp_path / "out", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o600)
    link.symlink_to(path)
    write_whole(link, "new")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "new"
    assert link.is_symlink()


def test_a_failed_write_leaves_the_old_content_and_no_trace(tmp_path, monkeypatch):
    path = tmp_path / "out"
    write_whole(path, "old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpecError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_writing_into_a_folder_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(SpecError, match="cannot be written"):
        write_whole(tmp_path / "no" / "out", "x")


def test_a_reader_never_sees_a_part(tmp_path):
    path = tmp_path / "out"
    contents = [letter * 100_000 for letter in "ab"]
    write_whole(path, contents[0])
    seen = set()
    done = threading.Event()

    def look():
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=look)
    reader.start()
    for turn in range(30):
        write_whole(path, contents[turn % 2])
    done.set()
    reader.join()
    assert seen <= set(contents)
