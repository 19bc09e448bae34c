"""SAM's published weights into our segmenter: original `.pth` files and Hugging Face folders.

Both layouts hold the same tensors under different names. `to_segmenter_keys` gives them the segmenter's names (which
follow transformers' `SamModel`), `sam_config` reads the sizes of the model off them, `load_into` fills a segmenter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from trackgpt.config import DecoderConfig, EncoderConfig, PerceptionConfig
from trackgpt.errors import ModelError
from trackgpt.perception.encoders import SamViT
from trackgpt.perception.segmenter import Segmenter
from trackgpt.weights import LoadReport, checked, read_lazily, refuse_two_values, some

ENCODER = "image_encoder.vision_encoder."
POSITIONS = "shared_image_embedding.positional_embedding"
ADDED_BY_TRACKGPT = ("mask_decoder.first_online.", "mask_decoder.adapter.")

_ORIGINAL_TO_OURS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^image_encoder\.", ENCODER),
        (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
        (r"\.blocks\.", ".layers."),
        (r"\.neck\.0\.", ".neck.conv1."),
        (r"\.neck\.1\.", ".neck.layer_norm1."),
        (r"\.neck\.2\.", ".neck.conv2."),
        (r"\.neck\.3\.", ".neck.layer_norm2."),
        (r"\.norm", ".layer_norm"),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
        (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", POSITIONS),
        (r"^prompt_encoder\.no_mask_embed\.", "no_mask_embed."),
    )
)
_HUGGING_FACE_TO_OURS = (
    (re.compile(r"^vision_encoder\."), ENCODER),
    # Two names of one tensor in SamModel: a file may hold either or both.
    (re.compile(r"^prompt_encoder\.shared_embedding\.positional_embedding$"), POSITIONS),
    (re.compile(r"^prompt_encoder\.no_mask_embed\."), "no_mask_embed."),
)
_OURS = re.compile(r"image_encoder\.vision_encoder\.|mask_decoder\.|shared_image_embedding\.|no_mask_embed\.")
_WITHOUT_PLACE = re.compile(r"prompt_encoder\.|pixel_mean$|pixel_std$")
_MLP_LAYER = re.compile(r"(?P<mlp>.*(?:iou_prediction_head|output_hypernetworks_mlps\.\d+))\.layers\.(?P<index>\d+)\.")


def load_sam(path: str | Path) -> dict[str, Tensor]:
    """The weights of a SAM, mapped from its files where that is possible, under the names they have there.

    Args:
        path: an original `.pth` file, a `.safetensors` file, or a Hugging Face folder, sharded or not.

    Raises:
        ModelError: MD01 there is no such file or no weights in the folder; MD02 it is damaged, or holds anything but
            named tensors. Nothing in a file is ever executed.
    """
    return {name: lazy.make() for name, lazy in read_lazily(Path(path), standard=True).items()}


def to_segmenter_keys(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], LoadReport]:
    """Give the weights of a SAM the names they have in `Segmenter`.

    Args:
        state: from `load_sam`, in either layout.

    Returns:
        The renamed weights (the same tensors, not copied), and a report of what is `loaded` and what is `skipped`.

    Raises:
        ModelError: MD02, the names are those of another model, some of which are given; or two that mean the same
            weight differ in it.
    """
    names, skipped = segmenter_names(state)
    ours: dict[str, Tensor] = {}
    for theirs, name in names.items():
        if name in ours:
            refuse_two_values("its weights", name, ours[name], state[theirs])
        ours[name] = state[theirs]
    return ours, LoadReport(loaded=tuple(sorted(ours)), skipped=tuple(sorted(skipped)))


def segmenter_names(theirs: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The name in `Segmenter` of each weight of a SAM, and the names of those that have no place there.

    Raises:
        ModelError: see `to_segmenter_keys`.
    """
    theirs = list(theirs)
    original = any(name.startswith("image_encoder.") for name in theirs)
    if original == any(name.startswith("vision_encoder.") for name in theirs):
        wanted = "weights named image_encoder.* (.pth) or vision_encoder.* (Hugging Face)"
        raise ModelError(f"not a SAM: wanted {wanted}, found {some(sorted(theirs)) or 'none'}", "MD02")
    rules = _ORIGINAL_TO_OURS if original else _HUGGING_FACE_TO_OURS
    depths = _mlp_depths(theirs) if original else Counter()
    ours: dict[str, str] = {}
    skipped: list[str] = []
    foreign: list[str] = []
    for name in theirs:
        renamed = _renamed_mlp_layer(name, depths)
        for pattern, replacement in rules:
            renamed = pattern.sub(replacement, renamed)
        if _OURS.match(renamed):
            ours[name] = renamed
        else:
            (skipped if _WITHOUT_PLACE.match(name) else foreign).append(name)
    if foreign:
        raise ModelError(f"not a SAM: it has weights no SAM has: {some(sorted(foreign))}", "MD02")
    return ours, skipped


