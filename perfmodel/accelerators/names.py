"""What people call accelerators: spellings that mean the same one, and those that have no profile."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from perfmodel.errors import Fault, nearest_name
from perfmodel.files.document import read_yaml

__all__ = ["MAKERS", "Unprofiled", "counted", "not_profiled", "spelling"]

MAKERS = ("nvidia", "amd", "intel")
"""Who may stand before a name with a slash, as in nvidia/h100."""

_TABLE = Path(__file__).resolve().parents[1] / "data" / "accelerators.yaml"
_SILENT = frozenset(
    {
        "nvidia", "amd", "intel", "instinct", "geforce", "tesla", "radeon", "quadro", "gpu", "graphics",
        "edition", "generation", "blackwell", "hopper", "ampere", "lovelace", "hgx", "dgx", "oam",
        "tensor", "core", "accelerator",
        "hbm2", "hbm2e", "hbm3", "hbm3e", "gddr6", "gddr6x", "gddr7",
    }
)  # fmt: skip
"""Words of a name that tell no two accelerators apart."""
_JOINED = (
    (r"\((r|tm|c)\)|[®™]", " "),
    (r"[^a-z0-9]+", " "),
    (r"\b(\d+) ?(gb|gib|g)\b", r"\1gb"),
    (r"(?<=\d)(sxm\d?|pcie|nvl)\b", r" \1"),
    (r"\bsxm\d\b", "sxm"),
    (r"\b(rtx|gtx|dgx)(?=\d)", r"\1 "),
    (r"\b(mi|gh|gb|[abhlv]) (?=\d)", r"\1"),
)
"""Spellings of one word, as patterns over a name in lower case."""
_COUNTED = (
    re.compile(r"^\s*(?P<gpus>\d{1,2})\s*[x*\u00d7]\s*(?P<name>.*\S)\s*$", re.IGNORECASE),
    re.compile(r"^\s*(?P<name>.*\S)\s*[x*\u00d7]\s*(?P<gpus>\d{1,2})\s*$", re.IGNORECASE),
)


@dataclass(frozen=True)
class Unprofiled:
    """An accelerator without a profile, the one `nearest` in kind if any, and what to `change` in a copy."""

    name: str
    nearest: str
    change: str

    @property
    def remedy(self) -> str:
        """What to do instead, for people."""
        if not self.nearest:
            return f"Nothing here is near it: {self.change}. A YAML file of your own figures can be given"
        return (
            f"The nearest in kind is {self.nearest}: copy hardware_profiles/{self.nearest}.yaml under a new "
            f"name, give the path of the copy, and change {self.change}"
        )


def spelling(name: str) -> frozenset[str]:
    """Return the words that say which accelerator is meant: ``NVIDIA A100-SXM4-80GB`` as a100, sxm and 80gb.

    Case, order, signs, makers, the kind of memory and the generation of a socket do not count.
    """
    text = name.lower()
    for pattern, word in _JOINED:
        text = re.sub(pattern, word, text)
    return frozenset(text.split()) - _SILENT or frozenset(text.split())


def counted(name: str) -> tuple[str, int] | None:
    """Return the name and the number that ``8xH200``, ``H200 x 8`` or ``8*h200`` says; None for one alone.

    What sounds so but is a name, as one that is profiled or listed, is for the caller to tell.
    """
    match = next(filter(None, (pattern.match(name) for pattern in _COUNTED)), None)
    return (match["name"], int(match["gpus"])) if match else None


def not_profiled(name: str, known: Iterable[str]) -> Fault:
    """Return why no profile is called `name`, and the remedy.

    Several GPUs in one name are told apart from their number. An accelerator of the table is said to have no
    profile, with the nearest in kind. A name of `known` is suggested only with the same letters and number of
    the model, or a number that goes on from it: an H20 is no H200.
    """
    known, shown = tuple(known), repr(name[:100])
    of_several = counted(name)
    words = spelling(of_several[0] if of_several else name)
    single = next((word for word in known if spelling(word) == words), None)
    if of_several and single is not None:
        remedy = f"Give {single} here and their number as --tp {of_several[1]}"
        return Fault("", None, "", f"{shown} says how many GPUs, and this is the name of one", remedy)
    listed = max((entry for entry in _unprofiled() if entry <= words), key=len, default=frozenset[str]())
    profiled = max((len(spelling(word)) for word in known if spelling(word) <= words), default=0)
    if listed and len(listed) >= profiled:
        return Fault("", None, "", f"{shown} has no profile", _unprofiled()[listed].remedy)
    alike = [word for word in known if _may_mean(words, spelling(word))]
    problem = f"there is no hardware profile called {shown}"
    return Fault("", None, "", problem, "", nearest_name(name, alike))


def _may_mean(typed: frozenset[str], known: frozenset[str]) -> bool:
    """Say whether a name may be a slip of the pen for another: letters and numbers of the model agree."""
    models = _models(typed)
    return not models or any(
        (letters == other_letters or not letters or not other_letters)
        and (other.startswith(number) or number.startswith(other))
        for letters, number in models
        for other_letters, other in _models(known)
    )


def _models(words: frozenset[str]) -> list[tuple[str, str]]:
    """Return letters and number of the words that are model names: ``mi300x`` as mi and 300."""
    matches = (re.match(r"^([a-z]*)(\d+)(?!\d*gb$)", word) for word in words)
    return [(match[1], match[2]) for match in matches if match]


@lru_cache(maxsize=1)
def _unprofiled() -> dict[frozenset[str], Unprofiled]:
    table: dict[frozenset[str], Unprofiled] = {}
    for name, entry in read_yaml(_TABLE).data.items():
        other = Unprofiled(name, entry.get("nearest", ""), entry["change"])
        table |= {spelling(word): other for word in (name, *entry.get("also", ()))}
    return table
