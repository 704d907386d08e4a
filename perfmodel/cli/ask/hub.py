"""Leaving the hub of models out of one command: --offline."""

from __future__ import annotations

import os

import typer

__all__ = ["leave_hub_out"]

_OFFLINE = "HF_HUB_OFFLINE"


def leave_hub_out(ctx: typer.Context, value: bool) -> bool:
    """Set what its library reads too, until the command ends."""
    if value and not ctx.resilient_parsing:
        former = os.environ.get(_OFFLINE)
        os.environ[_OFFLINE] = "1"

        def restore() -> None:
            if former is None:
                os.environ.pop(_OFFLINE, None)
            else:
                os.environ[_OFFLINE] = former

        ctx.call_on_close(restore)
    return value
