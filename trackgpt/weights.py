"""Weights from files into modules: never random first, never in memory twice, converted to the wanted dtype at once.

A model made inside `unfilled` has shapes and no numbers. `give` then makes one tensor of each weight, so that loading
needs the memory of the loaded model and of one tensor.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from trackgpt.errors import ModelError


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


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The named tensors of a `.pth`, `.pt` or `.bin` file, on the CPU; nothing in the file is ever executed.

    The file is mapped, except where it was written by torch before 1.6. The only entry `model`, as SAM 2 and
    EfficientSAM are saved, is opened.

    Raises:
        ModelError: MD02, it is damaged, or holds anything but named tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or hostile pickle may raise anything at all
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        raise ModelError(f"{path}: not a whole file of plain weights ({reason}); fetch it again", "MD02") from error
    if isinstance(state, dict) and list(state) == ["model"]:
        state = state["model"]
    if not isinstance(state, dict) or not state:
        raise ModelError(f"{path}: found a {type(state).__name__}, wanted a dictionary of named tensors", "MD02")
    odd = [str(name) for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if odd:
        raise ModelError(f"{path}: wanted tensors alone, but these are none: {some(odd)}", "MD02")
    return dict(state)


def some(names: Sequence[str]) -> str:
    """The first three names for a message, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
    """Give an unfilled module, in place, the random weights that its layers start with."""
    for layer in module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.to_empty(device="cpu", recurse=False)
            layer.reset_parameters()
            layer.to(dtype)


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight, by name, sorted.

    Attributes:
        loaded: weights of the model that the checkpoint holds.
        new: weights of the model that the checkpoint has not; they keep their initial values.
        skipped: weights of the checkpoint that have no place in the model.
        reshaped: those of `loaded` whose shape had to change.
        unexpected: keys that match no known layout; they are not loaded either.
    """

    loaded: tuple[str, ...]
    new: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{len(self.loaded)} loaded, {len(self.new)} new, {len(self.skipped)} skipped"
        odd = f", {len(self.unexpected)} unexpected" if self.unexpected else ""
        return f"{counts}, {len(self.reshaped)} reshaped{odd}"

    def __add__(self, other: LoadReport) -> LoadReport:
        """The report of two parts of one model."""
        return LoadReport(
            tuple(sorted(self.loaded + other.loaded)),
            tuple(sorted(self.new + other.new)),
            tuple(sorted(self.skipped + other.skipped)),
            tuple(sorted(self.reshaped + other.reshaped)),
            tuple(sorted(self.unexpected + other.unexpected)),
        )

    def under(self, prefix: str) -> LoadReport:
        """The same report where the model is a part of a larger one; what is skipped keeps the checkpoint's names."""
        loaded, new, reshaped = (
            tuple(f"{prefix}{name}" for name in names) for names in (self.loaded, self.new, self.reshaped)
        )
        return LoadReport(loaded, new, self.skipped, reshaped, self.unexpected)

    def lines(self) -> list[str]:
        """For people: the counts, then every name that was not simply loaded."""
        kinds = (
            ("new", self.new),
            ("skipped", self.skipped),
            ("reshaped", self.reshaped),
            ("unexpected", self.unexpected),
        )
        return [str(self), *(f"{kind}: {name}" for kind, names in kinds for name in names)]
