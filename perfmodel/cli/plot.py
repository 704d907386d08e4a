"""`draftplan plot KIND`: one figure of a question, as SVG or PNG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from perfmodel.cli.ask.completion import model_names, strategy_names, table_names
from perfmodel.cli.ask.flag import flag, group, takes
from perfmodel.cli.ask.flags import QuestionFlags
from perfmodel.cli.tell.output import remark, working

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from perfmodel.cli.ask.question import Question

__all__ = ["app"]


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
    from perfmodel.cli.ask import drawing

    question = _asked(ctx, flags, curves="context_lens")
    _draw(flags.output, lambda: drawing.speedup_against_batch(question))


@app.command("speedup-against-context")
@takes(PlotFlags)
def speedup_against_context(ctx: typer.Context, flags: PlotFlags) -> None:
    """Speedup against context length, one curve a batch size, with the inflection length marked.

    Beyond the inflection length a larger batch makes speculation pay more, not less.

    Example: draftplan plot speedup-against-context --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8
    --context 1k:128k:x2 -b 1,8,64,256 -o speedup.svg
    """
    from perfmodel.cli.ask import drawing

    question = _asked(ctx, flags, curves="batch_sizes")
    _draw(flags.output, lambda: drawing.speedup_against_context(question))


@app.command("ratios")
@takes(PlotFlags)
def ratios(ctx: typer.Context, flags: PlotFlags) -> None:
    """Verification and one draft pass over a plain decode step, T_V/T_T and T_D/T_T, against batch size.

    One drafter, at one speculation length: 3 where --gamma names none.

    Example: draftplan plot ratios --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8
    --strategy streaming_llm --draft-budget 512 --context 1k,8k,64k -b 1:256:x2 -o ratios.svg
    """
    from perfmodel.cli.ask import drawing

    question = _asked(ctx, flags, curves="context_lens")
    _draw(flags.output, lambda: drawing.ratios(question, fixed=flags.gamma is not None))


@app.command("map")
@takes(PlotFlags)
def strategy_map(ctx: typer.Context, flags: PlotFlags) -> None:
    """The strategy, draft KV budget and speculation length to use, over batch size and context length.

    Example: draftplan plot map --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 1k:128k:x2
    -b 1:256:x2 -o map.svg
    """
    from perfmodel.cli.ask import drawing

    question = _asked(ctx, flags)
    _draw(flags.output, lambda: drawing.strategy_map(question))


@app.command("causes")
@takes(PlotFlags)
def causes(ctx: typer.Context, flags: PlotFlags) -> None:
    """Time by cause of a plain step, the draft phase, the verification and the round, in one cell.

    Example: draftplan plot causes --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k -b 64
    -o causes.svg
    """
    from perfmodel.cli.ask import drawing

    question = _asked(ctx, flags)
    _draw(flags.output, lambda: drawing.causes(question))


@app.command("roofline")
@takes(PlotFlags)
def roofline(ctx: typer.Context, flags: PlotFlags) -> None:
    """The roofline of the accelerator with the workload's operations on it; several batch sizes are a path.

    The operations are those of the best drafter of the largest batch size, at one context length.

    Example: draftplan plot roofline --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k
    -b 1,16,256 -o roofline.svg
    """
    from perfmodel.cli.ask import drawing

    question = _asked(ctx, flags)
    _draw(flags.output, lambda: drawing.roofline(question))


@app.command("pareto")
@takes(PlotFlags)
def pareto(ctx: typer.Context, flags: PlotFlags) -> None:
    """Throughput of a GPU against time per token at one context length: the front of every drafter.

    Several --tp and --hardware are compared per GPU.

    Example: draftplan plot pareto --model llama-3.1-8b --hardware h100-sxm-80gb --tp 4,8 --context 32k
    -b 1:256:x2 -o pareto.svg
    """
    from perfmodel.cli.ask import drawing

    question = _asked(ctx, flags, several=True)
    _draw(flags.output, lambda: drawing.pareto(question))


@app.command("acceptance")
def acceptance(
    model: str = flag("--model", "NAME|PATH", required=True, complete=model_names, help="Target model."),
    context: str = flag("--context", "TOKENS", required=True, help="One context length."),
    output: str = FIGURE,
    strategy: str | None = flag("--strategy", "NAME,...|all", complete=strategy_names,
        help="Whose acceptance."),
    draft_model: str | None = flag("--draft-model", "NAME|PATH,...", complete=model_names,
        help="Who may draft."),
    draft_budget: str = flag("--draft-budget", "TOKENS,...", default="64:8192:x2",
        help="Draft KV budgets to draw."),
) -> None:
    """Acceptance rate against draft KV budget, with its 80 % interval: published, or else assumed.

    Example: draftplan plot acceptance --model llama-3.1-8b --context 32k --strategy streaming_llm,quest
    -o acceptance.svg
    """
    from perfmodel.cli.ask import drawing

    _draw(output, lambda: drawing.acceptance(model, context, strategy, draft_model, draft_budget))


@app.command("published")
def published(
    output: str = FIGURE,
    table: str | None = flag("--table", "NAME,...", complete=table_names,
        help="Published tables; all where absent."),
) -> None:
    """Computed against published speedup, one point a measured cell.

    Example: draftplan plot published --table magicdec-3a,magicdec-3b,magicdec-3c -o published.svg
    """
    from perfmodel.cli.ask import drawing

    _draw(output, lambda: drawing.published(table))


def _draw(output: str, draw: Callable[[], Axes]) -> None:
    """Refuse a wrong ending before anything is priced, then draw and write the figure."""
    from perfmodel.plots.style import file_kind, save

    file_kind(output)
    with working("drawing"):
        ax = draw()
    save(ax, output)
    remark(f"wrote {output}")


def _asked(ctx: typer.Context, flags: PlotFlags, *, curves: str = "", several: bool = False) -> Question:
    """Return the question of the flags.

    Parameters
    ----------
    curves : axis of the workload that makes one curve each, of which there may be `MOST_SERIES`.
    several : whether several deployments are compared.
    """
    from perfmodel.cli.ask.question import read_question
    from perfmodel.errors import SpecError
    from perfmodel.plots.style import MOST_SERIES

    question = read_question(ctx, flags)
    if not several and (len(question.hardware), len(question.tensor_parallel)) != (1, 1):
        raise SpecError.single("", "--hardware, --tp", "name several deployments", "Name one of each")
    if curves and len(getattr(question.workload, curves)) > MOST_SERIES:
        flag = "--context" if curves == "context_lens" else "--batch-size"
        count = len(getattr(question.workload, curves))
        raise SpecError.single("", flag, f"asks for {count} curves", f"Name at most {MOST_SERIES}")
    for line in question.remarks:
        remark(f"note: {line}")
    return question
