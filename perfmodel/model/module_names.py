"""Which matrices of a checkpoint a list of names, globs and regular expressions means."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["ModuleNames"]

_LONGEST = 500
"""Characters of one name or pattern. [1]"""
_MOST_WORK = 200_000
"""Steps that matching one name against all regular expressions may take. [1]"""
_LONGEST_NAME = 64
"""Characters of a module's full name, for that bound. [1]"""

_AROUND = frozenset(
    (
        "", "model", "language_model", "text_model", "base_model", "backbone", "transformer", "decoder",
        "thinker", "llm",
    )
)  # fmt: skip
"""What a decoder's layers are called below in a checkpoint; a vision tower's are called otherwise."""
_STACKS = ("layers", "h", "blocks")
_SPELLINGS = (
    "model.layers.", "model.language_model.layers.", "language_model.model.layers.", "language_model.layers.",
    "layers.", "backbone.layers.", "model.decoder.layers.", "transformer.h.", "transformer.blocks.",
)  # fmt: skip
_ABOVE = ("", "model.", "model.language_model.", "language_model.model.", "language_model.", "backbone.")
_FUSED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    **dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj"),
    **dict.fromkeys(("in_proj_qkv", "in_proj_z"), "in_proj_qkvz"),
    **dict.fromkeys(("in_proj_a", "in_proj_b"), "in_proj_ba"),
    **dict.fromkeys(("q_a_proj", "kv_a_proj_with_mqa"), "fused_qkv_a_proj"),
}
"""Name of the product that engines and some checkpoints fuse a projection into."""

_OF_LAYER = re.compile(rf"((?:\w+\.)*|\*\.?)(?:{'|'.join(_STACKS)})\.(\d+)(?:(\*)|\.(.*))?", re.ASCII)
_EXPERT = re.compile(r"\bexperts\.(\d+|\*)(?=\.|$)", re.ASCII)
_REGEX_OF_LAYER = re.compile(rf"(?:{'|'.join(_STACKS)})\\\.(\d+)(?=\\\.)", re.ASCII)


class ModuleNames:
    """Names of modules as checkpoints list them, indexed so that asking for one is quick.

    A plain name means the module and what lies below it: ``model.layers.3.mlp`` all of the MLP of layer 3,
    ``gate`` every module called so and ``lm_head`` the head, whatever the decoder is called
    (``model.language_model.``, ``backbone.``). With ``*``, ``?`` or ``[`` it is a glob over the full name;
    behind ``re:`` it is a regular expression that matches from the start of the full name, as in
    compressed-tensors. The number of an expert does not count.
    """

    def __init__(self) -> None:
        self._plain: dict[int | None, set[str]] = {}
        self._globs: dict[int | None, list[str]] = {}
        self._bare_globs: list[str] = []
        self._regexes: dict[int | None, list[str]] = {}
        self._work = 0.0

    def add(self, pattern: str) -> str | None:
        """Take up one name or pattern; return what is wrong with it, None where nothing is."""
        if len(pattern) > _LONGEST:
            return f"a name of more than {_LONGEST} characters"
        if pattern.startswith(("re:", ".*")) or "\\" in pattern:
            return self._add_regex(pattern.removeprefix("re:"))
        pattern = _EXPERT.sub("experts", pattern.strip().strip(".").removesuffix(".weight"))
        known = _OF_LAYER.fullmatch(pattern)
        layer: int | None = None
        if known and _AROUND.issuperset(known[1].strip("*.").split(".")):
            layer = int(known[2])
            pattern = "*" if known[3] else known[4] or "*"
        if re.search(r"[*?[]", pattern):
            first = re.split(r"[.*?[]", pattern, maxsplit=1)[0]
            if layer is None and first and first not in (*_AROUND, *_STACKS):
                self._bare_globs.append(pattern)
            else:
                self._globs.setdefault(layer, []).append(pattern)
        else:
            self._plain.setdefault(layer, set()).add(pattern if layer is not None else _bare(pattern))
        return None

    def holds(self, layer: int | None, module: str, *, by_name: bool = False) -> bool:
        """Tell whether a module is meant.

        Parameters
        ----------
        layer : number of its layer, None for what lies outside the layers.
        module : its name below the layer, ``self_attn.q_proj``.
        by_name : only a pattern that spells the module out counts.
        """
        for name in _also_called(module):
            if self._holds_plainly(layer, name) or self._fits_glob(layer, name, by_name):
                return True
            if self._fits_regex(layer, name, by_name):
                return True
        return False

    def _holds_plainly(self, layer: int | None, name: str) -> bool:
        if not self._plain:
            return False
        below = self._plain.get(layer) if layer is not None else None
        if below is not None and any(part in below for part in _beginnings(name)):
            return True
        bare = self._plain.get(None)
        return bare is not None and not bare.isdisjoint(_runs(name))

    def _fits_glob(self, layer: int | None, name: str, by_name: bool) -> bool:
        below = self._globs.get(layer) if layer is not None else None
        if below is not None and _fits_any(tuple(below), name):
            return True
        bare = tuple(glob for glob in self._bare_globs if not by_name or name in glob)
        if bare and any(_fits_any(bare, ending) for ending in _endings(name)):
            return True
        return any(
            _glob_fits(glob, 0 if layer is not None and not re.search(r"[\d?[]", glob) else layer, name)
            for glob in self._globs.get(None, ())
            if not by_name or name in glob
        )

    def _fits_regex(self, layer: int | None, name: str, by_name: bool) -> bool:
        if not self._regexes:
            return False
        regexes = [*self._regexes.get(None, ()), *(self._regexes.get(layer, ()) if layer is not None else ())]
        return any(
            _regex_fits(regex, 0 if layer is not None and _same_in_every_layer(regex) else layer, name)
            for regex in regexes
            if not by_name or name in regex
        )

    def _add_regex(self, regex: str) -> str | None:
        try:
            re.compile(regex)
        except (re.error, OverflowError, RecursionError) as error:
            return f"not a regular expression: {error}"
        layers = _REGEX_OF_LAYER.findall(regex)
        layer = int(layers[0]) if len(layers) == 1 and "|" not in regex else None
        work = _most_steps(regex)
        self._work += work if layer is None else 0.0
        if max(work, self._work) > _MOST_WORK:
            return "a regular expression that could take forever to match"
        self._regexes.setdefault(layer, []).append(regex)
        return None


