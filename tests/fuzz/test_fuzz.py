"""Damaged files, special files and random command lines are answered or refused, never worse."""

import time

import numpy as np
import pytest

from fuzz import judge
from fuzz.command_lines import BASES, FILES
from fuzz.inputs import judge_file, try_input
from fuzz.judge import Verdict, _raw, judged, judged_command
from fuzz.many import try_many
from fuzz.readers import READERS
from fuzz.seeds import NAME, seeds
from perfmodel.errors import SpecError

PART = 100


@pytest.mark.parametrize("kind", seeds())
def test_what_damage_begins_with_is_read(kind, tmp_path):
    for content in seeds()[kind]:
        path = tmp_path / f"{NAME}{READERS[kind].ending}"
        path.write_bytes(content)
        assert judge_file(kind, path, asked=False) == Verdict("answered")


@pytest.mark.parametrize("words", [*[(name,) for name in BASES], *FILES], ids=" ".join)
def test_what_random_flags_are_added_to_is_answered(words, tmp_path):
    arguments = [*words, *BASES.get(words[0], ())]
    if words in FILES:
        kind, *more = FILES[words]
        path = tmp_path / f"{NAME}{READERS[kind].ending}"
        path.write_bytes(seeds()[kind][0])
        arguments += [str(path), *more]
    if words == ("sweep",):
        arguments += ["-o", str(tmp_path / "sweep.csv")]
    assert judged_command(arguments, (), lambda _: "") == Verdict("answered")


@pytest.mark.parametrize("part", range(15))
def test_no_input_breaks_the_tool(part, tmp_path):
    tried = [try_input(0, number, tmp_path / "one") for number in range(PART * part, PART * (part + 1))]
    faults = [f"{one.number} {one.kind}: {one.what}: {one.verdict}" for one in tried if one.verdict.is_fault]
    assert not faults, "\n".join(faults)
    outcomes = {one.verdict.outcome for one in tried}
    assert outcomes == {"answered", "refused"}


@pytest.mark.slow
def test_twenty_thousand_inputs():
    faults = [one for one in try_many(20_000, seed=1, jobs=2) if Verdict(one.outcome).is_fault]
    assert not faults, faults[:20]


def test_the_judge_tells_each_fault():
    def read(value):
        if isinstance(value, BaseException):
            raise value
        return value

    def verdict(value, sound=""):
        return judged(lambda: read(value), ("file",), lambda _: sound).outcome

    assert verdict(1) == "answered"
    assert verdict(1, "no such number") == "nonsense"
    assert verdict(KeyError("x")) == "traceback"
    assert verdict(SpecError.single("file", "", "is wrong")) == "refused"
    assert verdict(SpecError.single("", "", "is wrong")) == "unclear"
    assert verdict(SpecError([])) == "unclear"
    assert verdict(SpecError.single("file", "", "a" * 30_000)) == "unclear"
    assert _raw("a\x1b[2J") and _raw("a\u202eb") and not _raw("a: b\n")


def test_the_judge_sees_memory_each_time_and_whoever_does_not_answer(monkeypatch):
    for _ in range(2):
        large = judged(lambda: np.ones(75_000_000).sum(), ("file",), lambda _: "")
        assert large.outcome == "memory"
    monkeypatch.setattr(judge, "LONGEST_S", 0.2)
    assert judged(lambda: time.sleep(5), ("file",), lambda _: "").outcome == "hang"
