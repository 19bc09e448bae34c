"""The revamped SAM mask decoder of TrackGPT (paper section 3.4, Eq. 2 and 3, Fig. 3).

Token order: [IoU token x Q_p, mask tokens, Q_R, Q_t], after an object token in the style of SAM 2. With Q_p = 1 and no
Q_t it is SAM's own decoder given Q_R as its only prompt token. Names of parameters follow transformers'
`SamMaskDecoder`, so that SAM's weights load.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamFeedForward, SamMaskDecoder

from trackgpt.config import DecoderConfig
from trackgpt.perception.encoders import Features
from trackgpt.perception.folded_two_way import FoldedTwoWay


@dataclass(frozen=True)
class Decoded:
    """The decoder's output for n targets, one row each.

    Attributes:
        logits: (n, 4h, 4w) mask logits on the decoder's grid, a quarter of the input side.
        score: (n,) purport score S_p, the IoU head's output.
        online: (n, c) the next frame's online query Q_{t+1}.
    """

    logits: Tensor
    score: Tensor
    online: Tensor


class Enlargement(nn.ConvTranspose2d):
    """A transposed convolution whose kernel is its stride, on maps with channels last.

    Its kernels do not overlap, so it is one matrix product per pixel, and pixels put into their places. It is a module
    because ZeRO-3 has a weight at hand only while its own module runs.
    """

    @classmethod
    def of(cls, layer: nn.ConvTranspose2d) -> Enlargement:
        """The same layer, with the same parameters."""
        made = cls(layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0], device="meta")
        made.weight, made.bias = layer.weight, layer.bias
        return made

    def forward(self, maps: Tensor) -> Tensor:  # type: ignore[override]
        """Maps (n, h, w, c) become (n, k h, k w, outputs)."""
        n, h, w, c = maps.shape
        k = self.kernel_size[0]
        weight = self.weight.permute(2, 3, 1, 0).reshape(-1, c)
        blocks = F.linear(maps, weight, self.bias.repeat(k * k)).view(n, h, w, k, k, -1)
        return blocks.transpose(2, 3).reshape(n, k * h, k * w, -1)


class PixelMap(nn.Conv2d):
    """A 1x1 convolution that takes channels first and gives them last."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, c, h, w) become (n, h, w, outputs).

        They become (1, h, w, outputs) where all rows are views of one (see `Features.repeated`).
        """
        pixels = (maps[:1] if maps.stride(0) == 0 else maps).permute(0, 2, 3, 1)
        return F.linear(pixels, self.weight.flatten(1), self.bias)


class PurportMaskDecoder(SamMaskDecoder):
    """SAM's two-way mask decoder with referring, online and purport queries.

    Args:
        config: see `DecoderConfig`.
        fine_channels: channels of the encoder's stride-4 and stride-8 maps, used when `config.skips`.
        norm_eps: of the two-way blocks' normalisations: 1e-5 in SAM's own decoder, 1e-6 in transformers' and in nano.
    """

    def __init__(
        self, config: DecoderConfig, fine_channels: tuple[int, int] | None = None, norm_eps: float = 1e-6
    ) -> None:
        sam = SamMaskDecoderConfig(
            hidden_size=config.hidden_size,
            mlp_dim=config.mlp_dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_multimask_outputs=config.multimask,
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_hidden,
            layer_norm_eps=norm_eps,
        )
        sam._attn_implementation = "sdpa"
        super().__init__(sam)
        c = config.hidden_size
        self.propagate = config.propagate
        self.purport = config.purport
        self.obj_score_token = nn.Embedding(1, c) if config.style == "sam2" else None
        self.iou_prediction_head.sigmoid_output = config.style == "sam2"
        self.first_online = nn.Embedding(1, c)
        self.adapter = SamFeedForward(c, c, c, config.adapter_depth)
        for name in ("upscale_conv1", "upscale_conv2"):
            setattr(self, name, Enlargement.of(getattr(self, name)))
        self.upscale_layer_norm.data_format = "channels_last"
        self.folded: FoldedTwoWay | None = None
        self.fine4: PixelMap | None = None
        self.fine8: PixelMap | None = None
        if config.skips:
            if fine_channels is None:
                raise ValueError("skips need an encoder with stride-4 and stride-8 maps")
            self.fine4 = PixelMap(fine_channels[0], c // 8, 1)
            self.fine8 = PixelMap(fine_channels[1], c // 4, 1)

    def fold(self, positions: Tensor) -> None:
        """Prepare for inference over the grid of these positions, (1, c, h, w); other grids are decoded as before."""
        self.folded = FoldedTwoWay(self.transformer, positions)

    def first_query(self, targets: int) -> Tensor:
        """The online query before the first frame of a track, a learned embedding: (targets, c)."""
        return self.first_online.weight.expand(targets, -1)

    def forward(  # type: ignore[override]
        self,
        features: Features,
        positions: Tensor,
        dense: Tensor,
        referring: Tensor,
        online: Tensor | None,
        purport: Tensor | None,
    ) -> Decoded:
        """Decode n targets, one per row of `features`.

        Args:
            features: of the frame, embedding (n, c, h, w); repeat a row for several targets of one frame.
            positions: (1, c, h, w) positional encoding of the image grid.
            dense: (1, c, 1, 1) or (n, c, h, w) dense prompt (SAM's no-mask embedding).
            referring: (n, p, c) prompt tokens; TrackGPT has one, Q_R.
            online: (n, c) Q_t, or None for a decoder without propagation.
            purport: (n, c) Q_p, or None for SAM's own IoU token.
        """
        n, c, h, w = features.embedding.shape
        tokens = self._tokens(referring, online, purport)
        tokens_out, image_out = self._two_ways(tokens, features.embedding, positions, dense)
        iou_at = 0 if self.obj_score_token is None else 1
        logits = self._masks(image_out.view(n, h, w, c), tokens_out[:, 0, iou_at + 1], features)
        score = self.iou_prediction_head(tokens_out[:, 0, iou_at])[:, 0]
        last = tokens_out[:, 0, -1]
        return Decoded(logits, score, self.adapter(last))

    def _two_ways(self, tokens: Tensor, embedding: Tensor, positions: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (n, 1, t, c) and image cells, n times h w rows of c, after attention in both directions."""
        if self.folded is not None and self.folded.cells == tuple(embedding.shape[2:]):
            shared = embedding.stride(0) == 0 and len(dense) == 1  # see `Features.repeated`
            image = ((embedding[:1] if shared else embedding) + dense).flatten(2).transpose(1, 2)
            found, cells = self.folded(self.transformer, tokens[:, 0], image)
            return found.unsqueeze(1), cells
        found, cells = self.transformer(
            point_embeddings=tokens,
            image_embeddings=embedding + dense,
            image_positional_embeddings=positions.expand(len(tokens), -1, -1, -1),
            attention_similarity=None,
        )
        return found, cells

    def _tokens(self, referring: Tensor, online: Tensor | None, purport: Tensor | None) -> Tensor:
        n = referring.shape[0]
        iou = self.iou_token.weight.expand(n, 1, -1)
        if purport is not None:
            iou = iou * purport.unsqueeze(1)
        first = [] if self.obj_score_token is None else [self.obj_score_token.weight.expand(n, 1, -1)]
        parts = [*first, iou, self.mask_tokens.weight.expand(n, -1, -1), referring]
        if online is not None:
            parts.append(online.unsqueeze(1))
        return torch.cat(parts, dim=1).unsqueeze(1)

    def _masks(self, image_out: Tensor, mask_token: Tensor, features: Features) -> Tensor:
        up = self.upscale_conv1(image_out)
        if self.fine8 is not None and features.fine is not None:
            up = up + self.fine8(features.fine[1])
        up = self.activation(self.upscale_layer_norm(up))
        up = self.upscale_conv2(up)
        if self.fine4 is not None and features.fine is not None:
            up = up + self.fine4(features.fine[0])
        up = self.activation(up)
        kernel = self.output_hypernetworks_mlps[0](mask_token)
        n, h, w, c = up.shape
        return (up.view(n, h * w, c) @ kernel.unsqueeze(2)).view(n, h, w)
