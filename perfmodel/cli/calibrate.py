"""`draftplan calibrate`: an engine file from measured steps, or the files of this machine from `measure`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from perfmodel.cli.ask.completion import engine_names, hardware_names, model_names, strategy_names
from perfmodel.cli.ask.flag import argument, command, flag, takes
from perfmodel.cli.ask.format import Format, OutputFlags, refuse_csv
from perfmodel.cli.tell.output import emit, note, remark, tell, yaml_text
from perfmodel.cli.tell.progress import working

if TYPE_CHECKING:
    from perfmodel.benchmarks import Benchmark
    from perfmodel.engine import EngineOverhead
    from perfmodel.evidence.published.measurements import Measurement
    from perfmodel.hardware import HardwareProfile

__all__ = ["calibrate"]

_POINTS, _ENGINE, _ANSWER = "Points", "Engine", "Answer"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class CalibrateFlags:
    """What `calibrate` takes."""

    points: list[str] = argument("POINTS.csv|BENCHMARK|TABLE,...",
        help="Measured steps: CSV files, what benchmark tools wrote, or published tables.")
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
        help="All-reduce of the hardware profile that ran; each is tried where absent.")
    attention_kernel: str | None = flag("--attention-kernel", "NAME", panel=_ENGINE,
        help="Attention kernel of the hardware profile that ran; each is tried where absent.")
    achieved: str | None = flag("--achieved", "PATH,...", panel=_ENGINE,
        help="Shares of peak rates to fit as well, as dotted paths of the hardware profile.")
    keep: str | None = flag("--keep", "FIGURE,...", panel=_ENGINE,
        help="Figures that stay at their start whatever the points say: row_layer,round.")
    profile_output: str | None = flag("--profile-output", "PROFILE.yaml", panel=_ANSWER,
        help="Write a hardware profile with the fitted shares; fits the usual ones where --achieved names "
        "none.")
    acceptance_output: str | None = flag("--acceptance-output", "FILE", panel=_ANSWER,
        help="Write the acceptance that the benchmarks counted, for plan and price.")
    traffic_output: str | None = flag("--traffic-output", "FILE.yaml", panel=_ANSWER,
        help="Write the traffic of the benchmarks: lengths, rate, concurrency, and flags that ask for it.")
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

    @property
    def shown(self) -> OutputFlags:
        """How the report is written: never to -o, which is the engine's file."""
        return OutputFlags(format=self.format, output=None, no_color=self.no_color)


@command("calibrate", 9)
@takes(CalibrateFlags)
def calibrate(ctx: typer.Context, flags: CalibrateFlags) -> None:  # noqa: ARG001
    """Fit an engine's kernels and its seconds per pass, layer, row and round to measured steps.

    Benchmark files (`vllm bench serve --save-result` and the like) are taken as they are: a step at the mean
    batch and context of each, prompts of others taken out of its TPOT.

    One measured cell a row, in the columns of `price` with any of t_target_ms, t_draft_ms, t_verify_ms and
    round_ms; or an engine's log with step_ms, batch_size, context_len and gamma (0: a plain step, else a
    whole round). The kernels are those of the hardware profile that explain the points best; points that none
    explains are refused. Figures that the points cannot determine keep their start, and the cells that would
    determine them are named.

    Points that `draftplan measure` took make a hardware profile of this machine in place of an engine;
    --hardware names a profile whose data-sheet peaks it keeps.

    Example: draftplan calibrate log.csv --hardware h100 --model llama-3.1-8b --tp 8 -o ours.yaml
    """
    refuse_csv(flags.shown)
    if len(flags.points) == 1 and _is_of_machine(flags.points[0]):
        _calibrate_machine(flags)
    else:
        _calibrate_engine(flags)


