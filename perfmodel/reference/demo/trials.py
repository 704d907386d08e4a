"""Drafting configurations run side by side: seconds and tokens of a round, against plain decoding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

import strategies
from perfmodel.reference.cache import Counts, KVCache
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.drafters import Dial, TokenDrafter
from perfmodel.reference.drafting import drafter_of
from perfmodel.reference.rounds import decode, draft_verify_round
from perfmodel.reference.sequences import Sequences
from perfmodel.reference.timing.stopwatch import Stopwatch

__all__ = ["PLAIN", "Config", "Runs", "Setup", "run_side_by_side"]


@dataclass(frozen=True)
class Config:
    """A drafting strategy, its draft KV budget and speculation length; gamma 0 drafts nothing. [tokens]"""

    strategy: str
    kv_budget: int
    gamma: int

    @property
    def label(self) -> str:
        """Name for people."""
        if not self.gamma:
            return "plain decoding"
        return f"{self.strategy} budget {self.kv_budget} gamma {self.gamma}"


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
        """Mean tokens of a round, bonus token included; 0 where none were counted."""
        return float(np.mean(self.tokens)) if self.tokens else 0.0


@dataclass(frozen=True)
class Setup:
    """Where configurations are run: a decoder, a filled cache and the pending token of every sequence.

    Attributes
    ----------
    target : the decoder.
    cache : holds contexts of equal length.
    first : the pending tokens, [batch].
    tokens : room for the text, [batch, capacity].
    output_len : tokens to decode in each run.
    alpha : acceptance to dial, None to take the drafts as they are. [0..1]
    """

    target: Decoder
    cache: KVCache
    first: Tensor
    tokens: Tensor
    output_len: int
    alpha: float | None = None

    def sequences(self) -> Sequences:
        """Return the sequences at their start; the memory of the cache is shared."""
        cache = self.cache.with_lens(int(self.cache.lens[0]))
        return Sequences(self.tokens.clone(), cache.lens, cache)


def run_side_by_side(
    setup: Setup, configs: Sequence[Config], *, stopwatch: Stopwatch, seconds: float, most_turns: int = 8
) -> dict[Config, Runs]:
    """Decode with every configuration in turns, in an order drawn anew, until the time is over.

    The plain output is computed first; every other output is compared with it, token for token.

    Parameters
    ----------
    setup : where they run.
    configs : to run, beside plain decoding.
    stopwatch : times every round.
    seconds : wall time that no new turn is started after; one is run in any case. [s]
    most_turns : turns after which it stops in any case.

    Returns
    -------
    By configuration, `PLAIN` among them.
    """
    everything = [PLAIN, *configs]
    runs = {config: Runs() for config in everything}
    begun, order = time.monotonic(), np.random.default_rng(0)
    longest = max(config.gamma for config in everything)
    truth = _run(setup, PLAIN, None, setup.output_len + longest + 1, runs[PLAIN], stopwatch)
    for turn in range(most_turns):
        for index in order.permutation(len(everything)):
            config = everything[index]
            output = _run(setup, config, truth, setup.output_len, runs[config], stopwatch)
            runs[config].differing += int((output != truth[:, : setup.output_len]).sum())
        spent = (time.monotonic() - begun) / seconds
        if spent * (turn + 2) / (turn + 1) > 1.0:
            break
    return runs


def _run(
    setup: Setup, config: Config, truth: Tensor | None, count: int, runs: Runs, stopwatch: Stopwatch
) -> Tensor:
    """Decode once and note every round; return the output."""
    seconds: list[float] = []

    def make_drafter(sequences: Sequences) -> TokenDrafter:
        drafter = drafter_of(
            strategies.load(config.strategy), setup.target,
            kv_budget=config.kv_budget, gamma=config.gamma, output_len=count,
        )(sequences)  # fmt: skip
        if setup.alpha is None or truth is None:
            return drafter
        drawn = runs.rounds * sequences.cache.batch
        return Dial(drafter, truth, setup.alpha, setup.target.architecture.vocab_size, drawn)

    def time_round(*arguments: Any) -> Counts:
        tokens: list[Counts] = []
        seconds.append(stopwatch.seconds(lambda: tokens.append(draft_verify_round(*arguments))))
        return tokens[0]

    decoded = decode(
        setup.target, setup.sequences(), setup.first, count,
        drafter=make_drafter if config.gamma else None, gamma=config.gamma, run_round=time_round,
    )  # fmt: skip
    tokens = np.stack(decoded.rounds)
    runs.rounds += len(tokens)
    # The first round finds what the run before left in the caches.
    runs.seconds.extend(seconds[1:] if len(seconds) > 2 else seconds)
    runs.tokens.extend(tokens[tokens > 0].tolist())
    return decoded.tokens