def _bare(name: str) -> str:
    """Name without what lies around the decoder's modules."""
    words = [word for word in name.split(".") if word]
    while len(words) > 1 and words[0] in _AROUND:
        words.pop(0)
    return ".".join(words)


@lru_cache(maxsize=4096)
def _also_called(module: str) -> tuple[str, ...]:
    """A module's names: its own and that of the product it may be fused into."""
    module = _EXPERT.sub("experts", module)
    around, _, last = module.rpartition(".")
    fused = _FUSED.get(last)
    return (module,) if fused is None else (module, f"{around}.{fused}" if around else fused)


@lru_cache(maxsize=4096)
def _beginnings(name: str) -> tuple[str, ...]:
    """``a.b.c`` -> ``a``, ``a.b``, ``a.b.c``."""
    words = name.split(".")
    return tuple(".".join(words[:end]) for end in range(1, len(words) + 1))


@lru_cache(maxsize=4096)
def _endings(name: str) -> tuple[str, ...]:
    """``a.b.c`` -> ``a.b.c``, ``b.c``, ``c``."""
    words = name.split(".")
    return tuple(".".join(words[start:]) for start in range(len(words)))


@lru_cache(maxsize=4096)
def _runs(name: str) -> frozenset[str]:
    """Every run of whole words in a name."""
    words = name.split(".")
    return frozenset(
        ".".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)
    )


@lru_cache(maxsize=1 << 16)
def _fits_any(globs: tuple[str, ...], name: str) -> bool:
    """Whether a name, or something that it lies below, fits one of the globs."""
    return any(glob.fullmatch(name) for glob in map(_compiled_glob, globs))


@lru_cache(maxsize=1 << 16)
def _glob_fits(glob: str, layer: int | None, name: str) -> bool:
    """Whether a glob fits one of the spellings of a module's full name; its own beginning is often a star."""
    stacks = ("",) if layer is None else tuple(f"{stack}.{layer}." for stack in _STACKS)
    return any(_fits_any((glob,), f"{around}{stack}{name}") for stack in stacks for around in _ABOVE)


@lru_cache(maxsize=1 << 14)
def _compiled_glob(glob: str) -> re.Pattern[str]:
    return re.compile(f"{fnmatch.translate(glob)}|{fnmatch.translate(glob + '.*')}")


@lru_cache(maxsize=1 << 16)
def _regex_fits(regex: str, layer: int | None, name: str) -> bool:
    """Whether a regular expression matches one of the spellings of a module's full name."""
    compiled = re.compile(regex)
    names = (name, name.replace("experts.", "experts.0.", 1)) if "experts." in name else (name,)
    if layer is None:
        return any(compiled.match(around + name) for around in _ABOVE)
    spellings = _SPELLINGS if not regex.startswith(".*") else (_SPELLINGS[0], *_named_in(regex))
    return any(compiled.match(f"{spelling}{layer}.{each}") for spelling in spellings for each in names)


@lru_cache(maxsize=4096)
def _named_in(regex: str) -> tuple[str, ...]:
    """Spellings of which a regular expression names a word."""
    return tuple(
        spelling
        for spelling in _SPELLINGS
        if any(word in regex for word in spelling.split(".") if word and word != "layers")
    )


@lru_cache(maxsize=4096)
def _same_in_every_layer(regex: str) -> bool:
    """Whether a regular expression begins with anything and speaks of no number and no layer."""
    return regex.startswith(".*") and not re.search(r"[\d{]|\\d|layers|\\w|\[", regex)


def _most_steps(regex: str) -> float:
    """Bound on the steps of matching a name of `_LONGEST_NAME` characters by backtracking.

    k repetitions of unknown length share out the name in at most ``64^k / k!`` ways, each with every choice
    of the alternatives. A repeated group is unbounded: its inside could share out the name again.
    """
    text = re.sub(r"\\[dD]|\[0-9\]", "0", regex)
    text = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", text)
    text = re.sub(r"(?<!\()\.\*\$?\Z", "", text)
    if re.search(r"\)[*+{]", text):
        return math.inf
    repeats = len(re.findall(r"[^0(][*+{]", text))
    choices = float(math.prod(bars + 1 for bars in _alternatives(text)))
    choices *= 3.0 ** len(re.findall(r"0[*+{]", text)) * 2.0 ** len(re.findall(r"[^(*+?}]\?", text))
    return float(_LONGEST_NAME**repeats / math.factorial(repeats)) * choices


def _alternatives(text: str) -> Iterator[int]:
    """Bars of each group of a regular expression, those of the whole first."""
    open_groups = [0]
    for sign in text:
        if sign == "(":
            open_groups.append(0)
        elif sign == "|":
            open_groups[-1] += 1
        elif sign == ")" and len(open_groups) > 1:
            yield open_groups.pop()
    yield from open_groups
