"""JSON texts before they are read: how much they may hold."""

from __future__ import annotations

from perfmodel.errors import SpecError

__all__ = ["refuse_many"]

_BYTES = {"{": 190, "[": 60, ":": 30, ",": 40}
"""Memory of an object, a list, a key, and a number or short text with its place in a list, measured. [B]"""
_ALWAYS, _TIMES = 150_000_000, 2
"""What a text may take whatever its size, and how many times its own size beside that. [B], [1]"""


def refuse_many(text: str, file: str) -> None:
    """Refuse a JSON text that would take far more memory than itself. Raises SpecError.

    What it would take is counted by its signs, those inside of quotes too, before anything is made of it.
    """
    needed = sum(text.count(sign) * size for sign, size in _BYTES.items())
    if needed > _ALWAYS + _TIMES * len(text):
        problem = f"the file holds far too many values for its {len(text):,} characters"
        raise SpecError.single(file, "", problem, "Give the file as the tool wrote it, or a part of it")
