"""What the quantisation section of a checkpoint says: bits, groups, scales, and which modules it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from perfmodel.errors import nearest_name
from perfmodel.files.document import Place
from perfmodel.model.dtypes import BYTES, known_dtype
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.module_names import ModuleNames

__all__ = ["Scheme", "Section", "Stored", "read_cache_dtype", "read_scheme"]

_LEFT_OUT = (
    "ignore", "modules_to_not_convert", "ignored_layers", "ignored_modules", "exclude_modules", "exclude",
    "llm_int8_skip_modules",
)  # fmt: skip
"""Keys that list what stays unquantised."""
_WEIGHT_REMEDY = f"State how the weights are stored: --weight-dtype with one of {', '.join(BYTES)}"
_CACHE_REMEDY = f"State how the cache is stored: --kv-dtype with one of {', '.join(BYTES)}"
_BLOCK = 128 * 128
"""Elements of one block of FP8 weights (DeepSeek-V3, arXiv 2412.19437 section 3.3.2). [1]"""
_SCALE = 2.0
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

    def refuse(self, names: tuple[str, ...], problem: str, remedy: str = _WEIGHT_REMEDY) -> None:
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
            for index, pattern in enumerate([listed] if isinstance(listed, str) else _flat(listed)):
                problem = names.add(pattern) if isinstance(pattern, str) else f"found {pattern!r}"[:80]
                if problem:
                    remedy = "Give a module name, a glob, or re: and a plain pattern"
                    self.keys.fault((*self.place, key, index), problem, remedy)
        return names


def read_scheme(section: Section) -> Scheme:
    """Return how the matrices are stored; what is not known becomes a fault that names its key."""
    nested = section.below("quantization")
    if nested is not None and section.get("quant_algo", "bits", "config_groups") is None:
        section = nested
    method = _method(section)
    reader = _READERS.get(method)
    scheme = Scheme() if reader is None else reader(section)
    if reader is None and section.data:
        stated = section.get("quant_method")
        if stated is not None:
            nearest = nearest_name(str(stated), _READERS)
            problem = f"quant_method {stated!r} is not known"[:120]
            if not section.quiet:
                section.keys.fault((*section.place, "quant_method"), problem, _WEIGHT_REMEDY, nearest)
        elif not _speaks_of_cache_alone(section):
            section.refuse((), "names no quant_method, and its keys tell none")
    return Scheme(scheme.everything, scheme.experts, scheme.named, section.names(*_LEFT_OUT))


def read_cache_dtype(section: Section) -> str | None:
    """Return the dtype of the KV cache where the section prescribes one, else None."""
    nested = section.below("quantization")
    if nested is not None and (dtype := read_cache_dtype(nested)):
        return dtype
    for key in ("kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_dtype"):
        scheme = section.below(key)
        if scheme is not None:
            bits, kind = scheme.get("num_bits"), "fp" if scheme.get("type") == "float" else "int"
            dtype = f"{kind}{bits}"
            if dtype not in ("fp8", "fp4", "int8", "int4"):
                scheme.refuse(("num_bits",), f"found {bits!r} bits per cache element"[:80], _CACHE_REMEDY)
            return dtype
        word = section.get(key)
        if word is not None and str(word).lower() not in ("", "none", "auto"):
            dtype = "fp8" if str(word).lower().startswith("fp8") else known_dtype(word)
            if dtype is None:
                section.refuse((key,), f"found {word!r}"[:80], _CACHE_REMEDY)
            return dtype
    return _quark_cache(section)


def _flat(listed: object) -> Sequence[object]:
    """A list without the lists in it; a mapping counts by its keys, null as empty."""
    if isinstance(listed, Mapping):
        return list(listed)
    if not isinstance(listed, list):
        return [] if listed is None else [listed]
    return [inner for item in listed for inner in (item if isinstance(item, list) else [item])]


def _method(section: Section) -> str:
    """Key of `_READERS` that quant_method spells, or that the other keys imply."""
    stated = str(section.get("quant_method") or "").lower().replace("_", "-").rpartition("/")[2]
    if stated:
        return next((method for method in _READERS if stated.startswith(method)), stated)
    return next((method for method, keys in _TELLING.items() if section.get(*keys) is not None), "")


def _speaks_of_cache_alone(section: Section) -> bool:
    quantises = {key for key, value in section.data.items() if value not in (None, [], {})}
    return quantises <= {"kv_cache_scheme", "kv_cache_quant_algo", *_LEFT_OUT}


def _integers(section: Section, keys: tuple[str, ...], *, group: int, zero_points: bool) -> Stored | None:
    """Packed integers of as many bits as one of `keys` says, a scale and perhaps a zero point per group."""
    bits = section.get(*keys)
    if not isinstance(bits, int) or f"int{bits}" not in BYTES:
        known = ", ".join(str(bits) for bits in range(17) if f"int{bits}" in BYTES)
        found = "says nothing of bits" if bits is None else f"found {bits!r}"[:80]
        section.refuse(keys, f"{found}: weights of {known} bits are known")
        return None
    size = bits / 8.0
    return Stored(f"int{bits}", size + ((_SCALE + (size if zero_points else 0.0)) / group if group else 0.0))


def _floats(bits: int, *, group: int = 0, scale: float = 1.0, power_of_two: bool = False) -> Stored:
    """Floats of 4 or 8 bits with a scale of so many bytes per group; MX scales are powers of two."""
    name = f"{'mx' if power_of_two else ''}fp{bits}"
    return Stored(name, bits / 8.0 + (scale / group if group else 0.0))


def _gptq(section: Section) -> Scheme:
    """GPTQ and AutoRound store zero points even where `sym` is true."""
    form = _auto_round_floats(section) or _integers(
        section, ("bits", "w_bit"), group=section.group(default=128), zero_points=True
    )
    named = [*_overridden(section, "dynamic"), *_overridden(section, "extra_config")]
    if section.get("lm_head") is True:
        named.append((_these("lm_head"), form))
    inside = section.names("modules_in_block_to_quantize")
    if section.get("modules_in_block_to_quantize"):
        return Scheme(named=(*named, (inside, form)))
    return Scheme(form, named=tuple(named))


def _auto_round_floats(section: Section) -> Stored | None:
    kind, bits = str(section.get("data_type") or ""), section.get("bits")
    if bits not in (4, 8) or not kind.startswith(("mx_fp", "nv_fp")):
        return None
    group = section.group(default=32 if kind.startswith("mx") else 16)
    return _floats(4 if bits == 4 else 8, group=group, power_of_two=kind.startswith("mx"))


def _overridden(section: Section, key: str) -> list[tuple[ModuleNames, Stored | None]]:
    """Modules with bits or groups of their own: patterns, ``-:`` ahead of those left out (GPTQ)."""
    overrides = section.below(key)
    named: list[tuple[ModuleNames, Stored | None]] = []
    for pattern, override in overrides.members() if overrides else ():
        bits = override.get("bits")
        name = pattern[2:] if pattern[:2] in ("-:", "+:") else pattern
        form = None
        if not pattern.startswith("-:") and not (isinstance(bits, int) and bits >= 16):
            merged = {**section.data, **override.data}
            inner = Section(section.keys, section.place, merged, section.quiet)
            form = _integers(inner, ("bits",), group=inner.group(default=128), zero_points=True)
        names = ModuleNames()
        if problem := names.add(f"re:{name}" if key == "dynamic" else name):
            section.keys.fault(override.place, problem, "Give a plain pattern")
        named.append((names, form))
    return named


def _these(*patterns: str) -> ModuleNames:
    names = ModuleNames()
    for pattern in patterns:
        names.add(pattern)
    return names


def _awq(section: Section) -> Scheme:
    return Scheme(
        _integers(
            section,
            ("bits", "w_bit"),
            group=section.group("group_size", "q_group_size", default=128),
            zero_points=section.get("zero_point") is not False,
        )
    )


def _mlx(section: Section) -> Scheme:
    """MLX stores a scale and a bias of two bytes each per group, and quantises embedding and head too."""
    mode = str(section.get("mode") or "affine")
    group = section.group(default=64)
    form: Stored | None
    if mode.startswith(("mxfp", "nvfp")):
        form = _floats(8 if mode.endswith("8") else 4, group=group, power_of_two=mode.startswith("mx"))
    else:
        form = _integers(section, ("bits",), group=group, zero_points=False)
        form = form and Stored(form.dtype, form.element_bytes + (_SCALE / group if group else 0.0))
    return Scheme(form, named=((_these("lm_head", "embed_tokens"), form),))


def _compressed_tensors(section: Section) -> Scheme:
    """`config_groups` by targets: names and patterns first, then classes of modules such as Linear."""
    sparsity = section.below("sparsity_config")
    if sparsity is not None and str(sparsity.get("format") or "dense") != "dense":
        sparsity.refuse(("format",), f"{sparsity.get('format')!r}: sparse weights are not modelled"[:120])
    groups = section.below("config_groups")
    everything, experts = None, None
    named: list[tuple[ModuleNames, Stored | None]] = []
    for _, group in groups.members() if groups else ():
        weights = group.below("weights")
        packing = str(group.get("format") or section.get("format"))
        form = None if weights is None else _tensors(weights, packing)
        targets = _flat(group.get("targets")) or ["Linear"]
        classes = [str(target) for target in targets if str(target)[:1].isupper() and "." not in str(target)]
        if any(word.endswith(("Linear", "Conv1D")) for word in classes):
            everything = everything or form
        elif any("Expert" in word or "MoE" in word for word in classes):
            experts = experts or form
        elif classes:
            group.refuse(("targets",), f"{classes[0]!r} is no class of modules that is known"[:120])
        if len(classes) < len(targets):
            data = {"targets": [target for target in targets if str(target) not in classes]}
            named.append((Section(group.keys, group.place, data, group.quiet).names("targets"), form))
    if groups is None or not groups.data:
        section.refuse(("config_groups",), "config_groups holds no group with weights")
    return Scheme(everything, experts, tuple(named))


def _tensors(weights: Section, packing: str) -> Stored | None:
    """One quantised form of compressed-tensors."""
    bits = weights.get("num_bits")
    scale = str(weights.get("scale_dtype") or "")
    one_byte = "mxfp" in packing or scale.endswith(("uint8", "e8m0fnu", "e8m0"))
    if weights.get("type") != "float":
        in_groups = weights.get("strategy") in (None, "group", "tensor_group")
        group = weights.group(default=0) if in_groups else 0
        zero_points = weights.get("symmetric") is False
        return _integers(weights, ("num_bits",), group=group, zero_points=zero_points)
    if bits == 4:
        group = weights.group(default=32 if one_byte else 16)
        return _floats(4, group=group, power_of_two=one_byte or group == 32)
    if bits == 8:
        block = weights.get("block_structure")
        if weights.get("strategy") == "block" or (isinstance(block, list) and block):
            return _floats(8, group=_area(weights, "block_structure"), scale=4.0)
        group = weights.group(default=32 if one_byte else 0)
        return _floats(8, group=group, scale=1.0 if one_byte else _SCALE, power_of_two=one_byte)
    weights.refuse(("num_bits",), f"found {bits!r}: floats of 4 and 8 bits are known"[:120])
    return None


def _area(section: Section, key: str) -> int:
    """Elements of a block of weights given as its height and width; 128 x 128 where it is not a list."""
    block = section.get(key)
    if not isinstance(block, list):
        return _BLOCK
    sides = [side for side in block if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    if len(sides) != 2 or len(block) != 2:
        section.refuse((key,), f"found {block!r}"[:80], "Give its height and width, as in [128, 128]")
        return _BLOCK
    return sides[0] * sides[1]


def _fp8(section: Section) -> Scheme:
    """FP8 per tensor or channel, or in blocks with a scale of four bytes, or one where it is ue8m0."""
    one_byte = section.get("scale_fmt") == "ue8m0"
    if section.get("weight_block_size") is None:
        return Scheme(_floats(8))
    area = _area(section, "weight_block_size")
    microscaled = one_byte and area == 32
    return Scheme(_floats(8, group=area, scale=1.0 if one_byte else 4.0, power_of_two=microscaled))


def _w4afp8(section: Section) -> Scheme:
    """Experts in four-bit integers, the rest in FP8 blocks (SGLang's w4afp8)."""
    size = 0.5 + _SCALE / (section.group(default=128) or 128)
    return Scheme(_floats(8, group=_BLOCK, scale=4.0), Stored("int4", size))


def _bitsandbytes(section: Section) -> Scheme:
    """Four bits per 64 with fp32 scales, themselves quantised or not (arXiv 2305.14314); or int8 per row."""
    if section.get("load_in_4bit", "_load_in_4bit") is True:
        double = section.get("bnb_4bit_use_double_quant") is True
        return Scheme(Stored("nf4", BYTES["nf4"] if double else 0.5 + 4.0 / 64))
    if section.get("load_in_8bit", "_load_in_8bit") is True:
        return Scheme(Stored("int8", 1.0))
    section.refuse(("load_in_4bit",), "bitsandbytes neither loads in 4 bits nor in 8")
    return Scheme()


def _modelopt(section: Section) -> Scheme:
    """One `quant_algo` for all, or MIXED_PRECISION with one for each of `quantized_layers`."""
    word = section.get("quant_algo", "qformat_weight")
    if word is None or str(word).lower() in ("none", ""):
        if section.below("config_groups") is not None:
            return _compressed_tensors(section)
        if "quant_algo" not in section.data and not _speaks_of_cache_alone(section):
            section.refuse(("quant_method",), "names no quant_algo")
        return Scheme()
    if str(word).upper() == "MIXED_PRECISION":
        layers = section.below("quantized_layers")
        if layers is None or not layers.data:
            return _compressed_tensors(section)
        names: dict[Stored | None, ModuleNames] = {}
        for module, layer in layers.members():
            form = None if layer.get("quant_algo") is None else _algorithm(layer, "quant_algo")
            if problem := names.setdefault(form, ModuleNames()).add(module):
                section.keys.fault(layer.place, problem, "Give a module name")
        return Scheme(named=tuple((modules, form) for form, modules in names.items()))
    return Scheme(_algorithm(section, "quant_algo", "qformat_weight"))


def _algorithm(section: Section, *keys: str) -> Stored | None:
    """The form that one of ModelOpt's algorithms stores."""
    word = str(section.get(*keys)).upper()
    if "NVFP4" in word:
        return _floats(4, group=section.group(default=16))
    if "MXFP4" in word or "MXFP8" in word:
        return _floats(4 if "MXFP4" in word else 8, group=section.group(default=32), power_of_two=True)
    if word.startswith("FP8"):
        blocks = "_PB" in word or "BLOCK" in word
        return _floats(8, group=_BLOCK if blocks else 0, scale=4.0)
    for prefix, bits, group in (("W4A", 4, 128), ("INT4", 4, 128), ("W8A", 8, 0), ("INT8", 8, 0)):
        if word.startswith(prefix):
            data = {**section.data, "bits": bits}
            integers = Section(section.keys, section.place, data, section.quiet)
            zero_points = section.get("has_zero_point") is True
            return _integers(integers, ("bits",), group=section.group(default=group), zero_points=zero_points)
    section.refuse(keys, f"{section.get(*keys)!r} is not known"[:120])
    return None


def _quark(section: Section) -> Scheme:
    """One form for all, and forms of their own by module name (glob) or class."""
    everything = _quark_form(section.below("global_quant_config"))
    named = []
    layers = section.below("layer_quant_config")
    for pattern, layer in layers.members() if layers else ():
        names = ModuleNames()
        if problem := names.add(pattern):
            section.keys.fault(layer.place, problem, "Give a module name or a glob")
        named.append((names, _quark_form(layer)))
    classes = section.below("layer_type_quant_config")
    for name, config in classes.members() if classes else ():
        if name.rpartition(".")[2] == "Linear":
            everything = _quark_form(config)
    return Scheme(everything, named=tuple(named))


def _quark_form(config: Section | None) -> Stored | None:
    weight = None if config is None else config.below("weight")
    if weight is None:
        if config is not None and config.get("weight") is not None:
            config.refuse(("weight",), "weights of several stages are not modelled")
        return None
    word = str(weight.get("dtype") or "").lower()
    microscaled = word.startswith("mx") or str(weight.get("scale_format") or "").lower() == "e8m0"
    if word == "mx":
        word = str(weight.get("mx_element_dtype") or "").lower()
    word = word.removeprefix("mx")
    per_group = weight.get("qscheme") in (None, "per_group")
    if word.startswith("fp8"):
        group = weight.group(default=32 if microscaled else 0) if per_group else 0
        scale = 1.0 if microscaled else _SCALE
        return _floats(8, group=group, scale=scale, power_of_two=microscaled and group > 0)
    if word.startswith("fp4"):
        return _floats(4, group=weight.group(default=32 if microscaled else 16), power_of_two=microscaled)
    bits = word.removeprefix("u").removeprefix("int")
    if word.startswith(("int", "uint")) and bits.isdigit():
        data = {**weight.data, "dtype": int(bits)}
        integers = Section(weight.keys, weight.place, data, weight.quiet)
        zero_points = word.startswith("u") or weight.get("symmetric") is False
        group = weight.group(default=128) if per_group else 0
        return _integers(integers, ("dtype",), group=group, zero_points=zero_points)
    weight.refuse(("dtype",), f"{weight.get('dtype')!r} is not known"[:120])
    return None


def _quark_cache(section: Section) -> str | None:
    """Dtype of a cache that Quark quantises: its own, else that of the outputs, else that of the weights."""
    if not section.get("kv_cache_group") and not section.get("kv_cache_quant_config"):
        return None
    for key in ("kv_cache_quant_config", "layer_quant_config"):
        configs = section.below(key)
        for _, config in configs.members() if configs else ():
            outputs = config.below("output_tensors")
            if outputs is not None and (word := outputs.get("dtype")) is not None:
                if (dtype := known_dtype(word)) is None:
                    outputs.refuse(("dtype",), f"found {word!r}"[:80], _CACHE_REMEDY)
                return dtype
    everything = section.below("global_quant_config")
    weight = everything and everything.below("weight")
    return "fp8" if weight and str(weight.get("dtype")).startswith("fp8") else None


_READERS: Mapping[str, Callable[[Section], Scheme]] = {
    "gptq": _gptq,
    "auto-round": _gptq,
    "awq": _awq,
    "mlx": _mlx,
    "compressed-tensors": _compressed_tensors,
    "fp8": _fp8,
    "fbgemm-fp8": _fp8,
    "ptpc-fp8": _fp8,
    "w8a8-fp8": _fp8,
    "w8a8-int8": lambda _: Scheme(Stored("int8", 1.0)),
    "experts-int8": lambda _: Scheme(experts=Stored("int8", 1.0)),
    "w4afp8": _w4afp8,
    "mxfp8": lambda section: Scheme(_floats(8, group=section.group(default=32), power_of_two=True)),
    "mxfp4": lambda section: Scheme(
        experts=_floats(4, group=section.group(default=32), power_of_two=True)
    ),
    "modelopt": _modelopt,
    "quark": _quark,
    "bitsandbytes": _bitsandbytes,
    "eetq": lambda _: Scheme(Stored("int8", 1.0)),
}
"""Readers by quant_method; the beginning of a method's name is enough."""

_TELLING: Mapping[str, tuple[str, ...]] = {
    "modelopt": ("quant_algo", "quantized_layers", "qformat_weight"),
    "compressed-tensors": ("config_groups",),
    "quark": ("global_quant_config",),
    "bitsandbytes": ("load_in_4bit", "load_in_8bit", "_load_in_4bit", "_load_in_8bit"),
    "fp8": ("weight_block_size", "activation_scheme", "fmt"),
    "awq": ("zero_point", "w_bit"),
    "gptq": ("sym", "desc_act", "true_sequential", "damp_percent"),
    "auto-round": ("autoround_version",),
    "mlx": ("bits",),
}
"""Keys that tell the method of a section without quant_method."""
