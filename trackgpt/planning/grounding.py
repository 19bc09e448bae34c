"""Memory of a grounder or a policy, and a segmenter, before they are loaded.

Nothing is downloaded and no weight is read: headers of weight files, the size of an ONNX file, or, for a public model
that is not on this machine, its published size. Activations of open-vocabulary detectors and of a SAM 2's encoder, as
transformers computes them, are traced with fake tensors (`trackgpt.planning.tracing`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trackgpt.errors import ModelError, UsageError
from trackgpt.hub import IMAT, QTRACK, REASONINGTRACK, find, parts_of
from trackgpt.planning.memory_plan import plain_bytes
from trackgpt.presets import published
from trackgpt.settings import read_json
from trackgpt.weights import read_lazily

CONFIG_FILE = "config.json"
DINOS, OWLS = ("grounding-dino", "mm-grounding-dino"), ("owlvit", "owlv2")
WORDS = 16
"""Tokens of an expression, which hardly count beside the image's."""
FROM_HEADERS = "from headers, weights not read"
FROM_SIZE = "the size of its file"
FROM_HUB = "from its published size, for it is not on this machine"


@dataclass(frozen=True)
class PlannedPart:
    """What one part of a model will hold in memory.

    Attributes:
        name: of the part, as it was given.
        kind: what it is: "onnx", or the type in its config.json.
        weights: bytes, in the dtype in which it computes.
        source: where that was learned.
        frame: bytes at most alive while it looks at a frame of `FRAME`, beside the weights; None where nobody can say.
    """

    name: str
    kind: str
    weights: float
    source: str
    frame: int | None = None


def plan_grounded(name: str, dtype: str) -> tuple[PlannedPart, ...]:
    """The grounder and the segmenter of a model, or its policy and segmenter, or its tracker, describer and grounder.

    Args:
        name: imat:GROUNDER+SEGMENTER, qtrack:POLICY[+SEGMENTER] or reasoningtrack:TRACKER[+DESCRIBER[+GROUNDER]], see
            `trackgpt.hub`; each part is a file of weights, a folder with a config.json, or a hub's id.
        dtype: of `memory_plan.DTYPES`; what is quantised in it elsewhere counts as bfloat16 here. ONNX files and
            nano-memory compute as they are stored.

    Raises:
        UsageError: the name is none of such parts.
        ModelError: MD01 a part is not on this machine, and its size is not known; MD02 a file is damaged.
    """
    counts = {IMAT: (2,), QTRACK: (1, 2), REASONINGTRACK: (1, 2, 3)}
    system = next((each for each in counts if name.startswith(each)), "")
    parts = parts_of(name) if system else []
    if len(parts) not in counts.get(system, ()):
        raise UsageError(
            f"{name}: wanted {IMAT}GROUNDER+SEGMENTER, {QTRACK}POLICY[+SEGMENTER] or "
            f"{REASONINGTRACK}TRACKER[+DESCRIBER[+GROUNDER]]"
        )
    return tuple(_planned(part, dtype) for part in parts)


def _planned(name: str, dtype: str) -> PlannedPart:
    try:
        place = find(name, download=False)
    except ModelError:
        known = published(name)
        if known is None:
            raise
        return PlannedPart(name, "public", known.size / plain_bytes(known.dtype) * plain_bytes(dtype), FROM_HUB)
    if place.is_file():
        return PlannedPart(name, place.suffix.removeprefix("."), place.stat().st_size, FROM_SIZE)
    kind, weights = _of_folder(place, dtype)
    return PlannedPart(name, kind, weights, FROM_HEADERS, _trace(place, kind, dtype))


def _of_folder(folder: Path, dtype: str) -> tuple[str, float]:
    """Kind and bytes of weights."""
    described = read_json(folder / CONFIG_FILE)
    kind = str(described.get("model_type") or described.get("kind") or described.get("name") or "model")
    own = "model_type" not in described  # of this package: computes as it is stored
    held = 0.0
    for weight in read_lazily(folder).values():
        count = math.prod(weight.shape)
        held += count * (plain_bytes(dtype) if weight.dtype.is_floating_point and not own else weight.dtype.itemsize)
    return kind, held


@torch.no_grad()
def _trace(folder: Path, kind: str, dtype: str) -> int | None:
    """Peak bytes of a frame, in a folder of a kind that is known here."""
    if kind not in (*DINOS, *OWLS, "sam2_video"):
        return None
    from transformers import AutoConfig, AutoModel, AutoModelForZeroShotObjectDetection

    from trackgpt.planning.tracing import without_memory

    config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
    computes = torch.float32 if dtype == "float32" else torch.bfloat16
    auto: Any = AutoModel if kind == "sam2_video" else AutoModelForZeroShotObjectDetection
    with torch.device("meta"):
        model = auto.from_config(config).to(computes).eval()
    ids = torch.full((1, WORDS), 1)
    with without_memory(model) as live:
        pixels = torch.zeros(1, 3, *_seen(folder, kind, config), dtype=computes)
        if kind == "sam2_video":
            model.vision_encoder(pixels)
        else:
            model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
        return live.peak


def _seen(folder: Path, kind: str, config: Any) -> tuple[int, int]:
    """Height and width at which a network looks at a `FRAME`."""
    from trackgpt.planning.inference import FRAME

    if kind in OWLS:
        return config.vision_config.image_size, config.vision_config.image_size
    if kind == "sam2_video":
        return config.image_size, config.image_size
    size = read_json(folder / "preprocessor_config.json").get("size") or {}
    scale = min(size.get("shortest_edge", 800) / min(FRAME), size.get("longest_edge", 1333) / max(FRAME))
    return round(FRAME[0] * scale), round(FRAME[1] * scale)
