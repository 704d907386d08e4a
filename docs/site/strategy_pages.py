"""A page for each file of strategies/: what a draft reads, what that costs, how often it is accepted."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

import strategies
from perfmodel import ModelSpec, software
from perfmodel.deployment import Drafter
from perfmodel.export import exporters
from perfmodel.plots.acceptance import plot_acceptance_against_budget
from perfmodel.plots.style import PALE, axes, figure_bytes, legend_below, titled
from strategies.base import Figure

CONTEXT, BUDGET, GAMMA = 160, 64, 4
"""Of the figure of what is read. [tokens]"""
SEEN, BUDGETS = 32_000, (128, 256, 512, 1024, 2048, 4096, 8192)
"""Context and draft KV budgets of the figure of acceptance, and of the counts. [tokens]"""
TARGET, DRAFT, WITH_A_HEAD = "llama-3.1-8b", "llama-3.2-1b", "GLM-4.5-Air"
UNREAD, READ, DRAFTED, ABSENT = range(4)
COLOURS = (PALE, "#0072B2", "#E69F00", "white")
MOMENTS = {
    "position": "A fixed rule of positions; nothing is looked at.",
    "prompt": "Once, at the end of the prompt. What is generated afterwards is kept beside it.",
    "pass": "Again in every draft pass, so that choosing costs time of its own.",
}
WHOSE = {
    "self": "the target itself (self-speculation)",
    "draft": "a small draft model",
    "head": "a head on the target",
    "none": "no model: the host looks text up",
}
COUNTED = {
    "passes": "forward passes of a round",
    "kv_tokens": "cache entries read by a pass",
    "query_tokens": "tokens that enter a pass",
    "layer_fraction": "share of the layers that run",
    "weight_fraction": "bytes of weights, relative to the model's",
    "kv_fraction": "bytes of an entry, relative to the model's",
    "selection_kv_tokens": "entries' worth of reads for choosing, a pass",
    "selection_launches": "launches for choosing, a layer",
    "resident_kv_tokens": "entries held in memory beyond the target's cache",
    "prefill_kv_tokens": "entries' worth of reads and writes at the end of the prompt",
    "lookup_tokens": "tokens searched by the host",
}
WITHOUT_CACHE = ("passes", "query_tokens", "lookup_tokens")
FIGURES = ("first", "rest", "level", "eta", "far", "match", "temperature_slope", "trained_length", "beyond")
"""Of a law of acceptance, those that a page shows."""
_USUAL = {"layer_fraction": 1.0, "weight_fraction": 1.0, "kv_fraction": 1.0, "query_tokens": 1.0}


def made():
    """Every page and figure: its address, and its text or bytes."""
    names = strategies.available()
    pages = {"strategies/index.md": _index(names)}
    for name in names:
        strategy = strategies.load(name)
        pages[f"strategies/{name}.md"] = _page(strategy)
        pages[f"strategies/{name}-reads.svg"] = figure_bytes(plot_reads(strategy), "svg")
        pages[f"strategies/{name}-acceptance.svg"] = figure_bytes(plot_acceptance(strategy), "svg")
    return pages


def reads(strategy, context_len=CONTEXT, kv_budget=BUDGET, gamma=GAMMA):
    """What each pass of a round reads: shape (draft passes, and the verification; context, and drafts).

    An element is `READ`, `UNREAD`, `DRAFTED` for a draft of this round that is read, or `ABSENT` for one that
    is not there yet. Where a selector asks how important entries are, that is drawn at random, for a choice
    of every pass a little anew.
    """
    counts = strategy.draft_pass(context_len=context_len, kv_budget=kv_budget, gamma=gamma)
    passes = int(np.rint(counts.passes))
    rows = np.full((passes + 1, context_len + gamma), ABSENT)
    rows[:, :context_len] = UNREAD
    draw = np.random.default_rng(1)
    lasting = draw.pareto(1.2, context_len)
    budget = kv_budget if strategy.default_budgets else np.inf
    for index in range(passes if has_cache(strategy) else 0):
        anew = draw.lognormal(0.0, 0.6, context_len) if strategy.selector.moment == "pass" else 1.0
        rows[index, strategy.selector.keep(context_len, budget, lasting * anew)] = READ
        rows[index, context_len : context_len + index] = DRAFTED
    rows[-1, :context_len], rows[-1, context_len:] = READ, DRAFTED
    return rows


def has_cache(strategy):
    """Whether a draft reads a cache at all: a lookup has no model, Medusa's heads have no attention."""
    without_attention = "head" in strategy.drafters and strategy.head.output_heads
    return "none" not in strategy.drafters and not without_attention


