"""Which layers hold experts: by whichever keys of a config say so, the strongest first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from perfmodel.model.channels.experts import CHOSEN, COUNTS
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.token_layers import MAX_LAYERS, refuse_length, remark_contradiction

__all__ = ["expert_layers"]

_DENSE, _SPARSE = ("dense", "mlp"), ("sparse", "moe", "experts", "hash_moe")
_FIRST = (
    "first_k_dense_replace", "moe_layer_start_index", "num_dense_layers", "dense_mlp_idx",
    "moe.first_k_dense_replace",
)  # fmt: skip
_PERIODS = (
    "moe_layer_freq", "moe_layer_frequency", "decoder_sparse_step", "moe_layer_interval",
    "interleave_moe_layer_step", "expert_layer_period", "moe.route_every_n", "moe_every_n_layers",
)  # fmt: skip
_COUNT_FROM_END = ("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval")


def expert_layers(keys: ConfigKeys, layers: int) -> Sequence[bool]:
    """Return which layers hold experts; where a rule names others than a list, a remark says which counts."""
    holds = keys.flag("is_moe", "enable_moe_block", default=True)
    if not holds or not keys.optional_size(*COUNTS, high=1_000_000, low=0, default=0):
        keys.find(*COUNTS, *CHOSEN, *_FIRST, *_PERIODS, "mlp_only_layers")  # without experts they say nothing
        return (False,) * layers
    stated = list(_listed(keys, layers))
    listed = [name for name, _ in stated]
    rule = next((rule for rule in (*_FIRST, *_PERIODS) if rule not in listed and keys.find(rule)), None)
    stated += [(rule or "", _by_rule(keys, layers))] if rule or not stated else []
    name, places = stated[0]
    for other, differently in stated[1:]:
        if list(places) != list(differently):
            remark_contradiction(keys, name, other, "layers of experts")
    return places


def _listed(keys: ConfigKeys, layers: int) -> Iterator[tuple[str, Sequence[bool]]]:
    """Layers of experts by each key that lists them."""
    entry = keys.find("moe_layers_enum")
    if entry is not None and isinstance(entry[1], str):
        if not re.fullmatch(r"[\d,\s]{1,100000}", entry[1]):
            keys.fault(entry[0], f"found {entry[1][:60]!r}", "Give the layers' numbers between commas")
        places = {int(place) for place in re.findall(r"\d{1,9}", entry[1])}
        yield "moe_layers_enum", [index in places for index in range(layers)]
    for name in ("moe_layers_enum", "moe_layers", "moe_layer_indices"):
        if (entry := keys.find(name)) is not None and entry[1] != [] and not isinstance(entry[1], str):
            places = set(keys.numbers(name, high=MAX_LAYERS))
            yield name, [index in places for index in range(layers)]
    if keys.find("is_moe_layer") is not None:
        yield "is_moe_layer", _of_length(keys, "is_moe_layer", keys.flags("is_moe_layer"), layers)
    if (entry := keys.find("mlp_layer_types")) is not None:
        words = keys.words("mlp_layer_types")
        unknown = next((word for word in words if word not in (*_DENSE, *_SPARSE)), None)
        if unknown is not None:
            remedy = f"Known are {', '.join((*_DENSE, *_SPARSE))}"
            keys.fault(entry[0], f"kind {unknown[:60]!r} is not modelled", remedy)
        flags = [word in _SPARSE for word in words]
        yield "mlp_layer_types", _of_length(keys, "mlp_layer_types", flags, layers)
    entry = keys.find("moe_layer_freq")
    if entry is not None and isinstance(entry[1], list):
        flags = [flag == 1 for flag in keys.numbers("moe_layer_freq", high=1)]
        yield "moe_layer_freq", _of_length(keys, "moe_layer_freq", flags, layers)


def _of_length(keys: ConfigKeys, name: str, flags: Sequence[bool], layers: int) -> Sequence[bool]:
    if len(flags := keys.cut(flags)) == layers:
        return flags
    refuse_length(keys, name, len(flags), layers)
    return (False,) * layers


def _by_rule(keys: ConfigKeys, layers: int) -> Sequence[bool]:
    """Layers of experts: all, after the first dense ones, every n-th, without some."""
    names = _PERIODS if not isinstance((keys.find("moe_layer_freq") or ((), 0))[1], list) else _PERIODS[1:]
    dense = set(keys.numbers("mlp_only_layers", high=MAX_LAYERS))
    first = keys.optional_size(*_FIRST, high=MAX_LAYERS, low=0, default=0)
    last = keys.optional_size("moe_layer_end_index", high=MAX_LAYERS, low=0, default=layers - 1)
    every = keys.optional_size(*names, high=MAX_LAYERS, default=1)
    period = keys.find(*names)
    from_end = period is not None and period[0][-1] in _COUNT_FROM_END
    offset = keys.optional_size("expert_layer_offset", high=MAX_LAYERS, low=0, default=0)
    shift = 1 if from_end else -offset
    return [
        first <= index <= last and (index + shift) % every == 0 and index not in dense
        for index in range(layers)
    ]
