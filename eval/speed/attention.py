"""Part "attention" of `python -m eval speed`: implementations of the attention of SAM's ViT, whole encoder, one frame.

Weights are random, which changes no time; the arithmetic is the device's faster one, and where that is bfloat16, eager
attention in float32 is measured beside it. On a CPU, one forward pass of a ViT-B at 1024 pixels takes half a minute in
the slower implementations: ask for few `--pairs`.

SAM's ViT has decomposed relative positions: every query adds to its score of the key at (row, column) one number for
the row and one for the column. All implementations share the weights and agree within `TOLERANCE` in float32:

* ``eager``: transformers' plain matrices, the reference;
* ``sdpa``: transformers' again, the numbers as a mask of queries x keys given to PyTorch's fused attention; what the
  package uses;
* ``augmented``: no mask: [q / sqrt(d), rows, columns] times [k, one-hot row, one-hot column] is the score;
* ``flex``: no mask: a kernel compiled by FlexAttention adds the two numbers as it computes the scores.

The last two are candidates and stay here until they are measured to be faster. On one thread of a CPU with AVX2, a
ViT-B at 1024 px takes eager's computing time divided by 1.32 to 1.37 with sdpa, by 1.07 to 1.09 with augmented, and by
1.07 with flex after 20 s of compiling. On a GPU, where sdpa's mask is written to memory and read again, nothing has
been measured; the same command with `--device cuda` does it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionAttention, SamVisionSdpaAttention

from eval.speed.bench import Measurement, PartResult, Workload, interleaved, median
from trackgpt.errors import UsageError
from trackgpt.hub import chosen_device
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
PLAIN_FLOAT32 = "eager, float32"
USED = "sdpa"
TOLERANCE = 1e-5
"""Largest difference from ``eager`` in float32, as a share of the embedding's largest value.

Rounding alone: on weights whose relative positions are so large that ``eager`` itself is 4e-5 off float64, it is 2e-5.
"""


def measure(workload: Workload) -> PartResult:
    """Seconds per frame of the encoder with every implementation, and eager's divided by each.

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
        found[PLAIN_FLOAT32], runs[PLAIN_FLOAT32] = run(), run
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
    if PLAIN_FLOAT32 in seconds:
        ratio = seconds[PLAIN_FLOAT32].wall / seconds[USED].wall
        lines.append(Measurement(f"{PLAIN_FLOAT32} / {USED}", ratio, "", f"what `--dtype auto` gains on {device.type}"))
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
        use_attention(encoder, kind)
        embedding = encoder(pixels).embedding
        if pixels.device.type == "cuda":
            torch.cuda.synchronize(pixels.device)
        return embedding

    return run


def use_attention(encoder: nn.Module, kind: str) -> None:
    """Make every attention layer of SAM's ViT compute with one of `KINDS` from now on; other modules are unchanged."""
    for module in encoder.modules():
        if isinstance(module, SamVisionAttention):
            module.__class__ = KINDS[kind]  # the classes differ in their arithmetic alone, not in what they hold


class PositionedAttention(SamVisionAttention):
    """Attention that never holds the matrix of relative positions, queries x keys; `attend` computes it."""

    attend: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

    def forward(self, hidden_states: Tensor, output_attentions: Any = None) -> tuple[Tensor, None]:
        """Maps (b, h, w, c) to the same shape; there are no weights to give out."""
        h, w = hidden_states.shape[1:3]
        heads = self.num_attention_heads
        q, k, v = rearrange(self.qkv(hidden_states), "b h w (qkv n c) -> qkv b n (h w) c", qkv=3, n=heads)
        grid = q.unflatten(2, (h, w))
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, self.get_rel_pos(h, h, self.rel_pos_h)).flatten(2, 3)
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, self.get_rel_pos(w, w, self.rel_pos_w)).flatten(2, 3)
        out = self.attend(q, k, v, rows, columns)
        return self.proj(rearrange(out, "b n (h w) c -> b h w (n c)", h=h)), None


def augmented(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention of q, k, v (b, heads, h * w, d) with every query's numbers of rows (..., h) and columns (..., w)."""
    h, w = rows.shape[-1], columns.shape[-1]
    cell = torch.arange(h * w, device=q.device)
    places = torch.cat([F.one_hot(cell // w, h), F.one_hot(cell % w, w)], dim=-1).to(k.dtype)
    query = torch.cat([q * q.shape[-1] ** -0.5, rows, columns], dim=-1)
    key = torch.cat([k, places.expand(*k.shape[:2], -1, -1)], dim=-1)
    return F.scaled_dot_product_attention(query, key, v, scale=1.0)


def flex(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The same by FlexAttention; each new shape is compiled at its first call."""
    w = columns.shape[-1]

    def score(value: Tensor, b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return value + rows[b, head, query, key // w] + columns[b, head, query, key % w]

    # As qkv leaves them, heads lie interleaved, which takes the kernel twice as long.
    return compiled_flex()(q.contiguous(), k.contiguous(), v.contiguous(), score_mod=score)


@functools.cache
def compiled_flex() -> Callable[..., Tensor]:
    """FlexAttention's function behind torch.compile, made once."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


class AugmentedAttention(PositionedAttention):
    """See `augmented`."""

    attend = staticmethod(augmented)


class FlexAttention(PositionedAttention):
    """See `flex`."""

    attend = staticmethod(flex)


KINDS: dict[str, type[SamVisionAttention]] = {
    "eager": SamVisionAttention,
    "sdpa": SamVisionSdpaAttention,
    "augmented": AugmentedAttention,
    "flex": FlexAttention,
}
