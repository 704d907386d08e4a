"""The forms of public traces: which columns say what, in which unit times are, and how long blocks are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError, nearest_name
from perfmodel.files.numbers import FloatArray

__all__ = [
    "ARRIVAL", "FORMS", "OUTPUT", "PROMPT", "TIME_UNITS", "Form", "block_tokens", "columns_of", "form_of",
    "read_unit", "time_unit",
]  # fmt: skip

IntArray = NDArray[np.int64]

TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Seconds of the units that arrival times may be written in. [s]"""


def read_unit(text: str) -> str:
    """Return the key of `TIME_UNITS` that a text such as ``milliseconds`` names. Raises SpecError."""
    words = {unit: unit for unit in TIME_UNITS} | _WORDS
    word = text.strip().lower()
    if word not in words:
        known = f"Give one of {', '.join(words)}"
        raise SpecError.single("", "", f"found {text[:30]!r}", known, nearest_name(word, words))
    return words[word]


_WORDS = {"seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}


@dataclass(frozen=True)
class Form:
    """What one family of traces means by its columns.

    Parameters
    ----------
    arrival, prompt, output : its columns, in lower case with underscores for spaces.
    unit : a key of `TIME_UNITS`; None where numbers have to tell.
    marks : further columns, one of which only this form has; none needed where empty.
    block_tokens : prompt tokens that one of its ``hash_ids`` stands for. [tokens]
    source : where it is described.
    """

    name: str
    arrival: str
    prompt: str
    output: str
    unit: str | None
    source: str
    marks: tuple[str, ...] = ()
    block_tokens: int = 512


FORMS = (
    Form("Azure LLM inference 2023 and 2024", "timestamp", "contexttokens", "generatedtokens", "s",
         "https://github.com/Azure/AzurePublicDataset"),
    Form("Qwen-Bailian usage traces", "timestamp", "input_length", "output_length", "s",
         "https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon",
         marks=("chat_id", "parent_chat_id", "turn"), block_tokens=16),
    Form("Mooncake, AIPerf and Dynamo", "timestamp", "input_length", "output_length", None,
         "https://github.com/kvcache-ai/Mooncake; "
         "https://docs.nvidia.com/aiperf/benchmark-modes/trace-replay-with-mooncake-traces"),
    Form("BurstGPT", "timestamp", "request_tokens", "response_tokens", "s",
         "https://github.com/HPMLL/BurstGPT"),
    Form("SplitwiseSim", "arrival_timestamp", "prompt_size", "token_size", "s",
         "https://github.com/Mutinifni/splitwise-sim"),
    Form("Vidur", "arrived_at", "num_prefill_tokens", "num_decode_tokens", "s",
         "https://github.com/microsoft/vidur"),
    Form("plain", "arrival_s", "prompt_tokens", "output_tokens", "s", "the names of this project"),
)  # fmt: skip
"""Forms that are known, the first that fits is taken; their columns may also be mixed."""

_UNITS_IN_NAMES = tuple(f"{stem}_{unit}" for unit in TIME_UNITS for stem in ("arrival", "timestamp", "time"))


def _names(column: str, *further: str) -> tuple[str, ...]:
    of_forms = (getattr(form, column) for form in (FORMS[-1], *FORMS))
    return tuple(dict.fromkeys([*of_forms, *further]))


ARRIVAL = _names("arrival", *_UNITS_IN_NAMES, "arrival_time", "time")
PROMPT = _names(
    "prompt", "context_tokens", "input_tokens", "num_prompt_tokens", "num_input_tokens", "input_len",
    "prompt_len", "prompt_length", "isl",
)  # fmt: skip
OUTPUT = _names(
    "output", "generated_tokens", "completion_tokens", "num_output_tokens", "num_generated_tokens",
    "output_len", "osl",
)  # fmt: skip
"""All names of columns, in the order in which they are looked for."""


def columns_of(file: str, names: Sequence[str], *, timeless: bool = False) -> tuple[str, str, str]:
    """The names, out of all there are, of the columns with arrival, prompt and output.

    Parameters
    ----------
    timeless : whether there may be no arrival; the column of prompts stands in its place then.

    Raises
    ------
    SpecError
        Naming the first that is missing, what it may be called, and the name that comes nearest.
    """
    forms = ((form.arrival, form.prompt, form.output) for form in (FORMS[-1], *FORMS))
    whole = next((columns for columns in forms if all(column in names for column in columns)), None)
    if whole is not None:
        return whole
    prompt, output = (_column(file, names, known) for known in (PROMPT, OUTPUT))
    if timeless and not any(name in names for name in ARRIVAL):
        return prompt, prompt, output
    return _column(file, names, ARRIVAL), prompt, output


def _column(file: str, names: Sequence[str], known: tuple[str, ...]) -> str:
    if (present := next((key for key in known if key in names), None)) is not None:
        return present
    nearest = next((near for near in (nearest_name(name, known) for name in names) if near), None)
    remedy = f"Name it one of {', '.join(known)}"
    if known is ARRIVAL:
        remedy += ", or give --concurrency N: a closed loop needs no times"
    raise SpecError.single(file, known[0], "there is no such column", remedy, nearest, line=1)


def form_of(columns: tuple[str, str, str], names: Sequence[str]) -> Form:
    """The form whose columns these are; one without a name where they are mixed, its unit as they say."""
    for form in FORMS:
        fits = columns == (form.arrival, form.prompt, form.output)
        if fits and (not form.marks or any(mark in names for mark in form.marks)):
            return form
    arrival = columns[0]
    usual = next((form.unit for form in FORMS if form.arrival == arrival and arrival != "timestamp"), None)
    last = arrival.rpartition("_")[2]
    return Form("", *columns, last if last in TIME_UNITS else usual, "")


_SINCE_1970 = ((1e9, "s"), (1e11, "ms"), (1e14, "us"), (1e17, "ns"))
"""Times of this century since 1970 in each unit are at least that many; from the next one on in the next."""


def time_unit(form: Form, arrival: FloatArray, *, given: str | None, dated: bool) -> tuple[str, str]:
    """The unit of arrival times, and why it was taken where the trace does not say; else an empty text.

    Parameters
    ----------
    arrival : the numbers as they are written; shape (requests,).
    given : what people said that the unit is, a key of `TIME_UNITS`; None where they did not.
    dated : whether they are dates, read as seconds.
    """
    if given is not None or dated:
        return given if given is not None and not dated else form.unit or "s", ""
    since_1970 = next((unit for least, unit in reversed(_SINCE_1970) if arrival.min() >= least), None)
    in_its_name = form.arrival.rpartition("_")[2] in TIME_UNITS
    if form.unit is not None and (in_its_name or since_1970 in (None, form.unit)):
        return form.unit, ""
    if since_1970 is not None:
        return since_1970, "as they count from 1970"
    if np.any(arrival != np.floor(arrival)):
        return "s", "as they have fractions"
    milliseconds = (form.arrival, form.prompt) == ("timestamp", "input_length")
    return ("ms", "as in Mooncake's traces") if milliseconds else ("s", "as nothing else is written")


_FITTING = 0.99
"""Share of the requests whose ids have to fit into their prompts. [1]"""


def block_tokens(form: Form, counts: IntArray, prompt_tokens: FloatArray) -> int:
    """Tokens of a block: the form's, halved until the ids fit into the prompts. [tokens]

    Parameters
    ----------
    counts : ids of each request; shape (requests,).
    prompt_tokens : lengths of their prompts; shape (requests,). [tokens]
    """
    size = form.block_tokens
    while size > 1 and np.mean(counts <= np.ceil(prompt_tokens / size)) < _FITTING:
        size //= 2
    return size
