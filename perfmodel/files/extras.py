"""What an extra brings, and the command that installs a missing one where this Python runs."""

from __future__ import annotations

import json
import re
import shutil
import sys
import sysconfig
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from perfmodel.errors import SpecError
from perfmodel.files.quoting import shell_line

__all__ = ["how_to_install", "install_command", "missing_extra", "packages_of"]

PACKAGE = "draftplan"
_MARKED = re.compile(r"""\s*(?P<need>[^;]+?)\s*;.*\bextra\s*==\s*(?P<sign>['"])(?P<extra>[\w.-]+)(?P=sign)""")
_OWN = re.compile(r"draftplan\[(?P<extras>[\w.,\s-]+)\]")


def missing_extra(extra: str, package: str, *, file: str = "", field: str = "", what: str = "") -> SpecError:
    """Return the refusal of what needs a package that is not installed, with the command that installs it.

    Parameters
    ----------
    extra : the extra of draftplan that brings it.
    package : what is missing, as people call it.
    file, field : where it was asked for, as in `Fault`.
    what : who needs it, "parquet"; the field itself where empty.
    """
    problem = f"{what + ' ' if what else ''}needs {package}, which is not installed"
    return SpecError.single(file, field, problem, how_to_install(extra))


def how_to_install(extra: str) -> str:
    """Return the sentence of a refusal that says which command brings an extra."""
    return f"`{install_command(extra)}` installs it"


def install_command(extra: str) -> str:
    """Return one line for a shell that adds an extra to the environment that this Python runs in.

    It names the tool that made the environment: pipx, uv, conda where it has no pip, else pip; a system
    Python that its distribution manages gets an environment of its own, a checkout stays one.
    """
    wanted = f"{PACKAGE}[{extra}]"
    prefix = Path(sys.prefix)
    if (prefix / "pipx_metadata.json").is_file():
        return _line("pipx", "inject", _pipx_name(prefix), *packages_of(extra))
    if (prefix / "uv-receipt.toml").is_file():
        return _line("uv", "tool", "install", wanted)
    if checkout := _checkout():
        target = ["--editable", f"{checkout}[{extra}]"]
    else:
        target = [wanted]
        if _is_managed():
            return _apart(wanted)
    if find_spec("pip") is not None:
        return _line(_python(), "-m", "pip", "install", *target)
    if (prefix / "conda-meta").is_dir():
        return _line("conda", "install", "--prefix", str(prefix), "-c", "conda-forge", *packages_of(extra))
    if shutil.which("uv") or _made_by_uv(prefix):
        return _line("uv", "pip", "install", "--python", sys.executable, *target)
    return _line("pip", "--python", sys.executable, "install", *target)


def packages_of(extra: str) -> list[str]:
    """Return the requirements that an extra adds, as its metadata say; the extra itself without metadata."""
    try:
        lines = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        lines = []
    needs = [match["need"] for line in lines if (match := _MARKED.match(line)) and match["extra"] == extra]
    whole: list[str] = []
    for need in needs:
        own = _OWN.fullmatch(need)
        names = own["extras"].split(",") if own else []
        whole += [package for name in names for package in packages_of(name.strip())] or [need]
    return list(dict.fromkeys(whole)) or [f"{PACKAGE}[{extra}]"]


def _line(*words: str) -> str:
    if sys.platform == "win32":  # cmd and PowerShell both read double quotes
        return " ".join(f'"{word}"' if re.search(r"[^\w.:\\/=-]", word) else word for word in words)
    return shell_line(words)


def _python() -> str:
    """This Python as people type it: `python` where that is the one on PATH."""
    for name in ("python", "python3"):
        there = shutil.which(name)
        if there and Path(there).absolute() == Path(sys.executable).absolute():
            return name
    return sys.executable or "python"


def _pipx_name(prefix: Path) -> str:
    """What pipx calls the environment: its package, or the folder where there is a suffix."""
    try:
        main = json.loads((prefix / "pipx_metadata.json").read_bytes())["main_package"]
        return f"{main['package']}{main.get('suffix') or ''}"
    except (OSError, ValueError, KeyError, TypeError):
        return prefix.name


def _checkout() -> str | None:
    """The folder of a checkout that this runs from, installed as it stands or not at all."""
    above = Path(__file__).resolve().parents[2]
    return str(above) if (above / "setup.cfg").is_file() else None


def _is_managed() -> bool:
    """Whether pip would refuse this Python because its distribution looks after it (PEP 668)."""
    return sys.prefix == sys.base_prefix and Path(
        sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED"
    ).is_file()


def _apart(wanted: str) -> str:
    """The command that makes an environment of its own beside a managed Python."""
    if shutil.which("pipx"):
        return _line("pipx", "install", "--force", wanted)
    if shutil.which("uv"):
        return _line("uv", "tool", "install", "--force", wanted)
    folder = Path.home() / f".{PACKAGE}"
    make = _line(_python(), "-m", "venv", str(folder))
    return f"{make} && {_line(str(folder / 'bin' / 'python'), '-m', 'pip', 'install', wanted)}"


def _made_by_uv(prefix: Path) -> bool:
    try:
        return "\nuv = " in (prefix / "pyvenv.cfg").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
