"""One way into every file: what it may be, how large, and as which text."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from perfmodel.errors import SpecError, printable
from perfmodel.files import opening
from perfmodel.files.opening import KINDS, PROFILE, Kind, opened, read_file, text_of

SMALL = Kind("a small file", 10, "Split it")


def refusal(path, kind=PROFILE):
    with pytest.raises(SpecError) as caught:
        read_file(path, kind)
    (fault,) = caught.value.faults
    assert fault.file == str(path)
    return fault


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"0123456789")
    (tmp_path / "b").symlink_to(file)
    assert read_file(file, SMALL) == read_file(tmp_path / "b", SMALL) == b"0123456789"
    with opened(file, SMALL) as stream:
        assert stream.readline() == b"0123456789"


def test_what_is_larger_than_its_kind_is_refused_with_the_limit(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"01234567890")
    fault = refusal(file, SMALL)
    assert "larger than 10 bytes, the most for a small file" in fault.problem
    assert fault.remedy == "Split it"


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("zero", "urandom", "full", "null"):
        (tmp_path / name).symlink_to(f"/dev/{name}")
        assert "device" in refusal(tmp_path / name).problem
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert "a socket" in refusal(tmp_path / "socket").problem
    assert "a named pipe" in refusal(tmp_path / "pipe").problem
    assert "a folder" in refusal(tmp_path).problem
    assert "does not exist" in refusal(tmp_path / "nowhere").problem
    assert "cannot be read" in refusal(tmp_path / "itself").problem
    assert "cannot be read" in refusal("a\0b").problem


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell with <(...)")
def test_standard_input_and_process_substitution_stay_possible():
    read = "import sys; from perfmodel.files.opening import *; print(read_file(sys.argv[1], LOG))"
    command = f'{sys.executable} -c "{read}" '
    for words in (command + "<(printf one)", "printf one | " + command + "-"):
        run = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60, check=True)
        assert run.stdout == "b'one'\n"
    endless = 'import sys; from perfmodel.files.opening import *; read_file("-", Kind("x", 9))'
    run = subprocess.run(
        ["bash", "-c", f"yes | {sys.executable} -c '{endless}'"], capture_output=True, text=True, timeout=60
    )
    assert "larger than 9 bytes" in run.stderr


def test_text_is_utf_8_with_or_without_its_mark():
    assert text_of(b"\xef\xbb\xbfone", "f") == text_of(b"one", "f") == "one"
    with pytest.raises(SpecError, match="f:1: the file is UTF-16"):
        text_of("one".encode("utf-16"), "f")
    assert text_of("one".encode("utf-16"), "f", or_utf_16=True) == "one"
    with pytest.raises(SpecError, match="f:2: byte 4 is not UTF-8"):
        text_of(b"one\n\xff", "f")


def test_every_kind_says_how_large_it_may_be():
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all(0 < kind.largest <= 2_000_000_000 and kind.remedy for kind in KINDS)


def test_nothing_invisible_of_an_input_is_printed():
    assert printable("plain, 大 and é") == "plain, 大 and é"
    assert printable("a\x1b[31m\r\n\u202e\u2028\ud800\x9b") == r"a\x1b[31m\r\n\u202e\u2028\ud800\x9b"
    assert printable("a\nb\t", keep="\n") == "a\nb\\t"
    assert str(SpecError.single("a\x1b", "b\n", "c\u200f")) == r"a\x1b: b\n: c\u200f."


def test_the_page_on_trust_says_the_same_sizes():
    page = (Path(opening.__file__).parents[2] / "docs" / "trust.md").read_text(encoding="utf-8")
    for kind in KINDS:
        assert f"| {kind.name} | {kind.largest:,} | {kind.remedy} |" in page
