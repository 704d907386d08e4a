"""`draftplan export`: a plan in a serving engine's own arguments."""

from __future__ import annotations

from dataclasses import replace

from perfmodel.cli.ask.completion import exporter_names
from perfmodel.cli.ask.flag import OUTPUT, argument, command, flag
from perfmodel.cli.tell.output import note, tell_exported

__all__ = ["export"]


@command("export", 4)
def export(
    plan: str = argument("PLAN.json", help="What draftplan plan --format json wrote."),
    engine: str = flag("--engine", "NAME", required=True, complete=exporter_names,
        help="Serving engine, e.g. vllm, sglang."),
    form: str | None = flag("--form", "NAME",
        help="Which of the engine's files; its usual one where absent."),
    draft_path: str | None = flag("--draft-path", "PATH|ID",
        help="Checkpoint of the drafter, as the engine names it."),
    method: str | None = flag("--method", "NAME",
        help="The engine's own method, in place of the strategy's."),
    collapse: str = flag("--collapse", "weight|regret", default="weight",
        help="How contexts become one: least mean or worst loss."),
    weights: str | None = flag("--weights", "CONTEXT=SHARE,...",
        help="Share of time per planned context; equal where absent."),
    context: str | None = flag("--context", "LOW[:HIGH]", help="Only the planned contexts in this range."),
    max_distinct: int = flag("--max-distinct", default=4, min=1,
        help="Distinct speculation lengths at most."),
    merge_loss: float = flag("--merge-loss", default=0.01, min=0.0, max=0.5,
        help="Speed that a batch may lose to have fewer lengths."),
    max_batch: int | None = flag("--max-batch", min=1,
        help="Batch size that the table ends at (max_num_seqs)."),
    data_parallel: int = flag("--dp", default=1, min=1, help="Data-parallel replicas."),
    semantics: str = flag("--semantics", "upper|lower", default="upper",
        help="Keys of TensorRT-LLM's schedule."),
    engine_version: str | None = flag("--engine-version", "RELEASE",
        help="Release that is served, where releases read one key differently (TensorRT-LLM)."),
    max_loss: float | None = flag("--max-loss", "SHARE", min=0.0, max=1.0,
        help="Refuse a text in which a planned cell loses more of its speed."),
    output: str | None = OUTPUT,
) -> None:
    """Write a plan in an engine's own words; what the engine cannot express is said on stderr.

    The plan must be one deployment: one drafter and draft KV budget for all cells.

    Example: draftplan export plan.json --engine vllm
    """
    from perfmodel.cli.ask.plan import read_given_plan
    from perfmodel.errors import SpecError
    from perfmodel.export import ExportOptions, load

    exporter = load(engine)
    options = ExportOptions(
        form=form,
        draft_path=draft_path,
        method=method,
        collapse=collapse,
        weights=_read_weights(weights),
        contexts=_read_range(context),
        max_distinct=max_distinct,
        merge_loss=merge_loss,
        max_batch=max_batch,
        data_parallel=data_parallel,
        semantics=semantics,
        engine_version=engine_version,
        max_loss=max_loss,
    )
    planned, remarks = read_given_plan(plan)
    note(remarks)
    if "output_tokens" not in planned.request:
        note([f"{plan} says no output length, as plans of 0.1.0 do: see docs/where-it-was-wrong.md"])
    try:
        exported = exporter.export(planned, options)
    except SpecError as refusal:
        raise SpecError(
            replace(fault, file=plan) if fault.file == "plan" else fault for fault in refusal.faults
        ) from None
    tell_exported(exporter, exported, output)


def _read_weights(text: str | None) -> dict[int, float] | None:
    """Return the shares per context that a text such as ``4k=0.7,32k=0.3`` names."""
    from perfmodel.errors import SpecError
    from perfmodel.files.units import parse_count

    if text is None:
        return None
    shares = {}
    for part in text.split(","):
        context, _, share = part.partition("=")
        try:
            shares[parse_count(context.strip())] = float(share)
        except ValueError as fault:
            raise SpecError.single(
                "request", "--weights", f"found {part!r} ({fault})", "write 4k=0.7,32k=0.3"
            ) from None
    return shares


def _read_range(text: str | None) -> tuple[int, int] | None:
    """Return the first and last context of ``32k`` or ``4k:32k``."""
    from perfmodel.errors import SpecError
    from perfmodel.files.units import parse_count

    if text is None:
        return None
    low, _, high = text.partition(":")
    try:
        return parse_count(low.strip()), parse_count((high or low).strip())
    except SpecError as error:
        problem = error.faults[0].problem
        raise SpecError.single("request", "--context", problem, "write 32k or 4k:32k") from None
