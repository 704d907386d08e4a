"""Requests as they arrive, read from files in the forms of public traces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError
from perfmodel.files.lines import Lines
from perfmodel.files.opening import TRACE, opened
from perfmodel.files.units import plural
from perfmodel.traffic.prefixes import Prefixes
from perfmodel.traffic.trace_cells import MOST_TOKENS
from perfmodel.traffic.trace_forms import TIME_UNITS, Form, block_tokens, form_of, time_unit
from perfmodel.traffic.trace_rows import MOST_REQUESTS, TraceRows, read_rows

__all__ = ["MOST_REQUESTS", "MOST_TOKENS", "Trace", "read_trace"]

_YEAR = 365.25 * 86400.0
_LONGEST_SPAN = 10.0 * _YEAR
"""Between the first and last arrival of a trace. Assumed. [s]"""
_COVERED = 0.9
"""Share of the prompt tokens that hash ids usually stand for, at least. [1]"""


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in order of arrival; one element per request, the first arrives at 0.

    Parameters
    ----------
    arrival : times of arrival. [s]
    prompt_tokens, output_tokens : lengths. [tokens]
    prefixes : the blocks that prompts begin with; None where nothing is known of them.
    remarks : what people should know of how the requests were read.

    Raises
    ------
    SpecError
        When the arrays do not belong together, are empty or not in order, or a length is below one.
    """

    name: str
    arrival: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    prefixes: Prefixes | None = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns = (self.arrival, self.prompt_tokens, self.output_tokens)
        if (
            {column.shape for column in columns} != {(self.arrival.size,)}
            or not 1 <= self.arrival.size <= MOST_REQUESTS
            or not np.all(np.isfinite(self.arrival))
            or np.any(np.diff(self.arrival, prepend=0.0) < 0)
            or min(self.prompt_tokens.min(), self.output_tokens.min()) < 1
            or (self.prefixes is not None and len(self.prefixes) != self.arrival.size)
        ):
            raise SpecError.single(
                "trace", "requests", "are not three columns of at least one request, in order of arrival",
                "Give times from 0 on that do not fall, and lengths of at least one token",
            )  # fmt: skip

    def __len__(self) -> int:
        return int(self.arrival.size)

    @property
    def longest(self) -> int:
        """Most tokens that any request reaches, prompt and output. [tokens]"""
        return int((self.prompt_tokens + self.output_tokens).max())

    @property
    def qps(self) -> float:
        """Mean arrivals per second; infinite where all arrive at once. [1/s]"""
        return len(self) / float(self.arrival[-1]) if self.arrival[-1] > 0 else np.inf

    def is_same(self, other: Trace) -> bool:
        """Whether another has the same requests at the same times."""
        return self.prefixes is other.prefixes and all(
            np.array_equal(getattr(self, column), getattr(other, column))
            for column in ("arrival", "prompt_tokens", "output_tokens")
        )

    def faster(self, factor: float) -> Trace:
        """The same requests arriving `factor` times as fast."""
        return replace(self, arrival=self.arrival / factor)

    def without_prefixes(self) -> Trace:
        """The same requests as for an engine that keeps no prefixes."""
        return replace(self, prefixes=None)

    def first(self, count: int) -> Trace:
        """The first `count` requests."""
        return replace(
            self,
            arrival=self.arrival[:count],
            prompt_tokens=self.prompt_tokens[:count],
            output_tokens=self.output_tokens[:count],
            prefixes=self.prefixes and self.prefixes.first(count),
        )

    @property
    def repeated_share(self) -> float:
        """Share of all prompt tokens that an earlier request began with as well; 0 where unknown. [1]"""
        if self.prefixes is None:
            return 0.0
        return float(self.prefixes.repeated(self.prompt_tokens).sum() / self.prompt_tokens.sum())


