"""What computes, told apart: the source, the Python, the libraries and their last bits."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel._version import __version__

__all__ = ["Build", "build_here"]

_PACKAGES = ("perfmodel", "strategies", "hardware_profiles")
_ENDINGS = (".py", ".yaml", ".json", ".csv")


@dataclass(frozen=True)
class Build:
    """What two processes must have in common for their results to be one, bit for bit.

    Not numba: compiled formulas are used only where they give numpy's bits (`perfmodel.files.compiled`).

    Parameters
    ----------
    draftplan : the version.
    source : characters that stand for the source and the data of the package.
    python : implementation and minor version.
    numpy, scipy : their versions, empty where absent.
    arithmetic : characters that stand for the last bits of this machine's exponentials, logarithms and roots.
    """

    draftplan: str
    source: str
    python: str
    numpy: str
    scipy: str
    arithmetic: str

    def differences(self, there: Build) -> list[str]:
        """What another build has that this one has not: one text an entry, there and here."""
        pairs = ((field.name, str(getattr(there, field.name, "none")), getattr(self, field.name))
                 for field in fields(self))  # fmt: skip
        return [f"{_TITLES[name]} {other}, here {own}" for name, other, own in pairs if other != own]


_TITLES = {
    "draftplan": "draftplan", "source": "draftplan's source", "python": "Python", "numpy": "numpy",
    "scipy": "scipy", "arithmetic": "the arithmetic of its processor",
}  # fmt: skip


@functools.cache
def build_here() -> Build:
    """Return what computes in this process."""
    return Build(
        draftplan=__version__,
        source=_SOURCE,
        python=f"{platform.python_implementation()} {sys.version_info[0]}.{sys.version_info[1]}",
        numpy=np.__version__,
        scipy=_installed("scipy"),
        arithmetic=_last_bits(),
    )


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _digest(parts: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def _source() -> str:
    """Characters that stand for every file of the packages, by name and content."""
    parts: list[bytes] = []
    for package in _PACKAGES:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            root = Path(folder)
            files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))
            for name in files:
                if name.endswith(_ENDINGS):
                    parts += [f"\0{package}/{name}\0".encode(), (root / name).read_bytes()]
    return _digest(parts)


def _last_bits() -> str:
    """Characters that stand for what numpy's functions give here, which depends on the processor."""
    grid = np.geomspace(1e-9, 1e3, 4001)
    functions: Sequence[Callable[..., Any]] = (
        np.exp, np.exp2, np.expm1, np.log, np.log1p, np.log2, np.sqrt, np.cbrt, np.tanh,
    )  # fmt: skip
    with np.errstate(all="ignore"):
        values = [fn(grid) for fn in functions]
        values += [np.power(grid, 0.37), np.hypot(grid, 1.7), grid.sum(keepdims=True), np.exp(-grid)]
    return _digest([value.tobytes() for value in values])


# Read when this module is, so that a process that goes on after an upgrade keeps the name of what it runs.
_SOURCE = _source()
