"""How well a box tracker follows a target with some words or others: all of a batch in one forward for each frame.

A window begins where its describer was asked. The first view of the target is that of the first frame, and its last
place the true one on the second, as a tracker has them that did not lose it; temporal tokens begin anew in every
window. So words alone make a difference, and nothing is left from one answer to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trackgpt.geometry.boxes import box_iou
from trackgpt.perception.box_tracker import BoxTracker, inside_frame
from trackgpt.perception.encoders import normalise
from trackgpt.perception.search_window import SquareCrop
from trackgpt.types import Box
from train.box_tracking import batch_words
from train.description_rows import DescriptionRow, TrackedWindow


class WindowTracker:
    """Follows windows with words. It holds weights, not state.

    Args:
        tracker: the perception, with its settings; its store of later views is not used.
        most: windows of a forward.
    """

    def __init__(self, tracker: BoxTracker, most: int = 64) -> None:
        self.tracker, self.most = tracker, most

    def compared(self, rows: Sequence[DescriptionRow], new: Sequence[str]) -> list[tuple[float, float]]:
        """Mean IoU over its window with a row's own words and with new ones, each.

        A row that comes several times, as one object, is read once, and the same words are tracked once.
        """
        windows = {id(row): row.window() for row in rows if row.window is not None}
        asked = [(id(row), text) for row, words in zip(rows, new, strict=True) for text in (row.words, words)]
        wanted = [one for one in dict.fromkeys(asked) if one[0] in windows]
        found: dict[tuple[int, str], float] = {}
        for start in range(0, len(wanted), self.most):
            some = wanted[start : start + self.most]
            chosen = [windows[key] for key, _ in some]
            boxes = self.follow(chosen, [words for _, words in some])
            found |= {one: mean_overlap(*both) for one, *both in zip(some, boxes, chosen, strict=True)}
        overlaps = [found.get(one, float("nan")) for one in asked]
        return list(zip(overlaps[::2], overlaps[1::2], strict=True))

    @torch.inference_mode()
    def follow(self, windows: Sequence[TrackedWindow], words: Sequence[str]) -> list[np.ndarray]:
        """Boxes float32 (frames, 4), xyxy pixels, of each window with its words; "" says nothing.

        Args:
            windows: all of as many frames.
            words: of each.
        """
        network, how = self.tracker.network, self.tracker.settings
        config = network.config
        device = network.places["search"].device
        views = [
            SquareCrop.around(window.shown, config.template_factor).cut(window.first, config.template_side)
            for window in windows
        ]
        templates = self._pixels(views, device)[:, None]
        said = batch_words(words if how.words else [""] * len(words), network)
        given = None if said is None else (said[0].to(device), said[1].to(device))
        places, temporal = [window.place for window in windows], None
        path: list[list[Box]] = [[] for _ in windows]
        for t in range(len(windows[0].frames)):
            frames = [window.frames[t] for window in windows]
            crops = [SquareCrop.around(place, config.search_factor) for place in places]
            looked = [crop.cut(frame, config.search_side) for crop, frame in zip(crops, frames, strict=True)]
            maps = network(templates, self._pixels(looked, device), given, temporal)
            temporal = maps.temporal if how.temporal else None
            found, _ = maps.boxes(self.tracker.window if how.hann else None)
            for k, (cx, cy, w, h) in enumerate(found.tolist()):
                box = crops[k].outside((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
                places[k] = inside_frame(box, frames[k], how.smallest)
                path[k].append(places[k])
        return [np.array(boxes, np.float32).reshape(-1, 4) for boxes in path]

    def _pixels(self, squares: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
        return normalise(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(device))


def mean_overlap(boxes: np.ndarray, window: TrackedWindow) -> float:
    """Mean IoU of boxes (frames, 4), xyxy pixels, over the frames on which the target is visible; 0 without any."""
    seen = np.isfinite(window.boxes).all(axis=1)
    if not seen.any():
        return 0.0
    return float(np.mean([box_iou(boxes[t : t + 1], window.boxes[t : t + 1])[0, 0] for t in np.flatnonzero(seen)]))