def _mlp_depths(names: Iterable[str]) -> Counter[str]:
    """Number of linear layers of each MLP of the original layout."""
    found = (_MLP_LAYER.match(name) for name in names if name.endswith(".weight"))
    return Counter(match["mlp"] for match in found if match)


def _renamed_mlp_layer(name: str, depths: Counter[str]) -> str:
    """`layers.0, 1, ..., last` of the original layout are `proj_in`, `layers.0, ...`, `proj_out` in ours."""
    match = _MLP_LAYER.match(name)
    if match is None or match["mlp"] not in depths:
        return name
    mlp, index = match["mlp"], int(match["index"])
    if index == 0:
        place = "proj_in"
    elif index == depths[mlp] - 1:
        place = "proj_out"
    else:
        place = f"layers.{index - 1}"
    return f"{mlp}.{place}.{name[match.end() :]}"


def sam_config(state: dict[str, Tensor], decoder_heads: int = 8) -> PerceptionConfig:
    """The configuration whose segmenter the weights fit, read off their names and shapes: ViT-B, -L, -H or any other.

    Args:
        state: from `load_sam`, in either layout.
        decoder_heads: attention heads of the mask decoder, the one size that no shape shows; 8 in every published SAM.

    Raises:
        ModelError: MD02, not a SAM, or one without relative or absolute positions (no published SAM lacks them).
    """
    ours, _ = to_segmenter_keys(state)
    try:
        decoder = _decoder_config(ours, decoder_heads)
        sam = _vit_config(ours)
    except KeyError as error:
        raise ModelError(f"not a whole SAM: it lacks {error.args[0]}", "MD02") from error
    encoder = EncoderConfig(kind="sam_vit", sam=sam)
    return PerceptionConfig(encoder=encoder, decoder=decoder, image_side=sam["image_size"])


