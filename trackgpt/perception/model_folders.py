"""Folders of this project's own perception models, read strictly and written; nothing in them is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn

from trackgpt.errors import ModelError, UsageError
from trackgpt.settings import from_dict, read_json, to_dict, write_json
from trackgpt.weights import describing, give, must_fit, read_lazily, refuse_oversized, refuse_pointer, unfilled

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
Model = TypeVar("Model", bound=nn.Module)


def read_folder(folder: Path, config: type, make: Callable[[Any], Model], what: str) -> Model:
    """The model of a folder, in evaluation mode and in float32.

    Args:
        folder: with both files.
        config: the dataclass of its configuration.
        make: a model of a configuration.
        what: it is, for messages.

    Raises:
        ModelError: MD01 a file is missing; MD02 a file is damaged, or the weights do not fit the configuration.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing; wanted a folder of {what}", "MD01")
        refuse_pointer(folder / name)
    file = folder / CONFIG_FILE
    try:
        settings: Any = from_dict(config, read_json(file))
    except UsageError as error:
        raise ModelError(f"{file}: not a configuration of {what} ({error})", "MD02") from error
    weights = read_lazily(folder / WEIGHTS_FILE)
    with describing(file):
        refuse_oversized(to_dict(settings), weights, lambda: make(settings), file)
        with unfilled():
            model = make(settings)
    must_fit(model.state_dict(), weights, folder / WEIGHTS_FILE)
    give(model, ((name, lazy.make()) for name, lazy in weights.items()), torch.float32, folder / WEIGHTS_FILE)
    return model.eval()


def write_folder(folder: Path, config: Any, model: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Write a folder that `read_folder` reads.

    Args:
        folder: made where it is not there.
        config: of the model, the dataclass.
        model: the weights.
        dtype: in which floating weights are stored; None for their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(config, folder / CONFIG_FILE)
    stored = {
        name: (value.to(dtype) if dtype is not None and value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(stored, folder / WEIGHTS_FILE, metadata={"format": "pt"})
