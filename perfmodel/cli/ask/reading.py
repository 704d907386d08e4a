"""Flags read one by one, the faults of all of them kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import typer

from perfmodel.cli.ask.config import NOUNS, has_place, place_of
from perfmodel.errors import Fault, SpecError

__all__ = ["Reading", "read_flag"]

T = TypeVar("T")


class Reading:
    """Reads the flags of a command and keeps the faults of all of them."""

    def __init__(self, ctx: typer.Context) -> None:
        self.ctx = ctx
        self.faults: list[Fault] = []

    def read(self, name: str, parse: Callable[[str], T], text: str | None) -> T | None:
        """Return what one flag means, or None where it is absent or wrong."""
        if text is None:
            return None
        try:
            return parse(text.strip())
        except SpecError as refusal:
            self.faults += [self._blame(name, fault) for fault in refusal.faults]
            return None

    def _blame(self, name: str, fault: Fault) -> Fault:
        """Return a fault with the flag's place, unless it has one in a file."""
        if has_place(fault):
            return fault
        file, line, flag = place_of(self.ctx, name)
        part = f"{fault.field} " if fault.file in NOUNS and fault.field else ""
        return replace(fault, file=file, line=line, field=flag, problem=part + fault.problem)

    def finish(self) -> None:
        """Refuse the flags if any was wrong. Raises SpecError with every fault, once each."""
        if self.faults:
            raise SpecError(dict.fromkeys(self.faults))


def read_flag(ctx: typer.Context, name: str, parse: Callable[[str], T], text: str | None) -> T | None:
    """Return what one flag means, None where it is absent. Raises SpecError naming the flag."""
    reading = Reading(ctx)
    value = reading.read(name, parse, text)
    reading.finish()
    return value
