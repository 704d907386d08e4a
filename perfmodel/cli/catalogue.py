"""`draftplan hardware|models|strategies|engines list|show|check`: what there is, figure by figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.ask.flag import NO_COLOR, PROFILES, argument, flag, group
from perfmodel.cli.ask.format import Format
from perfmodel.cli.tell.output import dumped, emit, rendered

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.engine import EngineOverhead
    from perfmodel.hardware import HardwareProfile
    from perfmodel.model import ModelSpec
    from strategies.base import DraftStrategy

__all__ = ["NOUNS", "commands"]

NOUNS = ("hardware", "models", "strategies", "engines")
_ONE = {
    "hardware": "accelerator",
    "models": "model",
    "strategies": "drafting strategy",
    "engines": "serving engine",
}

SHAPE = flag("--format", default=Format.TABLE, help="A table, json or yaml.")


def commands(noun: str) -> typer.Typer:
    """Return the commands list, show and check of one noun."""
    one = _ONE[noun]
    article = "an" if one[0] in "ae" else "a"
    place = 15 + NOUNS.index(noun)
    nouns = group(noun, place, f"List, show and check {one}s.".replace("ys.", "ies."))

    @nouns.command("list", help=f"One line for every {one} that is known by name.")
    def list_them(
        shape: Format = SHAPE, profiles_path: str | None = PROFILES, no_color: bool = NO_COLOR
    ) -> None:
        rows = [_summary(noun, name, profiles_path) for name in _names(noun, profiles_path)]
        if shape is Format.TABLE:
            emit(rendered(lambda console: _draw_list(console, rows), no_color=no_color, output=None))
        else:
            emit(dumped({noun: rows}, _no_csv(shape)))

    @nouns.command("show", help=f"Everything known about {article} {one}: figures, units, ranges, sources.")
    def show(
        name: str = argument("NAME|PATH"), shape: Format = SHAPE, profiles_path: str | None = PROFILES,
        no_color: bool = NO_COLOR,
    ) -> None:
        found = _described(noun, name, profiles_path)
        if shape is Format.TABLE:
            emit(rendered(lambda console: _draw(console, found), no_color=no_color, output=None))
        else:
            emit(dumped(found, _no_csv(shape)))

    @nouns.command("check", help=f"Check a file that describes {article} {one}, and name every fault in it.")
    def check(files: list[str] = argument("FILE...")) -> None:
        _check(noun, files)

    return nouns


GROUPS = tuple(map(commands, NOUNS))


def _no_csv(shape: Format) -> Format:
    from perfmodel.errors import SpecError

    if shape is Format.CSV:
        raise SpecError.single("", "--format", "found 'csv'", "Use table, json or yaml")
    return shape


def _check(noun: str, files: list[str]) -> None:
    """Load each file by its path; say which are right, and raise the faults of all that are not."""
    from perfmodel.errors import Fault, SpecError

    faults: list[Fault] = []
    for file in files:
        path = file if "/" in file or noun == "models" else f"./{file}"
        try:
            found = _load(noun, path, None)
            emit(f"{file}: {found.name} is a valid {_ONE[noun]}\n")
        except SpecError as refusal:
            faults += refusal.faults
    if faults:
        raise SpecError(faults)


def _names(noun: str, profiles_path: str | None) -> tuple[str, ...]:
    if noun == "hardware":
        from perfmodel.hardware import HardwareProfile

        return HardwareProfile.available(profiles_path)
    if noun == "engines":
        from perfmodel.engine import EngineOverhead

        return EngineOverhead.available(profiles_path)
    if noun == "models":
        from perfmodel.model import ModelSpec

        return ModelSpec.available()
    import strategies

    return strategies.available()


def _load(noun: str, name: str, profiles_path: str | None) -> Any:
    if noun == "hardware":
        from perfmodel.hardware import HardwareProfile

        return HardwareProfile.load(name, profiles_path)
    if noun == "engines":
        from perfmodel.engine import EngineOverhead

        return EngineOverhead.load(name, profiles_path)
    if noun == "models":
        from perfmodel.model import ModelSpec

        return ModelSpec.load(name)
    from perfmodel.planning.drafters import load_strategy

    return load_strategy(name)


def _summary(noun: str, name: str, profiles_path: str | None) -> dict[str, Any]:
    """The one line of `list`; a file that cannot be read keeps its place and says why."""
    from perfmodel.errors import SpecError

    try:
        found = _load(noun, name, profiles_path)
    except SpecError as refusal:
        return {"name": name, "description": f"cannot be read: {refusal.faults[0]}"}
    return _LINES[noun](found)


def _hardware_line(found: HardwareProfile) -> dict[str, Any]:
    from perfmodel.files.units import format_bytes, format_rate

    return {
        "name": found.name,
        "memory": format_bytes(float(found.memory_capacity)),
        "bandwidth": format_rate(float(found.memory_bandwidth)),
        "bf16": format_rate(float(found.peak_flops["bf16"]), "flops"),
        "also": ", ".join(found.aliases),
        "description": found.description,
    }


def _engine_line(found: EngineOverhead) -> dict[str, Any]:
    from perfmodel.files.units import format_seconds

    return {
        "name": found.name,
        "layer": format_seconds(float(found.layer_s)),
        "round": format_seconds(float(found.round_s)),
        "attention": found.attention_kernel,
        "all_reduce": found.all_reduce,
        "description": found.description,
    }


def _model_line(found: ModelSpec) -> dict[str, Any]:
    from perfmodel.files.units import format_bytes

    return {
        "name": found.name,
        "parameters": f"{found.parameters / 1e9:.2f} B",
        "layers": found.num_layers,
        "weights": f"{format_bytes(found.weight_bytes)} {found.weight_dtype}",
        "kv_per_token": f"{format_bytes(float(found.kv_bytes_per_token()))} {found.kv_dtype}",
        "longest_context": found.max_position,
    }


def _strategy_line(found: DraftStrategy) -> dict[str, Any]:
    return {
        "name": found.name,
        "drafters": ", ".join(found.drafters),
        "budgets": ", ".join(map(str, found.default_budgets)) or "none",
        "output": "lossless" if found.lossless else "lossy",
        "summary": found.summary,
    }


_LINES: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "hardware": _hardware_line, "engines": _engine_line, "models": _model_line, "strategies": _strategy_line,
}  # fmt: skip


def _described(noun: str, name: str, profiles_path: str | None) -> dict[str, Any]:
    """Everything that `show` shows: the line of `list`, then figures or parts, then what is assumed."""
    from perfmodel.cli.tell import details

    found = _load(noun, name, profiles_path)
    return {**_LINES[noun](found), **details.DETAILS[noun](found)}


def _draw_list(console: Console, rows: list[dict[str, Any]]) -> None:
    from perfmodel.cli.tell.tables import draw, grid

    columns = list(dict.fromkeys(key for row in rows for key in row))
    titles = {name.replace("_", " "): "left" for name in columns}
    draw(console, grid(titles, [[str(row.get(name, "")) for name in columns] for row in rows], folds=True))


def _draw(console: Console, found: Mapping[str, Any]) -> None:
    """Draw texts as lines, lists of mappings as tables, lists of texts indented."""
    from perfmodel.cli.tell.tables import draw, grid, heading, line

    for key, value in found.items():
        title = key.replace("_", " ")
        if isinstance(value, list) and value:
            console.print()
            heading(console, title)
            if isinstance(value[0], dict):
                columns = {name.replace("_", " "): "left" for name in value[0]}
                draw(
                    console,
                    grid(columns, [[str(cell) for cell in row.values()] for row in value], folds=True),
                )
            else:
                for sentence in value:
                    line(console, f"  {sentence}")
        elif not isinstance(value, list):
            line(console, f"{title}: {value}")
