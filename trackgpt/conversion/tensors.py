"""Checkpoints larger than the memory, written as they come: tensors are made one at a time.

A safetensors file is the length of its header in eight bytes, the header in JSON, and the tensors' bytes. As the header
needs names, types and shapes alone, all of which are known beforehand, the bytes can be written as a stream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch

from trackgpt.files import replacing
from trackgpt.weights import DTYPES, Lazy

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


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
