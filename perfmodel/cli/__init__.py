"""The command line `draftplan`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line on the arguments of this process."""
    try:
        from perfmodel.cli.app import build_app

        build_app(sys.argv[1:])(prog_name="draftplan")
    except KeyboardInterrupt:  # before the commands are there, or after they ended
        raise SystemExit(130) from None
