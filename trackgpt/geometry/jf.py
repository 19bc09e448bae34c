"""J and F of masks: region similarity, boundary accuracy and the statistics DAVIS reports over them.

Masks are bool, shape (height, width), index [y, x] in pixels of the original frame. Every number equals the official
scorer's to the last bit (davis2017-evaluation, commit ac7c43f), because pixels are counted as integers and the few
float operations keep its order. What differs is the work. Both masks of a frame become one array of bytes, the truth in
bit 0 and the prediction in bit 1, cropped to the box around them, so that one bitwise operation serves both. The
dilation by a disk, one operation a pixel of the disk as it is defined (197 at 480 x 854), is composed of shifts that
build on each other (15 there), see `_shifts`. And no memory is asked for in the loop over frames, see `Scratch`.

Which frames, objects and expressions enter, and whether void pixels are left out or count as background, is the
protocol's choice, not this module's: the kits decide it and name it beside their numbers.

Sources: F. Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016,
section 4 (J, F, mean, recall, decay); J. Pont-Tuset et al., "The 2017 DAVIS Challenge", arXiv:1704.00675 (J&F).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isqrt, prod
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from trackgpt.errors import InputError, UsageError

BoolArray = NDArray[np.bool_]
ByteArray = NDArray[np.uint8]
DecayMode = Literal["compat", "fixed"]

BOUND_TH = 0.008
RECALL_THRESHOLD = 0.5
SEARCHED_RADIUS = 20
PADDED, SPARE, OUTLINE, DILATED, FOUND, PAIR = range(6)
WANTED = PAIR  # whose masks are in OUTLINE by then
_GROWTHS = [(y, x) for y in range(4) for x in range(-3, 4) if (y, x) > (0, 0)]


class Scores(NamedTuple):
    """J and F of one object in every frame, float64 (T,) each."""

    j: NDArray[np.float64]
    f: NDArray[np.float64]


class Summary(NamedTuple):
    """Statistics of one measure: mean, share of frames above 0.5, loss from the first quarter to the last."""

    mean: float
    recall: float
    decay: float


class Overall(NamedTuple):
    """J&F of a set of objects, and the statistics of J and of F averaged over them."""

    jf: float
    j: Summary
    f: Summary


def region_similarity(prediction: BoolArray, truth: BoolArray, void: BoolArray | None = None) -> float:
    """J, the intersection over union of two masks.

    J = |P and G| / |P or G| over the pixels outside `void`.

    Args:
        prediction: bool (height, width).
        truth: bool (height, width).
        void: bool (height, width), pixels without a truth, which are left out; None for none.

    Returns:
        J in [0, 1]; 1 if neither mask has a pixel, 0 if only one of them has.

    Raises:
        InputError: a mask is not bool, not (height, width), or of another shape than the others.
    """
    _check(prediction, truth, void, ("height", "width"))
    union, shared = prediction | truth, prediction & truth
    if void is not None:
        union, shared = union & ~void, shared & ~void
    pixels = np.count_nonzero(union)
    return np.count_nonzero(shared) / pixels if pixels else 1.0


def boundary_accuracy(
    prediction: BoolArray, truth: BoolArray, void: BoolArray | None = None, bound_th: float = BOUND_TH
) -> float:
    """F, the agreement of two mask boundaries within a tolerance.

    F = 2 P R / (P + R), where P is the share of predicted boundary pixels with a true one at a distance of at most r
    pixels, R the reverse, and r = ceil(bound_th * diagonal of the frame): 8 pixels at 480 x 854, 4 at 240 x 320.
    A pixel belongs to the boundary if it differs from its right, lower or lower-right neighbour, so the border of the
    frame is no boundary. Void pixels are background of both masks, so a mask cut by void has a boundary there.

    Args:
        prediction: bool (height, width).
        truth: bool (height, width).
        void: bool (height, width), pixels without a truth; None for none.
        bound_th: tolerance, below 1 as a fraction of the frame's diagonal, from 1 on in whole pixels.

    Returns:
        F in [0, 1]; 1 if neither mask has a boundary (empty, or covering the frame), 0 if only one of them has.

    Raises:
        InputError: a mask is not bool, not (height, width), or of another shape than the others.
        UsageError: bound_th is negative or not finite.
    """
    _check(prediction, truth, void, ("height", "width"))
    return FrameScorer(truth.shape, bound_th).of_masks(prediction, truth, void)[1]


def sequence_scores(
    predictions: BoolArray, truths: BoolArray, void: BoolArray | None = None, bound_th: float = BOUND_TH
) -> Scores:
    """J and F of one object in every frame of a sequence; equal to the functions of one frame, faster than both.

    Args:
        predictions: bool (T, height, width).
        truths: bool (T, height, width).
        void: bool (T, height, width), pixels without a truth; None for none.
        bound_th: tolerance of F, see `boundary_accuracy`.

    Returns:
        float64 (T,) J and F. No frame is dropped: a protocol that leaves out the first and the last passes [1:-1].

    Raises:
        InputError: the stacks are not bool, not (T, height, width), or of different shapes.
        UsageError: bound_th is negative or not finite.
    """
    _check(predictions, truths, void, ("T", "height", "width"))
    scorer = FrameScorer(truths.shape[1:], bound_th)
    voids = [None] * len(truths) if void is None else void
    scores = [scorer.of_masks(*frame) for frame in zip(predictions, truths, voids, strict=True)]
    return Scores(*np.array(scores, np.float64).reshape(-1, 2).T.copy())


class FrameScorer:
    """J and F of one frame after another, all of one size: what `sequence_scores` does, without the stacks.

    It computes in memory of its own, so one scorer serves one thread. Arrays are trusted: whoever read them checked.

    Args:
        shape: height and width of the frames.
        bound_th: tolerance of F, see `boundary_accuracy`.

    Raises:
        UsageError: bound_th is negative or not finite.
    """

    def __init__(self, shape: tuple[int, ...], bound_th: float = BOUND_TH) -> None:
        self.shape = shape
        self._scratch = Scratch(shape, tolerance(shape, bound_th))
        self._found, self._wanted, self._union = np.empty((3, shape[0] * shape[1]), np.uint8)

    def of_masks(self, prediction: BoolArray, truth: BoolArray, void: BoolArray | None = None) -> tuple[float, float]:
        """J and F of two masks, bool (height, width); pixels of `void` are background of both."""
        shape = truth.shape
        if void is not None:
            prediction, truth = prediction & ~void, truth & ~void
        return self._scores(prediction.view(np.uint8), truth.view(np.uint8), self._union.reshape(shape))

    def of_labels(self, predictions: ByteArray, truths: ByteArray, objects: Sequence[int]) -> list[tuple[float, float]]:
        """J and F of every object of two label maps, uint8 (height, width), in the order of `objects`; 0 is void."""
        # OpenCV, because numpy takes twice as long where rows lie further apart than they are long, as a PNG's do.
        box = box_around(cv2.bitwise_or(predictions, truths, self._union.reshape(truths.shape)))
        if box is None:
            return [(1.0, 1.0)] * len(objects)
        predictions, truths = predictions[box], truths[box]
        shape = truths.shape
        found, wanted, union = (each[: prod(shape)].reshape(shape) for each in (self._found, self._wanted, self._union))
        scores = []
        for label in objects:
            np.equal(predictions, label, out=found.view(np.bool_))
            np.equal(truths, label, out=wanted.view(np.bool_))
            scores.append(self._scores(found, wanted, union))
        return scores

    def _scores(self, found: ByteArray, wanted: ByteArray, union: ByteArray) -> tuple[float, float]:
        """J and F of two masks, uint8 of 0 and 1; `union` is memory of their shape."""
        box = box_around(np.bitwise_or(found, wanted, out=union))
        if box is None:
            return 1.0, 1.0
        found, wanted = found[box], wanted[box]
        pair = np.add(found, found, out=self._scratch.take(PAIR, found.shape))
        pair |= wanted
        shared = np.equal(pair, 3, out=self._scratch.take(SPARE, pair.shape).view(np.bool_))
        return cv2.countNonZero(shared.view(np.uint8)) / cv2.countNonZero(pair), self._boundary_f(pair)

    def _boundary_f(self, pair: ByteArray) -> float:
        """F of two masks in one array: the truth in bit 0, the prediction in bit 1."""
        take = self._scratch.take
        outline = boundaries(pair, self._scratch)
        shape = outline.rows.shape
        edge_found = np.bitwise_and(outline.rows, 2, out=take(FOUND, shape))
        edge_wanted = np.bitwise_and(outline.rows, 1, out=take(WANTED, shape))
        pixels = cv2.countNonZero(edge_found), cv2.countNonZero(edge_wanted)
        if not all(pixels):
            return f_measure(pixels, (0, 0))
        # A dilated boundary holds the boundary itself, so a pixel of either is matched exactly where both bits are set.
        both = np.equal(dilated(outline, self._scratch), 3, out=take(SPARE, shape).view(np.bool_)).view(np.uint8)
        edge_wanted &= both
        edge_found &= np.add(both, both, out=both)
        return f_measure(pixels, (cv2.countNonZero(edge_found), cv2.countNonZero(edge_wanted)))


class Scratch:
    """Memory for the boundaries and dilations of frames of one size and crops of them.

    Kept from frame to frame because fresh memory costs more than the arithmetic done in it. What `boundaries` and
    `dilated` return lies in it, and the next call overwrites it.

    Args:
        shape: height and width of the frames, pixels.
        radius: tolerance of F, pixels.
    """

    def __init__(self, shape: tuple[int, ...], radius: int) -> None:
        self.radius = min(radius, isqrt(shape[0] ** 2 + shape[1] ** 2))  # none of the frame's pixels are farther apart
        height, stride = shape[0], self.stride(shape[1])
        self._buffers = np.empty((6, (height + 2) * stride + 2 * self.room(stride)), np.uint8)

    def stride(self, width: int) -> int:
        """Pixels from row to row: a shift past one side of a mask arrives in the zeros before the other."""
        return width + max(self.radius, max(abs(x) for _, x in _GROWTHS))

    def room(self, stride: int) -> int:
        """Pixels before the first and after the last row that a dilation looks at."""
        return self.radius * (stride + 1)

    def take(self, number: int, shape: tuple[int, ...]) -> ByteArray:
        """The beginning of a buffer, uint8 of this shape; its content is whatever was left in it."""
        return self._buffers[number, : prod(shape)].reshape(shape)


def f_measure(pixels: tuple[int, int], matched: tuple[int, int]) -> float:
    """F from numbers of boundary pixels: 1 if neither mask has a boundary, 0 if one has none or nothing matches.

    Args:
        pixels: boundary pixels of the prediction and of the truth.
        matched: those of them that have one of the other within the tolerance.
    """
    if not all(pixels):
        return float(pixels[0] == pixels[1])
    precision, recall = matched[0] / pixels[0], matched[1] / pixels[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def tolerance(shape: tuple[int, ...], bound_th: float = BOUND_TH) -> int:
    """The tolerance of F in whole pixels.

    Args:
        shape: height and width of the frame.
        bound_th: below 1 a fraction of the diagonal, rounded up; from 1 on pixels, rounded down.

    Raises:
        UsageError: bound_th is negative or not finite.
    """
    if not (0 <= bound_th < np.inf):
        raise UsageError(f"bound_th is {bound_th}, wanted a fraction of the diagonal (below 1) or pixels (from 1 on)")
    return int(bound_th if bound_th >= 1 else np.ceil(bound_th * np.linalg.norm(shape)))


def box_around(planes: ByteArray) -> tuple[slice, slice] | None:
    """Rows and columns around all pixels that are not 0 and one pixel more, None if there is none.

    Scores of the crop are those of the frame: boundary pixels lie at most one pixel outside a mask, dilated boundaries
    are only read at boundary pixels, and the pixel more keeps a mask's outline away from the crop's border unless that
    is the frame's.

    Args:
        planes: uint8 (height, width).
    """
    height, width = planes.shape
    x, y, columns, rows = cv2.boundingRect(planes)
    if not columns:
        return None
    return slice(max(y - 1, 0), min(y + rows + 1, height)), slice(max(x - 1, 0), min(x + columns + 1, width))


def summarise(values: ArrayLike, decay: DecayMode = "compat") -> Summary:
    """Mean, recall and decay of one object's J or F over its scored frames.

    mean = average over the values that are not NaN. recall = share of all values > 0.5: exactly 0.5 fails, and so does
    NaN. decay = mean of the first quarter - mean of the last, where the quarters of T values run, both ends included,
    between the frames round(linspace(1, T, 5)); neighbours share a frame.

    The official scorer keeps those frame numbers in 8 bits. From 257 frames on they wrap, and decay is NaN (T = 300)
    or compares the wrong frames (T = 400). "compat" does the same, "fixed" does not; up to 256 they are equal.
    (At T = 256 the official code itself answers NaN under numpy 2, whose 8-bit 255 + 1 is 0; "compat" is numpy 1.)

    Args:
        values: (T,) numbers.
        decay: "compat" or "fixed".

    Returns:
        float64 statistics, all NaN if there is no value.

    Raises:
        InputError: values are not one-dimensional.
        UsageError: decay is another word.
    """
    series = np.asarray(values, np.float64)
    if series.ndim != 1:
        raise InputError(f"summarise: values have the shape {series.shape}, wanted (T,); pass one object at a time")
    if decay not in ("compat", "fixed"):
        raise UsageError(f"summarise: decay is {decay!r}, wanted 'compat' or 'fixed'")
    if not series.size:
        return Summary(np.nan, np.nan, np.nan)
    edges = (np.round(np.linspace(1, len(series), 5) + 1e-10) - 1).astype(np.int64)
    if decay == "compat":
        edges %= 256
    first, last = series[edges[0] : edges[1] + 1], series[edges[3] : edges[4] + 1]
    return Summary(_nanmean(series), float(np.mean(series > RECALL_THRESHOLD)), _nanmean(first) - _nanmean(last))


def jf_mean(j_means: ArrayLike, f_means: ArrayLike) -> float:
    """J&F of a set of objects: half the sum of the mean of their J means and the mean of their F means.

    Args:
        j_means: (objects,) mean J of every object, in [0, 1].
        f_means: (objects,) mean F of the same objects.

    Returns:
        J&F in [0, 1]. Every object weighs the same, however long its sequence; a NaN among them makes it NaN.

    Raises:
        InputError: the two differ in shape, are not one-dimensional, or are empty.
    """
    j, f = np.asarray(j_means, np.float64), np.asarray(f_means, np.float64)
    if j.shape != f.shape or j.ndim != 1 or not j.size:
        raise InputError(f"jf_mean: shapes {j.shape} and {f.shape}, wanted twice (objects,) with one object or more")
    return float((np.mean(j) + np.mean(f)) / 2)


def over_objects(scores: Sequence[Scores], decay: DecayMode = "compat") -> Overall:
    """The row a dataset reports: every statistic per object first, then its mean over objects.

    Args:
        scores: one entry per object, of all sequences together.
        decay: see `summarise`; with "compat" one object of more than 256 frames can make the decay of all NaN.

    Returns:
        J&F and the mean, recall and decay of J and of F.

    Raises:
        InputError: there is no object.
    """
    if not scores:
        raise InputError("over_objects: no object was scored, wanted one or more; check the list of sequences")
    j = np.array([summarise(score.j, decay) for score in scores])
    f = np.array([summarise(score.f, decay) for score in scores])
    return Overall(jf_mean(j[:, 0], f[:, 0]), _column_means(j), _column_means(f))


def _column_means(rows: NDArray[np.float64]) -> Summary:
    return Summary(*(float(np.mean(np.ascontiguousarray(column))) for column in rows.T))


def _nanmean(values: NDArray[np.float64]) -> float:
    """Like numpy's, without its warning where there is nothing to average."""
    return np.nan if np.isnan(values).all() else float(np.nanmean(values))


