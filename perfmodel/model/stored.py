"""How a checkpoint stores each of its matrices and its cache, what is left out of quantisation too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from perfmodel.model.channels.experts import COUNTS
from perfmodel.model.dtypes import BYTES, UNQUANTIZED, dtype_name, known_dtype
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.module_names import ModuleNames
from perfmodel.model.quantisation import Scheme, Section, Stored
from perfmodel.model.quantisation_methods import read_cache_dtype, read_scheme

__all__ = ["Stored", "StoredWeights", "read_stored_weights"]

_EXPERT_FORMS = {
    "fp4": Stored("mxfp4", BYTES["mxfp4"]),
    "mxfp4": Stored("mxfp4", BYTES["mxfp4"]),
    "nvfp4": Stored("fp4", BYTES["fp4"]),
    "int4": Stored("int4", BYTES["int4"]),
}
"""Forms of `expert_dtype`; DeepSeek-V4 calls MXFP4 (a power of two per 32) fp4."""


@dataclass(frozen=True)
class StoredWeights:
    """How a checkpoint stores its matrices and its cache.

    Parameters
    ----------
    base : dtype of whatever is not quantised.
    weights : the narrowest quantised dtype, which most weights of a checkpoint have; `base` where none is.
    kv : dtype of the cache.
    scheme : which matrix is quantised and how.
    """

    base: str
    weights: str
    kv: str
    scheme: Scheme = field(default_factory=Scheme)

    def of(self, layer: int | None, modules: Sequence[str], *, keeps_precision: bool = False) -> Stored:
        """Return how one matrix is stored.

        Parameters
        ----------
        layer : number of its layer, None for what lies outside the layers.
        modules : its names in checkpoints, below the layer: ``("self_attn.q_proj", "self_attn.k_proj")``.
            Several are parts that are stored side by side, or spellings; it is left out of quantisation, or
            quantised in a way of its own, where the file says so of any of them.
        keeps_precision : routers, in a layer, stay unquantised; the head does unless the file names it.
        """
        plain = Stored(self.base, BYTES[self.base])
        scheme = self.scheme
        if keeps_precision and layer is not None:
            return plain
        if any(scheme.left_out.holds(layer, module) for module in modules):
            return plain
        for names, form in scheme.named:
            if any(names.holds(layer, module, by_name=keeps_precision) for module in modules):
                return form or plain
        if keeps_precision:
            return plain
        routed = scheme.experts is not None and any("experts" in module.split(".") for module in modules)
        return (scheme.experts if routed else scheme.everything) or plain


def read_stored_weights(
    keys: ConfigKeys, *, weight_dtype: str | None, kv_dtype: str | None
) -> StoredWeights:
    """Return how weights and cache are stored.

    The section is ``quantization_config`` of the decoder or of the top level, or that of the
    ``hf_quant_config.json`` beside; what is wrong with it becomes a fault of `keys`.

    Parameters
    ----------
    keys : the config.
    weight_dtype : a stated dtype of all that the file does not leave out; wins over the file.
    kv_dtype : a stated dtype of the cache; wins over the file.

    Raises
    ------
    SpecError
        When a stated dtype is not known.
    """
    base = _base_dtype(keys)
    sections = _sections(keys, quiet=weight_dtype is not None)
    telling = (section for section in sections if section.data.keys() - {"quant_method"})
    section = next(telling, sections[0] if sections else None)
    scheme = Scheme() if section is None else read_scheme(section)
    scheme = _with_expert_dtype(keys, scheme, quiet=weight_dtype is not None)
    if scheme.experts and scheme.everything is None and not scheme.named and not _has_experts(keys):
        scheme = replace(scheme, everything=scheme.experts)  # a form of experts, in a model without them
    kv = base
    if kv_dtype is not None:
        kv = dtype_name(kv_dtype, field="kv_dtype")
    else:
        loud = (replace(section, quiet=False) for section in sections)
        kv = next((dtype for section in loud if (dtype := read_cache_dtype(section))), base)
    if weight_dtype is None:
        narrowest = min(scheme.forms, key=lambda form: form.element_bytes, default=None)
        return StoredWeights(base, narrowest.dtype if narrowest else base, kv, scheme)
    weights = dtype_name(weight_dtype, field="weight_dtype")
    if weights in UNQUANTIZED:
        return StoredWeights(weights, weights, kv)
    return StoredWeights(base, weights, kv, _restated(scheme, weights))


def _has_experts(keys: ConfigKeys) -> bool:
    entry = keys.find(*COUNTS)
    return entry is not None and bool(entry[1])


def _sections(keys: ConfigKeys, *, quiet: bool) -> list[Section]:
    """The quantisation sections that say something: the decoder's, the top level's, the file's beside."""
    sections = []
    for path, value in keys.find_all("quantization_config", "compression_config", "quantization"):
        if not isinstance(value, Mapping) and path[-1] != "quantization":
            keys.fault(path, f"found {value!r}"[:80], "Give a mapping with quant_method")
        elif isinstance(value, Mapping) and value:
            sections.append(Section(keys, path, value, quiet))
            if keys.is_beside(path) and len(sections) == 1:
                keys.assumed.append(f"quantisation is read from {path[0]} beside the config")
    return sections


def _with_expert_dtype(keys: ConfigKeys, scheme: Scheme, *, quiet: bool) -> Scheme:
    """Scheme in which routed experts are stored as `expert_dtype` says (DeepSeek-V4)."""
    entry = keys.find("expert_dtype")
    if entry is None:
        return scheme
    word = str(entry[1]).lower()
    if word in _EXPERT_FORMS:
        return replace(scheme, experts=_EXPERT_FORMS[word])
    if known_dtype(word) is None and not quiet:
        known = ", ".join((*_EXPERT_FORMS, "fp8", "bf16"))
        keys.fault(entry[0], f"found {entry[1]!r}"[:80], f"Give one of {known}")
    elif known_dtype(word) in UNQUANTIZED:
        experts = ModuleNames()
        experts.add("experts")
        return replace(scheme, named=(*scheme.named, (experts, None)))
    return scheme


def _restated(scheme: Scheme, dtype: str) -> Scheme:
    """Scheme with `dtype` for all that it quantises; forms that are of this dtype keep their groups."""

    def restate(form: Stored | None) -> Stored | None:
        return form if form is None or form.dtype == dtype else Stored(dtype, BYTES[dtype])

    if not scheme.forms:
        return replace(scheme, everything=Stored(dtype, BYTES[dtype]))
    return replace(
        scheme,
        everything=restate(scheme.everything),
        experts=restate(scheme.experts),
        named=tuple((names, restate(form)) for names, form in scheme.named),
    )


def _base_dtype(keys: ConfigKeys) -> str:
    """Type of the unquantised weights; checkpoints in float32 are served in bf16, as engines load them."""
    entry = keys.find("torch_dtype", "dtype")
    if entry is None or entry[1] == "auto":
        keys.assumed.append("torch_dtype is not in the config; assumed bf16")
        return "bf16"
    name = known_dtype(entry[1])
    if name == "fp32":
        keys.assumed.append("torch_dtype is float32; assumed to be served in bf16, as engines do")
        return "bf16"
    if name not in UNQUANTIZED:
        keys.fault(entry[0], f"found {entry[1]!r}"[:80], "Give bfloat16, float16 or float32")
        return "bf16"
    return str(name)
