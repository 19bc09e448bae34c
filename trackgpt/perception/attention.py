"""Ways to compute the attention of SAM's ViT with its decomposed relative positions, all with the same weights.

Every query adds to its score of the key at (row, column) one number for the row and one for the column:

* ``eager``: transformers' plain matrices, the reference;
* ``sdpa``: transformers' again, the numbers as a mask of queries x keys given to PyTorch's fused attention;
* ``augmented``: no mask: [q / sqrt(d), rows, columns] times [k, one-hot row, one-hot column] is the score;
* ``flex``: no mask: a kernel compiled by FlexAttention adds the two numbers as it goes.

They agree within `TOLERANCE` in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionAttention, SamVisionSdpaAttention

from trackgpt.errors import UsageError

TOLERANCE = 1e-5
"""Largest difference from ``eager`` in float32, as a share of the embedding's largest value.

Rounding alone: on weights whose relative positions are so large that ``eager`` itself is 4e-5 off float64, it is 2e-5.
"""

# How many times as fast as eager ViT-B at 1024 px is, computing time of one thread of a CPU with AVX2: sdpa 1.32 to
# 1.37, augmented 1.07 to 1.09, flex 1.07 after 20 s of compiling (`python -m eval speed --only attention`).
# On a GPU not measured: there a mask is written to memory and read again, so flex or augmented may be the faster one;
# the same command with `--device cuda` shows it.
BY_DEVICE = {"cpu": "sdpa"}
ELSEWHERE = "sdpa"


def choose_attention(encoder: nn.Module, kind: str, device: str) -> None:
    """Make every attention layer of SAM's ViT compute one way from now on; other modules stay as they are.

    Args:
        encoder: a `SamViT`, or anything that may contain one.
        kind: a key of `KINDS`, or "auto" for what was found fastest on the device.
        device: the type of the device it will run on, e.g. "cpu".

    Raises:
        UsageError: an unknown kind.
    """
    kind = BY_DEVICE.get(device, ELSEWHERE) if kind == "auto" else kind
    if kind not in KINDS:
        raise UsageError(f"attention: `{kind}` is none of auto, {', '.join(KINDS)}")
    for module in encoder.modules():
        if isinstance(module, SamVisionAttention):
            module.__class__ = KINDS[kind]  # the classes differ in their arithmetic alone, not in what they hold


class PositionedAttention(SamVisionAttention):
    """Attention whose arithmetic never holds the whole matrix of relative positions; `attend` does it."""

    attend: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

    def forward(self, hidden_states: Tensor, output_attentions: Any = None) -> tuple[Tensor, None]:
        """Maps (b, h, w, c) to the same shape; there are no weights to give out."""
        b, h, w, c = hidden_states.shape
        packed = self.qkv(hidden_states).reshape(b, h * w, 3, self.num_attention_heads, -1)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        grid = q.unflatten(2, (h, w))
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, self.get_rel_pos(h, h, self.rel_pos_h)).flatten(2, 3)
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, self.get_rel_pos(w, w, self.rel_pos_w)).flatten(2, 3)
        out = self.attend(q, k, v, rows, columns)
        return self.proj(out.transpose(1, 2).reshape(b, h, w, c)), None


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
    return _compiled_flex()(q.contiguous(), k.contiguous(), v.contiguous(), score_mod=score)


@functools.cache
def _compiled_flex() -> Callable[..., Tensor]:
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
