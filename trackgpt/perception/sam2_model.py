"""transformers' `Sam2VideoModel` as a network without state, which takes the targets of a frame together.

No code of transformers is copied: attention is computed more cheaply (`sam2_attention`), the mask decoder has its
hypotheses put in order, one method is capped, and the rest is called as it is. The methods that are called are private:
`check_transformers` says so when another version has others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMaskDecoder

from trackgpt.errors import ModelError
from trackgpt.perception.sam2_attention import LeanHiera, LeanMemoryAttention
from trackgpt.perception.sam2_session import Sam2TargetMemory, session_of

TESTED = "5.23"
CALLED = {
    "_get_object_pointers": (
        "inference_session obj_idx frame_idx num_total_frames device track_in_reverse_time streaming"
    ),
    "_gather_memory_frame_outputs": "inference_session obj_idx frame_idx track_in_reverse_time",
    "_build_memory_attention_inputs": "temporal_positions_and_previous_outputs device",
    "_process_object_pointers": (
        "temporal_offsets pointer_tokens max_object_pointers_to_use batch_size num_channels device"
    ),
    "_single_frame_forward": (
        "pixel_values input_points input_labels input_boxes input_masks image_embeddings multimask_output"
        " attention_similarity target_embedding kwargs"
    ),
    "_use_mask_as_output": "backbone_features high_res_features mask_inputs",
    "_use_multimask": "is_init_cond_frame point_inputs",
    "_encode_new_memory": "current_vision_feats pred_masks_high_res object_score_logits is_mask_from_pts",
}
"""The methods of `Sam2VideoModel` that are called or overridden here, with the names of their arguments."""

Choice: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
"""All hypotheses of n targets in another order, each target's best one first: masks (n, 1, 3, h, w), predicted IoU
(n, 1, 3), tokens (n, 1, 3, c), and object logits (n, 1, 1). The others stay: PyTorch enlarges three masks with other
roundings than one."""


class Sam2Features(NamedTuple):
    """What the encoder says about one frame, float32: maps at strides 4, 8 and 16, (h w, 1, channels) each."""

    fine4: Tensor
    fine8: Tensor
    coarse: Tensor


class Points(NamedTuple):
    """Points and corners on the model's square: x and y (1, 1, p, 2), and labels int32 (1, 1, p), 1 or 0, 2 or 3."""

    coordinates: Tensor
    labels: Tensor


class Sam2Seen(NamedTuple):
    """n targets on a frame.

    Attributes:
        logits: of the mask at stride 4, (n, 1, h, w); -1024 everywhere where a target is absent.
        iou: that the network expects, (n,).
        presence: object logits, (n,).
        features, pointer: to be remembered, bfloat16 (h w, n, 64) and float32 (n, 1, c).
        conditioned: the frame's map with what is remembered of each target, (n, c, h, w).
    """

    logits: Tensor
    iou: Tensor
    presence: Tensor
    features: Tensor
    pointer: Tensor
    conditioned: Tensor

    def of(self, row: int) -> Sam2Seen:
        """One target, in memory of its own: a view would keep the whole batch alive."""
        one = slice(row, row + 1)
        features, pointer = self.features[:, one].clone(), self.pointer[one].clone()
        return Sam2Seen(self.logits[one], self.iou[one], self.presence[one], features, pointer, self.conditioned[one])


def check_transformers(model: type = Sam2VideoModel) -> None:
    """Compare the private methods of transformers that are used here with those that were tested.

    Raises:
        ModelError: MD06, the installed version has others.
    """
    for name, wanted in CALLED.items():
        method = getattr(model, name, None)
        found = " ".join(list(inspect.signature(method).parameters)[1:]) if method else "no such method"
        if found != wanted:
            from transformers import __version__

            raise ModelError(
                f"transformers {__version__}: {model.__name__}.{name} takes ({found}), wanted ({wanted}); "
                f"SAM 2's memory is tested with {TESTED}: pip install 'transformers~={TESTED}.0'",
                "MD06",
            )


