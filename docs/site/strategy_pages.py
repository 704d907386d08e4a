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
    "self": "the target itself (self-speculation)", "draft": "a small draft model", "head": "a head on the target",
    "none": "no model: the host looks text up",
}  # fmt: skip
COUNTED = {
    "passes": "forward passes of a round", "kv_tokens": "cache entries read by a pass",
    "query_tokens": "tokens that enter a pass", "layer_fraction": "share of the layers that run",
    "weight_fraction": "bytes of weights, relative to the model's", "kv_fraction": "bytes of an entry, relative to the model's",
    "selection_kv_tokens": "entries' worth of reads for choosing, a pass", "selection_launches": "launches for choosing, a layer",
    "resident_kv_tokens": "entries held in memory beyond the target's cache",
    "prefill_kv_tokens": "entries' worth of reads and writes at the end of the prompt", "lookup_tokens": "tokens searched by the host",
}  # fmt: skip
_UNUSUAL = {"layer_fraction": 1.0, "weight_fraction": 1.0, "kv_fraction": 1.0, "query_tokens": 1.0}


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

    An element is `READ`, `UNREAD`, `DRAFTED` for a draft of this round that is read, or `ABSENT` for a draft that is
    not there yet. Importance of entries, where a selector asks for it, is drawn at random, a little anew for each pass.
    """
    counts = strategy.draft_pass(context_len=context_len, kv_budget=kv_budget, gamma=gamma)
    passes = int(round(float(counts.passes)))
    rows = np.full((passes + 1, context_len + gamma), ABSENT)
    rows[:, :context_len] = UNREAD
    draw = np.random.default_rng(1)
    lasting = draw.pareto(1.2, context_len)
    budget = kv_budget if strategy.default_budgets else np.inf
    for index in range(passes):
        if has_cache(strategy):
            again = lasting if strategy.selector.moment != "pass" else lasting * draw.lognormal(0.0, 0.6, context_len)
            rows[index, strategy.selector.keep(context_len, budget, again)] = READ
            rows[index, context_len : context_len + index] = DRAFTED
    rows[-1, :context_len], rows[-1, context_len:] = READ, DRAFTED
    return rows


def has_cache(strategy):
    """Whether a draft reads a cache at all: a lookup has no model, Medusa's heads have no attention."""
    return "none" not in strategy.drafters and not ("head" in strategy.drafters and strategy.head.output_heads)


def plot_reads(strategy):
    """Draw which cache entries each pass of a round reads."""
    rows = reads(strategy)
    ax = axes(None, height=1.9 + 0.3 * len(rows))
    ax.grid(visible=False)
    norm = BoundaryNorm(np.arange(-0.5, 4.0), len(COLOURS))
    ax.pcolormesh(rows[::-1], cmap=ListedColormap(COLOURS), norm=norm, edgecolors="white", linewidth=0.3)
    ax.set_yticks(np.arange(len(rows)) + 0.5, ["verification", *(f"pass {n}" for n in range(len(rows) - 1, 0, -1))])
    ax.set_xlabel("position in the cache, then the drafts of this round [tokens]")
    titled(
        ax, f"What a round of {strategy.name} reads",
        f"context {CONTEXT}, draft KV budget {BUDGET if strategy.default_budgets else 'none'}, {GAMMA} drafts; small "
        "numbers so that each entry can be seen",
    )  # fmt: skip
    names = ("not read", "read", "draft of this round, read")
    legend_below(ax, [Patch(color=colour, label=name) for colour, name in zip(COLOURS, names, strict=False)])
    return ax


def plot_acceptance(strategy):
    """Draw acceptance against draft KV budget, with its interval, for a target that many measured."""
    model = ModelSpec.load(DRAFT) if strategy.needs_draft_model else None
    drafter = Drafter(strategy, draft_model=model)
    return plot_acceptance_against_budget(ModelSpec.load(TARGET), [drafter], SEEN, BUDGETS)


