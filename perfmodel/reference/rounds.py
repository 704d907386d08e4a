"""One draft-verify round in the paper's order, and decoding made of rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.acceptance_rule import Draft, Greedy, Rule
from perfmodel.reference.cache import Counts
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.drafters import NoDrafter, TokenDrafter
from perfmodel.reference.drafting import MakeDrafter
from perfmodel.reference.sequences import Sequences, prefill

__all__ = ["Decoded", "decode", "draft_and_verify", "draft_verify_round", "generate"]


def draft_verify_round(
    target: Decoder,
    drafter: TokenDrafter,
    sequences: Sequences,
    gamma: int,
    rule: Rule,
    active: NDArray[np.bool_] | None = None,
) -> Counts:
    """Decode one round: draft gamma tokens, verify them in one pass, accept, add the bonus token, roll back.

    Parameters
    ----------
    target : verifies the drafts.
    drafter : proposes them.
    sequences : what is known so far; the tokens of the round are appended.
    gamma : tokens to draft; 0 is a plain decode step.
    rule : greedy match or rejection sampling.
    active : sequences that go on, all where None; the others run along and stay as they are.

    Returns
    -------
    Tokens of the round, 1 to gamma + 1 for each active sequence, shape [batch].

    Notes
    -----
    Leviathan et al., arXiv 2211.17192, Algorithm 1; MagicDec, arXiv 2408.11049, section 3.
    """
    draft, accepted, bonus = draft_and_verify(target, drafter, sequences, gamma, rule)
    tokens = sequences.append(draft.tokens, accepted, bonus, active)
    drafter.roll_back(sequences)
    return tokens


def draft_and_verify(
    target: Decoder, drafter: TokenDrafter, sequences: Sequences, gamma: int, rule: Rule
) -> tuple[Draft, Tensor, Tensor]:
    """Run the passes of a round; return the draft, how much of it is accepted and the bonus token after it.

    Nothing of it waits for the device, so all of it can be one CUDA graph.
    """
    draft = drafter.draft(sequences, gamma, rule)
    unverified = torch.cat((sequences.last(1), draft.tokens), dim=1)
    logits = target.forward(unverified, sequences.cache.next(unverified.shape[1]))
    accepted, bonus = rule.accept(logits, draft)
    return draft, accepted, bonus


@dataclass(frozen=True)
class Decoded:
    """What decoding gave.

    Attributes
    ----------
    tokens : generated tokens, [batch, count].
    rounds : tokens that each round gave, one array [batch] a round; 0 where a sequence was complete.
    """

    tokens: Tensor
    rounds: list[Counts]

    @property
    def tokens_per_round(self) -> float:
        """Mean over all rounds of all sequences while they were active. [tokens]"""
        tokens = np.concatenate(self.rounds)
        return float(tokens[tokens > 0].mean())


def generate(
    target: Decoder,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    drafter: MakeDrafter | None = None,
    gamma: int = 0,
    rule: Rule | None = None,
) -> Decoded:
    """Generate `count` tokens after each prompt, speculating where a drafter is given.

    Parameters
    ----------
    target : whose output it is.
    prompts : token ids, of any lengths.
    count : tokens to generate after each prompt.
    drafter : makes a drafter for the prefilled sequences, as `drafter_of` returns it.
    gamma : tokens drafted per round.
    rule : greedy where None.
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
    drafter: MakeDrafter | None = None,
    gamma: int = 0,
    rule: Rule | None = None,
    run_round: Callable[..., Counts] = draft_verify_round,
) -> Decoded:
    """Go on from prefilled sequences, round by round.

    Parameters
    ----------
    target, count, drafter, gamma, rule : as in `generate`.
    sequences : prefilled, without a pending token yet.
    first : the first token after each prompt, [batch].
    run_round : runs each round; takes the arguments of `draft_verify_round`, and may time it.
    """
    places = torch.as_tensor(sequences.cache.lens, device=first.device)
    sequences.tokens.scatter_(1, places[:, None], first[:, None])
    token_drafter = NoDrafter() if drafter is None else drafter(sequences)
    token_drafter.begin(sequences)
    rounds: list[Counts] = []
    while (active := sequences.generated < count).any():
        rounds.append(run_round(target, token_drafter, sequences, gamma, rule or Greedy(), active))
    return Decoded(sequences.output(count), rounds)
