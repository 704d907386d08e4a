"""Engine files written from what servers took: one for a software, one for each family it was fitted on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from perfmodel.engine import EngineOverhead
from perfmodel.evidence.servers.fit import Fitted, beliefs_of
from perfmodel.files.quantity import Z90, Kind, Quantity
from perfmodel.files.spec import to_yaml
from perfmodel.files.units import plural
from perfmodel.files.writing import write_whole

__all__ = ["CARDS", "preset_of", "write_presets"]

CARDS: Mapping[str, str] = {
    "ampere": "a100", "hopper": "h100", "blackwell": "b200", "ada": "rtx-4090", "cdna3": "mi300x",
}  # fmt: skip
"""What the preset of a family is called after: the accelerator that most of its rows ran on."""
ALIASES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("tensorrt-llm", ""): ("trtllm", "tensorrt_llm", "trt-llm"),
    ("vllm", "hopper"): ("vllm-h200", "vllm-fp8-h100", "vllm-fp8"),
    ("sglang", "hopper"): ("sglang-h200",),
    ("tensorrt-llm", "hopper"): ("tensorrt-llm-h200", "trtllm-h100"),
    ("vllm", "ada"): ("vllm-l40s",),
}
"""Other names of presets: of accelerators of the same family, and of files that they replace."""
DIGITS = 3
TOLD = 0.7
"""Share of its range before below which a figure's range is what the rows say. [1]"""
_LEFT_OUT = "published steps of sources that were left out of the fit"
_BESIDE_RANGES = "less than where a family was fitted, as the ranges of all other figures are drawn too"
_FRONT_END = (
    "3 to 7 ms in closed loops of 16 and 32 requests that end together: Qwen2.5-0.5B on an L4, vLLM 0.23 "
    "(https://ai.wmx.dev/benchmarks); at most 10.5 ms where 94.9 requests a second of Qwen3-0.6B pass on an "
    "H100, vLLM 0.19 (ovg-project/kvcached pull request 331)"
)
_ON_ITS_WAY = (
    "TTFT less prefill and the time at the front end: 3 ms (Llama-3.1-8B on an H100, vLLM 0.21, "
    "https://yobitelcomm.github.io/bench/recipes/concurrency-sweep), 17 ms (ai.wmx.dev/benchmarks), 30 ms "
    "(kvcached pull request 331)"
)
_ONE_LAUNCH = (
    "none where graphs are captured and the scheduler runs ahead: rounds of 1 to 4 drafts differ by the "
    "drafts alone (dishantghai/ai-perf-hw3-spec-decode-quant)"
)


@dataclass(frozen=True)
class Served:
    """What a serving software is, beside the figures that are fitted.

    attention_kernel, all_reduce : by their names in hardware profiles.
    request, request_delay : seconds of a request at the front end, and on its way besides; None where nobody
        published them. They are no part of a step, and have no range: plans do not ask for them. [s]
    eager : seconds in which the host launches a layer with experts outside graphs: low, value, high, by
        family, and under "" elsewhere. [s]
    """

    title: str
    attention_kernel: str
    all_reduce: str
    eager: Mapping[str, tuple[float, float, float]]
    eager_source: str
    request: float | None = None
    request_delay: float | None = None


