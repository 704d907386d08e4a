"""What a simulated trace saw: latencies, throughput, time by cause, cost, how full the cache was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError
from perfmodel.files.numbers import FloatArray
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.step_times import CAUSES, total_of
from perfmodel.traffic.trace import Trace
from perfmodel.traffic.values import Values

__all__ = ["NO_WARM_UP", "PERCENTILES", "TIMELINE", "Metrics", "Steps", "WarmUp"]


PERCENTILES = (50, 90, 95, 99)
TIMELINE = (
    "start", "lasted", "rounds", "gamma", "decoding", "context", "waiting", "prefilled", "accepted", "held",
    "stopped",
)  # fmt: skip
"""Columns of a timeline: one row per mixed step, or per block of rounds in which nothing joined."""

_ROW = np.dtype(
    [
        ("start", float), ("lasted", float), ("rounds", np.int16), ("gamma", np.int8), ("decoding", np.int32),
        ("context", float), ("waiting", np.int32), ("prefilled", np.int32), ("accepted", np.int32),
        ("held", float), ("stopped", np.int32), ("waited", bool),
    ]
)  # fmt: skip
"""A row of the timeline as it is kept, and whether its sequences waited for prefills before."""
_AT_ONCE = 4096
"""Rows that are packed together."""


class Steps(NamedTuple):
    """A mixed step, or some rounds of an unchanged batch.

    each : seconds of each round. by_cause : of all rounds together. decoding, context : sequences and their
    mean context at the start. waiting : requests not let in. prefilled, accepted : tokens. held_first,
    held_last : cache bytes at the first and at the last round, look-ahead included. stopped : decoding
    sequences that lost their cache before it. waits : seconds that each sequence waited for steps of prefill
    since its last token; None where none did.
    """

    start: float
    each: Sequence[float] | FloatArray
    by_cause: Sequence[float]
    gamma: int
    decoding: int
    context: float
    waiting: int
    prefilled: int
    accepted: int
    held_first: float
    held_last: float
    stopped: int
    waits: FloatArray | None = None


@dataclass(frozen=True)
class WarmUp:
    """What is left out of the figures of a run: its first requests, or those sent in its first seconds."""

    requests: int = 0
    seconds: float = 0.0


NO_WARM_UP = WarmUp()


@dataclass(eq=False)
class Metrics:
    """Times of every request, and what the steps added up to. [s], [tokens], [B]

    first_token, finish : when each request's first and last token came; NaN until then. sent : when its
    client sent it, in an open loop when it arrived. seconds : by cause. cached : prompt tokens that were held
    when each request was first let in; None where no prefixes are shared.
    """

    name: str
    trace: Trace
    replica: Replica
    first_token: FloatArray
    finish: FloatArray
    sent: FloatArray
    held_byte_seconds: float = 0.0
    cached: NDArray[np.int64] | None = None
    _by_cause: list[float] = field(default_factory=lambda: [0.0] * len(CAUSES), repr=False)
    _rows: list[tuple[float, ...]] = field(default_factory=list, repr=False)
    _packed: list[NDArray[np.void]] = field(default_factory=list, repr=False)
    _intervals: Values = field(default_factory=Values, repr=False)
    _single: Values = field(default_factory=Values, repr=False)
    _single_began: Values = field(default_factory=Values, repr=False)

    @classmethod
    def of(
        cls, trace: Trace, replica: Replica, name: str = "", sent: FloatArray | None = None
    ) -> Metrics:
        """Nothing served yet."""
        never = np.full(len(trace), np.nan)
        return cls(name, trace, replica, never, never.copy(), trace.arrival if sent is None else sent)

    def record(self, steps: Steps) -> float:
        """Add some steps; returns when they ended. [s]"""
        (
            start, each, by_cause, gamma, decoding, context, waiting, prefilled, accepted, held_first,
            held_last, stopped, waits,
        ) = steps  # fmt: skip
        lasted = float(each.sum()) if isinstance(each, np.ndarray) else total_of(each)
        self._by_cause = [before + more for before, more in zip(self._by_cause, by_cause, strict=True)]
        self.held_byte_seconds += lasted * (held_first + held_last) / 2.0
        if decoding:
            self._intervals.extend(each)
        if waits is not None:
            self._single.extend(waits + each[0])
            self._single_began.extend([start] * waits.size)
        self._rows.append(
            (
                start, lasted, len(each), gamma, decoding, context, waiting, prefilled, accepted, held_last,
                stopped, waits is not None,
            )
        )  # fmt: skip
        if len(self._rows) >= _AT_ONCE:
            self._pack()
        return start + lasted

    def _pack(self) -> None:
        """Keep the rows so far as columns."""
        self._packed.append(np.array(self._rows, dtype=_ROW))
        self._rows.clear()

    def gap(self, began: float, ended: float) -> None:
        """Add the time that a sequence which had lost its cache waited for its next token. [s]"""
        self._single.extend([ended - began])
        self._single_began.extend([began])

    @property
    def seconds(self) -> FloatArray:
        """Time of all steps by cause; shape (causes,). [s]"""
        return np.array(self._by_cause)

    @property
    def _table(self) -> NDArray[np.void]:
        """All rows of the timeline as they are kept."""
        self._pack()
        self._packed = [np.concatenate(self._packed)]
        return self._packed[0]

    @property
    def timeline(self) -> dict[str, FloatArray]:
        """The columns of `TIMELINE`, one element per mixed step or block of rounds."""
        table = self._table
        return {name: table[name].astype(float) for name in TIMELINE}

    @property
    def makespan(self) -> float:
        """When the last token came; the first request arrived at 0. [s]"""
        return float(self.finish.max())

    @property
    def ttft(self) -> FloatArray:
        """Time to first token of every request. [s]"""
        return self.first_token - self.sent

    @property
    def end_to_end(self) -> FloatArray:
        """Time from sending to last token of every request. [s]"""
        return self.finish - self.sent

    @property
    def tpot(self) -> FloatArray:
        """Time per output token after the first of every request, 0 where there is only one. [s]"""
        return (self.finish - self.first_token) / np.maximum(self.trace.output_tokens - 1, 1)

    def _intervals_from(self, begins: float = 0.0) -> tuple[FloatArray, NDArray[np.int64]]:
        """Times between stream events that began no sooner, and how many sequences saw each. [s]"""
        table = self._table
        table = table[table["decoding"] > 0]
        rounds = table["rounds"].astype(np.int64)
        weights = np.repeat(np.where(table["start"] >= begins, table["decoding"], 0), rounds)
        weights[(np.cumsum(rounds) - rounds)[table["waited"]]] = 0  # each sequence's own is among the single
        values, seen = self._intervals.array(), weights > 0
        single = self._single.array()[self._single_began.array() >= begins]
        return (
            np.concatenate([values[seen], single]),
            np.concatenate([weights[seen], np.ones(single.size, dtype=np.int64)]),
        )

    def itl(self, *percentiles: float, begins: float = 0.0) -> FloatArray:
        """Percentiles of the time between stream events: with speculation an event is a round. [s]

        Parameters
        ----------
        percentiles : such as 50 and 99.
        begins : events before that are left out. [s]
        """
        values, weights = self._intervals_from(begins)
        if not values.size:
            return np.zeros(len(percentiles))
        order = np.argsort(values)
        reached = np.cumsum(weights[order]) / weights.sum()
        places = np.searchsorted(reached, np.asarray(percentiles) / 100.0).clip(max=values.size - 1)
        return np.asarray(values[order][places])

    def meets(self, *, ttft: float | None = None, tpot: float | None = None) -> NDArray[np.bool_]:
        """Which requests met both targets."""
        good = np.ones(len(self.trace), dtype=bool)
        if ttft is not None:
            good &= self.ttft <= ttft
        if tpot is not None:
            good &= self.tpot <= tpot
        return good

    def counted(self, warm_up: WarmUp) -> tuple[slice, float]:
        """The requests after a warm-up, and when the first of them was sent. [s]

        Raises
        ------
        SpecError
            When none is left.
        """
        first = max(warm_up.requests, int(np.searchsorted(self.sent, warm_up.seconds)))
        if first >= len(self.trace):
            problem = f"leaves none of {len(self.trace)} requests"
            raise SpecError.single("simulation", "warm-up", problem, "Give less, or more requests")
        return slice(first, None), float(self.sent[first]) if first else 0.0

    def tokens_from(self, begins: float) -> FloatArray:
        """Tokens that each request put out from a time on, evenly between its first and its last. [tokens]"""
        outputs = self.trace.output_tokens.astype(float)
        if begins <= 0.0:
            return outputs
        lasted = np.maximum(self.finish - self.first_token, 1e-12)
        rest = (outputs - 1.0) * np.clip((self.finish - begins) / lasted, 0.0, 1.0)
        return np.asarray(rest + (self.first_token >= begins))

    def summary(
        self, *, ttft: float | None = None, tpot: float | None = None, warm_up: WarmUp = NO_WARM_UP
    ) -> dict[str, float]:
        """Every figure by name, with the unit in the name; goodput is under the given targets.

        Energy is that of the boards at full power for as long as the trace takes, which is its upper bound.
        After a warm-up, latencies are those of the other requests, and rates those of the time from which the
        first of them was sent; time by cause and the KV cache stay those of the whole run.
        """
        makespan = self.makespan
        counted, begins = self.counted(warm_up)
        lasted, tokens = makespan - begins, self.tokens_from(begins)
        output = float(tokens.sum())
        good = self.meets(ttft=ttft, tpot=tpot)
        lines = whole = self.timeline
        if begins > 0.0:
            later = lines["start"] >= begins
            lines = {name: column[later] for name, column in lines.items()}
        drafting = lines["gamma"] > 0
        verified = float((lines["rounds"] * lines["decoding"])[drafting].sum())
        busy = float(self.seconds.sum())
        figures = {
            "requests": float(good[counted].size),
            "makespan_s": makespan,
            "throughput_tokens_per_s": output / lasted,
            "goodput_tokens_per_s": float(tokens[good].sum()) / lasted,
            "requests_meeting_targets": float(good[counted].mean()),
        }
        for name, values in (("ttft", self.ttft), ("tpot", self.tpot), ("e2e", self.end_to_end)):
            figures[f"{name}_mean_s"] = float(values[counted].mean())
            for percentile in PERCENTILES:
                figures[f"{name}_p{percentile}_s"] = float(np.percentile(values[counted], percentile))
        intervals, seen = self._intervals_from(begins)
        figures["itl_mean_s"] = float(np.average(intervals, weights=seen)) if intervals.size else 0.0
        for percentile, value in zip(PERCENTILES, self.itl(*PERCENTILES, begins=begins), strict=True):
            figures[f"itl_p{percentile}_s"] = float(value)
        return figures | {
            "tokens_per_round": 1.0 + float(lines["accepted"][drafting].sum()) / verified
            if verified
            else 1.0,
            "mean_batch": float((lines["decoding"] * lines["lasted"]).sum())
            / (busy if begins <= 0.0 else max(float(lines["lasted"].sum()), 1e-12)),
            "gpu_seconds": makespan * self.replica.gpus,
            "cost_per_million_tokens_usd": lasted * self.replica.price_per_second / output * 1e6,
            "energy_per_million_tokens_kwh": lasted * self.replica.power / 3.6e6 / output * 1e6,
            "kv_occupancy_mean": self.held_byte_seconds / makespan / self.replica.cache_bytes,
            "kv_occupancy_peak": float(whole["held"].max()) / self.replica.cache_bytes,
            "prefilled_tokens": float(whole["prefilled"].sum()),
            "steps": float(whole["rounds"].sum()),
            "preemptions": float(whole["stopped"].sum()),
            **{f"{cause}_s": float(value) for cause, value in zip(CAUSES, self.seconds, strict=True)},
            "idle_s": max(makespan - busy, 0.0),
            **self._of_prefixes(),
        }

    def _of_prefixes(self) -> dict[str, float]:
        """What the prefix cache spared; nothing where there is none."""
        if self.cached is None:
            return {}
        spared = float(self.cached.sum())
        return {
            "cached_tokens": spared,
            "prefix_cache_hit_rate": spared / float(self.trace.prompt_tokens.sum()),
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but trace and replica as arrays, to be read back by `from_arrays`."""
        return {
            "name": np.array(self.name),
            "first_token": self.first_token,
            "finish": self.finish,
            "sent": self.sent,
            "seconds": self.seconds,
            "held_byte_seconds": np.array(self.held_byte_seconds),
            "rows": self._table,
            "intervals": self._intervals.array(),
            "single": self._single.array(),
            "single_began": self._single_began.array(),
            **({} if self.cached is None else {"cached": self.cached}),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], trace: Trace, replica: Replica) -> Metrics:
        """The outcome that `to_arrays` took apart, of the same trace and replica."""
        return cls(
            str(arrays["name"]),
            trace,
            replica,
            arrays["first_token"],
            arrays["finish"],
            arrays["sent"],
            float(arrays["held_byte_seconds"]),
            arrays.get("cached"),
            arrays["seconds"].tolist(),
            _packed=[arrays["rows"]],
            _intervals=Values(arrays["intervals"]),
            _single=Values(arrays["single"]),
            _single_began=Values(arrays["single_began"]),
        )
