"""From the token mixers that are priced to those that run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from perfmodel.model import ModelSpec
from perfmodel.model.mixers import TokenMixer
from perfmodel.reference.mixers import Mixer, mixers

__all__ = ["mixers_of", "unknown_mixers"]


def mixers_of(spec: ModelSpec) -> tuple[Mixer, ...]:
    """Return a mixer for every token mixer of a priced model, which must all be known.

    A priced model counts equal layers and does not say where they stand. Here each kind is spread evenly,
    those that look back least first, and layers that read another's cache follow those that own one. Mixers
    that stand side by side in a layer follow each other.
    """
    return tuple(mixer for _, _, mixer in sorted(_spread(spec), key=lambda placed: placed[:2]))


def unknown_mixers(spec: ModelSpec) -> list[str]:
    """Return what the token mixers of a priced model are called that have no counterpart here."""
    return [priced.label for priced, _ in spec.token_mixers if _find_counterpart(priced) is None]


def _spread(spec: ModelSpec) -> Iterator[tuple[tuple[bool, float], float, Mixer]]:
    """Yield every mixer with what it is ordered by: whether it shares a cache, its place, its reach."""
    for priced, count in spec.token_mixers:
        if (mixer := _find_counterpart(priced)) is not None:
            for number in range(1, count + 1):
                yield (not getattr(priced, "owns_cache", True), number / count), priced.reach, mixer


def _find_counterpart(priced: TokenMixer) -> Mixer | None:
    """Return the mixer of the same file with the same sizes; None where there is none.

    None too where a layer takes over the choice of another, and where convolutions stand around attention.
    """
    kind = mixers().get(type(priced).__module__.rpartition(".")[-1])
    if kind is None or not getattr(priced, "owns_index", True):
        return None
    mixer = kind(**{field.name: getattr(priced, field.name) for field in fields(kind)})
    return mixer if bool(mixer.state_shapes) == (priced.state is not None) else None
