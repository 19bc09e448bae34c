"""A convolutional vision tower that takes CLIP's place inside `LlavaForConditionalGeneration`.

LLaVA accepts any vision model that transformers' `AutoModel` knows; this one is nano's: the convolutional encoder of
the perception part on a small square, one token per stride-16 cell, with learned positions. From scratch on a CPU it
learns to tell categories apart in minutes where a ViT of the same size needs hours (eval/RESULTS.md, "vision tower").

A larger square has more cells than a small language model can read. Convolutions behind the positions then merge 2 x 2
cells into a token; because they see where each cell is, a token can say where the whole object is that it is part of.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from trackgpt.perception.encoders import ConvEncoder, ConvUnit, can_pack

CELL = 16
"""Pixels of the square per cell of the encoder's map, along each side."""


class ConvTowerConfig(PretrainedConfig):
    """Channels and blocks as in `trackgpt.config.EncoderConfig`.

    `merging` convolutions behind the encoder, the first of which halves the grid; 0 for none. A side of `image_size`
    pixels has image_size / 16 tokens, with `merging` half of them.
    """

    model_type = "trackgpt_conv_tower"

    def __init__(
        self,
        channels: list[int] | None = None,
        blocks: list[int] | None = None,
        image_size: int = 128,
        merging: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels or [32, 48, 96, 192]
        self.blocks = blocks or [1, 2, 4, 5]
        self.image_size = image_size
        self.merging = merging
        self.patch_size = 2 * CELL if merging else CELL
        self.hidden_size = self.channels[-1]


class ConvTower(PreTrainedModel):
    """Pixels (b, 3, s, s), normalised, to tokens (b, (s / patch_size)^2, channels) in raster order."""

    config_class = ConvTowerConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ConvTowerConfig) -> None:
        super().__init__(config)
        self.encoder = ConvEncoder(config.channels, config.blocks)
        cells = (config.image_size // CELL) ** 2
        self.position_embedding = nn.Parameter(torch.zeros(1, cells, config.hidden_size))
        width = config.hidden_size
        units = [ConvUnit(width, width, stride=1 if k else 2) for k in range(config.merging)]
        self.merging = nn.Sequential(*units)
        self.context = nn.Linear(width, width) if units else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ConvTower):
            nn.init.normal_(module.position_embedding, std=0.02)
            if module.context is not None:
                nn.init.zeros_(module.context.weight)
                nn.init.zeros_(module.context.bias)

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Tokens with positions as `last_hidden_state` and as the only entry of `hidden_states`."""
        maps = self.encoder(pixel_values).embedding
        tokens = self.read(maps, self.position_embedding)
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=None, hidden_states=(tokens,))

    def read(self, maps: Tensor, positions: Tensor) -> Tensor:
        """Tokens of the encoder's maps (b, channels, h, w) whose cells stand at positions (1 or b, h * w, channels).

        Where the maps are those of a whole square, cells that are merged know the mean of all: it tells how much of the
        square the frame fills, and hence where its thirds are.
        """
        cells = rearrange(maps, "b c h w -> b (h w) c") + positions
        if self.context is None:
            return cells
        if cells.shape[1] == self.position_embedding.shape[1]:
            cells = cells + self.context(maps.mean((2, 3))).unsqueeze(1)
        placed = rearrange(cells, "b (h w) c -> b c h w", h=maps.shape[2])
        return rearrange(self.merging(placed.contiguous(memory_format=torch.channels_last)), "b c h w -> b (h w) c")

    def fold(self) -> None:
        """Fold the convolutions for inference."""
        self.encoder.fold()
        for unit in self.merging:
            unit.fold()

    def pack(self) -> None:
        """Pack the folded convolutions, see `trackgpt.perception.encoders.ConvUnit.pack`."""
        self.encoder.pack(self.config.image_size)
        side = self.config.image_size // CELL
        for unit in self.merging:
            if can_pack(unit.conv.weight.dtype):
                unit.pack(side)
            side //= unit.conv.stride[0]


def register() -> None:
    """Make the tower known to transformers' Auto classes; calling it again does nothing."""
    AutoConfig.register(ConvTowerConfig.model_type, ConvTowerConfig, exist_ok=True)
    AutoModel.register(ConvTowerConfig, ConvTower, exist_ok=True)
