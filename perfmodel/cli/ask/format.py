"""How an answer is written: as asked, or as the name of the file says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from perfmodel.cli.ask.flag import flag

__all__ = ["Format", "OutputFlags", "read_format", "refuse_csv"]

_SUFFIXES = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".csv": "csv"}


class Format(str, Enum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """How the answer is written."""

    format: Format | None = flag("--format", panel="Answer",
        help="How to write it; a table, or what the ending of -o says.")
    output: str | None = flag("--output", "-o", "FILE", panel="Answer",
        help="Write to a file, not to stdout.")
    no_color: bool = flag("--no-color", default=False, panel="Answer",
        help="No colours; so does the variable NO_COLOR.")


def read_format(flags: OutputFlags) -> Format:
    """Return the format asked for, else the one that the file's ending says, else a table."""
    if flags.format is not None:
        return Format(flags.format)
    return Format(_SUFFIXES.get(Path(flags.output).suffix.lower(), "table")) if flags.output else Format.TABLE


def refuse_csv(flags: OutputFlags) -> None:
    """Refuse CSV for an answer that has no rows. Raises SpecError."""
    from perfmodel.errors import SpecError

    if read_format(flags) is Format.CSV:
        raise SpecError.single("", "--format", "found 'csv'", "Use table, json or yaml")
