"""Seconds of attention over a KV cache: one decode step, or the verification of many tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.compiled import compiled
from perfmodel.hardware import AttentionKernel, HardwareProfile, Numeric
from perfmodel.model.dtypes import BYTES

__all__ = ["attention"]

EDGE = 0.15
"""Share of a wave over which the next whole one is counted by and by; any measured one is larger. [waves]"""
ACCUMULATORS = 32768.0
"""Outputs of a tile that the registers of an SM hold: half of its 65,536 words. [elements]"""


def attention(
    hardware: HardwareProfile,
    *,
    batch: Numeric,
    query_tokens: Numeric = 1.0,
    kv_tokens: Numeric,
    heads: Numeric,
    kv_heads: Numeric,
    head_dim: Numeric,
    value_dim: Numeric | None = None,
    entry_elements: Numeric | None = None,
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
      tiles. One that does not: a stream is a (sequence, query head) with ``query_tokens`` rows. One of
      ``packs`` 2 packs heads, and splits the KV for single queries only.
    * Rows are padded to ``tile_small``, else ``tile_mid``, else multiples of ``tile_large``. Registers hold
      `ACCUMULATORS` outputs, 64 rows of latent attention: a larger tile runs as several side by side.
    * *compute*: whole waves of CTAs, each walking the KV of its tile at the slot's share of the tensor rate,
      or at all of its SM's while it is alone there. A packed grid of fewer than ``split_below`` waves splits
      the KV and so fills the slots, down to one block of KV per CTA; a grid that may not split keeps only as
      many SMs busy as it has CTAs.
    * *memory*: the KV once, for all queries; CTAs that share a KV head and do not run together read it again
      where L2 cannot hold it; queries and outputs cross memory ``row_passes`` times.
    * Hardware without ``overlap`` reads the KV once for every ``tile_large`` rows and then computes.

    The result is at least one decode step of the same batch and, of a kernel that splits the KV for
    verification too, at most ``query_tokens`` of them. One that does not walks the whole KV in each of a few
    CTAs: 27 decode steps were measured for 8 tokens (vllm-project/flash-attention pull request 193).

    Parameters
    ----------
    batch, query_tokens, kv_tokens : sequences, queries of each (gamma + 1 in verification), entries that each
        may read. [1], [tokens], [tokens]
    heads, kv_heads : on this GPU, after tensor parallelism. [1]
    head_dim, value_dim : elements of an entry that a query row multiplies, and that it accumulates; values as
        wide as keys where None. [1]
    entry_elements : elements of an entry that are read per KV head; keys and values where None. Latent
        attention reads one vector for both. [1]
    kv_fraction : bytes of an entry relative to `kv_dtype`. [1]
    kernel : attention kernel of the hardware profile; its first one where it has none of that name.
    cold : True finds none of the KV in L2, as inside a model; False is a repeated kernel benchmark.

    Returns
    -------
    Seconds; never falls with batch, query_tokens or kv_tokens. [s]

    Notes
    -----
    FlashAttention-2 packs heads and splits KV for single queries of grouped heads only; vLLM's Triton kernel
    packs always and splits for single queries only; FlashInfer has tiles of 16, 64 and 128 rows. Lengths are
    equal: with unequal ones the longest makes an unsplit grid longer. Figures fitted on aiconfigurator
    (Apache-2.0), Frontier and LLMServingSim (MIT) kernel tables and on the step times of MagicDec (arXiv
    2408.11049). Tiles by registers: docs/20250422-new-kernel-deep-dive.md of deepseek-ai/FlashMLA.
    """
    figures = hardware.attention_kernel(kernel)
    group = np.asarray(heads) / kv_heads
    value_width = np.asarray(head_dim if value_dim is None else value_dim)
    widths = np.add(head_dim, value_width)
    stored = widths if entry_elements is None else entry_elements
    tallest = ACCUMULATORS / np.maximum(value_width, 1.0)
    packs, splits_verification = np.greater(figures.packs, 0.5), np.equal(figures.packs, 1.0)
    narrow = figures.narrow_memory_fraction if BYTES[kv_dtype] < 2 else figures.memory_fraction
    stream = narrow * hardware.memory_bandwidth
    slots = hardware.sms * figures.ctas_per_sm
    blocks = np.maximum(np.ceil(np.asarray(kv_tokens) / figures.kv_block), 1.0)
    rate_of_dtype = figures.compute_fraction * hardware.peak(kv_dtype)
    rate_of_slot = figures.compute_fraction * hardware.peak("bf16") / slots
    row_of_walk = blocks * (2.0 * figures.kv_block * widths / rate_of_slot)  # seconds per row of a tile
    entries = BYTES[kv_dtype] * stored * kv_fraction * batch  # bytes of one entry in every sequence
    row_bytes = figures.row_passes * 2.0 * batch * heads * widths
    from_memory: Numeric = 1.0
    if not cold:
        resident = np.clip(1.5 - entries * kv_tokens * kv_heads / hardware.l2_bytes, 0.0, 1.0)
        from_memory = 1.0 - resident * (1.0 - 1.0 / figures.l2_speedup)
    cache = (stream, 1.0 / blocks, row_of_walk)

    def launch(rows_per_head: Numeric, packed: NDArray[np.bool_]) -> tuple[Numeric, ...]:
        shared = np.where(packed, group, 1.0)
        rows, apart = rows_per_head * shared, group / shared
        together = _tile_height(figures, rows)
        tile = np.minimum(together, tallest)
        copies = np.ceil(rows / together) * apart  # CTAs, or groups of them, that read the same KV
        waves = batch * kv_heads * np.ceil(rows / tile) * apart / slots
        may_split = packed & (splits_verification | np.equal(rows_per_head, 1.0))
        split = may_split & (waves < figures.split_below)
        walked = np.where(split, waves, _whole_waves(waves, figures.ctas_per_sm))
        again = np.minimum(np.maximum(batch * copies / slots, 1.0), copies) - 1.0

        reads = np.multiply(kv_heads, from_memory)
        if np.any(again):
            reads = reads * _reads(entries, kv_tokens, hardware.l2_bytes, again)
        return (
            reads, walked, np.multiply(split, 1.0), tile + figures.tile_overhead, row_bytes * rows_per_head,
            figures.t0 + figures.cta * waves,
        )  # fmt: skip

    def in_turn(rows_per_head: Numeric) -> Numeric:
        all_rows = rows_per_head * group
        moved = entries * kv_tokens * kv_heads * np.ceil(all_rows / figures.tile_large) / stream
        worked = kv_heads * all_rows * (2.0 * widths * batch * kv_tokens) / rate_of_dtype
        seconds: Numeric = figures.t0 + moved + worked
        return seconds

    step = launch(1.0, packs | (group > 1.0))
    if np.ndim(query_tokens) == 0 and float(query_tokens) == 1.0:
        seconds = _decode_s(entries, kv_tokens, *cache, *step)
        return hardware.as_it_runs(seconds, lambda: in_turn(1.0))
    together = launch(query_tokens, packs | ((group > 1.0) & (np.asarray(query_tokens) == 1.0)))
    most_steps = np.where(splits_verification, query_tokens, np.inf)
    return hardware.as_it_runs(
        _verification_s(most_steps, entries, kv_tokens, *cache, *step, *together),
        lambda: _held(in_turn(query_tokens), in_turn(1.0), most_steps),
    )


