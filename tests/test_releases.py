"""Older releases of a server: which spend more, and on what."""

import numpy as np
import pytest

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.servers.host_loop import host_loop
from perfmodel.evidence.servers.rows import published_servers
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import step_latency
from perfmodel.model import ModelSpec
from perfmodel.software import load
from perfmodel.software.base import Older

H100 = HardwareProfile.load("h100-sxm-80gb")
LLAMA = ModelSpec.load("llama-3.1-8b")
WAITS, PIECES = load("vllm").older


@pytest.mark.parametrize(
    ("release", "holds"),
    [
        ("0.11.0", True), ("v0.12.0", True), ("0.13.0rc2", True), ("0.8", True), ("0.8.3.post1", True),
        ("0.14.0", False), ("0.14", False), ("0.33.1", False), ("1.0", False), ("0.7.3", False),
        ("", False), ("nightly", False),
    ],
)  # fmt: skip
def test_a_release_is_between_two_others(release, holds):
    assert WAITS.holds(release) == holds


def test_what_ended_with_a_release_is_not_in_it():
    assert PIECES.holds("0.10.2")
    assert not PIECES.holds("0.11.0")
    assert not Older("0.8", "0.11", {}, "why", "test").holds("0.11")


@pytest.mark.parametrize("batch", [1, 8, 200])
@pytest.mark.parametrize(("release", "pieces"), [("0.12.0", 0), ("0.8.2", 1)])
def test_a_step_is_longer_by_what_the_release_spends(release, pieces, batch):
    engine = EngineOverhead.load("vllm")
    older = engine.of_release(release, H100)
    now, then = (
        float(step_latency(H100, LLAMA, of, batch=batch, kv_tokens=500.0).total)
        for of in (engine.on(H100), older)
    )
    waits = WAITS.more["forward"] + batch * WAITS.more["row"]
    assert then - now == pytest.approx(waits + pieces * 32 * PIECES.more["layer"], rel=1e-6)
    assert older.label == f"vllm@{release}"
    assert Deployment(H100, LLAMA, older).engine.quantities == older.quantities  # not added twice
    low, high = older.quantities["row"].low, older.quantities["row"].high
    assert low < float(older.row_s) < high
    assert "27614" in older.quantities["row"].source


@pytest.mark.parametrize("release", ["", "0.14.0", "0.33.0", "nightly"])
def test_other_releases_are_priced_as_before(release):
    engine = EngineOverhead.load("vllm")
    served, before = engine.of_release(release, H100), engine.on(H100)
    assert served.quantities == before.quantities
    assert (float(served.row_s), float(served.layer_s)) == (float(before.row_s), float(before.layer_s))
    sglang = EngineOverhead.load("sglang").of_release("0.3.1", H100)
    assert sglang.name == EngineOverhead.load("sglang").on(H100).name


def test_a_release_is_named_behind_the_engine():
    named = EngineOverhead.load("vllm@0.11.0")
    assert named.label == "vllm@0.11.0"
    served = Deployment(H100, LLAMA, named).engine
    assert served.quantities == EngineOverhead.load("vllm").of_release("0.11.0", H100).quantities
    assert served.name == "vllm-h100"
    assert Deployment(H100, LLAMA, EngineOverhead.load("vllm-h100@v0.11.0")).engine.row_s == served.row_s
    more = named.with_values({"memory_utilization": 0.5}, source="test")
    assert float(Deployment(H100, LLAMA, more).engine.memory_utilization) == 0.5


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("vllm@today", "is no release"), ("vllm@", "is no release"), ("sglang@0.5", "nothing is known"),
        ("generic@1", "nothing is known"), ("vlm@0.11", "vllm"), ("@0.11", "called"),
    ],
)  # fmt: skip
def test_a_release_that_cannot_be_is_refused(name, problem):
    with pytest.raises(SpecError, match=problem):
        EngineOverhead.load(name)


def test_a_file_may_have_an_at_sign_in_its_name(tmp_path):
    file = tmp_path / "own@2.yaml"
    file.write_text("name: own@2\nsoftware: vllm\n", encoding="utf-8")
    engine = EngineOverhead.load(file)
    assert (engine.name, engine.release) == ("own@2", "")


@pytest.mark.slow
def test_what_the_host_takes_is_what_published_servers_say():
    """Of ten closed loops of 0.12 that no benchmark is judged by: 0.42 ms a step, 38 us a sequence."""
    np.testing.assert_allclose(
        host_loop(published_servers()), [WAITS.more["forward"], WAITS.more["row"]], rtol=0.02
    )
