"""Servers in a file: a script, a compose file, Kubernetes manifests, or an engine's own YAML."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from perfmodel.cli.ask.servers.server import Server, find_server, options_of
from perfmodel.cli.ask.servers.shell import Command, commands_in, expanded
from perfmodel.errors import SpecError
from perfmodel.files.document import Document, Place, parse_yaml, read_yaml
from perfmodel.files.opening import PROFILE, read_file, text_of

__all__ = ["servers_in_file", "servers_in_text"]

_GPUS = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915")
_PRODUCT = re.compile(
    r"gpu\.product|gpu\.product-name|gke-accelerator|instance-gpu-name|accelerator|gpu\.nvidia\.com/(class|model)"
)
_GKE = {"nvidia-tesla-a100": "a100-40gb"}
"""Labels of GKE that say less than they mean."""
_CONFIGS = ("config", "extra-llm-api-options")
"""Options that name a file of further ones."""
_OWN = ("model", "tensor-parallel-size", "max-model-len", "gpu-memory-utilization")
"""Keys of which vLLM's own YAML has one."""


def servers_in_file(file: str) -> list[Server]:
    """Return the servers that a file starts, in its order. Raises SpecError where it cannot be read."""
    text = text_of(read_file(file, PROFILE), file)
    try:
        if not _is_yaml(file, text):
            return servers_in_text(text, os.path.dirname(file))
        servers = [server for document in _documents(text, file) for server in _servers(document)]
    except SpecError as refusal:
        raise refusal.located(file, None, "") from None
    return [_with_config(server, os.path.dirname(file)) for server in servers]


def servers_in_text(text: str, folder: str = "") -> list[Server]:
    """Return the servers that shell text starts; files that they read lie in `folder`. Raises SpecError."""
    servers: list[Server] = []
    for command in commands_in(text):
        if (server := _server(command, str(len(servers) + 1))) is not None:
            servers.append(_with_config(server, folder))
    return servers


def _with_config(server: Server, folder: str) -> Server:
    """Return a server with what the YAML says that it reads, if that lies here; its own options win."""
    for name in _CONFIGS:
        named = server.options.get(name)
        if isinstance(named, str) and os.path.isfile(path := os.path.join(folder, named)):
            options = dict(server.options)
            options.pop(name)
            return replace(server, options={**_options(read_yaml(path).data), **options})
    return server


