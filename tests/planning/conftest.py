"""A Dask cluster on this machine, and what an uninterrupted run writes."""

import contextlib

import pytest


@pytest.fixture
def cluster(tmp_path_factory):
    from tests.planning.test_cluster import Cluster

    with contextlib.closing(Cluster(tmp_path_factory.mktemp("cluster"))) as running:
        yield running


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run in one process writes."""
    from tests.planning.test_cluster import finished

    output = tmp_path_factory.mktemp("whole") / "whole.npz"
    ran = finished(output)
    assert ran.returncode == 0, ran.stderr
    return output.read_bytes()