@compiled
def _reads(entries: Numeric, kv_tokens: Numeric, l2_bytes: Numeric, again: Numeric) -> Numeric:
    """Return how often the KV crosses memory: again and again as far as L2 cannot hold that of a head. [1]"""
    missed_again = np.minimum(np.maximum(entries * kv_tokens / l2_bytes - 0.5, 0.0), 1.0)
    return 1.0 + again * missed_again


@compiled
def _decode_s(entries: Numeric, kv_tokens: Numeric, *terms: Numeric) -> Numeric:
    """Return the seconds of a decode step. [s]

    Parameters
    ----------
    entries, kv_tokens : bytes of one in all sequences, and how many. [B], [1]
    terms : as in `_launch_s`, of the cache and of the launch.
    """
    return _launch_s(entries * kv_tokens, *terms)


@compiled
def _verification_s(
    most_steps: Numeric, entries: Numeric, kv_tokens: Numeric, *terms: Numeric
) -> Numeric:
    """Return the seconds of a verification. [s]

    Parameters
    ----------
    most_steps, entries, kv_tokens : as in `_held` and `_decode_s`.
    terms : as in `_launch_s`: 3 of the cache, 6 of the decode step, 6 of the verification.
    """
    kv_of_head = entries * kv_tokens
    step_s = _launch_s(kv_of_head, *terms[:9])
    together_s = _launch_s(kv_of_head, *(terms[:3] + terms[9:]))
    return _held(together_s, step_s, most_steps)


