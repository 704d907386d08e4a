"""Drafting configurations run side by side: seconds and tokens of a round, against plain decoding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import strategies
from perfmodel.reference.cache import Counts, KVCache
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.drafters import Dial, Drafter
from perfmodel.reference.drafting import drafter_of
from perfmodel.reference.rounds import decode
from perfmodel.reference.sequences import Sequences
from perfmodel.reference.timing.stopwatch import Stopwatch

__all__ = ["PLAIN", "Config", "Field", "Runs", "side_by_side"]


@dataclass(frozen=True)
class Config:
    """A drafting strategy, its draft KV budget and speculation length; gamma 0 drafts nothing. [tokens]"""

    strategy: str
    kv_budget: int
    gamma: int

    @property
    def label(self) -> str:
        """Name for people."""
        return (
            f"{self.strategy} budget {self.kv_budget} gamma {self.gamma}" if self.gamma else "plain decoding"
        )


PLAIN = Config("", 0, 0)


@dataclass
class Runs:
    """What was seen of one configuration: seconds of every round, tokens of every round and sequence."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    differing: int = 0
    rounds: int = 0

    @property
    def round_s(self) -> float:
        """Median seconds of a round. [s]"""
        return float(np.median(self.seconds))

    @property
    def tokens_per_round(self) -> float:
        """Mean tokens of a round, bonus token included."""
        return float(np.mean(self.tokens))


@dataclass(frozen=True)
class Field:
    """Where configurations are run: a decoder, a filled cache and the pending token of every sequence.

    Attributes
    ----------
    output_len : tokens to decode in each run.
    alpha : acceptance to dial, None to take the drafts as they are.
    """

    target: Decoder
    cache: KVCache
    first: Tensor
    tokens: Tensor
    output_len: int
    alpha: float | None = None

    @property
    def context_len(self) -> int:
        """Entries of each sequence. [tokens]"""
        return int(self.cache.lens[0])

    def sequences(self) -> Sequences:
        """Return the sequences at their start; the memory of the cache is shared."""
        lens: Counts = np.full(self.cache.batch, self.context_len, dtype=np.int64)
        return Sequences(self.tokens.clone(), lens, self.cache.holding(self.context_len))


def side_by_side(
    field_: Field,
    configs: Sequence[Config],
    *,
    stopwatch: Stopwatch,
    seconds: float,
    most_turns: int = 8,
    on_turn: Callable[[float], None] | None = None,
) -> dict[Config, Runs]:
    """Decode with every configuration in turns, in an order drawn anew, until the time is over.

    The plain output is computed first; every other output is compared with it, token for token.

    Parameters
    ----------
    configs : to run, beside plain decoding.
    seconds : wall time that no new turn is started after; one is run in any case. [s]

    Returns
    -------
    By configuration, `PLAIN` among them.
    """
    everything = [PLAIN, *configs]
    runs = {config: Runs() for config in everything}
    begun, order = time.monotonic(), np.random.default_rng(0)
    longest = max((config.gamma for config in everything), default=0)
    truth = _run(field_, PLAIN, None, field_.output_len + longest + 1, runs[PLAIN], stopwatch)
    for turn in range(most_turns):
        for index in order.permutation(len(everything)):
            config = everything[index]
            output = _run(field_, config, truth, field_.output_len, runs[config], stopwatch)
            runs[config].differing += int((output != truth[:, : field_.output_len]).sum())
        spent = (time.monotonic() - begun) / seconds
        if on_turn is not None:
            on_turn(min(spent, 1.0))
        if spent * (turn + 2) / (turn + 1) > 1.0:
            break
    return runs


def _run(
    field_: Field,
    config: Config,
    truth: Tensor | None,
    count: int,
    runs: Runs,
    stopwatch: Stopwatch,
) -> Tensor:
    """Decode once and note every round; return the output."""

    def drafter(sequences: Sequences) -> Drafter:
        made = drafter_of(
            strategies.load(config.strategy),
            field_.target,
            kv_budget=config.kv_budget,
            gamma=config.gamma,
            output_len=count,
        )
        if field_.alpha is None or truth is None:
            return made(sequences)
        vocabulary = field_.target.architecture.vocab_size
        used = runs.rounds * sequences.cache.batch
        return Dial(made(sequences), truth, field_.alpha, vocabulary, drawn=used)

    def timed(one_round: Callable[[], Counts]) -> Counts:
        came: list[Counts] = []
        taken.append(stopwatch.seconds(lambda: came.append(one_round())))
        return came[0]

    taken: list[float] = []
    decoded = decode(
        field_.target,
        field_.sequences(),
        field_.first,
        count,
        drafter=drafter if config.gamma else None,
        gamma=config.gamma,
        each=timed,
    )
    came: NDArray[np.int64] = np.stack(decoded.rounds)
    runs.rounds += len(came)
    # The first round finds what the run before left in the caches.
    runs.seconds.extend(taken[1:] if len(taken) > 2 else taken)
    runs.tokens.extend(came[came > 0].tolist())
    return decoded.tokens
