"""Find drafting strategies by their presence: every file beside this one, except ``base``, is one."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

from strategies.base import DraftStrategy

__all__ = ["DraftStrategy", "StrategyError", "available", "load"]


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
    modules = [entry.name for folder in __path__ for entry in pkgutil.iter_modules([folder])]
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


def load(name_or_path: str | Path) -> DraftStrategy:
    """Return the strategy called ``name_or_path``, or the one in that ``.py`` file.

    Hyphens and capitals do not matter in a name.

    Raises
    ------
    StrategyError : no strategy of that name (with the nearest one), or its file exposes no valid
        ``strategy``.
    """
    text = str(name_or_path)
    if text.endswith(".py"):
        return _from_file(Path(text).resolve())
    name = text.strip().lower().replace("-", "_")
    names = available()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise StrategyError(
            f"no strategy is called {text!r}. There are: {', '.join(names)}.",
            name=text,
            nearest=close[0] if close else None,
        )
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except Exception as error:
        raise StrategyError(f"strategy {name!r} does not load: {_told(error)}.", name=name) from error
    return _strategy_of(module, name)


@cache
def _from_file(path: Path) -> DraftStrategy:
    if not path.is_file():
        raise StrategyError(f"there is no file {path}.", name=path.stem, file=str(path))
    spec = importlib.util.spec_from_file_location(f"{__name__}._file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise StrategyError(f"{path} cannot be read as Python.", name=path.stem, file=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise StrategyError(
            f"{path} does not load: {_told(error)}.", name=path.stem, file=str(path)
        ) from error
    return _strategy_of(module, path.stem)


def _strategy_of(module: ModuleType, name: str) -> DraftStrategy:
    file = str(module.__file__)
    strategy = getattr(module, "strategy", None)
    if strategy is None:
        raise StrategyError(f"{file} exposes no object called 'strategy'.", name=name, file=file)
    if not isinstance(strategy, DraftStrategy):
        missing = [part for part in _PARTS if not hasattr(strategy, part)]
        raise StrategyError(f"{file}: strategy lacks {', '.join(missing)}.", name=name, file=file)
    if strategy.name != name:
        raise StrategyError(
            f"{file}: strategy calls itself {strategy.name!r}; a file and its strategy share one name.",
            name=name,
            file=file,
        )
    return strategy


def _told(error: Exception) -> str:
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
