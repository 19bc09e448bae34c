"""Folders and globs of images: each image is a frame, in natural order of the names. Pillow decodes them."""

from __future__ import annotations

import glob
import itertools
import re
import statistics
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from trackgpt.errors import InputError
from trackgpt.video.frames import (
    FrameSource,
    RawFrame,
    ReadOptions,
    SourceKind,
    check_pixels,
    listed,
    one_line,
    sha256,
    wxh,
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class FolderSource(FrameSource):
    """Images in natural order of their names, each one a frame."""

    kind: SourceKind = "folder"

    def __init__(self, name: str, paths: Sequence[Path], options: ReadOptions) -> None:
        super().__init__(name, options)
        self._paths = paths
        sizes = {path: _image_size(path, options.max_pixels) for path in paths}
        if not options.allow_gaps:
            faults = _mixed_sizes(sizes) + _number_gaps(paths)
            if faults:
                advice = "Make the frames even, or pass --allow-gaps"
                raise InputError(f"{name}: {'; '.join(faults)}. {advice}", code="IN08")
        self.frames_hint = options.count(len(paths)) or None

    def digest(self) -> str:
        """sha256 of the names and bytes of all images, in order."""
        return sha256(self._paths, with_names=True)

    def _describe(self) -> str:
        return f"{len(self._paths)} image files, first {self._paths[0].name}"

    def _raw_frames(self) -> Iterator[RawFrame]:
        for index, path in enumerate(self._paths):
            load = partial(_read_image, path, self._options.max_pixels)
            yield RawFrame(index / self.fps, load, name=path.stem)


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


def _image_size(path: Path, max_pixels: int) -> tuple[int, int] | None:
    """(height, width) as displayed, from the header alone; None when the header cannot be read."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(0x0112, 1) >= 5
    except Image.DecompressionBombError as error:
        raise InputError(f"{path.name}: {one_line(error)}", code="IN07") from error
    except (OSError, ValueError, SyntaxError, EOFError):
        return None
    check_pixels(path.name, height, width, max_pixels)
    return (width, height) if turned else (height, width)


def _read_image(path: Path, max_pixels: int) -> np.ndarray:
    """An image file as uint8 RGB (height, width, 3), EXIF orientation applied."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as opened:
            check_pixels(path.name, opened.height, opened.width, max_pixels)
            image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB")).copy()


def _mixed_sizes(sizes: dict[Path, tuple[int, int] | None]) -> list[str]:
    known = [(path, size) for path, size in sizes.items() if size is not None]
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
