"""Folders and globs of images, each image a frame, in natural order of the names; and files of several pictures."""

from __future__ import annotations

import glob
import itertools
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trackgpt.errors import InputError
from trackgpt.video.frames import FrameSource, RawFrame, ReadOptions, SourceKind, check_pixels, listed, sha256, wxh
from trackgpt.video.images import (
    IMAGE_SUFFIXES,
    UNDECODABLE,
    ImageHeader,
    WhiteLevel,
    dark_note,
    header_of,
    opened,
    read_image,
    to_rgb,
)

_MASK = re.compile(r"(.+)[_.\- ]masks?", re.IGNORECASE)
_UNTIMED = 0.1
"""Seconds that browsers show a picture of an animation that has no duration."""
_PROBED = 60
"""Pictures of an animation whose durations give its rate."""


_ON_BLACK = "transparent parts are shown on black"


class FolderSource(FrameSource):
    """Images in natural order of their names, each one a frame.

    Args of the constructor:
        find: gives the images; called again at the end, to learn whether they are still the same.
    """

    kind: SourceKind = "folder"

    def __init__(self, name: str, find: Callable[[], Sequence[Path]], options: ReadOptions) -> None:
        super().__init__(name, options)
        self._find = find
        self._paths, masks = _without_masks(find())
        headers = {path: header_of(path, options.max_pixels) for path in self._paths}
        if not options.allow_gaps:
            faults = _mixed_sizes(headers) + _number_gaps(self._paths)
            if faults:
                advice = "Make the frames even, or pass --allow-gaps"
                raise InputError(f"{name}: {'; '.join(faults)}. {advice}", code="IN08")
        known = {path: header for path, header in headers.items() if header is not None}
        self._white, levels = _white_levels(name, known)
        self._named = max(Counter(path.stem.casefold() for path in self._paths).values()) == 1
        self.warnings = [*masks, *_left_out(known), *levels]
        if not self._named:
            self.warnings.append("several images differ in their endings alone, so frames are named by their numbers")
        self.notes = [_ON_BLACK] if any(header.transparent for header in known.values()) else []
        self.frames_hint = options.count(len(self._paths)) or None

    def digest(self) -> str:
        """sha256 of the names and bytes of all images, in order."""
        return sha256(self._paths, with_names=True)

    def _describe(self) -> str:
        return f"{len(self._paths)} image files, first {self._paths[0].name}"

    def _raw_frames(self) -> Iterator[RawFrame]:
        for index, path in enumerate(self._paths):
            load = partial(read_image, path, self._options.max_pixels, self._white)
            yield RawFrame(index / self.fps, load, name=path.name if self._named else "")
        self.end_note = self._changes()

    def _changes(self) -> str:
        """What has come into the folder since it was opened; an image that has gone is a frame with a problem."""
        try:
            new = [path.name for path in _without_masks(self._find())[0] if path not in set(self._paths)]
        except InputError:
            new = []
        return f"images came while the others were read, and are left out: {listed(new)}" if new else ""


class AnimationSource(FrameSource):
    """One image file of several pictures: an animation with its own times, or the pages of a TIFF."""

    kind: SourceKind = "animation"

    def __init__(self, path: Path, header: ImageHeader, options: ReadOptions) -> None:
        super().__init__(path.name, options)
        self._path = path
        self._pages = header.pages
        self.notes = [_ON_BLACK] if header.transparent else []
        self._white, self.warnings = _white_levels(path.name, {path: header})
        self._durations = self._probe()
        if options.fps is None and self._durations:
            self.fps = 1 / statistics.median(self._durations)
        self.frames_hint = options.count(len(self._pages)) or None

    def digest(self) -> str:
        """sha256 of the file's bytes."""
        return sha256([self._path], with_names=False)

    def _describe(self) -> str:
        return f"image file of {len(self._pages)} pictures"

    def _probe(self) -> list[float]:
        """Seconds of the first pictures; empty where none has a duration, as pages have none."""
        found = []
        with opened(self._path) as image:
            for picture in _pictures(image, self._pages[:_PROBED]):
                found.append(_seconds(picture))
        return [seconds or _UNTIMED for seconds in found] if any(found) else []

    def _raw_frames(self) -> Iterator[RawFrame]:
        time, count = 0.0, 0
        with opened(self._path) as image:
            for picture in _pictures(image, self._pages):
                # The file goes on to its next picture before this one is turned into pixels.
                yield RawFrame(time, partial(self._pixels, picture.copy()))
                time += (_seconds(picture) or _UNTIMED) if self._durations else 1 / self.fps
                count += 1
        if count < len(self._pages):
            self.end_note = f"the header promises {len(self._pages)} pictures, {count} can be decoded"

    def _pixels(self, picture: Any) -> np.ndarray:
        check_pixels(self.name, picture.height, picture.width, self._options.max_pixels)
        return to_rgb(picture, self._white)


