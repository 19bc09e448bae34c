"""A SAM's original `.pth` file as a folder of transformers' `SamModel`, which is also what `--perception` takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from trackgpt.conversion.tensors import write_safetensors
from trackgpt.errors import ModelError, OutputError
from trackgpt.perception.sam_weights import ENCODER, POSITIONS, sam_config, segmenter_names
from trackgpt.weights import Lazy, LoadReport, checked_lazily, read_lazily

_PROMPTS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\.point_embeddings\.", ".point_embed."),
        (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    )
)


def convert_sam(file: Path, out: Path) -> LoadReport:
    """Write the folder; no tensor changes.

    Args:
        file: `sam_vit_b_01ec64.pth` or any other in that layout.
        out: the folder, new or empty.

    Raises:
        ModelError: MD01 there is no such file; MD02 it is damaged, or no SAM.
        OutputError: OUT01, the folder holds something already.
    """
    source = {name: checked_lazily(file, name, lazy) for name, lazy in read_lazily(file).items()}
    try:
        names, _ = segmenter_names(source)
        config = _config(source)
    except ModelError as error:
        raise error.at(file) from error
    tensors: dict[str, Lazy] = {}
    for theirs, lazy in source.items():
        if theirs in names:
            tensors[_of_hugging_face(names[theirs])] = lazy
        elif theirs.startswith("prompt_encoder."):
            tensors[_prompt_name(theirs)] = lazy
    tensors["prompt_encoder.shared_embedding.positional_embedding"] = tensors[POSITIONS]
    new_folder(out)
    write_safetensors(out / "model.safetensors", tensors)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    skipped = tuple(sorted(set(source) & {"pixel_mean", "pixel_std"}))
    return LoadReport(loaded=tuple(sorted(tensors)), skipped=skipped)


def new_folder(out: Path) -> None:
    """Make a folder to write to.

    Raises:
        OutputError: OUT01, it holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: exists and is not empty; choose another folder", "OUT01")
    out.mkdir(parents=True, exist_ok=True)


def _of_hugging_face(ours: str) -> str:
    if ours.startswith("no_mask_embed."):
        return f"prompt_encoder.{ours}"
    return ours.replace(ENCODER, "vision_encoder.", 1)


def _prompt_name(theirs: str) -> str:
    for pattern, replacement in _PROMPTS:
        theirs = pattern.sub(replacement, theirs)
    return theirs


def _config(source: dict[str, Lazy]) -> dict[str, Any]:
    """A `SamConfig` as a dictionary, read off the shapes; the decoder's epsilon is the one SAM was trained with."""
    perception = sam_config({name: torch.empty(lazy.shape, device="meta") for name, lazy in source.items()})
    vision, decoder = perception.encoder.sam, perception.decoder
    grid = vision["image_size"] // vision["patch_size"]
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "vision_config": vision,
        "prompt_encoder_config": {
            "hidden_size": decoder.hidden_size,
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "image_embedding_size": grid,
            "mask_input_channels": source["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        },
        "mask_decoder_config": {
            "hidden_size": decoder.hidden_size,
            "mlp_dim": decoder.mlp_dim,
            "num_hidden_layers": decoder.layers,
            "num_attention_heads": decoder.heads,
            "num_multimask_outputs": decoder.multimask,
            "iou_head_depth": decoder.iou_head_depth,
            "iou_head_hidden_dim": decoder.iou_head_hidden,
            "layer_norm_eps": 1e-5,
        },
    }