def _decoder_config(ours: dict[str, Tensor], heads: int) -> DecoderConfig:
    tokens, width = ours["mask_decoder.mask_tokens.weight"].shape
    return DecoderConfig(
        hidden_size=width,
        mlp_dim=ours["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
        layers=_count(ours, "mask_decoder.transformer.layers."),
        heads=heads,
        multimask=tokens - 1,
        iou_head_depth=2 + _count(ours, "mask_decoder.iou_prediction_head.layers."),
        iou_head_hidden=ours["mask_decoder.iou_prediction_head.proj_in.weight"].shape[0],
    )


def _vit_config(ours: dict[str, Tensor]) -> dict[str, Any]:
    """A `SamVisionConfig` as a dictionary; relative positions of length 2 n - 1 show a window, or a grid, of side n."""
    patches = ours[f"{ENCODER}patch_embed.projection.weight"]
    grid = ours[f"{ENCODER}pos_embed"].shape[1]
    width, side = patches.shape[0], patches.shape[-1]
    mlp = ours[f"{ENCODER}layers.0.mlp.lin1.weight"].shape[0]
    layers = _count(ours, f"{ENCODER}layers.")
    relative = [ours[f"{ENCODER}layers.{i}.attn.rel_pos_h"] for i in range(layers)]
    reach = [(table.shape[0] + 1) // 2 for table in relative]
    windows = [n for n in reach if n != grid]
    channels = ours[f"{ENCODER}neck.conv1.weight"].shape[0]
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // relative[0].shape[1],
        "mlp_dim": mlp,
        "image_size": grid * side,
        "patch_size": side,
        "window_size": windows[0] if windows else 0,
        "global_attn_indexes": [i for i, n in enumerate(reach) if n == grid],
        "output_channels": channels,
        "num_pos_feats": channels // 2,
    }


def _count(ours: dict[str, Tensor], prefix: str) -> int:
    """Number of layers, which are named by an index after the prefix."""
    return len({name[len(prefix) :].split(".")[0] for name in ours if name.startswith(prefix)})


def load_into(segmenter: Segmenter, path: str | Path) -> LoadReport:
    """Fill a segmenter with the weights of a SAM. All of it fits and is loaded, or nothing is changed.

    Positions are resampled where the segmenter sees another image side than the checkpoint (see `_resized`).

    Args:
        segmenter: with the encoder "sam_vit", e.g. built from `sam_config`; dtype and device are its own.
        path: see `load_sam`.

    Raises:
        ModelError: MD01, MD02 (see `load_sam`); MD02 the weights are no SAM's or do not fit, with their names.
    """
    if not isinstance(segmenter.image_encoder, SamViT):
        kind = segmenter.config.encoder.kind
        raise ModelError(f"{path}: SAM's weights need the encoder kind sam_vit, this segmenter's is {kind}", "MD02")
    ours, report = fitting(segmenter, load_sam(path), str(path))
    segmenter.load_state_dict({name: checked(path, name, value) for name, value in ours.items()}, strict=False)
    return report


def fitting(segmenter: Segmenter, state: dict[str, Tensor], where: str) -> tuple[dict[str, Tensor], LoadReport]:
    """The weights of a SAM that a segmenter takes, under its names; `where` names their file in errors.

    Raises:
        ModelError: MD02, see `load_into`.
    """
    assert isinstance(segmenter.image_encoder, SamViT)
    try:
        ours, report = to_segmenter_keys(state)
    except ModelError as error:
        raise error.at(where) from error
    wanted = segmenter.state_dict()
    resized = _resized(segmenter.image_encoder, ours, wanted)
    ours.update(resized)
    new = sorted(name for name in set(wanted) - set(ours) if name.startswith(ADDED_BY_TRACKGPT))
    check_fit(ours, {name: value for name, value in wanted.items() if name not in new}, where)
    return ours, replace(report, new=tuple(new), reshaped=tuple(sorted(resized)))


def _resized(encoder: SamViT, ours: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Position tables of a square grid, resampled to the grid the segmenter has.

    Absolute positions, (1, n, n, c), bicubically; relative positions of global layers, (2 n - 1, c), linearly, which is
    what SAM itself does to them when its input changes. Windows keep their side, so a table of another length there is
    a misfit and is left alone.
    """
    grid = f"{ENCODER}pos_embed"
    if grid not in ours or grid not in wanted or ours[grid].dim() != 4 or ours[grid].shape[1] == wanted[grid].shape[1]:
        return {}
    source, target = ours[grid].shape[1], wanted[grid].shape[1]
    table = rearrange(ours[grid].float(), "1 h w c -> 1 c h w")
    table = F.interpolate(table, (target, target), mode="bicubic", antialias=True)
    resized = {grid: rearrange(table, "1 c h w -> 1 h w c")}
    for index, layer in enumerate(encoder.vision_encoder.layers):
        for axis in ("rel_pos_h", "rel_pos_w"):
            name = f"{ENCODER}layers.{index}.attn.{axis}"
            if layer.window_size == 0 and name in ours and ours[name].shape[0] == 2 * source - 1:
                table = F.interpolate(rearrange(ours[name].float(), "n c -> 1 c n"), 2 * target - 1, mode="linear")
                resized[name] = rearrange(table, "1 c n -> n c")
    return resized


def check_fit(ours: dict[str, Tensor], wanted: dict[str, Tensor], where: str) -> None:
    """Compare names and shapes of the weights that are there with those that should be.

    Raises:
        ModelError: MD02, with the first names of every kind of misfit.
    """
    shapes = [
        f"{name} is {tuple(ours[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in sorted(set(ours) & set(wanted))
        if ours[name].shape != wanted[name].shape
    ]
    problems = [
        f"{problem} {len(names)}: {some(names)}"
        for problem, names in (
            ("weights missing", sorted(set(wanted) - set(ours))),
            ("weights unknown", sorted(set(ours) - set(wanted))),
            ("shapes that differ", shapes),
        )
        if names
    ]
    if problems:
        advice = "build the segmenter from sam_config(load_sam(path))"
        raise ModelError(f"{where}: does not fit this segmenter: {'; '.join(problems)}; {advice}", "MD02")