def _check(prediction: BoolArray, truth: BoolArray, void: BoolArray | None, axes: tuple[str, ...]) -> None:
    named = {"prediction": prediction, "truth": truth} | ({} if void is None else {"void": void})
    for name, mask in named.items():
        if mask.dtype != np.bool_:
            raise InputError(f"{name} has the type {mask.dtype}, wanted bool; compare a label map with the object's id")
        if mask.ndim != len(axes) or mask.shape != truth.shape:
            wanted = f"({', '.join(axes)})" if mask is truth else f"the truth's {truth.shape}"
            raise InputError(f"{name} has the shape {mask.shape}, wanted {wanted}; resize masks to the truth first")


class BoundaryMaps(NamedTuple):
    """Boundary maps of up to eight masks, one per bit, laid out so that a shift in y and x is one in a flat array.

    Attributes:
        flat: uint8, the rows one after the other, with as many zeros before and after as a dilation looks at.
        rows: uint8 (height, stride), the same memory without these zeros; columns from the masks' width on are 0.
    """

    flat: ByteArray
    rows: ByteArray


def boundaries(planes: ByteArray, scratch: Scratch) -> BoundaryMaps:
    """Pixels of each bit plane that differ from their right, lower or lower-right neighbour inside the frame.

    Args:
        planes: uint8 (height, width), up to eight masks, one per bit: a frame, or the crop of one by `box_around`.
        scratch: memory for frames of this size.
    """
    height, width = planes.shape
    stride = scratch.stride(width)
    size, room = height * stride, scratch.room(stride)
    padded = scratch.take(PADDED, (height + 2, stride))
    padded[:height, :width] = planes
    padded[:height, width] = planes[:, -1]  # repeated, the frame's border differs from nothing
    padded[height] = padded[height - 1]
    here, differs = padded.reshape(-1), scratch.take(SPARE, (size,))
    flat = scratch.take(OUTLINE, (size + 2 * room,))
    flat[:room] = flat[room + size :] = 0
    edge = flat[room : room + size]
    np.bitwise_xor(here[:size], here[1 : size + 1], out=edge)
    for neighbour in (stride, stride + 1):
        edge |= np.bitwise_xor(here[:size], here[neighbour : neighbour + size], out=differs)
    rows = edge.reshape(height, stride)
    rows[:, width:] = 0
    return BoundaryMaps(flat, rows)


