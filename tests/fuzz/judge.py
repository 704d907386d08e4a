"""One input, one verdict: answered, refused, or one of the ways in which a tool must not end."""

from __future__ import annotations

import contextlib
import io
import json
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.errors import InfeasibleError, SpecError

__all__ = ["FAULTS", "LONGEST_S", "MOST_BYTES", "Verdict", "judged", "judged_command"]

LONGEST_S = 10.0
MOST_BYTES = 500_000_000
FAULTS = ("traceback", "hang", "memory", "raw", "unclear", "nonsense")

_KEPT = "\n"
_LONGEST_MESSAGE = 20_000


class Verdict(NamedTuple):
    """How an input ended, and what it printed of that."""

    outcome: str
    message: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether no input may end like this."""
        return self.outcome in FAULTS


class _Hang(BaseException):
    """The input took too long."""


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise _Hang

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, former)


def _forget_peak() -> int:
    """Measure the peak of memory anew, where the system allows it; return what it begins with. [B]"""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def judged(read: Callable[[], Any], names: Sequence[str], sound: Callable[[Any], str]) -> Verdict:
    """Judge a reader of the library.

    Parameters
    ----------
    read : reads the input.
    names : what a refusal may name to say where; the input's own name first.
    sound : what is nonsense about what was read, empty where nothing is.
    """
    before = _forget_peak()
    try:
        with _alarm():
            value = read()
    except SpecError as refusal:
        return _heavy(before) or _of_message([f"error: {fault}" for fault in refusal.faults], names)
    except InfeasibleError as refusal:
        return _heavy(before) or _of_message([f"error: {refusal}"], ())
    except _Hang:
        return Verdict("hang", f"over {LONGEST_S:g} s")
    except Exception:
        return Verdict("traceback", traceback.format_exc(limit=-3))
    if heavy := _heavy(before):
        return heavy
    problem = sound(value)
    return Verdict("nonsense", problem) if problem else Verdict("answered")


def judged_command(
    arguments: Sequence[str], names: Sequence[str], sound: Callable[[str], str], text: bytes | None = None
) -> Verdict:
    """Judge a command line; `sound` is given what it prints to stdout, `text` is its standard input."""
    before = _forget_peak()
    try:
        with _alarm():
            result = CliRunner().invoke(app, list(arguments), prog_name="draftplan", input=text)
    except _Hang:
        return Verdict("hang", f"over {LONGEST_S:g} s")
    printed = result.stderr
    if result.exit_code not in (0, 2, 3) or "error: unexpected " in printed or "Traceback (" in result.output:
        return Verdict("traceback", f"exit {result.exit_code}: {printed[-800:]} {result.exception!r}"[:1200])
    if heavy := _heavy(before):
        return heavy
    if raw := _raw(result.stdout + printed):
        return Verdict("raw", raw)
    if result.exit_code == 2 and "Usage: " in result.stdout:
        return Verdict("refused", "shows how it is used")
    if result.exit_code == 2:
        return _of_message([line for line in printed.splitlines() if line.startswith("error: ")], names)
    if result.exit_code == 3:
        return Verdict("refused", printed[:300])
    problem = sound(result.stdout)
    return Verdict("nonsense", problem) if problem else Verdict("answered")


def _heavy(before: int) -> Verdict | None:
    used = _peak() - before
    return Verdict("memory", f"{used / 1e6:.0f} MB") if used > MOST_BYTES else None


def _raw(text: str) -> str:
    strange = next((sign for sign in text if not sign.isprintable() and sign not in _KEPT), None)
    at = text.index(strange) if strange else 0
    return repr(text[max(0, at - 60) : at + 60]) if strange else ""


def _of_message(lines: Sequence[str], names: Sequence[str]) -> Verdict:
    text = "\n".join(lines)
    if raw := _raw(text):
        return Verdict("raw", raw)
    if not lines:
        return Verdict("unclear", "no line says what is wrong")
    if len(text) > _LONGEST_MESSAGE:
        return Verdict("unclear", f"{len(text)} characters: {text[:200]}")
    lost = [line for line in lines if names and not any(name in line for name in names)]
    return Verdict("unclear", lost[0][:500]) if lost else Verdict("refused", text[:300])


def finite(value: Any, at: str = "") -> str:
    """Return the place of the first number that is none, in what JSON holds; empty where there is none."""
    if isinstance(value, dict):
        return next(filter(None, (finite(item, f"{at}.{key}") for key, item in value.items())), "")
    if isinstance(value, (list, tuple)):
        return next(filter(None, (finite(item, f"{at}.{index}") for index, item in enumerate(value))), "")
    if isinstance(value, (int, float)) and not abs(value) < 1e25:
        return f"{at} is {value!r}"
    return ""


def sound_json(text: str) -> str:
    """Return what is wrong with a JSON answer as such."""
    try:
        return finite(json.loads(io.StringIO(text).read(), parse_constant=lambda _: float("nan")))
    except ValueError as error:
        return f"no JSON: {error}"
