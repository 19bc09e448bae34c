"""Image files by Pillow: what their headers say, and their pixels as uint8 RGB whatever they were stored as."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trackgpt.errors import InputError
from trackgpt.video.frames import check_pixels, one_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
UNDECODABLE = (OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, OverflowError, struct.error)
"""What Pillow raises for files that are damaged or are no images."""
MANY = ("PNG", "WEBP", "TIFF")
"""Formats whose further pictures are frames or pages; those of a phone's JPEG (MPO) are other views of the same."""
REDUCED = 1 | 4
"""Bits of TIFF's tag 254: a smaller version of another page, a transparency mask."""


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself.

    Attributes:
        size: (height, width) as displayed.
        mode: Pillow's name of the pixel type.
        pages: which of its pictures are frames, by their number in the file.
        transparent: pixels may be transparent.
    """

    size: tuple[int, int]
    mode: str
    pages: tuple[int, ...]
    transparent: bool


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The image file, open; sizes are left to `check_pixels`."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            yield image


def header_of(path: Path, max_pixels: int) -> ImageHeader | None:
    """The header; None when it cannot be read.

    Raises:
        InputError: IN07 the image is too large.
    """
    from PIL import Image

    try:
        with opened(path) as image:
            width, height = image.size
            check_pixels(path.name, height, width, max_pixels)
            turned = image.getexif().get(0x0112, 1) >= 5
            mode, transparent = image.mode, image.has_transparency_data
            return ImageHeader((width, height) if turned else (height, width), mode, _pages(image, path), transparent)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path.name}: {one_line(error)}", code="IN07") from error
    except UNDECODABLE:
        return None


def _pages(image: Any, path: Path) -> tuple[int, ...]:
    """Numbers of the pictures that are frames: no APNG's still for old viewers, no thumbnails of a TIFF."""
    count, whole = _count(image, path) if image.format in MANY else (1, True)
    if image.format == "TIFF" and count > 1:
        last = () if whole else (count - 1,)
        with opened(path) as again:
            return (*(page for page in range(count - len(last)) if not _tag(again, page) & REDUCED), *last) or (0,)
    return tuple(range(1 if getattr(image, "default_image", False) and count > 1 else 0, count))


def _count(image: Any, path: Path) -> tuple[int, bool]:
    """How many pictures there are, and whether all can be reached; a damaged one counts as the last."""
    try:
        return int(image.n_frames), True
    except UNDECODABLE:
        pass
    reached = 1
    with opened(path) as again, suppress(*UNDECODABLE):  # what failed above leaves the picture in no defined state
        while True:
            again.seek(reached)
            reached += 1
    return reached + 1, False


def _tag(image: Any, page: int) -> int:
    image.seek(page)
    return int(image.tag_v2.get(254, 0))


def read_image(path: Path, max_pixels: int, white: Mapping[str, float]) -> np.ndarray:
    """The first picture of a file, EXIF orientation applied; see `to_rgb`."""
    from PIL import ImageOps

    with opened(path) as image:
        check_pixels(path.name, image.height, image.width, max_pixels)
        return to_rgb(ImageOps.exif_transpose(image), white)


def to_rgb(image: Any, white: Mapping[str, float]) -> np.ndarray:
    """The pixels as uint8 RGB, (height, width, 3). Transparent parts are shown on black.

    Args:
        image: a Pillow image of any mode.
        white: the value of white by mode, for I and F (see `WhiteLevel`); in 16-bit grey it is 65535.

    Raises:
        ValueError: a value lies outside 0 to white, or Pillow knows no way from this mode to RGB.
    """
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        full = 65535.0 if image.mode.startswith("I;16") else white.get(image.mode, 255.0)
        grey = _grey(np.asarray(image), full)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size)
        image.paste(layer, mask=layer.getchannel("A"))
    return np.asarray(image.convert("RGB")).copy()


def _grey(values: np.ndarray, white: float) -> np.ndarray:
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= white:
        raise ValueError(f"values from {low:g} to {high:g}, wanted 0 to {white:g}")
    scaled = values // 256 if white == 65535 else np.rint(values * (255 / white))
    return np.asarray(scaled, np.uint8)


class WhiteLevel:
    """The value of white in grey pictures whose type does not say it: the least of 1, 255 and 65535 that holds all.

    Pixels of 32 bits (mode I) and floating-point ones (F) have no range of their own: nothing but the values of all
    pictures tells 0 to 1 from 0 to 255.

    Args:
        name: of the source, for messages.
        pictures: all pictures of one of these modes.

    Attributes:
        white: the value.
        note: the sentence that says so.

    Raises:
        InputError: IN02, a value fits none of these ranges.
    """

    def __init__(self, name: str, mode: str, pictures: Iterable[Any]) -> None:
        low, high = np.inf, -np.inf
        for picture in pictures:
            values = np.asarray(picture)
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            if not np.isfinite(values).all():
                low = np.nan
                break
        kind = "32-bit" if mode == "I" else "floating-point"
        ranges = (255.0, 65535.0) if mode == "I" else (1.0, 255.0, 65535.0)
        fitting = [white for white in ranges if low >= 0 and high <= white]
        if not fitting:
            found = "values that are not finite" if np.isnan(low) else f"values from {low:g} to {high:g}"
            wanted = " or ".join(f"0 to {white:g}" for white in ranges)
            raise InputError(f"{name}: {kind} grey with {found}, wanted {wanted}; convert it to 8 bits", "IN02")
        self.white = fitting[0]
        self.note = f"{kind} grey with values from {low:g} to {high:g}: {self.white:g} is taken as white"


def dark_note(image: Any) -> str:
    """Says so when a 16-bit picture is all but black as it is, as with 12-bit values in 16 bits; else ""."""
    high = int(np.asarray(image).max())
    if not 0 < high < 4096:
        return ""
    return f"16-bit grey with values up to {high} in the first picture: 65535 is white, so it is almost black"
