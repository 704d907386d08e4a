"""Forms in which matrices are quantised, and the section of a config that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perfmodel.files.document import Place
from perfmodel.model.dtypes import BYTES
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.module_names import ModuleNames

__all__ = [
    "BLOCK", "CACHE_REMEDY", "LEFT_OUT", "SCALE", "WEIGHT_REMEDY", "Scheme", "Section", "Stored",
    "block_area", "flat", "floats", "integers",
]  # fmt: skip

LEFT_OUT = (
    "ignore", "modules_to_not_convert", "ignored_layers", "ignored_modules", "exclude_modules", "exclude",
    "llm_int8_skip_modules",
)  # fmt: skip
"""Keys that list what stays unquantised."""
WEIGHT_REMEDY = f"Plan with how the weights are stored: --weight-dtype with one of {', '.join(BYTES)}"
CACHE_REMEDY = f"State how the cache is stored: --kv-dtype with one of {', '.join(BYTES)}"
BLOCK = 128 * 128
"""Elements of one block of FP8 weights (DeepSeek-V3, arXiv 2412.19437 section 3.3.2). [1]"""
SCALE = 2.0
"""Scale of one group of integers, in the type of the model. [B]"""


@dataclass(frozen=True)
class Stored:
    """How one matrix is stored: `dtype`, a key of `BYTES`, decides the arithmetic.

    `element_bytes` are the bytes per element with scales and zero points. [B]
    """

    dtype: str
    element_bytes: float


@dataclass(frozen=True)
class Scheme:
    """How the matrices of a checkpoint are stored; None stands for unquantised.

    Parameters
    ----------
    everything : what nothing else is said about.
    experts : routed experts; None where they are like everything.
    named : modules with a form of their own; the first names that hold a module count.
    left_out : modules that stay unquantised, whatever else is said.
    """

    everything: Stored | None = None
    experts: Stored | None = None
    named: tuple[tuple[ModuleNames, Stored | None], ...] = ()
    left_out: ModuleNames = field(default_factory=ModuleNames)

    @property
    def forms(self) -> tuple[Stored, ...]:
        """Every quantised form that occurs."""
        forms = (self.everything, self.experts, *(form for _, form in self.named))
        return tuple(form for form in forms if form is not None)


@dataclass(frozen=True)
class Section:
    """One mapping of a config and its place; `quiet` where a stated dtype makes up for what is not known."""

    keys: ConfigKeys
    place: Place
    data: Mapping[str, object]
    quiet: bool = False

    def get(self, *names: str) -> object:
        """Value of the first of `names` that is present and not null, else None."""
        return next((self.data[name] for name in names if self.data.get(name) is not None), None)

    def below(self, *names: str) -> Section | None:
        """The mapping under the first of `names` that holds one, else None."""
        for name in names:
            if isinstance(inner := self.data.get(name), Mapping):
                return Section(self.keys, (*self.place, name), inner, self.quiet)
        return None

    def members(self) -> list[tuple[str, Section]]:
        """The mappings that this one holds, with their names."""
        return [(name, inner) for name in self.data if (inner := self.below(name)) is not None]

    def refuse(self, names: tuple[str, ...], problem: str, remedy: str = WEIGHT_REMEDY) -> None:
        """Note a fault at the first of `names` that is present."""
        if not self.quiet:
            present = next((name for name in names if self.data.get(name) is not None), None)
            self.keys.fault(self.place if present is None else (*self.place, present), problem, remedy)

    def group(self, *names: str, default: int) -> int:
        """Elements that share a scale, 0 for a whole row or matrix, `default` where the file says nothing."""
        value = self.get(*(names or ("group_size",)))
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and value >= -1:
            return max(value, 0)
        self.refuse(names or ("group_size",), f"found {value!r}"[:80], "Give the elements per scale, or -1")
        return default

    def names(self, *keys: str) -> ModuleNames:
        """Modules listed under all of `keys`."""
        names = ModuleNames()
        for key in keys:
            listed = self.data.get(key)
            for index, pattern in enumerate([listed] if isinstance(listed, str) else flat(listed)):
                problem = names.add(pattern) if isinstance(pattern, str) else f"found {pattern!r}"[:80]
                if problem:
                    remedy = "Give a module name, a glob, or re: and a plain pattern"
                    self.keys.fault((*self.place, key, index), problem, remedy)
        return names


def flat(listed: object) -> Sequence[object]:
    """A list without the lists in it; a mapping counts by its keys, null as empty."""
    if isinstance(listed, Mapping):
        return list(listed)
    if not isinstance(listed, list):
        return [] if listed is None else [listed]
    return [inner for item in listed for inner in (item if isinstance(item, list) else [item])]


def integers(section: Section, keys: tuple[str, ...], *, group: int, zero_points: bool) -> Stored | None:
    """Packed integers of as many bits as one of `keys` says, a scale and perhaps a zero point per group."""
    bits = section.get(*keys)
    if not isinstance(bits, int) or f"int{bits}" not in BYTES:
        known = ", ".join(str(bits) for bits in range(17) if f"int{bits}" in BYTES)
        written = "says nothing of bits" if bits is None else f"found {bits!r}"[:80]
        section.refuse(keys, f"{written}: weights of {known} bits are known")
        return None
    size = bits / 8.0
    return Stored(f"int{bits}", size + ((SCALE + (size if zero_points else 0.0)) / group if group else 0.0))


def floats(bits: int, *, group: int = 0, scale: float = 1.0, power_of_two: bool = False) -> Stored:
    """Floats of 4 or 8 bits with a scale of so many bytes per group; MX scales are powers of two."""
    name = f"{'mx' if power_of_two else ''}fp{bits}"
    return Stored(name, bits / 8.0 + (scale / group if group else 0.0))


def block_area(section: Section, key: str) -> int:
    """Elements of a block of weights given as its height and width; 128 x 128 where it is not a list."""
    block = section.get(key)
    if not isinstance(block, list):
        return BLOCK
    sides = [side for side in block if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    if len(sides) != 2 or len(block) != 2:
        section.refuse((key,), f"found {block!r}"[:80], "Give its height and width, as in [128, 128]")
        return BLOCK
    return sides[0] * sides[1]
