"""Outputs of commands: refused before the work begins, and stdout that is closed or full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from asking import CELL, ON, QUICK, ROOT, refused, run

from perfmodel.cli.ending import Terminated, terminating

PLAN = ["plan", *CELL, *QUICK]
CASES = (
    "hardware,engine,tensor_parallel,target_model,draft_model,strategy,kv_budget,context_len,batch_size,gamma\n"
    "h100-sxm-80gb,ideal,8,llama-3.1-8b,,none,,32000,32,0\n"
)
posix = pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")


@pytest.mark.parametrize(
    "words",
    [PLAN, ["sweep", *ON, *QUICK, "--context", "1k", "-b", "1"], ["plot", "roofline", *CELL, *QUICK],
     ["report", *CELL, *QUICK], ["validate", "--table", "magicdec-1"], ["calibrate", "magicdec-3a"],
     ["simulate", *ON, "--synthetic", "qps=1,prompt=1k,output=10,requests=3", "--policy", "none"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_an_output_that_cannot_be_written_is_refused_before_the_work(words, tmp_path, monkeypatch):
    monkeypatch.setattr("perfmodel.hardware.HardwareProfile.load", None)  # nothing is read before that
    (tmp_path / "self.csv").symlink_to("self.csv")
    assert "lead to themselves" in refused(*words, "-o", tmp_path / "self.csv")
    assert "Name a file in it" in refused(*words, "-o", tmp_path)
    assert os.listdir(tmp_path) == ["self.csv"]


def test_an_output_that_is_read_is_refused(tmp_path):
    cases, link = tmp_path / "cases.csv", tmp_path / "link.csv"
    cases.write_text(CASES)
    link.symlink_to(cases)
    for name in (cases, link, f"{tmp_path}/../{tmp_path.name}/cases.csv"):
        stderr = refused("price", cases, "-o", name)
        assert "--output: it is read by" in stderr and "Name another file" in stderr
    profiles = tmp_path / "own.yaml"
    profiles.write_text("name: own\n")
    assert "read by --hardware" in refused("plan", *CELL[:2], "--hardware", f"h100-sxm-80gb,{profiles}",
                                          "--context", "1k", "-b", "1", "-o", profiles)  # fmt: skip
    assert cases.read_text() == CASES


def test_two_outputs_may_not_be_one_file(tmp_path):
    flags = ["--output", tmp_path / "a.yaml", "--profile-output", tmp_path / "." / "a.yaml"]
    assert "both write it" in refused("calibrate", "magicdec-3a", *flags)
    assert os.listdir(tmp_path) == []


def test_every_flag_of_an_output_is_told_at_once(tmp_path):
    flags = ["--output", tmp_path, "--traffic-output", tmp_path / "no" / "such.yaml"]
    assert refused("calibrate", "magicdec-3a", *flags).count("error: ") == 2


def shell(text):
    return subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
    )  # fmt: skip


@posix
@pytest.mark.parametrize(
    ("words", "target", "problem"),
    [(PLAN, ">&-", "it is closed"), (PLAN, ">/dev/full", "No space left on device"),
     (["sweep", *ON, *QUICK, "--context", "1k", "-b", "1"], ">/dev/full", "No space left on device")],
)  # fmt: skip
def test_a_closed_or_full_stdout_ends_with_two_and_a_line(words, target, problem):
    ended = shell(f"{sys.executable} -m perfmodel {' '.join(words)} {target}")
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: standard output: it ")
    assert problem in ended.stderr
    assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr


@posix
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_so_does_help(flag):
    ended = shell(f"{sys.executable} -m perfmodel {flag} >/dev/full")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr


@posix
def test_a_closed_stderr_harms_no_answer():
    ended = shell(f"{sys.executable} -m perfmodel {' '.join(PLAN)} --format csv 2>&-")
    assert ended.returncode == 0
    assert ended.stdout.startswith("context_len,") or ended.stdout.count("\n") == 2
    assert "note:" not in ended.stdout


@posix
def test_a_process_substitution_gets_the_answer(tmp_path):
    got = tmp_path / "got"
    command = f"{sys.executable} -m perfmodel {' '.join(PLAN)} --format json"
    ended = shell(f"{command} -o >(cat > {got}; echo >> {got})")
    assert ended.returncode == 0, ended.stderr
    deadline = time.monotonic() + 20
    while not (got.exists() and got.read_bytes().endswith(b"}\n\n")):  # the shell does not wait for it
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert got.read_text() == run(*PLAN, "--format", "json").stdout + "\n"


@posix
def test_a_signal_that_asks_for_an_end_lets_everything_clean_up():
    steps = []

    def work():
        with terminating():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                steps.append("cleaned")

    with pytest.raises(Terminated) as caught:
        work()
    assert steps == ["cleaned"]
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@posix
def test_a_terminated_command_ends_with_143_and_keeps_its_pieces(tmp_path):
    words = ["sweep", *ON[:2], "--engine", "ideal", "--hardware", "h100-sxm-80gb,a100-sxm-80gb,l40s-48gb",
             "--tp", "1,2,4,8", "--context", "1k:16k:1k", "-b", "1:32:1", *QUICK]  # fmt: skip
    command = subprocess.Popen(
        [sys.executable, "-m", "perfmodel", *words, "-o", str(tmp_path / "all.csv")], stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    deadline = time.monotonic() + 50
    while not list(tmp_path.glob("all.csv.parts-*/0.npz")):
        assert command.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    command.terminate()
    _, stderr = command.communicate(timeout=50)
    assert command.returncode == 143, stderr
    assert "are kept; the same command goes on from there" in stderr
    assert stderr.splitlines()[-1] == "terminated"
    (parts,) = tmp_path.iterdir()
    assert all(path.name.endswith((".npz", ".json")) for path in parts.iterdir())
    assert run("parts", "remove", tmp_path).exit_code == 0
    assert list(tmp_path.iterdir()) == []
