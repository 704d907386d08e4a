"""Kills commands at random moments, runs them again and compares: ``python kills.py MOMENTS SEED FOLDER``.

Every command is a child of this process, which has imported what it needs, so that a moment costs no start.
Prints one JSON object: for each command its moments, those that came before its end, how many had pieces to
go on from, and every difference.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

from writers import BENCHMARK, CELLS, ON, contents, ran

from perfmodel.cli import main as main_command
from perfmodel.planning.sweep import Sweep

DRAFTS = ["--strategy", "streaming_llm", "--draft-budget", "512", "--gamma", "1:2:1"]
MACHINES = "a100-sxm-80gb,h100-sxm-80gb,h200-sxm-141gb,l40s-48gb"
COMMANDS = {
    "sweep": (
        ["sweep", "--model", "llama-3.1-8b", "--engine", "ideal", "--hardware", MACHINES, "--tp", "1,2,4,8",
         "--context", "1k:4k:1k", "-b", "1:8:1", *DRAFTS], {"-o": "all.csv"}),
    "simulate": (
        ["simulate", *ON, "--synthetic", "qps=3,prompt=1k,output=10,requests=20", "--strategy", "snapkv",
         "--draft-budget", "1024", "--policy", "none,fixed:1,fixed:2", "--speed", "0.7,1"],
        {"-o": "served.json", "--plot": "served.svg"}),
    "calibrate": (
        ["calibrate", "bench.txt", "magicdec-3a", "--hardware", "a100-sxm-80gb", "--strategy", "eagle",
         "--tp", "1", "--model", "llama-3.1-8b", "--attention-kernel", "flashinfer", "--all-reduce",
         "nccl", "--keep", "draft_forward,streaming,lookup,lookup_token,row"],
        {"-o": "ours.yaml", "--acceptance-output": "acceptance.json", "--traffic-output": "traffic.yaml"}),
    "report": (["report", *CELLS], {"-o": "page.html"}),
}  # fmt: skip
QUICK = {
    **COMMANDS,
    "calibrate": (
        ["calibrate", "bench.txt", "--hardware", "a100-sxm-80gb", "--strategy", "eagle", "--tp", "1",
         "--model", "llama-3.1-8b"],
        {"--acceptance-output": "acceptance.json", "--traffic-output": "traffic.yaml"}),
}  # fmt: skip
"""The same without a fit, for few moments."""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PIECE = 200
"""Rows of a piece of the sweep, so that it has some. [rows]"""
ENDS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
OLD = b"what was there before\n"


def begun(words):
    """Fork a child that runs a command; returns its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid:
        return pid
    code = 130
    try:
        code = answered(words)
    except KeyboardInterrupt:  # before the command was there
        pass
    finally:
        os._exit(code)


def answered(words):
    """Run a command without a word; returns its exit code."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    sys.argv = ["draftplan", *words]
    try:
        main_command()
    except SystemExit as end:
        return end.code or 0
    return 1


def ended(pid):
    """Wait for a child; returns its exit code, or the signal that ended it, below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def typed(words, outputs):
    """The words of a command, whose outputs lie where it runs."""
    return words + [part for pair in outputs.items() for part in pair]


def prepared(folder, outputs, old):
    """Make an empty folder, or one with old outputs, and go there."""
    os.chdir(folder.parent)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.chdir(folder)
    (folder / "bench.txt").write_text(BENCHMARK, encoding="utf-8")
    for name in outputs.values() if old else ():
        (folder / name).write_bytes(OLD)


def differences(there, expected, outputs, old):
    """What is wrong after a command was killed: outputs that are neither old nor new."""
    former = OLD if old else None
    return [name for name in outputs.values() if there.get(name) not in (former, expected[name])]


def killed(command, moments, draw, folder):
    """Kill a command at random moments; returns what came of it."""
    words, outputs = command
    words = typed(words, outputs)
    prepared(folder, outputs, old=False)
    assert ran(words)[0] == 0  # here, so that children need not import it again
    prepared(folder, outputs, old=False)
    start = time.monotonic()
    code = ended(begun(words))
    whole = time.monotonic() - start
    assert code == 0, (words, code)
    expected = contents(folder)
    result = {"moments": moments, "seconds": whole, "before its end": 0, "with pieces": 0, "wrong": []}
    for moment in range(moments):
        old = bool(moment % 2)
        prepared(folder, outputs, old)
        number = draw.choice(SIGNALS)
        delay = draw.uniform(0.0, 1.02 * whole)
        pid = begun(words)
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        code = ended(pid)
        where = f"{number.name} after {delay:.3f} s"
        result["before its end"] += code != 0
        if code not in (0, ENDS[number], -number):
            result["wrong"].append(f"{where}: exit code {code}")
        there = contents(folder)
        result["with pieces"] += any(".parts-" in file for file in there)
        neither = differences(there, expected, outputs, old)
        result["wrong"] += [f"{where}: {file} is neither" for file in neither]
        if number != signal.SIGKILL and code:
            result["wrong"] += [f"{where}: left {file}" for file in left_by(folder)]
        code = ended(begun(words))
        if code:
            result["wrong"].append(f"{where}: going on ended with {code}")
        if contents(folder) != expected:
            result["wrong"].append(f"{where}: what went on differs")
        result["wrong"] += [f"{where}: {path.name} stays" for path in folder.iterdir() if path.is_dir()]
    return result


def left_by(folder):
    """What a command that ended by itself must not leave: unfinished files and locks."""
    return [str(path) for path in folder.rglob("*") if ".draftplan-" in path.name or path.name == "lock"]


def main(moments, seed, folder):
    """Kill every command at its share of the moments."""
    Sweep.__init__.__defaults__ = (PIECE,)
    draw = random.Random(seed)
    share = -(-moments // len(COMMANDS))
    commands = COMMANDS if moments > 50 else QUICK
    results = {name: killed(commands[name], share, draw, folder / "here") for name in commands}
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
