"""Only what is meant for this service reaches it, no larger and no longer than it takes on."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("plotly")

from explored import QUESTION, client
from fastapi.testclient import TestClient

from perfmodel.explore.desk import Limits
from perfmodel.explore.guard import HEADERS, Guard, is_allowed_host
from perfmodel.explore.remembered import Remembered
from perfmodel.explore.tallies import Tallies
from perfmodel.explore.turns import BusyError, TooLongError, Turns

SERVICE = client()
HERE = ("localhost", "localhost:8642", "127.0.0.1:1", "[::1]:8642", "LOCALHOST", "127.0.0.2")
ELSEWHERE = (
    "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "192.168.0.1", "[::2]", "[::1",
    "localhost:x", "a b", "127.1.evil",
)  # fmt: skip


@pytest.mark.parametrize("host", HERE)
def test_names_of_this_machine_are_served(host):
    assert is_allowed_host(host, "127.0.0.1")
    assert SERVICE.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ELSEWHERE)
def test_no_other_name_is_served_so_that_none_can_be_pointed_here(host):
    assert not is_allowed_host(host, "127.0.0.1")
    reply = SERVICE.get("/health", headers={"host": host})
    assert reply.status_code == 403
    assert "--allow-host" in reply.json()["detail"]


def test_where_others_may_ask_addresses_and_allowed_names_are_served():
    assert is_allowed_host("192.168.0.7:80", "0.0.0.0")
    assert is_allowed_host("[fe80::1]:80", "::")
    assert is_allowed_host("plan.example:443", "0.0.0.0", ("plan.example",))
    assert not is_allowed_host("evil.example", "0.0.0.0", ("plan.example",))
    named = client(hosts=("plan.example",))
    assert named.get("/health", headers={"host": "plan.example"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/static/explore.js", "/nothing", "/openapi.json"])
def test_every_answer_has_safe_headers_and_none_for_other_origins(path):
    headers = SERVICE.get(path, headers={"origin": "http://evil.example"}).headers
    for name in HEADERS:
        assert name in headers
    assert "script-src 'self';" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert not [name for name in headers if name.startswith("access-control")]


def test_another_sites_page_cannot_ask():
    form = {"content-type": "text/plain"}
    assert SERVICE.post("/plan", content=b"{}", headers=form).status_code == 415
    cross = {"sec-fetch-site": "cross-site"}
    assert SERVICE.post("/plan", json=QUESTION, headers=cross).status_code == 403
    assert SERVICE.options("/plan", headers={"origin": "http://evil.example"}).status_code == 405


def test_a_body_is_read_no_further_than_is_allowed():
    small = client(limits=Limits(body=1000))
    assert small.post("/plan", json={**QUESTION, "gamma": "1" * 2000}).status_code == 413
    read = []

    def pieces():
        for _ in range(100):
            read.append(1)
            yield b" " * 400

    reply = small.post("/plan", content=pieces(), headers={"content-type": "application/json"})
    assert reply.status_code == 413
    assert small.post("/plan", json=QUESTION).status_code == 200


def test_more_cells_or_configurations_than_are_taken_on_are_refused_unpriced():
    few = client(limits=Limits(cells=10))
    reply = few.post("/plan", json={**QUESTION, "batch_size": "1:64:1"})
    assert reply.status_code == 422
    assert "64 cells" in reply.json()["detail"]
    begun = time.perf_counter()
    reply = SERVICE.post("/plan", json={**QUESTION, "batch_size": "1:64:1", "draft_budget": "1:5000:1"})
    assert reply.status_code == 422
    assert "configurations" in reply.json()["detail"]
    assert time.perf_counter() - begun < 10.0
    assert SERVICE.post("/price", json={"cases": [{}] * 5000}).status_code == 422


# Turns.


def test_who_finds_no_place_is_refused_and_the_others_are_answered():
    turns, gate = Turns(workers=1, waiting=1, seconds=10.0), threading.Event()

    async def three():
        first = asyncio.ensure_future(turns.run(gate.wait))
        second = asyncio.ensure_future(turns.run(lambda: "second"))
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError):
            await turns.run(lambda: "third")
        gate.set()
        return await first, await second

    assert asyncio.run(three()) == (True, "second")
    turns.close()


def test_what_takes_too_long_is_given_up_and_keeps_its_place_until_it_ends():
    turns, gate = Turns(workers=1, waiting=0, seconds=0.05), threading.Event()

    async def late():
        with pytest.raises(TooLongError):
            await turns.run(gate.wait)
        with pytest.raises(BusyError):
            await turns.run(lambda: "too early")
        gate.set()
        for _ in range(200):
            if not turns.taken:
                break
            await asyncio.sleep(0.01)
        return await turns.run(lambda: "done")

    assert asyncio.run(late()) == "done"
    turns.close()


def test_a_service_that_is_busy_or_late_says_when_to_come_back(monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr("perfmodel.explore.desk.plan", lambda *_, **__: gate.wait(10.0))
    with client(limits=Limits(workers=1, waiting=0, seconds=0.1)) as slow:
        late = slow.post("/plan", json=QUESTION)
        assert late.status_code == 504
        assert late.json()["title"] == "The answer takes too long"
        busy = slow.post("/plan", json=QUESTION)
        assert busy.status_code == 503
        assert busy.headers["retry-after"] == "1"
        assert slow.get("/health").status_code == 200
        assert 'draftplan_refused_total{limit="workers"} 1' in slow.get("/metrics").text
        gate.set()


def test_a_fault_of_ours_is_a_problem_without_a_traceback(monkeypatch, capsys):
    def fail(*_, **__):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("perfmodel.explore.desk.plan", fail)
    reply = client().post("/plan", json=QUESTION)
    assert reply.status_code == 500
    assert "ZeroDivisionError" in reply.json()["detail"]
    assert "secret" not in reply.text
    assert capsys.readouterr().err == ""


def test_nothing_but_http_is_spoken():
    sent = []

    async def send(message):
        sent.append(message)

    guard = Guard(None, bound="127.0.0.1", hosts=(), most_bytes=1, tallies=Tallies())
    asyncio.run(guard({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_answers_are_remembered_up_to_a_number():
    kept = Remembered(2)
    for key in ("a", "b", "a", "c", "b"):
        assert kept.get(key, lambda key=key: key.upper()) == key.upper()
    assert (kept.hits, kept.misses) == (1, 4)


def test_clients_at_once_get_what_one_gets():
    grids = [{**QUESTION, "batch_size": batch} for batch in (1, 8, 32, 64, 128, 256)]
    alone = [client().post("/plan", json=grid).json() for grid in grids]
    together: list = [None] * len(grids)
    with TestClient(SERVICE.app, base_url="http://localhost") as shared:

        def ask(place):
            together[place] = shared.post("/plan", json=grids[place]).json()

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(grids))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert together == alone
