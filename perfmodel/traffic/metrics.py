"""What a simulated trace saw: latencies, throughput, time by cause, cost, how full the cache was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError
from perfmodel.files.numbers import FloatArray
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.step_times import CAUSES, total_of
from perfmodel.traffic.trace import Trace
from perfmodel.traffic.values import Values, parts_of, total
from perfmodel.traffic.weighted import Weighted, percentiles

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
"""Rows that are packed, and looked at, together. [1]"""

Rows = NDArray[np.void]


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
    _table: Values = field(default_factory=lambda: Values(dtype=_ROW), repr=False)
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
        spent = self._by_cause
        for cause, seconds in enumerate(by_cause):
            spent[cause] += seconds
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
        self._table.extend(np.array(self._rows, dtype=_ROW))
        self._rows.clear()

    def gap(self, began: float, ended: float) -> None:
        """Add the time that a sequence which had lost its cache waited for its next token. [s]"""
        self._single.extend([ended - began])
        self._single_began.extend([began])

    @property
    def seconds(self) -> FloatArray:
        """Time of all steps by cause; shape (causes,). [s]"""
        return np.array(self._by_cause)

    def rows(self, begins: float = 0.0) -> Iterator[Rows]:
        """Yield the rows of the timeline that began no sooner, some at once: `TIMELINE` are their fields."""
        self._pack()
        for rows in self._table.pieces(_AT_ONCE):
            yield rows if begins <= 0.0 else rows[rows["start"] >= begins]

    @property
    def timeline(self) -> dict[str, FloatArray]:
        """The columns of `TIMELINE`, one element per mixed step or block of rounds."""
        self._pack()
        table = self._table.array()
        return {name: table[name].astype(float) for name in TIMELINE}

    def sum_of(self, of_rows: Callable[[Rows], FloatArray], begins: float = 0.0) -> float:
        """The sum of a figure of the rows that began no sooner, to the bit that of all at once."""
        count = sum(rows.size for rows in self.rows(begins))
        return total(map(of_rows, self.rows(begins)), count)

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

    def _intervals_from(self, begins: float = 0.0) -> Iterator[Weighted]:
        """Times between stream events that began no sooner, and how many sequences saw each. [s]"""
        decoding = (rows[rows["decoding"] > 0] for rows in self.rows())
        for rows, values in zip(decoding, self._of_rounds(), strict=True):
            rounds = rows["rounds"].astype(np.int64)
            seen = np.where(rows["start"] >= begins, rows["decoding"], 0)
            weights = np.repeat(seen.astype(np.int64), rounds)
            weights[(np.cumsum(rounds) - rounds)[rows["waited"]]] = 0  # each one's own is among the single
            yield values[weights > 0], weights[weights > 0]
        for values, began in zip(self._single.pieces(), self._single_began.pieces(), strict=True):
            single = values[began >= begins]
            yield single, np.ones(single.size, dtype=np.int64)

    def _of_rounds(self) -> Iterator[FloatArray]:
        """The times of all rounds, together as the rows of the timeline are. [s]"""
        sizes = (int(rows["rounds"][rows["decoding"] > 0].sum(dtype=np.int64)) for rows in self.rows())
        return parts_of(self._intervals.pieces(), sizes)

    def itl(self, *wanted: float, begins: float = 0.0) -> FloatArray:
        """Percentiles of the time between stream events: with speculation an event is a round. [s]

        Parameters
        ----------
        wanted : such as 50 and 99.
        begins : events before that are left out. [s]
        """
        return self._of_intervals(wanted, begins)[1]

    def _of_intervals(self, wanted: Sequence[float], begins: float) -> tuple[float, FloatArray]:
        """Mean and percentiles of the time between stream events that began no sooner. [s]"""
        pieces = partial(self._intervals_from, begins)
        sizes = [(values.size, int(weights.sum())) for values, weights in pieces()]
        count, weight = (sum(column) for column in zip(*sizes, strict=True)) if sizes else (0, 0)
        whole = total((values * weights for values, weights in pieces()), count)
        mean = whole / weight if weight else 0.0
        return mean, percentiles(pieces, wanted, count=count, weight=weight)

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
        verified = accepted = prefilled = rounds = stopped = 0
        fullest = 0.0
        for rows in self.rows():
            drafting = rows[(rows["gamma"] > 0) & (rows["start"] >= begins)]
            verified += int((drafting["rounds"] * drafting["decoding"].astype(np.int64)).sum())
            accepted += int(drafting["accepted"].sum(dtype=np.int64))
            prefilled += int(rows["prefilled"].sum(dtype=np.int64))
            rounds += int(rows["rounds"].sum(dtype=np.int64))
            stopped += int(rows["stopped"].sum(dtype=np.int64))
            fullest = max(fullest, float(rows["held"].max()))
        busy = float(self.seconds.sum())
        figures = {
            "requests": float(good[counted].size),
            "makespan_s": makespan,
            "throughput_tokens_per_s": output / lasted,
            "goodput_tokens_per_s": float(tokens[good].sum()) / lasted,
            "requests_meeting_targets": float(good[counted].mean()),
        }
        for name, times in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "end_to_end")):
            values = getattr(self, times)[counted]
            figures[f"{name}_mean_s"] = float(values.mean())
            for percentile, value in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True):
                figures[f"{name}_p{percentile}_s"] = float(value)
        figures["itl_mean_s"], intervals = self._of_intervals(PERCENTILES, begins)
        for percentile, value in zip(PERCENTILES, intervals, strict=True):
            figures[f"itl_p{percentile}_s"] = float(value)
        return figures | {
            "tokens_per_round": 1.0 + accepted / verified if verified else 1.0,
            "mean_batch": self.sum_of(lambda rows: rows["decoding"] * rows["lasted"], begins)
            / (busy if begins <= 0.0 else max(self.sum_of(lambda rows: rows["lasted"], begins), 1e-12)),
            "gpu_seconds": makespan * self.replica.gpus,
            "cost_per_million_tokens_usd": lasted * self.replica.price_per_second / output * 1e6,
            "energy_per_million_tokens_kwh": lasted * self.replica.power / 3.6e6 / output * 1e6,
            "kv_occupancy_mean": self.held_byte_seconds / makespan / self.replica.cache_bytes,
            "kv_occupancy_peak": fullest / self.replica.cache_bytes,
            "prefilled_tokens": float(prefilled),
            "steps": float(rounds),
            "preemptions": float(stopped),
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
        self._pack()
        return {
            "name": np.array(self.name),
            "first_token": self.first_token,
            "finish": self.finish,
            "sent": self.sent,
            "seconds": self.seconds,
            "held_byte_seconds": np.array(self.held_byte_seconds),
            "rows": self._table.array(),
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
            _table=Values(arrays["rows"], _ROW),
            _intervals=Values(arrays["intervals"]),
            _single=Values(arrays["single"]),
            _single_began=Values(arrays["single_began"]),
        )