def dilated(edges: BoundaryMaps, scratch: Scratch) -> ByteArray:
    """Pixels at a distance of at most the radius from a boundary pixel, for each bit plane.

    Returns:
        uint8 (height, stride); columns from the masks' width on mean nothing.
    """
    shape = height, stride = edges.rows.shape
    size = height * stride
    stage, out = edges.flat, scratch.take(DILATED, (size,))
    target, spare = (scratch.take(number, stage.shape) for number in (PADDED, SPARE))
    out[:] = 0
    for step in _shifts(scratch.radius):
        for y, x in step.taken:
            start = y * stride + x
            out |= stage[start : start + size]
        if step.grown is not None:
            shift = step.grown[0] * stride + step.grown[1]
            left = len(stage) - shift
            stage, target, spare = np.bitwise_or(stage[:left], stage[shift:], out=target[:left]), spare, target
    return out.reshape(shape)


class _Step(NamedTuple):
    """Shifts (y, x) at which a stage enters the dilation, and the one by which it becomes the next stage."""

    taken: tuple[tuple[int, int], ...]
    grown: tuple[int, int] | None


@lru_cache(maxsize=64)
def _shifts(radius: int) -> tuple[_Step, ...]:
    """How the disk y^2 + x^2 <= radius^2 is put together in far fewer operations than it has pixels.

    Stage 0 is one pixel; every other stage is the one before and a shifted copy of it, so it has up to twice as many.
    The disk is covered exactly with shifted stages. Shifts count from the corner of its square, y down and x right.
    """
    return _searched(radius) if radius <= SEARCHED_RADIUS else _runs(radius)