def image_source(path: Path, options: ReadOptions) -> FrameSource:
    """An image file given alone: all its pictures.

    Raises:
        InputError: IN07 the image is too large.
    """
    header = header_of(path, options.max_pixels)
    if header is None or len(header.pages) == 1:
        return FolderSource(path.name, partial(list, [path]), options)
    return AnimationSource(path, header, options)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which frame2.png stands before frame10.png, folders first."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def is_image(path: Path) -> bool:
    """Whether a path is a file that by its name holds an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def images_of(folder: Path) -> list[Path]:
    """The images of a folder in natural order.

    Raises:
        InputError: IN02 when it holds none.
    """
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    images = [path for path in entries if is_image(path)]
    if images:
        return sorted(images, key=natural_key)
    held = listed(sorted(path.name + ("/" if path.is_dir() else "") for path in entries)) or "nothing"
    wanted = f"wanted frames as {', '.join(IMAGE_SUFFIXES)}"
    raise InputError(f"{folder}: the folder holds no images ({wanted}); it holds {held}", code="IN02")


def matches_of(pattern: Path) -> list[Path]:
    """The images that a glob matches, in natural order; or else the one thing of another kind that it matches.

    Raises:
        InputError: IN01 when it matches nothing, or several things that are no images.
    """
    found = [Path(name) for name in glob.glob(str(pattern), recursive=True)]
    images = [path for path in found if is_image(path)]
    if images:
        return sorted(images, key=natural_key)
    if len(found) == 1:
        return found
    if not found:
        raise InputError(f"{pattern}: matches no file; images are {', '.join(IMAGE_SUFFIXES)}", code="IN01")
    names = listed([path.name for path in sorted(found, key=natural_key)])
    raise InputError(f"{pattern}: matches {len(found)} entries ({names}), wanted images or one video", code="IN01")


def _pictures(image: Any, pages: Sequence[int]) -> Iterator[Any]:
    """The open file at each of its pictures, decoded, up to the first one that cannot be."""
    for page in pages:
        try:
            image.seek(page)
            image.load()
        except UNDECODABLE:
            return
        yield image


def _seconds(picture: Any) -> float:
    return float(picture.info.get("duration") or 0) / 1000


def _white_levels(name: str, headers: dict[Path, ImageHeader]) -> tuple[dict[str, float], list[str]]:
    """The value of white for each mode that does not say it, and what to say about grey of more than 8 bits."""
    white, said = {}, []
    for mode in ("I", "F"):
        paths = [path for path, header in headers.items() if header.mode == mode]
        if paths:
            level = WhiteLevel(name, mode, _decoded(headers, paths))
            white[mode] = level.white
            said.append(level.note)
    wide = [path for path, header in headers.items() if header.mode.startswith("I;16")]
    said += [note for image in itertools.islice(_decoded(headers, wide), 1) if (note := dark_note(image))]
    return white, said


def _decoded(headers: dict[Path, ImageHeader], paths: Sequence[Path]) -> Iterator[Any]:
    for path in paths:
        try:
            with opened(path) as image:
                yield from _pictures(image, headers[path].pages)
        except UNDECODABLE:
            continue  # a frame with a problem, when its turn comes


def _left_out(headers: dict[Path, ImageHeader]) -> list[str]:
    several = [path for path, header in headers.items() if len(header.pages) > 1]
    if not several:
        return []
    held = f"{listed([f'{path.name} ({len(headers[path].pages)})' for path in several])}"
    return [f"files of several pictures: {held}; among frames the first picture of each is used"]


def _without_masks(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The images without those called NAME_mask that lie beside an image NAME, and the sentence that says so."""
    names = {(path.parent, path.stem) for path in paths}
    masks = {
        path for path in paths if (found := _MASK.fullmatch(path.stem)) is not None and (path.parent, found[1]) in names
    }
    frames = [path for path in paths if path not in masks]
    if not masks:
        return frames, []
    shown = listed([path.name for path in paths if path in masks])
    return frames, [f"{shown}: masks of other images by their names, which are no frames and are left out"]


def _mixed_sizes(headers: dict[Path, ImageHeader | None]) -> list[str]:
    known = [(path, header.size) for path, header in headers.items() if header is not None]
    if not known:
        return []
    first, wanted = known[0]
    odd = [f"{path.name} is {wxh(size)}" for path, size in known if size != wanted]
    return [f"mixed sizes: {first.name} is {wxh(wanted)}, but {listed(odd)}"] if odd else []


def _number_gaps(paths: Sequence[Path]) -> list[str]:
    """Breaks in the numbering of names that differ in one number only; a constant step other than 1 is no gap."""
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.stem) for path in paths]
    numbered = [match for match in matches if match is not None]
    if len(numbered) < len(paths) or len({(match[1], match[3]) for match in numbered}) != 1:
        return []
    numbers = [int(match[2]) for match in numbered]
    steps = [later - earlier for earlier, later in itertools.pairwise(numbers)]
    if not steps:
        return []
    usual = max(statistics.mode(steps), 1)
    breaks = []
    for step, (before, after) in zip(steps, itertools.pairwise(paths), strict=True):
        if step == 0:
            breaks.append(f"{after.name} repeats the number of {before.name}")
        elif step != usual:
            breaks.append(f"after {before.name} comes {after.name}")
    return [f"gaps in the numbering (step {usual}): {listed(breaks)}"] if breaks else []
