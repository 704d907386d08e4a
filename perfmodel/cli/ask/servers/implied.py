"""What a server's options imply, by the names of this command line's own parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from perfmodel.cli.ask.servers.server import Server, version_in
from perfmodel.cli.ask.servers.shell import unset_in
from perfmodel.files.units import parse_count

__all__ = ["Implied", "implied_by"]

USUAL_MOST = 256
"""Sequences at a time where a server names no bound: the least that engines take by default."""
_SAME = {
    "tp": ("tensor-parallel-size", "tp-size", "tp"),
    "pp": ("pipeline-parallel-size", "pp-size", "pp"),
    "gpu_memory_utilization": ("gpu-memory-utilization",),
    "max_step_tokens": ("max-num-batched-tokens", "chunked-prefill-size", "max-num-tokens"),
}
_NAMED = {
    "model": ("", "model", "model-path", "model-tag"),
    "context": ("max-model-len", "context-length", "max-seq-len"),
    "batch": ("max-num-seqs", "max-running-requests", "max-batch-size"),
    "dp": ("data-parallel-size", "dp-size", "dp"),
    "ep": ("expert-parallel-size", "ep-size", "ep"),
}
_METHODS = {
    "eagle": "eagle", "eagle3": "eagle", "mtp": "mtp", "nextn": "mtp", "ngram": "ngram", "lookahead": "ngram",
    "draft_model": "full_kv", "standalone": "full_kv", "draft_target": "full_kv", "medusa": "medusa",
    "dflash": "dflash", "p_eagle": "p_eagle", "user_provided": "",
}  # fmt: skip
"""Strategies by what engines call them, in lower case."""
_STORED = {"fp8": "fp8", "w8a8_fp8": "fp8", "w8a8_int8": "int8", "mxfp8": "mxfp8"}
"""How weights are stored that a server quantises itself, unless their name says that they are."""
_UNPRICED = {
    "mem-fraction-static": "it leaves activations out, --gpu-memory-utilization does not",
    "kv-cache-free-gpu-memory-fraction": "it is of what is free, --gpu-memory-utilization of all",
}


@dataclass
class Implied:
    """Values by parameter, the option that says each, what was not read, and sentences on the rest.

    `unset` names the variable of each parameter whose value nobody knows.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unset: dict[str, tuple[str, str]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def take(self, parameter: str, value: Any, source: str) -> None:
        """Keep a value; one in which a variable is left is named as unset."""
        if isinstance(value, str) and (variable := unset_in(value)):
            self.unset[parameter] = (source, variable)
        else:
            self.values[parameter] = value
            self.sources[parameter] = source


def implied_by(server: Server) -> Implied:
    """Return what a server implies."""
    implied, options = Implied(), dict(server.options)

    def taken(*names: str) -> tuple[str, Any]:
        present = [name for name in names if name in options]
        values = [(name, options.pop(name)) for name in present]
        return values[0] if values else ("", None)

    for parameter, names in _SAME.items():
        name, value = taken(*names)
        if value is not None:
            implied.take(parameter, str(value), f"--{name}")
    name, model = taken(*_NAMED["model"])
    if model is not None:
        implied.take("model", str(model), f"--{name}" if name else "model")
    _parallel(implied, server, taken)
    _engine(implied, server)
    _stored(implied, taken, str(model or ""))
    if server.hardware:
        implied.take("hardware", server.hardware, "nodeSelector")
    name, longest = taken(*_NAMED["context"])
    if longest is not None and str(longest).lower() not in ("auto", "-1", "none"):
        implied.take("max_model_len", str(longest), f"--{name}")
    name, most = taken(*_NAMED["batch"])
    if most is not None:
        implied.take("max_batch", str(most), f"--{name}")
    _drafting(implied, server.engine, taken)
    for name in options:
        if name in _UNPRICED:
            implied.remarks.append(f"--{name} is not read: {_UNPRICED[name]}")
        else:
            implied.unread.append(f"--{name}" if name else str(options[name]))
    return implied


Take = Callable[..., tuple[str, Any]]


def _parallel(implied: Implied, server: Server, taken: Take) -> None:
    """Take experts and groups. Of SGLang groups that do not share attention are replicas of their own."""
    name, groups = taken(*_NAMED["dp"])
    _, attention = taken("enable-dp-attention")
    if groups is not None and server.engine == "sglang" and attention is None:
        implied.remarks.append(f"--{name} {groups} are replicas of their own: the question is that of one")
    elif groups is not None:
        implied.take("dp", str(groups), f"--{name}")
        if attention is not None:
            implied.take("dp_attention", True, "--enable-dp-attention")
    name, experts = taken("enable-expert-parallel", "enable-ep-moe", *_NAMED["ep"])
    if experts is not None and str(experts) not in ("1", "false"):
        implied.take("expert_parallel", True, f"--{name}")
    used = math.prod(
        int(number) for key in ("tp", "pp", "dp")
        if (number := str(implied.values.get(key, "1"))).isdigit()
        and not (key == "dp" and attention is not None)
    )  # fmt: skip
    asked = server.gpus * server.nodes
    if asked and asked != used and not implied.unset:
        implied.remarks.append(f"it asks for {asked} GPUs, and its options share the model among {used}")


def _engine(implied: Implied, server: Server) -> None:
    release = version_in(server.image)
    at = f"@{release}" if release and server.engine == "vllm" else ""
    implied.take("engine", server.engine + at, server.image if at else server.engine)


def _stored(implied: Implied, taken: Take, model: str) -> None:
    """Take what weights and caches are stored in, where an option says so and not the checkpoint."""
    _, dtype = taken("dtype")
    if str(dtype).lower() in ("float32", "float"):
        implied.take("weight_dtype", "fp32", "--dtype")
    name, method = taken("quantization")
    stored = _STORED.get(str(method).lower())
    if stored is not None:
        if not re.search(r"fp8|w8a8|int8", model.lower()):
            implied.take("weight_dtype", stored, f"--{name}")
    elif method is not None:
        implied.remarks.append(f"--{name} {method}: weights are taken as the checkpoint says they are stored")
    name, kv = taken("kv-cache-dtype")
    if kv is not None and str(kv).lower() != "auto":
        text = str(kv).lower()
        implied.take("kv_cache_dtype", "fp8" if text.startswith("fp8") else text, f"--{name}")


def _drafting(implied: Implied, engine: str, taken: Take) -> None:
    """Take who drafts, and how many tokens."""
    name, config = taken("speculative-config")
    if isinstance(config, str):
        implied.take("strategy", config, f"--{name}")
        implied.remarks.append(f"--{name} is no JSON mapping: who drafts is not read")
        implied.values.pop("strategy", None)
        config = {}
    words: dict[str, Any] = {str(key): value for key, value in (config or {}).items()}
    for key, names in {
        "method": ("speculative-algorithm", "speculative-algo", "decoding-type"),
        "model": ("speculative-model", "speculative-draft-model-path", "speculative-draft-model"),
        "num_speculative_tokens": ("num-speculative-tokens", "speculative-num-steps"),
        "topk": ("speculative-eagle-topk",),
        "nodes": ("speculative-num-draft-tokens",),
        "draft_tensor_parallel_size": ("speculative-draft-tensor-parallel-size",),
    }.items():
        option, value = taken(*names)
        if value is not None:
            words[key], name = value, name or option
    if not words:
        return
    _say_drafts(implied, engine, words, f"--{name}")


def _say_drafts(implied: Implied, engine: str, words: Mapping[str, Any], source: str) -> None:
    paths = (words.get(key) for key in ("model", "speculative_model_dir", "speculative_model"))
    path = next((str(each) for each in paths if each), "")
    method = str(words.get("method") or words.get("decoding_type") or "").lower()
    if not method and path:
        method = "ngram" if "ngram" in path.lower() else "eagle" if "eagle" in path.lower() else "draft_model"
    if method == "eagle" and engine == "sglang" and not path:
        method = "mtp"  # EAGLE over the layers that a target ships
    strategy = _METHODS.get(method, "mtp" if method.endswith("mtp") else "")
    if words.get("parallel_drafting") is True and strategy == "eagle":
        strategy = "p_eagle"
    if not strategy:
        implied.remarks.append(f"{source} {method or '?'}: nothing is priced for it, and it is not read")
        return
    implied.take("strategy", strategy, source)
    if strategy == "full_kv" and path:
        implied.take("draft_model", path, source)
    elif path and strategy not in ("ngram", "mtp"):
        implied.remarks.append(
            f"{path} is planned as a usual {strategy} head; --draft-model {path} reads its own config"
        )
    lengths = ("num_speculative_tokens", "max_draft_len", "num_nextn_predict_layers")
    tokens = next((words[key] for key in lengths if words.get(key) is not None), None)
    branches = str(words.get("topk", "1"))
    if tokens is not None:
        implied.take("gamma", str(tokens), source)
    if branches.isdigit() and int(branches) > 1:
        implied.take("topk", int(branches), source)
        if str(words.get("nodes", "")).isdigit():
            implied.take("nodes", int(str(words["nodes"])), source)
    if words.get("draft_tensor_parallel_size") is not None and strategy == "full_kv":
        implied.take("draft_tp", str(words["draft_tensor_parallel_size"]), source)


def cells_of(implied: Implied, output_tokens: int) -> dict[str, tuple[str, str]]:
    """Return the batch sizes and the context that fill a server, each with the option that says so.

    Parameters
    ----------
    output_tokens : tokens that follow the context: both together are the longest that it takes. [tokens]
    """
    cells = {}
    most, source = implied.values.get("max_batch"), implied.sources.get("max_batch", "")
    if "max_batch" not in implied.unset:
        groups = parse_count(implied.values.get("dp", "1"))
        bound = parse_count(most) if most is not None else USUAL_MOST
        cells["batch_size"] = (f"1-{bound * groups}", source)
    longest = implied.values.get("max_model_len")
    if longest is not None:
        tokens = parse_count(longest)
        prompt = tokens - output_tokens if tokens > output_tokens else tokens
        cells["context"] = (str(prompt), implied.sources["max_model_len"])
    return cells
