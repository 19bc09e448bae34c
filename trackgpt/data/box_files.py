"""Text files of single-target benchmarks: boxes, flags, attributes, and InteractTrack's prompts, switches and scenes.

Readers are strict: a line that is not what the format wants is an InputError with file, line and what was wanted, since
a skipped line shifts every frame after it. Where a toolkit forgives, its rule is a parameter of its own (`ragged`).
Boxes stay x, y, width, height as written. Encoding is UTF-8, with or without byte order mark; lines end with any
newline; empty lines at the very end of a file of numbers are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from trackgpt.data.trees import plain_name
from trackgpt.errors import InputError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LASOT_ABSENT = 1
"""annos/absent of LaSOT and both full_occlusion.txt and out_of_view.txt of the sequences: 1 = absent."""
GOT10K_ABSENT = 1
"""absence.label of GOT-10k: 1 = absent."""
TNL2K_ABSENT = 1
"""annos/absent of TNL2K: 1 = absent."""
TNLLT_ABSENT = 0
"""absent_label.txt of TNLLT: 1 = PRESENT, whatever its name says; 0 = absent."""

LASOT_ATTRIBUTES = ("IV", "POC", "DEF", "MB", "CM", "ROT", "BC", "VC", "SV", "FOC", "FM", "OV", "LR", "ARC")
"""Columns of annos/att of LaSOT (HengLan/LaSOT_Evaluation_Toolkit@95bf38a)."""
TNLLT_ATTRIBUTES = ("CM", "ROT", "DEF", "FOC", "IV", "OV", "POC", "VC", "SV", "BC", "MB", "ARC", "LR", "FM", "AS")
"""Columns of attributes.txt of TNLLT (Event-AHU/Open_VLTrack@fccc2c7)."""
TNL2K_ATTRIBUTES = (*TNLLT_ATTRIBUTES, "TC", "MS")
"""Lines of annos/att of TNL2K (wangxiao5791509/TNL2K_evaluation_toolkit@1a96f6e)."""
INTERACTTRACK_SCENES = ("daily", "sports", "UAV", "surveillance", "wildlife", "other")
"""Columns of scene.txt of InteractTrack (NorahGreen/InteractTrack@5f149d4)."""


def read_boxes(path: Path) -> FloatArray:
    """One box per line: four numbers between commas, tabs or spaces; NaN is a number.

    Args:
        path: an annotation or result file of LaSOT, TNL2K, TNLLT, OTB, GOT-10k or a tracker.

    Returns:
        float64 (frames, 4) x, y, w, h.

    Raises:
        InputError: missing or empty file, a blank line, another number of columns, a word or an infinite number.
    """
    lines = _lines_of_numbers(path)
    tokens = [line.replace(",", " ").split() for line in lines]
    for number, found in enumerate(tokens, 1):
        if len(found) != 4:
            _refuse(path, number, lines[number - 1], "four numbers x,y,w,h")
    try:
        boxes = np.array(tokens, np.float64)
    except ValueError:
        number = next(n for n, found in enumerate(tokens, 1) if _numbers(found) is None)
        _refuse(path, number, lines[number - 1], "four numbers x,y,w,h")
    infinite = np.flatnonzero(np.isinf(boxes).any(1))
    if infinite.size:
        _refuse(path, int(infinite[0]) + 1, lines[infinite[0]], "finite numbers or NaN")
    return boxes


def read_flags(path: Path, count: int | None = None) -> BoolArray:
    """Flags 0 and 1, one per line or several per line between commas, tabs or spaces.

    Args:
        path: absence flags (LaSOT's full_occlusion.txt is one long line, annos/absent one flag per line), or attributes
            (one line in LaSOT, a flag a line in TNL2K).
        count: how many are wanted; None takes what is there.

    Returns:
        bool (flags,), True = 1. For absence use `read_absent`, which knows what 1 means.

    Raises:
        InputError: missing or empty file, a blank line, a value other than 0 and 1, or another number of flags.
    """
    flags: list[bool] = []
    for number, line in enumerate(_lines_of_numbers(path), 1):
        values = _numbers(line.replace(",", " ").split())
        if not values or any(value not in (0, 1) for value in values):
            _refuse(path, number, line, "flags 0 or 1")
        flags.extend(value == 1 for value in values)
    if count is not None and len(flags) != count:
        raise InputError(f"{path}: {len(flags)} flags, wanted {count}; is it the file of another sequence?")
    return np.array(flags, np.bool_)


def read_absent(path: Path, absent_value: int, count: int | None = None) -> BoolArray:
    """The frames in which the target is not visible.

    Args:
        path: a flag file.
        absent_value: which flag means absent: LASOT_ABSENT, TNL2K_ABSENT or TNLLT_ABSENT. Data sets disagree, so there
            is no default.
        count: the number of frames; None takes what is there.

    Returns:
        bool (frames,), True = absent, as `eval.metrics.box_conventions` wants it.

    Raises:
        InputError: as `read_flags`, or `absent_value` is neither 0 nor 1.
    """
    if absent_value not in (0, 1):
        raise InputError(f"{path}: the flag of absent frames was given as {absent_value!r}, wanted 0 or 1")
    flags = read_flags(path, count)
    return flags if absent_value == 1 else ~flags


def read_names(path: Path) -> list[str]:
    """Sequence names of a split list, one per line, in the order of the file.

    Args:
        path: e.g. sequence_evaluation_config/testing_set.txt; spaces around a name are dropped.

    Returns:
        The names.

    Raises:
        InputError: missing or empty file, a blank line, or a name twice.
    """
    names: dict[str, None] = {}
    for number, line in enumerate(_lines_of_numbers(path), 1):
        if not line.strip() or line.strip() in names:
            _refuse(path, number, line, "one new sequence name per line")
        names[plain_name(line.strip(), f"{path}: line {number}")] = None
    return list(names)


def read_interacttrack_boxes(path: Path, *, ragged: bool = False) -> FloatArray:
    """One box per line, or a line for no box: groundtruth.txt, switch.txt, or a result file of InteractTrack.

    Args:
        path: the file; numbers between commas, tabs or spaces.
        ragged: False wants four numbers, a single 0 or NaN, or a blank line. True is the toolkit's rule
            (`parse_box_line` of NorahGreen/InteractTrack@5f149d4): a line with a word or with less than four numbers is
            no box, the first four of more than four numbers are the box.

    Returns:
        float64 (lines, 4) x, y, w, h; rows without a box are 0, 0, 0, 0, which is also how trackers write "absent". A
        row written as four NaN stays NaN. Every line is kept, (0, 4) for an empty file.

    Raises:
        InputError: missing file, or without `ragged` a line of another form.
    """
    lines = _lines(path)
    boxes = np.zeros((len(lines), 4))
    for row, line in enumerate(lines):
        tokens = line.replace(",", " ").split()
        numbers = _numbers(tokens)
        if numbers is not None and (len(numbers) == 4 or (ragged and len(numbers) > 4)):
            boxes[row] = numbers[:4]
        elif not ragged and not _says_no_box(tokens):
            _refuse(path, row + 1, line, "x,y,w,h, a single 0, or a blank line")
    return boxes


def read_interacttrack_truth(path: Path) -> tuple[FloatArray, BoolArray]:
    """groundtruth.txt as the tracking loader sees it (NorahGreen/InteractTrack@5f149d4, intdataset.py).

    A line is visible if its first four columns are numbers with x >= 0, y >= 0, w > 0 and h > 0; anything else, even a
    word, is an invisible frame. The toolkit then drops the frames before the first visible one from the tracking
    metrics alone: `first_visible`. (It also cuts to the number of images and ANDs full_occlusion.txt and
    out_of_view.txt where both exist; that is left to the kit.)

    Args:
        path: the file.

    Returns:
        float64 (lines, 4), zeros where invisible, and bool (lines,), True = visible.

    Raises:
        InputError: missing file.
    """
    lines = _lines(path)
    boxes = np.zeros((len(lines), 4))
    for row, line in enumerate(lines):
        numbers = _numbers(line.replace(",", " ").split()[:4])
        if numbers is not None and len(numbers) == 4 and min(numbers[:2]) >= 0 and min(numbers[2:]) > 0:
            boxes[row] = [0.0] * 4 if any(math.isnan(value) for value in numbers) else numbers
    return boxes, np.asarray(boxes.any(1), np.bool_)


def first_visible(visible: BoolArray) -> int:
    """Index of the first visible frame, where InteractTrack's tracking metrics begin.

    Args:
        visible: bool (frames,).

    Returns:
        The index.

    Raises:
        InputError: no frame is visible; the toolkit leaves such a sequence out.
    """
    places = np.flatnonzero(visible)
    if not places.size:
        raise InputError("the target is visible in no frame, wanted one at least; leave the sequence out")
    return int(places[0])


def read_descriptions(path: Path) -> list[str]:
    """description.txt of InteractTrack: one line per frame, blank where nothing is said.

    Args:
        path: the file.

    Returns:
        One text per line without spaces around it, "" = no prompt on this frame.

    Raises:
        InputError: missing file, or not UTF-8.
    """
    return [line.strip() for line in _lines(path)]


def read_scene(path: Path) -> BoolArray:
    """scene.txt of InteractTrack: six flags on one line.

    Args:
        path: the file.

    Returns:
        bool (6,), in the order of INTERACTTRACK_SCENES.

    Raises:
        InputError: as `read_flags`.
    """
    return read_flags(path, len(INTERACTTRACK_SCENES))


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.readlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read ({why}); wanted a text file in UTF-8") from error


def _lines_of_numbers(path: Path) -> list[str]:
    lines = _lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"{path}: empty, wanted a line per frame or flag; copy or unpack it again")
    return lines


def _numbers(tokens: Sequence[str]) -> list[float] | None:
    try:
        return [float(token) for token in tokens]
    except ValueError:
        return None


def _says_no_box(tokens: Sequence[str]) -> bool:
    return not tokens or (len(tokens) == 1 and tokens[0].lower() in ("0", "0.0", "nan"))


def _refuse(path: Path, number: int, line: str, wanted: str) -> NoReturn:
    shown = line.strip()[:40]
    raise InputError(f"{path}: line {number} is {shown!r}, wanted {wanted}; correct the line or unpack the file again")
