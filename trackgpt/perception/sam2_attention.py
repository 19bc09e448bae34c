"""SAM 2's attention with transformers' weights, without what transformers computes twice or for nothing.

Of the encoder: weights that are never read (`Sam2MultiScaleAttention.forward`) and positions made anew for every frame.
Of memory attention: angles, sums and half-rotated copies for every layer, target and frame. Both give the same bits.
`folded` also changes the order of memory attention: its values are a linear map of 64 channels to 256, and a weighted
sum of mapped rows is the mapped weighted sum, so the second of two large products shrinks to a quarter. That is equal
up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel, Sam2MultiScaleAttention, do_pool
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMemoryAttention

ROWS = 256
"""Queries whose weights are held at once where values are folded: 7 MB at 512 px, 29 MB at 1024 px."""


class LeanHiera(Sam2HieraDetModel):
    """`Sam2HieraDetModel`, the encoder's trunk, for inference."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for block in self.blocks:
            heads = block.attn.num_attention_heads
            block.attn = LeanHieraAttention(config, block.dim, block.dim_out, heads, block.query_stride)
        self._places: dict[tuple[Any, ...], Tensor] = {}

    def _get_pos_embed(self, hw: tuple[int, int]) -> Tensor:
        """Positions of a grid (1, h, w, c), enlarged once for each size."""
        key = (tuple(hw), self.pos_embed.device, self.pos_embed.dtype)
        if key not in self._places:
            self._places[key] = super()._get_pos_embed(hw)
        return self._places[key]


class LeanHieraAttention(Sam2MultiScaleAttention):
    """`Sam2MultiScaleAttention` for inference."""

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        """Attention within a window, (b, h, w, c) to (b, h', w', c'), smaller where queries are pooled."""
        b, h, w, _c = hidden_states.shape
        heads = self.num_attention_heads
        q, k, v = self.qkv(hidden_states).reshape(b, h * w, 3, heads, -1).unbind(2)
        if self.query_stride:
            pooled = do_pool(q.reshape(b, h, w, -1), self.query_stride)
            h, w = pooled.shape[1:3]
            q = pooled.reshape(b, h * w, heads, -1)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        found = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(found.transpose(1, 2).reshape(b, h, w, -1))


class LeanMemoryAttention(Sam2VideoMemoryAttention):
    """`Sam2VideoMemoryAttention` for inference; dropout, which is off then, is left out.

    Attributes:
        folded: weigh the memory's 64 channels and map the sum to values, see above.
    """

    folded = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._turns: dict[torch.device, Tensor] = {}

    def forward(
        self,
        current_vision_features: Tensor,
        memory: Tensor,
        current_vision_position_embeddings: Tensor | None = None,
        memory_posision_embeddings: Tensor | None = None,
        num_object_pointer_tokens: int = 0,
    ) -> Tensor:
        """As transformers' own, whose arguments it takes: (h w, n, c) and (t, n, 64) to (1, n, h w, c)."""
        begun = self.begin(current_vision_features, current_vision_position_embeddings)
        spread = torch.zeros_like(memory) if memory_posision_embeddings is None else memory_posision_embeddings
        return self.finish(begun, memory, spread, num_object_pointer_tokens)[None]

    def begin(self, features: Tensor, positions: Tensor | None) -> Tensor:
        """The first layer's self-attention, in which no memory is read: the same for all targets of a frame.

        Args:
            features: of the frame, float32 (h w, n, c).
            positions: the same shape, or None.

        Returns:
            (n, h w, c), float32 or, where the weights are of 16 bits, of their dtype.
        """
        x = features if positions is None else features + 0.1 * positions
        return self._among_cells(self.layers[0], x.transpose(0, 1).to(self.layer_norm.weight.dtype))

    def finish(self, begun: Tensor, memory: Tensor, positions: Tensor, pointers: int) -> Tensor:
        """Everything else.

        Args:
            begun: from `begin`, (n, h w, c).
            memory: maps, each of h w rows, and behind them tokens of object pointers, (t, n, 64).
            positions: the same shape.
            pointers: how many of the rows are pointers.

        Returns:
            The frame's features with what is remembered, float32 (n, h w, c).
        """
        memory, positions = (each.transpose(0, 1).to(begun.dtype).contiguous() for each in (memory, positions))
        keys, x = memory + positions, begun
        for number, layer in enumerate(self.layers):
            if number:
                x = self._among_cells(layer, x)
            x = x + self._read(layer.cross_attn_image, layer.layer_norm2(x), keys, memory, pointers)
            x = x + layer.linear2(layer.activation(layer.linear1(layer.layer_norm3(x))))
        return self.layer_norm(x).float()

    def _among_cells(self, layer: Any, x: Tensor) -> Tensor:
        """Self-attention of the frame's cells, (n, h w, c) to the same."""
        attention, normed = layer.self_attn, layer.layer_norm1(x)
        queries = self._turned(attention, attention.q_proj(normed))
        keys = self._turned(attention, attention.k_proj(normed))
        return x + _attended(attention, queries, keys, attention.v_proj(normed))

    def _read(self, attention: Any, normed: Tensor, keys: Tensor, memory: Tensor, pointers: int) -> Tensor:
        """Cross-attention from cells (n, h w, c) to memory (n, t, 64); pointers have no place on the frame."""
        queries = self._turned(attention, attention.q_proj(normed))
        turned = self._turned(attention, attention.k_proj(keys), pointers)
        if self.folded and attention.num_attention_heads == 1:
            return attention.o_proj(attention.v_proj(_weighed(queries * attention.scaling, turned, memory)))
        return _attended(attention, queries, turned, attention.v_proj(memory))

    def _turned(self, attention: Any, x: Tensor, excluded: int = 0) -> Tensor:
        """Rotary positions, in place where the numbers are float32: (n, t, c), t - excluded a multiple of h w.

        A pair of channels is a complex number, and its rotation a product, which rounds as transformers' two products
        and a sum do.
        """
        turns = self._angles(x.device)
        placed = x[:, : x.shape[1] - excluded].float()
        pairs = placed.view(len(x), -1, len(turns), attention.num_attention_heads, turns.shape[-1], 2)
        torch.view_as_complex(pairs).mul_(turns)
        if placed.dtype != x.dtype:
            x[:, : x.shape[1] - excluded] = placed
        return x

    def _angles(self, device: torch.device) -> Tensor:
        """One complex number of length 1 for each cell and pair of channels, complex64 (h w, 1, c / 2)."""
        if device not in self._turns:
            cosines, sines = self.rotary_emb(self.position_ids, self.position_ids)
            self._turns[device] = torch.complex(cosines[0, :, None, ::2], sines[0, :, None, ::2])
        return self._turns[device]


def _attended(attention: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """PyTorch's fused attention and the projection behind it: (n, q, c) and twice (n, t, c) to (n, q, c)."""
    heads = attention.num_attention_heads
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys, values))
    found = F.scaled_dot_product_attention(q, k, v, scale=attention.scaling)
    return attention.o_proj(found.transpose(1, 2).flatten(2))


def _weighed(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    """Means of rows (n, t, 64), weighted by the softmax of queries (n, q, c) times keys (n, t, c): (n, q, 64)."""
    turned = keys.transpose(1, 2)
    return torch.cat([(part @ turned).softmax(-1) @ rows for part in queries.split(ROWS, 1)], 1)
