"""A Dask cluster that is silent, empty, locked or of another version: right results or a clear line."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.planning.test_cluster import NO_DASK, ROOT, Cluster, finished, gone_on, pieces_done, started

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NO_DASK, reason="dask.distributed is absent")]


def refused(ran, *says):
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert all(words in line for words in says), line


def ended(process, patience):
    stdout, stderr = process.communicate(timeout=patience)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def kept(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.parts-*/[0-9]*.npz")}


def test_a_scheduler_that_falls_silent_is_lost_and_what_was_done_is_kept(cluster, tmp_path, whole):
    output = tmp_path / "out.npz"
    process = started(output, f"dask:{cluster.address}")
    done = pieces_done(tmp_path, 5, process)
    cluster.scheduler.send_signal(signal.SIGSTOP)
    refused(ended(process, 60), "was lost", "With -o, what is done is kept")
    assert kept(tmp_path).items() >= done.items()
    began = time.monotonic()
    refused(finished(output, f"dask:{cluster.address}"), "no Dask scheduler answers")
    assert time.monotonic() - began < 20, "10 s where nothing else runs"
    cluster.scheduler.send_signal(signal.SIGCONT)
    again = finished(output, f"dask:{cluster.address}")
    assert again.returncode == 0, again.stderr
    assert gone_on(again.stderr) >= len(done)
    assert output.read_bytes() == whole


def test_without_any_worker_a_command_ends(cluster, tmp_path):
    process = started(tmp_path / "out.npz", f"dask:{cluster.address}")
    done = pieces_done(tmp_path, 5, process)
    for worker in cluster.workers:
        worker.kill()
    refused(ended(process, 90), "has had no worker for 30 s")
    assert kept(tmp_path).items() >= done.items()


def test_a_worker_that_falls_silent_loses_nothing_once_the_scheduler_gives_it_up(tmp_path, whole):
    patience = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10 seconds"}
    with contextlib.closing(Cluster(tmp_path, **patience)) as cluster:
        (tmp_path / "out").mkdir()
        process = started(tmp_path / "out" / "out.npz", f"dask:{cluster.address}")
        pieces_done(tmp_path / "out", 5, process)
        cluster.workers[0].send_signal(signal.SIGSTOP)
        ran = ended(process, 150)
        assert ran.returncode == 0, ran.stderr
        assert (tmp_path / "out" / "out.npz").read_bytes() == whole


@pytest.fixture(scope="module")
def other_version(tmp_path_factory):
    """The packages with another version: what PYTHONPATH names."""
    folder = tmp_path_factory.mktemp("other")
    for package in ("perfmodel", "strategies", "hardware_profiles"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "perfmodel" / "_version.py").write_text('"""Another."""\n\n__version__ = "0.0.9"\n')
    return str(folder)


def test_a_worker_of_another_version_is_refused_by_name_and_one_that_joins_is_not_believed(
    cluster, tmp_path, other_version, whole
):
    output = tmp_path / "out.npz"
    process = started(output, f"dask:{cluster.address}")
    pieces_done(tmp_path, 1, process)
    stranger = cluster.worker(PYTHONPATH=other_version)
    try:
        ran = ended(process, 120)
        if ran.returncode == 0:  # it came too late to be given work
            assert output.read_bytes() == whole
        else:
            refused(ran, "worker at tcp://127.0.0.1:", "has draftplan 0.0.9, here")
        cluster.wait_for_workers(3)
        ran = finished(tmp_path / "second.npz", f"dask:{cluster.address}")
        refused(ran, "worker at tcp://127.0.0.1:", "has draftplan 0.0.9, here", "Install the same")
        assert kept(tmp_path).keys() <= {f"{index}.npz" for index in range(10_000)}
        assert not (tmp_path / "second.npz").exists()
    finally:
        stranger.kill()
        stranger.wait()


# Encryption and authentication, which are Dask's own.

TLS = "DASK_DISTRIBUTED__COMM__TLS__"


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def certificates(folder):
    """An authority and a certificate that it signed; returns Dask's settings for all three roles."""
    folder.mkdir()
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout")
    openssl(folder, "req", "-x509", *key, "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    openssl(folder, "req", *key, "node.key", "-out", "node.csr", "-subj", "/CN=node")
    openssl(
        folder, "x509", "-req", "-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-out", "node.pem", "-days", "2",
    )  # fmt: skip
    roles = {
        f"{TLS}{role}__{what}": str(folder / f"node.{ending}")
        for role in ("CLIENT", "SCHEDULER", "WORKER")
        for what, ending in (("CERT", "pem"), ("KEY", "key"))
    }
    return {f"{TLS}CA_FILE": str(folder / "ca.pem"), **roles}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_the_tls_of_dasks_configuration_is_used_and_wrong_certificates_are_said(tmp_path, whole):
    settings, others = certificates(tmp_path / "ours"), certificates(tmp_path / "theirs")
    output = tmp_path / "out.npz"
    with contextlib.closing(Cluster(tmp_path, "tls", **settings)) as cluster:
        where = f"dask:{cluster.address}"
        refused(finished(output, where), "needs a certificate")
        refused(finished(output, where, **{**settings, f"{TLS}CLIENT__CERT": "absent.pem"}), "absent.pem")
        refused(finished(output, where, **others), "certificate", "one authority")
        encrypted = "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"
        plain = where.replace("tls:", "tcp:")
        refused(finished(output, plain, **settings, **{encrypted: "true"}), "requires encryption")
        refused(finished(output, plain), "no Dask scheduler answers")
        ran = finished(output, where, **settings)
        assert ran.returncode == 0, ran.stderr
        assert output.read_bytes() == whole


@pytest.mark.parametrize(
    "address",
    ["http://h:1", "inproc://x", "/a/path", "x" * 300, "tcp://127.0.0.1", "ucx://h:9", "ws://h:9", "tls://h:9"],
)
def test_an_address_that_no_scheduler_has_is_refused_in_one_line(tmp_path, address):
    began = time.monotonic()
    ran = finished(tmp_path / "out.npz", f"dask:{address}")
    refused(ran, "--executor")
    assert len(ran.stderr.splitlines()) == 1
    assert time.monotonic() - began < 3.0 * max(1.0, os.getloadavg()[0])
