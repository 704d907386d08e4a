"""Which bundled model a name means, in whatever spelling people use."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from perfmodel.errors import SpecError, nearest_name
from perfmodel.model.forms import take_form

__all__ = [
    "Meaning", "bundled_models", "bundled_name", "guess_model", "hub_ids", "nearest_model",
    "reading_order", "refuse_ambiguous",
]  # fmt: skip

_SEPARATORS = r"\s_.:/\u2013\u2014-"
_DECIMAL_SIZE = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?=[bmk](?![a-z0-9]))")
_DOTTED_VERSION = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?![\d.]|[bmk](?![a-z0-9]))")
_TOKEN = re.compile(r"\d+(?:\.\d+)?[a-z]*|[a-z]+")

_WORDS_OF_TUNING = frozenset(
    ("instruct", "chat", "it", "hf", "base", "pt", "thinking", "reasoning", "preview", "meta", "text")
)
_DATE = re.compile(r"\d{4}")
_ACTIVE_SIZE = re.compile(r"a\d+(\.\d+)?b")


@dataclass(frozen=True)
class Meaning:
    """The bundled model that a loose name means.

    `form` says how the weights are stored where the name states it, else it is empty.
    """

    model: str
    form: str
    organisation_is_known: bool


@dataclass(frozen=True)
class _Level:
    """What a spelling may leave out: words of tuning on both sides, dates and active sizes of aliases."""

    tuning: bool = False
    dates: bool = False
    active: bool = False

    def of_name(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if not (self.tuning and word in _WORDS_OF_TUNING)]

    def of_alias(self, words: Sequence[str]) -> list[str]:
        left_out = [sign for sign, allowed in ((_DATE, self.dates), (_ACTIVE_SIZE, self.active)) if allowed]
        return [word for word in self.of_name(words) if not any(sign.fullmatch(word) for sign in left_out)]


_LEVELS = (
    _Level(),
    _Level(dates=True),
    _Level(tuning=True),
    _Level(tuning=True, dates=True),
    _Level(tuning=True, active=True),
    _Level(tuning=True, active=True, dates=True),
)
"""From the strictest spelling to the loosest; the first that knows a name decides."""


@cache
def bundled_models() -> Mapping[str, Path]:
    """Return the bundled config files by model name."""
    folder = Path(__file__).parents[1] / "data" / "models"
    return {file.stem: file for file in folder.iterdir() if file.suffix == ".json"}


def reading_order(name: str) -> list[tuple[float, str]]:
    """Return a key that sorts names as people do: without case, numbers by their value."""
    parts = re.findall(r"\d+(?:\.\d+)?|[^\d]+", name.lower())
    return [(float(part), "") if part[0].isdigit() else (math.inf, part) for part in parts]


def bundled_name(name: str) -> str | None:
    """Return the bundled model of that name or id, None where there is none.

    Case, and the signs between words, do not count: ``llama 3.1 8b``, ``Llama-3-1-8B`` and ``llama31-8b`` are
    one. An organisation may be left out, but a wrong one is no match.
    """
    if own := [model for model in bundled_models() if model.lower() == name.lower()]:
        return own[0]  # the names of others need not be read
    models = _spellings(_LEVELS[0]).get(_spell(name.lower()), frozenset())
    return next(iter(models)) if len(models) == 1 else None


def hub_ids(model: str) -> tuple[str, ...]:
    """Return the ids under which a bundled model is published, the model's own one first."""
    return tuple(alias for alias in _aliases()[model] if "/" in alias)


def guess_model(name: str) -> Meaning | None:
    """Return the bundled model that a looser name means, None where no model is meant.

    Left out or added may be: the organisation, words of tuning (``-Instruct``, ``-it``, ``-hf``), the date of
    a release, the active size of a mixture of experts. A form of the weights (``-FP8``, ``-AWQ``) is told
    apart. Numbers decide: another size, version or date is another model.

    Raises
    ------
    SpecError
        Where several models are meant, naming them, or where the form has bytes that no config states.
    """
    organisation, slash, base = name.rpartition("/")
    if "/" in organisation:
        return None
    form, words = take_form(_split(base))
    for level in _LEVELS:
        models = _spellings(level).get(_spell("-".join(level.of_name(words))), frozenset())
        if len(models) > 1:
            raise _ambiguous(name, sorted(models, key=reading_order))
        for model in models:
            known = not slash or organisation.lower() in _organisations(model)
            return Meaning(model, form, known)
    return None


