"""Every flag of `draftplan calibrate`, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from perfmodel.cli.ask.completion import engine_names, hardware_names, model_names, strategy_names
from perfmodel.cli.tell.output import Format

__all__ = ["CalibrateFlags"]

_POINTS, _ENGINE, _ANSWER = "Points", "Engine", "Answer"


@dataclass(frozen=True, kw_only=True)
class CalibrateFlags:
    """What `calibrate` takes."""

    points: Annotated[
        str,
        typer.Argument(
            metavar="POINTS.csv|TABLE,...", help="Measured steps: a CSV file, or published tables."
        ),
    ]
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware", metavar="NAME|PATH", autocompletion=hardware_names, rich_help_panel=_POINTS,
            help="Accelerator that was measured.",
        ),
    ] = None  # fmt: skip
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME|PATH", autocompletion=model_names, rich_help_panel=_POINTS,
            help="Target model, where no column target_model says it."),
    ] = None  # fmt: skip
    tp: Annotated[
        str | None,
        typer.Option("--tp", metavar="N", rich_help_panel=_POINTS,
            help="GPUs that shared every layer, where no column tensor_parallel says it."),
    ] = None  # fmt: skip
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", metavar="NAME", autocompletion=strategy_names, rich_help_panel=_POINTS,
            help="Drafting strategy of the rounds, where no column strategy says it."),
    ] = None  # fmt: skip
    draft_model: Annotated[
        str | None,
        typer.Option("--draft-model", metavar="NAME|PATH", autocompletion=model_names,
            rich_help_panel=_POINTS, help="Model that drafted, where no column draft_model says it."),
    ] = None  # fmt: skip
    draft_budget: Annotated[
        str | None,
        typer.Option("--draft-budget", metavar="TOKENS", rich_help_panel=_POINTS,
            help="Draft KV budget, where no column kv_budget says it."),
    ] = None  # fmt: skip
    engine: Annotated[
        str,
        typer.Option("--engine", metavar="NAME", autocompletion=engine_names, rich_help_panel=_ENGINE,
            help="The engine: a known one whose figures are the start, or a new name."),
    ] = "calibrated"  # fmt: skip
    start: Annotated[
        str | None,
        typer.Option("--start", metavar="NAME|PATH", autocompletion=engine_names, rich_help_panel=_ENGINE,
            help="Engine to start from, and to keep where the points say nothing; "
                     "the engine itself if it is known, else `generic`."),
    ] = None  # fmt: skip
    all_reduce: Annotated[
        str | None,
        typer.Option("--all-reduce", metavar="NAME", rich_help_panel=_ENGINE,
            help="All-reduce implementation of the hardware profile that the engine calls."),
    ] = None  # fmt: skip
    attention_kernel: Annotated[
        str | None,
        typer.Option("--attention-kernel", metavar="NAME", rich_help_panel=_ENGINE,
            help="Attention kernel of the hardware profile that the engine calls."),
    ] = None  # fmt: skip
    achieved: Annotated[
        str | None,
        typer.Option("--achieved", metavar="PATH,...", rich_help_panel=_ENGINE,
            help="Shares of peak rates to fit as well, as dotted paths of the hardware profile."),
    ] = None  # fmt: skip
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="FIGURE,...", rich_help_panel=_ENGINE,
            help="Figures that stay at their start whatever the points say: row_layer,round."),
    ] = None  # fmt: skip
    profile_output: Annotated[
        str | None,
        typer.Option("--profile-output", metavar="PROFILE.yaml", rich_help_panel=_ANSWER,
            help="Write a hardware profile with the fitted shares; fits the usual ones "
                     "where --achieved names none."),
    ] = None  # fmt: skip
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="ENGINE.yaml", rich_help_panel=_ANSWER,
            help="Write the engine file here; its name becomes the engine's. Shown where absent."),
    ] = None  # fmt: skip
    engine_output: Annotated[
        str | None,
        typer.Option("--engine-output", metavar="ENGINE.yaml", rich_help_panel=_ANSWER,
            help="Of points that `draftplan measure` took, of which -o is the hardware profile: "
                     "write the engine that ran them."),
    ] = None  # fmt: skip
    format: Annotated[
        Format | None,
        typer.Option("--format", rich_help_panel=_ANSWER, help="How to report: a table, json or yaml."),
    ] = None  # fmt: skip
    profiles_path: Annotated[
        str | None,
        typer.Option("--profiles-path", metavar="FOLDER", rich_help_panel=_POINTS,
            help="Further folders of hardware and engine files."),
    ] = None  # fmt: skip
    no_color: Annotated[
        bool,
        typer.Option("--no-color", rich_help_panel=_ANSWER,
            help="No colours; so does the variable NO_COLOR."),
    ] = False  # fmt: skip
