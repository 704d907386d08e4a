"""Seconds of the three kernels that a forward pass is made of: a linear layer, attention, an all-reduce."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.hardware import AttentionKernel, HardwareProfile, Numeric
from perfmodel.model.dtypes import BYTES

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
BENCHMARK_COPIES = 6.0
"""Copies of the weights that a kernel benchmark cycles through: what L2 must hold to be warm."""


def linear(
    hardware: HardwareProfile,
    *,
    tokens: Numeric,
    n: Numeric,
    k: Numeric,
    dtype: str = "bf16",
    weight_fraction: Numeric = 1.0,
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
      ``a b + tile_edge (a + b)``, arithmetic and the loading of its edges.
    * With less than one wave the library splits ``k``, down to ``k_split`` times the square root of the
      filled share of the SMs. One of ``fixed_rules`` splits to ``k_split``, and a loop only beyond
      `SPLIT_FROM`, leaves the 32-row tile beyond 32 tokens, and hides more latency (power 2).
    * Hardware without ``overlap`` takes ``t_0`` and its bytes and its multiply-adds in turn, none padded.

    Parameters
    ----------
    tokens, n, k : rows of the activation, output and input features on this GPU. [1]
    dtype : type of the stored weights; a type without tensor cores of its own multiplies in a wider one.
    weight_fraction : bytes of weights read relative to `dtype`. [1]
    cold : True reads all weights from memory, as a decode step does, whose layers flush each other out of L2.
        False is a kernel benchmark, in which small weights stay in L2.

    Returns
    -------
    Seconds; never falls with tokens, never rises with bandwidth or FLOPs. [s]

    Notes
    -----
    The roofline of Williams et al. (2009) with tile and wave quantisation; figures fitted on the vLLM rows of
    the aiconfigurator GEMM tables (NVIDIA, Apache-2.0, CUDA graph, tokens up to 4096).
    """
    gemm = hardware.gemm
    tokens, n, k = (np.asarray(value, dtype=float) for value in (tokens, n, k))
    narrow = dtype in ("fp8", "int8")
    stream = (gemm.narrow_memory_fraction if narrow else gemm.memory_fraction) * hardware.memory_bandwidth
    activation_bytes = 1.0 if narrow else 2.0
    rules = np.asarray(gemm.fixed_rules) > 0.5

    weights = BYTES[dtype] * weight_fraction * n * k
    crowd = np.sqrt(np.minimum(tokens / CROWDED_TOKENS, 1.0)) * weights / (weights + hardware.l2_bytes)
    slowed = stream / (1.0 + gemm.contention * crowd)
    read = 1.0 / slowed  # seconds per byte
    if not cold:
        copies = gemm.l2_fraction * hardware.l2_bytes / (BENCHMARK_COPIES * weights)  # above 1: L2 holds all
        missed = 1.0 / (1.0 + np.minimum(copies, 1e6) ** 16)
        from_cache = np.maximum(slowed, gemm.l2_speedup * hardware.memory_bandwidth)
        read = missed / slowed + (1.0 - missed) / from_cache
    transfer = (weights + activation_bytes * tokens * (k + n)) * read
    filled = np.minimum(np.ceil(n / GEMM_COLUMNS) / hardware.sms, 1.0)
    whole = rules & (k <= SPLIT_FROM * (n / 1024.0) ** 3)
    depth = np.where(whole, k, np.minimum(k, gemm.k_split * np.where(rules, 1.0, np.sqrt(filled))))
    loop = gemm.k_latency * depth * (1.0 - filled)
    added = np.cbrt(transfer * np.sqrt(transfer) + loop * np.sqrt(loop)) ** 2
    memory = np.where(rules, np.sqrt(transfer * transfer + loop * loop), added)

    work = np.full((), np.inf)  # multiply-adds of the busiest SM
    for rows, columns in GEMM_TILES:
        waves = np.ceil(tokens / rows) * np.ceil(n / columns) / hardware.sms
        filled, turns = np.minimum(waves, 1.0), np.maximum(waves, 1.0)
        turns = np.ceil(turns) * (1.0 - gemm.wave_overlap) + turns * gemm.wave_overlap
        split = np.minimum(k, gemm.k_split * np.where(rules, 1.0, np.sqrt(filled)))
        depth = filled * k + (1.0 - filled) * split + GEMM_FILL + (k + GEMM_FILL) * (turns - 1.0)
        cost = depth * (rows * columns + gemm.tile_edge * (rows + columns))
        if rows == 32:
            cost = np.where(rules & (tokens > CROWDED_TOKENS), np.inf, cost)
        work = np.minimum(work, cost)
    rows, columns = GEMM_TILES[0]
    edge_free = rows * columns / (rows * columns + gemm.tile_edge * (rows + columns))
    compute_fraction = gemm.narrow_compute_fraction if narrow else gemm.compute_fraction
    compute = 2.0 * work * edge_free * hardware.sms / (compute_fraction * hardware.peak(dtype))
    memory, compute = memory * memory, compute * compute
    seconds: Numeric = gemm.t0 + np.sqrt(np.sqrt(memory * memory + compute * compute))
    moved = (weights + BYTES[dtype] * tokens * (k + n)) / stream
    worked = 2.0 * tokens * n * k / (compute_fraction * hardware.peak(dtype))
    return _as_it_runs(hardware, seconds, gemm.t0 + moved + worked)


