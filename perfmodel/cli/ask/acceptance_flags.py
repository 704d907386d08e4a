"""The flags that say what is believed of acceptance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

__all__ = ["AcceptanceFlags"]

_ACCEPTANCE = "Acceptance"


@dataclass(frozen=True, kw_only=True)
class AcceptanceFlags:
    """What was measured of acceptance, and what the published laws are asked under."""

    acceptance: Annotated[
        str | None,
        typer.Option(
            "--acceptance", "--acceptance-file", metavar="FILE", rich_help_panel=_ACCEPTANCE,
            help="Acceptance measured on your own traffic, from `draftplan acceptance fit -o FILE`.",
        ),
    ] = None  # fmt: skip
    acceptance_rate: Annotated[
        str | None,
        typer.Option(
            "--acceptance-rate", metavar="ALPHA", rich_help_panel=_ACCEPTANCE,
            help="Measured chance that a drafted token is accepted, given all before it were; 0 to 1. "
            "Replaces the published laws of all strategies.",
        ),
    ] = None  # fmt: skip
    acceptance_length: Annotated[
        str | None,
        typer.Option(
            "--acceptance-length", metavar="TOKENS[@GAMMA]", rich_help_panel=_ACCEPTANCE,
            help="Measured tokens per round, bonus token included, and the speculation length they were "
            "measured at: 3.2@4. Without @GAMMA, --gamma must name one.",
        ),
    ] = None  # fmt: skip
    temperature: Annotated[
        str | None,
        typer.Option(
            "--temperature", metavar="T", rich_help_panel=_ACCEPTANCE,
            help="Sampling temperature, greedy where absent. It costs small models and heads acceptance.",
        ),
    ] = None  # fmt: skip
    far_share: Annotated[
        str | None,
        typer.Option(
            "--far-share", metavar="SHARE", rich_help_panel=_ACCEPTANCE,
            help="Share of tokens that need content from anywhere in the context, 0 where absent: little in "
            "prose and reasoning, much in retrieval, where windows fail and choosing by the query does not.",
        ),
    ] = None  # fmt: skip
    trained_length: Annotated[
        str | None,
        typer.Option(
            "--trained-length", metavar="TOKENS", rich_help_panel=_ACCEPTANCE,
            help="Context that a drafting head was trained to read; each strategy's own where absent.",
        ),
    ] = None  # fmt: skip