def plot_reads(strategy):
    """Draw which cache entries each pass of a round reads."""
    rows = reads(strategy)
    ax = axes(None, height=1.9 + 0.3 * len(rows))
    ax.grid(visible=False)
    norm = BoundaryNorm(np.arange(-0.5, 4.0), len(COLOURS))
    ax.pcolormesh(rows[::-1], cmap=ListedColormap(COLOURS), norm=norm, edgecolors="white", linewidth=0.3)
    passes = [f"pass {number}" for number in range(len(rows) - 1, 0, -1)]
    ax.set_yticks(np.arange(len(rows)) + 0.5, ["verification", *passes])
    ax.set_xlabel("position in the cache, then the drafts of this round [tokens]")
    budget = BUDGET if strategy.default_budgets else "none"
    titled(
        ax,
        f"What a round of {strategy.name} reads",
        f"context {CONTEXT}, draft KV budget {budget}, {GAMMA} drafts: small numbers, to show each entry",
    )
    names = ("not read", "read", "draft of this round, read")
    legend_below(ax, [Patch(color=look, label=name) for look, name in zip(COLOURS, names, strict=False)])
    return ax


def plot_acceptance(strategy):
    """Draw acceptance against draft KV budget, with its interval, for a target that many measured."""
    model = ModelSpec.load(DRAFT) if strategy.needs_draft_model else None
    drafter = Drafter(strategy, draft_model=model)
    return plot_acceptance_against_budget(ModelSpec.load(TARGET), [drafter], SEEN, BUDGETS)


def command(strategy):
    """A question about a strategy alone, as it is typed."""
    small = f" --draft-model {DRAFT}" if strategy.needs_draft_model else ""
    ships = strategy.drafters == ("head",) and strategy.head.comes_with_a_model
    return (
        f"draftplan plan --model {WITH_A_HEAD if ships else TARGET} --hardware h100-sxm-80gb --tp 8 "
        f"--context 8k,32k -b 1,16,64 --strategy {strategy.name}{small}"
    )


def _page(strategy):
    name, module = strategy.name, importlib.import_module(f"strategies.{strategy.name}")
    called, _, described = inspect.getdoc(module).partition(": ")
    counts = strategy.draft_pass(context_len=float(SEEN), kv_budget=_budget_of(strategy), gamma=float(GAMMA))
    about = {
        "drafts with": ", or ".join(WHOSE[drafter] for drafter in strategy.drafters),
        "chooses": MOMENTS[strategy.selector.moment],
        "draft KV budgets searched": _budgets(strategy),
        "needs": strategy.needs or "nothing but the models",
        "output": "that of plain decoding" if strategy.lossless else "not that of plain decoding",
        "run by": _engines(strategy),
        "from": strategy.source,
    }
    counted = COUNTED if has_cache(strategy) else {field: COUNTED[field] for field in WITHOUT_CACHE}
    shown = {text: getattr(counts, field) for field, text in counted.items() if _matters(counts, field)}
    return "\n".join([
        f"# {name}", "",
        _sentence(described or called), "",
        f"![What a round reads]({name}-reads.svg)", "",
        *(() if has_cache(strategy) else ("Its drafts read no cache at all.", "")),
        *_table(("of it", "what"), about.items()), "",
        "## What a round counts", "",
        "A strategy counts tokens; seconds are made of them elsewhere "
        f"([theory](../theory.md#the-draft-pass)). At a context of {SEEN:,} tokens, {_budget(strategy)} and "
        f"{GAMMA} drafts:", "",
        *_table(("count", "value"), ((text, _number(value)) for text, value in shown.items())), "",
        "## How often it is accepted", "",
        f"![Acceptance against draft KV budget]({name}-acceptance.svg)", "",
        "The [law of acceptance](../theory.md#acceptance) with this strategy's figures. Measure yours with "
        "`draftplan acceptance fit`; then these are only where it starts.", "",
        *_table(("figure", "value", "standard deviation", "kind", "source"), _law(strategy.acceptance)), "",
        "## Ask about it", "",
        f"<!-- output: {command(strategy)} -->", "",
        "## The file", "",
        f"All of this page follows from `strategies/{name}.py`.", "",
        '??? quote "The source"', "",
        "    ```python",
        *(f"    {line}".rstrip() for line in inspect.getsource(module).splitlines()),
        "    ```", "",
    ])  # fmt: skip


