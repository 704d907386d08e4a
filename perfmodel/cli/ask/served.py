"""The question that a deployment implies: --from, whose values stand where no flag is given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from perfmodel.cli.ask.defaults import Defaults, by_hand, origin_of, set_defaults
from perfmodel.errors import Fault, SpecError, nearest_name

if TYPE_CHECKING:
    from perfmodel.cli.ask.servers.implied import Implied
    from perfmodel.cli.ask.servers.server import Server

__all__ = ["missing_from", "read_served", "remarks_on_served", "unset_faults"]

_META = "draftplan.from"
_COUNTED = ("pp", "dp", "max_batch", "max_step_tokens", "topk", "nodes")
"""Parameters that take whole numbers."""
_CELLS = {"max_batch": "batch_size", "max_model_len": "context"}
"""Parameters that bounds of a server stand for."""
_OUTPUT_TOKENS = 512
_MOST_SHOWN = 12


class _Read(NamedTuple):
    """What --from read: the file, its server, what that implies, the option that says each, same servers."""

    file: str
    server: Server
    implied: Implied
    sources: dict[str, str]
    others: list[str]


def read_served(ctx: typer.Context, value: str | None) -> str | None:
    """Read a deployment as defaults of the command's other flags.

    Raises
    ------
    SpecError
        Where no server is started, or several that differ.
    """
    if value is None or ctx.resilient_parsing:
        return value
    from perfmodel.cli.ask.servers.implied import implied_by

    file, server, others = _only_server(value)
    try:
        implied = implied_by(server)
        defaults, sources = _defaults(ctx, implied)
    except SpecError as refusal:
        raise refusal.located(file, server.line, "") from None
    places = {name: (file, server.line, source) for name, source in sources.items()}
    set_defaults(ctx, "from", Defaults(defaults, places))
    ctx.meta[_META] = _Read(file, server, implied, sources, others)
    return value


def _only_server(value: str) -> tuple[str, Server, list[str]]:
    """Return the file, its one server, and the names of others that start the same."""
    from perfmodel.cli.ask.servers.files import servers_in_file, servers_in_text
    from perfmodel.cli.ask.servers.implied import implied_by

    file, name = value, ""
    if value != "-" and not os.path.exists(value):
        before, colon, after = value.rpartition(":")
        if colon and os.path.exists(before):
            file, name = before, after
        else:
            file = "--from"
    servers = servers_in_text(value) if file == "--from" else servers_in_file(file)
    if not servers:
        place = "" if file == "--from" else file
        raise SpecError.single(
            place, "--from" if not place else "",
            f"found {value[:60]!r}: no file, and no command that starts a server" if not place else
            "nothing in it starts a server that is known",
            "Known are vllm serve, python -m sglang.launch_server and trtllm-serve",
        )  # fmt: skip
    names = [server.name for server in servers]
    if name:
        chosen = [server for server in servers if server.name == name]
        if not chosen:
            raise SpecError.single(
                file, "", f"no server in it is called {name[:60]!r}", f"They are {', '.join(names)}",
                nearest_name(name, names),
            )  # fmt: skip
        return file, chosen[0], []
    kinds = [(server, implied_by(server).values) for server in servers]
    if any(values != kinds[0][1] for _, values in kinds):
        raise SpecError.single(
            file, "", f"{len(servers)} servers are started: {', '.join(names)[:200]}",
            f"Name one of them: --from {file}:{names[0]}" if file != "--from" else "Give one command",
        )  # fmt: skip
    return file, servers[0], names[1:]


def _defaults(ctx: typer.Context, implied: Implied) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values that a command's parameters take, and the option that says each."""
    from perfmodel.cli.ask.servers.implied import cells_of
    from perfmodel.files.units import parse_count

    params = {param.name: param for param in ctx.command.params if param.name}
    values = {name: value for name, value in implied.values.items() if name in params}
    sources = {name: implied.sources[name] for name in values}
    for name in _COUNTED:
        if isinstance(values.get(name), str):
            values[name] = parse_count(values[name])
    for name, (text, source) in cells_of(implied, _OUTPUT_TOKENS).items():
        if name in params and _required(ctx, name) and "target_qps" not in params:
            values[name], sources[name] = text, source
    return values, sources


def unset_faults(ctx: typer.Context) -> list[Fault]:
    """Return a fault for each value that is a variable's which nobody set, unless a flag gives it."""
    if _META not in ctx.meta:
        return []
    given: _Read = ctx.meta[_META]
    file, server, implied, _, _ = given
    return [
        _unset(file, server.line, source, variable, name)
        for bound, (source, variable) in implied.unset.items()
        for name in {bound, _CELLS.get(bound, bound)} & set(ctx.params)
        if not by_hand(ctx, name) and (name == bound or _required(ctx, name))
    ]


def _unset(file: str, line: int | None, source: str, variable: str, name: str) -> Fault:
    flag = name.replace("_", "-")
    problem = f"the variable {variable} is not set there"
    return Fault(file, line, source, problem, f"Write its value, or give --{flag}")


def missing_from(ctx: typer.Context, name: str) -> str:
    """Return why a required flag is not known from a deployment; empty where --from is not given."""
    if _META not in ctx.meta:
        return ""
    given: _Read = ctx.meta[_META]
    file, server, implied, _, _ = given
    for bound in (name, *(each for each, cell in _CELLS.items() if cell == name)):
        if bound in implied.unset:
            source, variable = implied.unset[bound]
            return str(_unset(file, server.line, source, variable, name)).rstrip(".")
    return f"{file} does not say it"


def _required(ctx: typer.Context, name: str) -> bool:
    return any(param.name == name and param.required for param in ctx.command.params)


def remarks_on_served(ctx: typer.Context, flags: object) -> list[str]:
    """Return what was read of a deployment and stands in `flags`, what was not, and what is to be said."""
    if _META not in ctx.meta:
        return []
    given: _Read = ctx.meta[_META]
    file, server, implied, sources, others = given
    values = ctx.default_map or {}
    taken = {
        name
        for name in sources
        if origin_of(ctx, name) == "from" and getattr(flags, name) == values[name]
    }
    read = [
        f"--{name.replace('_', '-')}" + ("" if values[name] is True else f" {values[name]}")
        for name in sources
        if name in taken
    ]
    where = "the command line" if file == "--from" else file
    named = f" ({server.name})" if file != "--from" and not server.name.isdigit() else ""
    remarks = [f"read from {where}{named}: {', '.join(read) or 'nothing that no flag gives'}"]
    if sources.get("batch_size") == "" and "batch_size" in taken:
        remarks.append("it names no most sequences: 256 are taken, the least that engines take by default")
    if "context" in taken:
        remarks.append(
            f"the context is the longest that it serves ({sources['context']}), less {_OUTPUT_TOKENS} tokens "
            "of output"
        )
    if implied.unread:
        remarks.append(f"without effect here: {_listed(implied.unread)}")
    if others:
        remarks.append(f"the same is started by {', '.join(others)}")
    return remarks + implied.remarks


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more
