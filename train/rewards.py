"""What an answer of a policy that tracks earns: QTrack's rewards as its paper has them, as released, and ours.

A term is a pure function of an answer and of the question it belongs to, and gives a number in [0, 1] for any string;
what a set pays is the weighted mean of its terms (`earned`). Boxes are xyxy in pixels of the original frame, whatever
numbers the model writes, so that a frame that is shown in another size earns the same.

    paper      section 3.4 and appendix C of QTrack: tags, format, boxes of one frame (IoU and L1; points are in no
               data), motion of centres from the true box of the frame before; objects by the Hungarian method
    released   gaash-lab/QTrack at bc746fe with its faults (`eval.metrics.query_mot_rewards` has them one by one): the
               truth is xywh, is read as centre and size, and never scaled; of motion, the first box's corner alone. A
               perfect answer in the format that the prompt asks for earns no accuracy
    ours       each tag once, items whose numbers mean something, overlap of whole tracks, motion of centres between the
               answer's own boxes on frames where the object is visible; tracks are matched as wholes, by object_id
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from eval.metrics.query_mot_rewards import (
    RMOT26_HEAD,
    accuracy_reward,
    answer_block,
    first_box,
    has_tags,
    items_reward,
    mcp_reward,
)
from trackgpt.errors import InputError, UsageError
from trackgpt.geometry.boxes import box_iou
from trackgpt.reasoners.coordinates import Convention, Sizes
from trackgpt.reasoners.policy import LONGEST_ANSWER, Trajectories, parse, sections
from trackgpt.settings import parse_json

FloatArray = NDArray[np.float64]

FOUND, NEAR = 0.5, 10.0
"""Of the paper (C.3): a box is found with an IoU above this; it is near with a mean L1 distance below this, in px."""
ALPHA, STILL, STILL_KEEPS = 0.9, 0.1, 0.2
"""Of the paper (C.4): the tolerance of the speed; and what is left of the reward of a prediction that is slower than
STILL of the true speed."""
RESTS = 0.01
"""Ours: below this share of its box's diagonal an object's motion has no direction."""


@dataclass(frozen=True)
class Expected:
    """The question that an answer belongs to, with its truth.

    Attributes:
        frames: numbers of the frames that boxes are asked of, in order.
        truth: float64 (objects, frames, 4), xyxy in pixels; NaN where an object is not visible.
        before: float64 (objects, 4), xyxy on the frame before the first of `frames`; NaN where it is not visible, and
            where there is no such frame.
        view: size of a frame, and of the copy that the model sees, in pixels.
        convention: in which numbers the model writes.
        ids: of the objects, where the prompt gives them, so that the answer must keep them; else empty.
    """

    frames: tuple[int, ...]
    truth: FloatArray
    before: FloatArray
    view: Sizes
    convention: Convention
    ids: tuple[int, ...] = ()


class ReadAnswer(NamedTuple):
    """What a policy wrote, any string, and the trajectories that were read from it, on the frames it was asked of."""

    text: str
    tracks: Trajectories

    @property
    def readable(self) -> bool:
        """It could be read; also if it says that there is no such object."""
        return self.tracks.form != "unreadable"

    @property
    def boxes(self) -> FloatArray:
        """float64 (tracks, frames, 4), xyxy in pixels; NaN where there is none."""
        return self.tracks.boxes.reshape(-1, len(self.tracks.frames), 4)


def read_answer(text: str, expected: Expected) -> ReadAnswer:
    """Read any string as an answer to a question."""
    return ReadAnswer(text, parse(text, expected.frames, expected.view, expected.convention))


class Term(NamedTuple):
    """A part of a reward.

    Attributes:
        name: in logs.
        weight: its share, over the sum of the set's.
        score: gives a number in [0, 1] and never raises.
    """

    name: str
    weight: float
    score: Callable[[Any, Any], float]


def reward_terms(
    rewards: str, weights: Mapping[str, float], sets: Mapping[str, tuple[Term, ...]] | None = None
) -> tuple[Term, ...]:
    """The terms of a set, with other weights for some.

    Args:
        rewards: a name in `sets`.
        weights: by the name of a term.
        sets: `REWARDS` by default.

    Raises:
        UsageError: there is no such set or term, or nothing is left to pay for.
    """
    sets = REWARDS if sets is None else sets
    if rewards not in sets:
        raise UsageError(f"rewards `{rewards}`: wanted one of {', '.join(sets)}")
    terms = sets[rewards]
    unknown = set(weights) - {term.name for term in terms}
    if unknown:
        raise UsageError(f"reward weights: `{min(unknown)}` is none of {', '.join(term.name for term in terms)}")
    terms = tuple(term._replace(weight=weights.get(term.name, term.weight)) for term in terms)
    if not sum(term.weight for term in terms) > 0:
        raise UsageError("reward weights: all are 0; wanted one above")
    return terms


def earned(terms: Sequence[Term], answer: Any, expected: Any, longest: int = LONGEST_ANSWER) -> dict[str, float]:
    """Every term by name, and their weighted mean as "reward"; each in [0, 1]. An overlong answer earns nothing.

    Args:
        terms: of `REWARDS` or `reward_terms`.
        answer: with any `text`.
        expected: its question.
        longest: letters that it may have.
    """
    if len(answer.text) > longest:
        return {"reward": 0.0} | {term.name: 0.0 for term in terms}
    with np.errstate(all="ignore"):
        scores = {term.name: term.score(answer, expected) for term in terms}
    total = sum(term.weight * scores[term.name] for term in terms)
    return {"reward": total / sum(term.weight for term in terms)} | scores


# Form


def tags_once(answer: ReadAnswer, _: Expected) -> float:
    """1 if the answer is a thought and an answer in their tags, each tag once, and nothing around them."""
    return float(sections(answer.text).tagged)


def listed_boxes(answer: ReadAnswer, _: Expected) -> float:
    """1 if the answer block is a JSON list whose items all have four numbers as "bbox_2d" or "bbox" (paper, C.2)."""
    items = _items(answer)
    return float(items is not None and all(_numbers(item) is not None for item in items))


def sound_items(answer: ReadAnswer, expected: Expected) -> float:
    """Share of the listed items that are sound; 1 for an empty list, 0 where there is no list.

    An item is sound if its "frame" is one of those asked of, its "object_id" an integer, its box four finite numbers,
    two corners in order inside the image; and if no item before it is of the same object and frame.
    """
    items = _items(answer)
    if items is None:
        return 0.0
    sound, seen = 0, set()
    for item in items:
        numbers = _numbers(item)
        place = (item.get("object_id"), item.get("frame")) if isinstance(item, dict) else (None, None)
        if numbers is None or not all(type(part) is int for part in place) or place in seen:
            continue
        seen.add(place)
        sound += place[1] in expected.frames and _inside(numbers, expected)
    return sound / len(items) if items else 1.0


def _items(answer: ReadAnswer) -> list[Any] | None:
    """The items of the list in the answer block, or None."""
    if len(answer.text) > LONGEST_ANSWER:
        return None
    with suppress(ValueError, InputError):
        found = parse_json(answer_block(answer.text), "the answer")
        return found if isinstance(found, list) else None
    return None


def _numbers(item: Any) -> tuple[float, ...] | None:
    box = item.get("bbox_2d", item.get("bbox")) if isinstance(item, dict) else None
    right = isinstance(box, list) and len(box) == 4 and all(type(n) in (int, float) and math.isfinite(n) for n in box)
    return tuple(map(float, box)) if right else None


def _inside(numbers: tuple[float, ...], expected: Expected) -> bool:
    x1, y1, x2, y2 = expected.convention.to_pixels(numbers, expected.view)
    width, height = expected.view.size
    across, down = (side * (1 + 1e-6) for side in (width, height))  # what scaling rounds
    return bool(-1e-6 * width <= x1 < x2 <= across and -1e-6 * height <= y1 < y2 <= down)


# Motion


def motion_consistency(
    origin: FloatArray, predicted: FloatArray, true_origin: FloatArray, truth: FloatArray, rests: float = 0.0
) -> FloatArray:
    """Direction times speed times the penalty for standing still, of centres (paper, Algorithm 2).

    Args:
        origin: float (n, 4), xyxy, where predicted motions begin; in the paper they begin at `true_origin`.
        predicted: float (n, 4), xyxy, where they end.
        true_origin, truth: float (n, 4), xyxy, true boxes of the frame before and of this one.
        rests: a truth that moves less than this share of its box's diagonal is at rest: no direction is asked for, and
            how far a prediction moves is measured against that distance. 0 is the paper's rule: 1 for whatever is
            said about a truth that does not move at all.

    Returns:
        float64 (n,) in [0, 1]; 0 where a box is not finite.
    """
    true_motion, motion = _centres(truth) - _centres(true_origin), _centres(predicted) - _centres(origin)
    true_speed, speed = np.hypot(*true_motion.T), np.hypot(*motion.T)
    least = rests * np.hypot(*(truth[:, 2:] - truth[:, :2]).T)
    moves, product = true_speed > least, true_speed * speed
    cosine = np.where(product > 0, (true_motion * motion).sum(1) / np.where(product > 0, product, 1.0), 0.0)
    direction = np.where(moves, (1 + np.clip(cosine, -1, 1)) / 2, 1.0)
    scale = ALPHA * np.maximum(true_speed, least)
    likeness = np.where(scale > 0, np.exp(-(((speed - true_speed) / np.where(scale > 0, scale, 1.0)) ** 2) / 2), 1.0)
    penalty = np.where(moves & (speed < STILL * true_speed), STILL_KEEPS, 1.0)
    known = np.isfinite(speed) & np.isfinite(true_speed)
    return np.where(known, np.clip(np.nan_to_num(direction * likeness * penalty), 0.0, 1.0), 0.0)


def _centres(boxes: FloatArray) -> FloatArray:
    return boxes[..., :2] / 2 + boxes[..., 2:] / 2


# The paper's: boxes of the last frame asked of


def found_boxes(answer: ReadAnswer, expected: Expected) -> float:
    """Boxes found (IoU) and near (L1), summed over the best pairs and divided by the larger count and by 2 (C.3).

    1 where there is no object and the answer says so.
    """
    predicted, truth, _ = _last(answer, expected)
    if not len(predicted) or not len(truth):
        return float(answer.readable and len(predicted) == len(truth))
    pairs = _paired(predicted, truth)
    return float(_pay(predicted, truth)[pairs].sum() / max(len(predicted), len(truth)) / 2)


def motion_from_truth(answer: ReadAnswer, expected: Expected) -> float:
    """Mean motion consistency of the pairs of `found_boxes` (C.4), over the larger count; from the true box before.

    1 where no object was visible in the frame before, and for a truth of no object if the answer says so.
    """
    predicted, truth, before = _last(answer, expected)
    if not len(predicted) or not len(truth):
        return float(answer.readable and len(predicted) == len(truth))
    rows, columns = _paired(predicted, truth)
    known = np.isfinite(before[columns]).all(1)
    rows, columns = rows[known], columns[known]
    missed = int(np.isfinite(before).all(1).sum()) - len(rows)
    extra = max(len(predicted) - len(truth), 0)
    if not len(rows) + missed:
        return 1.0
    scores = motion_consistency(before[columns], predicted[rows], before[columns], truth[columns])
    return float(scores.sum() / (len(rows) + missed + extra))


def _last(answer: ReadAnswer, expected: Expected) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Boxes of the last frame: predicted ones, true ones, and where these were in the frame before (NaN: nowhere)."""
    known = np.isfinite(expected.truth[:, -1]).all(1)
    before = expected.truth[known, -2] if len(expected.frames) > 1 else expected.before[known]
    predicted = answer.boxes[:, -1]
    return predicted[np.isfinite(predicted).all(1)], expected.truth[known, -1], before


