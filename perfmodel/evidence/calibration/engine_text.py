"""A fitted engine as the text of its file: every figure with range, source and kind."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import numpy as np

from perfmodel.engine import EngineOverhead
from perfmodel.files.document import Quantity
from perfmodel.files.figures import Figure, Text, declared_in
from perfmodel.files.schema import noun_from
from perfmodel.files.yaml_text import parse_yaml

__all__ = ["engine_from_text", "engine_text"]

_PLAIN = re.compile(r"[a-z][a-z0-9._-]{3,}")  # nothing that a YAML reader could take for anything but a text


def engine_text(
    start: EngineOverhead, *, name: str, description: str, calibrated_on: str, fitted: Mapping[str, Quantity]
) -> str:
    """Return the YAML text of an engine: the figures in `fitted` by dotted path, the rest as in `start`."""
    texts = {"name": name, "description": description, "calibrated_on": calibrated_on}
    lines = []
    for field, declared in declared_in(EngineOverhead):
        if isinstance(declared, Text) and declared.many:
            words = ", ".join(map(_quoted, getattr(start, field)))
            lines += [f"{declared.path}: [{words}]"] if words else []
        elif isinstance(declared, Text):
            lines.append(f"{declared.path}: {_quoted(texts.get(field, getattr(start, field)))}")
        elif isinstance(declared, Figure):
            quantity = fitted.get(declared.path, start.quantities[declared.path])
            lines.append(f"{declared.path}: {_figure(declared, quantity)}")
    return "\n".join(lines) + "\n"


def engine_from_text(text: str, file: str) -> EngineOverhead:
    """Return the engine that a text describes, read as strictly as its file will be. Raises SpecError."""
    return noun_from(EngineOverhead, parse_yaml(text.encode(), file))


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _figure(declared: Figure, quantity: Quantity) -> str:
    values = {name: float(np.asarray(getattr(quantity, name))) for name in ("value", "low", "high")}
    shown = ", ".join(f"{name}: {_number(value, declared.dimension)}" for name, value in values.items())
    return f"{{{shown}, source: {json.dumps(quantity.source, ensure_ascii=False)}, kind: {quantity.kind}}}"


def _number(value: float, dimension: str) -> str:
    if dimension != "seconds":
        return f"{value:.4g}"
    if value == 0.0:
        return "0 s"
    unit, factor = ("ms", 1e3) if value >= 1e-3 else ("us", 1e6) if value >= 1e-7 else ("ns", 1e9)
    return f"{value * factor:.4g} {unit}"
