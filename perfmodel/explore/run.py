"""Run the service until it is told to end."""

from __future__ import annotations

import copy
import errno
import socket
import threading
import webbrowser
from collections.abc import Callable

from perfmodel.errors import SpecError
from perfmodel.explore.asked import Front
from perfmodel.explore.service import Settings, service

__all__ = ["serve"]

_BACKLOG = 128
_GRACE = 5
"""Within which answers are finished after the service was told to end. [s]"""


def serve(
    front: Front, settings: Settings, port: int, *, log: bool, browser: bool, announce: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM; what is being answered then is finished.

    Parameters
    ----------
    port : to listen on; 0 is a free one.
    log : whether every request is a line on stderr.
    browser : whether to open a browser.
    announce : told the address, once it listens.

    Raises
    ------
    SpecError
        Where it cannot listen there.
    """
    import uvicorn
    from uvicorn.config import LOGGING_CONFIG

    lines = copy.deepcopy(LOGGING_CONFIG)
    lines["handlers"]["access"]["stream"] = "ext://sys.stderr"
    listening = _listen(settings.host, port)
    host, taken = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{'localhost' if host in ('127.0.0.1', '::1') else shown}:{taken}/"
    config = uvicorn.Config(
        service(front, settings), log_level="info" if log else "error", access_log=log, server_header=False,
        timeout_graceful_shutdown=_GRACE, timeout_keep_alive=20, backlog=_BACKLOG, ws="none",
        h11_max_incomplete_event_size=1 << 16, lifespan="on", log_config=lines,
    )  # fmt: skip
    announce(address)
    if browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises SpecError."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SpecError.single("", "--host", f"found {host!r}: {error.strerror}", "Give 127.0.0.1") from None
    family, *_, place = places[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        problem, remedy = f"{host}:{port} cannot be listened on: {error.strerror}", "Give another"
        if error.errno == errno.EADDRINUSE:
            problem, remedy = f"port {port} of {host} is in use", "Give another, or --port 0 for a free one"
        elif error.errno == errno.EACCES:
            remedy = "Give one above 1023, or --port 0 for a free one"
        field = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
        raise SpecError.single("", field, problem, remedy) from None
    return listening
