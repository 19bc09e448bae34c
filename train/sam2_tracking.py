"""Fine-tuning of SAM 2.1 by the stage "memory": `Sam2VideoModel`'s steps for many targets at once, with gradients.

They are those of transformers' streaming and of `trackgpt.perception.sam2_memory`: on the first frame a mask is taken
as it is, a box or a point is decoded without memory; the memory encoder writes the mask that was found, hard where
something was shown and soft elsewhere, with the occlusion embedding where the target is absent; memory attention reads
the frames on which something was shown, the last 6 others, and the object pointers of the last 15. Tests hold them
to both. With clicks a frame counts as shown for all targets of the batch.

What learns (`memory.learn`):
    decoder-memory  mask decoder, prompt encoder, memory attention, memory encoder and pointers; the image encoder is
                    frozen and keeps no activations
    lora            low-rank adapters (peft) on the attention of memory attention and image encoder alone
    all             everything
What is exported is a folder of `Sam2VideoModel` with every weight, adapters merged.

Source: Ravi et al., SAM 2 (arXiv:2408.00714), section 4 and appendix D.2; transformers 5.23, models/sam2_video.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import NO_OBJ_SCORE

from trackgpt.errors import ModelError, UsageError
from trackgpt.perception.encoders import normalise
from trackgpt.perception.sam2_video_weights import load_sam2_video
from train.memory_tracking import Prompted

RANK, ALPHA = 8, 16
ADAPTED = (
    r"(vision_encoder\.backbone\.blocks\.\d+\.attn\.(qkv|proj)"
    r"|memory_attention\.layers\.\d+\.(self_attn|cross_attn_image)\.(q|k|v|o)_proj)"
)
"""Linear layers that get adapters."""
HYPOTHESES = 3
MOST_LOGIT = 32.0
"""Bound of the mask logits that clicks correct, as in SAM 2's own predictor."""
AT_ONCE = 8
"""Frames that a frozen encoder takes at once: its activations are not kept."""


class TrainedSam2(Sam2VideoModel):
    """A SAM 2 that is trained; `save_pretrained` writes the plain class.

    Attributes:
        merged_on_export: adapters are no part of what is exported (see `train.assemble.carries_lora`).
    """

    merged_on_export = True

    def save_pretrained(self, save_directory: str | Path, **settings: Any) -> None:
        """Write a folder of `Sam2VideoModel`, adapters merged into the weights."""
        with torch.device("meta"):
            plain = Sam2VideoModel(self.config)
        plain.load_state_dict(merged_weights(self), assign=True)
        plain.save_pretrained(save_directory, **settings)


def sam2_to_train(folder: Path, learn: str, side: int) -> TrainedSam2:
    """The model of a folder, in float32, frozen and adapted as configured.

    Args:
        folder: see `trackgpt.perception.sam2_memory.Sam2Memory.from_pretrained`.
        learn: see the module.
        side: of the square that clips are scaled to.

    Raises:
        ModelError: as there.
        UsageError: the model sees squares of another side.
    """
    loaded = load_sam2_video(folder)
    if side != loaded.image_size:
        raise UsageError(f"shape.side: {folder} sees squares of {loaded.image_size} pixels, found {side}")
    model = TrainedSam2(loaded.config)
    model.load_state_dict(loaded.state_dict())
    choose_what_learns(model, learn)
    return model


def choose_what_learns(model: TrainedSam2, learn: str) -> None:
    """Freeze and adapt a model, in place; see the module.

    Raises:
        ModelError: it has no attention that takes adapters.
    """
    if learn == "decoder-memory":
        model.vision_encoder.requires_grad_(False)
    elif learn == "lora":
        import peft

        model.requires_grad_(False)
        settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=ADAPTED)
        try:
            peft.inject_adapter_in_model(settings, model)
        except ValueError as error:
            raise ModelError(f"memory.learn=lora: no layer matches {ADAPTED}; choose decoder-memory") from error


