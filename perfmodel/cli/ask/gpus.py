"""Accelerators that --gpus names, in place of --hardware."""

from __future__ import annotations

import typer

from perfmodel.cli.ask.defaults import Defaults, set_defaults

__all__ = ["is_number", "read_gpus"]


def read_gpus(ctx: typer.Context, value: str | None) -> str | None:
    """Let the accelerators that --gpus names stand for --hardware; a number alone stays its own."""
    if value is not None and not ctx.resilient_parsing and not is_number(value):
        set_defaults(ctx, "gpus", Defaults({"hardware": value}, {"hardware": ("", None, "--gpus")}))
    return value


def is_number(text: str) -> bool:
    """Tell whether --gpus names a number, or several, and no accelerator."""
    return all(part.strip()[:1].isdigit() and part.strip()[-1:].isdigit() for part in text.split(",")) and (
        not any(sign.isalpha() for sign in text)
    )
