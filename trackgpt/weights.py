"""Modules that take their weights from files: never random before, never there twice, at once in the dtype wanted.

A model made inside `unfilled` has shapes and no numbers. `give` then makes one tensor of each weight, so that loading
needs the memory of the loaded model and of one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn


@contextmanager
def unfilled() -> Iterator[None]:
    """Parameters made in here are on the device `meta`; buffers are whole, since no file holds some of them."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        yield


def stored(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Weights of a safetensors file, one after the other; what has been read of the file is let go with each.

    Raises:
        SafetensorError, OSError: it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    for name in names:
        with safe_open(path, framework="pt") as file:
            yield name, file.get_tensor(name)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a safetensors file, from its header alone.

    Raises:
        SafetensorError, OSError: it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def give(module: nn.Module, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> None:
    """Put weights into an unfilled module, in place; floating ones become `dtype`, and none shares a file's memory."""
    made = {}
    for name, value in weights:
        made[name] = value.to(dtype if value.is_floating_point() else value.dtype, copy=True)
    module.load_state_dict(made, strict=False, assign=True)


def start_anew(module: nn.Module, dtype: torch.dtype) -> None:
    """Give an unfilled module, in place, the random weights that its layers are born with."""
    for layer in module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.to_empty(device="cpu", recurse=False)
            layer.reset_parameters()
            layer.to(dtype)
