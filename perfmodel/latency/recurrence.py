"""Seconds of a recurrent layer: its states streamed through memory, joined with the arithmetic."""

from __future__ import annotations

import numpy as np

from perfmodel.hardware import HardwareProfile, Numeric

__all__ = ["recurrence"]

VECTOR_SHARE = 1.0 / 16.0
"""Arithmetic outside of matrix units, relative to their dense bf16 rate: fp32 against bf16 tensor FLOPs of
A100 (19.5 of 312) and H100 (67 of 989) data sheets. [1]"""


def recurrence(
    hardware: HardwareProfile,
    *,
    bytes_moved: Numeric,
    flops: Numeric,
    states: Numeric = np.inf,
    tensor_cores: bool = True,
) -> Numeric:
    r"""Seconds of one recurrent layer on one GPU; all arguments broadcast.

    .. math::
        T = t_0 + (memory^4 + compute^4)^{1/4}

    * *memory*: a decode step moves every state in and out, a verification of q tokens in once and out q times
      where the engine keeps them all; they stay on chip between the tokens of one pass.
    * *compute*: a prefill goes chunk by chunk, each after the one before, one thread block for the state of a
      head and sequence: fewer than ``full_at`` of them leave SMs idle.

    Parameters
    ----------
    bytes_moved : states read and written, and what every token brings and takes. [B]
    flops : of all tokens. [FLOP]
    states : sequences times heads on this GPU. [1]
    tensor_cores : whether matrix units do the arithmetic.

    Returns
    -------
    Seconds; never falls with bytes or FLOPs. [s]

    Notes
    -----
    Figures fitted to the gated delta and Kimi delta tables of aiconfigurator-core 0.12.0 (Apache-2.0):
    decode, verification of 2 to 8 tokens, chunked prefill. No table of Mamba, lightning or short-convolution
    kernels is public for several GPUs: they are assumed alike.
    """
    figures = hardware.recurrence
    filled = np.minimum(np.asarray(states, dtype=float) / figures.full_at, 1.0)
    vectors = VECTOR_SHARE * np.asarray(hardware.gemm.compute_fraction)
    share = figures.compute_fraction * filled if tensor_cores else vectors
    rate = share * hardware.peak("bf16")
    memory = np.asarray(bytes_moved, dtype=float) / (figures.memory_fraction * hardware.memory_bandwidth)
    compute = np.asarray(flops, dtype=float) / rate
    joined = np.sqrt(np.sqrt(memory**4 + compute**4))
    return hardware.as_it_runs(figures.t0 + joined, lambda: figures.t0 + memory + compute)
