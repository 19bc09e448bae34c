"""What contradicts itself in a track and is told: targets on one object, points off a mask, words for another thing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from trackgpt.export.records import TrackRecord
from trackgpt.geometry.boxes import box_iou
from trackgpt.geometry.masks import box_of, iou_of_rles
from trackgpt.session.choices import xywh
from trackgpt.types import Prompt, VisualPrompt

SAME, APART = 0.9, 0.5
"""IoU of two masks above which they are one object's, and below which a meeting is over."""
ANOTHER = 0.1
"""IoU of two boxes below which they are of different things."""
LONG = 5
"""Frames in a row after which a meeting is worth a warning: objects that pass each other part sooner."""


class Meetings:
    """Which targets have had one mask for how many frames in a row."""

    def __init__(self) -> None:
        self._frames: dict[tuple[int, int], int] = {}

    def see(self, record: TrackRecord) -> list[tuple[int, int]]:
        """The pairs of ids whose masks have now been one for `LONG` frames; each pair once until it parts."""
        here = [(item.id, item.rle) for item in record.objects if item.rle is not None]
        before, self._frames = self._frames, {}
        if len(here) < 2:
            return []
        overlaps = iou_of_rles([rle for _, rle in here], *record.size)
        told = []
        for (i, (a, _)), (k, (b, _)) in itertools.combinations(enumerate(here), 2):
            frames = before.get((a, b), 0)
            if overlaps[i, k] > SAME:
                self._frames[a, b] = frames + 1
                told += [(a, b)] if frames + 1 == LONG else []
            elif frames >= LONG and overlaps[i, k] >= APART:
                self._frames[a, b] = frames
        return told


def denied_points(prompt: Prompt, ids: Sequence[int], masks: np.ndarray) -> list[str]:
    """A line for each target whose box, or whose mask now, denies points that came with a box or a mask of it.

    Args:
        prompt: what was shown.
        ids: of all targets, those of the prompt last where it names none.
        masks: of all targets on the frame that the prompt is about, bool (targets, height, width).
    """
    numbers = prompt.ids or tuple(ids[-len(prompt.visual) :])
    rows = {number: k for k, number in enumerate(ids)}
    lines = []
    for number, shown in zip(numbers, prompt.visual):
        if denied := "; ".join(_denied(shown, masks[rows[number]])):
            lines.append(f"target {number}: {denied}; look at its mask, and show a box or a mask where it is wrong")
    return lines


def elsewhere(prompt: Prompt, found: np.ndarray) -> str:
    """What is told where the words of a prompt fit other things than the one that is shown beside them; else "".

    Args:
        prompt: with words, and a box or a mask.
        found: what the words fit on its frame, float32 (n, 4), xyxy pixels.
    """
    (shown,) = prompt.visual
    box = box_of(shown.mask) if shown.mask is not None else shown.box
    if not len(found) or box_iou(found, np.array([box], np.float32)).max() >= ANOTHER:
        return ""
    places = "; ".join(xywh(one) for one in found.tolist())
    return f"the model finds {prompt.text!r} at {places}; what was shown is followed"


def _denied(shown: VisualPrompt, mask: np.ndarray) -> Iterator[str]:
    if shown.box is None and shown.mask is None:
        return
    x1, y1, x2, y2 = shown.box or (-np.inf, -np.inf, np.inf, np.inf)
    for x, y, side in shown.points:
        held = {"box": x1 <= x <= x2 and y1 <= y <= y2, "mask": bool(mask[int(y), int(x)])}
        outside = " and its ".join(name for name, holds in held.items() if not holds)
        if side and outside:
            yield f"the point {x:g},{y:g} is on the target and outside of its {outside}"
        elif not side and held["mask"]:
            yield f"the point {x:g},{y:g} is not on the target and inside of its mask"
