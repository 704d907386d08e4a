"""What is measured by default: a small decoder on a CPU, the layers of a large model on a GPU."""

from __future__ import annotations

from dataclasses import replace

import torch

from perfmodel.errors import SpecError
from perfmodel.reference.architecture import Architecture
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.timing.bench import ShapeGrid
from perfmodel.reference.weights import random_weights

__all__ = ["DTYPES", "bench_decoder", "grid_for"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GPU_MODEL = "llama-3.1-8b"
SHARE = 0.6
"""Share of a GPU's free memory that caches may take. [1]"""
GPU_LAYERS = 4
"""Layers of a large model that are measured: all are alike, and four are more than any cache holds."""

SMALL = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "vocab_size": 512,
    "max_position_embeddings": 1 << 18,
    "tie_word_embeddings": False,
}
"""A decoder whose steps are all cache: 4.1 M parameters, and as much in the cache after a thousand tokens."""

CPU_GRID = ShapeGrid(
    cells=(
        (1, 1024), (1, 4096), (1, 16384), (2, 2048), (2, 8192), (4, 1024), (4, 4096), (4, 16384), (8, 512),
        (8, 2048), (8, 8192),
    ),
    verify=(1, 2, 3, 4, 5, 7, 9),
    queries=tuple(range(1, 13)),
    tokens=(1, 2, 4, 8, 12, 16, 20, 28, 36, 48, 72),
    budgets=(128, 256, 512, 1024, 2048, 4096),
    rounds=(
        (1, 16384, 512, 2), (1, 16384, 1024, 4), (4, 4096, 256, 2), (4, 4096, 1024, 4), (4, 16384, 512, 3),
        (4, 16384, 1024, 4), (4, 16384, 1024, 6), (8, 8192, 512, 3), (8, 8192, 1024, 6),
    ),
    stream=1 << 25,
)  # fmt: skip
"""Contexts up to 16k tokens, batches up to 8: half a gigabyte of cache."""

DEMO_GRID = replace(
    CPU_GRID,
    cells=((1, 4096), (1, 16384), (2, 8192), (4, 1024), (4, 4096), (4, 16384), (8, 2048)),
    verify=(1, 2, 3, 5, 7),
    queries=(1, 2, 3, 5, 7, 9),
    tokens=(1, 4, 8, 12, 20, 28, 36),
    budgets=(128, 512, 1024, 2048),
    rounds=((1, 16384, 512, 2), (4, 4096, 512, 3), (8, 2048, 256, 2)),
)
"""Fewer shapes, for a fit within half a minute."""

GPU_GRID = ShapeGrid(
    cells=(
        (1, 4096), (1, 32768), (4, 8192), (4, 32768), (16, 2048), (16, 8192), (16, 32768), (64, 1024),
        (64, 8192), (128, 4096),
    ),
    verify=(1, 2, 3, 4, 5, 7, 9),
    queries=tuple(range(1, 13)),
    tokens=(1, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024),
    budgets=(256, 512, 1024, 2048, 4096),
    rounds=(
        (1, 32768, 512, 3), (4, 32768, 512, 4), (16, 32768, 512, 3), (16, 32768, 1024, 5), (64, 8192, 512, 3),
        (64, 8192, 1024, 4),
    ),
    stream=1 << 30,
)  # fmt: skip
"""Contexts up to 32k tokens, batches up to 128, as far as the card's memory goes."""


def bench_decoder(
    device: torch.device, *, model: str | None = None, dtype: str | None = None, layers: int | None = None
) -> tuple[Decoder, str]:
    """Return a decoder with random weights to take times of, and the name of its dtype.

    Parameters
    ----------
    device : where it runs.
    model : name, config.json or folder; the small decoder on a CPU and llama-3.1-8b on a GPU where None.
    dtype : fp32 on a CPU and bf16 on a GPU where None.
    layers : layers to build; all of the small decoder, else `GPU_LAYERS` where None.

    Raises
    ------
    SpecError
        Where the model is no Llama-style decoder, or the dtype is none that torch computes in.
    """
    on_gpu = device.type == "cuda"
    name = dtype or ("bf16" if on_gpu else "fp32")
    if name not in DTYPES:
        raise SpecError.single("request", "dtype", f"found {name!r}", f"Use {', '.join(DTYPES)}")
    if wanted := model or (GPU_MODEL if on_gpu else None):
        architecture = Architecture.load(wanted)
        count = min(architecture.layers, GPU_LAYERS)
    else:
        architecture = Architecture.from_config(SMALL, "small decoder")
        count = architecture.layers
    if layers is not None:
        count = layers
        if not 1 <= layers <= architecture.layers:
            raise SpecError.single("request", "layers", f"found {layers}", f"Give 1 to {architecture.layers}")
    spec = architecture.spec.keep_layers(count / architecture.layers)
    mixers = (architecture.attention,) * count
    architecture = replace(architecture, mixers=mixers, spec=spec.with_dtypes(weights=name, kv=name))
    weights = random_weights(architecture, dtype=DTYPES[name], device=device)
    return Decoder(architecture, weights), name


def grid_for(device: torch.device, decoder: Decoder) -> ShapeGrid:
    """Return the shapes to time; on a GPU those whose caches take at most `SHARE` of the free memory."""
    if device.type != "cuda":
        return CPU_GRID
    free, _ = torch.cuda.mem_get_info(device)
    spec = decoder.architecture.spec
    # Every batch size has a cache of its own.
    most = SHARE * free / len({batch for batch, _ in GPU_GRID.cells})
    cells = tuple(cell for cell in GPU_GRID.cells if cell[0] * float(spec.kv_bytes(float(cell[1]))) <= most)
    if not cells:
        problem = "too little memory is free"
        raise SpecError.single("request", "device", problem, "Free some, or use fewer layers")
    longest = dict(sorted(cells))
    rounds = tuple(shape for shape in GPU_GRID.rounds if shape[1] <= longest.get(shape[0], 0))
    return replace(GPU_GRID, cells=cells, rounds=rounds)
