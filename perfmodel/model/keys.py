"""Typed look-up in a config.json whose keys go by several names; collects every fault with its line."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from perfmodel.errors import Fault, SpecError, nearest_name
from perfmodel.files.document import Document, Place, dotted

__all__ = ["DRAFT_LAYERS", "ConfigKeys"]

_NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "language_model_config")
_PER_LAYER = "per_layer_config"
DRAFT_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "num_mtp_modules")
_Chosen = TypeVar("_Chosen")


class ConfigKeys:
    """One config as a set of typed questions; wrong answers become faults and a stand-in value is returned.

    A nested ``text_config`` is read first and the top level second, so that a multimodal config yields its
    decoder; before both comes what ``per_layer_config`` says of the layer that is being read. Of several
    names for one size the first that is present and not null counts.

    Parameters
    ----------
    document : the parsed file; what is already known to be wrong with it is reported too.
    """

    def __init__(self, document: Document) -> None:
        self.faults: list[Fault] = []
        self.assumed: list[str] = []
        self.defaults: Mapping[str, int] = {}
        self.layer: int | None = None
        self.layers = 0
        self._asked: set[str] = set()
        self._document = document
        self._wrong: set[str] = set()
        self._sections: list[tuple[Place, Mapping[str, object]]] = [((), document.data)]
        self._beside = document.beside
        for _ in range(len(_NESTED)):
            path, inner = self._sections[0]
            for name in _NESTED:
                if isinstance(section := inner.get(name), Mapping):
                    self._sections.insert(0, ((*path, name), section))
                    break
        self._decoder = self._sections[0]
        if self.is_nested:
            self.assumed.append(f"only the decoder under {'.'.join(map(str, self._decoder[0]))} is counted")

    def find(self, *names: str) -> tuple[Place, object] | None:
        """Path and value of the first of `names` that is present and not null, or None.

        A name may lead into a mapping: ``attn_config.kv_n_heads``. A list of one value per layer counts as
        the value of the layer that is being read, or as the one that all layers have.
        """
        self._asked.update(names)
        for path, section in (*self._of_this_layer(), *self._sections):
            for name in names:
                value: object = section.get(name)
                steps = (name,) if value is not None or "." not in name else tuple(name.split("."))
                if len(steps) > 1:
                    value = section
                    for step in steps:
                        value = value.get(step) if isinstance(value, Mapping) else None
                if value is not None:
                    return (*path, *steps), value
        return None

    def _of_this_layer(self) -> Iterator[tuple[Place, Mapping[str, object]]]:
        """What the config says of the layer that is being read alone; its number may have leading zeros."""
        path, section = self._decoder
        layers = section.get(_PER_LAYER)
        if self.layer is not None and isinstance(layers, Mapping):
            for number, own in layers.items():
                if str(number).lstrip("0") == str(self.layer or "") and isinstance(own, Mapping):
                    yield (*path, _PER_LAYER, number), own

    def place(self, *names: str) -> Place:
        """Where the first of `names` that is present stands, or where the last would."""
        entry = self.find(*names)
        return (*self._decoder[0], names[-1]) if entry is None else entry[0]

    def states(self, name: str) -> bool:
        """Whether the decoder's own part of the file has a key, be it null."""
        return name in self._decoder[1]

    @property
    def unread(self) -> tuple[str, ...]:
        """Names of the decoder's keys that nobody asked about, in the file's order."""
        asked = {name.partition(".")[0] for name in self._asked}
        return tuple(name for name in self.names if name not in asked)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the decoder's keys and of those around it, in the file's order."""
        names = (str(name) for _, section in self._sections for name in section)
        return tuple(dict.fromkeys(name for name in names if not name.startswith("_")))

    @property
    def is_nested(self) -> bool:
        """Whether the decoder is described below the top level."""
        return len(self._sections) > 1

    def state_dtype(self, default: str) -> str:
        """Dtype in which recurrent states are kept: as stated, else `default`."""
        names = ("mamba_ssm_dtype", "mamba_ssm_cache_dtype", "ssm_cache_dtype")
        stated = self.word(*names)
        spellings = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "auto": default}
        if stated is None:
            return default
        if stated not in spellings:
            self.fault(self.place(*names), f"found {_short(stated)}", "Give float32, bfloat16 or float16")
        return spellings.get(stated, default)

    def differs(self, name: str) -> bool:
        """Whether a key lists values per layer that are not all equal."""
        entry = self.find(name)
        values = entry[1] if entry is not None and isinstance(entry[1], list) else []
        return any(type(value) is not type(values[0]) or value != values[0] for value in values)

    def find_all(self, *names: str) -> Iterator[tuple[Place, object]]:
        """Path and value of all of `names` that are present and not null, those of files beside last."""
        beside = (((file,), document.data) for file, document in self._beside.items())
        for path, section in (*self._sections, *beside):
            yield from (((*path, name), section[name]) for name in names if section.get(name) is not None)

    def is_beside(self, path: Place) -> bool:
        """Tell whether a path leads into a file beside the config."""
        return bool(path) and path[0] in self._beside

    def fault(
        self,
        field: str | Place,
        problem: str,
        remedy: str = "",
        nearest: str | None = None,
        given: Sequence[str] = (),
    ) -> None:
        """Note one fault, unless one of the sizes `given` to the comparison is itself wrong."""
        if isinstance(field, str):
            entry = self.find(field)
            field = (*self._sections[0][0], field) if entry is None else entry[0]
        document = self._document
        if self.is_beside(field):
            document, field = self._beside[str(field[0])], field[1:]
        if not document.is_refused(field) and self._wrong.isdisjoint(given):
            name = dotted(field)
            self.faults.append(Fault(document.file, document.line(field), name, problem, remedy, nearest))

    def raise_faults(self) -> None:
        """Raise SpecError when anything was wrong so far, in the order of the lines."""
        documents = (self._document, *self._beside.values())
        faults = [*(fault for document in documents for fault in document.faults), *self.faults]
        if faults:
            raise SpecError(dict.fromkeys(sorted(faults, key=lambda fault: fault.line or 0)))

    def size(self, *names: str, high: int, low: int = 1) -> int:
        """Whole number from `low` to `high` under one of `names`; else from `defaults`, else a fault."""
        if self.find(*names) is None:
            default = next((self.defaults[name] for name in names if name in self.defaults), None)
            if default is not None:
                self.assumed.append(
                    f"{names[0]} is not in the config; assumed {default} as its model_type implies"
                )
                return default
            others = f", also read as {', '.join(names[1:])}" if len(names) > 1 else ""
            self._wrong.add(names[0])
            unread = [key for _, section in self._sections for key in section]
            self.fault(names[0], "is missing", f"Add it{others}", nearest_name(names[0], unread))
            return low
        return self.optional_size(*names, high=high, low=low, default=low)

    def optional_size(self, *names: str, high: int, low: int = 1, default: _Chosen) -> int | _Chosen:
        """Whole number from `low` to `high` under one of `names`, `default` where none is present."""
        entry = self.find(*names)
        if entry is None:
            return default
        path, value = self._of_layer(*entry)
        if isinstance(value, float) and math.isfinite(value) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.fault(path, f"found {_short(value)}", f"Give a whole number from {low} to {high}")
        self._wrong.add(names[0])
        return default

    def optional_number(self, name: str, *, high: float, default: float) -> float:
        """Number above 0 up to `high`, `default` where it is not present."""
        entry = self.find(name)
        if entry is None:
            return default
        path, value = self._of_layer(*entry)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= high:
            return float(value)
        self.fault(path, f"found {_short(value)}", f"Give a number above 0 up to {high:g}")
        return default

    def _of_layer(self, path: Place, value: object) -> tuple[Place, object]:
        """Return the value of the layer that is read where one is listed for each, or the value of all."""
        if not isinstance(value, list) or not value:
            return path, value
        if len(value) not in (self.layers, 1) and self.layers:
            return path, value
        if self.layer is not None and len(value) == self.layers:
            return (*path, self.layer), value[self.layer]
        return path, value[0] if all(entry == value[0] for entry in value) else value

    @property
    def draft_layers(self) -> int:
        """Layers that predict further tokens; lists may have entries for them at their end. [1]"""
        return self.optional_size(*DRAFT_LAYERS, high=10_000, low=0, default=0)

    def cut(self, entries: Sequence[_Chosen]) -> Sequence[_Chosen]:
        """Return the entries of a list without those of the layers that predict further tokens."""
        beyond = len(entries) - self.layers
        return entries[: self.layers] if 0 < beyond <= self.draft_layers else entries

    def flag(self, *names: str, default: bool) -> bool:
        """True or false under one of `names`, `default` where none is present."""
        entry = self.find(*names)
        if entry is None:
            return default
        if not isinstance(entry[1], bool):
            self.fault(entry[0], f"found {_short(entry[1])}", "Give true or false")
            return default
        return entry[1]

    def word(self, *names: str) -> str | None:
        """Text under one of `names`, None where none is present."""
        entry = self.find(*names)
        if entry is None or isinstance(entry[1], str):
            return None if entry is None else str(entry[1])
        self.fault(entry[0], f"found {_short(entry[1])}", "Give a text")
        return None

    def numbers(self, *names: str, high: int) -> tuple[int, ...]:
        """Whole numbers from 0 to `high` listed under one of `names`; empty where none is present."""
        remedy = f"Give a list of whole numbers from 0 to {high}"
        place, listed = self._listed(*names, remedy=remedy)
        for index, value in enumerate(listed):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
                self.fault((*place, index), f"found {_short(value)}", remedy)
                return ()
        return tuple(value for value in listed if isinstance(value, int))

    def flags(self, name: str) -> tuple[bool, ...]:
        """List of true and false under `name`; empty where it is not present."""
        remedy = "Give a list of true and false"
        place, listed = self._listed(name, remedy=remedy)
        for index, value in enumerate(listed):
            if not isinstance(value, bool):
                self.fault((*place, index), f"found {_short(value)}", remedy)
                return ()
        return tuple(map(bool, listed))

    def words(self, *names: str) -> tuple[str, ...]:
        """Texts listed under one of `names`; empty where none is present."""
        remedy = "Give a list of texts"
        place, listed = self._listed(*names, remedy=remedy)
        for index, value in enumerate(listed):
            if not isinstance(value, str):
                self.fault((*place, index), f"found {_short(value)}", remedy)
                return ()
        return tuple(map(str, listed))

    def _listed(self, *names: str, remedy: str) -> tuple[Place, Sequence[object]]:
        place, value = self.find(*names) or ((), [])
        if not isinstance(value, list):
            self.fault(place, f"found {_short(value)}", remedy)
            return place, []
        return place, value


def _short(value: object) -> str:
    """Value as it may stand in a message; numbers beyond reading are not spelled out."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number beyond 10^18"
    return _repr.repr(value)


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
_repr.maxlevel, _repr.maxdict, _repr.maxlist = 2, 4, 4
