"""Checks of frames and of masks that are pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.checks.report import Report
from trackgpt.export.davis import PALETTE

Size = tuple[int, int]
ANY = -1  # a label that stands for all objects: a grey mask of DAVIS-2016
PARTS = ("train", "valid", "test", "valid_u")
Labels = Callable[[Report, Path, "Size | None"], "set[int] | None"]  # what a mask shows; None when it cannot be read


def check_folder(report: Report, part: str, folder: Path, videos: int) -> bool:
    """Whether a folder that should hold something for each of some videos is there; a problem when it is not."""
    if folder.is_dir():
        return True
    pickle = next(
        (path for path in (folder.parent / "mask_dict.pkl", report.root / "mask_dict.pkl") if path.is_file()), None
    )
    if folder.name == "Annotations" and pickle is not None:
        found = f"missing ({pickle.relative_to(report.root)} is there, a pickle, which nothing here opens)"
        report.problem(folder, found, f"the folder {part}/{folder.name}", "unpack the PNGs of the original release")
    else:
        report.misplaced(folder, f"the folder {part}/{folder.name}")
    report.count_missing(part, **{"videos" if folder.name == "JPEGImages" else "masks of videos": videos})
    return False


def check_frames(report: Report, part: str, folder: Path, frames: list[str]) -> dict[str, Size]:
    """Sizes (width, height) of a video's listed frames by name; they must exist, be whole and of one size."""
    if not folder.is_dir():
        report.problem(folder, *_in_another_part(folder, f"a folder with {len(frames)} frames"))
        report.count(part, videos=-1)
        report.count_missing(part, videos=1, frames=len(frames))
        return {}
    sizes: dict[str, Size] = {}
    for frame in frames:
        report.tick()
        path = folder / f"{frame}.jpg"
        if not path.is_file():
            others = [other.name for other in folder.glob(f"{frame}.*")]
            report.problem(path, f"missing ({others[0]} is there)" if others else "missing", "the frame that is listed")
            report.count_missing(part, frames=1)
            continue
        size = size_of_jpeg(report, path)
        if size is None:
            report.count_wrong(part, frames=1)
            continue
        first = next(iter(sizes.items()), (frame, size))
        if size != first[1]:
            report.problem(path, f"{size[0]} x {size[1]}", f"{first[1][0]} x {first[1][1]} as frame {first[0]}")
        sizes[frame] = size
    report.count(part, frames=len(sizes))
    return sizes


def _in_another_part(folder: Path, wanted: str) -> tuple[str, str, str]:
    """What to say of a video that a part lacks: found, wanted, advice, which depend on whether another part has it."""
    part, kind = folder.parents[1], folder.parent.name
    others = [part.with_name(other) / kind / folder.name for other in PARTS]
    there = next((other for other in others if other.is_dir() and other != folder), None)
    return ("missing", wanted, "") if there is None else (f"missing, but {there} is there", wanted, "move it")


def size_of_jpeg(report: Report, path: Path) -> Size | None:
    """The (width, height) of a whole JPEG, None and a problem when it is damaged.

    Only one without an end mark is decoded, for decoding a large set takes an hour.
    """
    try:
        with Image.open(path) as picture:
            kind = picture.format
            with path.open("rb") as file:
                file.seek(-min(64, path.stat().st_size), 2)
                if b"\xff\xd9" not in file.read():
                    picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        report.problem(path, f"damaged ({error})", "a whole JPEG")
        return None
    if kind != "JPEG":
        report.problem(path, f"a {kind} file under the name of a JPEG", "a JPEG")
    return picture.size


def check_masks(
    report: Report, part: str, folder: Path, frames: list[str], sizes: dict[str, Size], labels: Labels
) -> set[int] | None:
    """All labels in a video's masks, None when none can be read; each frame must have one, whole and of its size."""
    if not folder.is_dir():
        report.problem(folder, *_in_another_part(folder, f"a folder with {len(frames)} masks"))
        report.count_missing(part, masks=len(frames))
        return None
    read: list[set[int]] = []
    for frame in frames:
        report.tick()
        path = folder / f"{frame}.png"
        if not path.is_file():
            report.problem(path, "missing", "the mask of a frame that is listed")
            report.count_missing(part, masks=1)
            continue
        found = labels(report, path, sizes.get(frame))
        if found is None:
            report.count_wrong(part, masks=1)
        else:
            read.append(found)
            report.count(part, masks=1)
    return set().union(*read) if read else None


def indexed(report: Report, path: Path, size: Size | None) -> set[int] | None:
    """The labels of an indexed mask, without background and void, whatever its colours, as YouTube-VOS has its own."""
    picture = _opened(report, path, size)
    if picture is None or not _is_indexed(report, path, picture):
        return None
    table = np.frombuffer(bytes(picture.getpalette() or []), np.uint8).reshape(-1, 3)
    if len(table) > 1 and (table == table[:, :1]).all():
        report.problem(path, "a palette of greys", "colours: a program has saved this mask anew, its values may differ")
    return _values(picture) - {0, 255}


def davis(report: Report, path: Path, size: Size | None) -> set[int] | None:
    """The labels of a mask of DAVIS: indexed with its palette, or grey with 0 and 255 (2016), which gives `ANY`."""
    picture = _opened(report, path, size)
    if picture is None:
        return None
    values = _values(picture)
    if picture.mode == "L" and values <= {0, 255} and 255 in values:
        return {ANY}
    if not _is_indexed(report, path, picture):
        return None
    end = 3 * (max(values) + 1)
    if bytes(picture.getpalette() or [])[:end].ljust(end, b"\0") != PALETTE[:end]:
        report.problem(path, "another palette", "that of DAVIS (1 dark red, 2 dark green), as results have it")
    return values - {0, 255}


def binary(report: Report, path: Path, size: Size | None) -> set[int] | None:
    """{ANY} for a mask of one object that shows anything, whatever the value; the empty set for one that does not."""
    picture = _opened(report, path, size)
    if picture is None:
        return None
    if len(picture.getbands()) != 1:
        report.problem(path, f"mode {picture.mode}", "a grey or indexed PNG, 0 where the object is not")
        return None
    return {ANY} if _values(picture) - {0} else set()


def _opened(report: Report, path: Path, size: Size | None) -> Image.Image | None:
    """A whole mask, None when it is damaged; a problem when it has not the size of its frame."""
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        report.problem(path, f"damaged ({error})", "a whole PNG")
        return None
    if size is not None and picture.size != size:
        found = f"{picture.width} x {picture.height}"
        report.problem(path, found, f"{size[0]} x {size[1]}, the size of its frame")
    return picture


def _is_indexed(report: Report, path: Path, picture: Image.Image) -> bool:
    if picture.mode != "P":
        report.problem(path, f"mode {picture.mode}", "mode P: an indexed PNG whose values are object ids")
    return picture.mode == "P"


def _values(picture: Image.Image) -> set[int]:
    return {int(value) for value in np.flatnonzero(np.bincount(np.asarray(picture, np.uint8).ravel(), minlength=256))}
