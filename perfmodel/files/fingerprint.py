"""One short text that is the same for the same question and another for any other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from inspect import getsourcefile
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from perfmodel._version import __version__

__all__ = ["fingerprint"]

_OURS = ("perfmodel", "strategies", "hardware_profiles", "builtins", "numpy", "types", "collections")


def fingerprint(*values: Any) -> str:
    """Return 16 characters that stand for the values, their types and the version of the package.

    Numbers, texts, arrays, collections, dataclasses and plain objects are taken by value. Of a class that is
    not the package's own, the file that defines it counts too.

    Raises
    ------
    TypeError
        When a value can only be told by its identity.
    """
    digest = hashlib.sha256(__version__.encode())
    _feed(values, digest.update)
    return digest.hexdigest()[:16]


def _feed(value: Any, put: Callable[[bytes], None]) -> None:
    kind = type(value)
    put(f"<{kind.__module__}.{kind.__qualname__}>".encode())
    if kind.__module__.partition(".")[0] not in _OURS:
        put(_source(kind))
    if value is None or isinstance(value, (bool, int, str, PurePath)):
        put(str(value).encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes):
        put(value)
    elif isinstance(value, float):
        put((value.hex() if math.isfinite(value) else str(value)).encode())
    elif isinstance(value, Enum):
        put(value.name.encode())
    elif isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.hasobject:
            raise TypeError(f"an array of objects has no value: {kind}")
        put(f"{value.dtype.str}{value.shape}".encode())
        put(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, (list, tuple)):
        put(str(len(value)).encode())
        for item in value:
            _feed(item, put)
    elif isinstance(value, (Mapping, set, frozenset)):
        items = value.items() if isinstance(value, Mapping) else ((item,) for item in value)
        for part in sorted(fingerprint(*item) for item in items):
            put(part.encode())
    elif is_dataclass(value):
        for field in fields(value):
            put(field.name.encode())
            _feed(getattr(value, field.name), put)
    elif isinstance(value, type) or callable(value) or not hasattr(value, "__dict__"):
        raise TypeError(f"a {kind.__name__} has no value to be told by")
    else:
        _feed(vars(value), put)
    put(b"</>")


def _source(kind: type) -> bytes:
    try:
        file = getsourcefile(kind)
    except TypeError:
        return b""
    return Path(file).read_bytes() if file and Path(file).is_file() else b""
