"""The attention kernels that torch offers on a device, and the fastest of them for a shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.attention import AttentionKernel, Visible, exact, fold_rows, packed
from perfmodel.reference.timing.stopwatch import Stopwatch, repeats_for

__all__ = ["OFFERED", "FastestAttention", "offer_kernels"]

TOLERANCE = 0.02
"""Largest difference from exact attention, relative to the largest value, that a kernel may show."""
TRIED = 2048
"""Slots over which a kernel is compared with exact attention."""
MISTAKES = (RuntimeError, NotImplementedError, TypeError, ValueError, ImportError)
"""What a kernel that does not support a shape raises."""


def doubled(query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> Tensor:
    """As `packed`, a single row taken twice: some CPUs have no good 16-bit kernel for one row."""
    rows = fold_rows(query, keys.shape[1])
    if not visible.everything or rows.shape[2] > 1:
        return packed(query, keys, values, visible)
    read: Tensor = F.scaled_dot_product_attention(rows.expand(-1, -1, 2, -1), keys, values)
    return read[:, :, :1].reshape(query.shape)


def grouped(query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> Tensor:
    """Flash attention as torch calls it for grouped heads; one query token, or a bottom-right causal bias."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.bias import causal_lower_right

    _refuse_ragged(visible)
    tokens = query.shape[2]
    bias: Any = None if tokens == 1 else causal_lower_right(tokens, keys.shape[2])
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, enable_gqa=True)


def cudnn(query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> Tensor:
    """Attention of cuDNN with grouped heads, masked where there are several query tokens."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    mask = None if visible.everything else visible.mask(query.dtype, 1)
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, enable_gqa=True)


def efficient(query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> Tensor:
    """Memory-efficient attention over folded rows, the mask padded to the alignment that it wants."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    rows, group = fold_rows(query, keys.shape[1]), query.shape[1] // keys.shape[1]
    mask = None
    if not visible.everything:
        plain = visible.mask(query.dtype, group)
        wide = F.pad(plain, (0, -plain.shape[-1] % 16))
        mask = wide[..., : plain.shape[-1]].expand(rows.shape[0], rows.shape[1], -1, -1)
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION]):
        read: Tensor = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask)
    return read.reshape(query.shape)


