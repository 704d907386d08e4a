"""The command starts, says where it listens, ends when told to, and keeps its promises under load."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from statistics import quantiles

import pytest
from typer.testing import CliRunner

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("plotly")

from explored import QUESTION, running

from perfmodel.cli.app import app

DECLARED = {200, 503}


def post(address, path, body):
    request = urllib.request.Request(
        address.rstrip("/") + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_answers_and_ends_when_told_to(number, code):
    with running() as (process, address):
        status, body = post(address, "/plan", QUESTION)
        assert status == 200
        assert json.loads(body)["plan"]["model"] == "Llama-3.1-8B"
        process.send_signal(number)
        assert process.wait(20) == code
        left = process.stderr.read()
        assert "Traceback" not in left
        assert left.strip() in ("terminated", "interrupted")


def test_what_is_being_answered_is_finished_before_the_end():
    with running() as (process, address):
        answers = []
        body = {**QUESTION, "batch_size": "1:256:8", "context": "1k:128k:16k"}
        asking = threading.Thread(target=lambda: answers.append(post(address, "/plan", body)[0]))
        asking.start()
        time.sleep(0.3)
        process.terminate()
        asking.join(30)
        assert answers == [200]


def test_a_port_in_use_and_a_strange_host_are_refused_with_a_remedy():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = CliRunner().invoke(app, ["explore", "--port", port], prog_name="draftplan")
    assert refused.exit_code == 2
    assert "in use" in refused.stderr and "--port 0" in refused.stderr
    refused = CliRunner().invoke(app, ["explore", "--host", "no.such.host.invalid"], prog_name="draftplan")
    assert refused.exit_code == 2
    assert "--host" in refused.stderr


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "plotly"])
def test_without_the_extra_the_message_is_the_command_that_installs_it(missing, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else object())
    refused = CliRunner().invoke(app, ["explore"], prog_name="draftplan")
    assert refused.exit_code == 2
    assert missing in refused.stderr
    assert "[explore]'` installs it" in refused.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["explore", "--help"], ["plan", "--help"]])
def test_help_loads_nothing_of_it(arguments):
    code = (
        "import atexit, sys\nfrom perfmodel.cli import main\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        f"sys.argv = ['draftplan', *{arguments!r}]\nmain()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = set(ran.stderr.split())
    assert "perfmodel.cli.app" in loaded
    assert not {"fastapi", "starlette", "uvicorn", "plotly", "pydantic", "perfmodel.explore"} & loaded


def test_requests_leave_no_line_unless_asked_for():
    with running("--log") as (process, address):
        post(address, "/plan", QUESTION)
        process.terminate()
        process.wait(20)
        assert "POST /plan" in process.stderr.read()


@pytest.mark.slow
def test_two_hundred_requests_at_twenty_at_a_time_are_answered_or_refused_by_rule(capsys):
    with running() as (_, address):
        bodies = [
            ("/plan", {**QUESTION, "batch_size": 8 + place % 50}) if place % 2 else
            ("/explore", {"question": {**QUESTION, "acceptance_rate": 0.5 + place / 1000}})
            for place in range(200)
        ]  # fmt: skip
        statuses, took, lock = Counter(), [], threading.Lock()

        def ask():
            while True:
                with lock:
                    if not bodies:
                        return
                    path, body = bodies.pop()
                begun = time.perf_counter()
                status, _ = post(address, path, body)
                with lock:
                    statuses[status] += 1
                    took.append(time.perf_counter() - begun)

        threads = [threading.Thread(target=ask) for _ in range(20)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole = time.perf_counter() - begun
    cut = quantiles(took, n=20)
    with capsys.disabled():
        print(f"\n200 requests, 20 at a time: {whole:.1f} s, p50 {cut[9]:.2f} s, p95 {cut[18]:.2f} s")
        print(dict(statuses))
    assert sum(statuses.values()) == 200
    assert set(statuses) <= DECLARED
    assert statuses[200] >= 180
