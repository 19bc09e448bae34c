"""SAM 2 and 2.1 into our segmenter: the image model of a Hugging Face folder, without its memory.

Its mask decoder is SAM's with an object token in front, a sigmoid at the IoU head's end, and the encoder's stride-4 and
stride-8 maps added while upscaling: fields of `DecoderConfig`, so that the same class runs it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from trackgpt.config import DecoderConfig, EncoderConfig, PerceptionConfig
from trackgpt.errors import ModelError
from trackgpt.perception.sam_weights import ADDED_BY_TRACKGPT, check_fit, load_sam
from trackgpt.perception.segmenter import Segmenter
from trackgpt.weights import LoadReport, describing, refuse_oversized

KINDS = ("sam2", "sam2_video")
"""transformers' names: the image model alone, and with its memory (which is how the hub holds it)."""

_TO_OURS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^vision_encoder\.", "image_encoder.vision_encoder."),
        (r"^no_memory_embedding$", "image_encoder.no_memory_embedding"),
        (r"^mask_decoder\.conv_s0\.", "mask_decoder.fine4."),
        (r"^mask_decoder\.conv_s1\.", "mask_decoder.fine8."),
        (r"^(mask_decoder\.transformer\..*)\.o_proj\.", r"\1.out_proj."),
        (r"^(mask_decoder\.transformer\..*\.mlp)\.proj_in\.", r"\1.lin1."),
        (r"^(mask_decoder\.transformer\..*\.mlp)\.proj_out\.", r"\1.lin2."),
        (r"^prompt_encoder\.no_mask_embed\.", "no_mask_embed."),
    )
)
_OURS = re.compile(r"image_encoder\.|mask_decoder\.(?!pred_obj_score_head)|shared_image_embedding\.|no_mask_embed\.")


def read_sam2(path: Path, described: dict[str, Any]) -> tuple[Segmenter, dict[str, Tensor], LoadReport]:
    """A segmenter of the size of a SAM 2, the weights for it, and what becomes of all.

    Args:
        path: the folder.
        described: its config.json.

    Raises:
        ModelError: MD01, MD02 (see `load_sam`); MD02, the weights do not fit the configuration.
    """
    try:
        config = sam2_config(described)
    except Exception as error:  # transformers reads any value, and each of its classes fails in its own way
        raise ModelError(f"{path / 'config.json'}: not the configuration of a SAM 2 ({error!r})", "MD02") from error
    weights = load_sam(path)
    with describing(path / "config.json"):
        refuse_oversized(described, weights, lambda: Segmenter(config), path / "config.json")
        segmenter = Segmenter(config)
    ours, skipped = sam2_names(weights)
    wanted = segmenter.state_dict()
    new = sorted(name for name in set(wanted) - set(ours) if name.startswith(ADDED_BY_TRACKGPT))
    check_fit(ours, {name: value for name, value in wanted.items() if name not in new}, str(path))
    return segmenter, ours, LoadReport(tuple(sorted(ours)), tuple(new), tuple(skipped))


def sam2_config(described: dict[str, Any]) -> PerceptionConfig:
    """The configuration of our segmenter from that of a `Sam2Model` or `Sam2VideoModel` as a dictionary.

    Raises:
        KeyError: a part is missing.
    """
    from transformers import Sam2MaskDecoderConfig, Sam2PromptEncoderConfig

    mask = Sam2MaskDecoderConfig(**described["mask_decoder_config"])
    decoder = DecoderConfig(
        style="sam2",
        hidden_size=mask.hidden_size,
        mlp_dim=mask.mlp_dim,
        layers=mask.num_hidden_layers,
        heads=mask.num_attention_heads,
        multimask=mask.num_multimask_outputs,
        iou_head_depth=mask.iou_head_depth,
        iou_head_hidden=mask.iou_head_hidden_dim,
        skips=True,
    )
    side = Sam2PromptEncoderConfig(**described["prompt_encoder_config"]).image_size
    return PerceptionConfig(EncoderConfig(kind="sam2", sam=dict(described["vision_config"])), decoder, side)


def sam2_names(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under the names of `Segmenter`, not copied, and the names of those that have no place there."""
    ours: dict[str, Tensor] = {}
    skipped = []
    for name, value in state.items():
        renamed = name
        for pattern, replacement in _TO_OURS:
            renamed = pattern.sub(replacement, renamed)
        if _OURS.match(renamed):
            ours[renamed] = value
        else:
            skipped.append(name)
    return ours, sorted(skipped)