def read_trace(
    path: str | Path, *, unit: str | None = None, timeless: bool = False, first: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trace:  # fmt: skip
    """Read a CSV or JSONL trace: arrival time, prompt tokens and output tokens of every request.

    The public forms are those of `perfmodel.traffic.trace_forms.FORMS`. Further columns are ignored, but for
    ``hash_ids`` of JSON lines, which say what prompts share a prefix, and ``delay`` after the turn before of
    the same ``session_id``, where a row has no time of its own. The requests are sorted by arrival; the first
    arrives at 0.

    Rows that put out nothing (calls that failed) are left out as long as they are at most half, and rows that
    cannot be read as long as they are at most one in a hundred; `Trace.remarks` counts both, and says which
    unit of time was taken where the trace does not.

    Parameters
    ----------
    unit : of arrival times, a key of `perfmodel.traffic.trace_forms.TIME_UNITS`; as the trace or its numbers
        tell where absent.
    timeless : whether it may say nothing of when requests arrive, as in a closed loop: all at once then.
    first : how many requests are wanted; all where None. Of a long file whose rows are in order of arrival no
        more are read than that takes, and `perfmodel.traffic.trace_rows.ENOUGH` at least.
    progress : is called now and then with how much was read. [characters]

    Raises
    ------
    SpecError
        Naming file, line and value of every fault, at most 20 of them.
    """
    file = os.fspath(path)
    with opened(path, TRACE) as stream, Lines(stream, file) as lines:
        read = read_rows(lines, file, timeless=timeless, first=first, progress=progress)
    form = form_of((read.keys[0], read.keys[1], read.keys[2]), read.names)
    written, prompt, output = (np.frombuffer(column, dtype=float) for column in read.columns)
    order = np.argsort(written, kind="stable")
    unit, why = time_unit(form, written, given=unit, dated=read.dated)
    spans = (written.max() - written.min()) * TIME_UNITS[unit]
    if spans > _LONGEST_SPAN:
        raise SpecError.single(
            str(path), read.keys[0],
            f"requests arrive over {spans / _YEAR:,.0f} years, from line {read.first[1]} to this one",
            f"Mend the row that is wrong, or name the unit of times, here taken as {unit}: --time-unit",
            line=read.last[1],
        )  # fmt: skip
    trace = Trace(
        Path(path).stem,
        (written[order] - written.min()) * TIME_UNITS[unit],
        prompt[order].astype(np.int64),
        output[order].astype(np.int64),
    )
    if read.ids:
        ids, counts = (np.frombuffer(numbers, dtype=np.int64) for numbers in (read.ids, read.counts))
        offsets = np.concatenate([[0], np.cumsum(counts)])
        prefixes = Prefixes.of_ids(ids, offsets, block_tokens(form, counts, prompt))
        trace = replace(trace, prefixes=prefixes.take(order).within(trace.prompt_tokens))
    remarks = (*_of_rows(read), *_of_times(read, trace, unit, why), *_of_ids(read, trace, form))
    trace = replace(trace, remarks=remarks)
    return trace if first is None else trace.first(first)


def _of_rows(read: TraceRows) -> Iterator[str]:
    """What was left out."""
    if read.cut:
        yield f"the first {read.rows:,} rows are read, in order of arrival"
    if read.silent:
        yield f"{read.silent} of {read.rows} rows put out nothing (calls that failed) and are left out"
    if read.damaged:
        yield f"{read.damaged} of {read.rows} rows cannot be read and are left out, first {read.faults[0]}"


def _of_times(read: TraceRows, trace: Trace, unit: str, why: str) -> Iterator[str]:
    """Which unit of time was taken, and what delays leave out."""
    if read.timeless and read.delayed:
        yield "nothing says when sessions begin: all at once"
    elif read.timeless:
        yield "nothing says when requests arrive: each is sent when one in flight is answered"
    elif why and trace.arrival[-1] > 0:
        yield (
            f"arrival times are taken as {unit}, {why}: {trace.qps:.3g} requests per second; "
            "--time-unit names another unit"
        )
    if read.delayed:
        yield (
            f"{plural(read.delayed, 'turn')} without a time, as long after the turn before as delays say: "
            "what it took to answer that turn is not in it, and prompts are as long as written"
        )


def _of_ids(read: TraceRows, trace: Trace, form: Form) -> Iterator[str]:
    """How much of the prompts repeats, and how long a block was taken for."""
    if "hash_ids" in read.names and "hash_ids" not in read.keys:
        yield "hash_ids are read of JSON lines only: prompts that share a prefix are prefilled whole"
    if trace.prefixes is None:
        return
    yield f"{trace.repeated_share:.0%} of the prompt tokens repeat a prefix of an earlier request"
    size = trace.prefixes.block_tokens
    if size != form.block_tokens:
        yield f"hash ids are taken for {size} tokens each: of {form.block_tokens}, prompts have too many"
    prompts = trace.prompt_tokens
    covered = float(np.minimum(trace.prefixes.counts * size, prompts).sum() / prompts.sum())
    if covered < _COVERED:
        yield f"at {size} tokens each, the hash ids cover {covered:.0%} of the prompt tokens"
