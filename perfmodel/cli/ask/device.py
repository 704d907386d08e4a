"""The device that the reference decoder runs on, and PyTorch, which it needs."""

from __future__ import annotations

import importlib.util
from typing import Any

__all__ = ["device_asked", "need_torch"]


def need_torch(command: str) -> None:
    """Raise SpecError, saying what to install, where PyTorch is missing."""
    try:
        present = importlib.util.find_spec("torch") is not None
    except (ImportError, ValueError):
        present = False
    if not present:
        from perfmodel.errors import SpecError
        from perfmodel.files.extras import how_to_install

        remedy = f"{how_to_install('reference')}; a CPU build alone is at https://download.pytorch.org/whl/cpu"
        raise SpecError.single("", command, "needs PyTorch, which is not installed", remedy)


def device_asked(name: str) -> Any:
    """Return torch's device of that name. Raises SpecError where there is none."""
    from perfmodel.reference.timing.stopwatch import device_named

    return device_named(name)
