"""Weights from files into modules: never random first, never in memory twice, converted to the wanted dtype at once.

A model made inside `unfilled` has shapes and no numbers. `give` then makes one tensor of each weight, so that loading
needs the memory of the loaded model and of one tensor. Each tensor is looked at once, as it is given: what is not a
finite floating number is refused by name (`checked`).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trackgpt.errors import ModelError, UsageError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""By their names in safetensors files."""
STANDARD_FILES = ("model.safetensors", "pytorch_model.bin")
"""How transformers names weights in one file; in shards, an index of that name with ".index.json" behind it."""
MOST_LAYERS = 1024
LARGE = 4096
"""A size in a configuration above which the whole is compared with the weights before memory is taken for it."""

_PICKLES = (".bin", ".pt", ".pth")
_NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth")
_POINTER = b"version https://git-lfs."
_REPEATED = ("layers", "depth", "blocks", "multimask", "experts")
"""Parts of the names of settings that say how often something is repeated."""


@contextmanager
def unfilled() -> Iterator[None]:
    """Parameters made in here are on the device `meta`; buffers are whole, since no file holds some of them."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        yield


@dataclass(frozen=True)
class Lazy:
    """A tensor that is known by dtype and shape, and made when it is asked for."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def read_lazily(path: Path, standard: bool = False) -> dict[str, Lazy]:
    """The tensors of a checkpoint by name; making one maps it from its file, and nothing is kept.

    Args:
        path: a file, or a folder: its `.safetensors` files, or where it has none its `.bin`, `.pt` and `.pth` files.
            Files of torch before 1.6 cannot be mapped: they are read whole.
        standard: of a folder, only the files that transformers itself would read.

    Raises:
        ModelError: MD01 there is nothing, a shard is missing, or a file is a Git LFS pointer; MD02 a file is damaged,
            holds anything but named tensors, or two files differ in a tensor. Nothing in a file is ever executed.
    """
    if not path.exists():
        raise ModelError(f"{path}: no such file; wanted weights", "MD01")
    found: dict[str, Lazy] = {}
    for file in [path] if not path.is_dir() else _standard_files(path) if standard else _all_files(path):
        held = _of_safetensors(file) if file.suffix == ".safetensors" else _of_pickle(file)
        for name in found.keys() & held.keys():
            refuse_two_values(file, name, found[name].make(), held[name].make())
        found |= held
    return found


def _standard_files(folder: Path) -> list[Path]:
    for name in STANDARD_FILES:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            return _shards(folder / f"{name}.index.json")
    names = " nor ".join(f"{name} nor {name}.index.json" for name in STANDARD_FILES)
    raise ModelError(f"{folder}: neither {names} is there; wanted a saved model", "MD01")


def _all_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors")) or [
        file for file in sorted(folder.glob("*")) if file.suffix in _PICKLES and file.name not in _NO_WEIGHTS
    ]
    if not files:
        raise ModelError(f"{folder}: no weights there; wanted *.safetensors or *.bin", "MD01")
    for index in folder.glob("*.index.json"):
        _shards(index)
    return files


def _shards(index: Path) -> list[Path]:
    """The files that an index names, all of which are there."""
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{index}: not an index of shards; wanted a mapping `weight_map`", "MD02") from error
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent or not names:
        raise ModelError(
            f"{index.parent}: {index.name} names shards that are not there: {some(absent) or 'none'}", "MD01"
        )
    return [index.parent / name for name in names]


def refuse_pointer(file: Path) -> None:
    """Raise ModelError MD01 where Git LFS has left its note of a file in place of the file."""
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise ModelError(f"{file}: a Git LFS pointer and not the file itself; run `git lfs pull` there", "MD01")


