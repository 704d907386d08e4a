"""Which drafted tokens the target accepts, and the token it adds: greedy match and rejection sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Chance", "Draft", "Greedy", "RandomChance", "RejectionSampling", "Rule", "residual"]


@dataclass(frozen=True)
class Draft:
    """Drafted tokens [batch, gamma] and the distributions they were drawn from [batch, gamma, vocab_size].

    `probabilities` is None where tokens were not drawn but named: each then had probability one.
    """

    tokens: Tensor
    probabilities: Tensor | None = None


class Rule(Protocol):
    """How tokens are picked from logits, and which drafts count as the target's own."""

    def propose(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return tokens [batch] for logits [batch, vocab_size], and the distribution they were drawn from."""
        ...

    def accept(self, logits: Tensor, draft: Draft) -> tuple[Tensor, Tensor]:
        """Return how many drafts are accepted and the bonus token that follows them, both [batch].

        Parameters
        ----------
        logits : the target's after the last known token and after each draft, [batch, gamma + 1, vocab_size].
        draft : the drafted tokens, and what they were drawn from.
        """
        ...


class Greedy:
    """The most likely token, the lowest of equals: a draft is accepted where the target chooses it too."""

    def propose(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the most likely tokens."""
        return logits.argmax(-1), None

    def accept(self, logits: Tensor, draft: Draft) -> tuple[Tensor, Tensor]:
        """Accept the drafts up to the first that is not the target's choice; the choice there follows."""
        choice = logits.argmax(-1)
        accepted = count_accepted(choice[:, :-1] == draft.tokens)
        return accepted, choice.gather(1, accepted[:, None])[:, 0]


class Chance(Protocol):
    """Where randomness comes from."""

    def draw(self, probabilities: Tensor) -> Tensor:
        """Return an index [batch] drawn from each distribution [batch, choices]."""
        ...

    def happens(self, probabilities: Tensor) -> Tensor:
        """Return for each probability whether its event happens; any shape."""
        ...


class RandomChance:
    """Pseudo-random numbers of a seed."""

    def __init__(self, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self._generator = torch.Generator(device).manual_seed(seed)

    def draw(self, probabilities: Tensor) -> Tensor:
        """Return an index [batch] drawn from each distribution [batch, choices]."""
        return torch.multinomial(probabilities, 1, generator=self._generator)[:, 0]

    def happens(self, probabilities: Tensor) -> Tensor:
        """Return for each probability whether its event happens."""
        drawn = torch.empty_like(probabilities).uniform_(generator=self._generator)
        return drawn < probabilities


class RejectionSampling:
    """Speculative sampling: the output has the target's distribution, whatever the drafter's is.

    A token drawn from ``q`` is accepted with probability ``min(1, p / q)``; at the first rejection the token
    is drawn from the residual ``max(p - q, 0)``, normalised. Source: Leviathan et al., arXiv 2211.17192,
    Algorithm 1; Chen et al., arXiv 2302.01318, Algorithm 2.

    Parameters
    ----------
    chance : where randomness comes from.
    temperature : logits are divided by it, above 0. [1]
    """

    def __init__(self, chance: Chance, temperature: float = 1.0) -> None:
        self.chance, self.temperature = chance, temperature

    def propose(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Draw tokens, and return what they were drawn from."""
        probabilities = self._distribution(logits)
        return self.chance.draw(probabilities), probabilities

    def accept(self, logits: Tensor, draft: Draft) -> tuple[Tensor, Tensor]:
        """Accept each draft with ``min(1, p / q)`` up to the first rejection; draw the token that follows."""
        target = self._distribution(logits)
        drafter = draft.probabilities
        if drafter is None:
            drafter = torch.nn.functional.one_hot(draft.tokens, logits.shape[-1]).to(target.dtype)
        chosen = draft.tokens[..., None]
        ratio = target[:, :-1].gather(-1, chosen)[..., 0] / drafter.gather(-1, chosen)[..., 0]
        accepted = count_accepted(self.chance.happens(ratio.clamp(max=1.0)))
        # After the last draft there is nothing to subtract: the bonus token is the target's own.
        nothing = torch.zeros_like(target[:, :1])
        left = residual(target, torch.cat((drafter, nothing), dim=1))
        here = accepted[:, None, None].expand(-1, 1, target.shape[-1])
        return accepted, self.chance.draw(left.gather(1, here)[:, 0])

    def _distribution(self, logits: Tensor) -> Tensor:
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return (wide / self.temperature).softmax(-1)


def count_accepted(kept: Tensor) -> Tensor:
    """Return how many drafts stand before the first that is not kept, [batch] of [batch, gamma]."""
    return kept.long().cumprod(-1).sum(-1)


def residual(target: Tensor, drafter: Tensor) -> Tensor:
    """Return ``max(p - q, 0)`` normalised; ``p`` itself where nothing is left, as all is accepted then."""
    left = (target - drafter).clamp(min=0.0)
    total = left.sum(-1, keepdim=True)
    return torch.where(total > 0.0, left / total.clamp(min=torch.finfo(left.dtype).tiny), target)
