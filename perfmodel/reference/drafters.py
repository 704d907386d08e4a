"""Who drafts: a decoder over a draft cache, a look-up in the text, or a dial that sets the acceptance."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.acceptance_rule import Draft, Rule
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.draft_cache import DraftCache
from perfmodel.reference.sequences import Sequences, fill_cache

__all__ = ["Dial", "ModelDrafter", "NGramDrafter", "NoDrafter", "TokenDrafter"]


class TokenDrafter(ABC):
    """Proposes `gamma` tokens per round."""

    def begin(self, sequences: Sequences) -> None:  # noqa: B027
        """Take in the prompts, which are in the target's cache."""

    @abstractmethod
    def draft(self, sequences: Sequences, gamma: int, rule: Rule) -> Draft:
        """Propose the next `gamma` tokens of every sequence."""

    def roll_back(self, sequences: Sequences) -> None:  # noqa: B027
        """Go back to what the verification left."""


class NoDrafter(TokenDrafter):
    """Nobody drafts: every round is a plain decode step."""

    def draft(self, sequences: Sequences, gamma: int, rule: Rule) -> Draft:  # noqa: ARG002
        """Propose nothing, whatever `gamma` is."""
        return Draft(sequences.tokens[:, :0])


class ModelDrafter(TokenDrafter):
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
            known = sequences.prompt_lens - 1
            fill_cache(self.decoder, sequences.tokens[:, :longest], known, self.cache.source)
        self.cache.begin()

    def draft(self, sequences: Sequences, gamma: int, rule: Rule) -> Draft:
        """Run `gamma` draft passes, each fed with the token of the one before."""
        self.cache.drafted = 0
        fed = sequences.last(2 if self.own_source else 1)
        tokens, distributions = [], []
        for _ in range(gamma):
            logits = self.decoder.forward(fed, self.cache.next(fed.shape[1]), last_only=True)
            token, distribution = rule.propose(logits[:, -1])
            fed = token[:, None]
            tokens.append(fed)
            if distribution is not None:
                distributions.append(distribution)
        return Draft(torch.cat(tokens, dim=1), torch.stack(distributions, dim=1) if distributions else None)

    def roll_back(self, sequences: Sequences) -> None:
        """Follow the target's lengths."""
        if self.own_source:
            self.cache.source.lens = sequences.cache.lens - 1
        self.cache.roll_back()


class NGramDrafter(TokenDrafter):
    """Looks up what followed the last few tokens the last time they occurred in the text.

    Parameters
    ----------
    longest : tokens to match, tried first; one fewer where they never occurred. Where not even the last token
        did, it is proposed again.
    """

    def __init__(self, longest: int = 3) -> None:
        self.longest = longest

    def draft(self, sequences: Sequences, gamma: int, rule: Rule) -> Draft:  # noqa: ARG002
        """Propose the continuation of the latest match."""
        tokens = sequences.tokens.cpu().numpy()
        drafts = [self.find(row[: n + 1], gamma) for row, n in zip(tokens, sequences.cache.lens, strict=True)]
        return Draft(torch.as_tensor(np.stack(drafts), device=sequences.tokens.device))

    def find(self, text: NDArray[np.int64], gamma: int) -> NDArray[np.int64]:
        """Return the `gamma` tokens that followed the latest match of the end of a text."""
        for size in range(min(self.longest, text.size - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(text[:-1], size)
            matches = np.flatnonzero((windows == text[-size:]).all(-1))
            if matches.size:
                followed = text[matches[-1] + size : matches[-1] + size + gamma]
                return np.pad(followed, (0, gamma - followed.size), mode="edge")
        return np.repeat(text[-1:], gamma)


class Dial(TokenDrafter):
    """Another drafter's passes in full, but each token is right with probability `alpha`, else wrong.

    It takes the time of the drafter inside it and has an acceptance that is known, for comparing times.

    Parameters
    ----------
    inside : the drafter whose passes run.
    truth : the target's own greedy output, [batch, at least the tokens to come plus gamma].
    alpha : acceptance rate of every drafted token. [0..1]
    vocab_size : tokens of the vocabulary.
    drawn : how many of the numbers that decide are used already.
    """

    def __init__(
        self, inside: TokenDrafter, truth: Tensor, alpha: float, vocab_size: int, drawn: int = 0
    ) -> None:
        self.inside, self.truth, self.alpha, self.vocab_size = inside, truth, alpha, vocab_size
        self._drawn = drawn

    def begin(self, sequences: Sequences) -> None:
        """As the drafter inside."""
        self.inside.begin(sequences)

    def draft(self, sequences: Sequences, gamma: int, rule: Rule) -> Draft:
        """Run the passes, each token as the dial says it."""
        places = np.minimum(sequences.generated[:, None] + np.arange(gamma), self.truth.shape[1] - 1)
        right = self.truth.gather(1, torch.as_tensor(places, device=self.truth.device))
        hit = torch.as_tensor(self.draw_evenly(len(places), gamma) < self.alpha, device=right.device)
        tokens = torch.where(hit, right, (right + 1) % self.vocab_size)
        self.inside.draft(sequences, gamma, _Dictate(rule, tokens))
        return Draft(tokens)

    def roll_back(self, sequences: Sequences) -> None:
        """As the drafter inside."""
        self.inside.roll_back(sequences)

    def draw_evenly(self, batch: int, gamma: int) -> NDArray[np.float64]:
        """Return numbers [batch, gamma] that fill the unit cube evenly over all rounds: a Kronecker sequence.

        Random ones would need ten times as many rounds for the same share of every pattern of acceptance.
        """
        base = 2.0
        for _ in range(30):  # the positive root of x**(gamma + 1) = x + 1
            base = (1.0 + base) ** (1.0 / (gamma + 1.0))
        start = np.random.default_rng([0, gamma]).random(gamma)
        turns = (self._drawn + np.arange(batch))[:, None]
        self._drawn += batch
        return np.asarray((start + turns * base ** -np.arange(1.0, gamma + 1.0)) % 1.0)


class _Dictate:
    """A rule that does the work of another and proposes tokens that are dictated."""

    def __init__(self, rule: Rule, tokens: Tensor) -> None:
        self._rule, self._tokens = rule, iter(tokens.unbind(1))

    def propose(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        self._rule.propose(logits)
        return next(self._tokens), None

    def accept(self, logits: Tensor, draft: Draft) -> tuple[Tensor, Tensor]:
        return self._rule.accept(logits, draft)
