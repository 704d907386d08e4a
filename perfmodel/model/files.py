"""Finding the config.json that a model name stands for: bundled, on disk, in the local cache, on the hub."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from perfmodel.errors import SpecError, printable
from perfmodel.files.document import Document, read_json
from perfmodel.files.opening import MODEL_CONFIG, read_file, text_of
from perfmodel.model.forms import store_as
from perfmodel.model.names import (
    Meaning,
    bundled_models,
    bundled_name,
    guess_model,
    nearest_model,
    reading_order,
    refuse_ambiguous,
)

__all__ = ["available_models", "find_config"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_CACHED_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_HUB_TIMEOUT = 3.0
_NO_ANSWER = "{place} cannot be reached"
_HUB_REASONS = {
    "GatedRepoError": "{place} gives it only to accounts that accepted its licence",
    "RepositoryNotFoundError": "{place} has no public model of that name",
    "RevisionNotFoundError": "{place} has no config.json of it",
    "LocalEntryNotFoundError": _NO_ANSWER,
    "EntryNotFoundError": "{place} has no config.json of it",
    "HfHubHTTPError": "{place} refused the request",
}
"""What an error of huggingface_hub means, by the first name in its class's ancestry; others: no answer."""
_CONFIGS = ("config.json", "params.json")
"""Files that describe a model: that of Hugging Face transformers, else Mistral's own."""
_QUANTISATION = "hf_quant_config.json"
_OLDER_QUANTISATION = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Files of AutoGPTQ and AutoAWQ that say how a checkpoint is quantised, and by which method."""


def available_models() -> tuple[str, ...]:
    """Return the names of the bundled models, sorted as people do: without case, numbers by their value."""
    return tuple(sorted(bundled_models(), key=reading_order))


def find_config(name: str) -> tuple[str, Document]:
    """Return the model's name and its config.

    Raises
    ------
    SpecError
        When the name is not bundled, no path, not in the local Hugging Face cache and not to be had from the
        hub; also when it means several bundled models.
    """
    model = bundled_name(name)
    if model is not None:
        return model, read_json(bundled_models()[model], MODEL_CONFIG)
    path = _config_on_disk(name)
    if path is not None:
        return (path.resolve().parent.name if path.name in _CONFIGS else path.stem), _with_beside(path)
    path = _config_in_cache(name)
    if path is not None:
        return name, _with_beside(path)
    meaning = guess_model(name)
    if meaning is not None:
        return _bundled_config(name, meaning)
    refuse_ambiguous(name)
    path = _config_from_hub(name)
    document = _with_beside(path)
    if not document.beside and not _says_how_it_is_quantised(document.data):
        quantisation = _from_hub_if_there(name, _QUANTISATION)
        document = document if quantisation is None else _with_beside(path, quantisation)
    return name, document


def _with_beside(path: Path, quantisation: Path | None = None) -> Document:
    """Config, and the file beside it in which its quantiser says how the checkpoint is quantised."""
    document = read_json(path, MODEL_CONFIG)
    quantisation = path.with_name(_QUANTISATION) if quantisation is None else quantisation
    if path.name in _CONFIGS and os.path.lexists(quantisation):
        document.beside[_QUANTISATION] = read_json(quantisation, MODEL_CONFIG)
    for name, method in _OLDER_QUANTISATION.items():
        older = path.with_name(name)
        if os.path.lexists(older) and not document.beside and not _says_how_it_is_quantised(document.data):
            section = read_json(older, MODEL_CONFIG)
            section.data = {"quantization_config": {"quant_method": method, **section.data}}
            document.beside[name] = section
    return document


def _says_how_it_is_quantised(config: Mapping[str, object]) -> bool:
    sections = (config, *(section for section in config.values() if isinstance(section, Mapping)))
    return any(section.get("quantization_config") for section in sections)


def _bundled_config(name: str, meaning: Meaning) -> tuple[str, Document]:
    """Name and config of the bundled model that a loose name means, with remarks on what is not its own."""
    document = read_json(bundled_models()[meaning.model], MODEL_CONFIG)
    remark = store_as(document.data, meaning.model, meaning.form) if meaning.form else ""
    if remark:
        document.remarks.append(remark)
        return f"{meaning.model}-{meaning.form}", document
    if not meaning.organisation_is_known:
        document.remarks.append(
            f"{name[:100]!r} is not bundled; assumed to be {meaning.model}, as its name says"
        )
    return meaning.model, document


def _config_on_disk(name: str) -> Path | None:
    """Config file that a path names or whose folder it names, None where the name is no path."""
    place = os.path.expanduser(name)
    if os.path.isdir(place):
        for file in _CONFIGS:
            if os.path.lexists(os.path.join(place, file)):
                return Path(place, file)
        raise SpecError.single(
            place, "model", f"the folder holds no {' and no '.join(_CONFIGS)}", "Name the file or its folder"
        )
    if os.path.lexists(place):
        return Path(place)
    if not name.endswith(".json") and not name.startswith((".", "/", "~")):
        return None
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        raise SpecError.single(
            "request", "model", f"the file {name!r} does not exist", "Name a config.json"
        ) from None
    except (OSError, ValueError):
        pass
    return Path(place)  # whatever is wrong with it is said where it is read


def _config_in_cache(name: str) -> Path | None:
    """Config file of the newest snapshot in the local Hugging Face cache, None where there is none."""
    if not _CACHED_ID.fullmatch(name):
        return None
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    cache_folder = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    folder = Path(cache_folder, "models--" + name.replace("/", "--"))
    try:
        configs = [path for file in _CONFIGS for path in folder.glob(f"snapshots/*/{file}") if path.is_file()]
        reference = folder / "refs" / "main"
        main = text_of(read_file(reference, MODEL_CONFIG), "").strip() if reference.is_file() else ""

        def _rank(path: Path) -> tuple[bool, bool, float]:
            return path.parent.name == main, path.name == _CONFIGS[0], path.stat().st_mtime

        return max(configs, key=_rank, default=None)
    except (OSError, ValueError):
        return None


def _config_from_hub(name: str) -> Path:
    """Config file fetched from the hub; raises SpecError, saying why, where it cannot be had.

    The hub is asked once for the file's metadata, which the library does not retry, and fetched only after
    an answer: a hub that is out of reach is known within `_HUB_TIMEOUT` seconds.
    """
    nearest = nearest_model(name)
    unknown = f"{name[:100]!r} is neither a bundled model, nor a path, nor in the local Hugging Face cache"
    remedy = "Name a bundled model, a config.json or a folder that holds one"
    if not _HUB_ID.fullmatch(name):
        raise SpecError.single("request", "model", unknown, remedy, nearest)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise SpecError.single("request", "model", f"{unknown}, and HF_HUB_OFFLINE is set", remedy, nearest)
    if importlib.util.find_spec("huggingface_hub") is None:
        from perfmodel.files.extras import install_command

        hint = f"{remedy}, or install huggingface_hub to fetch it: `{install_command('hub')}`"
        raise SpecError.single("request", "model", unknown, hint, nearest)
    place = os.environ.get("HF_ENDPOINT") or "huggingface.co"
    print(printable(f"{name} is not known here; asking {place} for its config.json"), file=sys.stderr)
    try:
        hub = importlib.import_module("huggingface_hub")
        hub.get_hf_file_metadata(hub.hf_hub_url(name, "config.json"), timeout=_HUB_TIMEOUT)
        return Path(hub.hf_hub_download(name, "config.json", etag_timeout=_HUB_TIMEOUT))
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        reason = next((_HUB_REASONS[kind] for kind in kinds if kind in _HUB_REASONS), _NO_ANSWER)
        problem = f"{unknown}, and {reason.format(place=place)}"
        hint = f"{remedy}; HF_HUB_OFFLINE=1 leaves the hub out"
        raise SpecError.single("request", "model", problem, hint, nearest) from error


def _from_hub_if_there(name: str, file: str) -> Path | None:
    """A further file fetched from the hub, None where it cannot be had."""
    try:
        hub = importlib.import_module("huggingface_hub")
        hub.get_hf_file_metadata(hub.hf_hub_url(name, file), timeout=_HUB_TIMEOUT)
        path = Path(hub.hf_hub_download(name, file, etag_timeout=_HUB_TIMEOUT))
    except Exception:
        return None
    return path if path.name == file and path.is_file() else None
