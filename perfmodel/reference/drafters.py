"""Who drafts: a decoder over a draft cache, a look-up in the text, or a dial that sets the acceptance."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.acceptance_rule import Draft, Rule
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.draft_cache import DraftCache
from perfmodel.reference.sequences import Sequences, fill

__all__ = ["Dial", "Drafter", "ModelDrafter", "NGramDrafter", "NoDrafter"]


class Drafter(Protocol):
    """Proposes `gamma` tokens per round."""

    def begin(self, sequences: Sequences) -> None:
        """Take in the prompts, which are in the target's cache."""
        ...

    def draft(self, sequences: Sequences, gamma: int, rule: Rule) -> Draft:
        """Propose the next `gamma` tokens of every sequence."""
        ...

    def settle(self, sequences: Sequences) -> None:
        """Roll back to what the verification left."""
        ...


class NoDrafter:
    """Nobody drafts: every round is a plain decode step."""

    def begin(self, sequences: Sequences) -> None:
        """Nothing to take in."""

    def draft(self, sequences: Sequences, gamma: int, rule: Rule) -> Draft:  # noqa: ARG002
        """Propose nothing, whatever `gamma` is."""
        return Draft(sequences.tokens[:, :0])

    def settle(self, sequences: Sequences) -> None:
        """Nothing to roll back."""


class ModelDrafter:
    """A decoder drafts token by token over a draft cache.

    Parameters
    ----------
    decoder : the target itself, a part of it, a quantised copy, or another model of the same vocabulary.
    cache : what it reads.
    own_source : the cache's source is its own and not the target's. It then lacks the entry of the last draft
        of a fully accepted round, so the first pass of a round takes the last two tokens.
    """

    def __init__(self, decoder: Decoder, cache: DraftCache, own_source: bool = False) -> None:
        self.decoder, self.cache, self.own_source = decoder, cache, own_source

    def begin(self, sequences: Sequences) -> None:
        """Prefill where the cache is its own, and let the draft cache take the prompts in."""
        if self.own_source:
            longest = int(sequences.prompt_lens.max())
            fill(self.decoder, sequences.tokens[:, :longest], sequences.prompt_lens, self.cache.source)
            self.cache.source.lens = sequences.cache.lens - 1
        self.cache.begin()

    def draft(self, sequences: Sequences, gamma: int, rule: Rule) -> Draft:
        """Run `gamma` draft passes, each fed with the token of the one before."""
        self.cache.drafted = 0
        feed = sequences.last(2 if self.own_source else 1)
        tokens, distributions = [], []
        for _ in range(gamma):
            logits = self.decoder.forward(feed, self.cache.next(feed.shape[1]), last_only=True)
            token, distribution = rule.propose(logits[:, -1])
            feed = token[:, None]
            tokens.append(feed)
            distributions.append(distribution)
        drawn = [distribution for distribution in distributions if distribution is not None]
        return Draft(torch.cat(tokens, dim=1), torch.stack(drawn, dim=1) if drawn else None)

    def settle(self, sequences: Sequences) -> None:
        """Follow the target's lengths."""
        if self.own_source:
            self.cache.source.lens = sequences.cache.lens - 1
        self.cache.settle()


class NGramDrafter:
    """Looks up what followed the last few tokens the last time they occurred in the text.

    Parameters
    ----------
    longest : tokens to match, tried first; one fewer where they never occurred. Where not even the last token
        did, it is proposed again.
    """

    def __init__(self, longest: int = 3) -> None:
        self.longest = longest

    def begin(self, sequences: Sequences) -> None:
        """The text itself is all it needs."""

    def draft(self, sequences: Sequences, gamma: int, rule: Rule) -> Draft:  # noqa: ARG002
        """Propose the continuation of the latest match."""
        known = sequences.tokens.cpu().numpy()
        drafts = [
            self._continuation(row[: n + 1], gamma)
            for row, n in zip(known, sequences.cache.lens, strict=True)
        ]
        return Draft(torch.as_tensor(np.stack(drafts), device=sequences.tokens.device))

    def settle(self, sequences: Sequences) -> None:
        """Nothing to roll back."""

    def _continuation(self, text: NDArray[np.int64], gamma: int) -> NDArray[np.int64]:
        for size in range(min(self.longest, text.size - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(text[:-1], size)
            matches = np.flatnonzero((windows == text[-size:]).all(-1))
            if matches.size:
                found = text[matches[-1] + size : matches[-1] + size + gamma]
                return np.pad(found, (0, gamma - found.size), mode="edge")
        return np.repeat(text[-1:], gamma)


class Dial:
    """Another drafter's passes in full, but each token is right with probability `alpha`, else wrong.

    It takes the time of the drafter inside it and has an acceptance that is known, for comparing times.

    Parameters
    ----------
    truth : the target's own greedy output, [batch, at least the tokens to come plus gamma].
    seed, drawn : where the sequence of numbers starts that decide, and how many of it are used already.
    """

    def __init__(
        self, inside: Drafter, truth: Tensor, alpha: float, vocab_size: int, seed: int = 0, drawn: int = 0
    ) -> None:
        self.inside, self.truth, self.alpha, self.vocab_size = inside, truth, alpha, vocab_size
        self.seed, self._drawn = seed, drawn

    def begin(self, sequences: Sequences) -> None:
        """As the drafter inside."""
        self.inside.begin(sequences)

    def draft(self, sequences: Sequences, gamma: int, rule: Rule) -> Draft:
        """Run the passes, each token as the dial says it."""
        places = np.minimum(sequences.generated[:, None] + np.arange(gamma), self.truth.shape[1] - 1)
        right = self.truth.gather(1, torch.as_tensor(places, device=self.truth.device))
        hit = torch.as_tensor(self._even(len(places), gamma) < self.alpha, device=right.device)
        said = torch.where(hit, right, (right + 1) % self.vocab_size)
        self.inside.draft(sequences, gamma, _Said(rule, said))
        return Draft(said)

    def settle(self, sequences: Sequences) -> None:
        """As the drafter inside."""
        self.inside.settle(sequences)

    def _even(self, batch: int, gamma: int) -> NDArray[np.float64]:
        """Numbers [batch, gamma] that fill the unit cube evenly over all rounds: a Kronecker sequence.

        Random ones would need ten times as many rounds for the same share of every pattern of acceptance.
        """
        base = 2.0
        for _ in range(30):  # the positive root of x**(gamma + 1) = x + 1
            base = (1.0 + base) ** (1.0 / (gamma + 1.0))
        start = np.random.default_rng([self.seed, gamma]).random(gamma)
        turns = (self._drawn + np.arange(batch))[:, None]
        self._drawn += batch
        return np.asarray((start + turns * base ** -np.arange(1.0, gamma + 1.0)) % 1.0)


class _Said:
    """A rule that does the work of another and proposes tokens that are said beforehand."""

    def __init__(self, rule: Rule, tokens: Tensor) -> None:
        self._rule, self._tokens = rule, iter(tokens.unbind(1))

    def propose(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        self._rule.propose(logits)
        return next(self._tokens), None

    def judge(self, logits: Tensor, draft: Draft) -> tuple[Tensor, Tensor]:
        return self._rule.judge(logits, draft)