def _launch_s(
    kv_of_head: Numeric, stream: Numeric, least_waves: Numeric, row_of_walk: Numeric, reads: Numeric,
    waves: Numeric, splits: Numeric, tile_rows: Numeric, row_bytes: Numeric, fixed_s: Numeric,
) -> Numeric:  # fmt: skip
    """Return the seconds of one launch that overlaps memory and arithmetic. [s]

    Parameters
    ----------
    kv_of_head, stream : bytes of a KV head in all sequences, and the rate of memory. [B], [B/s]
    least_waves, row_of_walk : what a split KV leaves at least, seconds in which a row walks it. [waves], [s]
    reads : how often those bytes cross memory, for all heads. [1]
    waves, splits, tile_rows : that are walked, 1 where the KV is split, rows of a tile. [waves], [1], [rows]
    row_bytes, fixed_s : queries and outputs, and seconds beside both. [B], [s]
    """
    compute = np.maximum(waves, splits * least_waves) * tile_rows * row_of_walk
    memory = (kv_of_head * reads + row_bytes) / stream
    compute *= compute
    memory *= memory
    compute *= compute
    memory *= memory
    return fixed_s + np.sqrt(np.sqrt(compute + memory))


def _held(together_s: Numeric, step_s: Numeric, most_steps: Numeric) -> Numeric:
    """Return the seconds of a verification, held between one decode step and so many. [s]

    Parameters
    ----------
    together_s, step_s : of all queries in one launch, and of a decode step. [s]
    most_steps : steps that it takes at most. [1]
    """
    return np.minimum(np.maximum(together_s, step_s), most_steps * step_s)


def _whole_waves(waves: Numeric, ctas_per_sm: Numeric) -> Numeric:
    """Return how many waves long an unsplit grid computes: whole ones, with drawn-out edges. [waves]

    A CTA that has its SM to itself runs at the rate of all its slots, so a wave that is not full takes whole
    CTAs per SM. Whole waves are what launches of equal lengths show (docs/verification.md); over the first
    `EDGE` of a wave they rise in proportion, so that no answer hangs on one sequence more or less.
    """
    shares = np.where(np.less_equal(waves, 1.0), ctas_per_sm, 1.0)
    units = np.multiply(waves, shares)
    full = np.floor(units)
    begun = np.minimum((units - full) / EDGE, 1.0)
    lasted: Numeric = np.maximum(full + begun, 1.0) / shares
    return lasted


def _tile_height(figures: AttentionKernel, rows: Numeric) -> Numeric:
    """Return the tile height that `rows` query rows are padded to. [rows]"""
    larger = np.where(rows <= figures.tile_mid, figures.tile_mid, figures.tile_large)
    return np.where(rows <= figures.tile_small, figures.tile_small, larger)
