"""SAM's two-way transformer over one grid: projections of the same input merged, positions projected once.

The image's keys, values and queries come of the same cells, and what positions add to them is the same on every frame:
a layer's three projections of the image become one product and one sum. Numbers are those of the module it is made
from, rounded in another order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class FoldedTwoWay(nn.Module):
    """What `SamTwoWayTransformer` computes, for inference, over the grid whose positions are given.

    Args:
        transformer: whose projections are copied; its other weights are read at every call.
        positions: (1, c, h, w), of the grid's cells.

    Attributes:
        cells: (h, w).
    """

    @torch.no_grad()
    def __init__(self, transformer: Any, positions: Tensor) -> None:
        super().__init__()
        self.cells = (positions.shape[2], positions.shape[3])
        grid = rearrange(positions, "1 c h w -> (h w) c")
        for number, layer in enumerate(transformer.layers):
            own, read, told = layer.self_attn, layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            image = [(read.k_proj, grid), (read.v_proj, None), (told.q_proj, grid)]
            self._keep(f"image_{number}", image, len(grid))
            self._keep(f"own_{number}", [(own.q_proj, None), (own.k_proj, None), (own.v_proj, None)], 1)
        final = transformer.final_attn_token_to_image
        self._keep("final", [(final.k_proj, grid), (final.v_proj, None)], len(grid))

    def forward(self, transformer: Any, tokens: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Attention in both directions, layer by layer: tokens to image and image to tokens.

        Args:
            transformer: the one this was made from.
            tokens: (n, t, c), which also stand for their positions.
            image: (n, h w, c), or (1, h w, c) where all targets share a frame.

        Returns:
            Both after the last layer: (n, t, c) and (n, h w, c).
        """
        queries, keys = tokens, image
        for number, layer in enumerate(transformer.layers):
            read, told = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            queries = layer.layer_norm1(self._among_tokens(number, layer, queries, tokens))
            seen, value, asked = self._projected(keys, f"image_{number}").chunk(3, -1)
            heard = _attend(read.q_proj(queries + tokens), seen, value, read.num_attention_heads)
            queries = layer.layer_norm2(queries + read.out_proj(heard))
            queries = layer.layer_norm3(queries + layer.mlp(queries))
            answer = told.k_proj(queries + tokens), told.v_proj(queries)
            keys = layer.layer_norm4(keys + told.out_proj(_attend(asked, *answer, told.num_attention_heads)))
        final = transformer.final_attn_token_to_image
        seen, value = self._projected(keys, "final").chunk(2, -1)
        heard = _attend(final.q_proj(queries + tokens), seen, value, final.num_attention_heads)
        return transformer.layer_norm_final_attn(queries + final.out_proj(heard)), keys

    def _among_tokens(self, number: int, layer: Any, queries: Tensor, tokens: Tensor) -> Tensor:
        own = layer.self_attn
        if layer.skip_first_layer_pe:
            query, key, value = self._projected(queries, f"own_{number}").chunk(3, -1)
            made: Tensor = own.out_proj(_attend(query, key, value, own.num_attention_heads))
            return made
        placed = queries + tokens
        heard = _attend(own.q_proj(placed), own.k_proj(placed), own.v_proj(queries), own.num_attention_heads)
        return queries + own.out_proj(heard)

    def _projected(self, given: Tensor, name: str) -> Tensor:
        """(n, m, c) by what `_keep` made of several layers: (n, m, outputs)."""
        return given @ getattr(self, f"{name}_weight") + getattr(self, f"{name}_bias")

    def _keep(self, name: str, layers: list[tuple[nn.Linear, Tensor | None]], cells: int) -> None:
        """Side by side the weights of layers, and their biases with what positions (cells, c) add to some of them."""
        biases = [
            layer.bias.expand(cells, -1) if places is None else F.linear(places, layer.weight, layer.bias)
            for layer, places in layers
        ]
        weight = torch.cat([layer.weight for layer, _ in layers]).t().contiguous()
        self.register_buffer(f"{name}_weight", weight, persistent=False)
        self.register_buffer(f"{name}_bias", torch.cat(biases, 1), persistent=False)


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of (n, q, d) over (n or 1, k, d), or of one row over n: (n, q, d)."""
    n = max(len(query), len(key))
    parted = (each.expand(n, -1, -1).unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
    return F.scaled_dot_product_attention(*parted).transpose(1, 2).flatten(2)
