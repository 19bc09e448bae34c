"""A sequence of InteractTrack: boxes, what was said, and the old target's box where another one takes its place.

    groundtruth.txt   x,y,w,h of the target, one line per frame; a single 0 where it is not seen
    description.txt   one line per frame; what was said about it, blank where nothing was
    switch.txt        one line per frame; the old target's box where words replaced it, else blank
    meta_info.ini     frames per second, and width and height of the frames

A run folder with these files is a sequence, and the folder above it a tree that `trackgpt.data.box_video` reads. The
layout holds one target: the one that was surest when something new was begun, for as long as it is followed. Its boxes
are what the tracker gave. Frames (imgs/) and scenarios (scene.txt) are not written: a run knows neither. A line stands
for a frame that was tracked, which is the source's own where the run began on frame 0 and left none out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trackgpt.errors import OutputError
from trackgpt.export.prompts import read_prompts
from trackgpt.export.records import SEQUENCE, ObjectRecord, TrackRecord, read_tracks
from trackgpt.files import write_whole
from trackgpt.types import Box


@dataclass(frozen=True)
class SequenceLines:
    """What the files of a sequence of T frames say.

    Attributes:
        boxes: T boxes xyxy in pixels, None where the target is not seen.
        said: words by frame.
        old: boxes of the target before, by frame on which it was replaced.
        fps: frames per second.
        size: height and width of the frames in pixels.
    """

    boxes: Sequence[Box | None]
    said: Mapping[int, str]
    fps: float
    size: tuple[int, int]
    old: Mapping[int, Box] = field(default_factory=dict)


def write_sequence(folder: Path, lines: SequenceLines) -> Path:
    """Write the files of a sequence into a folder that is there.

    Returns:
        The file of boxes.

    Raises:
        OutputError: OUT02.
    """
    frames = range(len(lines.boxes))
    truth, description, switch, meta = (folder / name for name in SEQUENCE)
    height, width = lines.size
    old = (_written(lines.old[t]) if t in lines.old else "" for t in frames)
    write_whole(description, (" ".join(lines.said.get(t, "").split()) + "\n" for t in frames))
    write_whole(switch, (f"{box}\n" for box in old))
    write_whole(meta, [f"[METAINFO]\nfps: {lines.fps:g}\nresolution: ({width}, {height})\n"])
    boxes = ("0\n" if box is None else f"{_written(box)}\n" for box in lines.boxes)
    return write_whole(truth, boxes)


def _written(box: Box) -> str:
    """x,y,w,h to the hundredth of a pixel, as a log keeps boxes."""
    x1, y1, x2, y2 = box
    return ",".join(f"{value:.2f}".rstrip("0").rstrip(".") for value in (x1, y1, x2 - x1, y2 - y1))


def export_interacttrack(run: str | Path) -> Path:
    """Write a run, finished or cut, as a sequence into its own folder.

    Returns:
        groundtruth.txt.

    Raises:
        InputError: the run is missing or damaged.
        OutputError: nothing was said in words, so there is nothing to begin with; or OUT02.
    """
    records = list(read_tracks(run))
    places = {record.index: t for t, record in enumerate(records)}
    said = {places[prompt.frame]: prompt.text for prompt in read_prompts(run) if prompt.text and prompt.frame in places}
    if not said:
        raise OutputError(f"{run}: nothing was said in words; InteractTrack's description.txt wants a line of them")
    boxes, old = _followed(records, said)
    return write_sequence(Path(run), SequenceLines(boxes, said, _fps(records), records[0].size, old))


def _followed(records: Sequence[TrackRecord], said: Mapping[int, str]) -> tuple[list[Box | None], dict[int, Box]]:
    """The target's box on every frame, and the old target's last one where words replaced it."""
    boxes: list[Box | None] = []
    old: dict[int, Box] = {}
    chosen, last = 0, None
    for t, record in enumerate(records):
        here = {item.id: item for item in record.objects}
        if chosen not in here and here:
            if t in said and last is not None:
                old[t] = last
            chosen = max(here.values(), key=_sureness).id
        box = here[chosen].box if chosen in here else None
        last = box or last
        boxes.append(box)
    return boxes, old


def _sureness(item: ObjectRecord) -> tuple[bool, float]:
    return item.box is not None, item.score or 0.0


def _fps(records: Sequence[TrackRecord]) -> float:
    """Frames per second of what was tracked; 0 where times do not tell."""
    seconds = records[-1].time - records[0].time
    return round((len(records) - 1) / seconds, 3) if seconds > 0 else 0.0