def _calibrate_engine(flags: CalibrateFlags) -> None:
    """Fit an engine, and shares of the hardware where asked, to measured steps; write and report them."""
    from perfmodel.cli.tell.calibration import draw_calibration
    from perfmodel.evidence.calibration.calibrate import calibrate, profile_text

    name, profile_name = _name_of(flags.output, flags.engine), _name_of(flags.profile_output, "")
    rows, benchmarks = _points(flags)
    if benchmarks and _has_enough(flags, rows):
        return
    start = _start(flags, rows[0].group.hardware)
    achieved = _names(flags.achieved)
    usual = flags.profile_output is not None and not achieved
    names = ", ".join(Path(file).name for file in flags.points)
    with working("fitting"):
        calibration = calibrate(
            rows, start=start, name=name, attention_kernel=flags.attention_kernel or "",
            all_reduce=flags.all_reduce or "", achieved=None if usual else achieved, keep=_names(flags.keep),
            calibrated_on=profile_name,
            source="" if rows[0].table else f"own measurements, {names}",
        )  # fmt: skip
    if flags.profile_output is not None:
        origin = flags.hardware or str(rows[0].group.hardware.name)
        profile = profile_text(origin, profile_name, calibration.achieved, flags.profiles_path)
        emit(profile, flags.profile_output)
    if flags.output is not None:
        emit(calibration.text, flags.output)
    text = calibration.text if flags.output is None else ""
    tell(
        calibration.to_dict, flags.shown,
        table=lambda console: draw_calibration(console, calibration, text),
    )  # fmt: skip
    note(calibration.remarks)


def _is_of_machine(points: str) -> bool:
    """Whether a file holds what `draftplan measure` writes."""
    from perfmodel.errors import SpecError
    from perfmodel.evidence.machine.points import is_machine_file
    from perfmodel.files.opening import TABLE, first_bytes

    try:
        return is_machine_file(first_bytes(points, TABLE, 4096))
    except SpecError:  # no file: the names of published tables, or one that is refused where it is read
        return False


def _calibrate_machine(flags: CalibrateFlags) -> None:
    """Fit a hardware profile, and the engine that ran, to the points of `measure`; write and report them."""
    from perfmodel.cli.tell.calibration import draw_machine, machine_to_dict
    from perfmodel.errors import SpecError
    from perfmodel.evidence.machine.points import beyond_known, read_points
    from perfmodel.evidence.machine.steps import fit_machine_and_engine
    from perfmodel.hardware import HardwareProfile

    file = flags.output or flags.profile_output
    name, engine_name = _name_of(file, "my-machine"), _name_of(flags.engine_output, "reference-decoder")
    like = None if flags.hardware is None else HardwareProfile.load(flags.hardware, flags.profiles_path)
    file_of_points = flags.points[0]
    points = read_points(file_of_points)
    try:
        with working("fitting"):
            machine, engine = fit_machine_and_engine(points, name, engine_name, like)
    except SpecError as refusal:  # of points that belong together but are too few
        raise refusal.located(file_of_points, None, "") from refusal
    note(beyond_known(points))
    if file is not None:
        emit(machine.text, file)
    if flags.engine_output is not None:
        emit(engine.text, flags.engine_output)
    text = machine.text if file is None else ""
    tell(
        lambda: machine_to_dict(machine, engine), flags.shown,
        table=lambda console: draw_machine(console, machine, engine, text),
    )  # fmt: skip
    note(f"{path} stays at its generic default: the points do not determine it" for path in machine.kept)


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _name_of(file: str | None, otherwise: str) -> str:
    """Return the name of what a file will hold: its own name, as names and files must agree."""
    from perfmodel.errors import SpecError

    if file == "-":
        file = None
    name = otherwise if file is None else Path(file).stem
    if (name and not _NAME.fullmatch(name)) or (file and not file.endswith((".yaml", ".yml"))):
        remedy = "Use lower-case letters, digits, '-', '_', '.' and the ending .yaml; it names what it holds"
        raise SpecError.single(file or "", "name", f"found {Path(file or name).name!r}", remedy)
    return name


