"""What does not fit says what it lacks, and every way that is named fits by the same rule of memory."""

import re
import shlex

import pytest
from asking import run
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.memory import count_memory
from perfmodel.model import ModelSpec
from perfmodel.planning.fitting import lacking, request_miss, ways_to_fit

ENGINE = EngineOverhead.load("vllm")
MODELS = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-30b-a3b", "deepseek-v3", "falcon-h1-34b", "gemma-3-27b")
ON = st.builds(
    lambda model, hardware, gpus: Deployment(
        HardwareProfile.load(hardware), ModelSpec.load(model), ENGINE, gpus
    ),
    st.sampled_from(MODELS), st.sampled_from(["h100", "l40s", "a100", "b200"]), st.sampled_from([1, 2]),
)  # fmt: skip


def changed(runs, way, batch, context):
    """Return the deployment, batch and context that the flags of a way name."""
    words = shlex.split(way)
    given = dict(zip(words[::2], words[1::2], strict=True))
    model = runs.model.with_dtypes(given.pop("--weight-dtype", None), given.pop("--kv-cache-dtype", None))
    gpus = int(given.pop("--tp", runs.tensor_parallel))
    batch = int(given.pop("--batch-size", batch))
    context = int(given.pop("--context", context))
    assert not given
    return Deployment(runs.hardware, model, runs.engine, gpus), batch, context


@settings(max_examples=60, deadline=None)
@given(ON, st.integers(1, 512), st.integers(1, 2_000_000), st.integers(0, 4000))
def test_every_way_that_is_named_fits_and_only_what_lacks_has_ways(runs, batch, context, output):
    fits = bool(count_memory(runs, batch=batch, context_len=context + output).fits)
    assert bool(lacking(runs, batch, context + output)) is not fits
    if fits:
        return
    for way in ways_to_fit(runs, batch, context, output):
        smaller, sequences, shorter = changed(runs, way, batch, context)
        assert count_memory(smaller, batch=sequences, context_len=shorter + output).fits, way
        assert lacking(smaller, sequences, shorter + output) == ""


@settings(max_examples=30, deadline=None)
@given(ON, st.integers(2, 512), st.integers(1000, 2_000_000))
def test_the_batch_that_is_named_is_the_largest(runs, batch, context):
    ways = ways_to_fit(runs, batch, context) if lacking(runs, batch, context) else []
    for way in ways:
        if way.startswith("--batch-size"):
            fewest = int(way.split()[1])
            assert not count_memory(runs, batch=fewest + 1, context_len=context).fits


@pytest.mark.parametrize(
    ("arguments", "ways"),
    [
        (["plan", "--model", "llama-3.1-8b", "--context", "1M", "-b", "8"], ["--context"]),
        (["plan", "--model", "llama-3.1-70b", "--context", "8k", "-b", "8"], ["--tp 4", "--tp 2 --weight"]),
        (["explain", "--model", "llama-3.1-70b", "--context", "8k", "-b", "8"], ["--tp 4"]),
        (["plan", "--model", "llama-3.1-8b", "--context", "64k", "-b", "8"], ["--tp 2", "--batch-size"]),
        (["simulate", "--synthetic", "qps=1,prompt=900k,output=50,requests=60", "--policy", "none", "--model",
          "llama-3.1-8b"], ["--tp"]),
        (["size", "--model", "llama-3.1-70b", "--tp", "1", "--target-qps", "1", "--context", "8k",
          "--output-tokens", "100", "--ttft", "5s", "--tpot", "50"], ["--tp 2"]),
    ],
)  # fmt: skip
def test_each_command_says_gib_and_what_would_fit(arguments, ways):
    result = run(*arguments, "--gpu" if arguments[0] != "size" else "--hardware", "h100")
    assert result.exit_code == 3
    assert re.search(r"needs [\d.]+ [GT]iB a GPU, 71.3 GiB are usable", result.stderr)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("  fits with ")]
    assert all(way in line for way in ways)
    assert "batch 0" not in result.stderr


def test_a_request_that_fits_alone_lacks_nothing():
    runs = Deployment(HardwareProfile.load("h100"), ModelSpec.load("llama-3.1-8b"), ENGINE, 1)
    assert request_miss(runs, 8000.0) == ""
    assert "--context" not in request_miss(runs, 4e6) and "--batch-size" not in request_miss(runs, 4e6)
