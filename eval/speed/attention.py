"""Part "attention" of `python -m eval speed`: the ways to compute the attention of SAM's ViT, whole encoder, one frame.

Weights are random, which changes no time; the arithmetic is the device's faster one, and where that is bfloat16, eager
attention in float32, the default of transformers, is measured as well. On a CPU a ViT-B at 1024 pixels takes half a
minute per forward in the slower ways: ask for few `--pairs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.speed.bench import Measurement, PartResult, Workload, interleaved, median
from trackgpt.errors import UsageError
from trackgpt.hub import chosen_device
from trackgpt.perception.attention import BY_DEVICE, ELSEWHERE, KINDS, choose_attention
from trackgpt.perception.encoders import SamViT
from trackgpt.precision import inference_dtype

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 64, "window_size": 3}
    | {"global_attn_indexes": [1]},
    "b": {},
    "l": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "global_attn_indexes": [5, 11, 17, 23],
    },
    "h": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31],
    },
}
"""SAM's own sizes at 1024 pixels, by what they change of ViT-B; tiny is for trying this out."""

PLAIN = "eager"
AS_IT_COMES = "eager, float32"


def measure(workload: Workload) -> PartResult:
    """Seconds of one frame through the encoder in every way, and eager's over each.

    Raises:
        UsageError: a size that is not known.
    """
    if workload.vit not in SIZES:
        raise UsageError(f"--vit {workload.vit}: no such size; choose from {', '.join(SIZES)}")
    device = torch.device(chosen_device(workload.device))
    dtype = inference_dtype("auto", device)
    encoder = random_vit(workload.vit).to(device, dtype)
    side = encoder.vision_encoder.config.image_size
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    runs, absent, found = {}, {}, {}
    for kind in KINDS:
        run = _encoding(encoder, pixels, kind)
        try:
            found[kind] = run()
        except RuntimeError as error:
            absent[kind] = str(error).splitlines()[0]
            continue
        runs[kind] = run
    if dtype != torch.float32:
        run = _encoding(random_vit(workload.vit).to(device), pixels.float(), PLAIN)
        found[AS_IT_COMES], runs[AS_IT_COMES] = run(), run
    seconds = interleaved(runs, workload.pairs)
    lines, last = [], {}
    for kind, each in seconds.items():
        apart = float((found[kind] - found[PLAIN]).abs().max() / found[PLAIN].abs().max())
        shown = str(found[kind].dtype).removeprefix("torch.")
        how = f"ViT {workload.vit}, side {side}, {shown}, differs from {PLAIN} by {apart:.1e}"
        lines.append(Measurement(kind, each.wall, "s/frame", how))
    for kind in list(KINDS)[1:]:
        if kind in absent:
            lines.append(Measurement(f"{PLAIN} / {kind}", np.array([]), "", f"not measured: {absent[kind]}"))
            continue
        ratio = seconds[PLAIN].wall / seconds[kind].wall
        work = seconds[PLAIN].computed / seconds[kind].computed
        lines.append(Measurement(f"{PLAIN} / {kind}", ratio, "", "whole encoder"))
        lines.append(Measurement(f"{PLAIN} / {kind}, computing time", work, "", "what a busy machine's clock hides"))
        last[f"{kind}_ratio"] = median(work if device.type == "cpu" else ratio)
    if AS_IT_COMES in seconds:
        chosen = BY_DEVICE.get(device.type, ELSEWHERE)
        ratio = seconds[AS_IT_COMES].wall / seconds[chosen].wall
        lines.append(Measurement(f"{AS_IT_COMES} / {chosen}", ratio, "", f"what `--dtype auto` gains on {device.type}"))
        last["whole_ratio"] = median(ratio)
    return PartResult(lines, last)


def random_vit(size: str) -> SamViT:
    """An encoder whose weights are large enough for every part of it to be seen in the output."""
    encoder = SamViT(SIZES[size])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            if value.dim() > 1:
                scale = 0.1 if "rel_pos" in name else value[0].numel() ** -0.5
                value.normal_(0, scale, generator=generator)
    return encoder.eval()


def _encoding(encoder: SamViT, pixels: Tensor, kind: str) -> Callable[[], Tensor]:
    @torch.inference_mode()
    def run() -> Tensor:
        choose_attention(encoder, kind, pixels.device.type)
        embedding = encoder(pixels).embedding
        if pixels.device.type == "cuda":
            torch.cuda.synchronize(pixels.device)
        return embedding

    return run
