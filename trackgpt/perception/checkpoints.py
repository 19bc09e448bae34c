"""A published SAM or SAM 2 checkpoint, file or folder, as a segmenter of its size: what `--perception` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trackgpt.config import PerceptionConfig
from trackgpt.errors import ModelError
from trackgpt.perception.sam2_weights import KINDS, read_sam2
from trackgpt.perception.sam_weights import fitting, load_sam, sam_config
from trackgpt.perception.segmenter import Segmenter
from trackgpt.settings import read_json
from trackgpt.weights import LoadReport, describing, give, start_anew, unfilled

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


def load_segmenter(path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[Segmenter, LoadReport]:
    """A segmenter of the size of a checkpoint, filled with its weights, on the CPU, in evaluation mode.

    What no SAM has (the online query and its adapter) starts at random.

    Args:
        path: a SAM's `.pth` or `.safetensors` file or its Hugging Face folder, or that of a SAM 2 or 2.1.
        dtype: of the weights in memory, whatever they are stored as.

    Raises:
        ModelError: MD01 it is not there; MD02 it is damaged, or no SAM; MD06 a relative of SAM that cannot be loaded,
            with what is missing and what to use instead.
    """
    path = Path(path)
    with unfilled():
        segmenter, weights, report = _read(path)
    give(segmenter, weights.items(), dtype, path)
    for part in (segmenter.mask_decoder.first_online, segmenter.mask_decoder.adapter):
        start_anew(part, dtype)  # ADDED_BY_TRACKGPT
    return segmenter.eval(), report


def segmenter_config(path: str | Path) -> PerceptionConfig:
    """The configuration of `load_segmenter`'s segmenter; files are mapped, their weights are not read.

    Raises:
        ModelError: see `load_segmenter`.
    """
    with unfilled():
        return _read(Path(path))[0].config


def _read(path: Path) -> tuple[Segmenter, dict[str, Tensor], LoadReport]:
    """A segmenter of the size of a checkpoint, the weights that fit it, and what becomes of all."""
    described = read_json(path / CONFIG_FILE) if (path / CONFIG_FILE).is_file() else {}
    kind = str(described.get("model_type", "sam"))
    if kind.startswith("edgetam"):
        raise ModelError(f"{path}: this is {SIGNS_OF_OTHERS[0][1]}", "MD06")
    if kind in KINDS:
        return read_sam2(path, described)
    if kind == "sam":
        return _read_sam(path, described)
    raise ModelError(f"{path}: no perception of the type {kind!r} is known here; use a SAM or a SAM 2.1", "MD06")


def _read_sam(path: Path, described: dict[str, Any]) -> tuple[Segmenter, dict[str, Tensor], LoadReport]:
    state = load_sam(path)
    for sign, reason in SIGNS_OF_OTHERS:
        if any(name.startswith(sign) for name in state):
            raise ModelError(f"{path}: this is {reason}", "MD06")
    with describing(path):
        heads = dict(described.get("mask_decoder_config") or {}).get("num_attention_heads", 8)
        segmenter = Segmenter(sam_config(state, heads))
        return segmenter, *fitting(segmenter, state, str(path))