def _index(names):
    rows = []
    for name in names:
        known = strategies.load(name)
        who, moment = ", ".join(known.drafters), known.selector.moment
        rows.append((f"[{name}]({name}.md)", known.summary, who, moment, _budgets(known)))
    return "\n".join([
        "# Drafting strategies", "",
        "A strategy says which cache entries a draft reads, how often, and through which share of the "
        "layers. Each is one file of `strategies/`, and each of these pages is made of that file: add one, "
        "as [the recipe](../contributing.md#a-drafting-strategy) says, and it has a page.", "",
        *_table(("strategy", "drafts with", "who", "chooses by", "draft KV budgets"), rows), "",
        "*self*: the target's own weights. *draft*: a small model. *head*: a layer or a few on the target's "
        "hidden states. *none*: nothing but a lookup. A choice by *position* is a fixed rule, by *prompt* is "
        "made once, by *pass* again in every draft pass.", "",
    ])  # fmt: skip


def _table(titles, rows):
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def _engines(strategy):
    """Who can run it, with links to the recipes."""
    able = []
    for entry in pkgutil.iter_modules(software.__path__):
        known = getattr(importlib.import_module(f"perfmodel.software.{entry.name}"), "software", None)
        if known and any(known.method(strategy.name, drafter) for drafter in strategy.drafters):
            recipe = known.name.replace("-", "_")
            able.append(f"[{known.label}](../engines/{recipe}.md)" if recipe in exporters() else known.label)
    return ", ".join(able) or "no engine that is known here"


def _law(law):
    named = {field.replace("_", " "): getattr(law, field) for field in FIGURES}
    named |= {f"level, {model}": figure for model, figure in law.levels.items()}
    return [
        (name, f"{figure.value:g}", f"{figure.sd:g}", figure.kind, figure.source)
        for name, figure in named.items()
        if isinstance(figure, Figure) and np.isfinite(figure.value)
    ]


def _budget_of(strategy):
    return 2048.0 if strategy.default_budgets else np.inf


def _budget(strategy):
    return "a budget of 2,048" if strategy.default_budgets else "no budget"


def _matters(counts, field):
    return field in ("passes", "kv_tokens") or np.any(getattr(counts, field) != _USUAL.get(field, 0.0))


def _number(value):
    number = float(np.asarray(value))
    return f"{number:,.4g}" if number < 1000 else f"{number:,.0f}"


def _budgets(strategy):
    names = ("all" if np.isinf(budget) else f"{budget:,.0f}" for budget in strategy.default_budgets)
    return ", ".join(names) or "none: it has no budget"


def _sentence(text):
    text = text.partition("\n\n")[0].replace("\n", " ").rstrip(".")
    return text[:1].upper() + text[1:] + "."
