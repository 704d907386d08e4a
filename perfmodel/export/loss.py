"""What an export loses: the lengths that its text means, beside those that the plan chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from perfmodel.errors import SpecError
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import speedups

__all__ = ["Length", "Loss", "loss_of", "refuse_beyond"]

Length = Callable[[int, int], int]
"""The tokens that a text drafts at a batch size and a context. [tokens]"""


class Loss(NamedTuple):
    """Share of the plan's speed that other lengths than its own lose, and where most is lost.

    Attributes
    ----------
    mean : over the planned cells, weighted as the contexts are. [1]
    worst : in the cell that loses most; 1 where the length that is drafted was not priced. [1]
    batch_size : of that cell. [sequences]
    context_len : of that cell. [tokens]
    drafted : what the text drafts there. [tokens]
    planned : what the plan drafts there. [tokens]
    """

    mean: float
    worst: float
    batch_size: int
    context_len: int
    drafted: int
    planned: int

    def __str__(self) -> str:
        if self.worst <= 0.0:
            return "no speed of the plan is lost"
        return (
            f"{self.mean:.2%} of speed lost on average, {self.worst:.2%} in the worst cell (batch "
            f"{self.batch_size}, context {self.context_len}: {self.drafted} drafted, {self.planned} planned)"
        )


def loss_of(
    plan: Plan,
    length: Length,
    weights: Mapping[int, float] | None = None,
    contexts: tuple[int, int] | None = None,
) -> Loss:
    """Return what a text loses against the plan: ``1 - speed(drafted) / speed(planned)`` of every cell.

    Parameters
    ----------
    plan : what was planned.
    length : what the text drafts at a batch size and a context. [tokens]
    weights : share of time per planned context; equal where absent. [1]
    contexts : only the planned contexts from the first to the second, both included. [tokens]
    """
    low, high = contexts or (0, max(cell.context_len for cell in plan.cells))
    losses, shares = [], []
    for cell in plan.cells:
        share = 1.0 if weights is None else weights.get(cell.context_len, 0.0)
        if share <= 0.0 or not low <= cell.context_len <= high:
            continue
        drafted = length(cell.batch_size, cell.context_len)
        lost = 0.0
        if drafted != cell.gamma:
            speed = dict(zip(plan.gammas, speedups(cell, plan.gammas), strict=True))
            lost = max(0.0, 1.0 - speed.get(drafted, 0.0) / speed[cell.gamma])
        losses.append((lost, cell.batch_size, cell.context_len, drafted, cell.gamma))
        shares.append(share)
    mean = sum(share * lost[0] for share, lost in zip(shares, losses, strict=True)) / sum(shares)
    return Loss(mean, *max(losses, key=lambda lost: lost[0]))


def refuse_beyond(loss: Loss, most: float | None, what: str) -> None:
    """Refuse a text that loses more than is allowed in any cell.

    Parameters
    ----------
    loss : what it loses.
    most : share of speed that a cell may lose; None for any. [1]
    what : the engine and the form, for people.

    Raises
    ------
    SpecError
        Where a cell loses more, naming it.
    """
    if most is not None and loss.worst > most + 1e-12:
        raise SpecError.single(
            "request", "--max-loss", f"is {most:.2%}, too little for {what}: {loss}",
            "allow more, leave contexts out with --context, plan fewer batch sizes, or take a form or an "
            "engine that keeps the axis that is lost",
        )  # fmt: skip