def attention(
    hardware: HardwareProfile,
    *,
    batch: Numeric,
    query_tokens: Numeric = 1.0,
    kv_tokens: Numeric,
    heads: Numeric,
    kv_heads: Numeric,
    head_dim: Numeric,
    kv_dtype: str = "bf16",
    kv_fraction: Numeric = 1.0,
    kernel: str = "vllm",
    cold: bool = False,
) -> Numeric:
    r"""Seconds of one attention layer on one GPU, decode or verification; all arguments broadcast.

    .. math::
        T = t_0 + t_{cta} w + (memory^4 + compute^4)^{1/4}

    A launch runs streams x row tiles thread blocks (CTAs), ``w`` per slot; an SM has ``ctas_per_sm`` slots.

    * A kernel that packs heads: a stream is a (sequence, KV head) and its ``group x query_tokens`` rows share
      tiles. One that does not: a stream is a (sequence, query head) with ``query_tokens`` rows.
    * Rows are padded to ``tile_small``, else ``tile_mid``, else to multiples of ``tile_large``.
    * *compute*: whole waves of CTAs, each walking the KV of its tile at the SM's share of the tensor rate. A
      packed grid of fewer than ``split_below`` waves splits the KV and so fills the slots, down to one
      block of KV per CTA; a grid that may not split keeps only as many SMs busy as it has CTAs.
    * *memory*: the KV once, for all queries; CTAs that share a KV head and do not run together read it again
      where L2 cannot hold it; queries and outputs cross memory ``row_passes`` times.
    * Hardware without ``overlap`` reads the KV once for every ``tile_large`` rows and then computes.

    The result is held between one and ``query_tokens`` decode steps of the same batch.

    Parameters
    ----------
    batch, query_tokens, kv_tokens : sequences, queries of each (gamma + 1 in verification), entries that each
        may read. [1], [tokens], [tokens]
    heads, kv_heads, head_dim : on this GPU, after tensor parallelism. [1]
    kv_fraction : bytes of an entry relative to `kv_dtype`. [1]
    kernel : attention kernel of the hardware profile; its first one where it has none of that name.
    cold : True finds none of the KV in L2, as inside a model; False is a repeated kernel benchmark.

    Returns
    -------
    Seconds; never falls with batch, query_tokens or kv_tokens. [s]

    Notes
    -----
    FlashAttention-2 packs heads and splits KV for single queries of grouped heads only; FlashInfer has tiles
    of 16, 64 and 128 rows. Figures fitted on aiconfigurator (Apache-2.0), Frontier and LLMServingSim (MIT)
    kernel tables and on the step times of MagicDec (arXiv 2408.11049).
    """
    figures = hardware.attention_kernel(kernel)
    group = np.asarray(heads) / kv_heads
    packs = np.asarray(figures.packs) > 0.5
    narrow = figures.narrow_memory_fraction if BYTES[kv_dtype] < 2 else figures.memory_fraction
    slots = hardware.sms * figures.ctas_per_sm
    blocks = np.maximum(np.ceil(np.asarray(kv_tokens) / figures.kv_block), 1.0)
    rate_of_dtype = figures.compute_fraction * hardware.peak(kv_dtype)
    rate_of_slot = figures.compute_fraction * hardware.peak("bf16") / slots
    row_of_walk = blocks * (4.0 * figures.kv_block * head_dim / rate_of_slot)  # seconds per row of a tile
    kv_of_head = (2.0 * BYTES[kv_dtype]) * head_dim * kv_fraction * batch * kv_tokens
    missed_again = np.clip(kv_of_head / hardware.l2_bytes - 0.5, 0.0, 1.0)
    kv = whole_kv = kv_of_head * kv_heads
    if not cold:
        resident = np.clip(1.5 - kv / hardware.l2_bytes, 0.0, 1.0)
        kv = kv * (1.0 - resident * (1.0 - 1.0 / figures.l2_speedup))
    row_bytes = figures.row_passes * 4.0 * batch * heads * head_dim
    stream = narrow * hardware.memory_bandwidth

    def launch(rows_per_head: Numeric, packed: NDArray[np.bool_]) -> Numeric:
        shared = np.where(packed, group, 1.0)
        rows = rows_per_head * shared
        tile = _tile(figures, rows)
        copies = np.ceil(rows / tile) * (group / shared)  # CTAs that read the same KV
        waves = batch * kv_heads * copies / slots
        split = packed & (waves < figures.split_below)
        walked = np.where(split, np.maximum(waves, 1.0 / blocks), np.ceil(waves))
        compute = walked * (tile + figures.tile_overhead) * row_of_walk
        passes = np.clip(batch * copies / slots, 1.0, copies)
        memory = (kv * (1.0 + (passes - 1.0) * missed_again) + row_bytes * rows_per_head) / stream
        compute, memory = compute * compute, memory * memory
        seconds = figures.t0 + figures.cta * waves + np.sqrt(np.sqrt(compute**2 + memory**2))
        together = rows_per_head * group
        moved = whole_kv * np.ceil(together / figures.tile_large) / stream
        worked = kv_heads * together * (4.0 * head_dim * batch * kv_tokens) / rate_of_dtype
        return _as_it_runs(hardware, seconds, figures.t0 + moved + worked)

    decode = launch(1.0, packs | (group > 1.0))
    if np.ndim(query_tokens) == 0 and float(query_tokens) == 1.0:
        return decode
    together = launch(query_tokens, packs | ((group > 1.0) & (np.asarray(query_tokens) == 1.0)))
    held: Numeric = np.clip(together, decode, query_tokens * decode)
    return held


