"""Flags read one by one, the faults of all of them kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import typer

from perfmodel.cli.ask.config import NOUNS, has_place
from perfmodel.cli.ask.counts import read_budgets, read_counts
from perfmodel.cli.ask.defaults import place_of
from perfmodel.errors import Fault, SpecError

__all__ = ["Reading", "read_flag"]

T = TypeVar("T")


class Reading:
    """Reads the flags of a command, keeps the faults of all, and in `remarks` how values were understood."""

    def __init__(self, ctx: typer.Context) -> None:
        self.ctx = ctx
        self.faults: list[Fault] = []
        self.remarks: list[str] = []

    def read(self, name: str, parse: Callable[[str], T], text: str | None) -> T | None:
        """Return what one flag means, or None where it is absent or wrong."""
        if text is None:
            return None
        try:
            return parse(text.strip())
        except SpecError as refusal:
            self.faults += [self._blame(name, fault) for fault in refusal.faults]
            return None

    def counts(
        self, name: str, text: str | None, least: int = 0, most: int | None = None, **how: bool
    ) -> list[int] | None:
        """Return the whole numbers that a flag names; arguments as in `read_counts`."""
        readings: list[str] = []
        counts = self.read(
            name, lambda given: read_counts(given, least, most, readings=readings, **how), text
        )
        self._remark(name, readings)
        return counts

    def budgets(self, name: str, text: str | None) -> list[float] | None:
        """Return the draft KV budgets that a flag names, infinite for ``all``. [tokens]"""
        readings: list[str] = []
        budgets = self.read(name, lambda given: read_budgets(given, readings), text)
        self._remark(name, readings)
        return budgets

    def _remark(self, name: str, readings: list[str]) -> None:
        self.remarks += [f"--{name.replace('_', '-')}: {reading}" for reading in readings]

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
