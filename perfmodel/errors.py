"""The two ways to say no: a wrong specification, and a question without a feasible answer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

__all__ = ["Fault", "InfeasibleError", "SpecError", "escaped", "nearest_name", "printable", "shown"]


@dataclass(frozen=True)
class Fault:
    """One thing wrong in one place: where, what, and what to write instead.

    `file` and `field` are empty and `line` is None where they do not apply (an argument has no file).
    """

    file: str
    line: int | None
    field: str
    problem: str
    remedy: str = ""
    nearest: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        sentences = [self.problem, self.remedy, f"Did you mean {self.nearest!r}?" if self.nearest else ""]
        text = " ".join(_as_sentence(sentence) for sentence in sentences if sentence)
        return printable(": ".join(part for part in (place, self.field, text) if part))


class SpecError(ValueError):
    """A file, name or argument that cannot be accepted; `faults` lists everything wrong with it at once."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)

    @classmethod
    def single(
        cls, file: str, field: str, problem: str, remedy: str = "", nearest: str | None = None,
        line: int | None = None,
    ) -> SpecError:  # fmt: skip
        """Return the error for exactly one fault."""
        return cls([Fault(file, line, field, problem, remedy, nearest)])

    def located(self, file: str, line: int | None, field: str) -> SpecError:
        """Return the same refusal with the place filled in where a fault does not know its own."""
        return SpecError(
            replace(fault, file=fault.file or file, line=line if fault.line is None else fault.line,
                    field=fault.field or field)
            for fault in self.faults
        )  # fmt: skip


class InfeasibleError(Exception):
    """A well-formed question that no configuration satisfies.

    `counts` says how many configurations fell for each reason, `nearest_miss` describes the closest one.
    """

    def __init__(self, counts: Mapping[str, int], nearest_miss: str) -> None:
        self.counts = dict(counts)
        self.nearest_miss = nearest_miss
        super().__init__(self.counts, nearest_miss)

    def __str__(self) -> str:
        fallen = ", ".join(f"{reason}: {count}" for reason, count in self.counts.items() if count)
        text = "no configuration is feasible" + (f" ({fallen})" if fallen else "")
        nearest = [f"Nearest miss: {self.nearest_miss}"] if self.nearest_miss else []
        return " ".join(_as_sentence(sentence) for sentence in (f"{text}.", *nearest))


def nearest_name(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that `word` most likely meant, or None; case and the signs - _ . do not count."""
    folded = {_fold(name): name for name in known}
    close = difflib.get_close_matches(_fold(word[:100]), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def printable(text: str, keep: str = "") -> str:
    """Return a text with every character that a reader would not see written out, as ``\\x1b``.

    These are control characters and line ends, escapes, direction marks and other invisible ones, halves of
    character pairs and spaces other than the usual one: nothing of an input moves a terminal's cursor, turns
    the order of letters or begins a line of its own.

    Parameters
    ----------
    keep : characters that stay, such as the line end of a text of many lines.
    """
    bare = text
    for sign in keep:
        bare = bare.replace(sign, "")
    if bare.isprintable():
        return text
    seen = (sign.isprintable() or sign in keep for sign in text)
    return "".join(
        sign if is_seen else sign.encode("unicode_escape").decode()
        for sign, is_seen in zip(text, seen, strict=True)
    )


def escaped(text: str, *, pairs: bool) -> str:
    """Return a text of JSON or YAML with what a reader would not see as ``\\u202e``; it means the same.

    In YAML such characters have to stand in double quotes. Line ends stay.

    Parameters
    ----------
    pairs : whether a character beyond 16 bits becomes two halves, as in JSON, or ``\\U0001f3fb``, as in YAML.
    """
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign == "\n" else _as_code(sign, pairs) for sign in text
    )


def _as_code(sign: str, pairs: bool) -> str:
    code = ord(sign)
    if code < 0x10000:
        return f"\\u{code:04x}"
    if not pairs:
        return f"\\U{code:08x}"
    return "".join(f"\\u{half:04x}" for half in (0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code & 0x3FF)))


def shown(value: object) -> str:
    """Return a value for people, in at most 60 characters."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**30:
        return "an integer of more than 30 digits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fold(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-").replace(" ", "-")


def _as_sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."
