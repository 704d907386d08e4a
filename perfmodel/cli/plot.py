"""`draftplan plot KIND`: one figure of a question, as SVG or PNG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import typer

from perfmodel.cli.ask.completion import table_names
from perfmodel.cli.ask.flag import flag, group, takes
from perfmodel.cli.ask.flags import BATCH, HARDWARE, QuestionFlags
from perfmodel.cli.tell.output import note, remark
from perfmodel.cli.tell.progress import working

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from perfmodel.cli.ask.question import Question

__all__ = ["app"]

_SPEEDUP = "speedup_by_law"
_OF_ACCEPTANCE = (
    "model", "context", "strategy", "draft_model", "draft_budget", "output", "served", "offline",
)  # fmt: skip
"""Flags that matter to the figure of acceptance."""
FIGURE = flag("--output", "-o", "FILE", required=True, help="The figure: a .svg or .png file.")

app = group("plot", 13, "Draw a figure of a question, 800 pixels wide, told apart without colour.")


@dataclass(frozen=True, kw_only=True)
class PlotFlags(QuestionFlags):
    """What every kind of figure of a deployment takes."""

    output: str = FIGURE


@app.command("speedup-against-batch")
@takes(PlotFlags)
def speedup_against_batch(ctx: typer.Context, flags: PlotFlags) -> None:
    """Speedup against batch size, one curve a context length, with its 80 % interval.

    Of the recommendation; or, where one drafter is named, of that drafter even where it does not pay.

    Example: draftplan plot speedup-against-batch --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8
    --context 1k,8k,32k,128k -b 1:256:x2 -o speedup.svg
    """
    _draw_question(
        ctx, flags, lambda figures, question: figures.speedup_against_batch(question), curves="context_lens"
    )


@app.command("speedup-against-context")
@takes(PlotFlags)
def speedup_against_context(ctx: typer.Context, flags: PlotFlags) -> None:
    """Speedup against context length, one curve a batch size, with the inflection length marked.

    Beyond the inflection length a larger batch makes speculation pay more, not less.

    Example: draftplan plot speedup-against-context --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8
    --context 1k:128k:x2 -b 1,8,64,256 -o speedup.svg
    """
    _draw_question(
        ctx, flags, lambda figures, question: figures.speedup_against_context(question), curves="batch_sizes"
    )


@app.command("ratios")
@takes(PlotFlags)
def ratios(ctx: typer.Context, flags: PlotFlags) -> None:
    """Verification and one draft pass over a plain decode step, T_V/T_T and T_D/T_T, against batch size.

    One drafter, at one speculation length: 3 where --gamma names none.

    Example: draftplan plot ratios --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8
    --strategy streaming_llm --draft-budget 512 --context 1k,8k,64k -b 1:256:x2 -o ratios.svg
    """
    fixed = flags.gamma is not None
    _draw_question(
        ctx, flags, lambda figures, question: figures.ratios(question, fixed=fixed), curves="context_lens"
    )


@app.command("map")
@takes(PlotFlags)
def strategy_map(ctx: typer.Context, flags: PlotFlags) -> None:
    """The strategy, draft KV budget and speculation length to use, over batch size and context length.

    Example: draftplan plot map --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 1k:128k:x2
    -b 1:256:x2 -o map.svg
    """
    _draw_question(ctx, flags, lambda figures, question: figures.strategy_map(question))


@app.command("causes")
@takes(PlotFlags)
def causes(ctx: typer.Context, flags: PlotFlags) -> None:
    """Time by cause of a plain step, the draft phase, the verification and the round, in one cell.

    Example: draftplan plot causes --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k -b 64
    -o causes.svg
    """
    _draw_question(ctx, flags, lambda figures, question: figures.causes(question))


@app.command("roofline")
@takes(PlotFlags)
def roofline(ctx: typer.Context, flags: PlotFlags) -> None:
    """The roofline of the accelerator with the workload's operations on it; several batch sizes are a path.

    The operations are those of the best drafter of the largest batch size, at one context length.

    Example: draftplan plot roofline --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k
    -b 1,16,256 -o roofline.svg
    """
    _draw_question(ctx, flags, lambda figures, question: figures.roofline(question))


@app.command("pareto")
@takes(PlotFlags)
def pareto(ctx: typer.Context, flags: PlotFlags) -> None:
    """Throughput of a GPU against time per token at one context length: the front of every drafter.

    Several --tp and --hardware are compared per GPU.

    Example: draftplan plot pareto --model llama-3.1-8b --hardware h100-sxm-80gb --tp 4,8 --context 32k
    -b 1:256:x2 -o pareto.svg
    """
    _draw_question(ctx, flags, lambda figures, question: figures.pareto(question), several=True)


@dataclass(frozen=True, kw_only=True)
class AcceptancePlotFlags(PlotFlags):
    """What `plot acceptance` takes: a question's flags, of which few matter to the figure."""

    hardware: str | None = flag(*HARDWARE, hidden=True)  # type: ignore[assignment]
    batch_size: str | None = flag(  # type: ignore[assignment]
        *BATCH, "--concurrency", "--max-concurrency", hidden=True
    )
    draft_budget: str = flag("--draft-budget", "TOKENS,...", default="64:8192:x2",
        help="Draft KV budgets to draw.")


