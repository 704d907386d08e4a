"""The flags that say what is believed of acceptance."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.cli.ask.flag import flag

__all__ = ["AcceptanceFlags"]

_ACCEPTANCE = "Acceptance"


@dataclass(frozen=True, kw_only=True)
class AcceptanceFlags:
    """What was measured of acceptance, and what the published laws are asked under."""

    acceptance: str | None = flag("--acceptance", "--acceptance-file", "FILE", panel=_ACCEPTANCE,
        help="Acceptance measured on your own traffic, from `draftplan acceptance fit -o FILE`.")
    acceptance_rate: str | None = flag("--acceptance-rate", "ALPHA", panel=_ACCEPTANCE,
        help="Measured chance that a drafted token is accepted, given all before it were; 0 to 1. Replaces "
        "the published laws of all strategies.")
    acceptance_length: str | None = flag("--acceptance-length", "TOKENS[@GAMMA]", panel=_ACCEPTANCE,
        help="Measured tokens per round, bonus token included, and the speculation length they were "
        "measured at: 3.2@4. Without @GAMMA, --gamma must name one.")
    temperature: str | None = flag("--temperature", "T", panel=_ACCEPTANCE,
        help="Sampling temperature, greedy where absent. It costs small models and heads acceptance.")
    far_share: str | None = flag("--far-share", "SHARE", panel=_ACCEPTANCE,
        help="Share of tokens that need content from anywhere in the context, 0 where absent: little in "
        "prose and reasoning, much in retrieval, where windows fail and choosing by the query does "
        "not.")
    trained_length: str | None = flag("--trained-length", "TOKENS", panel=_ACCEPTANCE,
        help="Context that a drafting head was trained to read; each strategy's own where absent.")
