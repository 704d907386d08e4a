"""How much of a plain step is reading the KV cache, by model, and where the cache passes the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.files.numbers import FloatArray
from perfmodel.model import ModelSpec
from perfmodel.planning.columns import Cell, columns_of
from perfmodel.planning.operations import operations
from perfmodel.planning.price import Priced, SearchSpace, price_drafters
from perfmodel.workload import Workload

__all__ = ["Bottleneck", "layers_in_words", "price_bottleneck"]

BETWEEN = 512
"""Context lengths between which the cache passes the weights. [1]"""


@dataclass(frozen=True)
class Bottleneck:
    """A model's plain decode step at one batch size, over context.

    Attributes
    ----------
    name, layers : the model, and what its layers are.
    context_lens : the axis. [tokens]
    cache_share : share of the step's time that attention takes. [0..1]
    state_share : share that recurrent states take. [0..1]
    read_ratio : bytes of the cache that the step reads on a GPU over those of the weights. [1]
    passes_at : shortest context within the axis from which on it reads more of the cache than of the weights;
        infinite where it never does. [tokens]
    kv_bytes_per_token : what every further token adds, once windows are full. [B]
    """

    name: str
    layers: str
    context_lens: FloatArray
    cache_share: FloatArray
    state_share: FloatArray
    read_ratio: FloatArray
    passes_at: float
    kv_bytes_per_token: float


def price_bottleneck(
    deployment: Deployment, batch_size: int, context_lens: Sequence[int], output_tokens: float = 0.0
) -> Bottleneck:
    """Price the plain step of one batch size over context lengths. [sequences], [tokens]

    Memory does not count: it says where the time would go, not what fits.

    Parameters
    ----------
    output_tokens : tokens that follow each context; the step is their mean one. [tokens]
    """
    step = _steps(deployment, batch_size, context_lens, output_tokens)
    share = {name: _column(step, name) for name in ("cache_share", "state_share")}
    contexts = np.asarray(context_lens, dtype=float)
    fine = np.unique(np.geomspace(contexts[0], contexts[-1], BETWEEN).round()).astype(int)
    more = _read_ratio(_steps(deployment, batch_size, fine.tolist(), output_tokens)) >= 1.0
    first = more.size if not more[-1] else more.size - int(np.argmin(more[::-1])) if not more.all() else 0
    return Bottleneck(
        name=deployment.model.name,
        layers=layers_in_words(deployment.model),
        context_lens=contexts,
        **share,
        read_ratio=_read_ratio(step),
        passes_at=float(fine[first]) if first < fine.size else float("inf"),
        kv_bytes_per_token=float(deployment.model.kv_bytes_per_token(np.inf)),
    )


def layers_in_words(model: ModelSpec) -> str:
    """Say which layers a model has: how tokens see one another in how many, and whether there are experts."""
    counts: dict[str, int] = {}
    for mixer, count in model.token_mixers:
        counts[mixer.label] = counts.get(mixer.label, 0) + count
    most_first = sorted(counts.items(), key=lambda kind: -kind[1])
    kinds = ", ".join(f"{label} {count}" for label, count in most_first)
    return f"{kinds}; experts" if model.experts else kinds


def _steps(
    deployment: Deployment, batch_size: int, context_lens: Sequence[int], output_tokens: float
) -> Priced:
    cells = Workload([batch_size], context_lens, output_tokens=output_tokens)
    [plain] = price_drafters(deployment, cells, SearchSpace([None], [0]))
    return plain


def _column(step: Priced, name: str) -> FloatArray:
    """Read a plain step as that column of a plan reads it."""
    [declared] = [column for column in columns_of(Cell) if column.name == name]
    values: FloatArray = step.expand(declared.value(step)).ravel()
    return values


def _read_ratio(step: Priced) -> FloatArray:
    """Cache bytes over weight bytes that a plain step reads on each GPU. [1]"""
    moved = {part.name: np.asarray(part.bytes, dtype=float) for part in operations(step)}
    cache = moved.get("attention", np.zeros(()))
    return np.broadcast_to(cache / moved["linear layers"], step.shape).ravel()
