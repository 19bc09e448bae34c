"""What the released evaluator of RMOT26 reads from an answer, evaluation_scripts/evaluate_QTrack.py at bc746fe.

`rmot26_evaluator` in `eval.metrics.query_mot`, where boxes and missing boxes are defined.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eval.metrics.query_mot import FloatArray
from trackgpt.errors import InputError
from trackgpt.settings import parse_json

LONGEST_OUTPUT = 1_000_000
"""Characters of an answer; a model that repeats itself to its last token writes a tenth of it."""


def parse_predicted_output(text: str) -> list[tuple[Any, Any]]:
    """Read frames and boxes from an answer of a model as the released evaluator does (rmot26_evaluator).

    First the whole text as JSON: a list of objects, of which those with "frame" and a box under "bbox" or else
    "bbox_2d" count; neither value is looked at. If that fails, every piece of text that looks like such an object,
    written on one line with a whole number as frame.

    Args:
        text: any string of at most `LONGEST_OUTPUT` characters.

    Returns:
        (frame, box) in the order of the text; box is a list of numbers, unless the JSON says otherwise. Empty if
        nothing is found, or if a piece of text holds something else than numbers (the evaluator then drops the whole
        answer).

    Raises:
        InputError: the text is longer.
    """
    if len(text) > LONGEST_OUTPUT:
        raise InputError(f"an answer of {len(text)} characters; wanted at most {LONGEST_OUTPUT}")
    with contextlib.suppress(Exception):
        items = parse_json(text, "the answer")
        if isinstance(items, list):
            found = [(item["frame"], item.get("bbox") or item.get("bbox_2d")) for item in items if "frame" in item]
            return [(frame, box) for frame, box in found if box is not None]
    try:
        return [(int(frame), [float(x) for x in box.split(",")]) for frame, box in _objects(text)]
    except ValueError:
        return []


def _objects(text: str) -> Iterator[tuple[str, str]]:
    r"""What `re.findall(r'\{.*?"frame":\s*(\d+).*?"bbox(?:_2d)?":\s*\[([^\]]+)\].*?\}', text)` finds.

    That would try every brace with every frame and every box; here each piece of text is looked at once. A dot does
    not pass the end of a line. From a brace, what any frame on its line leads to the first one leads to as well, but
    for the last one, whose number may stand on another line. Braces before the same frame lead to the same.
    """
    lines, brackets, closes = (_places(character, text) for character in "\n]}")
    frames = list(re.finditer(r'"frame":\s*(\d+)', text))
    boxes = []
    for place in re.finditer(r'"bbox(?:_2d)?":\s*\[', text):
        begin, end = place.end(), _next(brackets, place.end())
        close = _next(closes, end)
        if begin < end and close < _next(lines, end):
            boxes.append((place.start(), begin, end, close))
    frame_places, box_places = [frame.start() for frame in frames], [start for start, *_ in boxes]
    at = text.find("{")
    while at >= 0:
        line = _next(lines, at)
        first, last = bisect_left(frame_places, at), bisect_left(frame_places, line) - 1
        at = text.find("{", line)
        for frame in (frames[first], frames[last]) if first <= last else ():
            place = bisect_left(box_places, frame.end())
            if place < len(boxes) and box_places[place] < _next(lines, frame.end()):
                _, begin, end, close = boxes[place]
                yield frame[1], text[begin:end]
                at = text.find("{", close + 1)
                break
            at = text.find("{", frames[first].start())


def _places(character: str, text: str) -> list[int]:
    """Where a character stands, in order, and after it the end of the text once more."""
    return [*(match.start() for match in re.finditer(re.escape(character), text)), len(text)]


def _next(places: Sequence[int], at: int) -> int:
    """The first of some places from `at` on; the last one, the end of the text, where there is none."""
    return places[min(bisect_left(places, at), len(places) - 1)]


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
