"""Checkpoints larger than the memory: tensors are read one at a time, and written as they come.

A safetensors file is the length of its header in eight bytes, the header in JSON, and the tensors' bytes. As the header
needs names, types and shapes alone, all of which are known beforehand, the bytes can be written as a stream.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trackgpt.errors import ModelError
from trackgpt.files import replacing
from trackgpt.weights import read_pickled

_PICKLES = (".bin", ".pt", ".pth")
_NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth")
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


@dataclass(frozen=True)
class Lazy:
    """A tensor that is known by type and shape, and made when it is asked for."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def read_lazily(path: Path) -> dict[str, Lazy]:
    """The tensors of a checkpoint by name; making one maps it from its file, and nothing is kept.

    Args:
        path: a file, or a folder: its `.safetensors` files, or where it has none its `.bin`, `.pt` and `.pth` files.
            Files of torch before 1.6 cannot be mapped: they are read whole.

    Raises:
        ModelError: MD01 there is nothing, or a shard is missing; MD02 a file is damaged or holds anything but named
            tensors. Nothing in a file is ever executed.
    """
    files = _files(path)
    found: dict[str, Lazy] = {}
    for file in files:
        found |= _of_safetensors(file) if file.suffix == ".safetensors" else _of_pickle(file)
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.safetensors")) or [
        file for file in sorted(path.glob("*")) if file.suffix in _PICKLES and file.name not in _NO_WEIGHTS
    ]
    if not files:
        raise ModelError(f"{path}: no weights there; wanted *.safetensors or *.bin", "MD01")
    for index in path.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index}: not an index of shards; wanted a mapping `weight_map`", "MD02") from error
        absent = sorted(str(name) for name in shards if not (path / str(name)).is_file())
        if absent:
            raise ModelError(f"{path}: {index.name} names shards that are not there: {', '.join(absent[:3])}", "MD01")
    return files


def _of_safetensors(file: Path) -> dict[str, Lazy]:
    found = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for name in list(opened.keys()):
                part = opened.get_slice(name)
                found[name] = Lazy(_TYPES[part.get_dtype()], tuple(part.get_shape()), _reader(file, name))
    except (SafetensorError, OSError, KeyError) as error:
        raise ModelError(f"{file}: not a whole safetensors file ({error}); fetch it again", "MD02") from error
    return found


def _reader(file: Path, name: str) -> Callable[[], Tensor]:
    def read() -> Tensor:
        with safe_open(file, framework="pt") as opened:
            return opened.get_tensor(name)

    return read


def _of_pickle(file: Path) -> dict[str, Lazy]:
    return {name: Lazy(value.dtype, tuple(value.shape), _held(value)) for name, value in read_pickled(file).items()}


def _held(value: Tensor) -> Callable[[], Tensor]:
    return lambda: value


def write_safetensors(path: Path, tensors: Mapping[str, Lazy]) -> None:
    """Make the tensors one after the other and write them; the file has its name only once it is whole.

    Raises:
        ValueError: a tensor was made with another type or shape than it was said to have.
        OutputError: OUT02, the file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, lazy in tensors.items():
        begin, end = end, end + lazy.dtype.itemsize * prod(lazy.shape)
        header[name] = {"dtype": _NAMES[lazy.dtype], "shape": list(lazy.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, lazy in tensors.items():
            tensor = lazy.make()
            if tensor.dtype != lazy.dtype or tuple(tensor.shape) != lazy.shape:
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, wanted {lazy.dtype} {lazy.shape}")
            file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
