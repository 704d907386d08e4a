"""What teams weigh against speculation: quantised weights or cache, pruned weights; all change the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.model import BYTES, LinearLayer, ModelSpec
from perfmodel.planning.plan import Plan

__all__ = ["LossyAlternative", "lossy_alternatives", "lossy_variants", "pruned"]

QUANTISED = ("fp8", "int4")


@dataclass(frozen=True)
class LossyAlternative:
    """One cell of a changed model, plain and with speculation on top; speedups are over the unchanged model.

    ``speedup`` and ``speculating_speedup`` are None where the unchanged model has no answer for the cell.
    """

    change: str
    batch_size: int
    context_len: int
    plain_tpot_s: float
    speedup: float | None
    strategy: str
    kv_budget: int | None
    gamma: int
    speculating_tpot_s: float
    speculating_speedup: float | None
    lossy: bool = True

    @property
    def row(self) -> dict[str, Any]:
        """As a row beside those of a plan's cells, with what it changes."""
        return {
            "change": f"{self.change} (lossy)",
            "batch_size": self.batch_size,
            "context_len": self.context_len,
            "strategy": self.strategy,
            "kv_budget": self.kv_budget,
            "gamma": self.gamma,
            "tpot_s": self.speculating_tpot_s,
            "baseline_s": None if self.speedup is None else self.speedup * self.plain_tpot_s,
            "speedup": self.speculating_speedup,
        }


def pruned(model: ModelSpec, share: float) -> ModelSpec:
    """Return the model with `share` of every matrix's inner width taken away; output layer and cache stay.

    Structured pruning: bytes and FLOPs of the layers shrink alike. (Zeros left in place would save neither.)

    Raises
    ------
    SpecError
        When the share does not lie between 0 and 1.
    """
    if not 0.0 < share < 1.0:
        raise SpecError.single(
            "request", "pruned", f"found {share!r}", "Give a share above 0 and below 1, such as 0.5"
        )

    def prune(layer: LinearLayer) -> LinearLayer:
        return layer if layer.block == "output" else replace(layer, k=max(1, round(layer.k * (1.0 - share))))

    return replace(model.with_products(prune), name=f"{model.name} ({share:.0%} pruned)")


def lossy_variants(target: ModelSpec, shares: Sequence[float] = (0.5,)) -> Iterator[tuple[str, ModelSpec]]:
    """Yield what is changed and the changed model, for every change that makes the target smaller."""
    weights = [dtype for dtype in QUANTISED if BYTES[dtype] < BYTES[target.weight_dtype]]
    caches = [dtype for dtype in QUANTISED if BYTES[dtype] < BYTES[target.kv_dtype]]
    for dtype in weights:
        yield f"{dtype} weights", target.with_dtypes(weights=dtype)
    for dtype in caches:
        yield f"{dtype} KV", target.with_dtypes(kv=dtype)
    for dtype in weights:
        if dtype in caches:
            yield f"{dtype} weights and KV", target.with_dtypes(weights=dtype, kv=dtype)
    for share in shares:
        yield f"{share:.0%} pruned", pruned(target, share)


def lossy_alternatives(
    target: ModelSpec,
    unchanged: Plan | None,
    search: Callable[[ModelSpec], Plan],
    *,
    shares: Sequence[float] = (0.5,),
) -> tuple[LossyAlternative, ...]:
    """Price every lossy variant of the target, plain and with speculation, cell by cell.

    Parameters
    ----------
    unchanged : the plan of the target itself, whose baseline every speedup refers to.
    search : plans a model for the same deployment and workload, as `unchanged` was planned.
    shares : of the weights that pruning takes away. [0..1]
    """
    baselines = {} if unchanged is None else {_place(cell): cell.baseline_s for cell in unchanged.cells}
    alternatives = []
    for change, variant in lossy_variants(target, shares):
        try:
            plan = search(variant)
        except InfeasibleError:
            continue
        for cell in plan.cells:
            baseline = baselines.get(_place(cell))
            alternatives.append(
                LossyAlternative(
                    change=change,
                    batch_size=cell.batch_size,
                    context_len=cell.context_len,
                    plain_tpot_s=cell.baseline_s,
                    speedup=None if baseline is None else baseline / cell.baseline_s,
                    strategy=cell.strategy,
                    kv_budget=cell.kv_budget,
                    gamma=cell.gamma,
                    speculating_tpot_s=cell.tpot_s,
                    speculating_speedup=None if baseline is None else baseline / cell.tpot_s,
                )
            )
    return tuple(alternatives)


def _place(cell: object) -> tuple[int, int]:
    return (cell.batch_size, cell.context_len)  # type: ignore[attr-defined]