class ChoosingMaskDecoder(Sam2VideoMaskDecoder):
    """`Sam2VideoMaskDecoder` that has its hypotheses put in order; transformers picks the best of one target alone."""

    def forward(self, *args: Any, choose: Choice | None = None, **kwargs: Any) -> tuple[Tensor, ...]:
        """As transformers' own; with `choose`, several masks are decoded whatever `multimask_output` says."""
        if choose is None:
            return super().forward(*args, **kwargs)  # type: ignore[no-any-return]
        return choose(*super().forward(*args, **kwargs | {"multimask_output": True}))


class UnreadPositions(nn.Module):
    """Positions that nothing reads: those of the encoder's maps, of which transformers computes 84 MiB per frame."""

    def forward(self, shape: torch.Size, device: Any, dtype: torch.dtype, mask: Tensor | None = None) -> Tensor:
        """Zeros of a shape that take no memory."""
        return torch.zeros((), device=device, dtype=dtype).expand(shape)


class Sam2MemoryModel(Sam2VideoModel):
    """SAM 2 with its memory outside: encodes frames, tracks targets by what is remembered of them, reads prompts.

    Attributes:
        clamped: distances to old conditioning frames stay within the 15 frames that SAM 2 was trained with.
    """

    clamped = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_encoder.backbone = LeanHiera(config.vision_config.backbone_config)
        self.memory_attention = LeanMemoryAttention(config)
        self.mask_decoder = ChoosingMaskDecoder(config.mask_decoder_config)
        self._frame_positions = self.vision_encoder.neck.position_encoding
        self.vision_encoder.neck.position_encoding = UnreadPositions()
        self._kept: dict[tuple[str, torch.device], Tensor] = {}

    def encode(self, pixels: Tensor) -> list[Sam2Features]:
        """Normalised pixels, float32 (b, 3, s, s), to features of each frame, in the arithmetic of the encoder."""
        weight = next(self.vision_encoder.parameters())
        maps = [x.float() for x in self.vision_encoder(pixels.to(weight.dtype)).fpn_hidden_states]
        maps[0], maps[1] = self.mask_decoder.conv_s0(maps[0]), self.mask_decoder.conv_s1(maps[1])
        rows = [x.flatten(2).permute(2, 0, 1) for x in maps]
        whole = len(pixels) == 1
        return [Sam2Features(*(x if whole else x[:, i : i + 1].clone() for x in rows)) for i in range(len(pixels))]

    def begin_attention(self, features: Sam2Features) -> Tensor:
        """What all targets of a frame share of memory attention, (1, h w, c)."""
        return self.memory_attention.begin(features.coarse, self._positions("frame"))

    def track(
        self, features: Sam2Features, begun: Tensor, memories: Sequence[Sam2TargetMemory], choose: Choice
    ) -> Sam2Seen:
        """n targets by what is remembered of them: attention, decoder and memory encoder each take them in one batch.

        Args:
            features: of the frame.
            begun: from `begin_attention`.
            memories: with the same numbers of `tokens`.
            choose: one of several hypotheses.
        """
        session, now = session_of(memories, self.memory_positions)
        read = [self._remembered(session, number, now) for number in range(len(memories))]
        memory, positions = (torch.cat(each, 1) for each in list(zip(*read, strict=True))[:2])
        found = self.memory_attention.finish(begun.expand(len(memories), -1, -1), memory, positions, read[0][2])
        conditioned = found.transpose(1, 2).unflatten(2, self._grid)
        several = self._use_multimask(False, None)
        return self._decoded(features, conditioned, False, choose=choose if several else None)

    def without_memory(self, features: Sam2Features) -> Tensor:
        """The map of a frame without memory, for a target that begins there: (1, c, h, w)."""
        return self._map(features.coarse + self.no_memory_embedding)

    def prompted(
        self,
        features: Sam2Features,
        conditioned: Tensor,
        points: Points,
        begins: bool,
        mask: Tensor | None,
        choose: Choice,
    ) -> Sam2Seen:
        """One target by points and corners.

        Args:
            features: of the frame.
            conditioned: its map, (1, c, h, w).
            points: where the target is, and is not.
            begins: the target is new.
            mask: logits that the points correct, (1, 1, h, w), or None.
            choose: one of several hypotheses.
        """
        several = self._use_multimask(begins, {"point_labels": points.labels})
        told = {"input_points": points.coordinates, "input_labels": points.labels, "input_masks": mask}
        return self._decoded(features, conditioned, True, choose=choose if several else None, **told)

    def shown(self, features: Sam2Features, conditioned: Tensor, mask: Tensor) -> Sam2Seen:
        """One target by its mask, float32 (1, 1, s, s) of 0 and 1, which is believed as it is."""
        found = self._use_mask_as_output(self._map(features.coarse), self._fine(features, 1), mask)
        return self._remembering(features, conditioned, found, True)

    def _decoded(self, features: Sam2Features, conditioned: Tensor, from_prompt: bool, **told: Any) -> Sam2Seen:
        """Masks of n targets on maps (n, c, h, w), and what to remember of them."""
        maps = [*self._fine(features, len(conditioned)), conditioned]
        found = self._single_frame_forward(image_embeddings=maps, multimask_output=False, **told)
        return self._remembering(features, conditioned, found, from_prompt)

    def _remembering(self, features: Sam2Features, conditioned: Tensor, found: Any, from_prompt: bool) -> Sam2Seen:
        """The output of a frame with its memory; masks from prompts are remembered hard, tracked ones soft."""
        count, logits = len(found.pred_masks), found.object_score_logits
        memory, _ = self._encode_new_memory(
            features.coarse.expand(-1, count, -1), found.high_res_masks, logits, from_prompt
        )
        iou, presence = (x.reshape(count, -1)[:, 0] for x in (found.iou_scores, logits))
        return Sam2Seen(found.pred_masks, iou, presence, memory, found.object_pointer, conditioned)

    def _remembered(self, session: Any, number: int, now: int) -> tuple[Tensor, Tensor, int]:
        """What one object of a session remembers, and where: float32 (t, 1, 64) twice, the last rows pointers."""
        device = self.no_memory_embedding.device
        frames = self._gather_memory_frame_outputs(session, number, now)
        maps, places = self._build_memory_attention_inputs(frames, device)
        offsets, pointers, limit = self._get_object_pointers(session, number, now, None, device, streaming=True)
        tokens, spread = self._process_object_pointers(offsets, pointers, limit, 1, self.hidden_dim, device)
        return torch.cat([*maps, tokens]).float(), torch.cat([*places, spread]), len(tokens)

    def _get_object_pointers(self, *args: Any, **kwargs: Any) -> tuple[list[int], list[Tensor], int]:
        """Stock selection, of at most 16: all conditioning frames, then the newest; without the cap there is none.

        transformers bounds the memories of conditioning frames, but neither their pointers nor how far back they lie.
        """
        offsets, pointers, limit = super()._get_object_pointers(*args, **kwargs)
        if self.clamped:
            offsets = [min(offset, limit - 1) for offset in offsets]
        return offsets[:limit], pointers[:limit], limit

    def _fine(self, features: Sam2Features, count: int) -> list[Tensor]:
        """The maps at strides 4 and 8, for `count` targets: (count, c, h, w)."""
        sizes = self.backbone_feature_sizes
        maps = [x.permute(1, 2, 0).unflatten(2, tuple(size)) for x, size in zip(features[:2], sizes[:2], strict=True)]
        return [x.expand(count, -1, -1, -1) for x in maps]

    def map_of(self, features: Sam2Features) -> Tensor:
        """What the encoder says about a frame at stride 16, before any memory: (c, h, w)."""
        return self._map(features.coarse)[0]

    def _map(self, rows: Tensor) -> Tensor:
        """Rows (h w, 1, c) as a map (1, c, h, w)."""
        return rows.permute(1, 2, 0).unflatten(2, self._grid)

    @property
    def _grid(self) -> tuple[int, int]:
        height, width = self.backbone_feature_sizes[-1]
        return height, width

    @property
    def memory_positions(self) -> Tensor:
        """Positions of the cells of a memory map, float32 (h w, 1, 64)."""
        return self._positions("memory")

    def _positions(self, of: str) -> Tensor:
        """Positions of the cells of the frame's map or of a memory map, the same for every frame."""
        key = (of, self.no_memory_embedding.device)
        if key not in self._kept:
            make, width = self._frame_positions, self.hidden_dim
            if of == "memory":
                make, width = self.memory_encoder.position_encoding, self.mem_dim
            made = make(torch.Size((1, width, *self._grid)), key[1], torch.float32)
            self._kept[key] = made.flatten(2).permute(2, 0, 1)
        return self._kept[key]
