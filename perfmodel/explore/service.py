"""The HTTP service: what answers at which address, with OpenAPI documentation that is made of it."""

# Annotations are evaluated: FastAPI reads the models that are made of flags from them.

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from perfmodel._version import __version__
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.explore.asked import Front
from perfmodel.explore.desk import Desk, Limits
from perfmodel.explore.forms import (
    DecideAnswer,
    Health,
    Listed,
    PlanAnswer,
    PriceAnswer,
    PriceRequest,
    decide_request,
    explore_request,
    export_request,
    question_request,
)
from perfmodel.explore.guard import POLICY, Guard, unexpected
from perfmodel.explore.page import asset, docs_page, explore_page
from perfmodel.explore.problems import MEDIA_TYPE, Details, infeasible, invalid, problem, wrong
from perfmodel.explore.show import explored, exported, planned, reported
from perfmodel.explore.tallies import Tallies
from perfmodel.explore.turns import BusyError, TooLongError, Turns
from perfmodel.files.json_text import load_json

__all__ = ["Settings", "service"]

_ABOUT = (
    "Whether, how and how surely speculative decoding pays, priced by the functions of `draftplan` itself. "
    "Names are those of its flags, units stand in the names of answers, refusals are problem details "
    "(RFC 9457)."
)
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Details, "description": described}
    for status, described in {
        413: "Too large", 415: "Not JSON", 422: "Wrong, or nothing feasible", 503: "Busy", 504: "Too long",
    }.items()
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How a service is set up: what it listens on, further names of it, how much it takes on."""

    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


class _Strict(Request):
    """A request whose JSON is read as strictly as a file: no key twice, nothing too deep."""

    async def json(self) -> Any:
        """Return the body."""
        try:
            text = (await self.body()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise SpecError.single("", "", f"is not UTF-8: byte {error.start}", "Send UTF-8") from None
        return load_json(text, "the body")


class _StrictRoute(APIRoute):
    """A route that reads its requests so."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Return what answers."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_Strict(request.scope, request.receive))

        return strictly


class _Json(Response):
    """Plain values as JSON, in ASCII, so that nothing invisible is in it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the text."""
        return _text(content)


def _text(body: Any) -> bytes:
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()


class _Problem(_Json):
    media_type = MEDIA_TYPE


def service(front: Front, settings: Settings | None = None) -> Guard:
    """Return the service as an ASGI application.

    Parameters
    ----------
    front : what reads questions.
    settings : those of this machine alone where absent.
    """
    settings = settings or Settings()
    limits, tallies = settings.limits, Tallies()
    desk, turns = Desk(front, limits), Turns(limits.workers, limits.waiting, limits.seconds)

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        yield
        turns.close()

    app = FastAPI(
        title="draftplan explore", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None,
        lifespan=living, openapi_url="/openapi.json",
    )  # fmt: skip
    _refuse_in_words(app, front, turns, tallies)
    app.include_router(_controllers(front, desk, turns))
    app.include_router(_lists(front, desk, turns, tallies))
    app.include_router(_page(app, front, desk, turns))
    return Guard(app, bound=settings.host, hosts=settings.hosts, most_bytes=limits.body, tallies=tallies)


def _controllers(front: Front, desk: Desk, turns: Turns) -> APIRouter:
    """What other programs ask."""
    router = APIRouter(route_class=_StrictRoute, responses=_REFUSALS, tags=["answers"])
    question = question_request(front.flags)
    decide_body = decide_request(question)

    @router.post("/plan", response_model=PlanAnswer, summary="Recommend, for every batch and context")
    async def plan(asked: question) -> Response:  # type: ignore[valid-type]
        values = _values(asked)
        return await _answer(turns, lambda: planned(desk, values), values)

    @router.post("/price", response_model=PriceAnswer, summary="Price named configurations")
    async def price(asked: PriceRequest) -> Response:  # type: ignore[valid-type]
        cases = [case.model_dump(exclude_unset=True) for case in asked.cases]  # type: ignore[attr-defined]
        return await _answer(turns, lambda: desk.price(cases))

    @router.post("/decide", response_model=DecideAnswer, summary="Decide the next round's length")
    async def decide(asked: decide_body) -> Response:  # type: ignore[valid-type]
        values = _values(asked.question) if asked.question is not None else None  # type: ignore[attr-defined]
        batch, tokens = asked.batch_size, asked.kv_tokens  # type: ignore[attr-defined]
        body = asked.plan  # type: ignore[attr-defined]
        return await _answer(
            turns, lambda: desk.decide(values, body).decide(batch, tokens)._asdict(), values or {}
        )

    return router


def _lists(front: Front, desk: Desk, turns: Turns, tallies: Tallies) -> APIRouter:
    """What there is, and how the service does."""
    router = APIRouter(tags=["catalogue"])
    remembered: dict[str, list[dict[str, Any]]] = {}

    def listing(noun: str) -> Callable[[], Any]:
        async def names() -> Response:
            if noun not in remembered:
                remembered[noun] = await turns.run(lambda: front.listed(noun))
            return _Json({"names": remembered[noun]})

        names.__name__ = noun
        return names

    for noun in ("models", "hardware", "engines", "strategies"):
        router.get(f"/{noun}", response_model=Listed, summary=f"Every {noun} name")(listing(noun))

    @router.get("/health", response_model=Health, tags=["service"], summary="Whether it answers")
    async def health() -> Response:
        return _Json({"status": "ok", "version": __version__})

    @router.get("/metrics", tags=["service"], summary="A scrape for Prometheus")
    async def metrics() -> Response:
        gauges = {"computations": ("Computations at work or waiting", float(turns.taken))} | desk.hits
        return Response(tallies.scrape(gauges), media_type="text/plain; version=0.0.4")

    return router


