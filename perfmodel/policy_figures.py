"""What a policy shows of itself: Prometheus text for a scrape, one log line a minute for people."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["FAULTS", "Every", "Metric", "MinuteLine", "PolicyFigures", "prometheus_text"]

PREFIX = "draftplan_"
MINUTE = 60.0
"""Between two log lines. [s]"""
FAULTS = ("length", "engine", "observation", "refresh", "draft", "figures")
"""What can fail in a shim: asking for a length, the engine's interface, counting a round, learning, a draft
of the shim's own, the log line or the Prometheus figures."""


@dataclass(frozen=True)
class PolicyFigures:
    """What a policy has decided, seen and learned since it was made.

    length : speculation length that was decided last. [tokens]
    decisions : speculation length -> how often it was decided. [1]
    clamped : reason -> how often the plan could not be followed as it is. [1]
    nonsense : questions and observations that cannot be, which were not used. [1]
    failures : times that a shim met an exception and went on without the policy. [1]
    shift : acceptance learned over acceptance planned. [logit]
    match_shift : the same, of the share of rounds that draft at all. [logit]
    slower : how many times longer than planned a round takes, relative to a plain step. [1]
    drafting, idle : rounds that drafted, and that found nothing to draft. [rounds]
    drafted, accepted : drafted tokens, and those of them that were accepted. [tokens]
    faults : what failed -> how many of `failures`. [1]
    """

    length: int
    decisions: Mapping[int, int]
    clamped: Mapping[str, int]
    nonsense: int
    failures: int
    shift: float
    match_shift: float
    slower: float
    drafting: float
    idle: float
    drafted: float
    accepted: float
    faults: Mapping[str, int] = field(default_factory=dict)

    @property
    def decided(self) -> int:
        """All decisions. [1]"""
        return sum(self.decisions.values())

    def metrics(self) -> list[Metric]:
        """The figures under their names; counters of acceptance are called as the engines call theirs."""
        by_length = {str(length): float(count) for length, count in self.decisions.items()}
        by_reason = {reason: float(count) for reason, count in self.clamped.items()}
        by_fault = {kind: float(self.faults.get(kind, 0)) for kind in (*FAULTS, *self.faults)}

        def counter(name: str, help: str, value: float) -> Metric:
            return Metric(name + "_total", help, "counter", "", {"": float(value)})

        def gauge(name: str, help: str, value: float) -> Metric:
            return Metric(name, help, "gauge", "", {"": float(value)})

        return [
            gauge("planned_length_tokens", "Speculation length decided last", self.length),
            Metric("decisions_total", "Decisions by speculation length", "counter", "length", by_length),
            Metric("clamped_total", "Decisions that the plan does not cover", "counter", "reason", by_reason),
            counter("nonsense", "Inputs that cannot be and were not used", self.nonsense),
            counter("failures", "Exceptions that the shim met", self.failures),
            Metric("faults_total", "Exceptions that the shim met by kind", "counter", "kind", by_fault),
            gauge("acceptance_shift_logit", "Acceptance learned over planned", self.shift),
            gauge("match_shift_logit", "Share of rounds that draft, learned over planned", self.match_shift),
            gauge("round_time_ratio", "Rounds over planned rounds, relative to plain steps", self.slower),
            counter("spec_decode_num_drafts", "Rounds that drafted", self.drafting),
            counter("idle_rounds", "Rounds that found nothing to draft", self.idle),
            counter("spec_decode_num_draft_tokens", "Drafted tokens", self.drafted),
            counter("spec_decode_num_accepted_tokens", "Accepted drafted tokens", self.accepted),
        ]

    def line(self, before: PolicyFigures) -> str:
        """One line for people: what happened since `before`, and what holds now."""
        decided = self.decided - before.decided
        shares = ", ".join(
            f"{length}: {(count - before.decisions.get(length, 0)) / decided:.0%}"
            for length, count in sorted(self.decisions.items())
            if count > before.decisions.get(length, 0)
        )
        drafted, accepted = self.drafted - before.drafted, self.accepted - before.accepted
        rate = f" ({accepted / drafted:.0%})" if drafted else ""
        clamped = {reason: count - before.clamped.get(reason, 0) for reason, count in self.clamped.items()}
        outside = ", ".join(f"{reason} {count}" for reason, count in clamped.items() if count) or "none"
        idle = self.idle - before.idle
        return (
            f"draftplan: length {self.length}, {decided} decisions" + (f" ({shares})" if shares else "")
            + f", drafted {drafted:.0f}, accepted {accepted:.0f}{rate}"
            + (f", {idle:.0f} rounds found no draft" if idle else "")
            + f", learned shift {self.shift:+.2f}, clamped: {outside}"
            + f", nonsense {self.nonsense - before.nonsense}, failures {self.failures - before.failures}"
        )  # fmt: skip


