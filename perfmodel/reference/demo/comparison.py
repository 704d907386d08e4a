"""Predicted beside measured: configurations of one shape, their errors, and what the plan's choice misses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.reference.demo.trials import PLAIN, Config

__all__ = ["Comparison", "Trial"]


@dataclass(frozen=True)
class Trial:
    """One configuration, predicted and measured. Seconds [s], tokens a round with the bonus token."""

    config: Config
    predicted_round_s: float
    round_s: float
    expected_tokens: float
    tokens: float
    predicted_speedup: float
    speedup: float

    @property
    def error(self) -> float:
        """Relative error of the predicted speedup. [1]"""
        return self.predicted_speedup / self.speedup - 1.0


@dataclass(frozen=True)
class Comparison:
    """All configurations of one shape.

    Attributes
    ----------
    title : how the acceptance came about.
    batch : sequences.
    context_len : entries of each. [tokens]
    alpha : acceptance, dialled or planted. [0..1]
    step_s, predicted_step_s : one plain decode step. [s]
    trials : every configuration that drafts.
    chosen : what the plan recommends, `PLAIN` where it is not to speculate.
    differing : tokens that differed between plain and speculative output.
    """

    title: str
    batch: int
    context_len: int
    alpha: float
    step_s: float
    predicted_step_s: float
    trials: tuple[Trial, ...]
    chosen: Config
    differing: int

    @property
    def mean_error(self) -> float:
        """Mean absolute relative error of the predicted speedups. [1]"""
        return float(np.mean([abs(trial.error) for trial in self.trials]))

    @property
    def regret(self) -> float:
        """Share of the best speedup that the recommended configuration misses; tokens as expected. [0..1]

        With the tokens that were counted, the luck of the drafts would decide between neighbours.
        """
        seconds = {trial.config: trial.round_s / trial.expected_tokens for trial in self.trials}
        seconds[PLAIN] = self.step_s
        return 1.0 - min(seconds.values()) / seconds[self.chosen]
