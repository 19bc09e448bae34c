"""A model before it is loaded: its configuration and its parts in shapes alone.

Read off config.json and the headers of weight files; for the names of `planning.published` whose files are not on this
machine, from their dimensions. Nothing is downloaded and no weight is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from trackgpt.config import BrainConfig, EncoderConfig, PerceptionConfig, TrackGPTConfig
from trackgpt.errors import ModelError, UsageError
from trackgpt.hub import find, is_brain
from trackgpt.planning.memory_plan import matrix_bytes, plain_bytes
from trackgpt.planning.published import BRAINS, ENCODERS
from trackgpt.reasoners.brain import _projection
from trackgpt.reasoners.families import build, family_of
from trackgpt.reasoners.lora import add_lora

FROM_FILES = "from config.json and headers, weights not read"
FROM_DIMENSIONS = "from the architecture, weights not read"


@dataclass(frozen=True)
class Outline:
    """What is known of a model.

    Attributes:
        name: as it was asked for.
        config: of the whole model; `brain.llava` has as many rows of the embedding as the loaded model will have.
        source: where that was learned.
    """

    name: str
    config: TrackGPTConfig
    source: str

    def skeleton(self) -> Skeleton:
        """The model on the device `meta`: parameters have shapes, dtypes and names, and no numbers."""
        with torch.device("meta"):
            return Skeleton(self.config)

    def learner(self) -> Skeleton:
        """`skeleton` as training prepares it: with adapters where the configuration asks for them."""
        model = self.skeleton()
        with torch.device("meta"):
            add_lora(model.brain, self.config.brain.lora)  # type: ignore[arg-type]
        return model


class _BrainSkeleton(nn.Module):
    """A brain without a tokenizer: what `add_lora` and a forward need of it."""

    def __init__(self, config: BrainConfig, query_dim: int) -> None:
        super().__init__()
        self.config = config
        self.llava = build(config.llava)
        self.family = family_of(self.llava.config.model_type)(self.llava.config, config.image_side)
        self.projection = _projection(
            self.llava.config.get_text_config().hidden_size, query_dim, config.projection_depth
        )
        self.template = SimpleNamespace(track_id=0, purport_id=1)  # any two rows weigh the same


class Skeleton(nn.Module):
    """The parts of a `TrackGPT`, under its names."""

    def __init__(self, config: TrackGPTConfig) -> None:
        super().__init__()
        from trackgpt.perception.segmenter import Segmenter

        self.config = config
        self.segmenter = Segmenter(config.perception)
        self.brain = _BrainSkeleton(config.brain, config.perception.decoder.hidden_size)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter once, by the part it belongs to."""
        base = self.brain.llava.model
        modules = {
            "vision tower": base.get_encoder("image"),
            "language model": base.get_decoder(),
            "output layer": self.brain.llava.lm_head,
            "projector": self.brain.llava,
            "projection phi": self.brain.projection,
            "image encoder": self.segmenter.image_encoder,
            "mask decoder": self.segmenter,
        }
        seen: set[int] = set()
        parts: dict[str, list[nn.Parameter]] = {}
        for name, module in modules.items():
            parts[name] = [p for p in module.parameters() if id(p) not in seen]
            seen |= {id(p) for p in parts[name]}
        return parts

    def weights(self, dtype: str) -> dict[str, float]:
        """Bytes of every part in a dtype of `trackgpt.planning.memory_plan.DTYPES`; every parameter counts once.

        The mask decoder is float32 in all of them, see `Segmenter.decode_in_float32`.
        """
        matrices = {id(weight) for weight in self._matrices()}

        def stored(weight: nn.Parameter, dtype: str) -> float:
            if id(weight) in matrices:
                return matrix_bytes(weight.shape[0], weight.shape[1], dtype)
            return float(weight.numel() * plain_bytes(dtype))

        own = {"mask decoder": "float32"}
        return {
            name: sum(stored(weight, own.get(name, dtype)) for weight in weights)
            for name, weights in self.parts().items()
        }

    def largest_matrix(self) -> int:
        """Weights of the language model's largest matrix."""
        return max(int(weight.numel()) for weight in self._matrices())

    def _matrices(self) -> list[nn.Parameter]:
        language = self.brain.llava.model.get_decoder()
        return [layer.weight for layer in language.modules() if isinstance(layer, nn.Linear)]


def outline_of(name: str | Path) -> Outline:
    """What is known of a model that is not loaded.

    Args:
        name: see `trackgpt.hub.load_model`.

    Raises:
        UsageError: a brain without a perception, or a perception beside a whole TrackGPT.
        ModelError: MD01 it is not on this machine and its dimensions are not known; MD02 a file is damaged; MD06 it is
            of a kind that is not known.
    """
    brain, plus, perception = str(name).partition("+")
    if Path(name).exists() or not plus:
        folder = _place(str(name), BRAINS)
        if folder is None or is_brain(folder):
            raise UsageError(f"{name} is a brain alone; give it a SAM: --perception facebook/sam-vit-huge, or a .pth")
        return Outline(str(name), _whole(folder), FROM_FILES)
    folder, other = _place(brain, BRAINS), _place(perception, ENCODERS)
    if folder is not None and not is_brain(folder):
        raise UsageError(f"{brain} is a whole TrackGPT, and needs no perception beside it; leave {perception} out")
    seen = _published_perception(perception) if other is None else _perception(other)
    reads = _published_brain(brain) if folder is None else _brain(folder)
    source = FROM_DIMENSIONS if folder is None or other is None else FROM_FILES
    return Outline(str(name), TrackGPTConfig(name=str(name), brain=reads, perception=seen), source)


def _place(name: str, published: dict[str, Any]) -> Path | None:
    """Where a model's files are; None for one that is not here and whose dimensions are known."""
    try:
        return find(name, download=False)
    except ModelError:
        if name in published:
            return None
        raise


def _whole(folder: Path) -> TrackGPTConfig:
    from trackgpt.systems.trackgpt import CONFIG_FILE, read_config

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
