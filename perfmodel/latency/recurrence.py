"""Seconds of a recurrent layer: its states streamed through memory, joined with the arithmetic."""

from __future__ import annotations

import numpy as np

from perfmodel.hardware import HardwareProfile, Numeric

__all__ = ["recurrence"]

VECTOR_SHARE = 1.0 / 16.0
"""Arithmetic outside of matrix units, relative to their dense bf16 rate: fp32 against bf16 tensor
FLOPs of the data sheets of A100 (19.5 of 312) and H100 (67 of 989). [1]"""


def recurrence(
    hardware: HardwareProfile, *, bytes_moved: Numeric, flops: Numeric, tensor_cores: bool = True
) -> Numeric:
    r"""Seconds of one recurrent layer on one GPU; all arguments broadcast.

    .. math::
        T = t_0 + (memory^4 + compute^4)^{1/4}

    A decode step moves the state in and out, so it runs at the bandwidth that streaming reaches; the states
    stay on chip between the tokens of one pass.

    Parameters
    ----------
    bytes_moved : states read and written, and what every token brings and takes. [B]
    flops : of all tokens. [FLOP]
    tensor_cores : whether matrix units do them.

    Returns
    -------
    Seconds; never falls with bytes or FLOPs. [s]

    Notes
    -----
    Assumed: bandwidth, rate and ``t_0`` are those of the profile's matrix products, as no table of recurrent
    kernels is public for every GPU.
    """
    gemm = hardware.gemm
    share = 1.0 if tensor_cores else VECTOR_SHARE
    memory = np.asarray(bytes_moved, dtype=float) / (gemm.memory_fraction * hardware.memory_bandwidth)
    compute = np.asarray(flops, dtype=float) / (share * gemm.compute_fraction * hardware.peak("bf16"))
    joined = np.sqrt(np.sqrt(memory**4 + compute**4))
    seconds: Numeric = hardware.as_it_runs(gemm.t0 + joined, gemm.t0 + memory + compute)
    return seconds