def refuse_ambiguous(name: str) -> None:
    """Raise SpecError where `name`, no id of a hub, is part of the names of several bundled models."""
    candidates = _candidates(name)
    if "/" not in name and len(candidates) > 1:
        raise _ambiguous(name, candidates)


def nearest_model(name: str) -> str | None:
    """Return the one bundled model that `name` is part of, else the closest in spelling, None without one."""
    candidates = _candidates(name)
    if len(candidates) == 1:
        return candidates[0]
    spelled = {alias.rpartition("/")[2]: model for model in bundled_models() for alias in _aliases()[model]}
    spelled |= {model: model for model in bundled_models()}
    nearest = nearest_name(name.rpartition("/")[2], spelled)
    return None if nearest is None else spelled[nearest]


def _candidates(name: str) -> list[str]:
    """Bundled models whose names hold every word and number of `name`, sorted by name."""
    asked = set(_TOKEN.findall(name.rpartition("/")[2].lower()))
    if not asked:
        return []
    return [
        model
        for model in sorted(bundled_models(), key=reading_order)
        if any(asked <= set(_TOKEN.findall(alias.lower())) for alias in (model, *_aliases()[model]))
    ]


def _ambiguous(name: str, models: Sequence[str]) -> SpecError:
    shown = ", ".join(models[:8]) + (f" and {len(models) - 8} more" if len(models) > 8 else "")
    problem = f"{name[:100]!r} may mean several bundled models: {shown}"
    return SpecError.single("request", "model", problem, "Name one of them")


@cache
def _aliases() -> Mapping[str, tuple[str, ...]]:
    """Every other name that the file of each bundled model lists."""
    return {
        model: tuple(json.loads(file.read_bytes()).get("_aliases", ()))
        for model, file in sorted(bundled_models().items())
    }


def _organisations(model: str) -> set[str]:
    return {alias.partition("/")[0].lower() for alias in _aliases()[model] if "/" in alias}


@cache
def _spellings(level: _Level) -> Mapping[str, frozenset[str]]:
    """Bundled models by every spelling that a level allows; a name or id wins over what derives from one."""
    stated: dict[str, frozenset[str]] = {}
    derived: dict[str, frozenset[str]] = {}
    for model, aliases in _aliases().items():
        for alias in (model, *aliases):
            for text in {alias, alias.rpartition("/")[2]}:
                first, *others = _variants("-".join(level.of_alias(_split(text))))
                stated[first] = stated.get(first, frozenset()) | {model}
                for other in others:
                    derived[other] = derived.get(other, frozenset()) | {model}
    return derived | stated


def _variants(text: str) -> Iterator[str]:
    """Spellings of one name: as it is, decimal sizes in two words (0-6b), versions without dot (31)."""
    yield _spell(text)
    yield _spell(text).replace(",", ".")
    yield _spell(_DOTTED_VERSION.sub(r"\1\2", text))


def _split(text: str) -> list[str]:
    """Words of a name; a dot between digits belongs to the number."""
    return [word for word in re.split(r"[\s_:/\u2013\u2014-]+|\.(?!\d)|(?<!\d)\.", text.lower()) if word]


def _spell(text: str) -> str:
    """Return a name without the signs between words, but for a dot where two numbers would run together.

    The decimal sign of a size (0.6b) stays apart from the sign between two numbers (3-1b): 2.7b is not 2-7b.
    """
    text = _DECIMAL_SIZE.sub(r"\1,\2", text.strip().lower())
    text = re.sub(rf"(?<=\d)[{_SEPARATORS}]+(?=\d)", "\0", text)
    return re.sub(rf"[{_SEPARATORS}]+", "", text).replace("\0", ".")