@torch.no_grad()
def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model under the names of the plain class, with its adapters merged; the model stays as it is."""
    weights = {
        name.replace(".base_layer.", "."): value for name, value in model.state_dict().items() if "lora_" not in name
    }
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            weights[f"{name}.weight"] = layer.base_layer.weight + layer.get_delta_weight("default")
    return weights


@dataclass(frozen=True)
class Sam2Maps:
    """What the encoder makes of m squares: maps (m, c, h, w) at strides 4, 8 and 16."""

    four: Tensor
    eight: Tensor
    sixteen: Tensor

    def of(self, index: Tensor) -> Sam2Maps:
        """The maps of some of the squares."""
        return Sam2Maps(*(getattr(self, each.name)[index] for each in fields(self)))


@dataclass(frozen=True)
class Sam2Found:
    """n targets on a frame, three hypotheses each (the same one thrice where there is one), the one taken first.

    Attributes:
        small: logits at stride 4, (n, 3, s/4, s/4).
        iou: logits of the predicted IoU, (n, 3).
        presence: object logits, (n,).
        token: of which an object pointer is made, (n, c).
    """

    small: Tensor
    iou: Tensor
    presence: Tensor
    token: Tensor
    coarse: None = None

    @property
    def logits(self) -> Tensor:
        """At stride 2, (n, 3, s/2, s/2), as losses compare them."""
        return F.interpolate(self.small, scale_factor=2.0, mode="bilinear", align_corners=False)

    def replaced(self, rows: Tensor, by: Sam2Found) -> Sam2Found:
        """With other values for some of the targets, int64 (m,)."""
        names = ("small", "iou", "presence", "token")
        return Sam2Found(*(getattr(self, name).index_copy(0, rows, getattr(by, name)) for name in names))


@dataclass(frozen=True)
class Sam2Frame:
    """A remembered frame of n targets.

    Attributes:
        at: its place in time, in frames of the clip.
        shown: whether something was shown on it.
        memory: (h w, n, 64).
        pointer: (n, c).
    """

    at: int
    shown: bool
    memory: Tensor
    pointer: Tensor


@dataclass
class Sam2Track:
    """What is known of n targets between two frames.

    Attributes:
        given: whose masks were shown, bool (n,); read on the first frame only.
        points: coordinates (n, 2, 2) and labels (n, 2) of what was shown; a point has one of them, the rest is -1.
        kind: see `Prompted`.
        conditioned: the present frame's map with what is remembered, (n, c, h, w).
        shown: whether something was shown on the present frame.
        now: the present frame.
        frames: remembered ones, oldest first.
    """

    given: Tensor
    kind: Tensor
    points: tuple[Tensor, Tensor]
    conditioned: Tensor
    shown: bool = True
    now: int = 0
    frames: list[Sam2Frame] = field(default_factory=list)


class Sam2Steps:
    """`train.memory_tracking.MemorySteps` of SAM 2."""

    def __init__(self, model: Sam2VideoModel) -> None:
        self.model, self.side = model, model.image_size
        self.frozen = not any(p.requires_grad for p in model.vision_encoder.parameters())

    def encode(self, frames: Tensor) -> Sam2Maps:
        """With a frozen encoder a few frames at a time, in evaluation mode, and without gradients."""
        model = self.model
        pixels = normalise(frames)
        if self.frozen:
            model.vision_encoder.eval()
            with torch.no_grad():
                parts = [model.vision_encoder(some).fpn_hidden_states for some in pixels.split(AT_ONCE)]
            four, eight, sixteen = (torch.cat(maps) for maps in zip(*parts, strict=True))
        else:
            four, eight, sixteen = model.vision_encoder(pixels).fpn_hidden_states
        return Sam2Maps(model.mask_decoder.conv_s0(four), model.mask_decoder.conv_s1(eight), sixteen)

    def begin(self, maps: Sam2Maps, shown: Prompted, truth: Tensor) -> tuple[Sam2Track, Sam2Found]:
        """Masks, boxes and points are decoded apart, as each has its own number of points and hypotheses."""
        model, n = self.model, len(truth)
        conditioned = maps.sixteen + model.no_memory_embedding.view(1, -1, 1, 1)
        track = Sam2Track(shown.kind == 0, shown.kind, self._points(shown), conditioned)
        rows_of = [torch.nonzero(shown.kind == kind).flatten() for kind in (0, 1, 2)]
        found, order = [], torch.cat(rows_of)
        for kind, rows in enumerate(rows_of):
            if not len(rows):
                continue
            here = maps.of(rows)
            if kind == 0:
                mask = model.mask_downsample(truth[rows, None])
                found.append(self._decode(here, here.sixteen, None, mask, several=False))
            else:
                points = self._prompt(track, rows, kind)
                found.append(self._decode(here, conditioned[rows], points, None, self._several(True, points)))
        names = ("small", "iou", "presence", "token")
        back = torch.argsort(order)
        assert len(back) == n
        return track, Sam2Found(*(torch.cat([getattr(one, name) for one in found])[back] for name in names))

    def follow(self, maps: Sam2Maps, track: Sam2Track) -> Sam2Found:
        track.now, track.shown = track.now + 1, False
        track.conditioned = self._attend(maps.sixteen, track)
        return self._decode(maps, track.conditioned, None, None, self._several(False, None))

    def again(
        self, maps: Sam2Maps, track: Sam2Track, found: Sam2Found, clicks: tuple[Tensor, Tensor] | None
    ) -> Sam2Found | None:
        """Clicks correct the mask of the first look, together with what else is shown on this frame.

        Targets without a click, and masks that were given, stay as they are.
        """
        if clicks is None:
            return None
        missing, wrong = (click[:, 0] for click in clicks)
        on, off = (~click.isnan().any(1) for click in (missing, wrong))
        first = track.now == 0
        there = (on | off) & ~track.given if first else on | off
        at = torch.where(on[:, None], missing, wrong).nan_to_num() * self.side
        for kind in (1, 2) if first else (-1,):
            rows = torch.nonzero(there & (track.kind == kind) if first else there).flatten()
            if not len(rows):
                continue
            points = at[rows, None, None], on[rows, None, None].to(torch.int32)
            if first:
                before = self._prompt(track, rows, kind)
                points = torch.cat([before[0], points[0]], 2), torch.cat([before[1], points[1]], 2)
            seen = found.presence[rows].detach() > 0
            mask = found.small[rows, :1].detach().clamp(-MOST_LOGIT, MOST_LOGIT)
            several = self._several(first, points)
            new = self._decode(maps.of(rows), track.conditioned[rows], points, mask, several, seen)
            found = found.replaced(rows, new)
            track.shown = True
        return found

    def exact(self, truth: Tensor) -> Tensor:
        """As large as the square, -10 to 10."""
        return 20 * truth[:, None] - 10

    def handed_on(self, found: Sam2Found) -> Tensor:
        """As large as the square, with gradients."""
        return self._large(found.small[:, :1])

    def remember(
        self, maps: Sam2Maps, track: Sam2Track, found: Sam2Found, logits: Tensor, kept: Tensor, seen: Tensor
    ) -> None:
        """As `Sam2VideoModel` encodes a frame, in the same order; memories have bfloat16's digits, as streamed."""
        model = self.model
        kept = torch.where(seen.view(-1, 1, 1, 1), kept, torch.full_like(kept, NO_OBJ_SCORE))
        mask = (kept > 0).to(kept.dtype) if track.shown else torch.sigmoid(kept)
        mask = mask * model.config.sigmoid_scale_for_mem_enc + model.config.sigmoid_bias_for_mem_enc
        memory, _ = model.memory_encoder(maps.sixteen, mask)
        if model.occlusion_spatial_embedding_parameter is not None:
            absent = (~seen).float().view(-1, 1, 1, 1)
            memory = memory + absent * model.occlusion_spatial_embedding_parameter[..., None, None]
        memory = rounded(memory.float()).flatten(2).permute(2, 0, 1)
        # A mask that is shown is believed, but its pointer is the decoder's, which may say that nothing is there.
        pointed = seen & (found.presence.detach() > 0) if track.now == 0 else seen
        pointed = torch.where(track.given, pointed, seen).float()[:, None]
        pointer = pointed * model.object_pointer_proj(found.token).float() + (1 - pointed) * model.no_object_pointer
        track.frames.append(Sam2Frame(track.now, track.shown, memory, pointer))

    def _attend(self, sixteen: Tensor, track: Sam2Track) -> Tensor:
        """A frame's map with what is remembered, (n, c, h, w): shown frames and the last 6; pointers of the last 15."""
        model, config = self.model, self.model.config
        n, c, h, w = sixteen.shape
        memories, places = [], []
        cells = model.memory_encoder.position_encoding((1, model.mem_dim, h, w), sixteen.device, torch.float32)
        cells = cells.flatten(2).permute(2, 0, 1)
        shown = [one for one in track.frames if one.shown]
        others = [one for one in track.frames if not one.shown]
        recent = [one for one in others if track.now - one.at < model.num_maskmem]
        for one in (*shown, *recent):
            age = 0 if one.shown else track.now - one.at
            memories.append(one.memory)
            places.append((cells + model.memory_temporal_positional_encoding[age - 1]).expand(-1, n, -1))
        limit = config.max_object_pointers_in_encoder
        pointing = [*shown, *(one for one in reversed(others) if track.now - one.at < limit)]
        pointers, when = model._process_object_pointers(
            [track.now - one.at for one in pointing],
            [one.pointer for one in pointing],
            limit,
            n,
            c,
            sixteen.device,
        )
        place = model.vision_encoder.neck.position_encoding((1, c, h, w), sixteen.device, sixteen.dtype)
        made = model.memory_attention(
            current_vision_features=sixteen.flatten(2).permute(2, 0, 1),
            current_vision_position_embeddings=place.flatten(2).permute(2, 0, 1),
            memory=torch.cat([*memories, pointers]),
            memory_posision_embeddings=torch.cat([*places, when]),
            num_object_pointer_tokens=len(pointers),
        )
        return made.reshape(n, h * w, c).transpose(1, 2).reshape(n, c, h, w)

    def _decode(
        self,
        maps: Sam2Maps,
        conditioned: Tensor,
        points: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        several: bool,
        masked: Tensor | None = None,
    ) -> Sam2Found:
        """Masks of n targets, not yet emptied where a target is absent.

        Args:
            maps: of the frame.
            conditioned: its map, (n, c, h, w).
            points: coordinates (n, 1, p, 2) on the square and labels (n, 1, p), or None.
            mask: logits (n, 1, s/4, s/4), or None.
            several: decode three hypotheses.
            masked: who has a mask, bool (n,); all by default.
        """
        model, n = self.model, len(conditioned)
        if points is None:
            points = (
                conditioned.new_zeros(n, 1, 1, 2),
                -torch.ones(n, 1, 1, dtype=torch.int32, device=conditioned.device),
            )
        sparse, dense = model.prompt_encoder(points[0], points[1], None, mask)
        if masked is not None:
            without = model.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
            dense = torch.where(masked.view(-1, 1, 1, 1), dense, without.to(dense.dtype))
        masks, iou, tokens, presence = model.mask_decoder(
            image_embeddings=conditioned,
            image_positional_embeddings=model.get_image_wide_positional_embeddings().expand(n, -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=[maps.four, maps.eight],
        )
        masks, iou, tokens = masks[:, 0].float(), iou[:, 0].float(), tokens[:, 0]
        count = masks.shape[1]
        order = (iou.argmax(1)[:, None] + torch.arange(HYPOTHESES, device=iou.device)) % count
        rows = torch.arange(n, device=iou.device)
        token = tokens[rows, order[:, 0] if tokens.shape[1] > 1 else 0 * order[:, 0]]
        expected = torch.logit(iou[rows[:, None], order], eps=1e-6)
        return Sam2Found(masks[rows[:, None], order], expected, presence.reshape(n).float(), token)

    def _several(self, begins: bool, points: tuple[Tensor, Tensor] | None) -> bool:
        told = None if points is None else {"point_labels": points[1]}
        return bool(self.model._use_multimask(begins, told))

    def _points(self, shown: Prompted) -> tuple[Tensor, Tensor]:
        """Corners of boxes, and points: coordinates (n, 2, 2) on the square, and labels (n, 2)."""
        n = len(shown.kind)
        boxed = (shown.kind == 1)[:, None]
        corners = shown.boxes.view(n, 2, 2)
        points = torch.where(boxed[..., None], corners, shown.points.expand(-1, 2, -1)).nan_to_num() * self.side
        labels = torch.tensor([2, 3], dtype=torch.int32, device=points.device).expand(n, -1)
        clicked = torch.tensor([1, -1], dtype=torch.int32, device=points.device)
        return points, torch.where(boxed, labels, clicked)

    def _prompt(self, track: Sam2Track, rows: Tensor, kind: int) -> tuple[Tensor, Tensor]:
        """What was shown of targets of one kind, as the prompt encoder takes it: two corners, or one point."""
        count = 2 if kind == 1 else 1
        return track.points[0][rows, None, :count], track.points[1][rows, None, :count]

    def _large(self, small: Tensor) -> Tensor:
        return F.interpolate(small, (self.side, self.side), mode="bilinear", align_corners=False)


def rounded(x: Tensor) -> Tensor:
    """The values of bfloat16 in float32; the gradient is that of the identity."""
    return x + (x.bfloat16().float() - x).detach()