def _runs(radius: int) -> tuple[_Step, ...]:
    """Stages are runs of 1, 2, 4, ... pixels of a row; two of them, overlapping, cover each row of the disk."""
    taken: list[set[tuple[int, int]]] = [set() for _ in range((2 * radius + 1).bit_length())]
    for y in range(2 * radius + 1):
        half = isqrt(radius**2 - (y - radius) ** 2)
        stage = (2 * half + 1).bit_length() - 1
        taken[stage] |= {(y, radius - half), (y, radius + half + 1 - 2**stage)}
    steps = [_Step(tuple(sorted(shifts)), (0, 2**stage)) for stage, shifts in enumerate(taken)]
    return (*steps[:-1], steps[-1]._replace(grown=None))


def _searched(radius: int) -> tuple[_Step, ...]:
    """Greedy: grow by the shift after which copies that fit into the disk reach most of it; stop where it costs least.

    Sets of pixels are integers, one bit per pixel, in rows of `pitch` bits so that no shift runs into the next row.
    """
    pitch = 2 * radius + 1 + max(abs(x) for _, x in _GROWTHS)
    side = range(2 * radius + 1)
    disk = sum(1 << y * pitch + x for y in side for x in side if (y - radius) ** 2 + (x - radius) ** 2 <= radius**2)
    stages, grown = [_DiskStage(1, disk, disk)], list[tuple[int, int]]()
    plans = []
    while True:
        plans.append(_cover(disk, stages, grown, pitch))
        options = [(_grow(stages[-1], grown, growth, pitch), growth) for growth in _GROWTHS]
        options = [option for option in options if option[0].places]
        if not options:
            return min(plans, key=lambda steps: sum(len(step.taken) + 1 for step in steps))
        stage, growth = max(options, key=lambda option: (option[0].reach.bit_count(), option[0].pixels.bit_count()))
        stages.append(stage)
        grown.append(growth)


