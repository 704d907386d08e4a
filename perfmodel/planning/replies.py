"""What comes back for a piece of work: who computed it, and whether that one is believed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perfmodel.errors import Fault, SpecError
from perfmodel.files.build import Build, build_here

__all__ = ["SAME_BUILD", "Reply", "answer", "believed", "shown_failure", "stranger"]

SAME_BUILD = "Install the same draftplan, Python, numpy and scipy on every worker and start it again"


@dataclass(frozen=True)
class Reply:
    """What comes back for a piece of work: who computed it, and its result or its failure."""

    build: Build
    place: str
    result: Any = None
    failure: Exception | None = None


def answer(expected: Build, fn: Callable[..., Any], *arguments: Any) -> Reply:
    """Do a piece of work where the build is the expected one, and say where it was done.

    Another build computes nothing: the reply then has its name alone. A failure of the work is its answer; a
    failure to bring the work here, or for want of memory, is raised.
    """
    here, place = build_here(), _place()
    if here != expected:
        return Reply(here, place)
    try:
        return Reply(here, place, fn(*arguments))
    except MemoryError:
        raise
    except Exception as failure:
        return Reply(here, place, failure=failure)


def believed(reply: object, here: Build) -> Any:
    """Return the result of a piece of work, or raise its failure; SpecError where another build answers."""
    build = getattr(reply, "build", None)
    if not isinstance(reply, Reply) or build != here:
        raise SpecError([stranger(here, str(getattr(reply, "place", "")), build)])
    if reply.failure is not None:
        raise reply.failure
    return reply.result


def stranger(here: Build, place: str, there: object) -> Fault:
    """Return what is wrong with a worker that another build, no build or a failure answers for."""
    if isinstance(there, Build):
        problem = f"has {'; '.join(here.differences(there))}"
    elif isinstance(there, (ImportError, AttributeError)):
        problem = f"has no draftplan, or an older one; here {here.draftplan}"
    else:
        problem = f"does not say which draftplan it has; here {here.draftplan}"
    return Fault("", None, "--executor", f"the worker{place and ' at '}{place} {problem}", SAME_BUILD)


def shown_failure(failure: BaseException) -> str:
    """Return the kind and the first words of a failure of a library, on one line."""
    causes: list[BaseException] = [failure]
    while (cause := causes[-1].__cause__) is not None and len(causes) < 5:
        causes.append(cause)
    words = (" ".join(f"{type(cause).__name__}: {cause}".split()).rstrip(":")[:160] for cause in causes)
    return "; ".join(dict.fromkeys(words))


def _place() -> str:
    """The address of the Dask worker that this is, empty where it is none."""
    worker = sys.modules.get("distributed.worker")
    try:
        return str(worker.get_worker().address) if worker else ""
    except (ValueError, AttributeError):
        return ""
