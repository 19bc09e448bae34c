"""Photographs for domain-randomised clips: grounds and textures cut from whole ones, and things cut out of others.

Any pictures do. Those with a transparent background are things; whole ones show walls, ground, leaves and sky as a
camera sees them, which no drawn texture does. No mask is needed, and none is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from trackgpt.errors import InputError
from trackgpt.synthtrack.silhouettes import CANVAS

Rng = np.random.Generator
KINDS = (".jpg", ".jpeg", ".png", ".webp")
AT_A_TIME = 8
"""Photographs of a folder that a clip may use: few, because decoding one takes longer than drawing a frame."""
LARGEST = 1024
"""Longer side in pixels at which a whole photograph is kept."""
SMALLEST = 48
"""Longer side in pixels of what is seen of a thing, and shorter side of a whole photograph, that are used at least."""


@dataclass(frozen=True)
class Photographs:
    """Pictures by number, in the order of their paths.

    Attributes:
        whole: photographs without transparency, those of each folder by themselves; every folder is as likely.
        things: pictures whose background is transparent.
    """

    whole: tuple[tuple[Path, ...], ...]
    things: tuple[Path, ...]

    def ground(self, rng: Rng, first: int, side: int) -> np.ndarray:
        """A square of one of the whole photographs, mirrored or not, uint8 (side, side, 3).

        Args:
            rng: decides on which one and where.
            first: number of the first one of each folder that may be taken, of `AT_A_TIME`; they are counted round.
            side: of the square in pixels; it shows a quarter to all of the photograph's shorter side.

        Raises:
            InputError: the photograph is damaged behind its header.
        """
        folder = self.whole[int(rng.integers(len(self.whole)))]
        picture = _photograph(folder[(first + int(rng.integers(AT_A_TIME))) % len(folder)])
        shorter = min(picture.shape[:2])
        n = min(shorter, max(8, int(rng.uniform(0.25, 1.0) * shorter)))
        y, x = (int(rng.integers(length - n + 1)) for length in picture.shape[:2])
        how = cv2.INTER_AREA if n > side else cv2.INTER_LINEAR
        cut = cv2.resize(picture[y : y + n, x : x + n], (side, side), interpolation=how)
        return np.ascontiguousarray(cut[:, :: int(rng.choice([-1, 1]))])

    def thing(self, rng: Rng) -> np.ndarray:
        """A cut-out thing in the middle of its canvas, in slightly other colours, uint8 (CANVAS, CANVAS, 4) RGBA."""
        picture = _thing(self.things[int(rng.integers(len(self.things)))])
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        gains = rng.uniform(0.7, 1.3) * (1 + rng.normal(0, 0.08, 3))
        table = np.clip(np.arange(256)[:, None] * np.append(gains, 1.0), 0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(np.ascontiguousarray(picture), table[:, None, :]))


@lru_cache(maxsize=4)
def open_photographs(folders: tuple[str, ...]) -> Photographs | None:
    """The photographs of folders and all below them; None for no folder.

    Raises:
        InputError: a folder is missing or holds no usable picture, or a picture cannot be opened.
    """
    if not folders:
        return None
    whole: list[tuple[Path, ...]] = []
    things: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; wanted one of photographs ({', '.join(KINDS)})")
        kinds = {path: _kind(path) for path in sorted(folder.rglob("*")) if path.suffix.lower() in KINDS}
        things += [path for path, kind in kinds.items() if kind == "thing"]
        grounds = tuple(path for path, kind in kinds.items() if kind == "whole")
        whole += [grounds] if grounds else []
        if not any(kinds.values()):
            raise InputError(f"{folder}: no usable photograph; wanted {', '.join(KINDS)} of {SMALLEST} pixels or more")
    return Photographs(tuple(whole), tuple(things))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture to be decoded inside.

    Raises:
        InputError: it cannot be.
    """
    try:
        with Image.open(path) as picture:
            yield picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: is no picture that can be read ({error}); take it out of the folder") from error


def _kind(path: Path) -> str:
    """What a picture is: "thing" if a part of it is transparent, else "whole"; "" if it is no use."""
    with _opened(path) as picture:
        if max(picture.size) < SMALLEST:
            return ""
        if not picture.has_transparency_data:
            return "whole" if min(picture.size) >= SMALLEST else ""
        seen = np.asarray(picture.convert("RGBA"))[..., 3] > 127
    if seen.mean() > 0.98:
        return "whole" if min(seen.shape) >= SMALLEST else ""
    extent = [int(np.ptp(np.flatnonzero(seen.any(axis)))) + 1 for axis in (0, 1)] if seen.any() else [0]
    return "thing" if max(extent) >= SMALLEST else ""


@lru_cache(maxsize=160)  # of 20 folders what a clip may use; 3 MB each at the most
def _photograph(path: Path) -> np.ndarray:
    """A whole photograph, at most `LARGEST` pixels long, uint8 (height, width, 3), read-only."""
    with _opened(path) as picture:
        picture.draft("RGB", (LARGEST, LARGEST))
        small = picture.convert("RGB")
        small.thumbnail((LARGEST, LARGEST), reducing_gap=2.0)
    out = np.asarray(small).copy()
    out.setflags(write=False)
    return out


@lru_cache(maxsize=512)
def _thing(path: Path) -> np.ndarray:
    """A cut-out thing, uint8 (CANVAS, CANVAS, 4), read-only; its colours go on beyond its edge."""
    with _opened(path) as picture:
        seen = picture.convert("RGBA")
    seen = seen.crop(seen.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox())
    room = CANVAS - 12
    scale = room / max(seen.size)
    size = (max(2, round(seen.width * scale)), max(2, round(seen.height * scale)))
    # Premultiplied, or what is hidden below the transparent part would shine in at the edge.
    small = np.asarray(seen.convert("RGBa").resize(size, Image.Resampling.LANCZOS), np.float32)
    whole = np.zeros((CANVAS, CANVAS, 4), np.float32)
    y, x = (CANVAS - size[1]) // 2, (CANVAS - size[0]) // 2
    whole[y : y + size[1], x : x + size[0]] = small
    weight = whole[..., 3:] / 255
    straight = whole[..., :3] / np.maximum(weight, 1e-3)
    spread = cv2.blur(whole[..., :3], (9, 9)) / np.maximum(cv2.blur(weight, (9, 9)), 1e-3)[..., None]
    out = np.concatenate([np.where(weight > 0.9, straight, spread), whole[..., 3:]], 2)
    out = np.clip(out, 0, 255).astype(np.uint8)
    out.setflags(write=False)
    return out