def _points(flags: CalibrateFlags) -> tuple[Sequence[Measurement], list[Benchmark]]:
    """Read the points of files, or of published tables of one accelerator, and the benchmarks among them.

    What the benchmarks say of acceptance and traffic is written where the flags ask for it.
    """
    from perfmodel.benchmarks.reading import read_benchmarks
    from perfmodel.engine import EngineOverhead
    from perfmodel.errors import SpecError
    from perfmodel.evidence.loop.points import points_of_benchmarks
    from perfmodel.evidence.published import measurements

    columns = {
        "hardware": flags.hardware,
        "tensor_parallel": flags.tp,
        "target_model": flags.model,
        "strategy": flags.strategy,
        "draft_model": flags.draft_model,
        "kv_budget": flags.draft_budget,
    }
    given = {column: text for column, text in columns.items() if text}
    rows: list[Measurement] = []
    benchmarks: list[Benchmark] = []
    for points in flags.points:
        names = _names(points)
        if not os.path.lexists(points) and set(names) & set(measurements.available()):
            rows += measurements.load(names)
        elif _is_csv(points):
            own = measurements.read_file(points, given=given, profiles_path=flags.profiles_path)
            note(measurements.beyond_its_memory(own))
            rows += own
        else:
            benchmarks += read_benchmarks(points)
    if not benchmarks:
        if unasked := flags.acceptance_output or flags.traffic_output:
            raise SpecError.single("", unasked, "no point is a benchmark", "Give what a benchmark tool wrote")
        return rows, benchmarks
    _write_traffic(flags, benchmarks)
    name = flags.start or flags.engine
    known = name in EngineOverhead.available(flags.profiles_path) or flags.start is not None
    start = EngineOverhead.load(name if known else "generic", flags.profiles_path)
    served, remarks = points_of_benchmarks(
        benchmarks, start=start, given=given, profiles_path=flags.profiles_path
    )
    note(remarks)
    _write_acceptance(flags, benchmarks, served)
    return [*rows, *served], benchmarks


def _is_csv(file: str) -> bool:
    """Whether a file begins as a CSV of points does; so is taken one that cannot be read, to be refused."""
    from perfmodel.errors import SpecError
    from perfmodel.files.opening import TABLE, first_bytes

    try:
        first = first_bytes(file, TABLE, 1 << 16).partition(b"\n")[0]
    except SpecError:
        return True
    return b"," in first and first.lstrip()[:1] not in (b"{", b"[") and b"batch_size" in first


def _write_traffic(flags: CalibrateFlags, benchmarks: Sequence[Benchmark]) -> None:
    from perfmodel.evidence.loop.points import traffic_of

    if flags.traffic_output is not None:
        profiles = {"traffic": [traffic_of(benchmark) for benchmark in benchmarks]}
        emit(yaml_text(profiles, width=110), flags.traffic_output)


def _write_acceptance(
    flags: CalibrateFlags, benchmarks: Sequence[Benchmark], rows: Sequence[Measurement]
) -> None:
    from perfmodel.acceptance.file import write_acceptance
    from perfmodel.errors import SpecError
    from perfmodel.evidence.loop.points import acceptance_of

    if flags.acceptance_output is None:
        return
    entries = acceptance_of(benchmarks, rows)
    if not entries:
        raise SpecError.single(
            "", "--acceptance-output", "no benchmark says what was drafted",
            "Give one of a server that speculates, or leave the flag out",
        )  # fmt: skip
    write_acceptance(flags.acceptance_output, entries)
    remark(f"wrote {flags.acceptance_output}")


def _has_enough(flags: CalibrateFlags, rows: Sequence[Measurement]) -> bool:
    """Whether benchmarks gave all that was asked of them: too few for an engine, of which none was asked."""
    from perfmodel.evidence.calibration.calibrate import FEWEST

    if len(rows) >= FEWEST or flags.output or flags.profile_output:
        return False
    if not (flags.acceptance_output or flags.traffic_output):
        return False
    note([f"no engine is fitted: {len(rows)} of at least {FEWEST} points of different batches and contexts"])
    return True


def _start(flags: CalibrateFlags, hardware: HardwareProfile) -> EngineOverhead:
    """Return the engine that the fit starts from: figures as asked, words and kernels of a known --engine.

    Figures and kernels are those that stand for either engine on the accelerator of the points.
    """
    from perfmodel.engine import EngineOverhead

    start = EngineOverhead.load(flags.start or "generic", flags.profiles_path).on(hardware)
    if flags.engine not in EngineOverhead.available(flags.profiles_path):
        return replace(start, description="", aliases=())
    known = EngineOverhead.load(flags.engine, flags.profiles_path)
    runs = known.on(hardware)
    return replace(
        runs if flags.start is None else start,
        description=known.description,
        aliases=known.aliases,
        software=known.software,
        attention_kernel=runs.attention_kernel,
        all_reduce=runs.all_reduce,
    )