def _page(app: FastAPI, front: Front, desk: Desk, turns: Turns) -> APIRouter:
    """The page for people, what it asks, and what it is made of."""
    router = APIRouter(route_class=_StrictRoute, include_in_schema=False)
    question = question_request(front.flags)
    explore_body, export_body = explore_request(question), export_request(question)

    @router.get("/")
    async def index() -> Response:
        drawn = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # plotly sets styles
        headers = {"content-security-policy": drawn}
        return Response(explore_page(front), media_type="text/html; charset=utf-8", headers=headers)

    @router.get("/docs")
    async def docs() -> Response:
        return Response(docs_page(app.openapi()), media_type="text/html; charset=utf-8")

    @router.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)

    @router.get("/static/{name}")
    async def static(name: str) -> Response:
        text, kind = asset(name)
        kept = {"cache-control": "private, max-age=31536000, immutable"}
        return Response(text, media_type=kind, headers=kept)

    @router.post("/explore")
    async def explore(asked: explore_body) -> Response:  # type: ignore[valid-type]
        values = _values(asked.question)  # type: ignore[attr-defined]
        axes = {"batches": asked.batches, "contexts": asked.contexts}  # type: ignore[attr-defined]
        return await _answer(turns, lambda: explored(desk, values, **axes), values | axes)

    @router.post("/export")
    async def export(asked: export_body) -> Response:  # type: ignore[valid-type]
        values, name = _values(asked.question), asked.format  # type: ignore[attr-defined]
        return await _answer(turns, lambda: exported(desk, values, name), values)

    @router.post("/report")
    async def report(asked: question) -> Response:  # type: ignore[valid-type]
        values = _values(asked)
        with _keyed(values):
            text = await turns.run(lambda: reported(desk, values))
        name = 'attachment; filename="draftplan-report.html"'
        headers = {"content-disposition": name}
        return Response(text, media_type="text/html; charset=utf-8", headers=headers)

    return router


class _KeyedError(Exception):
    """A refusal with what was asked."""

    def __init__(self, refusal: SpecError, values: Mapping[str, Any]) -> None:
        super().__init__(refusal)
        self.refusal, self.values = refusal, values


@contextmanager
def _keyed(values: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except SpecError as refusal:
        raise _KeyedError(refusal, values) from refusal


async def _answer(
    turns: Turns, compute: Callable[[], Mapping[str, Any]], values: Mapping[str, Any] | None = None
) -> Response:
    """Return what is computed in its turn, as JSON."""
    with _keyed(values or {}):
        text = await turns.run(lambda: _text(compute()))
    return Response(text, media_type="application/json")


def _values(asked: Any) -> dict[str, Any]:
    """Return what was given of a question, by name; what is null is absent."""
    given: dict[str, Any] = asked.model_dump(exclude_unset=True, exclude_none=True)
    return given


def _refuse_in_words(app: FastAPI, front: Front, turns: Turns, tallies: Tallies) -> None:
    """Turn whatever is raised into problem details."""
    known = [name for flag in front.flags for name in (flag.name, *flag.spellings)]

    async def keyed(_: Request, failure: Any) -> Response:
        return _Problem(wrong(failure.refusal, failure.values), status_code=422)

    async def spec(_: Request, failure: Any) -> Response:
        return _Problem(wrong(failure), status_code=422)

    async def nothing_feasible(_: Request, failure: Any) -> Response:
        return _Problem(infeasible(failure), status_code=422)

    async def form(_: Request, failure: Any) -> Response:
        return _Problem(invalid(failure.errors(), known), status_code=422)

    async def http(_: Request, failure: Any) -> Response:
        if isinstance(failure.__cause__, SpecError):  # of a body that is no JSON
            return _Problem(wrong(failure.__cause__, status=400), status_code=400)
        status = failure.status_code if failure.status_code in (404, 405) else 400
        body = problem(status, f"{failure.detail}; /docs lists what is here")
        return _Problem(body, status_code=status, headers=failure.headers)

    async def fault(_: Request, failure: Any) -> Response:
        return _Problem(problem(500, unexpected(failure)), status_code=500)

    async def busy(_: Request, failure: Any) -> Response:
        del failure
        tallies.refuse("workers")
        detail = f"{turns.workers} compute and {turns.waiting} wait already; ask again shortly"
        return _Problem(problem(503, detail), status_code=503, headers={"retry-after": "1"})

    async def late(_: Request, failure: Any) -> Response:
        del failure
        tallies.refuse("seconds")
        detail = f"it was not done within {turns.seconds:g} s; ask for fewer cells or strategies"
        headers = {"retry-after": str(round(turns.seconds) or 1)}
        return _Problem(problem(504, detail), status_code=504, headers=headers)

    for kind, handle in (
        (_KeyedError, keyed), (SpecError, spec), (InfeasibleError, nothing_feasible),
        (RequestValidationError, form), (HTTPException, http), (BusyError, busy), (TooLongError, late),
        (Exception, fault),
    ):  # fmt: skip
        app.add_exception_handler(kind, handle)
