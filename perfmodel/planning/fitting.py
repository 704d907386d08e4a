"""What a deployment lacks in memory, and the changes with which it would fit, as flags of a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.errors import SpecError
from perfmodel.files.units import format_bytes
from perfmodel.memory import ResidentMemory, count_memory
from perfmodel.model import BYTES, ModelSpec
from perfmodel.planning.parallelism import check_parallelism

__all__ = ["lacking", "request_miss", "ways_to_fit"]

_GPUS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
"""Numbers of GPUs that are tried."""
_NARROW = "fp8"
_DIGITS = 2
"""Significant digits of a context that would fit; it is rounded down. [1]"""
_PARTS = {
    "weights": "weights", "target_kv": "KV cache", "states": "states", "activations": "activations",
    "fixed": "the engine's own",
}  # fmt: skip


def lacking(deployment: Deployment, batch: float, context_len: float) -> str:
    """Say what is needed on a GPU, what is there and which parts need it; empty where plain decoding fits.

    Parameters
    ----------
    batch, context_len : sequences, and cache entries of each at the end of its output. [1], [tokens]
    """
    memory = count_memory(deployment, batch=batch, context_len=context_len)
    if memory.fits:
        return ""
    needed, usable = float(np.asarray(memory.total)), float(np.asarray(memory.usable))
    parts = {words: float(np.asarray(getattr(memory, name))) for name, words in _PARTS.items()}
    largest = sorted(parts, key=lambda words: -parts[words])[:2]
    of_parts = " and ".join(f"{words} {format_bytes(parts[words])}" for words in largest)
    machine = f"{deployment.gpus:.0f} x {deployment.hardware.name}{deployment.layout}"
    return (
        f"{machine} needs {format_bytes(needed)} a GPU, {format_bytes(usable)} are usable; "
        f"most is {of_parts}"
    )


def request_miss(deployment: Deployment, tokens: float) -> str:
    """Say what one request lacks alone, and which deployment would hold it; empty where it fits.

    Parameters
    ----------
    tokens : its cache entries at the end of its output. [tokens]
    """
    lacks = lacking(deployment, 1.0, tokens)
    ways = ways_to_fit(deployment, 1.0, tokens, of_cells=False) if lacks else []
    return "; ".join([lacks, *([f"fits with {' or '.join(ways)}"] if ways else ())])


def ways_to_fit(
    deployment: Deployment,
    batch: float,
    context_len: float,
    output_tokens: float = 0.0,
    *,
    of_cells: bool = True,
) -> list[str]:
    """Return the changes with which plain decoding fits, each alone where one is enough.

    More GPUs, 8-bit weights or caches, both where that saves GPUs, fewer sequences, a shorter context: each
    is checked by the rule of memory that refused.

    Parameters
    ----------
    batch, context_len : what was asked for. [1], [tokens]
    output_tokens : tokens that follow the context. [tokens]
    of_cells : name fewer sequences and a shorter context too.
    """
    longest = context_len + output_tokens

    def fits(changed: Deployment, sequences: float = batch, entries: float = longest) -> bool:
        memory: ResidentMemory = count_memory(changed, batch=sequences, context_len=entries)
        return bool(memory.fits)

    narrow = list(_narrower(deployment.model))
    wider = _more_gpus(deployment, fits)
    ways = [_gpus_flag(runs) for runs in wider]
    enough = [flags for flags, model in narrow if fits(replace(deployment, model=model))]
    ways += [flags for flags in enough if flags.count("--") == 1] or enough
    if narrow and len(ways) == len(wider):
        flags, model = narrow[-1]
        fewer = _more_gpus(replace(deployment, model=model), fits)
        if not wider or (fewer and fewer[0].gpus < wider[0].gpus):
            ways += [f"{_gpus_flag(runs)} {flags}" for runs in fewer]
    if of_cells:
        if fewest := _most(lambda sequences: fits(deployment, sequences), int(batch)):
            ways.append(f"--batch-size {fewest}")
        shorter = _most(lambda tokens: fits(deployment, batch, tokens + output_tokens), int(context_len))
        if rounded := _rounded(shorter):
            ways.append(f"--context {rounded}")
    return ways


def _gpus_flag(deployment: Deployment) -> str:
    return f"--tp {deployment.tensor_parallel:.0f}"


def _narrower(model: ModelSpec) -> Iterator[tuple[str, ModelSpec]]:
    """Yield the flags of 8-bit caches, weights and both, with the model as they store it."""
    kv = BYTES[model.kv_dtype] > BYTES[_NARROW]
    weights = BYTES[model.weight_dtype] > BYTES[_NARROW]
    if kv:
        yield f"--kv-cache-dtype {_NARROW}", model.with_dtypes(kv=_NARROW)
    if weights:
        yield f"--weight-dtype {_NARROW}", model.with_dtypes(weights=_NARROW)
    if kv and weights:
        both = model.with_dtypes(weights=_NARROW, kv=_NARROW)
        yield f"--weight-dtype {_NARROW} --kv-cache-dtype {_NARROW}", both


def _more_gpus(deployment: Deployment, fits: Callable[[Deployment], bool]) -> list[Deployment]:
    """Return the deployment on the fewest GPUs a group on which it fits; nothing where there is none."""
    for gpus in _GPUS:
        wider = replace(deployment, tensor_parallel=gpus)
        if gpus > deployment.tensor_parallel and _is_allowed(wider) and fits(wider):
            return [wider]
    return []


def _is_allowed(deployment: Deployment) -> bool:
    try:
        check_parallelism([deployment])
    except SpecError:
        return False
    return True


def _most(fits: Callable[[int], bool], below: int) -> int:
    """Return the largest whole number below another one that fits, 0 where 1 does not."""
    low, high = 0, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _rounded(tokens: int) -> int:
    """Return a whole number rounded down to `_DIGITS` digits."""
    unit = int(10 ** max(len(str(tokens)) - _DIGITS, 0))
    return tokens // unit * unit
