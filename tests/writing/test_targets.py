"""Where an output's name leads: links, folders, devices, pipes, and files that may not be written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from perfmodel.errors import SpecError
from perfmodel.files.writing import place_for, replacing, target_of, write_whole

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and modes of POSIX")


def refusal(path, content="new"):
    with pytest.raises(SpecError) as caught:
        write_whole(path, content)
    (fault,) = caught.value.faults
    assert fault.remedy
    return str(fault)


@posix
def test_links_are_followed_to_what_is_there_or_will_be(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "b").symlink_to("in/c")
    (tmp_path / "a").symlink_to("b")
    write_whole(tmp_path / "a", "new")
    assert (tmp_path / "in" / "c").read_text() == "new"
    write_whole(tmp_path / "a", "newer")
    assert (tmp_path / "in" / "c").read_text() == "newer"
    assert (tmp_path / "a").is_symlink() and (tmp_path / "b").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "in"]
    assert os.listdir(tmp_path / "in") == ["c"]


@posix
def test_links_that_lead_nowhere_are_refused_and_leave_nothing(tmp_path):
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "away").symlink_to("no/such")
    (tmp_path / "down").symlink_to("self/file")
    before = sorted(os.listdir(tmp_path))
    assert "lead to themselves" in refusal(tmp_path / "self")
    assert "lead to themselves" in refusal(tmp_path / "one")
    assert "is not there" in refusal(tmp_path / "away")
    assert "cannot be written" in refusal(tmp_path / "down")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    "name", ["", ".", "folder", "folder/", "new/", "a\0b", "x" * 300, "no/file", "file/in"]
)
def test_names_that_are_no_file_are_refused_and_leave_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    assert "\0" not in refusal(name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"


@posix
def test_a_read_only_file_is_refused_whoever_asks(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(0o444)
    assert "read-only" in refusal(path) and "chmod u+w" in refusal(path)
    assert path.read_text() == "old"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_the_mode_stays_and_a_new_file_has_that_of_the_umask(mode, tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(mode)
    write_whole(path, "new")
    with replacing(path, tmp_path) as unfinished:
        unfinished.write_text("newer")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    former = os.umask(0o027)
    try:
        write_whole(tmp_path / "fresh", "new")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files away")
def test_the_owner_stays(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    os.chown(path, 12345, 12346)
    write_whole(path, "new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)


@posix
def test_devices_and_pipes_are_handed_the_content_and_never_replaced(tmp_path):
    write_whole("/dev/null", "new")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert "No space left" in refusal("/dev/full")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "nobody reads" in refusal(pipe)
    seen = []
    reader = threading.Thread(target=lambda: seen.append(pipe.read_bytes()))
    reader.start()
    while not seen:
        try:
            write_whole(pipe, b"x" * 200_000)
            break
        except SpecError:
            continue  # the reader is not there yet
    reader.join()
    assert seen == [b"x" * 200_000]
    with pytest.raises(SpecError, match="a device or a pipe"):
        place_for(pipe)
    assert os.listdir(tmp_path) == ["pipe"]


@posix
def test_what_the_shell_opened_is_written_on_and_not_replaced(tmp_path):
    code = "from perfmodel.files.writing import write_whole; write_whole('{}', 'new\\n')"
    kept = tmp_path / "kept"
    with kept.open("w") as stream:
        stream.write("before\n")
        stream.flush()
        for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
            subprocess.run([sys.executable, "-c", code.format(name)], stdout=stream, check=True)
    assert kept.read_text() == "before\nnew\nnew\nnew\n"
    reading, writing = os.pipe()
    write_whole(f"/dev/fd/{writing}", "through")
    os.close(writing)
    assert os.read(reading, 100) == b"through"
    os.close(reading)
    assert "Bad file descriptor" in refusal(f"/dev/fd/{writing}")


def test_what_a_killed_process_left_of_a_file_goes_with_the_next_one(tmp_path):
    code = (
        "import os; from perfmodel.files.writing import replacing\n"
        f"with replacing({str(tmp_path / 'out')!r}) as file:\n"
        "    file.write_text('half'); os._exit(9)"
    )
    for name in ("out", "other"):
        subprocess.run([sys.executable, "-c", code.replace("/out'", f"/{name}'")], check=False)
    assert len(os.listdir(tmp_path)) == 2
    with replacing(tmp_path / "other") as busy:
        busy.write_text("new")
        write_whole(tmp_path / "out", "new")
        assert sorted(os.listdir(tmp_path)) == [busy.parent.name, "out"]
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


def test_two_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "out"
    contents = [letter * 10_000 for letter in "abcd"]
    writers = [threading.Thread(target=write_whole, args=(path, content)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() in contents
    assert os.listdir(tmp_path) == ["out"]
    assert target_of(path).file == path