def _page(strategy):
    module = importlib.import_module(f"strategies.{strategy.name}")
    described = inspect.getdoc(module).partition(": ")
    counts = strategy.draft_pass(context_len=float(SEEN), kv_budget=2048.0, gamma=4.0)
    lines = [
        f"# {strategy.name}", "", f"{_sentence(described[2] or described[0])}", "",
        f"![What a round reads]({strategy.name}-reads.svg)", "",
        *(() if has_cache(strategy) else ("Its drafts read no cache at all.", "")),
        "| | |", "|---|---|",
        f"| drafts with | {', or '.join(WHOSE[drafter] for drafter in strategy.drafters)} |",
        f"| chooses | {MOMENTS[strategy.selector.moment]} |",
        f"| draft KV budgets searched | {_budgets(strategy)} |",
        f"| needs | {strategy.needs or 'nothing but the models'} |",
        f"| output | {'that of plain decoding' if strategy.lossless else 'not that of plain decoding'} |",
        f"| run by | {_engines(strategy)} |",
        f"| from | {strategy.source} |", "",
        "## What a round counts", "",
        f"A strategy counts tokens; seconds are made of them elsewhere ([theory](../theory.md#the-draft-pass)). At a context "
        f"of {SEEN:,} tokens, a budget of 2,048 and 4 drafts:", "",
        "| count | of a round |", "|---|---|",
        *(f"| {text} | {_number(getattr(counts, field))} |" for field, text in COUNTED.items() if _matters(counts, field)),
        "", "## How often it is accepted", "",
        f"![Acceptance against draft KV budget]({strategy.name}-acceptance.svg)", "",
        "The [law of acceptance](../theory.md#acceptance) with this strategy's figures. Measure yours with "
        "`draftplan acceptance fit`; then these are only where it starts.", "",
        "| figure | value | standard deviation | kind | source |", "|---|---|---|---|---|", *_law(strategy.acceptance), "",
        "## Ask about it", "", f"<!-- output: {command(strategy)} -->", "",
        "## The file", "",
        f"All of the above follows from `strategies/{strategy.name}.py`.", "",
        '??? quote "The source"', "", "    ```python",
        *(f"    {line}".rstrip() for line in inspect.getsource(module).splitlines()), "    ```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _index(names):
    rows = []
    for name in names:
        strategy = strategies.load(name)
        who = ", ".join(strategy.drafters)
        rows.append(f"| [{name}]({name}.md) | {strategy.summary} | {who} | {strategy.selector.moment} | {_budgets(strategy)} |")
    return "\n".join([
        "# Drafting strategies", "",
        "A strategy says which cache entries a draft reads, how often, and through which share of the layers. Each is one "
        "file of `strategies/`, and each of these pages is made of that file: add one, as "
        "[the recipe](../contributing.md#a-drafting-strategy) says, and it has a page.", "",
        "| strategy | drafts with | who | chooses by | draft KV budgets |", "|---|---|---|---|---|", *rows, "",
        "*self*: the target's own weights. *draft*: a small model. *head*: a layer or a few on the target's hidden states. "
        "*none*: nothing but a lookup. A choice by *position* is a fixed rule, by *prompt* is made once, by *pass* again in every "
        "draft pass.", "",
    ])  # fmt: skip


def _engines(strategy):
    """Who can run it, with links to the recipes."""
    there = []
    for entry in pkgutil.iter_modules(software.__path__):
        known = getattr(importlib.import_module(f"perfmodel.software.{entry.name}"), "software", None)
        if known and any(known.method(strategy.name, drafter) for drafter in strategy.drafters):
            recipe = known.name.replace("-", "_")
            label = f"[{known.label}](../engines/{recipe}.md)" if recipe in _recipes() else known.label
            there.append(label)
    return ", ".join(there) or "no engine that is known here"


def _recipes():
    from perfmodel.export import exporters

    return exporters()


def _law(law):
    rows = []
    for field in ("first", "rest", "level", "eta", "far", "match", "temperature_slope", "trained_length", "beyond"):
        figure = getattr(law, field)
        if isinstance(figure, Figure) and np.isfinite(figure.value):
            rows.append(_row(field.replace("_", " "), figure))
    return rows + [_row(f"level, {name}", figure) for name, figure in law.levels.items()]


def _row(name, figure):
    return f"| {name} | {figure.value:g} | {figure.sd:g} | {figure.kind} | {figure.source} |"


def _matters(counts, field):
    return float(np.asarray(getattr(counts, field))) != _UNUSUAL.get(field, 0.0) or field in ("passes", "kv_tokens")


def _number(value):
    return f"{float(np.asarray(value)):,.4g}" if float(np.asarray(value)) < 1000 else f"{float(np.asarray(value)):,.0f}"


def _budgets(strategy):
    shown = ", ".join("all" if np.isinf(budget) else f"{budget:,.0f}" for budget in strategy.default_budgets)
    return shown or "none: it has no budget"


def command(strategy):
    """A question about a strategy alone, as it is typed."""
    small = f" --draft-model {DRAFT}" if strategy.needs_draft_model else ""
    ships = strategy.drafters == ("head",) and strategy.head.comes_with_a_model
    return (
        f"draftplan plan --model {WITH_A_HEAD if ships else TARGET} --hardware h100-sxm-80gb --tp 8 --context 8k,32k -b 1,16,64 "
        f"--strategy {strategy.name}{small}"
    )


def _sentence(text):
    text = text.partition("\n\n")[0].replace("\n", " ").rstrip(".")
    return text[:1].upper() + text[1:] + "."
