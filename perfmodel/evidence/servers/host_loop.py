"""What a step takes of a server's host that schedules it only when the last one has ended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perfmodel.evidence.servers.fit import fit_servers
from perfmodel.evidence.servers.presets import preset_of
from perfmodel.evidence.servers.price import possible_rows, price_servers
from perfmodel.evidence.servers.rows import ServerRow

__all__ = ["host_loop"]

SOFTWARE, FAMILY = "vllm", "hopper"
WAITED = "vllm 0.12.0"
"""Rows of servers whose scheduler waits; the last release of which there are some."""
LEFT_OUT = "gpustack"
"""Whose servers waited too, and whose benchmarks engines of older releases are judged by."""


def host_loop(rows: Sequence[ServerRow]) -> tuple[float, float]:
    r"""Fit what steps took beyond those of an engine whose scheduler runs ahead. [s], [s]

    .. math::
        TPOT - TPOT_{ahead} = h + h_b\,b

    h of a step and h_b of each of its b sequences, by least squares of relative errors. The engine is fitted
    to the servers that are left: those of releases that run ahead, and some of an unknown release.

    Parameters
    ----------
    rows : published servers.
    """
    some = [row for row in rows if row.group.engine.name == SOFTWARE and LEFT_OUT not in row.source]
    possible = possible_rows(rows)
    believed = {id(row) for row, is_possible in zip(rows, possible, strict=True) if is_possible}
    waited = [row for row in some if WAITED in row.source and id(row) in believed]
    ahead = fit_servers(row for row in some if WAITED not in row.source)
    engine = preset_of(SOFTWARE, FAMILY, ahead[SOFTWARE, FAMILY])
    seconds = np.array([row.seconds for row in waited])
    longer = seconds - price_servers(waited, lambda *_: engine).seconds
    terms = np.stack([np.ones(len(waited)), np.array([row.batch for row in waited], dtype=float)], axis=1)
    (step, sequence), *_ = np.linalg.lstsq(terms / seconds[:, None], longer / seconds, rcond=None)
    return float(step), float(sequence)
