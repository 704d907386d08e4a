"""Seconds of what GPUs that share a model exchange, in a node from measured tables and between nodes."""

from __future__ import annotations

import numpy as np

from perfmodel.hardware import HardwareProfile, Numeric

EXCHANGE_FIXED = 45e-6
"""Seconds of one dispatch or combine of few tokens among 8 GPUs: 44 to 67 us in the DeepEP tables of H100 and
H200 (aiconfigurator-core 0.12.0, vLLM 0.24.0). [s]"""
EXCHANGE_SHARE = 0.42
"""Share of the link's peak that large ones reach: 0.38 to 0.47 there. [1]"""
NETWORK_SHARE = 0.94
"""Share of the network's peak that large messages reach: 46 to 48 of 50 GB/s a GPU over 400 Gb/s InfiniBand
(NVIDIA/nccl-tests issue 290). [1]"""

__all__ = ["all_gather", "all_reduce", "all_to_all", "hop", "nodes_of", "over_network"]


def all_reduce(
    hardware: HardwareProfile, *, bytes: Numeric, gpus: Numeric, implementation: str = "custom-graph"
) -> Numeric:
    r"""Seconds of one all-reduce of `bytes` per GPU over `gpus` GPUs; exactly 0 for one GPU.

    Beyond one node it goes in a hierarchy: the GPUs of each node reduce their shares, each share is reduced
    among ``m`` nodes in a tree, up and down, and what comes is gathered in the nodes again. With G GPUs in a
    node and M bytes

    .. math::
        T = T_{node}(M, G) + 2 \lceil \log_2 m \rceil \, latency
            + 2 \frac{m - 1}{m} \frac{M}{G} / (share \cdot network)

    The kernels of engines reach no other node, so NCCL's run within them. In one node, between two message
    sizes of the profile's table the time is one alpha-beta line, flat below the first and going on beyond
    the last; between GPU counts log time is linear in log2(gpus), beyond the last it grows as
    ``gpus ** growth``. All arguments broadcast. [B], [GPUs] -> [s]

    Notes
    -----
    Tables fitted to aiconfigurator-core 0.12.0 (Apache-2.0). Lines in bytes predict held-out sizes better
    than lines in log-log (7.1 against 8.6 % mean absolute log error).
    """
    count = np.asarray(gpus, dtype=float)
    if not np.any(count > 1.0):
        return np.zeros(np.broadcast_shapes(count.shape, np.shape(bytes)))
    nodes = nodes_of(hardware, count)
    if not np.any(nodes > 1.0):
        return _in_node(hardware, bytes=bytes, gpus=count, implementation=implementation)
    nccl = implementation if implementation.startswith("nccl") else "nccl"
    each = count / nodes
    inside = _in_node(hardware, bytes=bytes, gpus=each, implementation=nccl)
    among = _among_nodes(hardware, bytes=np.divide(bytes, each), nodes=nodes)
    alone = _in_node(hardware, bytes=bytes, gpus=count, implementation=implementation)
    seconds: Numeric = np.where(nodes > 1.0, inside + among, alone)
    return seconds


def nodes_of(hardware: HardwareProfile, gpus: Numeric) -> Numeric:
    """Nodes that so many GPUs fill. [1]"""
    nodes: Numeric = np.ceil(np.divide(gpus, hardware.link_gpus))
    return nodes


def _among_nodes(hardware: HardwareProfile, *, bytes: Numeric, nodes: Numeric) -> Numeric:
    """Seconds of an all-reduce of `bytes` among one GPU of each node; 0 for one node. [s]"""
    hops = 2.0 * np.ceil(np.log2(np.maximum(nodes, 1.0)))
    travelling = 2.0 * (1.0 - 1.0 / np.maximum(nodes, 1.0)) * np.asarray(bytes)
    seconds: Numeric = hops * hardware.network_latency + travelling / _network(hardware)
    return seconds