class _DiskStage(NamedTuple):
    """Pixels of a stage, the shifts at which it fits into the disk, and what it covers there, as bits of numbers."""

    pixels: int
    places: int
    reach: int


def _grow(stage: _DiskStage, grown: list[tuple[int, int]], growth: tuple[int, int], pitch: int) -> _DiskStage:
    by = growth[0] * pitch + growth[1]
    places = reach = stage.places & stage.places >> by
    for y, x in (*grown, growth):
        reach |= reach << y * pitch + x
    return _DiskStage(stage.pixels | stage.pixels << by, places, reach)


def _cover(disk: int, stages: list[_DiskStage], grown: list[tuple[int, int]], pitch: int) -> tuple[_Step, ...]:
    """The largest stage first, each time the copy over the first uncovered pixel that covers most."""
    steps, left = [], disk
    for stage, growth in zip(reversed(stages), (None, *reversed(grown)), strict=True):
        taken, inside = [], stage.pixels.bit_count() > 1 or stage is stages[0]
        while inside and (open_ := left & stage.reach):
            first = _ones(open_ & -open_)[0]
            shifts = [first - pixel for pixel in _ones(stage.pixels) if first >= pixel]
            fitting = [shift for shift in shifts if stage.places >> shift & 1]
            best = max(fitting, key=lambda shift: (stage.pixels << shift & left).bit_count())
            taken.append(divmod(best, pitch))
            left &= ~(stage.pixels << best)
        steps.append(_Step(tuple(taken), growth))
    return tuple(reversed(steps))


def _ones(number: int) -> list[int]:
    """Positions of the bits that are set, from the lowest on."""
    return [position for position in range(number.bit_length()) if number >> position & 1]
