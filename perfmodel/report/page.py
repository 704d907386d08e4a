"""The page of a report: one file that holds its own style, script, library and numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape as html_escape
from importlib.resources import files
from typing import Any

from perfmodel._version import __version__
from perfmodel.errors import escaped, printable
from perfmodel.planning.plan import Cell, Plan
from perfmodel.report.content import Content
from perfmodel.report.deployments import NOTHING_TO_SAY, Configuration, configurations
from perfmodel.report.words import TIMES, TO, configuration, drafter, in_short, percent, recommendation

__all__ = ["page"]

SCRIPTS = ("lookup.js", "charts.js", "page.js")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Short names of drafters in the map."""


def page(content: Content, library: str) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    library : the text of plotly.js, which goes into the page.
    """
    plan = content.plan
    parts = {
        "title": escape(f"{plan.model} on {plan.gpus} {TIMES} {plan.hardware}"),
        "question": escape(
            f"Should {plan.model} speculate on {plan.gpus} {TIMES} {plan.hardware}?"
        ),
        "deployment": escape(_deployment(plan)),
        "short": "".join(
            f"<li><strong>{escape(number)}</strong><span>{escape(what)}</span></li>"
            for number, what in in_short(plan)
        ),
        "words": _paragraphs(recommendation(plan, content.deployments)),
        "drafters": _drafters(content),
        "cells": _map_table(plan),
        "details": _cell_table(plan),
        "configurations": _configurations(configurations(content.deployments), plan.engine),
        "assumed": _assumed(content),
        "doubts": escape(content.doubts or "No figure in doubt moves this answer."),
        "made": _made(content),
        "style": _asset("page.css"),
        "library": library.replace("</script", "<\\/script"),
        "priced": _inert(content.priced),
        "script": "".join(map(_asset, SCRIPTS)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (files("perfmodel.report") / name).read_text(encoding="utf-8")


def escape(text: str) -> str:
    """A text for a page, with nothing invisible in it but line ends and the spaces of ours."""
    return html_escape(printable(text, keep="\n\u00a0"))


def _inert(body: object) -> str:
    """JSON that cannot end the script element it lies in, and whose texts hold nothing invisible."""
    text = json.dumps(_seen(body), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return escaped(text.replace("<", "\\u003c"), pairs=True)


def _seen(body: Any) -> Any:
    if isinstance(body, dict):
        return {_seen(key): _seen(value) for key, value in body.items()}
    if isinstance(body, (list, tuple)):
        return [_seen(value) for value in body]
    return printable(body, keep="\n\u00a0") if isinstance(body, str) else body


def _deployment(plan: Plan) -> str:
    stored = ", ".join(
        f"{plan.request[key]} {what}"
        for key, what in (("weight_dtype", "weights"), ("kv_dtype", "KV cache"))
        if plan.request.get(key)
    )
    limit = plan.request.get("tpot_limit_s")
    bound = f", at most {limit * 1e3:g} ms per token" if limit else ""
    output = plan.request.get("output_tokens")
    mean = f"; mean step of {output:,.0f} output tokens after each context" if output else ""
    return f"{stored}; engine {plan.engine}; best by {plan.objective}{bound}{mean}"


def _paragraphs(sentences: Iterable[str]) -> str:
    first, *rest = sentences
    return f'<p class="first">{escape(first)}</p>' + "".join(
        f"<p>{escape(sentence)}</p>" for sentence in rest
    )


def _drafters(content: Content) -> str:
    """The legend of the map: a letter for each drafter."""
    items = [
        f"<li><b>{LETTERS[place % 26]}</b> {escape(drafter['label'])} "
        f"<small>acceptance {escape(drafter['acceptance'])}</small></li>"
        for place, drafter in enumerate(content.priced["drafters"])
    ]
    return "".join([*items, f"<li><b>{TO}</b> plain decoding</li>"])


def _map_table(plan: Plan) -> str:
    """The map as a table: one row a batch size, one column a context length."""
    contexts = sorted({cell.context_len for cell in plan.cells})
    answered = {(cell.batch_size, cell.context_len): cell for cell in plan.cells}
    head = "".join(f'<th scope="col">{context:,}</th>' for context in contexts)
    rows = []
    for batch in sorted({cell.batch_size for cell in plan.cells}, reverse=True):
        cells = "".join(f"<td>{_short(answered.get((batch, context)))}</td>" for context in contexts)
        rows.append(f'<tr><th scope="row">{batch}</th>{cells}</tr>')
    return (
        "<caption>The same as a table: batch sizes [sequences] down, contexts [tokens] across</caption>"
        f'<thead><tr><th scope="col">batch</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
    )


def _short(cell: Cell | None) -> str:
    if cell is None:
        return TO
    return f"{cell.speedup:.2f}{TIMES}" if cell.speculates else "plain"


def _cell_table(plan: Plan) -> str:
    """Every recommendation in full."""
    titles = (
        "batch", "context", "recommendation", "speedup", "80\u00a0% of the cases", "ms per token",
        "plain, ms", "beats plain", "why",
    )  # fmt: skip
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    rows = "".join(f"<tr>{_row(cell)}</tr>" for cell in plan.cells)
    return f"<caption>Every recommendation</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"


def _row(cell: Cell) -> str:
    known = cell.speculates and cell.speedup_low is not None and cell.speedup_high is not None
    sure = cell.probability_beats_plain
    values = (
        f"{cell.batch_size}", f"{cell.context_len:,}", configuration(cell), f"{cell.speedup:.2f}{TIMES}",
        f"{cell.speedup_low:.2f}{TO}{cell.speedup_high:.2f}{TIMES}" if known else TO,
        f"{cell.tpot_s * 1e3:.3g}", f"{cell.baseline_s * 1e3:.3g}",
        percent(sure) if cell.speculates and sure is not None else TO, cell.why,
    )  # fmt: skip
    return "".join(f"<td>{escape(value)}</td>" for value in values)


def _configurations(configurations: Iterable[Configuration], planned_for: str) -> str:
    """One block an engine: the planned one first and open, last those that can be told nothing."""
    software = planned_for.replace("-", "_")
    ordered = sorted(
        configurations, key=lambda shown: (bool(shown.refusal), not software.startswith(shown.engine))
    )
    blocks = []
    for place, shown in enumerate(ordered):
        name = escape(shown.engine.replace("_", "-"))
        if shown.deployment is None or shown.deployment.drafting is None:
            body = f"<p>{escape(shown.refusal)}.</p>"
            state = "nothing to configure" if shown.refusal == NOTHING_TO_SAY else "cannot run it"
        else:
            who = escape(drafter(shown.deployment.drafting))
            loss = percent(shown.deployment.slower, 1)
            notes = "".join(f"<li>{escape(note)}</li>" for note in shown.notes)
            body = (
                f"<p>{who}: a token takes {loss} longer on average than with the best of every cell.</p>"
                f'<div class="copy"><button type="button" data-copies="engine-{place}">Copy</button>'
                f'<pre id="engine-{place}" tabindex="0">{escape(shown.text.strip())}</pre></div>'
                + (f"<ul>{notes}</ul>" if notes else "")
            )
            state = f"{who}; checked with {escape(shown.checked_with)}"
        opened = " open" if place == 0 and not shown.refusal else ""
        blocks.append(f"<details{opened}><summary>{name} <small>{state}</small></summary>{body}</details>")
    return "".join(blocks)


def _assumed(content: Content) -> str:
    """What nobody measured, and where each drafter's acceptance comes from."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in content.plan.assumed)
    rows = "".join(
        f'<tr><th scope="row">{escape(drafter["label"])}</th><td>{escape(drafter["acceptance"])}</td>'
        f"<td>{escape(drafter['source'])}</td></tr>"
        for drafter in content.priced["drafters"]
    )
    table = (
        "<table><caption>Acceptance</caption><thead><tr><th scope='col'>drafter</th><th scope='col'>kind</th>"
        f"<th scope='col'>source</th></tr></thead><tbody>{rows}</tbody></table>"
    )
    listed = f"<ul>{items}</ul>" if items else "<p>Nothing: every figure is measured or published.</p>"
    return listed + (f'<div class="scroll" tabindex="0">{table}</div>' if rows else "")


def _made(content: Content) -> str:
    command = f"<pre>{escape(content.command)}</pre>" if content.command else ""
    made = f"Made by draftplan {escape(__version__)}. Times are computed, not measured on your GPUs."
    return f"<p>{made}</p>{command}"
