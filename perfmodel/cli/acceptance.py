"""`draftplan acceptance fit|show`: acceptance rates from an engine's log, and what a plan makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from perfmodel.cli.ask.completion import model_names, strategy_names
from perfmodel.cli.ask.flag import NO_COLOR, argument, flag, group
from perfmodel.cli.ask.format import Format
from perfmodel.cli.tell.output import dumped, emit, remark, rendered, working

if TYPE_CHECKING:
    from perfmodel.errors import Fault

__all__ = ["LogForm", "commands"]

T = TypeVar("T")

commands = group("acceptance", 14, "Measure acceptance from an engine's log, and show what was measured.")


class LogForm(str, Enum):
    """Who wrote a log."""

    AUTO = "auto"
    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    CSV = "csv"


JSON = flag("--json", default=False, help="As JSON.")
_PLACE = "What drafted for what, and where (needed to plan with it)"


@commands.command("fit")
def fit(
    log: str = argument("LOG",
        help="An engine's log, metrics text or responses; - reads stdin."),
    form: LogForm = flag("--format", default=LogForm.AUTO, help="Who wrote it; found out where it is auto."),
    gamma: int | None = flag("--gamma", "--num-speculative-tokens", "--spec-tokens", "N", min=1, max=1000,
        help="Tokens drafted per round, for logs that do not tell."),
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

    Understood are the metrics text, the log lines and the responses of vLLM, SGLang and llama.cpp, and a CSV
    with the columns request,round,drafted,accepted. Intervals count requests, not tokens: requests differ.

    Example: curl -s localhost:8000/metrics | draftplan acceptance fit - -o acceptance.json
    """
    from perfmodel.acceptance.estimate import fit_acceptance
    from perfmodel.acceptance.file import MeasuredAcceptance, write_acceptance
    from perfmodel.acceptance.logs import read_log
    from perfmodel.cli.tell.report_acceptance import draw_fit
    from perfmodel.errors import SpecError

    place = _place(strategy, model, draft_model, draft_budget, context)
    if add and output is None:
        raise SpecError.single("", "--add", "adds to no file", "Name one with -o")
    with working(f"reading {log}"):
        found = fit_acceptance(read_log(log, form.value, gamma))
    if as_json:
        text = dumped(found.as_dict(), Format.JSON)
    else:
        text = rendered(
            lambda console: draw_fit(console, log, found, output, place), no_color=no_color, output=None
        )
    if output is not None:
        measured = MeasuredAcceptance.of_fit(found, "stdin" if log == "-" else Path(log).name, **place)
        write_acceptance(output, [measured], add=add)
    emit(text)
    if output is not None:
        remark(f"wrote {output}")
        for line in _unsaid(place):
            remark(f"note: {line}")


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
    from perfmodel.cli.tell.report_acceptance import described, draw_entries

    entries = read_acceptance(file)
    rows = [described(entry, entries) for entry in entries]
    if as_json:
        emit(dumped({"measured": rows}, Format.JSON))
    else:
        emit(rendered(lambda console: draw_entries(console, rows), no_color=no_color, output=None))


def _place(
    strategy: str | None,
    model: str | None,
    draft_model: str | None,
    draft_budget: str | None,
    context: str | None,
) -> dict[str, Any]:
    """Return what drafted for what and where, in the names that a plan uses; SpecError lists every fault."""
    from perfmodel.errors import SpecError
    from perfmodel.model import ModelSpec
    from perfmodel.planning.drafters import find_drafter, is_self, read_spelling

    faults: list[Fault] = []

    def read(flag: str, parse: Callable[[str], T], text: str | None) -> T | None:
        try:
            return None if text is None else parse(text.strip())
        except SpecError as refusal:
            faults.extend(
                fault if fault.line is not None or fault.file not in ("", "request")
                else replace(fault, file="", field=flag)
                for fault in refusal.faults
            )  # fmt: skip
            return None

    target = read("--model", ModelSpec.load, model)
    itself = draft_model is None or is_self(draft_model, model or "")
    draft = None if itself else read("--draft-model", ModelSpec.load, draft_model)
    spelling = read("--strategy", read_spelling, strategy)
    place: dict[str, Any] = {
        "target_model": target.name if target else "",
        "draft_model": draft.name if draft else "",
        "drafter": "draft" if draft else "self" if draft_model is not None else "",
        "kv_budget": read("--draft-budget", _tokens, draft_budget),
        "context_len": read("--context", _tokens, context),
    }
    if spelling is not None and not faults:
        drafter = read("--strategy", lambda _: find_drafter(spelling, draft), strategy)
        if drafter is not None:
            place |= {"strategy": drafter.strategy.name, "drafter": drafter.kind}
        elif not faults:
            place |= {"strategy": read("--strategy", _nothing_drafted, strategy)}
    if faults:
        raise SpecError(faults)
    return place


def _nothing_drafted(text: str) -> str:
    from perfmodel.errors import SpecError

    raise SpecError.single("", "", f"found {text!r}, which drafts nothing", "Name what drafted")


def _tokens(text: str) -> float:
    from perfmodel.errors import SpecError
    from perfmodel.files.units import parse_count

    count = parse_count(text)
    if not 1 <= count <= 100_000_000:
        raise SpecError.single("", "", f"found {count}", "Give a whole number of tokens, 1 or more")
    return float(count)


def _unsaid(place: dict[str, Any]) -> list[str]:
    """What the flags left open, and how the measurement will be taken."""
    import strategies

    missing = [
        flag
        for flag, field in (("--strategy", "strategy"), ("--model", "target_model"))
        if not place.get(field)
    ]
    said = [f"without {' and '.join(missing)} it counts for every one of them"] if missing else []
    name = place.get("strategy")
    sparse = bool(name and strategies.load(name).default_budgets)
    places = [("--context", "context_len")] + ([("--draft-budget", "kv_budget")] if sparse else [])
    if open_places := [flag for flag, field in places if place[field] is None]:
        said.append(f"without {' and '.join(open_places)} it counts as measured wherever it is used")
    return said
