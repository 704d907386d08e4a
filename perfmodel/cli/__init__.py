"""The command line `draftplan`."""

from __future__ import annotations

import gc
import os
import sys

__all__ = ["main"]

_MULTIPLIES = ("demo", "measure")
"""Commands that multiply large matrices on this machine; what others multiply is small."""
_GARBAGE = 100_000
"""Objects that are made before it is looked for cycles among the young: modules make many that stay. [1]"""


def main() -> None:
    """Run the command line on the arguments of this process."""
    _start_lightly(sys.argv[1:])
    try:
        from perfmodel.cli.app import build_app

        build_app(sys.argv[1:])(prog_name="draftplan")
    except KeyboardInterrupt:  # before the commands are there, or after they ended
        raise SystemExit(130) from None
    finally:
        gc.freeze()  # the process ends: nobody has to look through what it leaves


def _start_lightly(arguments: list[str]) -> None:
    """Spare a command what costs more at the start than it gives: matrix threads, looks for garbage.

    A number of threads that is in the environment stays.
    """
    if arguments[:1] and arguments[0] not in _MULTIPLIES:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(_GARBAGE, *gc.get_threshold()[1:])
