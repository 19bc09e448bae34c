"""Masks as DAVIS keeps them: one indexed PNG per frame, 0 for background, otherwise the object's id."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trackgpt.errors import OutputError
from trackgpt.export.records import MASKS, TrackRecord, read_tracks
from trackgpt.files import write_whole, writing
from trackgpt.geometry.masks import resize

LARGEST = 255

logger = logging.getLogger(__name__)


def palette() -> bytes:
    """The 256 colours of PASCAL VOC and DAVIS, 768 bytes RGB.

    Bits 0, 1, 2 of the index are the highest bits of red, green, blue; bits 3, 4, 5 the next ones, and so on.
    """
    index = np.arange(256)
    channels = [
        sum(((index >> (3 * place + channel)) & 1) << (7 - place) for place in range(8)) for channel in range(3)
    ]
    return np.stack(channels, axis=1).astype(np.uint8).tobytes()


PALETTE = palette()


class DavisWriter:
    """Writes a picture per frame into masks/ while a run goes, empty ones included: 00000.png and on, or the frames'
    own names.

    Where objects overlap, the higher score has the pixel, of equal ones the lower id.

    Attributes:
        frames_overlapping: frames on which objects overlapped.
        pixels_overlapping: pixels, over all frames, that more than one object covered.

    Raises:
        OutputError: OUT02, the folder cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.frames_overlapping = 0
        self.pixels_overlapping = 0
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, record: TrackRecord, height: int, width: int) -> Path:
        """Write one frame.

        Args:
            record: the frame's objects; it also gives the name.
            height: rows of the picture; masks of another size are resized.
            width: columns of the picture.

        Raises:
            OutputError: an id above 255 does not fit, or OUT02.
        """
        picture = Image.fromarray(self.indices(record, height, width))
        picture.putpalette(PALETTE)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return write_whole(self.folder / record.mask_name, [buffer.getvalue()])

    def indices(self, record: TrackRecord, height: int, width: int) -> np.ndarray:
        """The picture's values, uint8 (height, width): ids where objects are, 0 elsewhere. Counts overlaps."""
        largest = max((item.id for item in record.objects), default=0)
        if largest > LARGEST:
            raise OutputError(
                f"frame {record.index}: object id {largest} does not fit the davis format, which holds ids up to "
                f"{LARGEST}; export coco instead, or track fewer objects in one run"
            )
        masks = np.stack([resize(mask, height, width) for mask in record.masks()]) if record.objects else None
        scores = [-1.0 if item.score is None else item.score for item in record.objects]
        values, shared = label_map(masks, [item.id for item in record.objects], scores, height, width)
        self.pixels_overlapping += shared
        self.frames_overlapping += shared > 0
        return values


def label_map(
    masks: np.ndarray | None, ids: Sequence[int], scores: Sequence[float], height: int, width: int
) -> tuple[np.ndarray, int]:
    """Masks as one picture of ids; where they overlap, the higher score has the pixel, of equal ones the lower id.

    Args:
        masks: bool (K, height, width); None where K is 0.
        ids: from 1 to 255.
        scores: of the masks.
        height, width: of the picture.

    Returns:
        uint8 (height, width), 0 for background, and how many pixels are of several masks.
    """
    covered, values = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    for k in sorted(range(len(ids)), key=lambda k: (scores[k], -ids[k])):  # the last one drawn stays
        assert masks is not None
        values[masks[k]] = ids[k]
        covered += masks[k]
    return values, int(np.count_nonzero(covered > 1))


def boxes_alone(records: Iterable[TrackRecord]) -> bool:
    """Whether a run comes from a tracker of boxes: it has seen something, and no mask of anything. All are read."""
    boxes = masks = 0
    for record in records:
        boxes += sum(item.box is not None for item in record.objects)
        masks += sum(item.rle is not None for item in record.objects)
    return boxes > 0 and not masks


def export_davis(run: str | Path) -> Path:
    """Write the masks of a run folder, finished or cut; overlaps are resolved and reported to the log.

    Returns:
        The folder of pictures, `run`/masks.

    Raises:
        InputError: the run is missing or damaged.
        OutputError: an id above 255 does not fit, the run holds boxes without masks alone, or OUT02.
    """
    if boxes_alone(read_tracks(run)):  # which reads it whole: a damaged log is refused before a picture is written
        raise OutputError(
            f"{run}: this run holds boxes, and the davis format holds masks; export mot or coco, or track with a model "
            "that gives masks"
        )
    writer = DavisWriter(Path(run) / MASKS)
    for record in read_tracks(run):
        writer.write(record, *record.size)
    if writer.frames_overlapping:
        logger.warning(
            "%s: objects overlap on %d frames (%d pixels); the higher score has the pixel",
            writer.folder,
            writer.frames_overlapping,
            writer.pixels_overlapping,
        )
    return writer.folder
