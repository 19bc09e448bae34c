"""mot.txt: the MOTChallenge result format, one line per object and frame where it is present.

    frame, id, x, y, width, height, confidence, -1, -1, -1

Frames count from 1. x, y, width and height are pixels of the frame; x is the left edge and y the top edge, 0 at the
frame's own. The confidence is the score, 1 where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trackgpt.export.records import read_tracks
from trackgpt.files import write_whole


def export_mot(run: str | Path) -> Path:
    """Write mot.txt into a run folder, finished or cut.

    Returns:
        The file.

    Raises:
        InputError: the run is missing or damaged.
        OutputError: OUT02.
    """
    return write_whole(Path(run) / "mot.txt", _lines(Path(run)))


def _lines(run: Path) -> Iterator[str]:
    for record in read_tracks(run):
        for item in record.objects:
            if item.box is None:
                continue
            x1, y1, x2, y2 = item.box
            confidence = 1.0 if item.score is None else item.score
            place = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
            yield f"{record.index + 1},{item.id},{place},{confidence:.4f},-1,-1,-1\n"
