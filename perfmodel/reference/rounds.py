"""One draft-verify round in the paper's order, and decoding made of rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.acceptance_rule import Draft, Greedy, Rule
from perfmodel.reference.cache import Counts
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.drafters import Drafter, NoDrafter
from perfmodel.reference.sequences import Sequences, prefill

__all__ = ["Decoded", "decode", "draft_verify_round", "generate"]


def draft_verify_round(
    target: Decoder,
    drafter: Drafter,
    sequences: Sequences,
    gamma: int,
    rule: Rule,
    active: NDArray[np.bool_] | None = None,
) -> Counts:
    """Decode one round: draft gamma tokens, verify them in one pass, accept, add the bonus token, roll back.

    Parameters
    ----------
    gamma : tokens to draft; 0 is a plain decode step. rule : greedy match or rejection sampling.
    active : sequences that go on, all where None; the others run along and stay as they are.

    Returns
    -------
    Tokens that came, 1 to gamma + 1 for each active sequence, shape [batch].

    Notes
    -----
    Leviathan et al., arXiv 2211.17192, Algorithm 1; MagicDec, arXiv 2408.11049, section 3.
    """
    draft, accepted, token = draft_and_verify(target, drafter, sequences, gamma, rule)
    came = sequences.append(draft.tokens, accepted, token, _all(sequences) if active is None else active)
    drafter.settle(sequences)
    return came


def draft_and_verify(
    target: Decoder, drafter: Drafter, sequences: Sequences, gamma: int, rule: Rule
) -> tuple[Draft, Tensor, Tensor]:
    """Run the passes of a round; return the draft, how much of it is accepted and the token after it.

    Nothing of it waits for the device, so all of it can be one CUDA graph.
    """
    draft = drafter.draft(sequences, gamma, rule)
    fed = torch.cat((sequences.last(1), draft.tokens), dim=1)
    logits = target.forward(fed, sequences.cache.next(fed.shape[1]))
    accepted, token = rule.judge(logits, draft)
    return draft, accepted, token


@dataclass
class Decoded:
    """What decoding gave.

    Attributes
    ----------
    tokens : generated tokens, [batch, count].
    rounds : tokens that each round gave, one array [batch] a round.
    """

    tokens: Tensor
    rounds: list[Counts] = field(default_factory=list)

    @property
    def tokens_per_round(self) -> float:
        """Mean over all rounds of all sequences while they were active. [tokens]"""
        came = np.concatenate(self.rounds)
        return float(came[came > 0].mean())

    @property
    def accepted_counts(self) -> list[int]:
        """How many rounds accepted 0, 1, ... drafts."""
        came = np.concatenate(self.rounds)
        return [int(count) for count in np.bincount(came[came > 0] - 1)]


def generate(
    target: Decoder,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    drafter: Callable[[Sequences], Drafter] | None = None,
    gamma: int = 0,
    rule: Rule | None = None,
) -> Decoded:
    """Generate `count` tokens after each prompt, speculating where a drafter is given.

    Parameters
    ----------
    prompts : token ids, of any lengths. drafter : makes a drafter for the prefilled sequences.
    gamma : tokens drafted per round. rule : greedy where None.
    """
    rule = rule or Greedy()
    with torch.no_grad():
        sequences, logits = prefill(target, prompts, count + 2 * gamma + 2)
        first, _ = rule.propose(logits)
        return decode(target, sequences, first, count, drafter=drafter, gamma=gamma, rule=rule)


def decode(
    target: Decoder,
    sequences: Sequences,
    first: Tensor,
    count: int,
    *,
    drafter: Callable[[Sequences], Drafter] | None = None,
    gamma: int = 0,
    rule: Rule | None = None,
    each: Callable[[Callable[[], Counts]], Counts] | None = None,
) -> Decoded:
    """Go on from prefilled sequences whose first token is `first` [batch], round by round.

    Parameters
    ----------
    each : called with every round, to run and time it.
    """
    rule = rule or Greedy()
    sequences.tokens.scatter_(
        1, torch.as_tensor(sequences.cache.lens, device=first.device)[:, None], first[:, None]
    )
    drafting: Drafter = NoDrafter() if drafter is None else drafter(sequences)
    drafting.begin(sequences)
    rounds: list[Counts] = []
    while (active := sequences.generated < count).any():

        def one_round(active: NDArray[np.bool_] = active) -> Counts:
            return draft_verify_round(target, drafting, sequences, gamma, rule, active)

        rounds.append(one_round() if each is None else each(one_round))
    return Decoded(sequences.output(count), rounds)


def _all(sequences: Sequences) -> NDArray[np.bool_]:
    return np.ones(len(sequences.prompt_lens), dtype=np.bool_)