def _of_safetensors(file: Path) -> dict[str, Lazy]:
    refuse_pointer(file)
    found = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for name in list(opened.keys()):
                part = opened.get_slice(name)
                if part.get_dtype() not in DTYPES:
                    raise ModelError(f"{file}: {name} is stored as {part.get_dtype()}, which is not read here", "MD06")
                found[name] = Lazy(DTYPES[part.get_dtype()], tuple(part.get_shape()), _reader(file, name))
    except (SafetensorError, OSError) as error:
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


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The named tensors of a `.pth`, `.pt` or `.bin` file, on the CPU; nothing in the file is ever executed.

    The file is mapped, except where it was written by torch before 1.6. The only entry `model`, as SAM 2 and
    EfficientSAM are saved, is opened.

    Raises:
        ModelError: MD01 it is a Git LFS pointer; MD02 it is damaged, or holds anything but named tensors.
    """
    refuse_pointer(path)
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


def checked(where: object, name: str, value: Tensor, floating: bool = True) -> Tensor:
    """The weight itself, if it is one.

    Args:
        where: the file in errors.
        name: of the weight.
        value: as it is stored.
        floating: its place in the model holds floating numbers, and no integers.

    Raises:
        ModelError: MD02, the type is another, or a value is NaN or infinite; MD06, it has 8 bits.
    """
    if value.is_floating_point() != floating:
        kind = str(value.dtype).removeprefix("torch.")
        wanted = "floating numbers" if floating else "integers"
        raise ModelError(f"{where}: the weight {name} is stored as {kind}, wanted {wanted}; fetch it again", "MD02")
    if not floating or value.numel() == 0:
        return value
    if value.dtype.itemsize == 1:
        raise ModelError(f"{where}: the weight {name} has 8 bits; use the model in 16 bits", "MD06")
    if not all(isfinite(extreme.item()) for extreme in torch.aminmax(value)):  # one pass, which keeps NaN
        raise ModelError(f"{where}: the weight {name} has values that are NaN or infinite; fetch it again", "MD02")
    return value


def checked_lazily(where: object, name: str, lazy: Lazy) -> Lazy:
    """The same weight, of floating numbers, which is checked when it is made; see `checked`."""
    return Lazy(lazy.dtype, lazy.shape, lambda: checked(where, name, lazy.make()))


def refuse_two_values(where: object, name: str, one: Tensor, other: Tensor) -> None:
    """Raise ModelError MD02 where a checkpoint holds two values of what is one weight."""
    if one.dtype != other.dtype or not torch.equal(one, other):
        raise ModelError(f"{where}: holds two different values of the weight {name}; fetch it again", "MD02")


def must_fit(
    wanted: Mapping[str, Tensor], weights: Mapping[str, Lazy], where: object, optional: Iterable[str] = ()
) -> None:
    """Refuse a checkpoint that does not hold every weight of a model, and nothing else, in its shape.

    Args:
        wanted: the model's state dict.
        weights: the checkpoint.
        where: its file in errors.
        optional: names that it need not hold.

    Raises:
        ModelError: MD02, with the names.
    """
    missing = sorted(set(wanted) - set(weights) - set(optional))
    unknown = sorted(set(weights) - set(wanted))
    reshaped = sorted(k for k in set(wanted) & set(weights) if wanted[k].shape != weights[k].shape)
    for problem, names in (("lacks", missing), ("does not know", unknown), ("differs in shape for", reshaped)):
        if names:
            shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
            raise ModelError(f"{where}: the model {problem} {len(names)} weights: {shown}", "MD02")


def give(module: nn.Module, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype, where: object) -> None:
    """Put weights into an unfilled module, in place; floating ones become `dtype`, and none shares a file's memory.

    Raises:
        ModelError: see `checked`, for which `where` names the file; nothing has been given then.
    """
    places = module.state_dict()
    made = {}
    for name, value in weights:
        floating = places[name].is_floating_point()
        made[name] = checked(where, name, value, floating).to(dtype if floating else value.dtype, copy=True)
    module.load_state_dict(made, strict=False, assign=True)


@contextmanager
def describing(where: object) -> Iterator[None]:
    """Turn whatever a library says of a configuration that makes no sense to it into one line.

    Raises:
        ModelError: MD02, `where` describes no model; MD06, one of a kind that is not known.
    """
    try:
        yield
    except ModelError as error:
        if str(where) in error.message:
            raise
        raise error.at(where) from error
    except UsageError as error:
        raise ModelError(f"{where}: {error.message}", "MD02") from error
    except Exception as error:  # transformers reads any value, and each of its classes fails in its own way
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise ModelError(f"{where}: describes no model that can be made ({reason}); fetch it again", "MD02") from error


def refuse_oversized(
    values: Any, weights: Mapping[str, Lazy | Tensor], make: Callable[[], nn.Module], where: object
) -> None:
    """Refuse a configuration whose sizes are not those of its weights, before any memory is taken for them.

    Args:
        values: the configuration as dictionaries, lists and numbers.
        weights: what the checkpoint holds.
        make: makes the model; called where no memory is taken.
        where: the configuration's file in errors.

    Raises:
        ModelError: MD02.
    """
    sizes = list(_integers(values, ""))
    counts = [(name, size) for name, size in sizes if any(word in name for word in _REPEATED)]
    repeated = [f"{name} is {size}" for name, size in counts if size > MOST_LAYERS]
    if repeated:
        raise ModelError(f"{where}: {some(repeated)}; at most {MOST_LAYERS} make sense", "MD02")
    if all(size <= LARGE for _, size in sizes):
        return
    with torch.device("meta"):
        wanted = sum(value.numel() for value in make().parameters())
    held = sum(prod(lazy.shape) for lazy in weights.values())
    if wanted > 4 * held + 2**20:
        raise ModelError(f"{where}: describes {wanted} weights, and there are {held}; fetch both again", "MD02")


def _integers(values: Any, name: str) -> Iterator[tuple[str, int]]:
    """Every integer with the name of the setting it belongs to."""
    if isinstance(values, int) and not isinstance(values, bool):
        yield name, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _integers(value, str(key))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _integers(value, name)


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
        changed: weights of the checkpoint that are not in the model as they are in the file.
    """

    loaded: tuple[str, ...]
    new: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{len(self.loaded)} loaded, {len(self.new)} new, {len(self.skipped)} skipped"
        odd = f", {len(self.unexpected)} unexpected" if self.unexpected else ""
        odd += f", {len(self.changed)} changed" if self.changed else ""
        return f"{counts}, {len(self.reshaped)} reshaped{odd}"

    def __add__(self, other: LoadReport) -> LoadReport:
        """The report of two parts of one model."""
        return LoadReport(
            tuple(sorted(self.loaded + other.loaded)),
            tuple(sorted(self.new + other.new)),
            tuple(sorted(self.skipped + other.skipped)),
            tuple(sorted(self.reshaped + other.reshaped)),
            tuple(sorted(self.unexpected + other.unexpected)),
            tuple(sorted(self.changed + other.changed)),
        )

    def under(self, prefix: str) -> LoadReport:
        """The same report where the model is a part of a larger one; what is skipped keeps the checkpoint's names."""
        loaded, new, reshaped = (
            tuple(f"{prefix}{name}" for name in names) for names in (self.loaded, self.new, self.reshaped)
        )
        return LoadReport(loaded, new, self.skipped, reshaped, self.unexpected, self.changed)

    def lines(self) -> list[str]:
        """For people: the counts, then every name that was not simply loaded."""
        kinds = (
            ("new", self.new),
            ("skipped", self.skipped),
            ("reshaped", self.reshaped),
            ("unexpected", self.unexpected),
            ("changed", self.changed),
        )
        return [str(self), *(f"{kind}: {name}" for kind, names in kinds for name in names)]
