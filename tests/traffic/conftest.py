"""What the tests of traffic share."""

import pytest

from perfmodel.traffic.metrics import Metrics


@pytest.fixture
def steps(monkeypatch):
    """Everything that is recorded while a test simulates."""
    seen = []
    record = Metrics.record

    def recorded(outcome, step):
        seen.append(step)
        return record(outcome, step)

    monkeypatch.setattr(Metrics, "record", recorded)
    return seen
