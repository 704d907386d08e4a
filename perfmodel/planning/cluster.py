"""Work on a Dask cluster: only what the same draftplan computed is believed, and its end is reported."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import importlib.util
import logging
import re
import socket
import ssl
import threading
import time
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, TimeoutError
from pathlib import Path
from typing import Any, NoReturn

from perfmodel.errors import Fault, SpecError, nearest_name, shown
from perfmodel.files.build import build_here
from perfmodel.planning.common import Arrived, Common, given
from perfmodel.planning.replies import SAME_BUILD, answer, believed, shown_failure, stranger

__all__ = ["Cluster", "checked_address", "open_cluster"]

RETRIES = 3
"""How often a piece of work is given to another worker when one is lost or short of memory. [1]"""
CONNECT = 4.0
"""Seconds that a scheduler has to answer at first. [s]"""
SILENCE = 15.0
"""Seconds without an answer after which a scheduler is taken to be lost. [s]"""
WITHOUT_WORKERS = 30.0
"""Seconds that a cluster may be without any worker. [s]"""
LEAST_IN_FLIGHT, AHEAD = 32, 4
"""Pieces that are asked for ahead at least, and for each thread of a worker. [1]"""
_ASK = 3.0
"""Seconds between two looks at whether the scheduler still answers. [s]"""
_NEAR = 1.0
"""Seconds in which a worker answers that can be reached from here. [s]"""
_ON_THE_WAY = 2
"""Results that are fetched at once. [1]"""
_NAMED = 8
"""Workers that a refusal names."""
_SCHEMES = ("tcp", "tls")
_PLACE = re.compile(
    r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]+)?\]):(?P<port>[0-9]{1,5})"
)
_START = "Start one with `dask scheduler`, and name its address: dask:tcp://host:8786"
_TLS = "Set distributed.comm.tls.ca-file, client.cert and client.key in Dask's configuration"
_KEPT = "With -o, what is done is kept: run the same command again to go on"


@contextlib.contextmanager
def open_cluster(address: str) -> Iterator[Cluster]:
    """Connect to the Dask scheduler at an address, and leave it again.

    Encryption and authentication are those of Dask's own configuration (``distributed.comm.tls``,
    ``distributed.client.security-loader``).

    Raises
    ------
    SpecError
        When no scheduler can have the address, dask is not installed, its TLS files cannot be used, the
        scheduler does not answer, or a worker has another build.
    """
    address = checked_address(address)
    if importlib.util.find_spec("distributed") is None:
        from perfmodel.files.extras import how_to_install

        _refuse("needs dask.distributed, which is not installed", how_to_install("cluster"))
    dask = importlib.import_module("dask")
    _check_tls(dask, address)
    host, _, port = address.partition("://")[2].rpartition(":")
    if problem := _unreached(host.strip("[]"), int(port)):
        _refuse(f"no Dask scheduler answers at {address} ({problem})", _START)
    distributed = importlib.import_module("distributed")
    settings = {"distributed.comm.timeouts.connect": f"{CONNECT}s", "distributed.comm.retry.count": 0}
    with dask.config.set(settings), _silenced("distributed", "tornado", "asyncio"):
        client = _connected(distributed, address)
        cluster = Cluster(client, address, distributed.KilledWorker)
        try:
            cluster.check_workers()
            yield cluster
        finally:
            with contextlib.suppress(Exception):
                client.close(timeout=2)


def checked_address(address: str) -> str:
    """Return an address that a Dask scheduler can have, with its scheme; anything else is a SpecError."""
    scheme, separator, place = address.rpartition("://")
    scheme = scheme if separator else "tcp"
    if scheme not in _SCHEMES:
        _refuse(
            f"found the address {shown(address)}; a scheduler is reached by tcp or tls",
            "Write dask:tcp://host:8786 or dask:tls://host:8786",
            nearest_name(scheme, _SCHEMES),
        )
    match = _PLACE.fullmatch(place)
    if match is None or not 0 < int(match["port"]) < 65536:
        _refuse(
            f"found the address {shown(address)}, which has no host and port (1 to 65535)",
            "Write dask:tcp://host:8786, or dask:tcp://[::1]:8786 for IPv6",
        )
    return f"{scheme}://{place}"


class Cluster:
    """The executor of a Dask client, whose end is reported and not waited for.

    Parameters
    ----------
    client : a connected ``distributed.Client``.
    address : what to call its scheduler.
    killed : what Dask raises for work that ended several workers.
    """

    def __init__(self, client: Any, address: str, killed: type[Exception]) -> None:
        self._client, self._address, self._killed = client, address, killed
        self._reached: set[str] = set()
        self._build = build_here()
        self._deserted: float | None = None
        self._brought: tuple[str, Any] | None = None

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """Start on all of it, and yield the results in order as they come."""
        with self._losses():
            work = functools.partial(answer, self._build, fn)
            futures = self._client.map(work, *map(list, iterables), pure=False, retries=RETRIES)
        return self._results(deque(futures), self._ask(self._reaches_all, patience=SILENCE))

    def map_common(self, common: Common, fn: Callable[..., Any], pieces: Iterable[Any]) -> Iterator[Any]:
        """As `map`, where `fn` takes what all pieces have in common before the piece.

        It is the result of work of its own: workers hand it on to one another, and when all that had it are
        gone it is brought anew. It stays bytes on the way, so that no other build reads and passes it on.
        """
        if self._brought is None or self._brought[0] != common.key:
            with self._losses():
                bringing = self._client.submit(bytes, common.data, pure=False, retries=RETRIES)
            self._brought = (common.key, bringing)
        work, brought = list(pieces), self._brought[1]
        return self.map(functools.partial(_given_bytes, fn, common.key), [brought] * len(work), work)

    @property
    def in_flight(self) -> int:
        """Pieces that keep all workers busy, and a scheduler that adapts their number asking for more. [1]"""
        threads = sum(self._ask(self._client.nthreads, patience=SILENCE).values())
        return max(LEAST_IN_FLIGHT, AHEAD * int(threads))

    def check_workers(self) -> None:
        """Refuse workers of another build by name; one that is too busy to say is asked with its work."""
        builds = self._ask(self._builds, patience=SILENCE)
        wrong = [(place, build) for place, build in sorted(builds.items()) if build != self._build]
        if wrong:
            faults = [stranger(self._build, place, build) for place, build in wrong[:_NAMED]]
            if wrong[_NAMED:]:
                faults.append(Fault("", None, "--executor", f"and {len(wrong) - _NAMED} more workers"))
            raise SpecError(faults)

    async def _builds(self) -> dict[str, Any]:
        """What the workers say they are, or the failure of asking them; without those that are silent."""

        async def build_of(place: str) -> Any:
            asked = self._client.run(build_here, workers=[place], on_error="return")
            return (await asyncio.wait_for(asked, CONNECT)).get(place)

        places = list(await self._client.nthreads())
        builds = await asyncio.gather(*map(build_of, places), return_exceptions=True)
        quiet = (asyncio.TimeoutError, OSError, type(None))
        pairs = zip(places, builds, strict=True)
        return {place: build for place, build in pairs if not isinstance(build, quiet)}

    def _results(self, futures: deque[Any], direct: bool) -> Iterator[Any]:
        """The results in order; while one is taken in, the next is on its way.

        Parameters
        ----------
        direct : whether they come from the workers themselves, in place of through the scheduler.
        """
        coming: deque[Future[Any]] = deque()
        try:
            while futures or coming:
                while futures and len(coming) < _ON_THE_WAY:
                    coming.append(self._fetch(futures.popleft(), direct))
                with self._losses():
                    reply = self._awaited(coming.popleft())
                yield believed(reply, self._build)
        finally:
            for fetched in coming:
                fetched.cancel()

    def _fetch(self, future: Any, direct: bool) -> Future[Any]:
        """Begin to fetch a result, however long it travels."""

        async def fetch() -> Any:
            return await self._client.gather(future, direct=direct, asynchronous=True)

        return asyncio.run_coroutine_threadsafe(fetch(), self._client.loop.asyncio_loop)

    def _awaited(self, fetched: Future[Any]) -> Any:
        """The result of a piece of work, while the scheduler answers and has workers."""
        while True:
            with contextlib.suppress(TimeoutError):
                return fetched.result(timeout=_ASK)
            if fetched.done():  # it may have come in between, or Dask itself gave up
                return fetched.result()
            self._look()

    async def _reaches_all(self) -> bool:
        """Whether this process can speak to every worker itself."""

        async def reaches(place: str) -> None:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._client.rpc(place).identity(), _NEAR)
                self._reached.add(place)

        places = set(await self._client.nthreads())
        await asyncio.gather(*map(reaches, places - self._reached))
        return places <= self._reached

    def _look(self) -> None:
        """Ask the scheduler for its workers; raise when it is silent, or has had none for long."""
        workers = self._ask(self._client.nthreads, patience=SILENCE)
        for gone in self._reached.difference(workers):  # what it was asked for is nothing to wait for
            self._reached.discard(gone)
            self._client.loop.add_callback(self._client.rpc.remove, gone)
        now = time.monotonic()
        self._deserted = None if workers else self._deserted or now
        if self._deserted is not None and now - self._deserted > WITHOUT_WORKERS:
            _refuse(
                f"the scheduler at {self._address} has had no worker for {WITHOUT_WORKERS:.0f} s",
                f"Start one with `dask worker {self._address}`. {_KEPT}",
            )

    def _ask(self, what: Callable[[], Awaitable[Any]], patience: float) -> Any:
        """What the scheduler answers, or its loss when it says nothing."""

        async def asked() -> Any:
            return await asyncio.wait_for(what(), patience)

        with self._losses():
            return self._client.sync(asked, callback_timeout=patience + 1)

    @contextlib.contextmanager
    def _losses(self) -> Iterator[None]:
        try:
            yield
        except SpecError:
            raise
        except self._killed as failure:
            _refuse(
                f"a piece of work ended several workers: {shown_failure(failure)}",
                "Give the workers more memory; with -o, what is done is kept",
            )
        except (CancelledError, asyncio.CancelledError, asyncio.TimeoutError, OSError) as failure:
            _refuse(f"the scheduler at {self._address} was lost ({type(failure).__name__})", _KEPT)
        except Exception as failure:
            _refuse(f"a worker or the scheduler cannot take the work: {shown_failure(failure)}", SAME_BUILD)


def _given_bytes(fn: Callable[..., Any], key: str, data: bytes, piece: Any) -> Any:
    return given(fn, Arrived(key, data), piece)


def _refuse(problem: str, remedy: str, nearest: str | None = None) -> NoReturn:
    raise SpecError.single("", "--executor", problem, remedy, nearest) from None


def _unreached(host: str, port: int) -> str:
    """Why nothing takes a connection at a place, empty where something does; asked before Dask is loaded."""
    outcome = ["no answer"]
    deadline = time.monotonic() + CONNECT

    def reach() -> None:
        while (left := deadline - time.monotonic()) > 0:
            try:
                socket.create_connection((host, port), timeout=left).close()
                outcome[0] = ""
                return
            except (socket.gaierror, UnicodeError) as failure:
                outcome[0] = getattr(failure, "strerror", None) or "not a name"
                return
            except OSError as failure:
                outcome[0] = failure.strerror or outcome[0]
            time.sleep(0.1)

    # A name may take longer to be looked up than anyone waits, and that cannot be interrupted.
    asked = threading.Thread(target=reach, daemon=True)
    asked.start()
    asked.join(CONNECT)
    return outcome[0]


def _check_tls(dask: Any, address: str) -> None:
    """Refuse TLS for which Dask's configuration names no certificate, or names files that are not there."""
    if dask.config.get("distributed.client.security-loader", None):
        return
    names = ("ca-file", "client.cert", "client.key")
    values = {name: dask.config.get(f"distributed.comm.tls.{name}", None) for name in names}
    if address.startswith("tls:") and not (values["ca-file"] and values["client.cert"]):
        _refuse(f"{address} needs a certificate, and Dask's configuration names none", _TLS)
    for name, value in values.items():
        if value and "\n" not in str(value) and not Path(str(value)).is_file():
            _refuse(f"distributed.comm.tls.{name} is {shown(value)}, where no file is", _TLS)
    if address.startswith("tcp:") and dask.config.get("distributed.comm.require-encryption", None):
        _refuse(f"Dask's configuration requires encryption, not {address}", "Write dask:tls://host:8786")


