"""What each method of quantisation writes into a config, read into one scheme."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from perfmodel.errors import nearest_name
from perfmodel.model.dtypes import BYTES, known_dtype
from perfmodel.model.module_names import ModuleNames
from perfmodel.model.quantisation import (
    BLOCK,
    CACHE_REMEDY,
    LEFT_OUT,
    SCALE,
    WEIGHT_REMEDY,
    Scheme,
    Section,
    Stored,
    block_area,
    flat,
    floats,
    integers,
)

__all__ = ["read_cache_dtype", "read_scheme"]


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
                section.keys.fault((*section.place, "quant_method"), problem, WEIGHT_REMEDY, nearest)
        elif not _speaks_of_cache_alone(section):
            section.refuse((), "names no quant_method, and its keys tell none")
    return Scheme(scheme.everything, scheme.experts, scheme.named, section.names(*LEFT_OUT))


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
                scheme.refuse(("num_bits",), f"found {bits!r} bits per cache element"[:80], CACHE_REMEDY)
            return dtype
        word = section.get(key)
        if word is not None and str(word).lower() not in ("", "none", "auto"):
            dtype = "fp8" if str(word).lower().startswith("fp8") else known_dtype(word)
            if dtype is None:
                section.refuse((key,), f"found {word!r}"[:80], CACHE_REMEDY)
            return dtype
    return _quark_cache(section)


def _method(section: Section) -> str:
    """Key of `_READERS` that quant_method spells, or that the other keys imply."""
    stated = str(section.get("quant_method") or "").lower().replace("_", "-").rpartition("/")[2]
    if stated:
        return next((method for method in _READERS if stated.startswith(method)), stated)
    return next((method for method, keys in _TELLING.items() if section.get(*keys) is not None), "")


def _speaks_of_cache_alone(section: Section) -> bool:
    quantises = {key for key, value in section.data.items() if value not in (None, [], {})}
    return quantises <= {"kv_cache_scheme", "kv_cache_quant_algo", *LEFT_OUT}


def _gptq(section: Section) -> Scheme:
    """GPTQ and AutoRound store zero points even where `sym` is true."""
    form = _auto_roundfloats(section) or integers(
        section, ("bits", "w_bit"), group=section.group(default=128), zero_points=True
    )
    named = [*_overridden(section, "dynamic"), *_overridden(section, "extra_config")]
    if section.get("lm_head") is True:
        named.append((_these("lm_head"), form))
    inside = section.names("modules_in_block_to_quantize")
    if section.get("modules_in_block_to_quantize"):
        return Scheme(named=(*named, (inside, form)))
    return Scheme(form, named=tuple(named))


def _auto_roundfloats(section: Section) -> Stored | None:
    kind, bits = str(section.get("data_type") or ""), section.get("bits")
    if bits not in (4, 8) or not kind.startswith(("mx_fp", "nv_fp")):
        return None
    group = section.group(default=32 if kind.startswith("mx") else 16)
    return floats(4 if bits == 4 else 8, group=group, power_of_two=kind.startswith("mx"))


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
            form = integers(inner, ("bits",), group=inner.group(default=128), zero_points=True)
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
        integers(
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
        form = floats(8 if mode.endswith("8") else 4, group=group, power_of_two=mode.startswith("mx"))
    else:
        form = integers(section, ("bits",), group=group, zero_points=False)
        form = form and Stored(form.dtype, form.element_bytes + (SCALE / group if group else 0.0))
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
        if weights is None and group.data.get("weights") is not None:
            group.refuse(("weights",), "weights is no mapping of num_bits and type")
        packing = str(group.get("format") or section.get("format"))
        form = None if weights is None else _tensors(weights, packing)
        targets = flat(group.get("targets")) or ["Linear"]
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
    if groups is None or len(groups.members()) < max(len(groups.data), 1):
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
        return integers(weights, ("num_bits",), group=group, zero_points=zero_points)
    if bits == 4:
        group = weights.group(default=32 if one_byte else 16)
        return floats(4, group=group, power_of_two=one_byte or group == 32)
    if bits == 8:
        block = weights.get("block_structure")
        if weights.get("strategy") == "block" or (isinstance(block, list) and block):
            return floats(8, group=block_area(weights, "block_structure"), scale=4.0)
        group = weights.group(default=32 if one_byte else 0)
        return floats(8, group=group, scale=1.0 if one_byte else SCALE, power_of_two=one_byte)
    weights.refuse(("num_bits",), f"found {bits!r}: floats of 4 and 8 bits are known"[:120])
    return None


def _fp8(section: Section) -> Scheme:
    """FP8 per tensor or channel, or in blocks with a scale of four bytes, or one where it is ue8m0."""
    one_byte = section.get("scale_fmt") == "ue8m0"
    if section.get("weight_block_size") is None:
        return Scheme(floats(8))
    block = block_area(section, "weight_block_size")
    microscaled = one_byte and block == 32
    return Scheme(floats(8, group=block, scale=1.0 if one_byte else 4.0, power_of_two=microscaled))


def _w4afp8(section: Section) -> Scheme:
    """Experts in four-bit integers, the rest in FP8 blocks (SGLang's w4afp8)."""
    size = 0.5 + SCALE / (section.group(default=128) or 128)
    return Scheme(floats(8, group=BLOCK, scale=4.0), Stored("int4", size))


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
        return floats(4, group=section.group(default=16))
    if "MXFP4" in word or "MXFP8" in word:
        return floats(4 if "MXFP4" in word else 8, group=section.group(default=32), power_of_two=True)
    if word.startswith("FP8"):
        blocks = "_PB" in word or "BLOCK" in word
        return floats(8, group=BLOCK if blocks else 0, scale=4.0)
    for prefix, bits, group in (("W4A", 4, 128), ("INT4", 4, 128), ("W8A", 8, 0), ("INT8", 8, 0)):
        if word.startswith(prefix):
            data = {**section.data, "bits": bits}
            fixed = Section(section.keys, section.place, data, section.quiet)
            zero_points = section.get("has_zero_point") is True
            return integers(fixed, ("bits",), group=section.group(default=group), zero_points=zero_points)
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
        scale = 1.0 if microscaled else SCALE
        return floats(8, group=group, scale=scale, power_of_two=microscaled and group > 0)
    if word.startswith("fp4"):
        return floats(4, group=weight.group(default=32 if microscaled else 16), power_of_two=microscaled)
    bits = word.removeprefix("u").removeprefix("int")
    if word.startswith(("int", "uint")) and bits.isdigit():
        data = {**weight.data, "dtype": int(bits)}
        numbered = Section(weight.keys, weight.place, data, weight.quiet)
        zero_points = word.startswith("u") or weight.get("symmetric") is False
        group = weight.group(default=128) if per_group else 0
        return integers(numbered, ("dtype",), group=group, zero_points=zero_points)
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
                    outputs.refuse(("dtype",), f"found {word!r}"[:80], CACHE_REMEDY)
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
    "mxfp8": lambda section: Scheme(floats(8, group=section.group(default=32), power_of_two=True)),
    "mxfp4": lambda section: Scheme(
        experts=floats(4, group=section.group(default=32), power_of_two=True)
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
