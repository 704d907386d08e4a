"""Seconds of a linear layer: streaming its weights, joined with the arithmetic of its tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import as_floats
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.model.dtypes import BYTES

__all__ = ["linear", "pass_over"]

GEMM_TILES = ((128, 256), (128, 128), (64, 128), (64, 64), (32, 64))
"""Output tiles (rows, columns) that a GEMM library picks from, largest first."""
GEMM_FILL = 128.0
"""Prologue and epilogue of one tile, in elements of the reduction."""
GEMM_COLUMNS = 64.0
"""Output columns that one thread block streams when tokens are few."""
CROWDED_TOKENS = 32.0
"""Tokens at which streaming weights is slowed in full, and the most that fixed rules give 32-row tiles."""
SPLIT_FROM = 2800.0
"""Depth of k beyond which fixed rules split it where n is 1024; it grows with n cubed."""
NARROW = ("fp8", "mxfp8", "int8")
"""Dtypes that are multiplied in 8 bits: both operands are."""
BENCHMARK_COPIES = 6.0
"""Copies of the weights that a kernel benchmark cycles through: what L2 must hold to be warm."""


def linear(
    hardware: HardwareProfile,
    *,
    tokens: Numeric,
    n: Numeric,
    k: Numeric,
    products: Numeric = 1.0,
    dtype: str = "bf16",
    weight_fraction: Numeric = 1.0,
    streaming: Numeric = 1.0,
    cold: bool = False,
) -> Numeric:
    r"""Seconds of ``y[tokens, n] = x[tokens, k] W[k, n]`` on one GPU; all arguments broadcast.

    .. math::
        T = t_0 + (memory^4 + compute^4)^{1/4}

    * *memory*: weights and activations over the achieved bandwidth, joined (power 1.5) with the latency of
      the serial loop over ``k``, which shows when ``n`` is too small to give every SM a thread block. Weights
      well beyond L2 stream up to ``1 + contention`` times slower, as the square root of the tokens up to 32.
    * *compute*: the cheapest tile of `GEMM_TILES`. Tokens and ``n`` are padded to whole tiles, which run in
      waves over the SMs, whole ones but for ``wave_overlap``; a tile of a x b costs
      ``a b + tile_edge (a + b)``, arithmetic and the loading of its edges. In serving the clocks settle at
      what the power limit sustains: the arithmetic runs at ``sustained`` times the rate of a short kernel
      timing. Padding draws little power and costs what it did.
    * With less than one wave the library splits ``k``, down to ``k_split`` times the square root of the
      filled share of the SMs. One of ``fixed_rules`` splits to ``k_split``, and a loop only beyond
      `SPLIT_FROM`, leaves the 32-row tile beyond 32 tokens, and hides more latency (power 2).
    * Several ``products`` of one launch fill the SMs together; no tile holds rows or columns of two. An SM
      that goes on to a tile of another matrix streams nothing for ``tile_switch``: narrow experts show it.
    * Hardware without ``overlap`` takes ``t_0`` and its bytes and its multiply-adds in turn, none padded.

    Parameters
    ----------
    tokens, n, k : rows of the activation, output and input features on this GPU. [1]
    products : matrices of this shape, each with so many tokens of its own. [1]
    dtype : type of the stored weights; a type without tensor cores of its own multiplies in a wider one.
    weight_fraction : bytes of weights read relative to `dtype`. [1]
    streaming : rate at which operands stream in an engine's steps over that of kernel timings: launches
        overlap there, and their tails. [1]
    cold : True is a product inside a serving pass: all weights come from memory, as its layers flush each
        other out of L2, and clocks are sustained ones. False is a kernel benchmark, in which small weights
        stay in L2 and clocks are boosted.

    Returns
    -------
    Seconds; never falls with tokens, never rises with bandwidth or FLOPs. [s]

    Notes
    -----
    The roofline of Williams et al. (2009) with tile and wave quantisation; figures fitted on the vLLM rows of
    the aiconfigurator GEMM tables (NVIDIA, Apache-2.0, CUDA graph, tokens up to 4096); ``tile_switch`` on its
    tables of fused experts, beside a fixed time: the same on H100 and H200, in bf16 and fp8.
    """
    gemm = hardware.gemm
    tokens, n, k = as_floats(tokens, n, k)
    narrow = dtype in NARROW
    stream = (gemm.narrow_memory_fraction if narrow else gemm.memory_fraction) * hardware.memory_bandwidth
    stream = stream * streaming
    compute_fraction = gemm.narrow_compute_fraction if narrow else gemm.compute_fraction
    rate = compute_fraction * hardware.peak(dtype)
    clocks = (gemm.narrow_sustained if narrow else gemm.sustained) if cold else 1.0
    rules = np.asarray(gemm.fixed_rules) > 0.5

    weights = BYTES[dtype] * weight_fraction * products * n * k
    activations = (1.0 if narrow else 2.0) * products * tokens * (k + n)
    transfer = (weights + activations) * _seconds_per_byte(
        hardware, stream, tokens=tokens, weights=weights, products=products, cold=cold
    )
    loop = _serial_loop(hardware, n=n, k=k, products=products, rules=rules)
    joined = np.cbrt(transfer * np.sqrt(transfer) + loop * np.sqrt(loop)) ** 2
    memory = np.where(rules, np.sqrt(transfer * transfer + loop * loop), joined)
    switches = np.maximum(np.subtract(products, 1.0), 0.0) * np.ceil(n / GEMM_COLUMNS) / hardware.sms
    memory = memory + gemm.tile_switch * switches
    arithmetic = 2.0 * products * tokens * n * k
    busiest = _busiest_sm(hardware, tokens=tokens, n=n, k=k, products=products, rules=rules)
    compute = (2.0 * busiest * hardware.sms + (1.0 / clocks - 1.0) * arithmetic) / rate
    memory, compute = memory * memory, compute * compute
    seconds: Numeric = gemm.t0 + np.sqrt(np.sqrt(memory * memory + compute * compute))
    moved = (weights + BYTES[dtype] * products * tokens * (k + n)) / stream
    return hardware.as_it_runs(seconds, lambda: gemm.t0 + moved + arithmetic / rate)


def pass_over(hardware: HardwareProfile, *, elements: Numeric) -> Numeric:
    """Seconds in which 2-byte elements cross memory between two products: activation, weighted sum. [s]"""
    stream = hardware.gemm.memory_fraction * hardware.memory_bandwidth
    seconds: Numeric = 2.0 * np.asarray(elements, dtype=float) / stream
    return seconds


def _seconds_per_byte(
    hardware: HardwareProfile,
    stream: Numeric,
    *,
    tokens: Numeric,
    weights: Numeric,
    products: Numeric,
    cold: bool,
) -> Numeric:
    """Return the seconds that a byte takes: crowded weights stream slower, those left in L2 faster. [s/B]"""
    gemm = hardware.gemm
    matrix = weights / np.maximum(products, 1.0)
    crowd = np.sqrt(np.minimum(tokens / CROWDED_TOKENS, 1.0)) * matrix / (matrix + hardware.l2_bytes)
    slowed = stream / (1.0 + gemm.contention * crowd)
    if cold:
        return np.asarray(1.0 / slowed)
    copies = gemm.l2_fraction * hardware.l2_bytes / (BENCHMARK_COPIES * weights)  # above 1: L2 holds all
    missed = 1.0 / (1.0 + np.minimum(copies, 1e6) ** 16)
    from_cache = np.maximum(slowed, gemm.l2_speedup * hardware.memory_bandwidth)
    return np.asarray(missed / slowed + (1.0 - missed) / from_cache)


def _split_depth(
    hardware: HardwareProfile, k: Numeric, filled: Numeric, rules: NDArray[np.bool_]
) -> Numeric:
    """Return the depth of ``k`` that one thread block takes where so much of the SMs is filled. [1]"""
    depth: Numeric = np.minimum(k, hardware.gemm.k_split * np.where(rules, 1.0, np.sqrt(filled)))
    return depth


def _serial_loop(
    hardware: HardwareProfile,
    *,
    n: Numeric,
    k: Numeric,
    products: Numeric,
    rules: NDArray[np.bool_],
) -> Numeric:
    """Return the latency of the loop over ``k`` that too few thread blocks cannot hide. [s]"""
    filled = np.minimum(products * np.ceil(n / GEMM_COLUMNS) / hardware.sms, 1.0)
    whole = rules & (k <= SPLIT_FROM * (products * n / 1024.0) ** 3)
    depth = np.where(whole, k, _split_depth(hardware, k, filled, rules))
    loop: Numeric = hardware.gemm.k_latency * depth * (1.0 - filled)
    return loop


def _busiest_sm(
    hardware: HardwareProfile,
    *,
    tokens: Numeric,
    n: Numeric,
    k: Numeric,
    products: Numeric,
    rules: NDArray[np.bool_],
) -> Numeric:
    """Return the multiply-adds of the busiest SM under the cheapest tile, as if edges cost nothing. [1]"""
    gemm = hardware.gemm
    work = np.full((), np.inf)
    for rows, columns in GEMM_TILES:
        waves = products * np.ceil(tokens / rows) * np.ceil(n / columns) / hardware.sms
        filled, turns = np.minimum(waves, 1.0), np.maximum(waves, 1.0)
        turns = np.ceil(turns) * (1.0 - gemm.wave_overlap) + turns * gemm.wave_overlap
        split = _split_depth(hardware, k, filled, rules)
        depth = filled * k + (1.0 - filled) * split + GEMM_FILL + (k + GEMM_FILL) * (turns - 1.0)
        cost = depth * (rows * columns + gemm.tile_edge * (rows + columns))
        if rows == CROWDED_TOKENS:
            cost = np.where(rules & (tokens > CROWDED_TOKENS), np.inf, cost)
        work = np.minimum(work, cost)
    rows, columns = GEMM_TILES[0]
    return np.asarray(work * (rows * columns / (rows * columns + gemm.tile_edge * (rows + columns))))
