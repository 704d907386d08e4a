"""Every flag of the commands that ask about a deployment, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from perfmodel.cli.ask.acceptance_flags import AcceptanceFlags
from perfmodel.cli.ask.completion import (
    engine_names,
    hardware_names,
    model_names,
    plan_formats,
    strategy_names,
)
from perfmodel.cli.ask.config import read_config
from perfmodel.cli.tell.output import Format

__all__ = [
    "DeploymentFlags",
    "ExplainFlags",
    "OutputFlags",
    "PlanFlags",
    "QuestionFlags",
    "SweepFlags",
    "takes",
]

FlagsT = TypeVar("FlagsT")

_DEPLOYMENT, _WORKLOAD, _DRAFTING, _ANSWER = "Deployment", "Workload", "Drafting", "Answer"


@dataclass(frozen=True, kw_only=True)
class DeploymentFlags:
    """Which model runs on what."""

    model: Annotated[
        str,
        typer.Option(
            "--model", "--model-path", metavar="NAME|PATH", autocompletion=model_names,
            rich_help_panel=_DEPLOYMENT,
            help="Target model: a bundled name, a config.json, a folder that holds one, or a hub id.",
        ),
    ]  # fmt: skip
    hardware: Annotated[
        str,
        typer.Option(
            "--hardware", "--system", metavar="NAME|PATH,...", autocompletion=hardware_names,
            rich_help_panel=_DEPLOYMENT, help="Accelerator: a profile's name or alias, or a YAML file.",
        ),
    ]  # fmt: skip
    tp: Annotated[
        str,
        typer.Option(
            "--tp", "--tp-size", "--tensor-parallel-size", metavar="N,...", rich_help_panel=_DEPLOYMENT,
            help="GPUs that share every layer.",
        ),
    ] = "1"  # fmt: skip
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine", metavar="NAME|PATH", autocompletion=engine_names, rich_help_panel=_DEPLOYMENT,
            help="Serving engine whose overheads count; `generic` where none is named.",
        ),
    ] = None  # fmt: skip
    weight_dtype: Annotated[
        str | None,
        typer.Option(
            "--weight-dtype", metavar="DTYPE", rich_help_panel=_DEPLOYMENT,
            help="How the target's weights are stored (bf16, fp8, int4, ...); the model's own where absent.",
        ),
    ] = None  # fmt: skip
    kv_cache_dtype: Annotated[
        str | None,
        typer.Option(
            "--kv-cache-dtype", metavar="DTYPE", rich_help_panel=_DEPLOYMENT,
            help="How the KV cache is stored (bf16, fp8, ...); the model's own where absent.",
        ),
    ] = None  # fmt: skip
    gpu_memory_utilization: Annotated[
        str | None,
        typer.Option(
            "--gpu-memory-utilization", metavar="SHARE", rich_help_panel=_DEPLOYMENT,
            help="Share of GPU memory that the engine may use; the engine's own where absent.",
        ),
    ] = None  # fmt: skip
    profiles_path: Annotated[
        str | None,
        typer.Option(
            "--profiles-path", metavar="FOLDER", rich_help_panel=_DEPLOYMENT,
            help="Further folders of hardware and engine files, separated as in PATH.",
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class QuestionFlags(AcceptanceFlags, DeploymentFlags):
    """A deployment, its workload and what may draft."""

    context: Annotated[
        str,
        typer.Option(
            "--context", "--isl", "--prefix-len", metavar="TOKENS,...", rich_help_panel=_WORKLOAD,
            help="Context lengths: 32k is 32000, 32K is 32768; 4k,8k or 1k:128k:x2 or 8k:32k:8k.",
        ),
    ]  # fmt: skip
    batch_size: Annotated[
        str,
        typer.Option(
            "--batch-size", "-b", "--bs", metavar="N,...", rich_help_panel=_WORKLOAD,
            help="Sequences decoded together: 32,64,128 or 1:256:x2 or 16:256:16.",
        ),
    ]  # fmt: skip
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", metavar="NAME,...|all", autocompletion=strategy_names, rich_help_panel=_DRAFTING,
            help="Drafting strategies to search; those a deployment can start today where absent.",
        ),
    ] = None  # fmt: skip
    draft_model: Annotated[
        str | None,
        typer.Option(
            "--draft-model", "--spec-model", metavar="NAME|PATH,...", autocompletion=model_names,
            rich_help_panel=_DRAFTING,
            help="Small models that may draft. With --strategy only these do; `self` is the target itself.",
        ),
    ] = None  # fmt: skip
    draft_budget: Annotated[
        str | None,
        typer.Option(
            "--draft-budget", metavar="TOKENS,...", rich_help_panel=_DRAFTING,
            help="Draft KV budgets to search; each strategy's own where absent.",
        ),
    ] = None  # fmt: skip
    gamma: Annotated[
        str | None,
        typer.Option(
            "--gamma", "--num-speculative-tokens", "--spec-tokens", metavar="N,...",
            rich_help_panel=_DRAFTING,
            help="Speculation lengths to search, 0:16:1 where absent. Plain decoding (0) always is.",
        ),
    ] = None  # fmt: skip
    tpot: Annotated[
        str | None,
        typer.Option(
            "--tpot", "--tpot-sla-ms", metavar="MS", rich_help_panel=_WORKLOAD,
            help="Longest time per output token [ms] that is allowed.",
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """How the answer is written."""

    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            rich_help_panel=_ANSWER,
            help="How to write it; a table, or what the ending of -o says.",
        ),
    ] = None
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", rich_help_panel=_ANSWER, help="Write to a file, not to stdout."
        ),
    ] = None
    no_color: Annotated[
        bool,
        typer.Option(
            "--no-color", rich_help_panel=_ANSWER, help="No colours; so does the variable NO_COLOR."
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class PlanFlags(OutputFlags, QuestionFlags):
    """What `plan` takes."""

    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="table|json|yaml|csv|ENGINE", autocompletion=plan_formats,
            rich_help_panel=_ANSWER, help="How to write it; a table, or as -o ends. An engine "
            "(vllm, sglang, ...): one deployment, in that engine's own words.",
        ),
    ] = None  # type: ignore[assignment]  # fmt: skip
    objective: Annotated[
        str,
        typer.Option(
            "--objective", metavar="WHAT,RISK", rich_help_panel=_ANSWER,
            help="What decides among GPUs and their number (speedup, throughput, tpot, cost), and at "
            "which acceptance: expected, quantile:0.2, or worst (quantile:0.05).",
        ),
    ] = "speedup"  # fmt: skip
    one_deployment: Annotated[
        bool,
        typer.Option(
            "--one-deployment", rich_help_panel=_ANSWER,
            help="One drafter and draft KV budget for all cells, as a running engine has; gamma may vary.",
        ),
    ] = False  # fmt: skip
    lossy: Annotated[
        bool,
        typer.Option(
            "--lossy", rich_help_panel=_ANSWER,
            help="Price lossy alternatives beside it: quantised weights or KV, pruned weights. Never chosen.",
        ),
    ] = False  # fmt: skip
    pruned: Annotated[
        str,
        typer.Option(
            "--pruned", metavar="SHARE,...", rich_help_panel=_ANSWER,
            help="Shares of the weights that pruning takes away, for --lossy: 25%,50%.",
        ),
    ] = "50%"  # fmt: skip
    config: Annotated[
        str | None,
        typer.Option(
            "--config", metavar="FILE", is_eager=True, callback=read_config, rich_help_panel=_ANSWER,
            help="YAML file of these flags, such as batch_size: [32, 64] or gamma: '1:8:1'. Flags given win.",
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExplainFlags(OutputFlags, QuestionFlags):
    """What `explain` takes."""


@dataclass(frozen=True, kw_only=True)
class SweepFlags(QuestionFlags):
    """What `sweep` takes."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", rich_help_panel=_ANSWER,
            help="Write to a file that ends on .csv, .csv.gz, .npz or .parquet; CSV to stdout where absent.",
        ),
    ] = None  # fmt: skip
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", min=0, max=1024, rich_help_panel=_ANSWER, help="Worker processes; 0: one a core."
        ),
    ] = 1


def takes(flags: type[FlagsT]) -> Callable[[Callable[[typer.Context, FlagsT], None]], Callable[..., None]]:
    """Make a function of (context, flags) a command whose options are the fields of the dataclass `flags`."""

    def decorate(command: Callable[[typer.Context, FlagsT], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(ctx: typer.Context, **values: Any) -> None:
            command(ctx, flags(**values))

        hints = get_type_hints(flags, include_extras=True)
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in fields(flags)  # type: ignore[arg-type]
        ]
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        run.__signature__ = inspect.Signature([context, *options])  # type: ignore[attr-defined]
        run.__annotations__ = {"ctx": typer.Context, **hints}
        return run

    return decorate
