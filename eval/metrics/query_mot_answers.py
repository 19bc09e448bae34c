"""What the released evaluator of RMOT26 reads from an answer, evaluation_scripts/evaluate_QTrack.py at bc746fe.

`rmot26_evaluator` in `eval.metrics.query_mot`, where boxes and missing boxes are defined.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.metrics.query_mot import FloatArray


def parse_predicted_output(text: str) -> list[tuple[Any, Any]]:
    """Read frames and boxes from an answer of a model as the released evaluator does (rmot26_evaluator).

    First the whole text as JSON: a list of objects, of which those with "frame" and a box under "bbox" or else
    "bbox_2d" count; neither value is looked at. If that fails, every piece of text that looks like such an object,
    written on one line with a whole number as frame.

    Args:
        text: any string.

    Returns:
        (frame, box) in the order of the text; box is a list of numbers, unless the JSON says otherwise. Empty if
        nothing is found, or if a piece of text holds something else than numbers (the evaluator then drops the whole
        answer).
    """
    with contextlib.suppress(Exception):
        items = json.loads(text)
        if isinstance(items, list):
            found = [(item["frame"], item.get("bbox") or item.get("bbox_2d")) for item in items if "frame" in item]
            return [(frame, box) for frame, box in found if box is not None]
    try:
        return [(int(frame), [float(x) for x in box.split(",")]) for frame, box in _OBJECT.findall(text)]
    except ValueError:
        return []


_OBJECT = re.compile(r'\{.*?"frame":\s*(\d+).*?"bbox(?:_2d)?":\s*\[([^\]]+)\].*?\}')


def paired_by_position(parsed: Sequence[tuple[Any, Any]], frames: int) -> FloatArray:
    """Boxes for the frames of a clip, the first parsed box for the first frame and so on (rmot26_evaluator).

    What the model says about frame numbers is ignored, so one left-out frame shifts all that follow. Boxes above
    `frames` are dropped.

    Args:
        parsed: what `parse_predicted_output` returns.
        frames: of the clip.

    Returns:
        float64 (frames, 4), xywh; NaN where there is no box of four finite numbers, which the other functions count as
        [0, 0, 0, 0], as the evaluator does (it crashes on three or five numbers).
    """
    boxes = np.full((frames, 4), np.nan)
    for row, (_, box) in zip(boxes, parsed):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            values = [float(x) for x in box]
            if len(values) == 4 and np.isfinite(values).all():
                row[:] = values
    return boxes
