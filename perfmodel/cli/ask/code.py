"""Whether a file of code may run: it may in the current project, elsewhere where it is allowed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from perfmodel.errors import SpecError

__all__ = ["allowed_code", "not_of_the_project"]


def allowed_code(file: str, *, allow_code: bool) -> Path:
    """Return a file whose code may run, links resolved.

    Parameters
    ----------
    file : what was typed as the name of a file of code.
    allow_code : whether it may lie outside of the current project (--allow-code).

    Raises
    ------
    SpecError
        Where there is no such file, or it lies elsewhere and nobody allowed it.
    """
    try:
        path = Path(file).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        path = None
    if path is None or not path.is_file():
        raise SpecError.single(file, "", "there is no file", "Name a file of Python, my_strategy.py")
    if not allow_code and (reason := not_of_the_project(path)):
        raise SpecError.single(
            file, "", f"to load it is to run its code, and {reason}",
            "Read the file, then repeat the command with --allow-code",
        )  # fmt: skip
    return path


def not_of_the_project(path: Path) -> str:
    """Return why a file is not the current project's own; empty where it is.

    The project is the current folder and what is below it, by real paths: a link counts as what it leads to,
    so nothing is let in by a link, nor by ``..``. The root of the file system and a home folder are none, for
    every download lies below them. And nobody else may be able to write the file, or to put another in its
    place: neither it nor a folder from it up to the current one may be writable by everybody, as /tmp is.

    Parameters
    ----------
    path : of the file, links resolved.
    """
    project = Path.cwd().resolve()
    if project in (Path(project.anchor), _home()):
        return f"the current folder, {project}, is no project"
    if project not in path.parents:
        return f"it lies outside of the current folder, {project}"
    folders = [folder for folder in path.parents if folder == project or project in folder.parents]
    shared = [place for place in (path, *folders) if place.stat().st_mode & stat.S_IWOTH]
    return f"everybody may write to {shared[0]}" if shared else ""


def _home() -> Path | None:
    home = os.path.expanduser("~")
    return Path(home).resolve() if home != "~" else None
