"""Memory of a grounder and a segmenter before they are loaded: bytes of weights, from what says most of what is here.

Nothing is downloaded and no weight is read: headers of weight files, the size of an ONNX file, or, for a public model
that is not on this machine, its published size. Activations are not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from trackgpt.errors import ModelError, UsageError
from trackgpt.hub import IMAT, find
from trackgpt.planning.memory_plan import plain_bytes
from trackgpt.presets import published
from trackgpt.settings import read_json
from trackgpt.weights import read_lazily

CONFIG_FILE = "config.json"
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
    """

    name: str
    kind: str
    weights: float
    source: str


def plan_grounded(name: str, dtype: str) -> tuple[PlannedPart, PlannedPart]:
    """The grounder and the segmenter of a model.

    Args:
        name: imat:GROUNDER+SEGMENTER, see `trackgpt.hub.grounded`; the grounder is an ONNX file, a folder with a
            config.json, or a hub's id.
        dtype: of `memory_plan.DTYPES`; what is quantised in it elsewhere counts as bfloat16 here. ONNX files and
            nano-memory compute as they are stored.

    Raises:
        UsageError: the name is none of two parts.
        ModelError: MD01 a part is not on this machine, and its size is not known; MD02 a file is damaged.
    """
    grounder, plus, segmenter = name.removeprefix(IMAT).rpartition("+")
    if not plus or not name.startswith(IMAT):
        raise UsageError(f"{name}: wanted {IMAT}GROUNDER+SEGMENTER")
    return _planned(grounder, dtype), _planned(segmenter, dtype)


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
    return PlannedPart(name, *_of_folder(place, dtype), FROM_HEADERS)


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
