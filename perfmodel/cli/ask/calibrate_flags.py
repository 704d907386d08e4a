"""Every flag of `draftplan calibrate`, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.cli.ask.completion import engine_names, hardware_names, model_names, strategy_names
from perfmodel.cli.ask.flag import argument, flag
from perfmodel.cli.ask.format import Format

__all__ = ["CalibrateFlags"]

_POINTS, _ENGINE, _ANSWER = "Points", "Engine", "Answer"


@dataclass(frozen=True, kw_only=True)
class CalibrateFlags:
    """What `calibrate` takes."""

    points: str = argument("POINTS.csv|TABLE,...",
        help="Measured steps: a CSV file, or published tables.")
    hardware: str | None = flag("--hardware", "NAME|PATH", complete=hardware_names, panel=_POINTS,
        help="Accelerator that was measured.")
    model: str | None = flag("--model", "NAME|PATH", complete=model_names, panel=_POINTS,
        help="Target model, where no column target_model says it.")
    tp: str | None = flag("--tp", "N", panel=_POINTS,
        help="GPUs that shared every layer, where no column tensor_parallel says it.")
    strategy: str | None = flag("--strategy", "NAME", complete=strategy_names, panel=_POINTS,
        help="Drafting strategy of the rounds, where no column strategy says it.")
    draft_model: str | None = flag("--draft-model", "NAME|PATH", complete=model_names, panel=_POINTS,
        help="Model that drafted, where no column draft_model says it.")
    draft_budget: str | None = flag("--draft-budget", "TOKENS", panel=_POINTS,
        help="Draft KV budget, where no column kv_budget says it.")
    engine: str = flag("--engine", "NAME", default="calibrated", complete=engine_names, panel=_ENGINE,
        help="The engine: a known one whose figures are the start, or a new name.")
    start: str | None = flag("--start", "NAME|PATH", complete=engine_names, panel=_ENGINE,
        help="Engine to start from, and to keep where the points say nothing; the engine itself if it is "
        "known, else `generic`.")
    all_reduce: str | None = flag("--all-reduce", "NAME", panel=_ENGINE,
        help="All-reduce implementation of the hardware profile that the engine calls.")
    attention_kernel: str | None = flag("--attention-kernel", "NAME", panel=_ENGINE,
        help="Attention kernel of the hardware profile that the engine calls.")
    achieved: str | None = flag("--achieved", "PATH,...", panel=_ENGINE,
        help="Shares of peak rates to fit as well, as dotted paths of the hardware profile.")
    keep: str | None = flag("--keep", "FIGURE,...", panel=_ENGINE,
        help="Figures that stay at their start whatever the points say: row_layer,round.")
    profile_output: str | None = flag("--profile-output", "PROFILE.yaml", panel=_ANSWER,
        help="Write a hardware profile with the fitted shares; fits the usual ones where --achieved names "
        "none.")
    output: str | None = flag("--output", "-o", "ENGINE.yaml", panel=_ANSWER,
        help="Write the engine file here; its name becomes the engine's. Shown where absent.")
    engine_output: str | None = flag("--engine-output", "ENGINE.yaml", panel=_ANSWER,
        help="Of points that `draftplan measure` took, of which -o is the hardware profile: write the "
        "engine that ran them.")
    format: Format | None = flag("--format", panel=_ANSWER, help="How to report: a table, json or yaml.")
    profiles_path: str | None = flag("--profiles-path", "FOLDER", panel=_POINTS,
        help="Further folders of hardware and engine files.")
    no_color: bool = flag("--no-color", default=False, panel=_ANSWER,
        help="No colours; so does the variable NO_COLOR.")
