"""`draftplan check`: a plan beside what its server was benchmarked at."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from perfmodel.cli.ask.completion import engine_names, hardware_names, model_names
from perfmodel.cli.ask.flag import argument, command, flag, takes
from perfmodel.cli.ask.format import OutputFlags, refuse_csv
from perfmodel.cli.tell.output import note, tell

__all__ = ["check"]

_PLAN = "Plan"


@dataclass(frozen=True, kw_only=True)
class CheckFlags(OutputFlags):
    """What `check` takes."""

    plan: str = argument("PLAN.json", help="What draftplan plan --format json wrote.")
    benchmarks: list[str] = argument("BENCHMARK",
        help="What benchmark tools wrote of its server; a run without drafts gives the measured speedup.")
    hardware: str | None = flag("--hardware", "NAME|PATH", complete=hardware_names, panel=_PLAN,
        help="The accelerator, where the plan's name of it is that of a file.")
    model: str | None = flag("--model", "NAME|PATH", complete=model_names, panel=_PLAN,
        help="The target model, where the plan's name of it is that of a file.")
    engine: str | None = flag("--engine", "NAME|PATH", complete=engine_names, panel=_PLAN,
        help="The engine, where the plan's name of it is that of a file.")
    profiles_path: str | None = flag("--profiles-path", "FOLDER", panel=_PLAN,
        help="Further folders of hardware and engine files.")


@command("check", 8.5)
@takes(CheckFlags)
def check(ctx: typer.Context, flags: CheckFlags) -> None:  # noqa: ARG001
    """Hold a plan against benchmarks of the server that ran it: predicted, measured, why, what to do next.

    The cell nearest to each benchmark is priced again at the benchmark's own batch, context, drafted tokens
    and acceptance, and with prompts inside TPOT; what each of these adds, and what is left to the step
    itself, add up to the whole difference.

    Example: draftplan check plan.json vllm_bench.json vllm_bench_plain.json
    """
    from perfmodel.benchmarks.reading import read_benchmarks
    from perfmodel.cli.tell.check import draw_checked
    from perfmodel.evidence.loop.check import check_run, deployed, speedups
    from perfmodel.planning.plan import read_plan

    refuse_csv(flags)
    plan = read_plan(flags.plan)
    planned = deployed(
        plan, flags.plan, hardware=flags.hardware, model=flags.model,
        engine=flags.engine, profiles_path=flags.profiles_path,
    )  # fmt: skip
    benchmarks = [benchmark for file in flags.benchmarks for benchmark in read_benchmarks(file)]
    checked = speedups([check_run(planned, benchmark) for benchmark in benchmarks])
    tell(
        lambda: {"plan": flags.plan, "checked": [each.to_dict() for each in checked]}, flags,
        table=lambda console: draw_checked(console, plan, checked),
    )  # fmt: skip
    note(filter(None, map(planned.other_model, benchmarks)))
    note(f"{each.source}: {remark}" for each in benchmarks for remark in each.remarks)
