"""The service to ask, and questions of it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys

QUESTION = {
    "model": "llama-3.1-8b", "hardware": "h100-sxm-80gb", "tp": 8, "batch_size": 64, "context": "32k",
}  # fmt: skip


def client(**settings):
    """The service in this process; arguments as of `Settings`."""
    from fastapi.testclient import TestClient

    from perfmodel.cli.explore import front
    from perfmodel.explore.service import Settings, service

    return TestClient(service(front(), Settings(**settings)), base_url="http://localhost")


@contextlib.contextmanager
def running(*arguments):
    """`draftplan explore` in a process of its own; yields it and its address."""
    command = [sys.executable, "-m", "perfmodel", "explore", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        first = process.stderr.readline()
        found = re.search(r"http://\S+", first)
        assert found, first + process.stderr.read()
        yield process, found[0]
    finally:
        process.terminate()
        process.wait(20)
        process.stderr.close()
