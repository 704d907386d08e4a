"""Tiny decoders of every token mixer, for proofs: windows, chunks and choices bite within tens of tokens."""

from __future__ import annotations

from dataclasses import replace

import torch

from perfmodel.reference.architecture import Architecture
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.mixers.chunked import Chunked
from perfmodel.reference.mixers.full_attention import FullAttention
from perfmodel.reference.mixers.gated_delta import GatedDelta
from perfmodel.reference.mixers.kimi_delta import KimiDelta
from perfmodel.reference.mixers.latent import Latent
from perfmodel.reference.mixers.latent_index import LatentIndex
from perfmodel.reference.mixers.lightning import Lightning
from perfmodel.reference.mixers.mamba1 import Mamba1
from perfmodel.reference.mixers.mamba2 import Mamba2
from perfmodel.reference.mixers.short_convolution import ShortConvolution
from perfmodel.reference.mixers.sliding_window import SlidingWindow
from perfmodel.reference.weights import random_weights

FULL = FullAttention(4, 2, 8, 8)
WIDE = FullAttention(2, 1, 16, value_dim=12)
WINDOW = SlidingWindow(4, 2, 8, 8, window=12)
CHUNK = Chunked(4, 2, 8, 8, chunk=16)
DELTA = GatedDelta(heads=4, value_dim=6, key_heads=2, key_dim=8)
KIMI = KimiDelta(3, 8, 3)
LATENT = Latent(4, 12, 4, 8, 6, q_rank=16)
SPARSE = LatentIndex(4, 12, 4, 8, 6, q_rank=16, index_heads=3, index_dim=8, top_k=10)
MAMBA = Mamba2(4, 8, 2, 6, 4)
LIGHTNING = Lightning(4, 8)
SELECTIVE = Mamba1(24, 6, 4)
CONVOLUTION = ShortConvolution(24, 3)

MODELS = {
    "window": (WINDOW, FULL, WINDOW, FULL),
    "chunk": (CHUNK, CHUNK, CHUNK, FULL),
    "shared": (WINDOW, WIDE, replace(WINDOW, owns_cache=False), replace(WIDE, owns_cache=False)),
    "gated_delta": (DELTA, DELTA, DELTA, FULL),
    "latent": (LATENT, LATENT, LATENT, replace(LATENT, q_rank=0)),
    "latent_index": (LATENT, SPARSE, SPARSE, SPARSE),
    "kimi_delta": (KIMI, KIMI, KIMI, LATENT),
    "mamba2": (MAMBA, FULL, MAMBA, MAMBA),
    "lightning": (LIGHTNING, LIGHTNING, LIGHTNING, FULL),
    "mamba1": (SELECTIVE, SELECTIVE, FULL),
    "short_convolution": (CONVOLUTION, CONVOLUTION, FULL, CONVOLUTION),
    "all": (WINDOW, DELTA, WIDE, SPARSE, CHUNK, MAMBA),
}
"""Decoders that have a layer whose cache grows."""
BOUNDED = {"windows only": (WINDOW, CHUNK, WINDOW), "states only": (DELTA, MAMBA, DELTA)}
"""Decoders that have none."""
MIXERS = {type(mixer).__name__: mixer for mixer in (
    FULL, WINDOW, CHUNK, DELTA, KIMI, LATENT, SPARSE, MAMBA, LIGHTNING, SELECTIVE,
    CONVOLUTION,
)}  # fmt: skip
"""One of every mixer."""
RECURRENT = {name: mixer for name, mixer in MIXERS.items() if mixer.state_shapes}


def architecture_of(mixers, **changes):
    config = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": len(mixers),
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64,
        "max_position_embeddings": 1 << 16, "tie_word_embeddings": False, **changes,
    }  # fmt: skip
    return replace(Architecture.from_config(config), mixers=tuple(mixers))


def decoder_of(mixers, seed=1, gain=3.0, dtype=torch.float64):
    architecture = architecture_of(mixers)
    return Decoder(architecture, random_weights(architecture, seed=seed, dtype=dtype, attention_gain=gain))


def with_mixers(decoder, mixers):
    """Return the same weights under other mixers, which must have the same shapes."""
    return Decoder(replace(decoder.architecture, mixers=tuple(mixers)), decoder.weights)


def disturbed(decoder, share=0.25, seed=5):
    """Return another model that mostly agrees: the decoder's weights and some noise."""
    generator = torch.Generator().manual_seed(seed)

    def noisy(part):
        if not isinstance(part, torch.Tensor) or part.dim() != 2:
            return part
        noise = torch.randn(part.shape, generator=generator, dtype=part.dtype)
        return part + share * noise * part.std()

    layers = tuple(
        replace(
            layer,
            extra={name: noisy(part) for name, part in layer.extra.items()},
            **{name: noisy(getattr(layer, name)) for name in ("qkv", "output", "gate_up", "down")},
        )
        for layer in decoder.weights.layers
    )
    return Decoder(decoder.architecture, replace(decoder.weights, layers=layers))
