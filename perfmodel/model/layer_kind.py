"""What a config says about one layer, before any mixer is read."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LayerKind"]


@dataclass(frozen=True)
class LayerKind:
    """What a config says about one layer.

    Parameters
    ----------
    tokens, channels : words for how its tokens mix, and for what each passes through alone.
    owns_cache, owns_index : False where it reads the cache, takes the choice, of an earlier layer.
    ratio : tokens to a compressed entry; 0 for none. [tokens]
    heads_in_group, ffn_mult : query heads to a KV head, and width of its MLP, where layers differ in them.
    index : its place, where a key lists a value of its own for it.
    """

    tokens: tuple[str, ...]
    channels: tuple[str, ...]
    owns_cache: bool = True
    owns_index: bool = True
    ratio: int = 0
    heads_in_group: int = 0
    ffn_mult: float = 0.0
    index: int | None = None
