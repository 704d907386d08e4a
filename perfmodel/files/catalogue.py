"""Finds the file that a name, an alias or a path means, in the bundled folder and in the user's own."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from perfmodel.errors import Fault, SpecError, nearest_name
from perfmodel.files.document import Document, read_yaml
from perfmodel.files.opening import is_pipe

__all__ = ["Catalogue", "own_package"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Catalogue:
    """YAML files of one sort (`noun`, for messages) in a bundled folder and in further folders of the user.

    `profiles_path` and the environment variable DRAFTPLAN_PROFILES name more folders, separated as in PATH;
    they win, and hold files of this sort in their subfolder `inside` or, where that is empty, directly. A
    file is called as its `name`; its `aliases` mean it too, and whatever `spelling` takes for the same.
    `unknown` says why a name has no file and which of the known ones it may mean. Before a name one of the
    `makers` may stand with a slash, as in nvidia/h100.
    """

    noun: str
    folder: Path
    inside: str = ""
    spelling: Callable[[str], Hashable] = str.lower
    unknown: Callable[[str, Iterable[str]], Fault] | None = None
    makers: tuple[str, ...] = ()

    def names(self, profiles_path: PathLike | None = None) -> tuple[str, ...]:
        """Return every name, sorted."""
        return tuple(sorted(self._files(profiles_path)))

    def document(self, name_or_path: PathLike, profiles_path: PathLike | None = None) -> Document:
        """Return the document that a name, an alias (in any case) or a path means.

        Raises SpecError with the nearest names where there is none.
        """
        name = os.fspath(name_or_path)
        files = self._files(profiles_path)
        path = files.get(name) or files.get(name.lower())
        made = name.lower().startswith(tuple(f"{maker}/" for maker in self.makers))
        if path is None and _looks_like_path(name) and not (made and not os.path.lexists(name)):
            path = Path(name)
        if path is None:
            path = self._by_alias(name, files)
        document = read_yaml(path)
        written = document.data.get("name")
        if isinstance(written, str) and written != path.stem and not is_pipe(path):
            problem = f"found {written[:100]!r} in a file called {path.name}"
            remedy = "Give the file and its name field the same name"
            document.refuse(("name",), document.line(("name",)), problem, remedy)
        return document

    def _by_alias(self, name: str, files: dict[str, Path]) -> Path:
        aliases = {alias: path for path in files.values() for alias in _aliases(path)}
        if name.lower() in aliases:
            return aliases[name.lower()]
        names = {**{path.stem: path for path in files.values()}, **aliases}
        spelled = {self.spelling(word): path for word, path in names.items()}
        if (words := self.spelling(name)) in spelled:
            return spelled[words]
        if self.unknown is not None:
            fault = self.unknown(name, names)
        else:
            problem = f"there is no {self.noun} called {name[:100]!r}"
            fault = Fault("", None, "", problem, "", nearest_name(name, names))
        known = f"Known: {', '.join(sorted(files))}; or name a YAML file"
        raise SpecError([replace(fault, field=self.noun, remedy=fault.remedy or known)])

    def _files(self, profiles_path: PathLike | None) -> dict[str, Path]:
        """Return name -> file; the user's folders win over the bundled one."""
        further = [folder / self.inside for folder in _folders(profiles_path)]
        folders = [self.folder, *reversed(further)]
        return {path.stem: path for folder in folders for path in _yaml_in(folder)}


def own_package(name: str) -> ModuleType:
    """Return our own top-level package `name`; raises SpecError where another one of that name hides it."""
    module = importlib.import_module(name)
    expected = Path(__file__).resolve().parents[2] / name
    places = [Path(place).resolve() for place in getattr(module, "__path__", [])]
    if expected not in places:
        shadow = getattr(module, "__file__", None) or ", ".join(map(str, places)) or "an unknown place"
        problem = f"this {name!r} hides the package of the same name that belongs to draftplan ({expected})"
        remedy = "Rename it, start Python from another folder, or take its folder off PYTHONPATH"
        raise SpecError.single(str(shadow), "", problem, remedy)
    return module


def _folders(profiles_path: PathLike | None) -> Iterator[Path]:
    for source, places in (
        ("profiles_path", os.fspath(profiles_path) if profiles_path is not None else ""),
        ("DRAFTPLAN_PROFILES", os.environ.get("DRAFTPLAN_PROFILES", "")),
    ):
        for place in filter(None, places.split(os.pathsep)):
            folder = Path(place).expanduser()
            if not os.path.isdir(folder):
                remedy = "Name folders that hold YAML files"
                problem = "this folder does not exist or may not be entered"
                raise SpecError.single(place, source, problem, remedy)
            yield folder


def _yaml_in(folder: Path) -> list[Path]:
    """Return the YAML files of a folder, none where there is none; SpecError where it cannot be listed."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        problem = f"the folder cannot be listed: {getattr(error, 'strerror', None) or error}"
        raise SpecError.single(str(folder), "", problem, "Name a folder that you may read") from error
    return [folder / name for name in sorted(names) if name.endswith(".yaml")]


def _looks_like_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or os.sep in name or "/" in name


def _aliases(path: Path) -> Sequence[str]:
    try:
        aliases = read_yaml(path).data.get("aliases")
    except SpecError:
        return ()
    return [alias.lower() for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else ()
