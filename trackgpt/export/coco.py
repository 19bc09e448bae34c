"""coco.json: what COCO's own loader reads, with the fields that say which annotations are one object over time.

    videos       one: name, width, height, length, file_names (as YouTube-VIS has them)
    images       one per frame: file_name, width, height, video_id, frame_id (of the source, from 0)
    annotations  one per object and frame where it is present: segmentation (run lengths), bbox x, y, width, height in
                 pixels, area, iscrowd, score, track_id
    tracks       one per object: id, category_id, video_id

The category is always "object": the log holds what was followed, not what it is called. File names are the frames' own
where they have any, else those that an extractor of frames would give, 00000.jpg for frame 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trackgpt.export.records import ObjectRecord, TrackRecord, read_tracks
from trackgpt.files import write_whole
from trackgpt.geometry.masks import area_of_rle

VIDEO, CATEGORY = 1, 1


def export_coco(run: str | Path) -> Path:
    """Write coco.json into a run folder, finished or cut.

    The log is read once a section, so that a long run needs no more memory than a short one.

    Returns:
        The file.

    Raises:
        InputError: the run is missing or damaged.
        OutputError: OUT02.
    """
    return write_whole(Path(run) / "coco.json", _document(Path(run)))


def _document(run: Path) -> Iterator[str]:
    size, ids, names = (0, 0), set[int](), list[str]()
    for record in read_tracks(run):
        size = size if names else record.size
        names.append(_name(record))
        ids.update(item.id for item in record.objects)
    video = {"id": VIDEO, "name": run.resolve().name, "height": size[0], "width": size[1], "length": len(names)}
    yield '{"info":{"description":"trackgpt"},"licenses":[],'
    yield f'"categories":{_json([{"id": CATEGORY, "name": "object", "supercategory": "object"}])},'
    yield f'"videos":{_json([video | {"file_names": names}])},'
    yield f'"tracks":{_json([{"id": i, "category_id": CATEGORY, "video_id": VIDEO} for i in sorted(ids)])},'
    yield from _array("images", (_image(record) for record in read_tracks(run)))
    yield ","
    yield from _array("annotations", _annotations(run))
    yield "}\n"


def _annotations(run: Path) -> Iterator[dict[str, Any]]:
    number = 0
    for record in read_tracks(run):
        for item in record.objects:
            if item.box is not None:
                number += 1
                yield _annotation(number, record, item, item.box)


def _annotation(
    number: int, record: TrackRecord, item: ObjectRecord, box: tuple[float, float, float, float]
) -> dict[str, Any]:
    x, y, width, height = (round(v, 2) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
    # A box without a mask has an empty list of polygons, as COCO writes detections without segmentation.
    segmentation = [] if item.rle is None else {"size": list(record.size), "counts": item.rle}
    values = {
        "id": number,
        "image_id": record.index + 1,
        "video_id": VIDEO,
        "track_id": item.id,
        "category_id": CATEGORY,
        "bbox": [x, y, width, height],
        "area": round(width * height, 2) if item.rle is None else area_of_rle(item.rle, *record.size),
        "iscrowd": 0,
        "segmentation": segmentation,
    }
    return values if item.score is None else values | {"score": item.score}


def _image(record: TrackRecord) -> dict[str, Any]:
    height, width = record.size
    # Image ids start at 1: readers take 0 for "none".
    place = {"id": record.index + 1, "video_id": VIDEO, "frame_id": record.index}
    return place | {"file_name": _name(record), "height": height, "width": width}


def _name(record: TrackRecord) -> str:
    return record.name or f"{record.index:05d}.jpg"


def _array(key: str, items: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield f'"{key}":['
    for number, item in enumerate(items):
        yield (",\n" if number else "\n") + _json(item)
    yield "]"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
