"""Weights of a local Hugging Face checkpoint: a folder with config.json and safetensors files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perfmodel.errors import Fault, SpecError
from perfmodel.reference.architecture import Architecture
from perfmodel.reference.decoder import Decoder, LayerWeights, Weights

__all__ = ["load_decoder"]

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def load_decoder(
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Decoder:
    """Return the decoder of a checkpoint folder; nothing is fetched.

    Parameters
    ----------
    folder : holds config.json, and model.safetensors or its parts with their index.
    dtype, device : what the weights are converted to as they are read, and where they are put.

    Raises
    ------
    SpecError
        Where the model is not Llama-style, a file or a weight is missing, or a weight has another shape than
        the config says; all faults at once.
    """
    place = Path(folder).expanduser()
    architecture = Architecture.load(place)
    with ExitStack() as open_files:
        tensors = _Tensors(place, open_files)
        weights = _assembled(architecture, tensors, dtype, device)
    return Decoder(architecture, weights)


class _Tensors:
    """The tensors of a folder by name, each read when it is asked for."""

    def __init__(self, folder: Path, open_files: ExitStack) -> None:
        self.file = str(folder)
        self.faults: list[Fault] = []
        self._readers: dict[str, Any] = {}
        for path in sorted(set(_parts(folder))):
            reader = open_files.enter_context(_opened(path))
            self._readers |= dict.fromkeys(reader.keys(), reader)

    def get(self, name: str, *shape: int) -> Tensor:
        """Return a tensor; where it is missing or of another shape, note the fault and return zeros."""
        reader = self._readers.get(name)
        if reader is None:
            self.faults.append(Fault(self.file, None, name, "the checkpoint has no such weight"))
            return torch.zeros(shape)
        found = tuple(reader.get_slice(name).get_shape())
        if found != shape:
            self.faults.append(Fault(self.file, None, name, f"its shape is {found}, the config says {shape}"))
            return torch.zeros(shape)
        tensor: Tensor = reader.get_tensor(name)
        return tensor


def _parts(folder: Path) -> Iterator[Path]:
    """The safetensors files of a folder."""
    index = folder / _INDEX
    if not index.is_file():
        yield folder / _SINGLE
        return
    try:
        files: Mapping[str, str] = json.loads(index.read_bytes())["weight_map"]
        names = {str(name) for name in files.values()}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise SpecError.single(
            str(index), "weight_map", "the index cannot be read", "Fetch it again"
        ) from error
    for name in names:
        if Path(name).name != name:
            raise SpecError.single(str(index), "weight_map", f"names {name!r}", "Parts lie beside the index")
        yield folder / name


def _opened(path: Path) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise SpecError.single(
            str(path), "", "reading it needs the package safetensors", "pip install 'draftplan[reference]'"
        ) from error
    if not path.is_file():
        raise SpecError.single(
            str(path),
            "",
            "the file does not exist",
            f"A checkpoint holds {_SINGLE} or {_INDEX} and its parts",
        )
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise SpecError.single(
            str(path), "", f"the file cannot be read: {error}", "Fetch it again"
        ) from error


def _assembled(
    sizes: Architecture, tensors: _Tensors, dtype: torch.dtype, device: torch.device | str
) -> Weights:
    """The weights under their Hugging Face names; raises SpecError with every fault."""

    def get(name: str, *shape: int) -> Tensor:
        return tensors.get(name, *shape).to(device, dtype)

    hidden, width = sizes.hidden_size, sizes.mlp_width
    heads = (("q", sizes.heads), ("k", sizes.kv_heads), ("v", sizes.kv_heads))

    def layer(index: int) -> LayerWeights:
        prefix = f"model.layers.{index}."
        attention = prefix + "self_attn."
        rows = [(f"{attention}{name}_proj", count * sizes.head_dim) for name, count in heads]
        bias = [get(f"{name}.bias", count) for name, count in rows] if sizes.qkv_bias else None
        return LayerWeights(
            attention_norm=get(prefix + "input_layernorm.weight", hidden),
            qkv=torch.cat([get(f"{name}.weight", count, hidden) for name, count in rows]),
            output=get(attention + "o_proj.weight", hidden, sizes.heads * sizes.head_dim),
            mlp_norm=get(prefix + "post_attention_layernorm.weight", hidden),
            gate_up=torch.cat(
                [get(f"{prefix}mlp.{half}_proj.weight", width, hidden) for half in ("gate", "up")]
            ),
            down=get(prefix + "mlp.down_proj.weight", hidden, width),
            qkv_bias=None if bias is None else torch.cat(bias),
        )

    embedding = get("model.embed_tokens.weight", sizes.vocab_size, hidden)
    # Some tied checkpoints hold the head once more; it is the same matrix.
    tied = sizes.tied_embeddings
    weights = Weights(
        embedding=embedding,
        layers=tuple(layer(index) for index in range(sizes.layers)),
        final_norm=get("model.norm.weight", hidden),
        lm_head=embedding if tied else get("lm_head.weight", sizes.vocab_size, hidden),
    )
    if tensors.faults:
        raise SpecError(tensors.faults)
    return weights
