"""What every reader of an image set gives: images whose pixels and truth are read from disk when they are asked for.

What can be asked of an image is an `Expression` (a class name, a part, a sentence); its truth is one mask. Reading one
costs no more than its own files, so that a set of 118,000 images opens at once. Text-only sets give `Conversation`s.
Conventions of the benchmarks (label shifts, polygons, run lengths, -1 for "nothing", the placeholder of the image) end
at the reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trackgpt.data.videos import Expression, opened_image, read_image
from trackgpt.errors import InputError
from trackgpt.geometry.masks import covers, decode_rle, is_size, mask_of_runs

Segmentation = Sequence[Any] | Mapping[str, Any]
"""A COCO segmentation: polygons, run lengths, or a list of run lengths (RefCLEF)."""

_SWAPPED = frozenset((5, 6, 7, 8))  # EXIF orientations that exchange height and width
_ORIENTATION = 0x0112
_FARTHEST = 1e5  # pixels: pycocotools walks along every edge, so that a wild vertex would cost minutes


class ImageTruth(Protocol):
    """What is true of one image. Opens its files on first use and keeps them, so hold it no longer than the image."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every mask.

        Raises:
            InputError: the file that says so is missing or damaged.
        """
        ...

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """What can be asked, in the benchmark's order; empty where nothing in the image has a name.

        Raises:
            InputError: the annotation is missing or damaged.
        """
        ...

    def mask(self, objects: Sequence[str]) -> np.ndarray:
        """What any of the objects covers: bool (height, width), all False for no objects.

        Raises:
            InputError: the annotation is missing or damaged, or has no such object.
        """
        ...

    def ignored(self) -> np.ndarray:
        """Pixels that count neither for nor against: bool (height, width), all False where a benchmark has none.

        Raises:
            InputError: the annotation is missing or damaged.
        """
        ...


@dataclass(frozen=True)
class ImageSample:
    """An image on disk and what is true of it.

    Attributes:
        name: as the benchmark calls it, unique within the split.
        image: the picture.
        truth: what can be asked and its masks.
    """

    name: str
    image: Path
    truth: ImageTruth

    @property
    def size(self) -> tuple[int, int]:
        """(height, width); see `ImageTruth.size`."""
        return self.truth.size

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """What can be asked; see `ImageTruth.expressions`."""
        return self.truth.expressions

    def mask(self, expression: Expression) -> np.ndarray:
        """The truth of an expression of this image, bool (height, width); see `ImageTruth.mask`."""
        return self.truth.mask(expression.objects)

    def ignored(self) -> np.ndarray:
        """Pixels that are not scored, bool (height, width); see `ImageTruth.ignored`."""
        return self.truth.ignored()

    def frame(self) -> np.ndarray:
        """The picture as its truth sees it: uint8 RGB (height, width, 3) of the size of the masks.

        It is turned as its EXIF orientation says (as OpenCV and LISA do), unless only the unturned one fits the truth:
        label maps of a few ADE20K images were drawn on the stored pixels.

        Raises:
            InputError: the file is missing or damaged, or no turn of it has the size of the truth.
        """
        turned = read_image(self.image)
        if turned.shape[:2] == self.size:
            return turned
        with opened_image(self.image) as image:
            stored = np.asarray(image.convert("RGB"))
        if stored.shape[:2] == self.size:
            return stored
        raise InputError(
            f"{self.image}: {stored.shape[0]} x {stored.shape[1]} pixels; wanted {self.size[0]} x {self.size[1]}, "
            "as its annotation says; are image and annotation of one release?"
        )


class ImageSet(Protocol):
    """A split of a benchmark: any sequence of samples. Each access makes its sample anew, so none stays in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ImageSample: ...

    def __iter__(self) -> Iterator[ImageSample]: ...


