"""RMOT26, the benchmark of QTrack: a question about objects of a reference frame, and their boxes in the frames after.

    <root>/{train,test}/annotations.json, images by relative path beside it (or below the root)

Source: gaash-lab/QTrack@bc746fe:evaluation_scripts/evaluate_QTrack.py. Boxes are
x, y, w, h in pixels, as written: the metrics depend on their last bit. A frame is known by the number its file's name
ends in. Opening a part reads its one JSON; images are read when they are asked for.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trackgpt.data.trees import Tree, find_tree, read_json
from trackgpt.data.videos import Expression, Video
from trackgpt.errors import InputError
from trackgpt.settings import parse_json
from trackgpt.types import Prompt

FloatArray = NDArray[np.float64]

RMOT26 = Tree(
    "rmot26",
    ("RMOT26", "RMOT-26"),
    ("test/annotations.json", "train/annotations.json"),
    ("train", "test"),
    {"train": (1636, None), "test": (1000, None)},
)


@dataclass(frozen=True)
class ClipObject:
    """One object of a clip.

    Attributes:
        key: "object_1" and so on, as results name it; "" in a clip with a single object.
        track_id: of the sequence the clip was cut from.
        initial_box: float64 (4,) xywh in the reference frame, which the benchmark hands to trackers; None if missing.
        frames: numbers of the frames with a truth, in the order of the file: results are paired with them by position.
        boxes: float64 (frames, 4) xywh; NaN where the file has no box or one without area.
    """

    key: str
    track_id: str
    initial_box: FloatArray | None
    frames: tuple[int, ...]
    boxes: FloatArray


@dataclass(frozen=True)
class QueryClip:
    """One question.

    Attributes:
        name: its id, usable as a file's name.
        kind: whether results are one list, or one per key of its objects.
        question: what is asked.
        reference: the frame it is asked about.
        images: the frames that follow, in order; may hold the reference again.
        objects: what is meant.
        scenario: what makes it hard ("crowd", "occlusion", "re-entry"), where the file says so; SynthTrack's does.
    """

    name: str
    kind: Literal["single", "multi"]
    question: str
    reference: Path
    images: tuple[Path, ...]
    objects: tuple[ClipObject, ...]
    scenario: str = ""

    def video(self) -> Video:
        """The reference and what follows it, each frame once, with the question as its only expression and prompt."""
        images = tuple(dict.fromkeys((self.reference, *self.images)))
        said = Expression("0", self.question, tuple(each.track_id for each in self.objects), {"kind": self.kind})
        return Video(self.name, images, (said,), prompts=(Prompt(self.question),))


def rmot26(root: str | Path, part: str) -> tuple[QueryClip, ...]:
    """The clips of a part.

    A clip has one object ("track_id" and a list of boxes) or several ("objects", boxes under "object_1" and so on);
    "expected_output" is JSON or a string of JSON, "question" may be called "prompt", "input_images" "images".

    Args:
        root: the tree, or the folder above it.
        part: "train" or "test".

    Returns:
        The clips in the order of the file.

    Raises:
        UsageError: another part.
        InputError: the file is missing or no JSON; a clip lacks a field or has an id that is no name; with its place.
    """
    RMOT26.check_part(part)
    folder = find_tree(RMOT26, root) / part
    return read_clips(folder / "annotations.json", folder)


def read_clips(path: Path, images: Path) -> tuple[QueryClip, ...]:
    """The clips of an annotation file.

    Args:
        path: annotations.json.
        images: folder that the paths of images begin at; where one is not there, the folder above it is tried.

    Raises:
        InputError: as for `rmot26`, or an id appears twice.
    """
    stored = read_json(path)
    items = stored.get("data") if isinstance(stored, dict) else stored
    if not isinstance(items, list):
        raise InputError(f'{path}: holds a {type(stored).__name__}, wanted a list of clips, or {{"data": [...]}}')
    clips = [_AnnotationEntry(path, place, item, images).clip() for place, item in enumerate(items)]
    twice = [name for name, times in Counter(clip.name for clip in clips).items() if times > 1]
    if twice:
        raise InputError(f"{path}: the id {twice[0]!r} is there more than once, wanted one a clip")
    return tuple(clips)


def boxes_of_trajectory(entries: Any) -> tuple[tuple[int, ...], FloatArray]:
    """Frames and boxes of a list of {"frame": 947, "bbox": [x, y, w, h]}.

    Returns:
        Frame numbers, and float64 (entries, 4) xywh; NaN where "bbox" is null or has no area.

    Raises:
        ValueError: it is no such list.
    """
    if not isinstance(entries, list):
        raise ValueError(f"a {type(entries).__name__}, wanted a list of frames with boxes")
    frames, boxes = [], np.full((len(entries), 4), np.nan)
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("frame"), int):
            raise ValueError(f'entry {place} is {str(entry)[:40]}, wanted {{"frame": number, "bbox": [x, y, w, h]}}')
        frames.append(entry["frame"])
        box = entry.get("bbox", entry.get("bbox_2d"))
        if box is not None:
            boxes[place] = _box(box, f"the box of entry {place}")
    boxes[~(boxes[:, 2:] > 0).all(axis=1)] = np.nan
    return tuple(frames), boxes


def frame_number(image: Path) -> int:
    """The number that a file's name ends in: 947 for 000947.jpg.

    Raises:
        InputError: there is none.
    """
    digits = re.search(r"(?<!\d)\d{1,19}$", image.stem)
    if digits is None:
        raise InputError(f"{image}: its name ends in no number, wanted one such as 000947.jpg")
    return int(digits[0])


@dataclass(frozen=True)
class _AnnotationEntry:
    """An entry of annotations.json, and where it stands."""

    path: Path
    place: int
    item: Any
    images: Path

    def clip(self) -> QueryClip:
        if not isinstance(self.item, dict):
            raise self._error(f"a {type(self.item).__name__}, wanted an object")
        reference = self._field("ref_image")
        objects = self._objects(self._field("expected_output"))
        return QueryClip(
            name=self._name(),
            kind="single" if objects[0].key == "" else "multi",
            question=str(self._field("question", "prompt")).strip(),
            reference=self._image(reference),
            images=tuple(self._image(image) for image in self._field("input_images", "images")),
            objects=objects,
            scenario=str(self.item.get("scenario", "")),
        )

    def _name(self) -> str:
        name = str(self._field("id"))
        if not re.fullmatch(r"[\w.@+-]+", name) or name.startswith("."):
            raise self._error(f"the id {name[:40]!r} is no file name; wanted letters, digits, and . _ - + @")
        return name

    def _objects(self, expected: Any) -> tuple[ClipObject, ...]:
        try:
            found = parse_json(expected, "its text") if isinstance(expected, str) else expected
            if isinstance(found, list):
                box = self.item.get("initial_bbox")
                return (self._object("", self.item.get("track_id"), box, found),)
            if not isinstance(found, dict) or not found:
                raise ValueError(f"a {type(found).__name__}, wanted a list, or an object of object_1 and so on")
            given = {f"object_{one.get('object_id')}": one for one in self.item.get("objects", ())}
            return tuple(
                self._object(key, one.get("track_id"), given.get(key, {}).get("initial_bbox"), one.get("trajectory"))
                for key, one in found.items()
            )
        except (InputError, ValueError, AttributeError) as error:
            raise self._error(f'"expected_output" cannot be read ({error})') from error

    def _object(self, key: str, track_id: Any, initial: Any, entries: Any) -> ClipObject:
        frames, boxes = boxes_of_trajectory(entries)
        if not frames:
            raise ValueError(f"{key or 'the object'} has no boxes")
        first = None if initial is None else np.array(_box(initial, "initial_bbox"), np.float64)
        return ClipObject(key, str(track_id), first, frames, boxes)

    def _image(self, name: Any) -> Path:
        here, above = self.images / str(name), self.images.parent / str(name)
        try:
            return above if above.exists() and not here.exists() else here
        except (OSError, ValueError) as error:  # too long, or a null character
            raise self._error(f"the image {str(name)[:40]!r} cannot be looked for") from error

    def _field(self, *names: str) -> Any:
        for name in names:
            if name in self.item:
                return self.item[name]
        raise self._error(f"no {' or '.join(repr(name) for name in names)}; it has {', '.join(sorted(self.item))[:80]}")

    def _error(self, found: str) -> InputError:
        known: Mapping[str, Any] = self.item if isinstance(self.item, dict) else {}
        return InputError(f"{self.path}: clip {self.place} (id {known.get('id', '?')}): {found}")


def _box(box: Any, what: str) -> Sequence[float]:
    if isinstance(box, list) and len(box) == 4 and all(type(x) in (int, float) and math.isfinite(x) for x in box):
        return [float(x) for x in box]
    raise ValueError(f"{what} is {str(box)[:40]}, wanted [x, y, w, h]")
