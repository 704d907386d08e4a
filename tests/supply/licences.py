"""Which licence every runtime dependency has, and whether it is one that was signed off."""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parents[2] / "docs" / "licences.md"
RUNTIME = ("", "report", "hub", "parquet", "fast", "explore", "cluster", "reference", "transformers")
"""The extras that someone who uses the product may install; the empty one is the core."""

_CLASSIFIERS = {
    "MIT License": "MIT", "BSD License": "BSD-3-Clause", "Apache Software License": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0", "ISC License (ISCL)": "ISC",
    "The Unlicense (Unlicense)": "Unlicense", "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
}  # fmt: skip
_WORDS = {
    "mit": "MIT", "mit license": "MIT", "bsd": "BSD-3-Clause", "bsd-3": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause", "apache 2.0": "Apache-2.0", "apache-2.0 license": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0", "apache": "Apache-2.0", "apache license 2.0": "Apache-2.0",
}  # fmt: skip


def licence_of(package: Distribution) -> str:
    """The SPDX expression that a distribution declares, else that of its classifiers or its words."""
    if declared := package.metadata.get("License-Expression"):
        return str(declared)
    text = (package.metadata.get("License") or "").strip()
    classifiers = [line.rpartition(" :: ")[2] for line in package.metadata.get_all("Classifier") or ()
                   if line.startswith("License :: ")]  # fmt: skip
    known = sorted({_CLASSIFIERS[name] for name in classifiers if name in _CLASSIFIERS})
    if re.fullmatch(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*", text) and text.lower() not in _WORDS:
        return text
    return " AND ".join(known) or _WORDS.get(text.lower(), "")


def runtime() -> dict[str, tuple[str, set[str]]]:
    """Every installed distribution that the core or an extra needs: name -> licence and extras."""
    packages: dict[str, tuple[str, set[str]]] = {}
    for extra in RUNTIME:
        wanted = [("draftplan", extra)]
        seen: set[tuple[str, str]] = set()
        while wanted:
            name, of = wanted.pop()
            if (name, of) in seen:
                continue
            seen.add((name, of))
            try:
                package = distribution(name)
            except PackageNotFoundError:
                continue
            if name != "draftplan":
                packages.setdefault(name, (licence_of(package), set()))[1].add(extra or "core")
            for line in package.requires or ():
                need = Requirement(line)
                optional = bool(need.marker) and "extra" in str(need.marker)
                if (not need.marker or need.marker.evaluate({"extra": of})) and not (
                    name == "draftplan" and of and not optional
                ):
                    wanted += [(canonicalize_name(need.name), one) for one in ("", *sorted(need.extras))]
    return packages


def page() -> tuple[set[str], dict[tuple[str, str], str]]:
    """What docs/licences.md says: the licences that are signed off, and (name, licence) -> extras.

    A package has a row for each licence that its pinned versions state; these differ between Pythons.
    """
    text = PAGE.read_text(encoding="utf-8")
    signed = set(re.findall(r"^\* `([^`]+)`", text, re.MULTILINE))
    rows = re.findall(r"^\| ([a-z0-9.-]+) \| `([^`]*)` \| ([a-z, ]+) \|$", text, re.MULTILINE)
    return signed, {(name, licence): extras for name, licence, extras in rows}


def allowed(expression: str, signed: set[str]) -> bool:
    """Whether every part that has to be kept is signed off; of alternatives one is enough."""
    parts = expression.replace("(", "").replace(")", "").split(" AND ")
    return all(any(name.strip() in signed for name in part.split(" OR ")) for part in parts)


def renew() -> int:
    """Write the table anew from what is installed here and what it knew; says what is not signed off."""
    signed, rows = page()
    for name, (licence, extras) in runtime().items():
        known = rows.get((name, licence), "").split(", ")
        rows[name, licence] = ", ".join(sorted({*extras, *known} - {""}))
    text = PAGE.read_text(encoding="utf-8")
    head = text[: text.index("| package |")]
    lines = [f"| {name} | `{licence}` | {extras} |" for (name, licence), extras in sorted(rows.items())]
    table = "\n".join(["| package | licence | for |", "|---|---|---|", *lines])
    PAGE.write_text(f"{head}{table}\n", encoding="utf-8")
    wrong = [f"{name}: {licence or 'none'}" for name, licence in sorted(rows) if not allowed(licence, signed)]
    print(f"{len(rows)} packages; not signed off: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(renew())