@dataclass(frozen=True)
class Round:
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """Questions and answers about a picture, in words alone.

    Attributes:
        name: as the data set calls it.
        image: the picture, None where nothing is shown.
        rounds: at least one; the placeholder of the image is taken out, for the template knows where it belongs.
    """

    name: str
    image: Path | None
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Segments:
    """Truth in COCO segmentations (`ImageTruth`): one object per annotation, whatever its form.

    Attributes:
        source: the file they come from, for messages.
        size: (height, width).
        expressions: see `ImageTruth.expressions`.
        segmentations: COCO segmentation by object key; an empty one covers nothing.
    """

    source: Path
    size: tuple[int, int]
    expressions: tuple[Expression, ...]
    segmentations: Mapping[str, Segmentation]

    def __post_init__(self) -> None:
        if not is_size(*self.size):
            raise InputError(f"{self.source}: an image of height and width {self.size}; is it of another release?")

    def mask(self, objects: Sequence[str]) -> np.ndarray:
        """See `ImageTruth.mask`; objects are annotation ids."""
        covered = np.zeros(self.size, bool)
        for key in objects:
            if key not in self.segmentations:
                raise InputError(f"{self.source}: no annotation {key} in this image; is it of another release?")
            try:
                covered |= segmentation_mask(self.segmentations[key], *self.size)
            except InputError as error:
                raise InputError(f"{self.source}: annotation {key}: {error}") from error
        return covered

    def ignored(self) -> np.ndarray:
        """See `ImageTruth.ignored`: none."""
        return np.zeros(self.size, bool)


def segmentation_mask(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """The mask of a COCO segmentation.

    Args:
        segmentation: polygons [[x, y, x, y, ...], ...] in pixels with edges (a pixel at the origin is 0, 0, 1, 0, 1,
            1, 0, 1), or run lengths {"size": [height, width], "counts": text, bytes or numbers}, or a list of those;
            several mean their union. A polygon of fewer than three points encloses nothing.
        height: rows of the mask.
        width: columns of the mask.

    Returns:
        bool (height, width).

    Raises:
        InputError: a polygon is no list of pairs of finite numbers, or run lengths do not cover the image.
    """
    pieces = [segmentation] if isinstance(segmentation, Mapping) else list(segmentation)
    covered = np.zeros((height, width), bool)
    for runs in pieces:
        if isinstance(runs, Mapping):
            covered |= _runs_mask(runs, height, width)
    polygons = [piece for piece in pieces if not isinstance(piece, Mapping)]
    return covered | _polygons_mask(polygons, height, width) if polygons else covered


def _runs_mask(runs: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The mask of run lengths, packed into text or as plain numbers."""
    if runs.get("size", [height, width]) not in ([height, width], (height, width)):
        raise InputError(f"run lengths of an image of {runs['size']}; wanted [{height}, {width}]")
    counts = runs.get("counts")
    if isinstance(counts, str | bytes):
        return decode_rle(counts if isinstance(counts, str) else counts.decode("ascii", "replace"), height, width)
    try:
        lengths = np.asarray(counts, np.int64).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"run lengths {str(counts)[:20]!r}; wanted text or numbers") from error
    if not covers(lengths, height * width):
        raise InputError(
            f"run lengths cover {sum(lengths.tolist())} pixels; wanted {height} x {width} = {height * width}"
        )
    return mask_of_runs(lengths, height, width)


def _polygons_mask(polygons: Iterable[Any], height: int, width: int) -> np.ndarray:
    """The union of polygons, filled as pycocotools fills them."""
    from pycocotools import mask as coco

    rings = []
    for polygon in polygons:
        try:
            ring = np.asarray(polygon, np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise InputError(f"polygon {str(polygon)[:20]!r}; wanted numbers x, y, x, y, ...") from error
        if len(ring) % 2 or not (np.abs(ring) <= _FARTHEST).all():
            raise InputError(f"polygon {str(polygon)[:20]!r}; wanted pairs of finite numbers within {_FARTHEST:.0f}")
        # pycocotools takes four numbers for a box, and then every other polygon too.
        if len(ring) >= 6:
            rings.append(ring.tolist())
    if not rings:
        return np.zeros((height, width), bool)
    counts: bytes = coco.merge(coco.frPyObjects(rings, height, width))["counts"]
    return decode_rle(counts.decode("ascii"), height, width)


def one_of_each_text(expressions: Iterable[Expression]) -> tuple[Expression, ...]:
    """Expressions with equal text joined into one that means the objects of all, in the order of first mention.

    Part sets annotate every leg of a dog by itself, so that "dog leg" has four masks; this gives their union. LISA
    trains on one of the four, drawn at random.
    """
    joined: dict[str, Expression] = {}
    for one in expressions:
        known = joined.get(one.text)
        objects = one.objects if known is None else tuple(dict.fromkeys((*known.objects, *one.objects)))
        first = one if known is None else known
        joined[one.text] = Expression(first.id, first.text, objects, first.tags)
    return tuple(joined.values())


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image file as `read_image` gives it, from its header alone.

    Raises:
        InputError: the file is missing or no image.
    """
    with opened_image(path) as image:
        width, height = image.size
        swapped = image.getexif().get(_ORIENTATION) in _SWAPPED
    return (width, height) if swapped else (height, width)
