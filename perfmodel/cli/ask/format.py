"""How an answer is written: as asked, or as the name of the file says."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

__all__ = ["Format", "read_format"]

_SUFFIXES = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".csv": "csv"}


class Format(str, Enum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


def read_format(asked: Format | None, output: str | None = None, *, csv: bool = True) -> Format:
    """Return the format asked for, else the one that the file's ending says, else a table.

    Raises
    ------
    SpecError
        When it is CSV and the answer has no rows (`csv` is False).
    """
    from perfmodel.errors import SpecError

    wanted = asked
    if wanted is None:
        wanted = Format(_SUFFIXES.get(Path(output).suffix.lower(), "table")) if output else Format.TABLE
    if wanted is Format.CSV and not csv:
        raise SpecError.single("", "--format", "found 'csv'", "Use table, json or yaml")
    return wanted
