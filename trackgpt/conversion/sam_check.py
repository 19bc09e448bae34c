"""A converted SAM compared with the original implementation, the PyPI package `segment-anything`, on one image."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from trackgpt.config import PerceptionConfig
from trackgpt.errors import ModelError
from trackgpt.perception.checkpoints import load_segmenter
from trackgpt.perception.sam_weights import load_sam, sam_config
from trackgpt.version import require

TOLERANCE = 1e-3
"""Largest absolute difference of an image embedding, mask logits or predicted IoU that passes as rounding."""

_TORCHVISION = {
    "torchvision.ops.boxes": ("batched_nms", "box_area"),
    "torchvision.transforms.functional": ("resize", "to_pil_image"),
}


def require_segment_anything() -> None:
    """Raise UsageError where the package is not installed."""
    require("check", "segment_anything")


def import_segment_anything() -> ModuleType:
    """The package, imported with stand-ins for the four functions of torchvision that it names; they are never called.

    The stand-ins are removed afterwards, because transformers would take them for a torchvision.

    Raises:
        UsageError: it is not installed.
    """
    if "segment_anything" in sys.modules:
        return sys.modules["segment_anything"]
    require_segment_anything()

    def absent(*_args: object, **_named: object) -> None:
        raise NotImplementedError("torchvision is not installed")

    names = ["torchvision", "torchvision.ops", "torchvision.transforms", *_TORCHVISION]
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    try:
        for name in names:
            sys.modules[name] = ModuleType(name)
            sys.modules[name].__path__ = []
        for name, functions in _TORCHVISION.items():
            for function in functions:
                setattr(sys.modules[name], function, absent)
        return importlib.import_module("segment_anything")
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)


def compare(file: Path, folder: Path) -> dict[str, float]:
    """Run the original implementation on `file` and our segmenter on `folder`, one after the other, in float32.

    Both encode one image of random pixels and decode it without prompts.

    Args:
        file: an original `.pth`.
        folder: what `convert_sam` made of it.

    Returns:
        The largest absolute difference of the image embedding, of the first mask's logits and of its predicted IoU.

    Raises:
        UsageError: segment-anything is not installed.
        ModelError: see `load_sam` and `load_segmenter`.
    """
    config = sam_config(load_sam(file))
    side = config.image_side
    pixels = torch.randint(0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    original = _original(file, config, pixels)
    names = ("embedding", "masks", "scores")
    return {name: float((a - b).abs().max()) for name, a, b in zip(names, original, _ours(folder, pixels))}


def refuse_differences(found: dict[str, float], folder: Path) -> None:
    """Raise ModelError MD02 where a difference exceeds `TOLERANCE` or is not a number."""
    wrong = [f"{name} by {value:.2g}" for name, value in found.items() if not value <= TOLERANCE]
    if wrong:
        raise ModelError(
            f"{folder}: differs from segment-anything on the same weights: {', '.join(wrong)}, {TOLERANCE:g} allowed; "
            "do not use this folder",
            "MD02",
        )


@torch.no_grad()
def _original(file: Path, config: PerceptionConfig, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    sam = original_sam(config).eval()
    sam.load_state_dict(load_sam(file))
    embedding = sam.image_encoder(sam.preprocess(pixels.float()))
    sparse, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
    masks, scores = sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense)
    return embedding, masks[:, 0], scores[:, 0]


@torch.no_grad()
def _ours(folder: Path, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    segmenter, _ = load_segmenter(folder)
    segmenter.fold()
    features = segmenter.encode(pixels)
    _, c, h, w = features.embedding.shape
    dense = segmenter.no_mask_embed.weight.view(1, c, 1, 1)
    decoded = segmenter.mask_decoder(features, segmenter.positions(h, w), dense, torch.zeros(1, 0, c), None, None)
    return features.embedding, decoded.logits, decoded.score


def original_sam(config: PerceptionConfig) -> Any:
    """The original `Sam` of the sizes of a configuration, with random weights.

    Raises:
        UsageError: segment-anything is not installed.
    """
    import_segment_anything()
    modeling = importlib.import_module("segment_anything.modeling")
    vit, decoder, side = config.encoder.sam, config.decoder, config.image_side
    grid = side // vit["patch_size"]
    encoder = modeling.ImageEncoderViT(
        img_size=side,
        patch_size=vit["patch_size"],
        embed_dim=vit["hidden_size"],
        depth=vit["num_hidden_layers"],
        num_heads=vit["num_attention_heads"],
        mlp_ratio=vit["mlp_dim"] / vit["hidden_size"],
        out_chans=vit["output_channels"],
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=vit["window_size"],
        global_attn_indexes=vit["global_attn_indexes"],
    )
    prompts = modeling.PromptEncoder(decoder.hidden_size, (grid, grid), (side, side), 16)
    masks = modeling.MaskDecoder(
        transformer_dim=decoder.hidden_size,
        transformer=modeling.TwoWayTransformer(decoder.layers, decoder.hidden_size, decoder.heads, decoder.mlp_dim),
        num_multimask_outputs=decoder.multimask,
        iou_head_depth=decoder.iou_head_depth,
        iou_head_hidden_dim=decoder.iou_head_hidden,
    )
    return modeling.Sam(encoder, prompts, masks)
