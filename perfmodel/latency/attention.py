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
    cache = (entries, kv_tokens, kv_heads, from_memory, hardware.l2_bytes, stream, 1.0 / blocks, row_of_walk)

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

        def in_turn() -> Numeric:
            all_rows = rows_per_head * group
            moved = entries * kv_tokens * kv_heads * np.ceil(all_rows / figures.tile_large) / stream
            worked = kv_heads * all_rows * (2.0 * widths * batch * kv_tokens) / rate_of_dtype
            seconds: Numeric = figures.t0 + moved + worked
            return seconds

        return (
            walked, np.multiply(split, 1.0), tile + figures.tile_overhead, again, row_bytes * rows_per_head,
            figures.t0 + figures.cta * waves, hardware.as_it_runs(0.0, in_turn),
        )  # fmt: skip

    step = launch(1.0, packs | (group > 1.0))
    if np.ndim(query_tokens) == 0 and float(query_tokens) == 1.0:
        return _launch_s(*cache, *step)
    together = launch(query_tokens, packs | ((group > 1.0) & (np.asarray(query_tokens) == 1.0)))
    most_steps = np.where(splits_verification, query_tokens, np.inf)
    return _verification_s(most_steps, *cache, *step, *together)


@compiled
def _launch_s(
    entries: Numeric, kv_tokens: Numeric, kv_heads: Numeric, from_memory: Numeric, l2_bytes: Numeric,
    stream: Numeric, least_waves: Numeric, row_of_walk: Numeric, waves: Numeric, splits: Numeric,
    tile_rows: Numeric, again: Numeric, row_bytes: Numeric, fixed_s: Numeric, in_turn_s: Numeric,
) -> Numeric:  # fmt: skip
    """Return the seconds of one launch; those of hardware that overlaps nothing are given. [s]

    Parameters
    ----------
    entries, kv_tokens, kv_heads : bytes of one in all sequences, how many, for how many heads. [B], [1], [1]
    from_memory, l2_bytes, stream : share not met in L2, its size, and the rate of memory. [1], [B], [B/s]
    least_waves, row_of_walk : what a split KV leaves at least, seconds in which a row walks it. [waves], [s]
    waves, splits, tile_rows : that are walked, 1 where the KV is split, rows of a tile. [waves], [1], [rows]
    again, row_bytes : times that the KV is read anew where L2 cannot hold it; queries, outputs. [1], [B]
    fixed_s, in_turn_s : seconds beside both; seconds without overlap, 0 with it. [s]
    """
    kv_of_head = entries * kv_tokens
    missed_again = np.minimum(np.maximum(kv_of_head / l2_bytes - 0.5, 0.0), 1.0)
    compute = np.maximum(waves, splits * least_waves) * tile_rows * row_of_walk
    memory = (kv_of_head * kv_heads * from_memory * (1.0 + again * missed_again) + row_bytes) / stream
    compute *= compute
    memory *= memory
    compute *= compute
    memory *= memory
    overlapped = fixed_s + np.sqrt(np.sqrt(compute + memory))
    return np.maximum(overlapped * (in_turn_s == 0.0), in_turn_s)


@compiled
def _verification_s(most_steps: Numeric, *terms: Numeric) -> Numeric:
    """Return the seconds of a verification, held between one decode step and so many. [s]

    Parameters
    ----------
    most_steps : steps that it takes at most. [1]
    terms : as in `_launch_s`: 8 of the cache, 7 of the decode step, 7 of the verification.
    """
    step_s, together_s = _launch_s(*terms[:15]), _launch_s(*(terms[:8] + terms[15:]))
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