def merged(query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> Tensor:
    """Flash attention over the past, which every row sees whole, joined with the few new tokens.

    The past needs no mask, so the query heads of a group and all query tokens are rows of one call that reads
    the cache once. Two softmaxes over disjoint entries join by their log-sums (FlashAttention-2, arXiv
    2307.08691, section 3.1).
    """
    _refuse_ragged(visible)
    tokens, kv_heads = query.shape[2], keys.shape[1]
    past = keys.shape[2] - tokens
    rows = fold_rows(query, kv_heads)
    if tokens == 1 or past == 0:
        return packed(query, keys, values, visible)
    before, log_before = _flash_with_log_sum(rows, keys[:, :, :past], values[:, :, :past])
    scores = (rows @ keys[:, :, past:].transpose(-1, -2)).float() * query.shape[-1] ** -0.5
    steps = torch.arange(tokens, device=query.device)
    later = (steps > steps[:, None]).repeat(query.shape[1] // kv_heads, 1)
    scores = scores.masked_fill(later, -torch.inf)
    here = scores.softmax(-1).to(query.dtype) @ values[:, :, past:]
    share = torch.sigmoid(log_before - scores.logsumexp(-1))[..., None]
    read: Tensor = share * before + (1.0 - share) * here
    return read.to(query.dtype).reshape(query.shape)


def _flash_with_log_sum(rows: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    ops: Any = torch.ops.aten
    if rows.device.type == "cpu":
        read, log_sum, *_ = ops._scaled_dot_product_flash_attention_for_cpu(rows, keys, values)
    else:
        read, log_sum, *_ = ops._scaled_dot_product_flash_attention(rows, keys, values)
    return read, log_sum[..., : rows.shape[2]].float()


def flex(query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> Tensor:
    """Flex attention, compiled; the causal edge is at the bottom right."""
    _refuse_ragged(visible)
    tokens, slots = query.shape[2], keys.shape[2]
    mask = {} if tokens == 1 else {"block_mask": _make_block_mask(tokens, slots, str(query.device))}
    read: Tensor = _compile_flex()(query, keys, values, enable_gqa=True, **mask)
    return read


@cache
def _compile_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@lru_cache(maxsize=64)
def _make_block_mask(tokens: int, slots: int, device: str) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    past = slots - tokens

    def see(batch: Tensor, head: Tensor, row: Tensor, slot: Tensor) -> Tensor:
        del batch, head
        return slot <= row + past

    return create_block_mask(see, None, None, tokens, slots, device=device)


def _refuse_ragged(visible: Visible) -> None:
    if not visible.causal:
        raise NotImplementedError("this kernel reads sequences of equal length")


OFFERED: Mapping[str, Mapping[str, AttentionKernel]] = {
    "cpu": {"packed": packed, "doubled": doubled},
    "cuda": {
        "packed": packed, "grouped": grouped, "merged": merged, "cudnn": cudnn, "efficient": efficient,
        "flex": flex,
    },
}  # fmt: skip
"""Kernels by device type and name."""


def offer_kernels(
    device: torch.device, query: Tensor, keys: Tensor, values: Tensor, visible: Visible
) -> dict[str, AttentionKernel]:
    """Return the kernels that take this shape and give attention by its definition.

    They are tried on one sequence and the last `TRIED` slots, as exact attention takes much memory.
    """
    slots = slice(max(0, visible.slots - TRIED), visible.slots)
    query, keys, values = query[:1], keys[:1, :, slots], values[:1, :, slots]
    visible = Visible.of_aligned(query.shape[2], keys.shape[2], query.device)
    expected = exact(query, keys, values, visible)
    worst = TOLERANCE * float(expected.abs().max())
    kernels = {}
    for name, kernel in OFFERED[device.type].items():
        try:
            read = kernel(query, keys, values, visible)
        except MISTAKES:
            continue
        except Exception as error:
            if type(error).__module__.startswith("torch"):  # compilers raise kinds of their own
                continue
            raise
        if read.shape == expected.shape and float((read - expected).abs().max()) <= worst:
            kernels[name] = kernel
    return kernels


@dataclass
class FastestAttention:
    """The fastest kernel by query tokens, chosen by timing; `packed` where none was or it does not fit.

    Attributes
    ----------
    chosen : name of the kernel by query tokens.
    """

    stopwatch: Stopwatch
    chosen: dict[int, str] = field(default_factory=dict)
    _kernels: dict[int, AttentionKernel] = field(default_factory=dict, repr=False)

    def __call__(self, query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> Tensor:
        """Read by the chosen kernel; ragged batches and chosen entries by `packed`."""
        kernel = self._kernels.get(query.shape[2], packed)
        if not visible.causal:
            kernel = packed
        return kernel(query, keys, values, visible)

    def name(self, query_tokens: int) -> str:
        """Return the name of the kernel that reads aligned batches."""
        return self.chosen.get(query_tokens, "packed")

    def apply_to(self, like: int, query_tokens: Iterable[int]) -> None:
        """Use the kernel chosen for `like` query tokens for other numbers of them too."""
        for count in query_tokens:
            self.chosen[count], self._kernels[count] = self.chosen[like], self._kernels[like]

    def choose(self, query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> str:
        """Time every kernel that takes this shape and keep the fastest for its number of query tokens."""
        best = float("inf")
        for name, kernel in offer_kernels(query.device, query, keys, values, visible).items():

            def work(kernel: AttentionKernel = kernel) -> object:
                return kernel(query, keys, values, visible)

            ready = self.stopwatch.ready(work)
            repeats = repeats_for(self.stopwatch.seconds(ready))
            seconds = min(self.stopwatch.seconds(ready, repeats) for _ in range(3))
            # A later kernel replaces an earlier one where it is clearly faster: clocks waver.
            if seconds < 0.95 * best:
                best = seconds
                self.chosen[query.shape[2]], self._kernels[query.shape[2]] = name, kernel
        return self.name(query.shape[2])
