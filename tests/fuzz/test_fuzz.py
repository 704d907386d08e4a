"""Damaged files, special files and random command lines are answered or refused, never worse."""

import pytest

from fuzz.inputs import judge_file, try_input
from fuzz.judge import Verdict, judged
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