@app.command("acceptance")
@takes(AcceptancePlotFlags)
def acceptance(ctx: typer.Context, flags: AcceptancePlotFlags) -> None:
    """Acceptance rate against draft KV budget, with its 80 % interval: published, or else assumed.

    Of a question's flags only the model, one context, who drafts and the budgets matter.

    Example: draftplan plot acceptance --model llama-3.1-8b --context 32k --strategy streaming_llm,quest
    -o acceptance.svg
    """
    from perfmodel.cli.ask.question import read_drafters
    from perfmodel.cli.ask.reading import Reading
    from perfmodel.errors import SpecError
    from perfmodel.model import ModelSpec
    from perfmodel.planning.drafters import check_drafters
    from perfmodel.planning.planner import default_drafters
    from perfmodel.plots.acceptance import plot_acceptance_against_budget
    from perfmodel.plots.style import MOST_SERIES

    reading = Reading(ctx)
    target = reading.read("model", ModelSpec.load, flags.model)
    contexts = reading.counts("context", flags.context, 1, contexts=True)
    budgets = reading.counts("draft_budget", flags.draft_budget, 1)
    small, named = read_drafters(reading, flags.model, flags.strategy, flags.draft_model)
    reading.finish()
    note([*reading.remarks, *_without_effect(ctx)])
    assert target is not None and contexts and budgets
    drafters = named[0] if named is not None else default_drafters(target, small)
    if len(drafters) <= MOST_SERIES:
        check_drafters(drafters, target)
    if len(contexts) > 1:
        raise SpecError.single(
            "", "--context", f"names {len(contexts)} values", "This figure is drawn for one"
        )
    if len(drafters) > MOST_SERIES:
        raise SpecError.single(
            "", "--strategy", f"{len(drafters)} drafters would be drawn", f"Name at most {MOST_SERIES}"
        )
    _draw(flags.output, lambda: plot_acceptance_against_budget(target, drafters, contexts[0], budgets))


def _without_effect(ctx: typer.Context) -> list[str]:
    """Say which of the flags that were typed do not matter to the figure of acceptance."""
    from perfmodel.cli.ask.defaults import by_hand

    typed = [name for name in ctx.params if name not in _OF_ACCEPTANCE and by_hand(ctx, name) == 2]
    flags = ", ".join(f"--{name.replace('_', '-')}" for name in typed)
    return [f"without effect on this figure: {flags}"] * bool(typed)


@app.command("published")
def published(
    output: str = FIGURE,
    table: str | None = flag("--table", "NAME,...", complete=table_names,
        help="Published tables; all where absent."),
) -> None:
    """Computed against published speedup, one point a measured cell.

    Example: draftplan plot published --table magicdec-3a,magicdec-3b,magicdec-3c -o published.svg
    """

    def draw() -> Axes:
        from perfmodel.cli.tell.validate import draw_figure
        from perfmodel.errors import SpecError
        from perfmodel.evidence.published.validate import validate

        validation = validate(None if table is None else [name.strip() for name in table.split(",")])
        if all(row.measure != _SPEEDUP for row in validation.compared):
            raise SpecError.single(
                "", "--table", "holds no published speedup", "Name tables of speculative decoding"
            )
        return draw_figure(validation, _SPEEDUP, "speedup over plain decoding [1]")

    _draw(output, draw)


def _draw(output: str, draw: Callable[[], Axes]) -> None:
    """Refuse a wrong ending before anything is priced, then draw and write the figure."""
    from perfmodel.plots.style import file_kind, save

    file_kind(output)
    with working("drawing"):
        ax = draw()
    save(ax, output)
    remark(f"wrote {output}")


def _draw_question(
    ctx: typer.Context,
    flags: PlotFlags,
    draw: Callable[[ModuleType, Question], Axes],
    *,
    curves: str = "",
    several: bool = False,
) -> None:
    """Draw and write a figure of the question that the flags ask.

    Parameters
    ----------
    draw : draws it with a function of `perfmodel.cli.tell.figures`, which is loaded once it is needed.
    curves : axis of the workload that makes one curve each, of which there may be `MOST_SERIES`.
    several : whether several deployments are compared.
    """
    from perfmodel.cli.ask.question import read_question
    from perfmodel.cli.tell import figures
    from perfmodel.errors import SpecError
    from perfmodel.plots.style import MOST_SERIES

    question = read_question(ctx, flags)
    if not several:
        question.only_deployment()
    count = len(getattr(question.workload, curves)) if curves else 1
    if count > MOST_SERIES:
        axis = "--context" if curves == "context_lens" else "--batch-size"
        raise SpecError.single("", axis, f"asks for {count} curves", f"Name at most {MOST_SERIES}")
    note(question.remarks)
    _draw(flags.output, lambda: draw(figures, question))
