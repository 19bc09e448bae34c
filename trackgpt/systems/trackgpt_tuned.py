"""The small form of a tuned TrackGPT: what training changed, without the frozen models it stands on.

A folder holds `tuned.safetensors` (LoRA, the rows of <TK> and <PO>, phi, the mask decoder and its embeddings),
`config.json`, and `tuned.json`, which names the frozen models. At 7B this is 0.1 GB instead of 28.
`trackgpt.hub.load_model` reads it like any other model; `trackgpt.hub.merge` makes a whole one of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import save_file

from trackgpt.errors import ModelError
from trackgpt.reasoners.lora import add_lora
from trackgpt.settings import read_json, write_json
from trackgpt.systems.trackgpt import CONFIG_FILE, TrackGPT, read_config, tied_names
from trackgpt.weights import checked, describing, read_lazily

TUNED_FILE = "tuned.safetensors"
BASE_FILE = "tuned.json"
ADAPTERS = ("lora_", "trainable_tokens_delta")
FROZEN = ("brain.llava.", "segmenter.image_encoder.")


def is_tuned(folder: str | Path) -> bool:
    """Whether a folder holds the small form."""
    return (Path(folder) / BASE_FILE).is_file()


def base_of(folder: str | Path) -> str:
    """The name of the frozen models a small form was tuned on.

    Raises:
        ModelError: MD02, the file that says so is damaged.
    """
    base = read_json(Path(folder) / BASE_FILE).get("base")
    if not isinstance(base, str):
        raise ModelError(f"{folder}: {BASE_FILE} names no base; give the models it was tuned on", "MD02")
    return base


def tuned_names(model: TrackGPT) -> set[str]:
    """Names in the state dict that the small form holds: all but LLaVA and image encoder, and what trains of those."""
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return (trains | _always(model)) - set(tied_names(model))


def save_tuned(model: TrackGPT, folder: str | Path, base: str, also: Iterable[str] = ()) -> None:
    """Write the small form.

    Args:
        model: with its adapters, if it has any, not merged.
        folder: made if it is missing.
        base: name of the frozen models, as `trackgpt.hub.load_model` takes it.
        also: further names of the state dict: what an earlier stage tuned and this one holds still.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = tuned_names(model) | set(also)
    weights = {name: value.contiguous() for name, value in model.state_dict().items() if name in names}
    write_json(model.config, folder / CONFIG_FILE)
    save_file(weights, folder / TUNED_FILE, metadata={"format": "pt"})
    (folder / BASE_FILE).write_text(json.dumps({"base": base}, indent=2) + "\n")


def apply_tuned(model: TrackGPT, folder: str | Path) -> TrackGPT:
    """Put a small form on its frozen models, in place: adapters are added and not merged.

    Raises:
        ModelError: MD02, a file is damaged, or the weights are not of this model.
    """
    path = Path(folder) / TUNED_FILE
    config, weights = read_config(Path(folder) / CONFIG_FILE), read_lazily(path)
    model.config, model.brain.config = config, config.brain
    with describing(Path(folder) / CONFIG_FILE):
        add_lora(model.brain, config.brain.lora)
    known, tied = model.state_dict(), tied_names(model)
    odd = sorted(n for n, v in weights.items() if n not in known or n in tied or known[n].shape != v.shape)
    odd += sorted(_always(model) - set(tied) - set(weights))
    if odd:
        raise ModelError(
            f"{path}: {len(odd)} weights, e.g. {odd[0]}, do not fit the frozen models; name those it was tuned on",
            "MD02",
        )
    places = {name: known[name].is_floating_point() for name in weights}
    values = {name: checked(path, name, lazy.make(), places[name]) for name, lazy in weights.items()}
    model.load_state_dict(values, strict=False)
    model.known_world = None  # tuning has shown it another one
    return model.eval()


def _always(model: TrackGPT) -> set[str]:
    return {n for n in model.state_dict() if not n.startswith(FROZEN) or any(key in n for key in ADAPTERS)}