def _connected(distributed: Any, address: str) -> Any:
    """A client of the scheduler, or why there is none."""
    # The end of a client that never was connected is not waited for, which takes half a minute.
    kind = type("Client", (distributed.Client,), {"__del__": lambda _: None})
    client: Future[Any] = Future()

    def connect() -> None:
        try:
            client.set_result(kind(address, timeout=CONNECT, set_as_default=False))
        except BaseException as failure:
            client.set_exception(failure)

    # Dask waits for ever for a scheduler that takes the connection and then says nothing.
    threading.Thread(target=connect, daemon=True).start()
    try:
        return client.result(timeout=CONNECT + 1)
    except (ssl.SSLError, FileNotFoundError, PermissionError) as failure:
        _refuse(f"TLS cannot begin: {shown_failure(failure)}", _TLS)
    except Exception as failure:
        reason = shown_failure(failure)
        remedy = "Check that the certificates of both sides come from one authority"
        _refuse(f"no Dask scheduler answers at {address} ({reason})", remedy if "SSL" in reason else _START)


@contextlib.contextmanager
def _silenced(*families: str) -> Iterator[None]:
    """Keep libraries from saying what is reported in words of ours, for good where a failure ends this.

    Their loop goes on in its thread, and may have more to say when the connection is given up.
    """
    known = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in families]
    levels = {name: logging.getLogger(name).level for name in {*families, *known}}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        for family in families:
            warnings.filterwarnings("ignore", module=rf"{family}(\.|$)")
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
