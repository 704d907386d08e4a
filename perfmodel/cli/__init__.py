"""The command line `draftplan`."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line on the arguments of this process."""
    try:
        from perfmodel.cli.app import app

        app(prog_name="draftplan")
    except KeyboardInterrupt:  # before the commands are there, or after they ended
        raise SystemExit(130) from None
