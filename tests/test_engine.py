"""Engines: the time between the kernels, figure by figure with its source."""

import json

import numpy as np
import pytest

from perfmodel.engine import EngineOverhead, json_schema
from perfmodel.errors import SpecError
from perfmodel.hardware import HardwareProfile

NAMES = EngineOverhead.available()

MINE = """\
name: mine
layer: {value: 20 us, low: 10 us, high: 40 us, source: own trace, kind: measured}
all_reduce: nccl
"""


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_bundled_engine_names_the_source_of_every_figure(name):
    engine = EngineOverhead.load(name)
    assert engine.name == name
    assert set(engine.quantities) == set(engine.paths())
    assert all(quantity.source for quantity in engine.quantities.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_bundled_engine_uses_an_all_reduce_that_some_profile_has(name):
    known = {key for each in HardwareProfile.available() for key in HardwareProfile.load(each).all_reduce}
    assert EngineOverhead.load(name).all_reduce in known


def test_the_ideal_engine_costs_nothing():
    ideal = EngineOverhead.load("ideal")
    seconds = {path: quantity.value for path, quantity in ideal.quantities.items() if quantity.unit == "s"}
    assert seconds
    assert set(seconds.values()) == {0.0}
    drawn = ideal.sample(10)
    assert not np.any([drawn.forward_s, drawn.layer_s, drawn.row_layer_s, drawn.round_s])


def test_the_papers_engine_is_slower_on_its_older_hardware():
    old, new = EngineOverhead.load("magicdec-a100"), EngineOverhead.load("magicdec-h100")
    assert old.layer_s > new.layer_s
    assert old.row_layer_s > new.row_layer_s
    assert old.round_s > new.round_s


def test_a_file_of_the_user_is_loaded_and_its_gaps_are_assumed(own_file):
    engine = EngineOverhead.load(own_file)
    assert (engine.layer_s, engine.all_reduce) == (2e-5, "nccl")
    assert any(sentence.startswith("round is not in the file") for sentence in engine.assumed)
    assert engine.quantities["round"].kind == "assumed"


def test_engines_of_the_user_lie_in_the_engines_folder_of_a_profile_folder(own_file, monkeypatch):
    folder = own_file.parent / "engines"
    folder.mkdir()
    own_file.rename(folder / "mine.yaml")
    monkeypatch.setenv("DRAFTPLAN_PROFILES", str(own_file.parent))
    assert EngineOverhead.load("mine").layer_s == 2e-5
    assert "mine" not in HardwareProfile.available()


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("20 us", "20", 2, "without a unit"),
        ("20 us", "20 s", 2, "not plausible"),
        ("layer:", "layers:", 2, "Did you mean 'layer'"),
        ("all_reduce: nccl", "all_reduce: [nccl]", 3, "a text"),
        ("name: mine", "name: other", 1, "the same name"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(own_file, old, new, line, says):
    own_file.write_text(MINE.replace(old, new, 1))
    with pytest.raises(SpecError) as error:
        EngineOverhead.load(own_file)
    assert any(fault.line == line and says in str(fault) for fault in error.value.faults)


def test_an_unknown_engine_is_refused_with_the_nearest():
    with pytest.raises(SpecError) as error:
        EngineOverhead.load("magicdec-h10")
    assert error.value.faults[0].nearest == "magicdec-h100"


def test_engines_are_drawn_and_take_values_as_hardware_does():
    assert EngineOverhead.load("ideal").with_values({"layer": 1e-5}).layer_s == 1e-5
    assert np.shape(EngineOverhead.load("magicdec-a100").sample(9).layer_s) == (9,)


def test_the_json_schema_names_every_key():
    described = json.dumps(json_schema())
    for key in ("forward", "layer", "row_layer", "round", "memory_utilization", "all_reduce"):
        assert f'"{key}"' in described
