"""Nouns whose every figure has a source: replace, stack and sample their figures."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import Fault, SpecError, nearest_name
from perfmodel.files.document import Quantity
from perfmodel.files.figures import (
    Figure,
    Numeric,
    Section,
    Table,
    declared_in,
    default_quantities,
    each_figure,
)
from perfmodel.files.units import SI_UNIT

__all__ = ["Assumption", "Sourced"]

SelfT = TypeVar("SelfT", bound="Sourced")

_Z75 = 0.6744897501960817  # 75th percentile of the standard normal distribution
_Z90 = 1.2815515655446004  # 90th percentile of the standard normal distribution


@dataclass(frozen=True)
class Assumption:
    """An entry that a file leaves out: its value, provenance by dotted path, and one sentence for people."""

    value: Any
    quantities: Mapping[str, Quantity]
    sentence: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Sourced:
    """Base of nouns made of declared figures.

    `quantities` gives value, range, unit, source and kind of every figure by its dotted path in the file;
    `assumed` has one sentence for each figure that the file leaves out.
    """

    name: str
    quantities: Mapping[str, Quantity] = field(default_factory=dict, repr=False)
    assumed: tuple[str, ...] = field(default=(), repr=False)

    def with_values(self: SelfT, values: Mapping[str, Numeric], source: str = "given by the caller") -> SelfT:
        """Return the same noun with the figures at the dotted paths of `values` replaced. SI units.

        Raises SpecError, naming the nearest known path, on unknown paths, negative and non-finite values.
        """
        given = {path: _finite(path, value) for path, value in values.items()}
        unknown = [path for path in given if path not in self.paths()]
        if unknown:
            known = self.paths()
            raise SpecError(
                Fault(
                    "",
                    None,
                    path,
                    f"no such figure of {type(self).__name__}",
                    nearest=nearest_name(path, known),
                )
                for path in unknown
            )
        quantities = dict(self.quantities)

        def change(path: str, declared: Figure | Table, value: Any) -> Any:
            if path not in given:
                return value
            if isinstance(declared, Table):
                return dataclasses.replace(value, seconds=np.broadcast_to(given[path], value.seconds.shape))
            new = given[path]
            quantities[path] = Quantity(new, new, new, SI_UNIT[declared.dimension], source, "assumed")
            return new

        return dataclasses.replace(self, **each_figure(self, change), quantities=quantities)

    def assume(self, name: str, key: str) -> Assumption:
        """Return what to assume for the entry `key` of the mapping field `name` where there is none."""
        declared = dict(declared_in(type(self)))[name]
        if not isinstance(declared, Section):
            raise SpecError.single("", f"{declared.path}.{key}", "missing, and nothing can be assumed for it")
        quantities = default_quantities(declared.of, f"{declared.path}.{key}.")
        sentence = f"{declared.path}.{key} is not in the profile: generic figures are assumed"
        return Assumption(declared.of(), quantities, sentence)

    def with_assumed(self: SelfT, name: str, keys: Sequence[str]) -> SelfT:
        """Return the noun with `assume` filled in for those of `keys` that the mapping field `name` lacks."""
        present: Mapping[str, Any] = getattr(self, name)
        missing = {key: self.assume(name, key) for key in keys if key not in present}
        if not missing:
            return self
        quantities = dict(self.quantities)
        for assumption in missing.values():
            quantities |= assumption.quantities
        complete = {**present, **{key: assumption.value for key, assumption in missing.items()}}
        assumed = (*self.assumed, *(assumption.sentence for assumption in missing.values()))
        changed: dict[str, Any] = {name: complete, "quantities": quantities, "assumed": assumed}
        return dataclasses.replace(self, **changed)

    def paths(self) -> tuple[str, ...]:
        """Return the dotted path of every figure."""
        found: list[str] = []

        def note(path: str, _: Figure | Table, value: Any) -> Any:
            found.append(path)
            return value

        each_figure(self, note)
        return tuple(found)

    def sample(self: SelfT, n: int, seed: int = 0) -> SelfT:
        """Return the noun with `n` draws of every figure whose low is below its high, on a new last axis.

        A draw is ``value * exp(s z)`` with standard normal ``z`` and ``s`` chosen on each side so that low
        and high are the 10th and 90th percentile; the median is the value itself. Draws stay within the
        plausible range of the figure; a value or low of zero counts as a hundredth of high. A figure that
        counts something takes low, value and high in a quarter, half and quarter of the draws. The same seed
        gives the same ``z`` for the same figure in every noun, whatever other figures there are.
        """
        quantities = self.quantities

        def change(path: str, declared: Figure | Table, value: Any) -> Any:
            if isinstance(declared, Table):
                return value
            quantity = quantities.get(path)
            if quantity is None or not np.any(np.less(quantity.low, quantity.high)):
                return value if np.ndim(value) == 0 else np.asarray(value)[..., None]
            z = np.random.default_rng([seed, zlib.crc32(path.encode())]).standard_normal(n)
            drawn = _of_three(quantity, z) if declared.dimension == "count" else _two_sided(quantity, z)
            return np.clip(drawn, declared.least, declared.most)

        return dataclasses.replace(self, **each_figure(self, change))


def _of_three(quantity: Quantity, z: NDArray[np.float64]) -> NDArray[np.float64]:
    low, value, high = (
        np.asarray(end, dtype=float)[..., None] for end in (quantity.low, quantity.value, quantity.high)
    )
    return np.where(z < -_Z75, low, np.where(z > _Z75, high, value))


def _two_sided(quantity: Quantity, z: NDArray[np.float64]) -> NDArray[np.float64]:
    high = np.asarray(quantity.high, dtype=float)[..., None]
    least = high / 100.0
    value = np.maximum(np.asarray(quantity.value, dtype=float)[..., None], least)
    low = np.maximum(np.asarray(quantity.low, dtype=float)[..., None], least)
    spread = np.where(z < 0.0, np.log(value / low), np.log(high / value)) / _Z90
    return np.asarray(value * np.exp(spread * z))


def _finite(path: str, value: Numeric) -> Numeric:
    array = np.asarray(value, dtype=float)
    if not np.all(np.isfinite(array)) or np.any(array < 0.0):
        raise SpecError.single(
            "", path, f"found {value}", "Give finite numbers of at least zero, in SI units"
        )
    return float(array) if array.ndim == 0 else array
