"""What every request passes first: whom it is for, how large it is, what comes with it; safe headers."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from perfmodel.explore.problems import MEDIA_TYPE, problem
from perfmodel.explore.tallies import Tallies

__all__ = ["HEADERS", "POLICY", "Guard", "is_allowed_host", "unexpected"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_PATIENCE = 10.0
"""Within which a request's body must have come. [s]"""


class _RefusedError(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, detail: str, why: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.why = status, detail, why


def is_allowed_host(host: str, bound: str, further: tuple[str, ...] = ()) -> bool:
    """Whether a request's Host is one of this service's own, so that no other site's name leads here.

    A name in a Host header can be anybody's who lets it point at this machine; an address cannot. So
    addresses pass (of this machine alone where it listens to this machine alone), and ``localhost``, the name
    that it was bound to, and those that were allowed.

    Parameters
    ----------
    host : the header, with its port.
    bound : what it listens on.
    further : names that were allowed.
    """
    name = host.strip().lower()
    if name.startswith("["):
        name, closed, port = name[1:].partition("]")
        port = port.removeprefix(":") if closed else "wrong"
    else:
        name, _, port = name.partition(":")
    if port and not port.isdigit():
        return False
    if name in ("localhost", bound.lower(), *(each.lower() for each in further)):
        return bool(name)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not _is_loopback(bound)


def unexpected(failure: Exception) -> str:
    """Return what is said of a fault of ours."""
    return f"unexpected {type(failure).__name__}; where, stands on stderr with DRAFTPLAN_DEBUG=1"


def _is_loopback(bound: str) -> bool:
    try:
        return ipaddress.ip_address(bound).is_loopback
    except ValueError:
        return bound.lower() == "localhost"


class Guard:
    """Lets requests through to an application, reads their bodies for it, and sees to the headers of answers.

    app : what answers. bound, hosts : as `bound` and `further` of `is_allowed_host`.
    most_bytes : of a body. [B]
    tallies : where requests are counted.
    """

    def __init__(
        self, app: App, *, bound: str, hosts: tuple[str, ...], most_bytes: int, tallies: Tallies
    ) -> None:
        self.app, self.bound, self.hosts = app, bound, hosts
        self.most_bytes, self.tallies = most_bytes, tallies

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request; whatever fails is a problem in JSON."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        begun, status = time.monotonic(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message.get("headers", ())}
                own = [(name.encode(), text.encode()) for name, text in HEADERS.items()]
                own.append((b"cache-control", b"no-store"))
                message["headers"] = [
                    *message.get("headers", ()), *(pair for pair in own if pair[0] not in given),
                ]
            await send(message)

        try:
            headers = {name: text.decode("latin-1") for name, text in scope["headers"]}
            self._check(scope, headers)
            body = await self._body(headers, receive)
            await self.app(scope, _given(body, receive), answer)
        except _RefusedError as refused:
            self.tallies.refuse(refused.why)
            await _tell(answer, problem(refused.status, refused.detail))
        except Exception as failure:
            if os.environ.get("DRAFTPLAN_DEBUG"):
                import traceback

                sys.stderr.write("".join(traceback.format_exception(failure)))
            if not status:
                await _tell(answer, problem(500, unexpected(failure)))
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            name = f"{scope['method']} {path}" if path != "other" else path
            self.tallies.count(name, status, time.monotonic() - begun)

    def _check(self, scope: MutableMapping[str, Any], headers: dict[bytes, str]) -> None:
        hosts = [text for name, text in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not is_allowed_host(headers[b"host"], self.bound, self.hosts):
            detail = "the Host header names another machine; --allow-host NAME allows a name"
            raise _RefusedError(403, detail, "host")
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise _RefusedError(415, "send Content-Type: application/json", "content type")
            if headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                raise _RefusedError(403, "another site's page may not ask", "site")

    async def _body(self, headers: dict[bytes, str], receive: Receive) -> bytes:
        """Return the whole body, of which no more is kept than is allowed."""
        detail = f"a request may have {self.most_bytes} bytes at most"
        length = headers.get(b"content-length", "0")
        if length.isdigit() and int(length[:20]) > self.most_bytes:
            raise _RefusedError(413, detail, "bytes")
        parts: list[bytes] = []

        async def read() -> None:
            size, more = 0, True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    return
                parts.append(message.get("body", b""))
                size, more = size + len(parts[-1]), message.get("more_body", False)
                if size > self.most_bytes:
                    raise _RefusedError(413, detail, "bytes")

        try:
            await asyncio.wait_for(read(), _PATIENCE)
        except asyncio.TimeoutError:
            raise _RefusedError(408, f"the body did not come within {_PATIENCE:g} s", "patience") from None
        return b"".join(parts)


def _given(body: bytes, receive: Receive) -> Receive:
    """Hand on a body that was read."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _tell(send: Send, body: dict[str, Any]) -> None:
    text = json.dumps(body).encode()
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": body["status"], "headers": headers})
    await send({"type": "http.response.body", "body": text})
