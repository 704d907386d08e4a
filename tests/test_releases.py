"""Older releases of a server: which spend more, and on what."""

import numpy as np
import pytest

from perfmodel.engine import EngineOverhead
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
    assert not Older("0.8", "0.11", {}, "test").holds("0.11")


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
    assert older.label == "vllm"
    assert "27614" in older.quantities["row"].source


@pytest.mark.parametrize("release", ["", "0.14.0", "0.33.0", "nightly"])
def test_other_releases_are_priced_as_before(release):
    engine = EngineOverhead.load("vllm")
    served, before = engine.of_release(release, H100), engine.on(H100)
    assert served.quantities == before.quantities
    assert (float(served.row_s), float(served.layer_s)) == (float(before.row_s), float(before.layer_s))
    sglang = EngineOverhead.load("sglang").of_release("0.3.1", H100)
    assert sglang.name == EngineOverhead.load("sglang").on(H100).name


@pytest.mark.slow
def test_what_the_host_takes_is_what_published_servers_say():
    """Of ten closed loops of 0.12 that no benchmark is judged by: 0.42 ms a step, 38 us a sequence."""
    np.testing.assert_allclose(
        host_loop(published_servers()), [WAITS.more["forward"], WAITS.more["row"]], rtol=0.02
    )
