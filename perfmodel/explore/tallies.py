"""What a service did so far, as a scrape for Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from perfmodel.policy_figures import Metric, prometheus_text

__all__ = ["Tallies"]


class Tallies:
    """Counts requests; any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request.

        Parameters
        ----------
        route : method and path, such as ``POST /plan``. [-]
        status : of HTTP.
        seconds : from its first byte to the last of its answer. [s]
        """
        with self._lock:
            self._requests[route] += 1
            self._answers[str(status)] += 1
            self._seconds[route] += seconds  # type: ignore[assignment]  # a Counter adds what it is given

    def refuse(self, why: str) -> None:
        """Count one request that a limit refused."""
        with self._lock:
            self._refused[why] += 1

    def scrape(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return everything in text format.

        Parameters
        ----------
        gauges : further figures: name to what it is and its value.
        """
        with self._lock:
            metrics = [
                Metric("http_requests_total", "Requests by route", "counter", "route", dict(self._requests)),
                Metric("http_responses_total", "Answers by status", "counter", "status", dict(self._answers)),
                Metric("http_seconds_total", "Seconds of requests by route", "counter", "route",
                       dict(self._seconds)),
                Metric("refused_total", "Requests that a limit refused", "counter", "limit",
                       dict(self._refused)),
            ]  # fmt: skip
        metrics += [Metric(name, words, "gauge", "", {"": value}) for name, (words, value) in gauges.items()]
        return prometheus_text(metrics)
