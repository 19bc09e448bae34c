"""What every reader of a data set gives: videos whose frames and truth are read from disk when they are asked for.

Frames are image files in order; frame t of a video is `images[t]`, whatever its name. What people say is an
`Expression`, its truth one mask per frame; box sets give boxes and presence. Conventions of the benchmarks (1-based
frames, xywh, polarity of absence flags, label values, run lengths) end at the reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from trackgpt.errors import InputError, TrackGPTError
from trackgpt.geometry.masks import decode_rle
from trackgpt.types import Prompt


@dataclass(frozen=True)
class Expression:
    """One thing said about a video.

    Attributes:
        id: the benchmark's own id, unique within the video ("0", "12").
        text: what is said.
        objects: keys of the objects meant, as `MaskTruth.mask` takes them; empty when nothing matches or when the
            benchmark keeps its truth back.
        tags: what tables are broken down by, e.g. {"kind": "reasoning", "annotator": "2"}.
    """

    id: str
    text: str
    objects: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


def answered(fields: Mapping[str, object]) -> dict[str, str]:
    """The tag of what a tracker should say to an expression, where a file of ours has it; no published one does."""
    return {"answer": str(fields["answer"])} if "answer" in fields else {}


class MaskTruth(Protocol):
    """The true masks of a video's objects."""

    def mask(self, objects: Sequence[str], t: int) -> np.ndarray:
        """What any of the objects covers in frame t: bool (height, width).

        Raises:
            InputError: the truth of that frame is missing or damaged.
        """
        ...


@dataclass(frozen=True)
class Video:
    """A video on disk.

    Attributes:
        name: as the benchmark calls it; may hold "/" where the benchmark nests its videos.
        images: the frames, in order.
        expressions: what is said of it, in the benchmark's order.
        masks: true masks, None where the benchmark keeps them back.
        boxes: float32 (T, 4) xyxy pixels, NaN where the target is absent; None for mask sets.
        prompts: what a person says while the video plays, by frame (interactive sets).
        attributes: what the benchmark says of the video ("CM", "fast motion", ...).
    """

    name: str
    images: tuple[Path, ...]
    expressions: tuple[Expression, ...] = ()
    masks: MaskTruth | None = None
    boxes: np.ndarray | None = None
    prompts: tuple[Prompt, ...] = ()
    attributes: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.images)

    def frame(self, t: int) -> np.ndarray:
        """Frame t, uint8 RGB (height, width, 3).

        Raises:
            InputError: the file is missing or damaged.
        """
        return read_image(self.images[t])


@contextmanager
def opened_image(path: Path, what: str = "image") -> Iterator[Image.Image]:
    """An image file, while it is read.

    Raises:
        InputError: the file is missing, a folder, cut off, or no image.
    """
    wanted = f"wanted {'an' if what[0] in 'aeiou' else 'a'} {what}"
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing; {wanted}") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: a folder; {wanted}, which is one file") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a readable {what}: no image file by its contents; {wanted}, as PNG") from error
    except TrackGPTError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, zlib.error and others on damage
        raise InputError(f"{path}: not a readable {what} ({error}); copy or unpack it again") from error


def read_image(path: Path) -> np.ndarray:
    """An image file as uint8 RGB (height, width, 3), turned as its EXIF orientation says.

    Raises:
        InputError: the file is missing, cut off, or no image.
    """
    from PIL import ImageOps

    with opened_image(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@dataclass(frozen=True)
class LabelMasks:
    """Truth in label maps: one PNG per frame, the value of a pixel is the object's id (`MaskTruth`).

    Attributes:
        files: one label map per frame.
        union: any value but 0 counts, whatever the objects (DAVIS-2016's 0 and 255).
    """

    files: tuple[Path, ...]
    union: bool = False

    def mask(self, objects: Sequence[str], t: int) -> np.ndarray:
        """See `MaskTruth.mask`; objects are label values as text."""
        labels = self.labels(t)
        return labels > 0 if self.union else np.isin(labels, np.array([int(key) for key in objects], np.int64))

    def labels(self, t: int) -> np.ndarray:
        """The values of frame t's label map, (height, width).

        Raises:
            InputError: it is missing, damaged, or no label map.
        """
        with opened_image(self.files[t], "label map") as image:
            labels = np.asarray(image)
        if labels.ndim != 2:
            raise InputError(f"{self.files[t]}: a {labels.ndim}-channel image; wanted one value per pixel")
        return labels


@dataclass(frozen=True)
class RleMasks:
    """Truth in run lengths: `mask_dict.json`'s list of COCO RLE or null, one per frame, by annotation id (`MaskTruth`).

    Attributes:
        runs: {annotation id: [{"size": [height, width], "counts": text} or None, ...]}.
        size: (height, width) of the video, for frames on which no object has a mask.
    """

    runs: Mapping[str, Sequence[Mapping[str, object] | None]]
    size: tuple[int, int]

    def mask(self, objects: Sequence[str], t: int) -> np.ndarray:
        """See `MaskTruth.mask`; objects are annotation ids."""
        covered = np.zeros(self.size, bool)
        for key in objects:
            if key not in self.runs or t >= len(self.runs[key]):
                raise InputError(f"annotation {key}: no run lengths for frame {t}; is mask_dict of another release?")
            runs = self.runs[key][t]
            if runs is not None:
                covered |= decode_rle(str(runs["counts"]), *self.size)
        return covered
