"""A convolutional vision tower that takes CLIP's place inside `LlavaForConditionalGeneration`.

LLaVA accepts any vision model that transformers' `AutoModel` knows; this one is nano's: the convolutional encoder of
the perception part on a small square, one token per stride-16 cell, with learned positions. From scratch on a CPU it
learns to tell categories apart in minutes where a ViT of the same size needs hours (eval/RESULTS.md, "vision tower").
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from trackgpt.perception.encoders import ConvEncoder


class ConvTowerConfig(PretrainedConfig):
    """Channels and blocks as in `trackgpt.config.EncoderConfig`; image_size / 16 squared tokens."""

    model_type = "trackgpt_conv_tower"

    def __init__(
        self,
        channels: list[int] | None = None,
        blocks: list[int] | None = None,
        image_size: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels or [32, 48, 96, 192]
        self.blocks = blocks or [1, 2, 4, 5]
        self.image_size = image_size
        self.patch_size = 16
        self.hidden_size = self.channels[-1]


class ConvTower(PreTrainedModel):
    """Pixels (b, 3, s, s), normalised, to tokens (b, (s / 16)^2, channels) in raster order."""

    config_class = ConvTowerConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ConvTowerConfig) -> None:
        super().__init__(config)
        self.encoder = ConvEncoder(config.channels, config.blocks)
        cells = (config.image_size // config.patch_size) ** 2
        self.position_embedding = nn.Parameter(torch.zeros(1, cells, config.hidden_size))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ConvTower):
            nn.init.normal_(module.position_embedding, std=0.02)

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Tokens with positions as `last_hidden_state` and as the only entry of `hidden_states`."""
        maps = self.encoder(pixel_values).embedding
        tokens = rearrange(maps, "b c h w -> b (h w) c") + self.position_embedding
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=None, hidden_states=(tokens,))

    def fold(self) -> None:
        """Fold the convolutions for inference."""
        self.encoder.fold()

    def pack(self) -> None:
        """Pack the folded convolutions, see `trackgpt.perception.encoders.ConvUnit.pack`."""
        self.encoder.pack(self.config.image_size)


def register() -> None:
    """Make the tower known to transformers' Auto classes; calling it again does nothing."""
    AutoConfig.register(ConvTowerConfig.model_type, ConvTowerConfig, exist_ok=True)
    AutoModel.register(ConvTowerConfig, ConvTower, exist_ok=True)
