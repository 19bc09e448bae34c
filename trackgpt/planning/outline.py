"""A model before it is loaded: its configuration, and its parts with shapes and no numbers.

Read off config.json and the headers of weight files; for the names of `planning.published` whose files are not on this
machine, from their dimensions. Nothing is downloaded and no weight is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trackgpt.config import BrainConfig, EncoderConfig, PerceptionConfig, TrackGPTConfig
from trackgpt.errors import ModelError, UsageError
from trackgpt.hub import find, is_brain
from trackgpt.planning.memory_plan import matrix_bytes, plain_bytes
from trackgpt.planning.published import BRAINS, ENCODERS
from trackgpt.reasoners.families import family_of
from trackgpt.reasoners.lora import add_lora
from trackgpt.reasoners.templates import PURPORT_TOKEN, TRACK_TOKEN
from trackgpt.systems.trackgpt import CONFIG_FILE, TrackGPT, read_config

FROM_FILES = "from config.json and headers, weights not read"
FROM_DIMENSIONS = "from the architecture, weights not read"


class _NoTokenizer:
    """In the place of a tokenizer, whose files may not be here: any text takes two tokens, a special token one."""

    unk_token_id = None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Ids of the right number."""
        return [0] if text.startswith("<") else [0, 0]

    def convert_tokens_to_ids(self, token: str) -> int:
        """The id in a placeholder's name; <TK> and <PO> are any two rows, for all weigh the same."""
        rows = {TRACK_TOKEN: 0, PURPORT_TOKEN: 1}
        return rows[token] if token in rows else int(token[1:-1])

    def convert_ids_to_tokens(self, number: int) -> str:
        """A name with the id in it."""
        return f"<{number}>"


@dataclass(frozen=True)
class ModelOutline:
    """What is known of a model.

    Attributes:
        name: as it was asked for.
        config: of the whole model; `brain.llava` has as many rows of the embedding as the loaded model will have.
        source: where that was learned.
    """

    name: str
    config: TrackGPTConfig
    source: str

    def skeleton(self, adapters: bool = False) -> TrackGPT:
        """The model on the device `meta`: parameters have shapes, dtypes and names, and no numbers.

        Args:
            adapters: add LoRA where the configuration asks for it, as training does.
        """
        with torch.device("meta"):
            model = TrackGPT.from_config(self.config, _NoTokenizer())
            if adapters:
                add_lora(model.brain, self.config.brain.lora)
        return model


def parts(model: TrackGPT) -> dict[str, list[nn.Parameter]]:
    """Every parameter once, by the part it belongs to."""
    brain, segmenter = model.brain, model.segmenter
    modules = {
        "vision tower": brain.vision,
        "language model": brain.language,
        "output layer": brain.llava.lm_head,
        "projector": brain.llava,
        "projection phi": brain.projection,
        "image encoder": segmenter.image_encoder,
        "mask decoder": segmenter,
    }
    seen: set[int] = set()
    found: dict[str, list[nn.Parameter]] = {}
    for name, module in modules.items():
        found[name] = [p for p in module.parameters() if id(p) not in seen]
        seen |= {id(p) for p in found[name]}
    return found


def weight_bytes(model: TrackGPT, dtype: str) -> dict[str, float]:
    """Bytes of every part in a dtype of `trackgpt.planning.memory_plan.DTYPES`; every parameter counts once.

    The mask decoder is float32 in all of them, see `Segmenter.decode_in_float32`.
    """
    matrices = {id(weight) for weight in _matrices(model)}

    def stored(weight: nn.Parameter, dtype: str) -> float:
        if id(weight) in matrices:
            return matrix_bytes(weight.shape[0], weight.shape[1], dtype)
        return float(weight.numel() * plain_bytes(dtype))

    own = {"mask decoder": "float32"}
    return {
        name: sum(stored(weight, own.get(name, dtype)) for weight in weights) for name, weights in parts(model).items()
    }


def largest_matrix(model: TrackGPT) -> int:
    """Number of weights of the language model's largest matrix."""
    return max(int(weight.numel()) for weight in _matrices(model))


def _matrices(model: TrackGPT) -> list[nn.Parameter]:
    return [layer.weight for layer in model.brain.language.modules() if isinstance(layer, nn.Linear)]


def outline_of(name: str | Path) -> ModelOutline:
    """What is known of a model that is not loaded.

    Args:
        name: see `trackgpt.hub.load_model`.

    Raises:
        UsageError: a brain without a perception, or a perception given with a whole TrackGPT.
        ModelError: MD01 it is not on this machine and its dimensions are not known; MD02 a file is damaged; MD06 it is
            of a kind that is not known.
    """
    brain, plus, perception = str(name).partition("+")
    if Path(name).exists() or not plus:
        folder = _place(str(name), BRAINS)
        if folder is None or is_brain(folder):
            raise UsageError(f"{name} is a brain alone; give it a SAM: --perception facebook/sam-vit-huge, or a .pth")
        return ModelOutline(str(name), _whole(folder), FROM_FILES)
    folder, other = _place(brain, BRAINS), _place(perception, ENCODERS)
    if folder is not None and not is_brain(folder):
        raise UsageError(f"{brain} is a whole model, and needs no perception beside it; leave {perception} out")
    seen = _published_perception(perception) if other is None else _perception(other)
    reads = _published_brain(brain) if folder is None else _brain(folder)
    source = FROM_DIMENSIONS if folder is None or other is None else FROM_FILES
    return ModelOutline(str(name), TrackGPTConfig(name=str(name), brain=reads, perception=seen), source)


def _place(name: str, published: dict[str, Any]) -> Path | None:
    """Where a model's files are; None for one that is not here and whose dimensions are known."""
    try:
        return find(name, download=False)
    except ModelError:
        if name in published:
            return None
        raise


def _whole(folder: Path) -> TrackGPTConfig:
    return read_config(folder / CONFIG_FILE)


def _perception(path: Path) -> PerceptionConfig:
    from trackgpt.perception.checkpoints import segmenter_config

    return segmenter_config(path)


def _published_perception(name: str) -> PerceptionConfig:
    return PerceptionConfig(encoder=EncoderConfig(kind="sam_vit", sam=ENCODERS[name]))


def _brain(folder: Path) -> BrainConfig:
    from trackgpt.reasoners.brain_weights import described_brain

    return described_brain(folder)


def _published_brain(name: str) -> BrainConfig:
    from transformers import AutoConfig

    values = BRAINS[name]
    rest = {key: value for key, value in values.items() if key != "model_type"}
    config = AutoConfig.for_model(values["model_type"], **rest)
    return BrainConfig(llava=values, image_side=family_of(values["model_type"]).side_of(config))
