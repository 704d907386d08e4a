"""Accelerators: what a data sheet promises and what linear layers, attention and all-reduce achieve."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.accelerators import (
    CAPACITY,
    MAKERS,
    MEMORY_BANDWIDTH,
    PEAK_FLOPS,
    not_profiled,
    spelling,
)
from perfmodel.files.catalogue import Catalogue, own_package
from perfmodel.files.numbers import Numeric
from perfmodel.files.quantity import (
    Figure,
    Grid,
    Quantity,
    declared_in,
    figure,
    figures,
    section,
    sections,
    table,
    text,
    texts,
)  # fmt: skip
from perfmodel.files.spec import Spec

__all__ = [
    "AllReduce", "AttentionKernel", "Gemm", "HardwareProfile", "Numeric", "RecurrentKernel", "json_schema",
]  # fmt: skip

DTYPES = ("bf16", "fp16", "fp8", "int8", "fp4", "fp32")
ALL_REDUCE_ALIASES = {
    "vllm_custom_graph": "custom-graph",
    "vllm_custom_eager": "custom-eager",
    "sglang_custom_graph": "sglang-graph",
    "sglang_custom_eager": "sglang-eager",
    "pytorch_symmetric": "pytorch-symmetric",
    "intra-node-comm": "pytorch-symmetric",
}
"""Other spellings of all-reduce implementations, in lower case."""
FLASH_ATTENTION_2 = "flash-attention-2-varlen"
"""What vLLM's kernel is where it packs heads for single queries only: Ampere, Ada and cards of Blackwell."""


@dataclass(frozen=True, kw_only=True)
class Gemm:
    """Fitted figures of linear layers, relative to the data sheet; used in `perfmodel.latency.linear`."""

    t0: Numeric = figure("seconds", 0, 1e-3, "fixed time of one kernel in a CUDA graph", (1.5e-6, 3e-6, 6e-6))
    memory_fraction: Numeric = figure("ratio", 0.05, 1.2, "share of peak bandwidth", (0.65, 0.8, 0.9))
    compute_fraction: Numeric = figure("ratio", 0.05, 1.2, "share of peak FLOPs in waves", (0.5, 0.8, 0.95))
    tile_edge: Numeric = figure("ratio", 0, 1e3, "multiply-adds per element of tile edge", (0.5, 5, 30))
    k_latency: Numeric = figure("seconds", 0, 1e-6, "serial loop, per element of k", (1e-9, 2e-9, 5e-9))
    k_split: Numeric = figure("count", 16, 1e6, "depth of k one block takes alone", (2500, 5000, 12000))
    l2_speedup: Numeric = figure("ratio", 0.5, 20, "rate of weights found in L2 against memory", (1.2, 2, 4))
    l2_fraction: Numeric = figure("ratio", 0.01, 2, "share of L2 that keeps weights", (0.4, 0.6, 1))
    contention: Numeric = figure("ratio", 0, 2, "slow-down of large weights at 32 tokens", (0, 0.02, 0.25))
    tile_switch: Numeric = figure("seconds", 0, 1e-5, "going on to a tile of another matrix", (0, 2e-7, 5e-7))
    wave_overlap: Numeric = figure("ratio", 0, 1, "share of a partial wave not waited for", (0, 0.05, 0.5))
    fixed_rules: Numeric = figure("count", 0, 1, "1: splits and tiles by fixed rules, as on Ada", (0, 0, 0))
    sustained: Numeric = figure("ratio", 0.3, 1, "rate of long runs against short timings", (0.85, 0.93, 1))
    narrow_memory_fraction: Numeric = figure("ratio", 0.05, 1.2, "with 8-bit weights", (0.6, 0.76, 0.9))
    narrow_compute_fraction: Numeric = figure("ratio", 0.05, 1.2, "with 8-bit weights", (0.45, 0.67, 0.85))
    narrow_sustained: Numeric = figure("ratio", 0.3, 1, "with 8-bit weights", (0.9, 0.97, 1))


