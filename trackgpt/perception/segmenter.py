"""The fast model: image encoder and purport mask decoder joined (paper Eq. 2 and 3). Holds weights, never state."""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamPositionalEmbedding

from trackgpt.config import PerceptionConfig
from trackgpt.perception.encoders import ConvEncoder, Features, build_encoder, normalise
from trackgpt.perception.mask_decoder import Decoded, PurportMaskDecoder

STRIDE = 16
"""Pixels of the square per cell of the embedding, along each side, with every encoder."""


class Segmenter(nn.Module):
    """E and D of the paper: f_t = E(I_t); m_t, S_p, Q_{t+1} = D(f_t, Q_R, Q_t, Q_p)."""

    grid: Tensor | None

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        self.config = config
        c = config.decoder.hidden_size
        self.image_encoder = build_encoder(config.encoder, c)
        # SAM's weights were trained with an epsilon of 1e-5; transformers runs them with a tenth of it, as nano is.
        norm_eps = 1e-6 if isinstance(self.image_encoder, ConvEncoder) else 1e-5
        self.mask_decoder = PurportMaskDecoder(config.decoder, self.image_encoder.fine_channels, norm_eps)
        self.shared_image_embedding = SamPositionalEmbedding(SamVisionConfig(num_pos_feats=c // 2, scale=1))
        self.shared_image_embedding.positional_embedding.requires_grad_(False)
        self.no_mask_embed = nn.Embedding(1, c)
        self.register_buffer("grid", None, persistent=False)

    def fold(self) -> None:
        """Keep what no frame changes: positions of the configured square's grid, and what the decoder makes of them."""
        self.decode_in_float32()
        side = self.config.image_side // STRIDE
        self.grid = self.positions(side, side).detach()
        self.mask_decoder.fold(self.grid)

    def pack(self) -> None:
        """Pack convolutions for the configured square, see `ConvUnit.pack`."""
        if isinstance(self.image_encoder, ConvEncoder):
            self.image_encoder.pack(self.config.image_side)

    def decode_in_float32(self) -> None:
        """Have all but the encoder compute in float32, whatever dtype the weights were loaded in.

        A hundred small operations gain nothing from half the bits: nano's decoder takes 2.3 ms on two AMX cores, 3.2 in
        bfloat16. What it decides, the edge of a mask and a score that is compared with another, is not rounded then.
        """
        for part in self.children():
            if part is not self.image_encoder:
                part.float()

    @property
    def like(self) -> Tensor:
        """A tensor on the decoder's device and of its dtype, which queries are converted to."""
        return self.no_mask_embed.weight

    def encode(self, frames: Tensor) -> Features:
        """Encode padded square frames: uint8 or float RGB 0..255, (b, 3, s, s).

        The features have the decoder's dtype, except where autocast chooses dtypes.
        """
        weight = next(self.image_encoder.parameters())
        features: Features = self.image_encoder(normalise(frames).to(weight.dtype))
        return features if torch.is_autocast_enabled(frames.device.type) else features.to(self.like.dtype)

    def decode(
        self,
        features: Features,
        referring: Tensor,
        online: Tensor | None,
        purport: Tensor | None,
        propagate: bool = True,
    ) -> Decoded:
        """Decode one target per row.

        Args:
            features: n rows (use `Features.of` to repeat a frame for several targets).
            referring: (n, c) Q_R.
            online: (n, c) Q_t, or None at the first frame of a track.
            purport: (n, c) Q_p.
            propagate: False decodes without any online query (Table 3).
        """
        n, _, h, w = features.embedding.shape
        if not (propagate and self.mask_decoder.propagate):
            online = None
        elif online is None:
            online = self.mask_decoder.first_query(n)
        if not self.mask_decoder.purport:
            purport = None
        dense = self.no_mask_embed.weight.view(1, -1, 1, 1)
        return self.mask_decoder(features, self.positions(h, w), dense, referring.unsqueeze(1), online, purport)

    def positions(self, h: int, w: int) -> Tensor:
        """SAM's Fourier encoding of the grid's cell centres: (1, c, h, w)."""
        if self.grid is not None and self.grid.shape[2:] == (h, w):
            return self.grid
        weight = self.shared_image_embedding.positional_embedding
        y = (torch.arange(h, device=weight.device, dtype=weight.dtype) + 0.5) / h
        x = (torch.arange(w, device=weight.device, dtype=weight.dtype) + 0.5) / w
        grid = torch.stack([repeat(x, "w -> h w", h=h), repeat(y, "h -> h w", w=w)], dim=-1)
        return rearrange(self.shared_image_embedding(grid), "h w c -> 1 c h w")
