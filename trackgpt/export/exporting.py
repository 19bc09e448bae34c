"""Further formats from a run's log, and whether the disk can hold them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import numpy as np

from trackgpt.errors import OutputError, UsageError
from trackgpt.files import writing

EXPORTERS = {
    "jsonl": ("trackgpt.export.records", "tracks_of"),
    "davis": ("trackgpt.export.davis", "export_davis"),
    "coco": ("trackgpt.export.coco", "export_coco"),
    "mot": ("trackgpt.export.mot", "export_mot"),
    "interacttrack": ("trackgpt.export.interacttrack", "export_interacttrack"),
    "timeline": ("trackgpt.export.timeline", "score_timeline"),
    "mp4": ("trackgpt.export.overlay", "export_overlay"),
}
"""Where each format is written; named, not imported, so that a format is loaded when it is asked for."""


def check_formats(names: Iterable[str]) -> None:
    """Refuse names that are no format.

    Raises:
        UsageError: a name is not in `EXPORTERS`; the message names the nearest one, or all.
    """
    for name in names:
        if name not in EXPORTERS:
            near = get_close_matches(name, EXPORTERS, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(EXPORTERS)}"
            raise UsageError(f"format {name!r} does not exist; {hint}")


def export(
    run_folder: str | Path,
    formats: Iterable[str],
    frames: Iterable[tuple[int, np.ndarray]] | None = None,
) -> dict[str, Path]:
    """Make further formats from a run, finished or cut; no model is needed.

    Args:
        run_folder: what `RunFolder` wrote.
        formats: names of `EXPORTERS`.
        frames: for "mp4" alone: pairs of source index and frame (uint8 RGB, height x width x 3), in order.

    Returns:
        Where each format was written, in the order asked.

    Raises:
        UsageError: a format does not exist, or mp4 is asked for without frames; nothing has been written then.
        InputError: the run is missing or damaged.
        OutputError: a file cannot be written, or the format cannot hold the run.
    """
    names = list(dict.fromkeys(formats))
    check_formats(names)
    if "mp4" in names and frames is None:
        raise UsageError("format mp4 needs the frames of the source; name the video, or leave mp4 out")
    written = {}
    for name in names:
        module, function = EXPORTERS[name]
        write = getattr(import_module(module), function)
        written[name] = write(run_folder, frames) if name == "mp4" else write(run_folder)
    return written


def estimate(frames: int, height: int, width: int, formats: Iterable[str] = (), objects: int = 1) -> int:
    """Bytes a run will need, on the high side, for `check_space`.

    Counted: 1.5 bytes of run lengths for each row and column of the frame and object, 3 of PNG, 0.12 bytes of H.264 a
    pixel. Measured on six DAVIS sequences at 480p, at most 1.2, 2.3 and 0.11.
    """
    edge = height + width
    bytes_a_frame = {
        "davis": 1000 + 3 * edge * objects,
        "coco": 150 + objects * (170 + 3 * edge // 2),
        "mot": 60 * objects,
        "interacttrack": 100,
        "mp4": height * width * 12 // 100,
    }
    each = 100 + objects * (110 + 3 * edge // 2) + sum(bytes_a_frame.get(name, 0) for name in set(formats))
    return frames * each + (1 << 20)


def check_space(path: str | Path, bytes_needed: int) -> None:
    """Refuse to begin a run that its disk cannot hold.

    Args:
        path: the run folder, which need not exist yet.
        bytes_needed: see `estimate`.

    Raises:
        OutputError: OUT02, less is free than needed.
    """
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with writing(place):
        free = shutil.disk_usage(place).free
    if free < bytes_needed:
        raise OutputError(
            f"{path}: about {_megabytes(bytes_needed)} needed, {_megabytes(free)} free; "
            "free some space, choose another folder, or ask for fewer formats",
            "OUT02",
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
