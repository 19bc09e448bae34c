"""From a file or folder of anybody's SAM to a segmenter of its size with its weights: what `--perception` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackgpt.config import read_json
from trackgpt.errors import ModelError
from trackgpt.perception.sam2_weights import KINDS, load_sam2
from trackgpt.perception.sam_weights import fill, load_sam, sam_config
from trackgpt.perception.segmenter import Segmenter
from trackgpt.types import LoadReport

CONFIG_FILE = "config.json"
SIGNS_OF_OTHERS = (
    (
        "image_encoder.trunk.body.",
        "EdgeTAM, whose RepViT encoder needs timm, and timm needs torchvision; use SAM 2.1 tiny or SAM ViT-B",
    ),
    (
        "image_encoder.trunk.",
        "SAM 2 in its original layout, and only Hugging Face's is read; use the folder of facebook/sam2.1-hiera-tiny",
    ),
    (
        "image_encoder.patch_embed.seq.",
        "MobileSAM, and transformers has no TinyViT encoder; use SAM ViT-B or SAM 2.1 tiny",
    ),
    (
        "image_encoder.blocks.0.mlp.fc1.",
        "EfficientSAM, and transformers has no class for its encoder; use SAM ViT-B or SAM 2.1 tiny",
    ),
)


def load_segmenter(path: str | Path) -> tuple[Segmenter, LoadReport]:
    """A segmenter of the size of a checkpoint, filled with its weights, float32, on the CPU, in evaluation mode.

    What no SAM has (the online query and its adapter) starts at random.

    Args:
        path: a SAM's `.pth` or `.safetensors` file or its Hugging Face folder, or that of a SAM 2 or 2.1.

    Raises:
        ModelError: MD01 it is not there; MD02 it is damaged, or no SAM; MD06 a relative of SAM that cannot be loaded,
            with what is missing and what to use instead.
    """
    path = Path(path)
    described = read_json(path / CONFIG_FILE) if (path / CONFIG_FILE).is_file() else {}
    kind = str(described.get("model_type", "sam"))
    if kind.startswith("edgetam"):
        raise ModelError(f"{path}: this is {SIGNS_OF_OTHERS[0][1]}", "MD06")
    if kind in KINDS:
        segmenter, report = load_sam2(path, described)
    elif kind == "sam":
        segmenter, report = _load_sam(path, described)
    else:
        raise ModelError(f"{path}: no perception of the type {kind!r} is known here; use a SAM or a SAM 2.1", "MD06")
    return segmenter.eval(), report


def _load_sam(path: Path, described: dict[str, Any]) -> tuple[Segmenter, LoadReport]:
    state = load_sam(path)
    for sign, reason in SIGNS_OF_OTHERS:
        if any(name.startswith(sign) for name in state):
            raise ModelError(f"{path}: this is {reason}", "MD06")
    heads = dict(described.get("mask_decoder_config") or {}).get("num_attention_heads", 8)
    try:
        segmenter = Segmenter(sam_config(state, heads))
    except ModelError as error:
        raise error.at(path) from error
    return segmenter, fill(segmenter, state, str(path))
