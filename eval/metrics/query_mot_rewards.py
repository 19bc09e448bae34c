"""The rewards that QTrack was trained with, as its two commits pay them, for RMOT26's answers.

`rmot26_head` is verl/utils/reward_score/vision_reasoner.py of gaash-lab/QTrack at bc746fe, `rmot26_first` the same file
at e43ec0c. They differ from the paper and from the metrics of `eval.metrics.query_mot`, where boxes are defined: xywh
in pixels of the original frame.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from eval.metrics.query_mot import EPS, FloatArray
from trackgpt.errors import InputError
from trackgpt.settings import parse_json

MAX_OBJECTS = 120


@dataclass(frozen=True)
class RewardConvention:
    """How a commit of QTrack's reward counts; `RMOT26_HEAD` and `RMOT26_FIRST` are the two that exist.

    Attributes:
        name: to print.
        commit: of gaash-lab/QTrack.
        alpha: tolerance of the speed in MCP.
        rest: a prediction slower than this share of the true speed is punished.
        punishment: its MCP is multiplied by this.
        points: whether answers hold a point beside each box, and whether it is rewarded.
        centred: boxes count as (centre x, centre y, w, h) in the IoU; otherwise as (x1, y1, x2, y2) with "+1". The data
            are xywh from the left top corner, so both are wrong; see `accuracy_reward`.
    """

    name: str
    commit: str
    alpha: float
    rest: float
    punishment: float
    points: bool
    centred: bool


RMOT26_HEAD = RewardConvention("rmot26_head", "bc746fe", 0.8, 0.2, 0.1, points=False, centred=True)
RMOT26_FIRST = RewardConvention("rmot26_first", "e43ec0c", 0.9, 0.1, 0.2, points=True, centred=False)


def mcp_reward(
    previous: ArrayLike,
    current: ArrayLike,
    predicted: ArrayLike,
    convention: RewardConvention,
    exp: Callable[[float], float] = np.exp,
) -> float:
    """MCP of one predicted box as rewarded in training.

    Unlike the metric, it looks at the left top corner, and both motions start at the *true* box of the frame before;
    1e-6 is added to the denominators of the cosine and of the exponent; a prediction slower than `convention.rest` of
    the truth is punished. 1 if the truth moves less than 1e-6 px.

    Args:
        previous, current: float (4,), true xywh in pixels of the frame before and of this frame.
        predicted: float (4,), xywh in pixels.
        convention: `RMOT26_HEAD` or `RMOT26_FIRST`.
        exp: the exponential function, in which CPUs differ by the last bit (see `eval.parity.rmot26`).

    Returns:
        A number in [0, 1]; 0 where numbers too large for float64 make it NaN.

    Raises:
        InputError: a box has fewer than two numbers, or the first two are not finite.
    """
    origin, target, guess = (
        _corner(name, box) for name, box in (("previous", previous), ("current", current), ("predicted", predicted))
    )
    true_motion, motion = target - origin, guess - origin
    with np.errstate(all="ignore"):
        true_speed, speed = np.sqrt(_dot(true_motion, true_motion)), np.sqrt(_dot(motion, motion))
        if true_speed < EPS:
            return 1.0
        direction = (1.0 + _dot(motion, true_motion) / (speed * true_speed + EPS)) / 2.0
        likeness = exp(-((speed - true_speed) ** 2) / (2 * (convention.alpha * true_speed) ** 2 + EPS))
        punishment = convention.punishment if speed < convention.rest * true_speed else 1.0
        return float(np.clip(np.nan_to_num(direction * likeness * punishment), 0.0, 1.0))


def format_reward(answer: str, convention: RewardConvention) -> float:
    """Reward for the form of an answer: 1 for the tags, plus the mean over its items of what each holds.

    The tags count if <think>...</think>, white space and <answer>...</answer> are the whole string, without a blank
    before or after; nested or repeated tags pass. An item earns 1 for "bbox_2d", a list of four, and, where the
    convention has points, 1 for "point_2d", a list of two; what the lists hold is not looked at. If an item breaks the
    reading, what the items before it earned is kept.

    Args:
        answer: any string.
        convention: `RMOT26_HEAD` (0 to 2) or `RMOT26_FIRST` (0 to 3).
    """
    return float(has_tags(answer)) + items_reward(answer, convention)


def items_reward(answer: str, convention: RewardConvention) -> float:
    """The second part of `format_reward`: mean over the items, 0 to 1, or to 2 where the convention has points."""
    wanted = {"bbox_2d": 4, "point_2d": 2} if convention.points else {"bbox_2d": 4}
    earned = 0.0
    with contextlib.suppress(Exception):
        items = parse_json(answer_block(answer), "the answer")
        for item in items:
            fits = [
                key in item and isinstance(item[key], list) and len(item[key]) == size for key, size in wanted.items()
            ]
            earned += sum(fits) / len(items)
    return earned


def accuracy_reward(
    answer: str, truth: ArrayLike, convention: RewardConvention, points: ArrayLike | None = None
) -> float:
    """Reward for the boxes of an answer: what their best matching earns, over the larger of the two counts.

    A pair earns 1 for IoU > 0.5, 1 for a mean absolute difference of the four numbers below 10, and, where the
    convention has points, 1 for points less than 30 px apart if the predicted point lies in its box. At most 120
    objects of each side count. rmot26_head reads xywh boxes as if x, y were the centre, which leaves the IoU of equal
    sizes unchanged; rmot26_first reads them as corners with "+1", so that most IoUs are meaningless. rmot26_head takes
    boxes under "bbox_2d" or "bbox", rmot26_first under "bbox_2d" alone, and nothing without points.

    Args:
        answer: any string.
        truth: float (objects, 4), xywh in pixels.
        convention: `RMOT26_HEAD` (0 to 2) or `RMOT26_FIRST` (0 to 3).
        points: float (objects, 2), a point in each true object, x and y in pixels; without them rmot26_first gives 0.

    Returns:
        0 for an answer that cannot be read, and without truth.
    """
    with contextlib.suppress(Exception), np.errstate(all="ignore"):
        items = parse_json(answer_block(answer), "the answer")
        wanted = _table(np.asarray(truth, np.float64)[:MAX_OBJECTS], 4)
        if convention.points:
            found = _table(np.array([item["bbox_2d"] for item in items][:MAX_OBJECTS]), 4)
            dots = _table(np.array([item["point_2d"] for item in items][:MAX_OBJECTS]), 2)
            third = _point_reward(dots, found, np.asarray(points, np.float64)[:MAX_OBJECTS])
        else:
            boxes = [item.get("bbox_2d") or item.get("bbox") for item in items]
            found = _table(np.array([box for box in boxes if box is not None][:MAX_OBJECTS]), 4)
            third = np.zeros((len(found), len(wanted)))
        rewards = _overlap_reward(found, wanted, convention) + _nearness_reward(found, wanted) + third
        rows, columns = linear_sum_assignment(rewards, maximize=True)
        return float(rewards[rows, columns].sum() / max(rewards.shape))
    return 0.0


def total_reward(
    answer: str,
    previous: ArrayLike,
    current: ArrayLike,
    convention: RewardConvention,
    points: ArrayLike | None = None,
    exp: Callable[[float], float] = np.exp,
) -> float:
    """Format, accuracy and MCP rewards together, with equal weights.

    MCP compares the *first* box of the answer ("bbox" before "bbox_2d" here) with the first of the truth, unmatched.
    It is 0 if the answer has no such box or the truth is empty; the released code crashes on a box of no numbers, here
    that is 0 too.

    Args:
        answer: any string.
        previous, current: float (objects, 4), true xywh in pixels of the frame before and of this frame.
        convention: `RMOT26_HEAD` (0 to 5) or `RMOT26_FIRST` (0 to 7).
        points, exp: as in `accuracy_reward` and `mcp_reward`.
    """
    motion = 0.0
    box = first_box(answer)
    if box is not None and len(np.asarray(previous)) and len(np.asarray(current)):
        with contextlib.suppress(InputError):
            motion = mcp_reward(np.asarray(previous)[0], np.asarray(current)[0], box, convention, exp)
    return format_reward(answer, convention) + accuracy_reward(answer, current, convention, points) + motion


def has_tags(text: str) -> bool:
    r"""Whether r"<think>.*</think>\s*<answer>.*</answer>" is the whole text, in time linear in its length."""
    first, last = "<think>", "</answer>"
    if not (text.startswith(first) and text.endswith(last)):
        return False
    return re.search(r"</think>\s*<answer>", text[len(first) : -len(last)]) is not None


def answer_block(text: str) -> str:
    """What stands between the first <answer> and the next </answer>, without the blanks around it.

    Raises:
        ValueError: there is none.
    """
    block, end, _ = text.partition("<answer>")[2].partition("</answer>")
    if not end:
        raise ValueError("no <answer>")
    return block.strip()


def first_box(answer: str) -> Any:
    """The numbers of the first item, float64 of whatever shape they have, or None where there are none."""
    with contextlib.suppress(Exception):
        items = parse_json(answer_block(answer), "the answer")
        if isinstance(items, list) and items:
            return np.asarray(items[0]["bbox"] if "bbox" in items[0] else items[0]["bbox_2d"], np.float64)
    return None


def _corner(name: str, box: ArrayLike) -> FloatArray:
    values = np.asarray(box, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values[:2]).all():
        raise InputError(f"mcp_reward: {name} is {values.tolist()}, wanted four finite numbers, xywh")
    return values[:2]


def _dot(a: FloatArray, b: FloatArray) -> np.float64:
    # Not np.dot: BLAS may fuse the multiplication with the addition, and which CPUs it does so on differs.
    return a[0] * b[0] + a[1] * b[1]


def _overlap_reward(found: np.ndarray, truth: FloatArray, convention: RewardConvention) -> FloatArray:
    low, high, area = _corners(found[:, None], convention)
    true_low, true_high, true_area = _corners(truth[None], convention)
    gap = 0 if convention.centred else 1
    inside = np.maximum(0, np.minimum(high, true_high) - np.maximum(low, true_low) + gap).prod(-1)
    return (inside / (area + true_area - inside) > 0.5).astype(np.float64)


def _corners(boxes: np.ndarray, convention: RewardConvention) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, last = boxes[..., :2], boxes[..., 2:]
    if convention.centred:
        return first - last / 2, first + last / 2, last.prod(-1)
    return first, last, (last - first + 1).prod(-1)


def _nearness_reward(found: np.ndarray, truth: FloatArray) -> FloatArray:
    return (np.mean(np.abs(found[:, None] - truth[None]), axis=2) < 10).astype(np.float64)


def _point_reward(dots: np.ndarray, found: np.ndarray, points: FloatArray) -> FloatArray:
    near = np.sqrt(np.sum((dots[:, None] - points[None]) ** 2, axis=2)) < 30
    within = (dots >= found[:, :2]).all(1) & (dots <= found[:, 2:]).all(1)
    return (near & within[:, None]).astype(np.float64)


def _table(values: np.ndarray, columns: int) -> np.ndarray:
    if values.ndim != 2 or values.shape[1] != columns or not len(values) or not np.issubdtype(values.dtype, np.number):
        raise ValueError(f"not numbers of {columns} columns")
    return values