def all_reduce(
    hardware: HardwareProfile, *, bytes: Numeric, gpus: Numeric, implementation: str = "custom-graph"
) -> Numeric:
    """Seconds of one all-reduce of `bytes` per GPU over `gpus` GPUs of one node; exactly 0 for one GPU.

    Between two message sizes of the profile's table the time is one alpha-beta line, flat below the first and
    going on beyond the last; between GPU counts log time is linear in log2(gpus), beyond the last it grows as
    ``gpus ** growth``. All arguments broadcast. [B], [GPUs] -> [s]

    Notes
    -----
    Tables fitted to aiconfigurator-core 0.12.0 (Apache-2.0). Lines in bytes predict held-out sizes better
    than lines in log-log (7.1 against 8.6 % mean absolute log error).
    """
    table = hardware.all_reduce_table(implementation)
    sizes, counts = table.latency.sizes, table.latency.gpus
    seconds = _beside(table.latency.seconds, np.ndim(table.scale))
    rise = np.diff(seconds, axis=-1) / np.diff(sizes)
    slope = np.concatenate([rise, rise[..., -1:]], axis=-1)
    length = np.append(np.diff(sizes), np.inf)
    covered = np.clip(np.asarray(bytes, dtype=float)[..., None] - sizes, 0.0, length)
    log_time = np.log(seconds[..., 0] + (slope @ covered[..., None])[..., 0])  # (..., GPU counts)

    count = np.asarray(gpus, dtype=float)
    octave, known = np.log2(np.maximum(count, 1.0)), np.log2(counts)
    share = np.clip((octave[..., None] - known[:-1]) / np.diff(known), 0.0, 1.0)
    between = log_time[..., 0] + (np.diff(log_time, axis=-1) * share).sum(-1)
    beyond = np.maximum(octave - known[-1], 0.0) * np.log(2.0) * table.growth
    total: Numeric = table.scale * np.exp(between + beyond) * (count > 1.0)
    return total


def _beside(seconds: NDArray[np.float64], axes: int) -> NDArray[np.float64]:
    """Stacked tables (hardware, GPUs, sizes) with the axes between that the figures beside them have."""
    hardware, grid = seconds.shape[:-2], seconds.shape[-2:]
    return seconds.reshape(*hardware, *(1,) * (axes - len(hardware)), *grid)


def _as_it_runs(hardware: HardwareProfile, overlapped: Numeric, in_turn: Numeric) -> Numeric:
    """Seconds where memory and arithmetic overlap, or of both in turn where the hardware has no overlap."""
    seconds: Numeric = np.where(np.asarray(hardware.overlap) < 0.5, in_turn, overlapped)
    return seconds


def _tile(figures: AttentionKernel, rows: Numeric) -> Numeric:
    """Tile height that `rows` query rows are padded to. [rows]"""
    larger = np.where(rows <= figures.tile_mid, figures.tile_mid, figures.tile_large)
    return np.where(rows <= figures.tile_small, figures.tile_small, larger)