def _pay(predicted: FloatArray, truth: FloatArray) -> FloatArray:
    near = np.abs(predicted[:, None] - truth[None]).mean(-1) < NEAR
    return (box_iou(predicted, truth) > FOUND).astype(np.float64) + near


def _paired(predicted: FloatArray, truth: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return linear_sum_assignment(_pay(predicted, truth), maximize=True)


# The released ones


def released_tags(answer: ReadAnswer, _: Expected) -> float:
    """1 if the tags are the whole string; nested and repeated ones pass."""
    return float(has_tags(answer.text))


def released_items(answer: ReadAnswer, _: Expected) -> float:
    """Share of the items that have a list of four things as "bbox_2d"."""
    return min(items_reward(answer.text, RMOT26_HEAD), 1.0)


def released_accuracy(answer: ReadAnswer, expected: Expected) -> float:
    """Half of IoU and L1 between boxes as they are written and true ones as xywh."""
    return accuracy_reward(answer.text, _xywh(expected.truth[:, -1]), RMOT26_HEAD) / 2


def released_motion(answer: ReadAnswer, expected: Expected) -> float:
    """Motion of the first box's corner against the first object's."""
    last, box = _xywh(expected.truth[:, -1]), first_box(answer.text)
    before = _xywh(expected.truth[:, -2] if len(expected.frames) > 1 else expected.before)
    with suppress(InputError):
        return mcp_reward(before[0], last[0], box, RMOT26_HEAD) if box is not None and len(last) else 0.0
    return 0.0


def _xywh(boxes: FloatArray) -> FloatArray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


# Ours: whole tracks


class Pairs(NamedTuple):
    """Which predicted track stands for which true one, int (pairs,) each."""

    predicted: NDArray[np.intp]
    truth: NDArray[np.intp]


def track_overlaps(predicted: FloatArray, truth: FloatArray) -> FloatArray:
    """IoU of every pair of tracks on every frame.

    Args:
        predicted, truth: float (m, frames, 4) and (n, frames, 4), xyxy in pixels, NaN where there is no box.

    Returns:
        float64 (m, n, frames); 0 where either has no box.
    """
    frames = zip(predicted.swapaxes(0, 1), truth.swapaxes(0, 1), strict=True)
    return np.stack([box_iou(a, b) for a, b in frames], axis=-1)


def matched_tracks(answer: ReadAnswer, expected: Expected) -> Pairs:
    """Tracks of equal ids where the prompt gives ids; else the one-to-one pairs that overlap most in all.

    Between pairs of equal overlap the nearer ones are taken.
    """
    if expected.ids:
        own = answer.tracks.ids
        both = [(own.index(each), place) for place, each in enumerate(expected.ids) if each in own]
        return Pairs(*np.array(both, np.intp).reshape(-1, 2).T)
    predicted, truth = answer.boxes, expected.truth
    apart = np.hypot(*np.moveaxis(_centres(predicted)[:, None] - _centres(truth)[None], -1, 0))
    near = np.exp(-apart / np.hypot(*np.moveaxis(truth[..., 2:] - truth[..., :2], -1, 0)))
    worth = track_overlaps(predicted, truth) + 1e-3 * np.nan_to_num(near)
    return Pairs(*linear_sum_assignment(worth.sum(-1), maximize=True))


def track_overlap(answer: ReadAnswer, expected: Expected) -> float:
    """IoU of the matched tracks, summed over frames, over all places where a track of the pair, or one without a pair,
    has a box. 1 where there is nothing and the answer says so.
    """
    predicted, truth = answer.boxes, expected.truth
    shown, visible = np.isfinite(predicted).all(-1), np.isfinite(truth).all(-1)
    if not shown.any() or not visible.any():
        return float(answer.readable and not shown.any() and not visible.any())
    rows, columns = matched_tracks(answer, expected)
    both = (shown[rows] & visible[columns]).sum()
    return float(track_overlaps(predicted, truth)[rows, columns].sum() / (shown.sum() + visible.sum() - both))


def track_motion(answer: ReadAnswer, expected: Expected) -> float:
    """Mean motion consistency of the matched tracks, from box to box, over the larger count of tracks.

    It counts wherever a true object is visible on a frame and on the one before; motions of the answer begin at its own
    box there, or for the first frame at the true one before, which the prompt shows. 1 where nothing is to be
    judged, unless the answer cannot be read.
    """
    predicted, truth = answer.boxes, expected.truth
    true_path = np.concatenate([expected.before[:, None], truth], 1)
    counted = np.isfinite(true_path[:, 1:]).all(-1) & np.isfinite(true_path[:, :-1]).all(-1)
    if not counted.any():
        return float(answer.readable)
    if not len(predicted):
        return 0.0
    rows, columns = matched_tracks(answer, expected)
    path = np.concatenate([expected.before[columns, None], predicted[rows]], 1)
    steps = (path[:, :-1], path[:, 1:], true_path[columns, :-1], true_path[columns, 1:])
    scores = motion_consistency(*(each.reshape(-1, 4) for each in steps), rests=RESTS).reshape(steps[0].shape[:2])
    share = min(1.0, len(truth) / len(predicted))
    return float((scores * counted[columns]).sum() / counted.sum() * share)


REWARDS: dict[str, tuple[Term, ...]] = {
    "paper": (
        Term("tags", 1.0, released_tags),
        Term("format", 1.0, listed_boxes),
        Term("boxes", 2.0, found_boxes),
        Term("motion", 1.0, motion_from_truth),
    ),
    "released": (
        Term("tags", 1.0, released_tags),
        Term("format", 1.0, released_items),
        Term("boxes", 2.0, released_accuracy),
        Term("motion", 1.0, released_motion),
    ),
    "ours": (
        Term("tags", 0.5, tags_once),
        Term("format", 1.0, sound_items),
        Term("boxes", 2.5, track_overlap),
        Term("motion", 1.0, track_motion),
    ),
}
"""By name. Weights of `paper` and `released` are those of the sum of five that both are: five times "reward" is the
released total. (The main text counts IoU alone, without L1; then "boxes" would weigh 1.)"""