@dataclass(frozen=True, kw_only=True)
class AttentionKernel:
    """Fitted figures of one attention kernel over a KV cache; used in `perfmodel.latency.attention`."""

    t0: Numeric = figure("seconds", 0, 1e-3, "launch and tail of one call", (1e-5, 1.5e-5, 2.5e-5))
    cta: Numeric = figure("seconds", 0, 1e-4, "overhead of one thread block in its slot", (1e-8, 1e-6, 2e-6))
    memory_fraction: Numeric = figure("ratio", 0.05, 1.2, "share of peak bandwidth", (0.65, 0.8, 0.92))
    narrow_memory_fraction: Numeric = figure("ratio", 0.05, 1.2, "with 8-bit entries", (0.58, 0.75, 0.9))
    compute_fraction: Numeric = figure("ratio", 0.005, 1.2, "share of peak FLOPs", (0.4, 0.6, 0.8))
    row_passes: Numeric = figure("ratio", 0, 100, "times that queries and outputs cross memory", (1, 4, 8))
    packs: Numeric = figure(
        "count", 0, 2, "queries of a KV head share tiles, KV splits; 0 single ones, 2 splits those", (0, 1, 1)
    )
    tile_small: Numeric = figure("count", 1, 1024, "query rows of the smallest tile", (16, 64, 64))
    tile_mid: Numeric = figure("count", 1, 1024, "query rows of the next tile", (64, 64, 64))
    tile_large: Numeric = figure("count", 1, 1024, "query rows of the largest tile", (64, 128, 128))
    tile_overhead: Numeric = figure("count", 0, 1024, "work of a KV block beside its rows", (0, 0, 32))
    ctas_per_sm: Numeric = figure("count", 1, 32, "thread blocks that one SM runs at a time", (1, 1, 2))
    split_below: Numeric = figure("ratio", 0, 100, "waves below which the KV is split", (0.8, 1.6, 1.6))
    kv_block: Numeric = figure("count", 1, 4096, "KV entries of one block", (16, 64, 128))
    l2_speedup: Numeric = figure("ratio", 1, 20, "rate of entries found in L2 against memory", (1, 2, 4))


@dataclass(frozen=True, kw_only=True)
class RecurrentKernel:
    """Fitted figures of the kernels of recurrent layers; used in `perfmodel.latency.recurrence`."""

    t0: Numeric = figure("seconds", 0, 1e-3, "convolution and recurrence, two launches", (4e-6, 5.5e-6, 1e-5))
    memory_fraction: Numeric = figure("ratio", 0.05, 1.2, "share of peak bandwidth", (0.6, 0.78, 0.88))
    compute_fraction: Numeric = figure("ratio", 0.005, 1.2, "share of peak FLOPs", (0.03, 0.06, 0.5))
    full_at: Numeric = figure("count", 1, 1e4, "states (sequences x heads) that fill it", (1, 4, 132))


