"""Recurrent states of a batch: after a pass, one for every length that verification may accept.

A rejected draft cannot be taken out of a state, so a pass over q tokens leaves q + 1 states and the length
that is accepted says which of them is the sequence's: one state slot per drafted token, as vLLM keeps them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.architecture import Architecture
from perfmodel.reference.layer import State

__all__ = ["Counts", "States"]

Counts = NDArray[np.int64]


class States:
    """The states of all recurrent layers of a decoder, found by the length of each sequence.

    Rolling back is no act: whoever asks for the state at a shorter length gets that state.

    Parameters
    ----------
    architecture : says which layers have states, of which shapes.
    batch : sequences.
    dtype : type of the decoder; states are of float32 at least.
    device : where they are.
    """

    def __init__(
        self, architecture: Architecture, batch: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self._batch, self._device = batch, device
        self._dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self._shapes = {
            layer: mixer.state_shapes for layer, mixer in enumerate(architecture.mixers) if mixer.state_shapes
        }
        self.clear()

    def clear(self) -> None:
        """Go back to the empty text, whose states are zero."""

        def blank(shape: tuple[int, ...]) -> Tensor:
            return torch.zeros(1, self._batch, *shape, dtype=self._dtype, device=self._device)

        self._slots: dict[int, State] = {layer: tuple(map(blank, of)) for layer, of in self._shapes.items()}
        self._first = {layer: np.zeros(self._batch, dtype=np.int64) for layer in self._slots}

    def fork(self) -> States:
        """Return a scratch copy, for drafts that leave these as they are; no tensor is copied."""
        other = object.__new__(States)
        other.__dict__ = {**self.__dict__, "_slots": dict(self._slots), "_first": dict(self._first)}
        return other

    def kept(self, layer: int) -> int:
        """Return how many states of every sequence a layer holds."""
        return len(self._slots[layer][0])

    def at(self, layer: int, lens: Counts, counted: Counts | None = None) -> State:
        """Return the state of a layer after the first `lens` tokens of each sequence, each [batch, ...].

        Sequences of which no token is `counted` may have any state.

        Raises
        ------
        IndexError
            Where no pass left a state at that length.
        """
        if counted is not None:
            lens = np.where(counted > 0, lens, self._first[layer])
        return tuple(slots[0] for slots in self._between(layer, lens, lens))

    def leave(
        self, layer: int, lens: Counts, first: Counts, after: State, counted: Counts | None = None
    ) -> None:
        """Take in the states that a pass leaves.

        Parameters
        ----------
        layer : whose states they are.
        lens : valid entries of each sequence; no shorter length will be asked for. [tokens]
        first : entries before the pass: `lens`, and what was drafted since. [tokens]
        after : after each token of the pass, [query_tokens, batch, ...].
        counted : tokens of the pass that are known to stay, where they are known, as of a prompt: one state
            is kept of each sequence then. Sequences of which none counts stay as they are.
        """
        if counted is None:
            before = self._between(layer, lens, first)
            self._slots[layer] = tuple(torch.cat(parts) for parts in zip(before, after, strict=True))
            self._first[layer] = lens.copy()
            return
        going_on = counted > 0
        there = torch.as_tensor(np.maximum(counted - 1, 0), device=self._device)
        rows = torch.arange(self._batch, device=self._device)
        slots = tuple(slots[:1].clone() for slots in self._slots[layer])
        mask = torch.as_tensor(going_on, device=self._device)
        for slot, states in zip(slots, after, strict=True):
            slot[0, mask] = states[there, rows][mask].to(slot.dtype)
        self._slots[layer] = slots
        self._first[layer] = np.where(going_on, first + counted, self._first[layer])

    def _between(self, layer: int, start: Counts, end: Counts) -> tuple[Tensor, ...]:
        """Return the states at the lengths ``start .. end``, as many of each row: [count, batch, ...]."""
        count = int((end - start).max()) + 1
        slots = (start - self._first[layer])[None] + np.arange(count)[:, None]
        if slots.min() < 0 or slots.max() >= self.kept(layer):
            raise IndexError(f"layer {layer} has no state at a length that is asked for")
        index = torch.as_tensor(slots, device=self._device)
        rows = torch.arange(self._batch, device=self._device)
        return tuple(states[index, rows] for states in self._slots[layer])
