"""What recurrent mixers share: a short convolution, and a state that decays, is written and is read.

Both leave a state after every token of a pass, as a rejected draft cannot be taken out of a state again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["convolve", "log_decay", "scan"]


def convolve(window: Tensor, entering: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Convolve every channel with its own kernel over the last tokens, causally.

    Parameters
    ----------
    window : the tokens before, [batch, width - 1, channels].
    entering : those of the pass, [batch, query_tokens, channels].
    kernel : [channels, width]; its last column meets the token itself.

    Returns
    -------
    [batch, query_tokens, channels], and the window after every token, [query_tokens, batch, width - 1,
    channels].
    """
    known = torch.cat((window, entering), dim=1)
    spans = known.unfold(1, kernel.shape[1], 1)  # [batch, query_tokens, channels, width]
    return (spans * kernel).sum(-1).to(entering.dtype), spans[..., 1:].permute(1, 0, 3, 2)


def scan(
    state: Tensor, query: Tensor, key: Tensor, value: Tensor, decay: Tensor, strength: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run ``S = a S + k v^T``, ``o = S^T q`` token by token; with a strength by the delta rule.

    The delta rule writes ``b (v - (a S)^T k)`` in place of ``v``: what the state says of the key already is
    taken out. Source: gated delta networks, arXiv 2412.06464, equation 10.

    Parameters
    ----------
    state : [batch, heads, key_dim, value_dim].
    query, key : [batch, query_tokens, heads, key_dim].
    value : [batch, query_tokens, heads, value_dim].
    decay : what is left of the state, [batch, query_tokens, heads, key_dim or 1].
    strength : [batch, query_tokens, heads, 1]; None where values are added as they are.

    Returns
    -------
    What the queries read, of the shape of `value`, and the state after every token, [query_tokens, batch,
    heads, key_dim, value_dim].
    """
    read, states = [], []
    for token in range(query.shape[1]):
        state = decay[:, token, ..., None] * state
        written = value[:, token]
        if strength is not None:
            written = strength[:, token] * (written - _read(state, key[:, token]))
        state = state + key[:, token, ..., None] * written[:, :, None]
        read.append(_read(state, query[:, token]))
        states.append(state)
    return torch.stack(read, dim=1).to(value.dtype), torch.stack(states)


def _read(state: Tensor, vector: Tensor) -> Tensor:
    """Return ``S^T x`` of every head, [batch, heads, value_dim]."""
    return (vector[..., None] * state).sum(-2)


def log_decay(speed: Tensor, step: Tensor) -> Tensor:
    """Return ``-exp(A) softplus(step)``, the logarithm of what one token leaves of a state."""
    return -speed.exp() * F.softplus(step)
