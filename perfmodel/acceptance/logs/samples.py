"""Samples of a metrics text with their labels, scrape by scrape."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from perfmodel.acceptance.logs.lines import Line, damaged, number_of
from perfmodel.errors import SpecError
from perfmodel.files.quoting import shell

__all__ = ["Sample", "Scrape", "increases", "of_one_model", "samples_of", "scrapes_of"]


class Sample(NamedTuple):
    """One series of a scrape: its name without ``_total``, its labels, its value or values by position."""

    line: Line
    name: str
    labels: dict[str, str]
    values: list[float]

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What a series is known by."""
        return self.name, tuple(sorted(self.labels.items()))

    @property
    def source(self) -> tuple[tuple[str, str], ...]:
        """Labels of the engine that counts, without those of what it counts."""
        return tuple(item for item in sorted(self.labels.items()) if item[0] not in _COUNTED)


Scrape = list[Sample]
_COUNTED = ("position", "finished_reason", "is_streaming", "token_position")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_FORMS = (
    r"(?P<name>NAME)(?:\{(?P<labels>.*)\})?\s+(?P<value>[^\s{}]+)(?:\s+-?[0-9.]+)?\s*(?:#.*)?$",
    r"(?P<name>NAME) \((?:counter|gauge|vector)\) = (?P<value>.+?)\s*$",
    r"(?:Counter|Gauge|Vector)\(name='(?P<name>NAME)', labels=(?P<python>\{.*?\}), "
    r"values?=(?P<value>\[[^]]*\]|[^),]+)\)",
)


def samples_of(lines: Iterable[Line], file: str, prefix: str, wanted: str) -> Iterator[Sample]:
    """Yield the samples whose names begin with ``prefix`` and match the pattern ``wanted``.

    Read are the Prometheus text format, and what vLLM's ``LLM.get_metrics()`` holds when it is printed (its
    example: ``NAME (counter) = VALUE``; a list of it: ``Counter(name=.., labels=.., value=..)``).

    Raises
    ------
    SpecError : a sample that is not whole.
    """
    name = rf"{re.escape(prefix)}(?:{wanted})\w*"
    forms = [re.compile(form.replace("NAME", name)) for form in _FORMS]
    for line in lines:
        if prefix not in line.text or re.search(r"# (?:HELP|TYPE) ", line.text):
            continue
        if not re.search(name, line.text):
            continue
        matches = [match for form in forms for match in form.finditer(line.text)]
        if not matches:
            raise damaged(file, line, f"found {line.text.strip()[:80]!r}, not a counter")
        for match in matches:
            yield _sample(match, line, file, prefix)


def _sample(match: re.Match[str], line: Line, file: str, prefix: str) -> Sample:
    parts = match.groupdict()
    labels = dict(_LABEL.findall(parts.get("labels") or ""))
    values: list[float | None] | None = None
    try:
        if parts.get("python"):
            labels = {str(key): str(value) for key, value in ast.literal_eval(parts["python"]).items()}
        text = parts["value"].strip()
        values = [number_of(part.strip()) for part in text.strip("[]").split(",")] if text != "[]" else []
    except (ValueError, SyntaxError, AttributeError, MemoryError, RecursionError):
        values = None
    counted = [value for value in values or [] if value is not None and 0.0 <= value < 1e15]
    if values is None or len(counted) < len(values):
        raise damaged(file, line, f"found {line.text.strip()[:80]!r}, not a counter")
    return Sample(line, parts["name"].removeprefix(prefix).removesuffix("_total"), labels, counted)


def scrapes_of(samples: Iterable[Sample]) -> list[Scrape]:
    """Return the scrapes of a file: a series that comes again begins the next one."""
    scrapes: list[Scrape] = []
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for sample in samples:
        if not scrapes or sample.key in seen:
            scrapes.append([])
            seen.clear()
        seen.add(sample.key)
        scrapes[-1].append(sample)
    return scrapes


def of_one_model(samples: list[Sample], file: str, only: str | None) -> list[Sample]:
    """Return the samples of one model; SpecError where there are several and ``only`` names none of them."""
    names = sorted({_model(sample) for sample in samples if any(sample.values)} - {""})
    if only is None and len(names) < 2:
        return samples
    if only not in names:
        problem = f"the counters are of the models {', '.join(names) or '(none is named)'}"
        problem += "" if only is None else f", none of {only}"
        raise SpecError.single(file, "only", problem, f"Give --only {shell(names[0]) if names else 'NAME'}")
    return [sample for sample in samples if _model(sample) == only]


def _model(sample: Sample) -> str:
    return next((sample.labels[key] for key in ("model_name", "model") if key in sample.labels), "")


def increases(before: Scrape, after: Scrape) -> Scrape:
    """Return a scrape with what was counted since the one before; an engine that was restarted began at 0.

    A restart shows in a counter that falls or in another ``_created`` time.
    """
    earlier = {sample.key: sample.values for sample in before}
    restarted = {
        sample.source
        for sample in after
        if sample.key in earlier
        and (
            sample.values != earlier[sample.key]
            if sample.name.endswith("_created")
            else any(now < then for now, then in zip(sample.values, earlier[sample.key], strict=False))
        )
    }
    return [
        sample._replace(values=_less(sample.values, earlier.get(sample.key, [])))
        if sample.source not in restarted
        else sample
        for sample in after
    ]


def _less(now: list[float], then: list[float]) -> list[float]:
    then = then + [0.0] * (len(now) - len(then))
    return [late - early for late, early in zip(now, then, strict=False)]
