"""SAM 2 with its memory from a Hugging Face folder: every weight of it used, none missing, none made up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trackgpt.errors import ModelError
from trackgpt.settings import read_json
from trackgpt.weights import Lazy, describing, give, read_lazily, refuse_oversized, some, unfilled

if TYPE_CHECKING:
    from trackgpt.perception.sam2_model import Sam2MemoryModel

CONFIG_FILE = "config.json"
KIND = "sam2_video"
"""transformers' name, which the hub's SAM 2 and 2.1 carry."""
IN_16_BITS = ("vision_encoder.", "memory_attention.")
"""What may compute in bfloat16; the mask decoder, whose edges and scores are compared, stays float32."""
TWINS = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")
"""One tensor of SAM 2 under two names: a file may hold either or both."""
INSTEAD = "use the folder of facebook/sam2.1-hiera-tiny, -small, -base-plus or -large"
RELATIVES = (
    ("edgetam", "EdgeTAM, whose RepViT encoder needs timm, and timm needs torchvision"),
    ("sam3", "SAM 3, which is gated and whose tracker is another class than SAM 2's"),
    ("sam2", "a SAM 2 for single images, without the weights of its memory"),
    ("sam", "a SAM for single images, which remembers nothing"),
)


def is_sam2_video(folder: str | Path) -> bool:
    """Whether a folder holds a SAM 2 with its memory, as far as its config.json says.

    Raises:
        ModelError: MD02, its config.json is damaged.
    """
    config = Path(folder) / CONFIG_FILE
    return config.is_file() and read_json(config).get("model_type") == KIND


def load_sam2_video(folder: Path, dtype: torch.dtype = torch.float32) -> Sam2MemoryModel:
    """The network of a folder, filled, on the CPU, in evaluation mode.

    Args:
        folder: config.json and weights.
        dtype: of `IN_16_BITS`; all else is float32.

    Raises:
        ModelError: see `trackgpt.perception.sam2_memory.Sam2Memory.from_pretrained`.
    """
    from transformers import Sam2VideoConfig

    from trackgpt.perception.sam2_model import Sam2MemoryModel, check_transformers

    check_transformers()
    described, weights = _read(folder)
    where = folder / CONFIG_FILE

    def made() -> Sam2MemoryModel:
        return Sam2MemoryModel(Sam2VideoConfig.from_dict(dict(described)))

    with describing(where):
        refuse_oversized(described, weights, made, where)
        with unfilled():
            model = made()
        if model.num_maskmem < 1:
            raise ModelError(f"{where}: num_maskmem is {model.num_maskmem}, and there is no memory; {INSTEAD}", "MD06")
    weights = _with_twin(weights)
    _check_fit(model, weights, folder)
    for chosen, kind in ((True, dtype), (False, torch.float32)):
        part = {name: lazy for name, lazy in weights.items() if name.startswith(IN_16_BITS) == chosen}
        give(model, ((name, lazy.make()) for name, lazy in part.items()), kind, folder)
    return model.eval().requires_grad_(False)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Lazy]]:
    """The configuration and the weights of a SAM 2 with memory."""
    if folder.is_file():
        raise ModelError(f"{folder}: a file, and only Hugging Face's layout is read; {INSTEAD}", "MD06")
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"{folder}: no {CONFIG_FILE} there; {INSTEAD}", "MD01")
    described = read_json(folder / CONFIG_FILE)
    kind = str(described.get("model_type", ""))
    weights = read_lazily(folder, standard=True) if kind in (KIND, "sam2") else {}
    if kind == KIND or any(name.startswith("memory_encoder.") for name in weights):
        return described, weights
    for start, what in RELATIVES:
        if kind.startswith(start):
            raise ModelError(f"{folder}: this is {what}; {INSTEAD}", "MD06")
    raise ModelError(f"{folder}: a model of the type {kind!r}, and no SAM 2; {INSTEAD}", "MD06")


def _with_twin(weights: dict[str, Lazy]) -> dict[str, Lazy]:
    """The weights with both names of `TWINS` where one is there."""
    there = [name for name in TWINS if name in weights]
    return weights | {name: weights[there[0]] for name in TWINS if name not in weights} if there else weights


def _check_fit(model: Sam2MemoryModel, weights: dict[str, Lazy], folder: Path) -> None:
    """Compare names and shapes with the model's.

    Raises:
        ModelError: MD02, with the first names of every kind of misfit.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    shapes = [
        f"{name} is {weights[name].shape}, wanted {wanted[name]}"
        for name in sorted(wanted.keys() & weights.keys())
        if weights[name].shape != wanted[name]
    ]
    kinds = (
        ("weights missing", sorted(wanted.keys() - weights.keys())),
        ("weights unknown", sorted(weights.keys() - wanted.keys())),
        ("shapes that differ", shapes),
    )
    problems = [f"{problem} {len(names)}: {some(names)}" for problem, names in kinds if names]
    if problems:
        raise ModelError(f"{folder}: does not fit its {CONFIG_FILE}: {'; '.join(problems)}; fetch both again", "MD02")