_COOKBOOK = (
    "mean TPOT less median inter-token latency, times output over concurrency, of DeepSeek-R1, V3.1, "
    "MiniMax-M2.5, GLM-4.7-Flash and Ernie-4.5 (sgl-project/sgl-cookbook@7b5bd9c)"
)
SOFTWARE: Mapping[str, Served] = {
    "vllm": Served(
        "vLLM with its V1 engine, captured graphs and an asynchronous scheduler", "vllm", "custom-graph",
        {"": (0.0, 0.3e-3, 1.2e-3)},
        "not published for vLLM, whose prefills run in pieces of graphs; SGLang's take 0.6 to 1.9 ms a layer",
        request=4e-3, request_delay=10e-3,
    ),
    "sglang": Served(
        "SGLang with captured graphs and its overlapped scheduler", "sglang", "custom-graph",
        {"": (0.4e-3, 0.8e-3, 1.5e-3), "hopper": (0.4e-3, 0.65e-3, 1.2e-3),
         "blackwell": (0.6e-3, 1.1e-3, 1.9e-3), "cdna3": (0.5e-3, 1e-3, 1.9e-3)}, _COOKBOOK,
    ),
    "tensorrt-llm": Served(
        "TensorRT-LLM with captured graphs", "trtllm", "trtllm",
        {"": (0.0, 0.0, 0.6e-3)}, "not published for TensorRT-LLM",
    ),
}  # fmt: skip
RESIDUALS: Mapping[str, tuple[float, float, float]] = {
    "step_residual": (0.035, 0.045, 0.09),
    "expert_residual": (0.06, 0.08, 0.16),
}
"""Spread of steps of sources that were left out of the fit: low, value, high. [1]"""
ELSEWHERE: Mapping[str, tuple[float, float, float]] = {
    "step_residual": (0.02, 0.03, 0.06),
    "expert_residual": (0.04, 0.06, 0.12),
}
"""What is left open where no family was fitted, beside the ranges of all figures, which are drawn. [1]"""


def preset_of(
    software: str, family: str, figures: Fitted, families: Iterable[str] = ()
) -> EngineOverhead:
    """Return the engine of a software on a family of accelerators, or on any where `family` is empty.

    A figure that the rows say little of, and every one of an engine for any accelerator, counts as assumed.

    Parameters
    ----------
    figures : what was fitted there.
    families : those that have presets of their own.
    """
    about = SOFTWARE[software]
    generic = EngineOverhead.load("generic")
    fitted_to = f"{plural(figures.rows, 'number')} of {plural(len(figures.sources), 'source')}"
    source = f"fitted to {fitted_to} in measurements/servers.csv"
    quantities: dict[str, Quantity] = {}
    for path, believed in beliefs_of(software, family).items():
        low, value, high = (float(getattr(figures, end)[path]) for end in ("low", "values", "high"))
        known = bool(family) and high - low < TOLD * (believed.at(Z90) - believed.at(-Z90))
        unit = "s" if path != "streaming" else ""
        kind: Kind = "measured" if known else "assumed"
        silent = ", which say little of it" if family and not known else ""
        quantities[path] = Quantity(value, low, high, unit, source + silent, kind)
    low, value, high = about.eager.get(family) or about.eager[""]
    quantities["eager_expert_layer"] = Quantity(value, low, high, "s", about.eager_source, "assumed")
    quantities["draft_forward"] = Quantity(0.0, 0.0, 1.0, "", _ONE_LAUNCH, "assumed")
    if about.request is not None and about.request_delay is not None:
        for path, value, source in (
            ("request", about.request, _FRONT_END), ("request_delay", about.request_delay, _ON_ITS_WAY),
        ):  # fmt: skip
            quantities[path] = Quantity(value, value, value, "s", source, "published")
    for path, (low, value, high) in (RESIDUALS if family else ELSEWHERE).items():
        left_open: tuple[str, Kind] = (_LEFT_OUT, "measured") if family else (_BESIDE_RANGES, "assumed")
        quantities[path] = Quantity(value, low, high, "", *left_open)
    engine = replace(
        generic,
        name=f"{software}-{CARDS[family]}" if family else software,
        software=software.replace("-", "_"),
        description=about.title + (f", on {family} accelerators" if family else ", on any accelerator"),
        aliases=ALIASES.get((software, family), ()),
        presets=() if family else tuple(f"{software}-{CARDS[name]}" for name in families),
        families=(family,) if family else (),
        fitted_to=fitted_to,
        attention_kernel=about.attention_kernel,
        all_reduce=about.all_reduce,
        other_attention_kernel="",
        other_kernel_share=0.0,
        quantities={},
    )
    kept = {path: kept for path, kept in generic.quantities.items() if path != "other_kernel_share"}
    return engine.with_quantities(kept | quantities, DIGITS)


def write_presets(fitted: Mapping[tuple[str, str], Fitted], folder: Path) -> None:
    """Write the file of every software and family that was fitted."""
    for (software, family), figures in fitted.items():
        families = [name for of, name in fitted if of == software and name]
        engine = preset_of(software, family, figures, families)
        write_whole(folder / f"{engine.name}.yaml", to_yaml(engine))
