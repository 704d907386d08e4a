"""Plans of a few questions, and what is done to one number or cell of them."""

from __future__ import annotations

import copy
import json
import math
import random
from functools import cache
from typing import Any

import strategies
from perfmodel.deployment import Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.choose import Constraints
from perfmodel.planning.planner import plan
from perfmodel.workload import Workload
from strategies.base import Tree

H100, A100 = (HardwareProfile.load(name) for name in ("h100-sxm-80gb", "a100-sxm-80gb"))
LLAMA, SMALL = ModelSpec.load("llama-3.1-8b"), ModelSpec.load("llama-3.2-1b")
IDEAL, SERVED = (EngineOverhead.load(name) for name in ("ideal", "vllm-v1-h100"))
SNAP, EAGLE, NGRAM = (Drafter(strategies.load(name)) for name in ("snapkv", "eagle", "ngram"))
GROWN = Workload((4, 64), (2000, 32000), output_tokens=500)

QUESTIONS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "self": ((H100, LLAMA, IDEAL, Workload((16, 64), (8000, 64000))), {
        "drafters": [SNAP], "gammas": range(6),
    }),
    "small": ((H100, LLAMA, IDEAL, GROWN), {
        "drafters": [Drafter(strategies.load("full_kv"), SMALL)], "one_deployment": True,
        "tensor_parallel": 8,
    }),
    "served": ((H100, LLAMA, SERVED, Workload((1, 32), (1000, 32000))), {
        "drafters": [EAGLE, NGRAM], "risk": 0.2, "gammas": (1, 3, 7),
    }),
    "loaded": ((H100, LLAMA, SERVED, Workload((1, 256), (1000, 64000))), {
        "drafters": [EAGLE], "one_deployment": True, "constraints": Constraints(tpot=0.04),
    }),
    "tree": ((H100, LLAMA, IDEAL, GROWN), {
        "drafters": [Drafter(strategies.load("eagle"), tree=Tree(4, 4, 16))], "alpha": 0.7,
    }),
    "machines": (([H100, A100], LLAMA, IDEAL, Workload((8, 32), (4000, 32000))), {
        "drafters": [SNAP], "tensor_parallel": [1, 2], "kv_budgets": [512.0, 1024.0], "gammas": (2, 4),
    }),
    "plain": ((H100, LLAMA, IDEAL, Workload((1, 64), (500, 4000))), {"drafters": []}),
    "unsure": ((H100, LLAMA, IDEAL, Workload((8, 32), (16000, 64000))), {"drafters": [SNAP], "draws": 0}),
}  # fmt: skip


@cache
def written(name: str) -> str:
    """The text of a question's plan."""
    answer, more = QUESTIONS[name]
    return plan(*answer, **more).to_json()


def body_of(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(written(name))
    return body


def numbers_in(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where numbers stand."""
    if isinstance(value, dict):
        return [each for key, item in value.items() for each in numbers_in(item, (*place, key))]
    if isinstance(value, list):
        return [each for at, item in enumerate(value) for each in numbers_in(item, (*place, at))]
    return [place] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def at(body: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        body = body[key]
    return body


def put(body: Any, place: tuple[Any, ...], value: Any) -> None:
    at(body, place[:-1])[place[-1]] = value


class Overflowing(float):
    """A number that is written as 1e999."""

    def __repr__(self) -> str:
        return "1e999"


WAYS = {
    "sign": lambda value: -value,
    "tenfold": lambda value: value * 10,
    "tenth": lambda value: value // 10 if isinstance(value, int) else value / 10,
    "NaN": lambda _: math.nan,
    "Infinity": lambda _: math.inf,
    "-Infinity": lambda _: -math.inf,
    "1e999": lambda _: Overflowing("inf"),
    "long": lambda _: 10**310,
    "string": str,
    "bool": lambda _: True,
    "null": lambda _: None,
    "list": lambda value: [value],
    "object": lambda value: {"value": value},
}  # fmt: skip


def of_cells(cells: list[Any], draw: random.Random) -> str:
    """Do something to the list of cells, and say what."""
    way = draw.choice(("drop", "double", "swap", "key"))
    place = draw.randrange(len(cells))
    if way == "drop":
        del cells[place]
    elif way == "double":
        cells.insert(place, copy.deepcopy(cells[place]))
    elif way == "key":
        del cells[place][draw.choice(sorted(cells[place]))]
    else:
        other = draw.choice([each for each in range(len(cells)) if each != place])
        cells[place], cells[other] = cells[other], cells[place]
    return f"cells: {way} {place}"


def of_axes(body: dict[str, Any], draw: random.Random) -> str:
    """Swap two entries of an axis, or of the rounds by gamma."""
    lists = [body["gammas"], body["request"]["batch_sizes"], body["request"]["context_lens"]]
    lists += [cell["round_by_gamma_s"] for cell in body["cells"]]
    axis = draw.choice([each for each in lists if len(each) > 1])
    first, second = draw.sample(range(len(axis)), 2)
    axis[first], axis[second] = axis[second], axis[first]
    return f"axis: swap {first} {second} of {axis}"
