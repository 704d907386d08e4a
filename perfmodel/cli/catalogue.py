"""`draftplan hardware|models|strategies|engines list|show|check`: what there is, figure by figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import typer

from perfmodel.cli.ask.flag import ALLOW_CODE, NO_COLOR, PROFILES, argument, flag, group, without
from perfmodel.cli.ask.format import Format, OutputFlags
from perfmodel.cli.tell.output import emit, remark, tell

__all__ = ["GROUPS", "NOUNS", "Noun"]

SHAPE = flag("--format", default=Format.TABLE, help="A table, json or yaml.")


@dataclass(frozen=True)
class Noun:
    """Something that is described in files, called `word` one by one; `name` is that of its commands."""

    name: str
    word: str

    def available(self, profiles_path: str | None) -> tuple[str, ...]:
        """Names of all that there are."""
        if self.name == "strategies":
            import strategies

            return strategies.available()
        spec = self._spec()
        return tuple(spec.available() if self.name == "models" else spec.available(profiles_path))

    @property
    def is_code(self) -> bool:
        """Whether its files are programs: to load one is to run it."""
        return self.name == "strategies"

    def load(self, name: str, profiles_path: str | None = None, *, allow_code: bool = False) -> Any:
        """Return the one of that name or file. Raises SpecError.

        Parameters
        ----------
        name : of it, or its file.
        profiles_path : further folders of files.
        allow_code : whether a file may run that lies outside of the current project.
        """
        if self.is_code:
            from perfmodel.cli.ask.code import allowed_code
            from perfmodel.planning.drafters import load_strategy, load_strategy_file

            if not name.endswith(".py") and "/" not in name:
                return load_strategy(name)
            path = allowed_code(name, allow_code=allow_code)
            remark(f"runs the code in {path}")
            return load_strategy_file(path)
        spec = self._spec()
        return spec.load(name) if self.name == "models" else spec.load(name, profiles_path)

    def _spec(self) -> Any:
        import perfmodel

        specs = {"hardware": "HardwareProfile", "models": "ModelSpec", "engines": "EngineOverhead"}
        return getattr(perfmodel, specs[self.name])

    def summarise(self, name: str, profiles_path: str | None) -> dict[str, Any]:
        """Return the line of `list`; a file that cannot be read keeps its place and says why."""
        from perfmodel.cli.tell.catalogue import SUMMARIES
        from perfmodel.errors import SpecError

        try:
            return SUMMARIES[self.name](self.load(name, profiles_path))
        except SpecError as refusal:
            return {"name": name, "description": f"cannot be read: {refusal.faults[0]}"}

    def describe(
        self, name: str, profiles_path: str | None, *, allow_code: bool = False
    ) -> dict[str, Any]:
        """Return everything that `show` shows: the line of `list`, figures or parts, what is assumed."""
        from perfmodel.cli.tell.catalogue import DETAILS, SUMMARIES

        spec = self.load(name, profiles_path, allow_code=allow_code)
        return {**SUMMARIES[self.name](spec), **DETAILS[self.name](spec)}

    def check(self, files: list[str], *, allow_code: bool = False) -> None:
        """Load each file by its path; say which are right and what is assumed, raise the faults of others."""
        from perfmodel.cli.tell.catalogue import taken_for
        from perfmodel.errors import Fault, SpecError

        faults: list[Fault] = []
        for file in files:
            try:
                path = file if "/" in file or self.name == "models" else f"./{file}"
                spec = self.load(path, allow_code=allow_code)
                emit(f"{file}: {spec.name} is a valid {self.word}\n")
                sentences = [*getattr(spec, "assumed", ()), *taken_for(self.name, spec)]
                emit("".join(f"  {sentence}\n" for sentence in sentences))
            except SpecError as refusal:
                faults += refusal.faults
        if faults:
            raise SpecError(faults)


def _declare(place: int, noun: Noun) -> typer.Typer:
    """Return the commands list, show and check of one noun."""
    word = noun.word
    article = "an" if word[0] in "ae" else "a"
    everything = f"Everything known about {article} {word}: figures, units, ranges, sources."
    commands = group(noun.name, place, f"List, show and check {word}s.".replace("ys.", "ies."))

    @commands.command("list", help=f"One line for every {word} that is known by name.")
    def list_them(
        shape: Format = SHAPE, profiles_path: str | None = PROFILES, no_color: bool = NO_COLOR
    ) -> None:
        from perfmodel.cli.tell.catalogue import draw_rows

        rows = [noun.summarise(name, profiles_path) for name in noun.available(profiles_path)]
        flags = OutputFlags(format=shape, output=None, no_color=no_color)
        tell(lambda: {noun.name: rows}, flags, table=lambda console: draw_rows(console, rows))

    def show(
        name: str = argument("NAME|PATH"), shape: Format = SHAPE, profiles_path: str | None = PROFILES,
        no_color: bool = NO_COLOR, allow_code: bool = ALLOW_CODE,
    ) -> None:  # fmt: skip
        from perfmodel.cli.tell.catalogue import draw_details

        details = noun.describe(name, profiles_path, allow_code=allow_code)
        flags = OutputFlags(format=shape, output=None, no_color=no_color)
        tell(lambda: details, flags, table=lambda console: draw_details(console, details))

    def check(files: list[str] = argument("FILE..."), allow_code: bool = ALLOW_CODE) -> None:
        noun.check(files, allow_code=allow_code)

    checking = f"Check a file that describes {article} {word}, and name every fault in it."
    for function, text in ((show, everything), (check, checking)):
        declared = function if noun.is_code else without(function, "allow_code", False)
        commands.command(function.__name__, help=text)(declared)
    return commands


NOUNS = (
    Noun("hardware", "accelerator"),
    Noun("models", "model"),
    Noun("strategies", "drafting strategy"),
    Noun("engines", "serving engine"),
)
GROUPS = tuple(_declare(place, noun) for place, noun in enumerate(NOUNS, 15))
