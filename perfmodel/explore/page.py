"""The page for people and the page of the documentation, as HTML that fetches from this service alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from starlette.exceptions import HTTPException

from perfmodel._version import __version__
from perfmodel.explore.asked import Front
from perfmodel.export import exporters
from perfmodel.model.dtypes import BYTES
from perfmodel.report.page import escape

__all__ = ["asset", "docs_page", "explore_page"]

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_TITLES = {
    "vllm": "vLLM", "sglang": "SGLang", "tensorrt_llm": "TensorRT-LLM", "llamacpp": "llama.cpp",
    "openvino": "OpenVINO", "dynamo": "Dynamo", "neutral": "neutral JSON", "vegas": "Vegas",
    "transformers": "Transformers",
}  # fmt: skip
_NOUNS = {"model": "models", "hardware": "hardware", "engine": "engines", "strategy": "strategies"}


_WIDE = ("model", "hardware", "engine", "strategy", "draft_model")
"""Controls whose values are long."""


@dataclass(frozen=True)
class _Control:
    """One control of the page: the flag it gives, its label, its values or none where people write them.

    values : (value, words) to choose among. start : what the page begins with. form : an example of a text.
    """

    flag: str
    label: str
    values: tuple[tuple[str, str], ...] = ()
    start: str = ""
    form: str = ""


@lru_cache(maxsize=1)
def _plotly() -> bytes:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).encode()


@lru_cache(maxsize=8)
def asset(name: str) -> tuple[bytes, str]:
    """Return one file of the page and its media type; HTTPException 404 where there is no such file."""
    kind = name.rpartition(".")[2]
    if name == "plotly.js":
        return _plotly(), _TYPES["js"]
    if name in ("explore.css", "explore.js"):
        return (files("perfmodel.explore") / name).read_bytes(), _TYPES[kind]
    raise HTTPException(404, "Not Found")


def _controls(front: Front) -> list[tuple[str, list[_Control]]]:
    """Return the controls in groups, each with its heading."""

    def named(key: str, *first: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        return (*first, *((str(line["name"]),) * 2 for line in front.listed(_NOUNS[key])))

    ready = ("", "best that is ready"), ("all", "best of all")
    stored = tuple((name, name) for name in BYTES)
    return [
        ("Deployment", [
            _Control("model", "Model", named("model"), "Llama-3.1-8B"),
            _Control("hardware", "GPU", named("hardware"), "h100-sxm-80gb"),
            _Control("tp", "GPUs (tp)", tuple((str(1 << n),) * 2 for n in range(7)), "8"),
            _Control("engine", "Engine", named("engine", ("", "not named (generic)"))),
        ]),
        ("Load", [
            _Control("batch_size", "Batch [sequences]", start="64", form="64"),
            _Control("context", "Context [tokens]", start="32k", form="32k"),
            _Control("output_tokens", "Output [tokens]", start="512", form="512"),
            _Control("tpot", "Longest TPOT [ms]", form="no limit"),
        ]),
        ("Drafting", [
            _Control("strategy", "Strategy", named("strategy", *ready)),
            _Control("draft_model", "Draft model", named("model", ("", "none"))),
            _Control("draft_budget", "Draft KV budget [tokens]", form="each strategy's own"),
            _Control("gamma", "Speculation lengths", form="0:16:1"),
        ]),
        ("Belief", [
            _Control("acceptance_rate", "Acceptance rate [0..1]", form="published laws"),
            _Control("objective", "Choose at", (
                ("", "expected acceptance"), ("quantile:0.2", "20 % quantile"), ("worst", "worst case (5 %)"),
            )),
            _Control("weight_dtype", "Weights", (("", "the model's own"), *stored)),
            _Control("kv_cache_dtype", "KV cache", (("", "the model's own"), *stored)),
        ]),
    ]  # fmt: skip


def explore_page(front: Front) -> bytes:
    """Return the page for people.

    Parameters
    ----------
    front : whose flags the controls give, and whose names they offer.
    """
    help_of = {flag.name: flag.help for flag in front.flags}
    groups = []
    for heading, controls in _controls(front):
        inside = "".join(_control(each, help_of.get(each.flag, "")) for each in controls)
        groups.append(f"<fieldset><legend>{escape(heading)}</legend>{inside}</fieldset>")
    axes = [
        _Control("batches", "Batches of the map", start="1:256:x2", form="1:256:x2"),
        _Control("contexts", "Contexts of the map", start="1k:128k:x2", form="1k:128k:x2"),
    ]
    groups.append(
        "<fieldset><legend>Map</legend>"
        + "".join(_control(each, "Values or a range: 1,8,64 or 16:256:16 or 1:256:x2.") for each in axes)
        + "</fieldset>"
    )
    engines = "".join(
        f'<option value="{escape(name)}">{escape(_TITLES.get(name, name))}</option>'
        for name in sorted(exporters(), key=lambda name: list(_TITLES).index(name) if name in _TITLES else 99)
    )
    parts = {"controls": "".join(groups), "engines": engines, "version": escape(__version__)}
    return _filled("explore.html", parts).encode()


def _control(control: _Control, hint: str) -> str:
    name = control.flag
    common = (
        f'id="{name}" name="{name}" data-start="{escape(control.start)}" title="{escape(hint)}" '
        f'aria-describedby="{name}-fault"'
    )
    if control.values:
        options = "".join(
            f'<option value="{escape(value)}"{" selected" if value == control.start else ""}>'
            f"{escape(words)}</option>"
            for value, words in control.values
        )
        field = f"<select {common}>{options}</select>"
    else:
        field = (
            f'<input type="text" {common} value="{escape(control.start)}" '
            f'placeholder="{escape(control.form)}" autocomplete="off" spellcheck="false">'
        )
    wide = " wide" if name in _WIDE else ""
    return (
        f'<div class="control{wide}"><label for="{name}">{escape(control.label)}</label>{field}'
        f'<p class="fault" id="{name}-fault"></p></div>'
    )


def _filled(name: str, parts: Mapping[str, str]) -> str:
    text = (files("perfmodel.explore") / name).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], text)


def docs_page(openapi: Mapping[str, Any]) -> bytes:
    """Return the documentation of the service as a page without scripts.

    Parameters
    ----------
    openapi : what /openapi.json says.
    """
    schemas = openapi["components"]["schemas"]
    routes = [
        _route(method.upper(), path, part, schemas)
        for path, methods in openapi["paths"].items()
        for method, part in methods.items()
    ]
    known = "".join(_schema(name, schema) for name, schema in schemas.items() if "properties" in schema)
    parts = {
        "about": escape(str(openapi["info"]["description"])), "version": escape(__version__),
        "routes": "".join(routes), "schemas": known,
    }  # fmt: skip
    return _filled("docs.html", parts).encode()


def _route(method: str, path: str, part: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    takes = _names(part.get("requestBody", {}))
    answers = _names(part.get("responses", {}).get("200", {}))
    refusals = ", ".join(
        f"{status} {part['responses'][status]['description'].lower()}"
        for status in part["responses"]
        if status != "200" and status != "422"
    )
    lines = [
        f"<li>{word} {', '.join(_link(name, schemas) for name in names)}</li>"
        for word, names in (("takes", takes), ("answers", answers))
        if names
    ]
    more = f"<li>refusals: 422 wrong, or nothing feasible, {escape(refusals)}</li>" if refusals else ""
    return (
        f"<h3><code>{method} {escape(path)}</code></h3><p>{escape(part.get('summary', ''))}</p>"
        f"<ul>{''.join(lines)}{more}</ul>"
    )


def _names(part: Any) -> list[str]:
    """Names of the models that a part of the description refers to."""
    if isinstance(part, Mapping):
        own = [str(part["$ref"]).rpartition("/")[2]] if "$ref" in part else []
        return own + [name for value in part.values() for name in _names(value)]
    return [name for value in part for name in _names(value)] if isinstance(part, list) else []


def _link(name: str, schemas: Mapping[str, Any]) -> str:
    return f'<a href="#{escape(name)}">{escape(name)}</a>' if name in schemas else escape(name)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(key)}</code></th><td>{escape(_kind(part))}'
        f"{', required' if key in required else ''}</td><td>{escape(_described(part))}</td></tr>"
        for key, part in schema["properties"].items()
    )
    described = escape(str(schema.get("description", "")).split("\n")[0])
    return (
        f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{described}</p><div class="scroll" tabindex="0" '
        f'role="region" aria-label="{escape(name)}"><table><thead><tr><th scope="col">key</th>'
        f'<th scope="col">type</th><th scope="col">meaning</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _kind(part: Mapping[str, Any]) -> str:
    if "$ref" in part:
        return str(part["$ref"]).rpartition("/")[2]
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(_kind(each) for each in part["anyOf"]))
    kind = str(part.get("type", "any"))
    return f"array of {_kind(part['items'])}" if kind == "array" and part.get("items") else kind


def _described(part: Mapping[str, Any]) -> str:
    default = part.get("default")
    begins = "" if default in (None, "") else f" Default {default}."
    return f"{part.get('description', '')}{begins}".strip()
