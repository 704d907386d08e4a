"""Find drafting strategies by their presence: every file beside this one, except ``base``, is one."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

from strategies.base import DraftStrategy

__all__ = ["DraftStrategy", "StrategyError", "available", "load", "load_file"]


class StrategyError(ValueError):
    """A strategy was asked for that is not there, or its file does not hold one.

    Attributes
    ----------
    name : what was asked for. file : the file at fault, or "".
    nearest : the most similar name there is, or None.
    """

    def __init__(self, problem: str, *, name: str, file: str = "", nearest: str | None = None) -> None:
        super().__init__(problem + (f" Did you mean {nearest!r}?" if nearest else ""))
        self.name, self.file, self.nearest = name, file, nearest


def available() -> tuple[str, ...]:
    """Return the names of all strategies, in alphabetical order.

    Raises
    ------
    StrategyError : two folders on the package's path hold a strategy of the same name.
    """
    modules = [name for folder in __path__ for name in _modules(folder)]
    names = sorted(name for name in modules if name != "base" and not name.startswith("_"))
    for name, times in Counter(names).items():
        if times > 1:
            where = " and ".join(
                str(Path(folder) / f"{name}.py")
                for folder in __path__
                if (Path(folder) / f"{name}.py").exists()
            )
            raise StrategyError(f"two strategies are called {name!r}: {where}. Rename one.", name=name)
    return tuple(names)


def _modules(folder: str) -> tuple[str, ...]:
    """Return the names of the modules in a folder, which is read anew when it has changed."""
    try:
        changed = os.stat(folder).st_mtime_ns
    except OSError:  # in an archive, which nobody adds a file to
        changed = 0
    if folder not in _read or _read[folder][0] != changed:
        _read[folder] = changed, tuple(entry.name for entry in pkgutil.iter_modules([folder]))
    return _read[folder][1]


def load(text: str) -> DraftStrategy:
    """Return the strategy called ``text``, one of `available`; hyphens and capitals do not matter.

    A path is no name, whatever wrote it: no plan and no table can have code run. `load_file` runs a file.

    Raises
    ------
    StrategyError : no strategy of that name (with the nearest one), or its file exposes no valid
        ``strategy``.
    """
    text = str(text)
    name = text.strip().lower().replace("-", "_")
    if not _is_one_file(name) and name not in (names := available()):
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise StrategyError(
            f"no strategy is called {text!r}. There are: {', '.join(names)}."
            + " A file is run by strategies.load_file alone." * text.endswith(".py"),
            name=text,
            nearest=close[0] if close else None,
        )
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except Exception as error:
        raise StrategyError(f"strategy {name!r} does not load: {_told(error)}.", name=name) from error
    return _strategy_of(module, name)


def _is_one_file(name: str) -> bool:
    """Tell quickly, without listing all, whether a name is that of one strategy; False leaves it open."""
    if not name.isidentifier() or name == "base" or name.startswith("_"):
        return False
    return sum(os.path.isfile(os.path.join(folder, f"{name}.py")) for folder in __path__) == 1


def load_file(path: str | Path) -> DraftStrategy:
    """Run a ``.py`` file, which may do anything that its reader may, and return the strategy in it.

    Raises
    ------
    StrategyError : there is no such file, it does not run, or exposes no valid ``strategy``.
    """
    return _from_file(Path(path).resolve())


@cache
def _from_file(path: Path) -> DraftStrategy:
    if not path.is_file():
        raise StrategyError(f"there is no file {path}.", name=path.stem, file=str(path))
    if path.suffix != ".py":
        raise StrategyError(f"{path} does not end in .py.", name=path.stem, file=str(path))
    module = ModuleType(f"{__name__}._file_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:  # the text itself: a compiled file beside it need not say what the text says
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise StrategyError(
            f"{path} does not load: {_told(error)}.", name=path.stem, file=str(path)
        ) from error
    return _strategy_of(module, path.stem)


def _strategy_of(module: ModuleType, name: str) -> DraftStrategy:
    file = str(module.__file__)
    strategy: DraftStrategy | None = getattr(module, "strategy", None)
    if strategy is None:
        raise StrategyError(f"{file} exposes no object called 'strategy'.", name=name, file=file)
    if missing := [part for part in _PARTS if not hasattr(strategy, part)]:
        raise StrategyError(f"{file}: strategy lacks {', '.join(missing)}.", name=name, file=file)
    if strategy.name != name:
        raise StrategyError(
            f"{file}: strategy calls itself {strategy.name!r}; a file and its strategy share one name.",
            name=name,
            file=file,
        )
    return strategy


_read: dict[str, tuple[int, tuple[str, ...]]] = {}
"""By folder: when it was changed last, and the modules it had. [ns]"""


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".")


_PARTS = (
    "name",
    "summary",
    "source",
    "lossless",
    "drafters",
    "default_budgets",
    "selector",
    "acceptance",
    "needs_draft_model",
    "head",
    "needs",
    "draft_pass",
)
