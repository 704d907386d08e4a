"""`draftplan explore`: a page in the browser whose answer follows its controls, and an HTTP service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import typer

from perfmodel.cli.ask.flag import command, flag
from perfmodel.cli.tell.output import remark

if TYPE_CHECKING:
    from perfmodel.explore.asked import Asked, Flag, Front, Loads

__all__ = ["explore"]

_NEEDED = ("fastapi", "uvicorn", "plotly")
_NO_QUESTION = (
    "format", "no_color", "explain", "quiet", "lossy", "pruned", "jobs", "executor", "allow_code", "offline",
)  # fmt: skip
"""Flags of `plan` that say how its answer is written or computed, or ask for another."""
_FILES = ("FILE", "FOLDER")
"""What stands in the help for the value of a flag that no request may give: a place on this machine."""


@command("explore", 12.5)
def explore(
    host: str = flag("--host", "ADDRESS", default="127.0.0.1",
        help="Address to listen on. Any other than this machine's own lets others ask, without a password."),
    port: int = flag("--port", default=8642, min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    allow_host: list[str] = flag("--allow-host", "NAME", default=(),
        help="Further name that requests may call this service by, such as that of a proxy. Repeatable."),
    open_browser: bool = flag("--open", default=False, help="Open the page in the browser."),
    log: bool = flag("--log", default=False, help="Write a line to stderr for every request."),
    workers: int | None = flag("--workers", min=1, max=64, help="Questions computed at once."),
    seconds: float = flag("--seconds", default=20.0, min=0.1, max=3600.0,
        help="Longest time that a question may take."),
) -> None:
    """Serve a page in the browser whose answer follows its controls; other programs ask it by HTTP.

    The page is at /, its API at /docs. It reads no files that a request names and asks nobody else. Ends at
    ctrl-C.

    Example: draftplan explore --open
    """
    from dataclasses import replace
    from importlib.util import find_spec

    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        from perfmodel.files.extras import missing_extra

        raise missing_extra("explore", " and ".join(missing), field="explore")
    from perfmodel.explore.desk import Limits
    from perfmodel.explore.run import serve
    from perfmodel.explore.service import Settings

    limits = replace(Limits(), seconds=seconds, **({} if workers is None else {"workers": workers}))

    def announce(address: str) -> None:
        remark(f"draftplan explore: {address} (ctrl-C ends it)")

    serve(
        front(), Settings(host, tuple(allow_host), limits), port, log=log, browser=open_browser,
        announce=announce,
    )  # fmt: skip


def front() -> Front:
    """Return how this command line reads questions: its flags, their reader, and its lists."""
    from perfmodel.explore.asked import Front

    return Front(_flags(), _read, _listed)


@lru_cache(maxsize=1)
def _flags() -> tuple[Flag, ...]:
    """The flags of `plan` that ask something and name no place on this machine."""
    from perfmodel.cli.plan import PlanFlags
    from perfmodel.explore.asked import Flag

    hints = get_type_hints(PlanFlags)
    declared = []
    for each in fields(PlanFlags):
        info: Any = each.default
        form = info.metavar or ""
        if each.name in _NO_QUESTION or any(form.startswith(word) for word in _FILES):
            continue
        spellings = (name.lstrip("-").replace("-", "_") for name in info.param_decls if name[:2] == "--")
        hint = hints[each.name]
        options = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
        required = info.default is ...
        declared.append(
            Flag(
                each.name, tuple(name for name in spellings if name != each.name), options[0],
                None if required else info.default, required, info.help or "", form, info.min, info.max,
            )
        )  # fmt: skip
    return tuple(declared)


def _read(values: Mapping[str, Any], loads: Loads) -> Asked:
    """Read a question as `plan` reads its flags."""
    from typer.core import TyperCommand

    from perfmodel.cli.ask.config import as_typed
    from perfmodel.cli.ask.question import Nouns, read_objective, read_question
    from perfmodel.cli.plan import PlanFlags
    from perfmodel.errors import SpecError
    from perfmodel.explore.asked import Asked

    given: dict[str, Any] = {}
    for each in fields(PlanFlags):
        info: Any = each.default
        given[each.name] = None if info.default is ... else info.default
    for known in _flags():
        if known.name not in values:
            continue
        value = values[known.name]
        text = as_typed(value, is_flag=known.kind is bool)
        if text is None:
            raise SpecError.single("", known.name, "found an empty list", "Give at least one value")
        given[known.name] = value if known.kind is int else text
    ctx = typer.Context(TyperCommand("explore"))
    flags = PlanFlags(**given)
    nouns = Nouns(loads.model, loads.hardware, loads.engine)
    objective, risk = read_objective(ctx, flags.objective)
    return Asked(read_question(ctx, flags, nouns=nouns), objective, risk, flags.one_deployment)


@lru_cache(maxsize=8)
def _listed(name: str) -> list[dict[str, Any]]:
    """Return the lines of `draftplan NAME list`."""
    from perfmodel.cli.catalogue import NOUNS

    noun = next(noun for noun in NOUNS if noun.name == name)
    return [noun.summarise(each, None) for each in noun.available(None)]