class Metric(NamedTuple):
    """One family of a Prometheus scrape, its name without the prefix.

    label : the label's name; empty where there is none.
    values : label's value -> value; "" alone where there is no label.
    """

    name: str
    help: str
    kind: str
    label: str
    values: Mapping[str, float]


def prometheus_text(metrics: list[Metric]) -> str:
    """Return metrics as text exposition format 0.0.4, names with the prefix ``draftplan_``.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    lines = []
    for metric in metrics:
        name = PREFIX + metric.name
        lines += [f"# HELP {name} {metric.help}.", f"# TYPE {name} {metric.kind}"]
        for value, count in metric.values.items():
            labels = f'{{{metric.label}="{value}"}}' if metric.label else ""
            lines.append(f"{name}{labels} {_number(count)}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """A number as Prometheus reads it, whole ones without a point."""
    return f"{value:.0f}" if value == value // 1 and abs(value) < 1e15 else repr(float(value))


class Every:
    """Calls `action` at most once in `seconds`; in between, `tick` reads the clock and does nothing else.

    What the action raises is counted and left unsaid: a loop that serves does not stop for its log. A clock
    that went backwards begins a new wait, one that jumped ahead acts once; what is no time is counted as a
    failure. Any thread may tick: one of them acts.

    Parameters
    ----------
    seconds : between two actions. [s]
    action : what is done.
    clock : seconds, monotonic ones best. [s]
    failed : called with what was raised.
    """

    def __init__(
        self,
        seconds: float,
        action: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
        failed: Callable[[Exception], object] = str,
    ) -> None:
        self.seconds, self.action, self.clock, self.failed = seconds, action, clock, failed
        self.begun = clock()
        self.due = self.begun + seconds
        self.failures = 0
        self._acting = threading.Lock()

    def tick(self) -> None:
        """Act if it is time. Never raises."""
        try:
            now = self.clock()
            if self.begun <= now < self.due:
                return
            if self._acting.acquire(blocking=False):
                try:
                    self._act(now)
                finally:
                    self._acting.release()
        except Exception as error:
            self.failures += 1
            with suppress(Exception):
                self.failed(error)

    def _act(self, now: float) -> None:
        """Begin the next wait, and act if the last one is over."""
        if not math.isfinite(now):
            raise ValueError(now)
        if self.begun <= now < self.due:
            return
        is_due = now >= self.due
        self.begun, self.due = now, now + self.seconds
        if is_due:
            self.action()


class MinuteLine(Every):
    """Logs what a policy did in the last minute, at level INFO.

    Parameters
    ----------
    figures : reads the policy's figures, `SpeculationPolicy.figures`.
    logger : name of the logger; vLLM shows those that begin with ``vllm.`` alone.
    seconds, clock, failed : as of `Every`.
    """

    def __init__(
        self,
        figures: Callable[[], PolicyFigures],
        logger: str = "draftplan",
        seconds: float = MINUTE,
        clock: Callable[[], float] = time.monotonic,
        failed: Callable[[Exception], object] = str,
    ) -> None:
        super().__init__(seconds, self.say, clock, failed)
        self.figures, self.logger = figures, logging.getLogger(logger)
        self.last = figures()

    def say(self) -> None:
        """Log the line of what happened since the last one."""
        now = self.figures()
        self.logger.info("%s", now.line(self.last))
        self.last = now