@dataclass(frozen=True, kw_only=True, eq=False)
class AllReduce:
    """Measured times of one all-reduce implementation by message size and number of GPUs."""

    latency: Grid = table(1e-7, 100.0, "seconds by message size per GPU and number of GPUs")
    scale: Numeric = figure("ratio", 0.05, 20, "factor on every measured time", (0.8, 1.0, 1.3))
    growth: Numeric = figure("ratio", 0, 2, "exponent of GPUs beyond the table", (0.1, 0.5, 1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class HardwareProfile(Spec):
    """One accelerator; with array fields many accelerators or many draws of one. SI units, dense peaks."""

    name: str = text("what the user types; the file is called the same")
    description: str = text("one line for people", "")
    aliases: tuple[str, ...] = texts("other names that mean this profile")
    family: str = text("accelerators of one generation, such as hopper: engines are fitted to them", "")
    memory_capacity: Numeric = figure(
        "bytes", 1e9, CAPACITY.physical, "memory of one GPU", path="memory.capacity"
    )
    memory_bandwidth: Numeric = figure(
        "bytes_per_s", 1e9, MEMORY_BANDWIDTH.physical, "peak memory bandwidth", path="memory.bandwidth"
    )
    l2_bytes: Numeric = figure("bytes", 1e5, 4e9, "last-level cache", (6e6, 40e6, 100e6), path="memory.l2")
    sms: Numeric = figure("count", 1, 4096, "streaming multiprocessors or compute units", (60, 110, 200))
    overlap: Numeric = figure("count", 0, 1, "0: loads and computes in turn, as a CPU core", (1, 1, 1))
    peak_flops: Mapping[str, Numeric] = figures(
        "flops", 1e9, PEAK_FLOPS.physical, "dense peak rate of matrix products", DTYPES,
        required=("bf16",), path="peak",
    )
    link_bandwidth: Numeric = figure(
        "bytes_per_s", 1e8, 1e13, "link, one direction", (16e9, 32e9, 450e9), path="link.bandwidth"
    )
    link_kind: str = text("what the link is, such as NVLink 4 or PCIe 5 x16", "unknown", path="link.kind")
    link_gpus: Numeric = figure(
        "count", 1, 4096, "GPUs that the link joins: those of a node", (8, 8, 8), path="link.gpus"
    )
    network_bandwidth: Numeric = figure(
        "bytes_per_s", 1e7, 1e12, "network between nodes, per GPU, one direction", (3e9, 25e9, 50e9),
        path="network.bandwidth",
    )  # fmt: skip
    network_latency: Numeric = figure(
        "seconds", 0, 0.1, "one hop of a message to another node", (7e-6, 25e-6, 55e-6),
        path="network.latency",
    )  # fmt: skip
    tdp: Numeric = figure("watts", 1, 1e4, "board power", (250, 500, 1000))
    price_per_hour: Numeric = figure("usd_per_hour", 0.01, 1e3, "rent of one GPU", (0.5, 2, 6), path="price")
    gemm: Gemm = section(Gemm)
    attention: Mapping[str, AttentionKernel] = sections(AttentionKernel)
    recurrence: RecurrentKernel = section(RecurrentKernel)
    all_reduce: Mapping[str, AllReduce] = sections(AllReduce)

    @classmethod
    def load(
        cls, name_or_path: str | os.PathLike[str], profiles_path: str | os.PathLike[str] | None = None
    ) -> HardwareProfile:
        """Return the profile that a bundled name, an alias or a path to a YAML file means.

        Further folders of profiles come from `profiles_path` and the environment variable DRAFTPLAN_PROFILES.
        Figures that the file leaves out take generic defaults, listed in `assumed`. Raises SpecError.
        """
        from perfmodel.files.nouns import noun_from

        return noun_from(cls, _catalogue().document(name_or_path, profiles_path))

    @classmethod
    def available(cls, profiles_path: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
        """Return the names of all profiles, sorted."""
        return _catalogue().names(profiles_path)

    def beyond_known(self) -> tuple[str, ...]:
        """Return a sentence for each figure above that of any accelerator with a bundled profile."""
        figures = [
            ("memory.capacity", CAPACITY, self.memory_capacity),
            ("memory.bandwidth", MEMORY_BANDWIDTH, self.memory_bandwidth),
            *((f"peak.{dtype}", PEAK_FLOPS, rate) for dtype, rate in self.peak_flops.items()),
        ]
        sentences = ((path, bound.beyond_known(float(np.max(value)))) for path, bound, value in figures)
        return tuple(f"{path} of {self.name}: {sentence}" for path, sentence in sentences if sentence)

    def peak(self, dtype: str) -> Numeric:
        """Return the dense peak [FLOP/s] at which values of `dtype` are multiplied.

        A dtype without units of its own (fp8 on A100, fp4 on H100, and dtypes of storage only, as int4) is
        converted first and multiplied in bf16, as weight-only kernels do; mxfp8 has those of fp8.
        """
        return self.peak_flops.get("fp8" if dtype == "mxfp8" else dtype, self.peak_flops["bf16"])

    def attention_kernel(self, name: str) -> AttentionKernel:
        """Return the figures of the attention kernel `name`, or of the first one where there is none."""
        return self.attention[self.attention_name(name)]

    def attention_name(self, name: str) -> str:
        """Return how the profile calls the attention kernel `name`; its first one where there is none."""
        vllm = self.attention.get("vllm") if name == FLASH_ATTENTION_2 else None
        if name not in self.attention and vllm is not None and np.all(np.equal(vllm.packs, 0.0)):
            return "vllm"
        return name if name in self.attention else next(iter(self.attention))

    def all_reduce_table(self, implementation: str) -> AllReduce:
        """Return the table of an all-reduce implementation by any spelling; NCCL's where there is none."""
        return self.all_reduce[self.all_reduce_name(implementation)]

    def all_reduce_name(self, implementation: str) -> str:
        """Return the name here of an all-reduce implementation by any spelling; NCCL where there is none."""
        key = implementation.strip().lower()
        name = ALL_REDUCE_ALIASES.get(key, key)
        return name if name in self.all_reduce else "nccl"

    def as_it_runs(self, overlapped: Numeric, in_turn: Callable[[], Numeric]) -> Numeric:
        """Return seconds where memory and arithmetic overlap, or of both in turn without `overlap`. [s]

        Parameters
        ----------
        overlapped : seconds on hardware that overlaps them. [s]
        in_turn : returns those on hardware that does not; asked where there is some. [s]
        """
        one_by_one = np.less(self.overlap, 0.5)
        return np.where(one_by_one, in_turn(), overlapped) if one_by_one.any() else overlapped

    def with_defaults(self) -> HardwareProfile:
        """Return the profile with what nobody gave assumed, an attention kernel and NCCL's all-reduce too."""
        profile = super().with_defaults()
        quantities, assumed = dict(profile.quantities), profile.assumed
        attention, all_reduce = profile.attention, profile.all_reduce
        if "link.gpus" not in self.quantities:
            assumed += (f"link.gpus is not in the file: {profile.link_gpus:g} GPUs to a node are assumed",)
        if not attention:
            attention = {"generic": AttentionKernel()}
            quantities |= {
                f"attention.generic.{declared.path}": declared.assumption()
                for _, declared in declared_in(AttentionKernel)
                if isinstance(declared, Figure)
            }
            assumed += ("attention.generic is not in the profile: generic figures are assumed",)
        if "nccl" not in all_reduce:
            all_reduce = {**all_reduce, "nccl": AllReduce(latency=_ring(profile.link_bandwidth))}
            seconds = all_reduce["nccl"].latency.seconds
            quantities |= {
                f"all_reduce.nccl.{key}": Quantity(value, low, high, unit, _RING, "assumed", given=False)
                for key, value, low, high, unit in (
                    ("latency", seconds, seconds, seconds, "s"), ("scale", 1.0, 0.5, 2.5, ""),
                    ("growth", 0.5, 0.1, 1.0, ""),
                )
            }  # fmt: skip
            assumed += (f"all_reduce.nccl is not in the profile of {profile.name}: {_RING}",)
        assumed += tuple(remark for remark in profile.beyond_known() if remark not in assumed)
        return replace(
            profile, attention=attention, all_reduce=all_reduce, quantities=quantities, assumed=assumed
        )


_RING = "ring all-reduce: 7 us and 1 us a step (NCCL's own constants), traffic at 70 % of the link's peak"


def _ring(link_bandwidth: Numeric) -> Grid:
    """Ring all-reduce: time per step, and 2 (n-1)/n of the message over the link at 70 % of its peak."""
    sizes, gpus = np.exp2(np.arange(10.0, 29.0, 3.0)), np.array([2.0, 4.0, 8.0])
    steps = (2.0 * (gpus - 1.0))[:, None]
    seconds = 7e-6 + 1e-6 * steps + steps / gpus[:, None] * sizes / (0.7 * float(link_bandwidth))
    return Grid(sizes, gpus, seconds)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a hardware profile, for editors that complete and check YAML."""
    from perfmodel.files import schema

    return schema.json_schema(HardwareProfile)


@lru_cache(maxsize=1)
def _catalogue() -> Catalogue:
    package = own_package("hardware_profiles")
    folder = Path(next(iter(package.__path__))).resolve()
    return Catalogue("hardware profile", folder, spelling=spelling, unknown=not_profiled, makers=MAKERS)
