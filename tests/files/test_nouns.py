"""What is read without a schema is what the schema takes, and nothing else."""

from collections import Counter
from pathlib import Path

import pytest

import hardware_profiles
import perfmodel
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.files.checking import check
from perfmodel.files.document import read_yaml
from perfmodel.files.nouns import _fields, noun_from
from perfmodel.files.schema import schema_of
from perfmodel.hardware import HardwareProfile

HARDWARE = sorted(Path(hardware_profiles.__path__[0]).glob("*.yaml"))
ENGINES = sorted((Path(perfmodel.__file__).parent / "data" / "engines").glob("*.yaml"))
FILES = [(HardwareProfile, file) for file in HARDWARE] + [(EngineOverhead, file) for file in ENGINES]
RICH = [(HardwareProfile, "h100-sxm-80gb"), (EngineOverhead, "vllm"), (EngineOverhead, "generic")]
ODD = (
    None, True, 0, -1, 1.5, "", "x", "3 GB/s", "1e400 s", "measured", "x" * 2001, [], ["x"], [1], {}, {"x": 1}
)  # fmt: skip


def takes(read) -> bool:
    try:
        read()
    except SpecError:
        return False
    return True


def alterations(data, here=None):
    """Yield while one place of nested data is altered, left out, or holds one key more."""
    here = data if here is None else here
    if isinstance(here, dict):
        here["Odd key"] = {}
        yield
        del here["Odd key"]
    for key in list(here) if isinstance(here, dict) else range(min(len(here), 1)):
        kept = dict(here) if isinstance(here, dict) else list(here)
        for odd in ODD:
            here[key] = odd
            yield
        del here[key]
        yield
        here.clear()
        here.update(kept) if isinstance(here, dict) else here.extend(kept)
        if isinstance(here[key], (dict, list)):
            yield from alterations(data, here[key])


@pytest.mark.parametrize(("noun", "name"), RICH, ids=[name for _, name in RICH])
def test_what_is_read_without_a_schema_is_what_the_schema_takes(noun, name):
    (file,) = [file for kind, file in FILES if kind is noun and file.stem == name]
    document = read_yaml(file)
    schema, unaltered = schema_of(noun), repr(document.data)
    taken = Counter()
    for number, _ in enumerate(alterations(document.data)):
        if number % 11 == 0:
            directly = takes(lambda: _fields(noun, document.data, "", {}))
            assert directly == takes(lambda: check(schema, document)), document.data
            taken[directly] += 1
    assert min(taken.values()) > 5
    assert repr(document.data) == unaltered


def test_a_bundled_file_needs_no_schema(monkeypatch):
    monkeypatch.setattr("perfmodel.files.checking.check", None)
    for noun, file in FILES:
        assert noun_from(noun, read_yaml(file)).name == file.stem
