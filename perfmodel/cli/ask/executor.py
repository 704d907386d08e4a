"""What --executor names: processes, a Dask cluster, or an executor that a module makes."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NoReturn

from perfmodel.cli.ask.code import allowed_code
from perfmodel.errors import SpecError, nearest_name
from perfmodel.planning.any_executor import AnyExecutor
from perfmodel.planning.executors import Mapper, open_executor
from perfmodel.planning.replies import shown_failure

__all__ = ["opened_executor"]

_MODULE = re.compile(r"(?!(?:local|dask):)(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<attribute>[^\W\d]\w*)")


@contextlib.contextmanager
def opened_executor(
    text: str | None, say: Callable[[str], None], *, allow_code: bool
) -> Iterator[Mapper | None]:
    """Open what --executor names, and close it again; None is this process.

    Parameters
    ----------
    text : ``local:N``, ``dask:ADDRESS``, or ``package.module:name``, a class or a function that makes a
        `concurrent.futures.Executor` without arguments.
    say : told which code runs.
    allow_code : whether the module may lie outside of the current project (--allow-code).

    Raises
    ------
    SpecError
        As `open_executor`; when the module may not run, when there is no such module or attribute, or when
        what it makes is no executor.
    """
    match = _MODULE.fullmatch(text or "")
    if text is None or match is None:
        with open_executor(text) as mapper:
            yield mapper
        return
    with _current_folder():
        for path in _files(text, match["module"]):
            code = allowed_code(path, allow_code=allow_code)
        say(f"runs the code in {code}")
        executor = _made(text, match["module"], match["attribute"])
        try:
            yield AnyExecutor(executor, text)
        finally:
            with contextlib.suppress(Exception):
                _shut_down(executor)


def _made(text: str, module: str, attribute: str) -> Executor:
    """What a module makes."""
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as failure:
        _refuse(f"{module} cannot be imported: {shown_failure(failure)}", "Mend the module")
    make = getattr(loaded, attribute, None)
    if make is None:
        names = [name for name in vars(loaded) if not name.startswith("_")]
        _refuse(
            f"found {text!r}: {module} has no {attribute}", "Name what makes the executor",
            nearest_name(attribute, names),
        )  # fmt: skip
    try:
        executor = make()
    except (Exception, SystemExit) as failure:
        _refuse(
            f"{text} makes no executor: {shown_failure(failure)}",
            "Name a class or a function that needs no arguments",
        )
    if not isinstance(executor, Executor):
        _refuse(
            f"{text} makes no executor, but {type(executor).__name__}",
            "Name what returns a concurrent.futures.Executor",
        )
    return executor


def _files(text: str, module: str) -> list[str]:
    """The files that importing a module runs, from the outermost package in; nothing is imported for it."""
    files: list[str] = []
    path: Any = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        try:
            spec = importlib.machinery.PathFinder.find_spec(name, path) if files or path is not None else (
                importlib.util.find_spec(name)
            )  # fmt: skip
        except (ImportError, ValueError):
            spec = None
        if spec is None or (depth < len(parts) and spec.submodule_search_locations is None):
            _refuse(
                f"found {text!r}: there is no module {name if spec is None else module}",
                "Write local:4, dask:tcp://host:8786 or package.module:name, of a package that is installed "
                "or in the current folder",
                nearest_name(parts[0], ("local", "dask")) if depth == 1 else None,
            )
        path = spec.submodule_search_locations
        if spec.has_location and spec.origin is not None:
            files.append(spec.origin)
    if not files or spec is None or not spec.has_location:
        _refuse(f"found {text!r}: {module} has no file", "Name a module of Python")
    return files


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Look for modules in the current folder too, after all other places."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added:
            with contextlib.suppress(ValueError):
                sys.path.remove(here)


def _shut_down(executor: Executor) -> None:
    """End an executor; what it has not begun is dropped where it can."""
    try:
        executor.shutdown(wait=True, cancel_futures=True)
    except TypeError:
        executor.shutdown(wait=True)


def _refuse(problem: str, remedy: str, nearest: str | None = None) -> NoReturn:
    raise SpecError.single("", "--executor", problem, remedy, nearest) from None
