"""Part "memory-segmenter" of `python -m eval speed`: SAM 2.1 tiny as we run it against transformers' own streaming.

Both have the same random weights and see the same frames in turns, from the image to masks of the frame's size. One
target's memory is filled first and given to all, so that a frame costs what it costs in a long video.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Sam2VideoConfig, Sam2VideoModel

from eval.speed.bench import Measurement, PartResult, Workload, clip_of, interleaved, median
from trackgpt.perception.encoders import normalise
from trackgpt.perception.memory_segmenter import Asked
from trackgpt.perception.sam2_memory import Sam2Memory, square
from trackgpt.perception.sam2_model import Sam2MemoryModel
from trackgpt.perception.sam2_session import session_of
from trackgpt.perception.sam2_video_weights import IN_16_BITS
from trackgpt.types import VisualPrompt

COUNTS = (1, 2, 4, 8)
FILLED = 17
"""Frames after which a memory is as large as it gets: the one with the box, and 15 of which pointers are kept."""
TARGET = (0.2, 0.3, 0.5, 0.7)
"""The box that starts the target, in widths and heights of the frame."""


def measure(workload: Workload) -> PartResult:
    """Seconds per frame of stock over ours with 1, 2, 4 and 8 targets, and what every frame adds to the kept bytes."""
    dtype = torch.bfloat16 if workload.dtype == "bfloat16" else torch.float32
    return compare(*random_models(tiny_config(workload.side), dtype), workload)


def compare(stock: Sam2VideoModel, ours: Sam2Memory, workload: Workload) -> PartResult:
    """See `measure`; the models have the same weights."""
    frames = clip_of(workload, 12).frames
    filled = OurStream(ours, frames, [None])
    for _ in range(FILLED):
        filled.step()
    streams: dict[str, StockStream | OurStream] = {}
    for count in COUNTS:
        memories = [copy.deepcopy(filled.memories[0]) for _ in range(count)]
        streams[f"stock {count}"] = StockStream(stock, frames, memories, ours.model.memory_positions)
        streams[f"ours {count}"] = OurStream(ours, frames, copy.deepcopy(memories), FILLED)
    before = {name: stream.kept() for name, stream in streams.items()}
    seconds = interleaved({name: stream.step for name, stream in streams.items()}, workload.pairs)
    lines, last = [], {}
    for count in COUNTS:
        fast, slow = seconds[f"ours {count}"], seconds[f"stock {count}"]
        lines.append(Measurement(f"ours, targets {count}", 1 / fast.wall, "frames/s", f"side {workload.side}"))
        lines.append(Measurement(f"stock / ours, targets {count}", slow.wall / fast.wall, "", "by the clock"))
        how = "what a busy machine's clock hides"
        lines.append(Measurement(f"stock / ours, targets {count}", slow.computed / fast.computed, "", how))
        last[f"x_{count}"] = median(slow.computed / fast.computed)
    for name, stream in streams.items():
        grown = (stream.kept() - before[name]) / (workload.pairs + 1)
        lines.append(Measurement(f"{name}, growth", np.array([grown]), "bytes/frame", "tensors kept between frames"))
        last[f"growth_{name.replace(' ', '_')}"] = grown
    return PartResult(lines, last)


class StockStream:
    """transformers' model and its session, frame after frame, from what targets remember."""

    def __init__(self, model: Sam2VideoModel, frames: np.ndarray, memories: Sequence[Any], positions: Tensor) -> None:
        self.model = model
        self.frames = frames
        self.session, self.t = session_of(memories, positions)
        self.session.dtype = model.dtype
        for each in self.session.output_dict_per_obj.values():
            for output in (output for outputs in each.values() for output in outputs.values()):
                output.update({name: value.to(model.dtype) for name, value in output.items()})

    @torch.inference_mode()
    def step(self) -> list[np.ndarray]:
        """The masks of the next frame."""
        frame = self.frames[self.t % len(self.frames)]
        pixels = normalise(square(frame, self.model.image_size, self.model.device))
        out = self.model(inference_session=self.session, frame=pixels[0], frame_idx=self.t)
        self.t += 1
        return [masks_of(each[None], frame.shape[:2]) for each in out.pred_masks.float()]

    def kept(self) -> int:
        """Bytes that it keeps."""
        return stored_bytes((self.session.processed_frames, self.session.output_dict_per_obj))


class OurStream:
    """Our network and the frozen memories, frame after frame; None for a target that a box begins on frame 0."""

    def __init__(self, network: Sam2Memory, frames: np.ndarray, memories: list[Any], t: int = 0) -> None:
        self.network = network
        self.frames = frames
        self.memories = memories
        self.t = t

    def step(self) -> list[np.ndarray]:
        """The masks of the next frame."""
        frame = self.frames[self.t % len(self.frames)]
        height, width = frame.shape[:2]
        x1, y1, x2, y2 = TARGET
        shown = None if self.t else VisualPrompt((x1 * width, y1 * height, x2 * width, y2 * height))
        found = self.network.segment(frame, [Asked(memory, shown) for memory in self.memories])
        self.memories = [each.memory for each in found]
        self.t += 1
        return [each.mask for each in found]

    def kept(self) -> int:
        """Bytes that it keeps."""
        return stored_bytes(self.memories)


def masks_of(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Masks of the frame's size, as `Sam2VideoProcessor.post_process_masks` makes them."""
    return (F.interpolate(logits, size, mode="bilinear", align_corners=False) > 0).numpy()


def random_models(config: Sam2VideoConfig, dtype: torch.dtype) -> tuple[Sam2VideoModel, Sam2Memory]:
    """Both networks with the same random weights, of which no target is absent."""
    torch.manual_seed(0)
    stock = Sam2VideoModel(config).eval()
    torch.nn.init.constant_(stock.mask_decoder.pred_obj_score_head.proj_out.bias, 5.0)
    ours = Sam2MemoryModel(config).eval()
    ours.load_state_dict(stock.state_dict())
    for name, weight in ours.named_parameters():
        if name.startswith(IN_16_BITS):
            weight.data = weight.data.to(dtype)
    return stock.to(dtype), Sam2Memory(ours)


def tiny_config(side: int) -> Sam2VideoConfig:
    """The configuration of facebook/sam2.1-hiera-tiny, for squares of a side that 32 divides; the hub's is 1024."""
    values = Sam2VideoConfig().to_dict()
    values["vision_config"]["backbone_feature_sizes"] = [[side // stride] * 2 for stride in (4, 8, 16)]
    values["vision_config"]["backbone_config"]["image_size"] = [side, side]
    values["prompt_encoder_config"]["image_size"] = side
    return Sam2VideoConfig.from_dict(
        values | {"image_size": side, "memory_attention_rope_feat_sizes": [side // 16] * 2}
    )


def stored_bytes(held: Any) -> int:
    """Bytes of all storages behind the tensors of dictionaries, lists and frozen memories, each counted once."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors_of(held)}
    return sum(storages.values())


def tensors_of(held: Any) -> Iterator[Tensor]:
    """All tensors in dictionaries, lists and objects with attributes."""
    if isinstance(held, Tensor):
        yield held
        return
    inside: Iterable[Any] = ()
    if isinstance(held, dict):
        inside = held.values()
    elif isinstance(held, list | tuple):
        inside = held
    elif hasattr(held, "__dict__"):
        inside = vars(held).values()
    for each in inside:
        yield from tensors_of(each)
