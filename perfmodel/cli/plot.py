"""`draftplan plot KIND`: one figure of a question, as SVG or PNG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.ask.completion import engine_names, model_names, table_names
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
FIGURE = flag("--output", "-o", "FILE", required=True, help="The figure: a .svg, .png or .pdf file.")

app = group("plot", 13, "Draw a figure of a question, 800 pixels wide, told apart without colour.")


@dataclass(frozen=True, kw_only=True)
class PlotFlags(QuestionFlags):
    """What every kind of figure of a deployment takes."""

    output: str = FIGURE


@dataclass(frozen=True, kw_only=True)
class EnginesFlags(PlotFlags):
    """What the figure of several engines takes."""

    engine: str = flag("--engine", "NAME|PATH,...", required=True, complete=engine_names, panel="Deployment",
        help="Serving engines, a map each.")


@dataclass(frozen=True, kw_only=True)
class BottleneckFlags(PlotFlags):
    """What the figure of several models takes."""

    model: str = flag("--model", "NAME|PATH,...", required=True, complete=model_names, panel="Deployment",
        help="Target models, a line each.")


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


@app.command("engines")
@takes(EnginesFlags)
def engines(ctx: typer.Context, flags: EnginesFlags) -> None:
    """The map of every engine side by side, and what each loses by what its software cannot run.

    What is lost is priced on that engine's own step times: what any engine named can run against what it can.

    Example: draftplan plot engines --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8
    --engine vllm,sglang,tensorrt-llm,magicdec-h100 --context 8k:128k:x2 -b 1:256:x4 -o engines.svg
    """
    _draw_questions(ctx, flags, "engine", lambda figures, questions: figures.engines(questions))


@app.command("break-even")
@takes(PlotFlags)
def break_even(ctx: typer.Context, flags: PlotFlags) -> None:
    """The acceptance that each drafter needs to pay beside the one that is believed, with its interval.

    Example: draftplan plot break-even --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8
    --context 8k,32k,128k -b 1:256:x2 -o break-even.svg
    """
    _draw_question(ctx, flags, lambda figures, question: figures.break_even(question))


@app.command("sensitivity")
@takes(PlotFlags)
def sensitivity(ctx: typer.Context, flags: PlotFlags) -> None:
    """What could change the decision in one cell: the speedup at both ends of every doubtful figure.

    Example: draftplan plot sensitivity --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k
    -b 64 -o sensitivity.svg
    """
    _draw_question(ctx, flags, lambda figures, question: figures.sensitivity(question))


@app.command("kv-bottleneck")
@takes(BottleneckFlags)
def kv_bottleneck(ctx: typer.Context, flags: BottleneckFlags) -> None:
    """What reading the KV cache takes of a plain step over context, a line a model; memory is left aside.

    Example: draftplan plot kv-bottleneck --hardware h200-sxm-141gb --tp 8 -b 32 --context 1k:256k:x2
    --model llama-3.1-70b,deepseek-v3,gemma-3-27b,gpt-oss-120b,qwen3-next-80b-a3b -o bottleneck.svg
    """
    _draw_questions(ctx, flags, "model", lambda figures, questions: figures.kv_bottleneck(questions))


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
    """Throughput of a GPU against time per token at one context length, with and without speculation.

    Several --tp and --hardware are compared per GPU; --tpot draws the limit.

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


def _draw(output: str, draw: Callable[[], Axes | list[Axes]]) -> None:
    """Refuse a wrong ending before anything is priced, then draw and write the figure and say its caption."""
    from perfmodel.plots.style import caption_of, file_kind, save

    file_kind(output)
    with working("drawing"):
        ax = draw()
    save(ax, output)
    if caption := caption_of(ax):
        remark(caption)
    remark(f"wrote {output}")


def _draw_question(
    ctx: typer.Context,
    flags: PlotFlags,
    draw: Callable[[ModuleType, Question], Axes | list[Axes]],
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


def _draw_questions(
    ctx: typer.Context,
    flags: PlotFlags,
    several: str,
    draw: Callable[[ModuleType, list[Question]], list[Axes]],
) -> None:
    """Draw and write one figure of the same question asked of several engines or models.

    Parameters
    ----------
    several : the flag that names them, as a field of `flags`.
    """
    from perfmodel.cli.ask.question import read_question
    from perfmodel.cli.tell import figures
    from perfmodel.engine import DEFAULT_ENGINE
    from perfmodel.errors import SpecError
    from perfmodel.planning.served import serve
    from perfmodel.plots.style import MOST_SERIES

    names = list(dict.fromkeys(filter(None, map(str.strip, getattr(flags, several).split(",")))))
    if not 1 <= len(names) <= MOST_SERIES:
        raise SpecError.single("", f"--{several}", f"names {len(names)}", f"Name 1 to {MOST_SERIES}")
    strategy = (flags.strategy or "all").lower()
    if several == "engine" and "all" not in strategy.split(","):  # who cannot run one is part of the answer
        anyone = read_question(ctx, replace(flags, engine=DEFAULT_ENGINE))
        searching = replace(flags, strategy=None, draft_model=None, draft_tp=None)
        served = [read_question(ctx, replace(searching, engine=name)).engine for name in names]
        questions = [
            replace(anyone, engine=engine, drafters=serve(anyone.drafters, engine, anyone.kv_budgets)[0])
            for engine in served
        ]
    else:
        asked: list[dict[str, Any]] = [{several: name} for name in names]
        questions = [read_question(ctx, replace(flags, **each)) for each in asked]
    for question in questions:
        question.only_deployment()
    if several == "engine":
        note(list(dict.fromkeys(sentence for question in questions for sentence in question.remarks)))
    _draw(flags.output, lambda: draw(figures, questions))