def _options(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that an engine's own YAML sets, TensorRT-LLM's for its cache among them."""
    options = {_dashed(key): _written(value) for key, value in data.items() if value is not None}
    cache = options.pop("kv-cache-config", None)
    for key, value in cache.items() if isinstance(cache, dict) else ():
        options[{"dtype": "kv-cache-dtype"}.get(key, f"kv-cache-{_dashed(key)}")] = _written(value)
    return options


def _is_yaml(file: str, text: str) -> bool:
    if file.lower().endswith((".yaml", ".yml", ".json")):
        return True
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    return re.match(r"(---|[\w.-]+:(\s|$))", first) is not None


def _documents(text: str, file: str) -> Iterator[Document]:
    """Yield the documents of a file, each strictly read, with the lines that they have in it."""
    lines = text.splitlines()
    starts = [0, *(number + 1 for number, line in enumerate(lines) if re.match(r"---(\s|$)", line))]
    for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        part = lines[start : end if end > len(lines) else end - 1]
        if any(line.strip() and not line.lstrip().startswith("#") for line in part):
            yield parse_yaml(("\n" * start + "\n".join(part)).encode(), file)


def _server(command: Command, name: str, image: str = "", **more: Any) -> Server | None:
    """Return the server that a command starts; None where it starts none."""
    started = find_server(command.words, image)
    if started is None:
        return None
    engine, words, own_image = started
    options = options_of(words)
    gpus = more.pop("gpus", 0) or _gpus_of_docker(command.words)
    return Server(
        name=name, engine=engine, words=words, image=own_image, options=options, gpus=gpus, **more
    )


def _gpus_of_docker(words: list[str]) -> int:
    """Return how many GPUs ``docker run --gpus`` names; 0 for all and none."""
    given = options_of(words[: len(words)]).get("gpus") if "run" in words else None
    text = given if isinstance(given, str) else ""
    if "device=" in text:
        return len([part for part in text.partition("device=")[2].strip("'\"").split(",") if part])
    return int(text) if text.isdigit() else 0


def _servers(document: Document) -> Iterator[Server]:
    """Yield the servers of a YAML document."""
    data = document.data
    if isinstance(services := data.get("services"), dict):
        for name, service in services.items():
            if isinstance(service, dict):
                yield from _of_container(document, ("services", name), str(name), service, {})
        return
    pods = list(_pods(data, ()))
    if not pods and any(_dashed(key) in _OWN for key in data):
        yield Server(name="1", engine="vllm", words=(), options=_options(data), line=1)
        return
    outer = data.get("metadata")
    owner = str(outer.get("name", "")) if isinstance(outer, dict) else ""
    for place, pod, nodes in pods:
        about = {"hardware": _hardware(pod), "nodes": nodes}
        for number, container in enumerate(pod["containers"]):
            if isinstance(container, dict):
                name = str(container.get("name") or owner)
                inside = (*place, "containers", number)
                yield from _of_container(document, inside, name, container, about, owner)


def _pods(value: Any, place: Place, nodes: int = 1) -> Iterator[tuple[Place, dict[str, Any], int]]:
    """Yield every pod in a manifest, and the nodes of the group that it leads."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _pods(item, (*place, number), nodes)
    elif isinstance(value, dict):
        if isinstance(value.get("containers"), list):
            yield place, value, nodes
            return
        size = value.get("size") if "workerTemplate" in value else None
        for key, inner in value.items():
            yield from _pods(inner, (*place, key), size if isinstance(size, int) and size > 0 else nodes)


def _of_container(
    document: Document, place: Place, name: str, container: dict[str, Any], about: dict[str, Any],
    owner: str = "",
) -> Iterator[Server]:  # fmt: skip
    """Yield the servers that a container starts, with the variables that its environment sets."""
    variables = _environment(container.get("environment", container.get("env")))
    image = expanded(str(container.get("image", "")), variables)
    start = "command" if "args" in container or "resources" in container or about else "entrypoint"
    follow = "args" if start == "command" else "command"
    words = [*_words(container.get(start)), *_words(container.get(follow))]
    if not words:
        return
    text = shlex.join(words) if len(words) > 1 else words[0]
    for key in (follow, start):
        if isinstance(container.get(key), (list, str)):
            line = document.line((*place, key))
            break
    more = {**about, "gpus": _gpus_asked(container), "image": image, "line": line}
    words = [expanded(word, variables) for word in words]
    server = _server(Command(words, variables), name, **more)
    if server is not None:
        yield server
        return
    for command in commands_in(text.replace("$$", "$"), variables):
        if (server := _server(command, name or owner, **more)) is not None:
            yield server


def _words(given: Any) -> list[str]:
    """Return the words of a list, or of a text as a shell takes it apart."""
    if isinstance(given, list):
        return [_written(word) for word in given if not isinstance(word, (dict, list))]
    if not isinstance(given, str):
        return []
    try:
        return shlex.split(given.replace("\\\n", " "))
    except ValueError:
        raise SpecError.single("", "", f"found {given[:60]!r}, where a quote is open", "Close it") from None


def _written(value: Any) -> Any:
    """Return a value of YAML as it would be typed."""
    if value is True:
        return True
    return value if isinstance(value, dict) else str(value).lower() if value is False else str(value)


def _dashed(key: object) -> str:
    return str(key).lstrip("-").replace("_", "-")


def _environment(given: Any) -> dict[str, str]:
    """Return the variables that a container sets: a mapping, lines NAME=value, or names with values."""
    if isinstance(given, dict):
        return {str(name): str(value) for name, value in given.items() if not isinstance(value, (dict, list))}
    variables = {}
    for item in given if isinstance(given, list) else ():
        if isinstance(item, str) and "=" in item:
            name, _, value = item.partition("=")
            variables[name] = value
        elif isinstance(item, dict) and "name" in item and isinstance(item.get("value"), (str, int, float)):
            variables[str(item["name"])] = str(item["value"])
    return {name: expanded(value, variables) for name, value in variables.items() if "$" not in value}


def _gpus_asked(container: dict[str, Any]) -> int:
    """Return the GPUs that a container asks for; 0 where nobody says."""
    resources = _inside(container, "resources")
    for section in ("limits", "requests"):
        for name in _GPUS:
            count = _inside(resources, section).get(name)
            if str(count).isdigit():
                return int(str(count))
    devices = _inside(_inside(_inside(container, "deploy"), "resources"), "reservations").get("devices")
    for device in devices if isinstance(devices, list) else ():
        if isinstance(device, dict):
            listed, count = device.get("device_ids"), device.get("count")
            if isinstance(listed, list):
                return len(listed)
            if isinstance(count, int):
                return count
    return 0


def _inside(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}


def _hardware(pod: dict[str, Any]) -> str:
    """Return the accelerator that a pod's labels choose; empty where they choose none."""
    labels = dict(_inside(pod, "nodeSelector"))
    required = _inside(_inside(pod, "affinity"), "nodeAffinity").get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = required.get("nodeSelectorTerms") if isinstance(required, dict) else None
    for term in terms if isinstance(terms, list) else ():
        for each in term.get("matchExpressions", ()) if isinstance(term, dict) else ():
            values = each.get("values") if isinstance(each, dict) else None
            if isinstance(values, list) and len(values) == 1 and each.get("operator", "In") == "In":
                labels[str(each.get("key"))] = values[0]
    for label, value in labels.items():
        if _PRODUCT.search(label) and isinstance(value, str):
            return _GKE.get(value, value)
    return ""

