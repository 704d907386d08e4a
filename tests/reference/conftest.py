"""A tiny decoder for proofs, and torch on one thread. Without torch every module here skips itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from perfmodel.reference.decoder import Decoder

VOCABULARY = 64


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def config(**changes: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 1 << 16,
        "tie_word_embeddings": False,
        **changes,
    }


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Decoder]:
    """Make a tiny decoder in float64 whose attention matters, so that drafts get rejected."""
    import torch

    from perfmodel.reference.architecture import Architecture
    from perfmodel.reference.decoder import Decoder
    from perfmodel.reference.weights import random_weights

    def make(dtype: Any = torch.float64, seed: int = 1, gain: float = 3.0, **changes: Any) -> Decoder:
        architecture = Architecture.from_config(config(**changes))
        return Decoder(
            architecture, random_weights(architecture, seed=seed, dtype=dtype, attention_gain=gain)
        )

    return make


@pytest.fixture(scope="session")
def target(tiny: Callable[..., Decoder]) -> Decoder:
    return tiny()


@pytest.fixture(scope="session")
def draft_model(target: Decoder) -> Decoder:
    """Make another model that mostly agrees: the target's weights, disturbed."""
    import torch

    from perfmodel.reference.decoder import Decoder

    generator = torch.Generator().manual_seed(5)

    def disturbed(matrix: Any) -> Any:
        noise = torch.randn(matrix.shape, generator=generator, dtype=matrix.dtype)
        return matrix + 0.25 * noise * matrix.std()

    weights = target.weights
    layers = tuple(
        replace(
            layer, **{name: disturbed(getattr(layer, name)) for name in ("qkv", "output", "gate_up", "down")}
        )
        for layer in weights.layers
    )
    return Decoder(target.architecture, replace(weights, layers=layers))


@pytest.fixture(scope="session")
def ragged() -> list[list[int]]:
    """Return three prompts of unequal length."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, VOCABULARY, length).tolist() for length in (37, 64, 90)]


@pytest.fixture(scope="session")
def settings() -> Callable[..., dict[str, Any]]:
    """Make the config that `tiny` decoders are built from."""
    return config
