"""Plan files: read strictly, refused by name and place."""

from __future__ import annotations

import json
import os
from pathlib import Path

from perfmodel.errors import SpecError
from perfmodel.planning.plan import Plan

__all__ = ["LARGEST_PLAN", "read_plan"]

LARGEST_PLAN = 1 << 30
"""A larger file is not a plan. [B]"""
REMEDY = "make it with draftplan plan --format json"


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan in a file.

    Raises
    ------
    SpecError
        When the file cannot be read, is not JSON, is no plan or holds numbers that cannot be.
    """
    name = os.fspath(path)
    try:
        if Path(name).stat().st_size > LARGEST_PLAN:
            raise SpecError.single(name, "file", f"is larger than {LARGEST_PLAN >> 20} MiB", REMEDY)
        body = json.loads(Path(name).read_text(encoding="utf-8"), parse_constant=_refused)
    except OSError as fault:
        raise SpecError.single(name, "file", f"cannot be read ({fault.strerror})", "check the path") from None
    except SpecError:
        raise
    except (ValueError, RecursionError) as fault:
        raise SpecError.single(name, "file", f"is not JSON ({fault})", REMEDY) from None
    return Plan.from_dict(body, name)


def _refused(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")
