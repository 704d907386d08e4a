"""The command line `draftplan`."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line on the arguments of this process."""
    from perfmodel.cli.app import app

    app(prog_name="draftplan")
