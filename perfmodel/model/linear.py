"""One matrix product of a forward pass: its shape, how it is split over GPUs and how it is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from perfmodel.files.numbers import Numeric
from perfmodel.model.dtypes import BYTES, UNQUANTIZED
from perfmodel.model.routing import busiest_experts, busiest_visits, experts_held

__all__ = ["Block", "LinearLayer", "Occasion", "Split"]

Split: TypeAlias = Literal["column", "row", "none"]
Block: TypeAlias = Literal["attention", "recurrent", "mlp", "experts", "output"]
Occasion: TypeAlias = Literal["pass", "logits", "round", "draft"]


@dataclass(frozen=True)
class LinearLayer:
    """One matrix product ``[tokens, k] x [k, n]`` that occurs `count` times per forward pass.

    Parameters
    ----------
    n, k : output and input width without tensor parallelism; of one expert where there are experts.
    split : tensor parallelism divides `n` (``column``), `k` (``row``, followed by an all-reduce) or nothing.
    experts, experts_per_token : how many matrices of this shape a layer holds and how many each token visits;
        0 for a dense layer.
    dtype : key of `BYTES` in which the matrix is stored; it decides the arithmetic.
    element_bytes : stored bytes per element, scales and zero points included; those of `dtype` where 0. [B]
    block : the part of the model it belongs to.
    vectors : norm and bias elements that go with each matrix; they stay unquantised.
    kv_columns, kv_heads : of a fused query-key-value product, how many of the `n` columns are keys and
        values, and of how many heads; GPUs beyond that number hold copies.
    keeps_precision : stays unquantised when the model is quantised.
    modules : names of the matrix in checkpoints, below its layer.
    occasion : when it runs: in every ``pass`` for all of its tokens, for those whose ``logits`` are computed,
        in the first draft pass of a ``round``, or once for every ``draft``, one after the other.
    """

    name: str
    n: int
    k: int
    count: int
    split: Split
    experts: int = 0
    experts_per_token: float = 0
    dtype: str = "bf16"
    block: Block = "attention"
    vectors: int = 0
    kv_columns: int = 0
    kv_heads: int = 1
    keeps_precision: bool = False
    element_bytes: float = 0.0
    modules: tuple[str, ...] = ()
    occasion: Occasion = "pass"

    @property
    def parameters(self) -> int:
        """Elements of all its matrices and vectors."""
        return self.count * max(self.experts, 1) * (self.n * self.k + self.vectors)

    @property
    def stored_bytes(self) -> float:
        """Bytes of one element as it is stored. [B]"""
        return self.element_bytes or BYTES[self.dtype]

    def distinct_experts(self, tokens: Numeric, gpus: Numeric = 1.0) -> Numeric:
        """Matrices read per layer by `tokens` evenly routed tokens: ``E (1 - (1 - k/E)^tokens)``, or 1. [1]

        Where `gpus` share the experts whole, those of the busiest GPU.
        """
        if not self.experts:
            return np.ones_like(tokens, dtype=float)
        return busiest_experts(self.experts, self.experts_per_token, tokens=tokens, gpus=gpus)

    def visits(self, tokens: Numeric, gpus: Numeric = 1.0) -> Numeric:
        """Rows that `tokens` bring to its matrices, on the busiest of `gpus` that share them whole. [1]"""
        if not self.experts:
            return np.asarray(tokens, dtype=float)
        return busiest_visits(self.experts, self.experts_per_token, tokens=tokens, gpus=gpus)

    def matrices_held(self, gpus: Numeric = 1.0) -> Numeric:
        """Matrices of a layer on the fullest of `gpus` GPUs that share experts whole. [1]"""
        return experts_held(self.experts, gpus) if self.experts else np.ones(())

    def active_parameters(self, tokens: Numeric) -> Numeric:
        """Expected elements read in a forward pass of `tokens` tokens."""
        return self.count * (self.n * self.k + self.vectors) * self.distinct_experts(tokens)

    def weight_bytes(self, base_dtype: str) -> float:
        """Bytes of all its matrices, and of its vectors in `base_dtype`. [B]"""
        return self.count * max(self.experts, 1) * self._bytes_each(base_dtype)

    def weight_bytes_read(self, tokens: Numeric, base_dtype: str) -> Numeric:
        """Expected bytes read in a forward pass of `tokens` tokens. [B]"""
        return self.count * self._bytes_each(base_dtype) * self.distinct_experts(tokens)

    def shares(self, tensor_parallel: Numeric, expert_parallel: Numeric = False) -> tuple[Numeric, Numeric]:
        """GPUs that split each of its matrices, and GPUs that deal them out whole. [GPUs], [GPUs]

        Under expert parallelism routed experts are dealt out; whatever else there is, shared experts too, is
        split as without it: vLLM does so where the GPUs share attention as well.
        """
        gpus = np.asarray(tensor_parallel, dtype=float)
        if not self.experts or not np.any(expert_parallel):
            return gpus, 1.0
        whole = np.where(expert_parallel, gpus, 1.0)
        return gpus / whole, whole

    def n_per_gpu(self, tensor_parallel: Numeric) -> Numeric:
        """Output width on each of `tensor_parallel` GPUs; beyond `kv_heads` keys and values are copied."""
        shards = np.asarray(tensor_parallel, dtype=float)
        if self.split != "column":
            return np.full_like(shards, self.n)
        copied: Numeric = self.kv_columns / np.minimum(shards, self.kv_heads)
        return (self.n - self.kv_columns) / shards + copied

    def k_per_gpu(self, tensor_parallel: Numeric) -> Numeric:
        """Input width on each of `tensor_parallel` GPUs."""
        shards = np.asarray(tensor_parallel, dtype=float)
        return self.k / shards if self.split == "row" else np.full_like(shards, self.k)

    def elements_per_gpu(self, tensor_parallel: Numeric) -> Numeric:
        """Elements of one matrix on each of `tensor_parallel` GPUs, the copied columns too."""
        return self.n_per_gpu(tensor_parallel) * self.k_per_gpu(tensor_parallel)

    def stored_as(self, weights: str, base_dtype: str) -> LinearLayer:
        """Return the layer in a model whose weights are of dtype `weights` and the rest of `base_dtype`."""
        keep = self.keeps_precision and weights not in UNQUANTIZED
        return replace(self, dtype=base_dtype if keep else weights, element_bytes=0.0)

    def _bytes_each(self, base_dtype: str) -> float:
        return self.n * self.k * self.stored_bytes + self.vectors * BYTES[base_dtype]
