"""What SAM 2 remembers of a target, frozen, and transformers' inference session made of it anew for every frame.

Stock `Sam2VideoInferenceSession` is changed in place and never forgets: 12 MiB per frame and 4.75 MiB per frame and
target at 1024 px. Here a target holds what a later frame can read and nothing else, and the session is a few
dictionaries of references that live as long as one frame. Frames are counted by each target for itself; only their
distances matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession


class Limits(NamedTuple):
    """How much of a target is remembered.

    Attributes:
        conditioning: frames on which it was shown; the first is never forgotten, then the newest are kept.
        memories: age in frames up to which maps of tracked frames are kept (SAM 2: 6).
        pointers: the same for object pointers (SAM 2: 15).
    """

    conditioning: int
    memories: int
    pointers: int


@dataclass(frozen=True, eq=False)
class Sam2FrameMemory:
    """One target on one frame.

    Attributes:
        frame: number of the frame, counted from the target's first.
        pointer: the object pointer, float32 (1, 1, c).
        features: the memory map, bfloat16 (h w, 1, 64), or None where the frame is too old for it.
    """

    frame: int
    pointer: Tensor
    features: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.pointer.nbytes) + (0 if self.features is None else int(self.features.nbytes))


@dataclass(frozen=True, eq=False)
class Sam2TargetMemory:
    """What SAM 2 remembers of one target: constant in size once the target has been tracked for 15 frames.

    Attributes:
        frames: how many it has been looked for on; the next one has this number.
        conditioning: frames on which it was shown, oldest first.
        recent: frames on which it was tracked, oldest first.
        kept: frames on which it was tracked that are remembered as if it had been shown on them.
    """

    frames: int = 0
    conditioning: tuple[Sam2FrameMemory, ...] = ()
    recent: tuple[Sam2FrameMemory, ...] = ()
    kept: tuple[Sam2FrameMemory, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(each.nbytes for each in (*self.conditioning, *self.recent, *self.kept))

    @property
    def lasting(self) -> tuple[Sam2FrameMemory, ...]:
        """All frames that are conditioning ones for SAM 2."""
        return (*self.conditioning, *self.kept)

    @property
    def tokens(self) -> tuple[int, int]:
        """How many maps and how many pointers the next frame reads; targets with equal numbers fit in one batch."""
        maps = sum(each.features is not None for each in self.recent)
        return len(self.lasting) + maps, len(self.lasting) + len(self.recent)

    def keeping(self, place: int) -> Sam2TargetMemory:
        """With its newest tracked frame as a conditioning one, at a place of `kept`; it is no longer a recent one."""
        kept = (*self.kept[:place], self.recent[-1], *self.kept[place + 1 :])
        return replace(self, recent=self.recent[:-1], kept=kept)

    def after(self, features: Tensor, pointer: Tensor, shown: bool, limits: Limits) -> Sam2TargetMemory:
        """With one frame more, and without what is too old for the frame after it.

        Args:
            features: bfloat16 (h w, 1, 64).
            pointer: float32 (1, 1, c).
            shown: the target was shown on the frame, which therefore becomes a conditioning frame. transformers would
                let a mask on a frame that was tracked before slide out of memory (T6 in the notes on IMAT).
            limits: see `Limits`.
        """
        new = Sam2FrameMemory(self.frames, pointer, features)
        conditioning, recent, held = self.conditioning, self.recent, self.kept
        if shown:
            held = ()  # what was seen before the correction may have been wrong
            conditioning = (*conditioning, new)
            conditioning = conditioning[:1] + conditioning[max(1, len(conditioning) - limits.conditioning + 1) :]
        else:
            recent = (*recent, new)
        following = self.frames + 1
        young = (each for each in recent if following - each.frame <= limits.pointers)
        recent = tuple(
            each if following - each.frame <= limits.memories else replace(each, features=None) for each in young
        )
        return Sam2TargetMemory(following, conditioning, recent, held)


def session_of(memories: Sequence[Sam2TargetMemory], positions: Tensor) -> tuple[Sam2VideoInferenceSession, int]:
    """A stock session that has seen what the targets remember, and the number of the frame that comes next in it.

    Args:
        memories: of targets, which become objects 0, 1, ... of the session.
        positions: of the cells of a memory map, float32 (h w, 1, 64), the same for all; its device is the session's.
    """
    device = positions.device
    session = Sam2VideoInferenceSession(
        inference_device=device, inference_state_device=device, video_storage_device=device, dtype=torch.float32
    )
    now = max((memory.frames for memory in memories), default=0)
    for number, memory in enumerate(memories):
        stored = session.output_dict_per_obj[session.obj_id_to_idx(number)]
        for kind, entries in (("cond", memory.lasting), ("non_cond", memory.recent)):
            stored[f"{kind}_frame_outputs"] = {
                now - memory.frames + each.frame: _as_output(each, positions) for each in entries
            }
    return session, now


def _as_output(entry: Sam2FrameMemory, positions: Tensor) -> dict[str, Any]:
    """The entry as the dictionary that transformers' methods read."""
    held: dict[str, Any] = {"object_pointer": entry.pointer}
    if entry.features is not None:
        held |= {"maskmem_features": entry.features, "maskmem_pos_enc": positions}
    return held
