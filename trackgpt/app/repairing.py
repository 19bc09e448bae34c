"""`trackgpt repair`: the outputs that a run was to have, from its log; for runs that were killed or lost files."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trackgpt.app.live import say
from trackgpt.errors import InputError, OutputError
from trackgpt.export.davis import boxes_alone
from trackgpt.export.exporting import export
from trackgpt.export.records import MASKS, RUN, SEQUENCE, read_tracks, refuse_a_live_run
from trackgpt.files import refuse_to_hold
from trackgpt.session.playback import files_of
from trackgpt.settings import parse_json
from trackgpt.video.pipe import STDIN
from trackgpt.video.source import open_source

USUAL = {"mp4": "video.mp4", "davis": MASKS, "coco": "coco.json", "mot": "mot.txt", "timeline": "timeline.png"}
FILES = USUAL | {"interacttrack": SEQUENCE[0]}


def run(folder: Path, source: str) -> int:
    """Make what is missing; returns the exit code.

    Args:
        folder: of the run.
        source: of its frames, for the video; empty for the one that run.json names.

    Raises:
        InputError: the folder holds no run, a damaged one, or its source is gone.
        OutputError: OUT02.
    """
    facts = facts_of(folder)
    refuse_a_live_run(folder)
    refuse_to_hold(folder, files_of(source or str(facts.get("given", ""))))
    missing = make_missing(folder, facts, source)
    for name in missing:
        say(f"made {FILES[name]}")
    count = sum(1 for _ in read_tracks(folder))
    print(f"frames={count} made={','.join(missing) or 'nothing'} out={folder}")
    return 0


def make_missing(folder: Path, facts: Mapping[str, Any], source: str) -> list[str]:
    """Make the outputs that a run was to have and lacks.

    Args:
        folder: of the run.
        facts: what its run.json says.
        source: see `run`.

    Returns:
        The formats that were made.

    Raises:
        InputError, OutputError: see `run`.
    """
    _refuse_links(folder)
    masks = [record.mask_name for record in read_tracks(folder)]
    wanted = [name for name in FILES if name in facts.get("formats", list(USUAL))]
    if "davis" in wanted and boxes_alone(read_tracks(folder)):
        wanted.remove("davis")
    missing = [name for name in wanted if not _is_whole(folder, name, masks)]
    for name in missing:
        export(folder, [name], _frames(facts, source) if name == "mp4" else None)
    part = folder / "video.part.mp4"
    if "mp4" in missing and part.exists():
        part.unlink()
    return missing


def _refuse_links(folder: Path) -> None:
    """Outputs that are links would be written somewhere else.

    Raises:
        OutputError: OUT01.
    """
    for name in (*FILES.values(), "video.part.mp4", "video.finished.mp4"):
        if (folder / name).is_symlink():
            raise OutputError(f"{folder / name}: is a link; remove it, and repair writes a file of its own", "OUT01")


def facts_of(folder: Path) -> dict[str, Any]:
    """What the run.json of a folder says.

    Raises:
        InputError: it cannot be read, or describes no run.
    """
    place = folder / RUN
    try:
        if place.exists() and not place.is_file():
            raise OSError(errno.EINVAL, "no regular file")
        data = place.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{place}: cannot be read ({reason}); wanted a folder of `trackgpt track`", "IN01") from error
    facts = parse_json(data, place)
    formats = facts.get("formats", []) if isinstance(facts, dict) else None
    if not isinstance(formats, list) or not isinstance(facts.get("reading", {}), dict):
        raise InputError(f"{place}: is no description of a run; wanted a folder that `trackgpt track` wrote")
    return facts


def _is_whole(folder: Path, name: str, masks: list[str]) -> bool:
    place = folder / FILES[name]
    return all((place / mask).is_file() for mask in masks) if name == "davis" else place.is_file()


def _frames(facts: Mapping[str, Any], source: str) -> Iterator[tuple[int, np.ndarray]]:
    """The frames of the source that a run was made from."""
    described = facts.get("source")
    again = not isinstance(described, dict) or described.get("rereadable", True)
    given = source or (str(facts.get("given", "")) if again else "")
    if given in ("", STDIN):
        why = "run.json does not name the source" if not given and again else "the source was read once, from a pipe"
        raise InputError(f"{why}; say where its frames are: trackgpt repair RUN --source VIDEO")
    reading = {key: value for key, value in dict(facts.get("reading", {})).items() if value is not None}
    try:
        opened = open_source(given, **reading)
    except TypeError as error:
        raise InputError(f"run.json says to read the source by {reading}, which cannot be ({error})") from error
    with opened as frames:
        for frame in frames:
            if frame.image is not None:
                yield frame.index, frame.image