def _network(hardware: HardwareProfile) -> Numeric:
    """Bytes per second that a GPU exchanges with other nodes. [B/s]"""
    return NETWORK_SHARE * hardware.network_bandwidth


def over_network(hardware: HardwareProfile, *, bytes: Numeric) -> Numeric:
    """Seconds until `bytes` of a GPU are on a GPU of another node. [B] -> [s]"""
    seconds: Numeric = hardware.network_latency + np.asarray(bytes) / _network(hardware)
    return seconds


def hop(hardware: HardwareProfile, *, bytes: Numeric, gpus: Numeric, across: Numeric) -> Numeric:
    """Seconds until `bytes` are on each of the `gpus` GPUs of the next stage. [B], [GPUs] -> [s]

    Between nodes every GPU sends a share, which is gathered there. Within one it is a send over the link,
    which moves what an all-reduce of two GPUs moves. All arguments broadcast.

    Parameters
    ----------
    across : whether the next stage is on another node.
    """
    inside = all_reduce(hardware, bytes=bytes, gpus=2.0, implementation="nccl")
    between = over_network(hardware, bytes=np.divide(bytes, gpus))
    between = between + all_gather(hardware, bytes=bytes, gpus=gpus)
    seconds: Numeric = np.where(across, between, inside)
    return seconds


def _in_node(
    hardware: HardwareProfile, *, bytes: Numeric, gpus: Numeric, implementation: str
) -> Numeric:
    """Seconds of one all-reduce within a node, from the profile's table. [s]"""
    table = hardware.all_reduce_table(implementation)
    sizes, counts = table.latency.sizes, table.latency.gpus
    seconds = table.latency.seconds
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


def all_gather(
    hardware: HardwareProfile, *, bytes: Numeric, gpus: Numeric, implementation: str = "nccl"
) -> Numeric:
    """Seconds until each of `gpus` GPUs has all of `bytes`, of which each holds a share; 0 for one GPU.

    All arguments broadcast. [B], [GPUs] -> [s]

    Parameters
    ----------
    implementation : whose all-reduce times of the profile it is taken from.

    Notes
    -----
    A ring moves half of what an all-reduce of that size moves, with the same latency, so it is priced as an
    all-reduce of half the bytes. Beside NCCL's own all-gather times of A100, H100 and H200
    (aiconfigurator-core 0.12.0) the mean error is 8 to 27 %, the bias -4 to +24 %.
    """
    return all_reduce(hardware, bytes=np.asarray(bytes) / 2.0, gpus=gpus, implementation=implementation)


def all_to_all(hardware: HardwareProfile, *, bytes: Numeric, gpus: Numeric) -> Numeric:
    """Seconds until each of `gpus` GPUs has sent `bytes`, a share to each of them; 0 for one GPU.

    A fixed time, and what leaves for other GPUs over a share of the link; what leaves for other nodes takes
    the network instead, one hop away. All arguments broadcast. [B], [GPUs] -> [s]

    Notes
    -----
    Median error beside the first DeepEP kernels on 8 H100 and 8 H200 (tables of vLLM and TensorRT-LLM in
    aiconfigurator-core 0.12.0, each way): 11 to 45 %; DeepEP v2 and 8 B200 take up to four times as long.
    """
    count = np.asarray(gpus, dtype=float)
    nodes = nodes_of(hardware, count)
    leaving = np.multiply(bytes, 1.0 - 1.0 / count) / (EXCHANGE_SHARE * hardware.link_bandwidth)
    if np.any(nodes > 1.0):
        near = np.multiply(bytes, 1.0 / nodes - 1.0 / count) / (EXCHANGE_SHARE * hardware.link_bandwidth)
        far = hardware.network_latency + np.multiply(bytes, 1.0 - 1.0 / nodes) / _network(hardware)
        leaving = np.where(nodes > 1.0, near + far, leaving)
    seconds: Numeric = (EXCHANGE_FIXED + leaving) * (count > 1.0)
    return seconds
