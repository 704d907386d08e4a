"""`draftplan acceptance fit|show`: acceptance rates from an engine's log, and what a plan makes of them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.ask.completion import model_names, strategy_names
from perfmodel.cli.ask.flag import NO_COLOR, argument, flag, group
from perfmodel.cli.ask.format import Format, OutputFlags
from perfmodel.cli.tell.output import note, remark, tell
from perfmodel.cli.tell.progress import working

if TYPE_CHECKING:
    from perfmodel.speculation import Drafter

__all__ = ["LogForm", "commands"]

commands = group("acceptance", 14, "Measure acceptance from an engine's log, and show what was measured.")


class LogForm(str, Enum):
    """Who wrote a log."""

    AUTO = "auto"
    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    TRTLLM = "trtllm"
    CSV = "csv"


JSON = flag("--json", default=False, help="As JSON.")
_PLACE = "What drafted for what, and where (needed to plan with it)"


@commands.command("fit")
def fit(
    ctx: typer.Context,
    logs: list[str] = argument("LOG...",
        help="An engine's log, scrapes of its metrics in order of time, or responses; - reads stdin."),
    form: LogForm = flag("--format", default=LogForm.AUTO, help="Who wrote it; found out where it is auto."),
    gamma: int | None = flag("--gamma", "--num-speculative-tokens", "--spec-tokens", "N", min=1, max=1000,
        help="Tokens drafted per round, for logs that do not tell."),
    only: str | None = flag("--only", "NAME",
        help="The drafter or model to read, for logs that hold several."),
    plan: str | None = flag("--plan", "FILE",
        help="The plan that the engine ran, in JSON: its lengths are those that rounds drafted."),
    strategy: str | None = flag("--strategy", "NAME", complete=strategy_names, panel=_PLACE,
        help="The drafting strategy that ran."),
    model: str | None = flag("--model", "--target", "--model-path", "NAME|PATH", complete=model_names,
        panel=_PLACE,
        help="The target model."),
    draft_model: str | None = flag("--draft-model", "--spec-model", "NAME|PATH", complete=model_names,
        panel=_PLACE,
        help="The model that drafted, if it was not the target itself."),
    draft_budget: str | None = flag("--draft-budget", "TOKENS", panel=_PLACE, help="The draft KV budget."),
    context: str | None = flag("--context", "--isl", "TOKENS", panel=_PLACE,
        help="The usual context length of the requests."),
    output: str | None = flag("--output", "-o", "FILE",
        help="Write an acceptance file for plan, price and simulate."),
    add: bool = flag("--add", default=False, help="Keep what is in the file of -o already."),
    as_json: bool = JSON,
    no_color: bool = NO_COLOR,
) -> None:  # fmt: skip
    """Estimate acceptance rates with 95 % intervals from what a serving engine wrote.

    Understood are the metrics text, the log lines and the responses of vLLM, SGLang, llama.cpp and
    TensorRT-LLM, results of their benchmarks and of AIPerf, and a CSV with the columns
    request,round,drafted,accepted. Intervals count requests, not tokens: requests differ. Under a schedule
    --plan names the lengths that the engine chose among; several scrapes tell more than one.

    Example: curl -s localhost:8000/metrics | draftplan acceptance fit - -o acceptance.json
    """
    from perfmodel.acceptance.estimate import fit_acceptance
    from perfmodel.acceptance.file import MeasuredAcceptance, write_acceptance
    from perfmodel.acceptance.logs import read_logs
    from perfmodel.cli.tell.acceptance import draw_fit
    from perfmodel.errors import SpecError

    place = _read_place(
        ctx, strategy=strategy, model=model, draft_model=draft_model, draft_budget=draft_budget,
        context=context,
    )  # fmt: skip
    if add and output is None:
        raise SpecError.single("", "--add", "adds to no file", "Name one with -o")
    lengths = _read_lengths(plan)
    log = " ".join(logs)
    with working(f"reading {log}"):
        fitted = fit_acceptance(read_logs(logs, form.value, gamma, only), lengths)
    if output is not None:
        source = ", ".join("stdin" if each == "-" else Path(each).name for each in logs)
        measured = MeasuredAcceptance.of_fit(fitted, source, **place)
        write_acceptance(output, [measured], add=add)

    tell(
        fitted.as_dict, _report_flags(as_json, no_color),
        table=lambda console: draw_fit(console, log, fitted, output, place),
    )  # fmt: skip
    if output is not None:
        remark(f"wrote {output}")
        note(_name_left_open(place, fitted.draft_share is not None))


@commands.command("show")
def show(
    file: str = argument("FILE", help="What `draftplan acceptance fit -o` wrote."),
    as_json: bool = JSON,
    no_color: bool = NO_COLOR,
) -> None:
    """Show what an acceptance file holds, and what a plan believes where each entry was measured.

    A published law is the prior: what is believed lies between it and the measurements, nearer to the surer.
    """
    from perfmodel.acceptance.file import read_acceptance
    from perfmodel.cli.tell.acceptance import draw_entries
    from perfmodel.planning.drafters import describe_measured

    entries = read_acceptance(file)
    rows = [describe_measured(entry, entries) for entry in entries]

    flags = _report_flags(as_json, no_color)
    tell(lambda: {"measured": rows}, flags, table=lambda console: draw_entries(console, rows))


def _report_flags(as_json: bool, no_color: bool) -> OutputFlags:
    return OutputFlags(format=Format.JSON if as_json else Format.TABLE, output=None, no_color=no_color)


def _read_place(
    ctx: typer.Context, *, strategy: str | None, model: str | None, draft_model: str | None,
    draft_budget: str | None, context: str | None,
) -> dict[str, Any]:  # fmt: skip
    """Return what drafted for what and where, in the names that a plan uses; SpecError lists every fault."""
    from perfmodel.cli.ask.reading import Reading, read_flag
    from perfmodel.errors import SpecError
    from perfmodel.model import ModelSpec
    from perfmodel.planning.drafters import find_drafter, is_self, read_spelling

    reading = Reading(ctx)
    target = reading.read("model", ModelSpec.load, model)
    itself = draft_model is None or is_self(draft_model, model or "")
    draft = None if itself else reading.read("draft_model", ModelSpec.load, draft_model)
    spelling = reading.read("strategy", read_spelling, strategy)
    place: dict[str, Any] = {
        "target_model": target.name if target else "",
        "draft_model": draft.name if draft else "",
        "drafter": "draft" if draft else "self" if draft_model is not None else "",
        "kv_budget": reading.read("draft_budget", _read_tokens, draft_budget),
        "context_len": reading.read("context", _read_tokens, context),
    }
    reading.finish()
    if spelling is None:
        return place

    def read_drafter(text: str) -> Drafter:
        drafter = find_drafter(spelling, draft)
        if drafter is None:
            raise SpecError.single("", "", f"found {text!r}, which drafts nothing", "Name what drafted")
        return drafter

    drafter = read_flag(ctx, "strategy", read_drafter, strategy)
    assert drafter is not None
    return place | {"strategy": drafter.strategy.name, "drafter": drafter.kind}


def _read_lengths(plan: str | None) -> list[int]:
    """Return the speculation lengths that a plan chooses, without plain decoding; none without a plan."""
    if plan is None:
        return []
    from perfmodel.cli.ask.plan import read_given_plan
    from perfmodel.errors import SpecError

    read, remarks = read_given_plan(plan)
    note(remarks)
    lengths = sorted({cell.gamma for cell in read.cells if cell.gamma > 0})
    if not lengths:
        raise SpecError.single(plan, "gamma", "the plan never drafts", "Give the plan that the engine ran")
    return lengths


def _read_tokens(text: str) -> float:
    from perfmodel.errors import SpecError
    from perfmodel.files.units import parse_count

    count = parse_count(text)
    if not 1 <= count <= 100_000_000:
        raise SpecError.single("", "", f"found {count}", "Give a whole number of tokens, 1 or more")
    return float(count)


def _name_left_open(place: dict[str, Any], shared: bool) -> list[str]:
    """What flags and log left open, and how it will be taken; `shared`: idle rounds are counted."""
    import strategies

    name = place.get("strategy")
    sparse = bool(name and strategies.load(name).default_budgets)
    subject = {"--strategy": name, "--model": place["target_model"]}
    where = {"--context": place["context_len"]} | ({"--draft-budget": place["kv_budget"]} if sparse else {})
    sentences = []
    for flags, counts in (
        (subject, "it counts for every one of them"),
        (where, "it counts as measured wherever it is used"),
    ):
        if missing := [name for name, given in flags.items() if not given]:
            sentences.append(f"without {' and '.join(missing)} {counts}")
    if name and not shared and strategies.load(name).acceptance.match.value < 1.0:
        sentences.append(
            "the log does not count rounds without a draft: the share of rounds that draft stays assumed; "
            "--match-share states it"
        )
    return sentences
