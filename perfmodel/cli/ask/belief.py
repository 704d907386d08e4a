"""Flags to what is believed of acceptance: a rate, measurements, and what the laws are asked under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from perfmodel.acceptance import Conditions
from perfmodel.acceptance.inverse import alpha_from_mean_length
from perfmodel.cli.ask.flags import AcceptanceFlags
from perfmodel.cli.ask.reading import Reading
from perfmodel.errors import SpecError
from perfmodel.files.units import parse_count, parse_quantity
from strategies.base import Tree

if TYPE_CHECKING:
    from perfmodel.acceptance.file import MeasuredAcceptance

__all__ = ["Belief", "read_belief", "read_share"]

HOTTEST = 5.0


@dataclass(frozen=True)
class Belief:
    """A rate that replaces all laws, or None; what was measured; what the laws are asked under."""

    alpha: float | None
    measured: tuple[MeasuredAcceptance, ...]
    conditions: Conditions


def read_belief(
    reading: Reading, flags: AcceptanceFlags, gammas: list[int] | None, trees: Sequence[Tree] = ()
) -> Belief:
    """Return what the flags say of acceptance; `reading` keeps the faults.

    Parameters
    ----------
    gammas, trees : speculation lengths and trees that are searched; a length was measured at one of them.
    """
    read = reading.read
    alpha = read("acceptance_rate", read_share, flags.acceptance_rate)
    if flags.acceptance_length is not None:
        alpha = read("acceptance_length", partial(_alpha_from_length, gammas, trees), flags.acceptance_length)
        if flags.acceptance_rate is not None:
            read("acceptance_length", _refuse_both, flags.acceptance_length)
    given: dict[str, Any] = {
        "temperature": read("temperature", _temperature, flags.temperature),
        "far_share": read("far_share", read_share, flags.far_share),
        "match_share": read("match_share", read_share, flags.match_share),
        "trained_length": read("trained_length", _tokens, flags.trained_length),
    }
    return Belief(
        alpha=alpha,
        measured=read("acceptance", _measured, flags.acceptance) or (),
        conditions=Conditions(**{name: value for name, value in given.items() if value is not None}),
    )


def read_share(text: str) -> float:
    """Return a share from 0 to 1. Raises SpecError."""
    value = parse_quantity(text, "ratio")
    if not 0.0 <= value <= 1.0:
        raise SpecError.single("", "", f"found {text}", "Give a share from 0 to 1, such as 0.8")
    return value


def _measured(file: str) -> tuple[MeasuredAcceptance, ...]:
    from perfmodel.acceptance.file import read_acceptance

    return read_acceptance(file)


def _temperature(text: str) -> float:
    value = parse_quantity(text, "count")
    if not 0.0 <= value <= HOTTEST:
        raise SpecError.single("", "", f"found {text}", f"Give a temperature from 0 to {HOTTEST:g}")
    return value


def _tokens(text: str) -> float:
    count = parse_count(text)
    if count < 1:
        raise SpecError.single("", "", f"found {text}", "Give a number of tokens, 1 or more")
    return float(count)


def _alpha_from_length(gammas: list[int] | None, trees: Sequence[Tree], text: str) -> float:
    length, at, measured_at = text.partition("@")
    drafting = sorted({tree.steps for tree in trees}) or [gamma for gamma in gammas or [] if gamma > 0]
    if at:
        gamma = parse_count(measured_at)
    elif len(drafting) == 1:
        gamma = drafting[0]
    else:
        raise SpecError.single(
            "", "", f"found {text} without the speculation length it was measured at",
            f"Write {text}@4 if it was measured with 4 drafted tokens",
        )  # fmt: skip
    tokens = parse_quantity(length, "count")
    if gamma < 1 or not 1.0 <= tokens <= gamma + 1.0:
        raise SpecError.single(
            "", "", f"found {tokens:g} tokens per round at speculation length {gamma}",
            f"Give 1 to {gamma + 1}: the bonus token counts",
        )  # fmt: skip
    measured_on = [tree for tree in trees if tree.steps == gamma]
    if len(measured_on) > 1:
        raise SpecError.single(
            "", "", f"found {text} with several trees of {gamma} steps", "Name the tree it was measured on"
        )
    return float(alpha_from_mean_length(tokens, float(gamma), *measured_on))


def _refuse_both(text: str) -> float:
    raise SpecError.single("", "", f"found {text} beside --acceptance-rate", "Give one of the two")
