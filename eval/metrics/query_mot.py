"""Query-driven tracking (RMOT26, the benchmark of QTrack): motion, position and overlap of one target in one clip.

What the release contains differs from the paper, and no commit holds the code that printed the paper's tables. So every
number here says which text it follows, and none may be printed under another's name:

    rmot26_proposed   the formulas of the paper (section 5, appendix D), completed where it is silent:
                      MCP, MOTP_all, MOTP_clear, MOTA, CLE, NDE and its variants
    rmot26_history    deleted code of gaash-lab/QTrack, metrics/ at 6cca8f7: MOTP_0.8, MOTA_0.8, MCP_history,
                      Robustness, DRE, VelocityError, MotionRecall
    rmot26_evaluator  evaluation_scripts/evaluate_QTrack.py at bc746fe, the only released evaluator: `box_iou`,
                      `parse_predicted_output`, `paired_by_position`; its one number is `MOTP_all`
    rmot26_head       the training reward at bc746fe, verl/utils/reward_score/vision_reasoner.py
    rmot26_first      the same file at e43ec0c, the first code drop

Boxes are xywh: left, top, width, height in pixels of the original frame, without "+1"; the centre is x + w / 2,
y + h / 2. A clip is one target: truth (frames, 4) and prediction (frames, 4), paired by position in the list. A frame
without a prediction is None or a row of NaN, and counts as the box [0, 0, 0, 0], whose centre is the corner of the
image; it is no false positive. Numbers of clips are averaged by the caller, every clip with the same weight.

MCP rewards standing still: a box that never moves scores 0.5 * exp(-1 / 1.62) = 0.2697 wherever the truth moves, more
than every baseline in the paper's Table 2. So `clip_metrics` gives that number, MCP_static_box, beside every MCP.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from trackgpt.errors import InputError, UsageError

FloatArray = NDArray[np.float64]
Predicted = ArrayLike | Sequence[ArrayLike | None]
Static = Literal["one", "exclude"]
Normaliser = Literal["box_diagonal", "sqrt_area", "image_diagonal"]

ALPHA = 0.9
EPS = 1e-6
MAX_OBJECTS = 120


# The whole clip


def clip_metrics(truth: ArrayLike, predicted: Predicted, size: tuple[int, int] | None = None) -> dict[str, float]:
    """All numbers of one clip by name, MCP never without the static box beside it.

    Args:
        truth: float (frames, 4), xywh in pixels.
        predicted: float (frames, 4), xywh in pixels; None or a row of NaN where nothing was predicted.
        size: width and height of the frames in pixels; None leaves NDE_imgdiag out.

    Returns:
        MCP, MCP_skip_static, MCP_static_box, MCP_static_box_skip_static (the static box under the convention of
        MCP_skip_static), MCP_history, IoU (= MOTP_all), MOTP_all, MOTP_clear, MOTP_0.8, MOTA, MOTA_0.8, CLE, NDE,
        NDE_sqrtarea, NDE_imgdiag, Robustness, DRE, VelocityError, MotionRecall; NaN where a number has no frames.

    Raises:
        InputError: shapes or values do not fit.
    """
    g, p = _clip(truth, predicted)
    found = {
        "MCP": mcp(g, p),
        "MCP_skip_static": mcp(g, p, static="exclude"),
        "MCP_static_box": static_box_baseline(g),
        "MCP_static_box_skip_static": static_box_baseline(g, static="exclude"),
        "MCP_history": mcp_history(g, p),
        "IoU": motp_all(g, p),
        "MOTP_all": motp_all(g, p),
        "MOTP_clear": motp_clear(g, p),
        "MOTP_0.8": motp_08(g, p),
        "MOTA": mota(g, p),
        "MOTA_0.8": mota_08(g, p),
        "CLE": cle(g, p),
        "NDE": nde(g, p),
        "NDE_sqrtarea": nde(g, p, "sqrt_area"),
        "Robustness": robustness(g, p),
        "DRE": drift_rate_error(g, p),
        "VelocityError": velocity_error(g, p),
        "MotionRecall": motion_recall(g, p),
    }
    return found if size is None else {**found, "NDE_imgdiag": nde(g, p, "image_diagonal", size)}


# Motion


def mcp(truth: ArrayLike, predicted: Predicted, alpha: float = ALPHA, static: Static = "one") -> float:
    """Motion Consistency Precision (rmot26_proposed): mean of direction times speed over the frames after the first.

    A = (1 + cos) / 2 of the angle between the motions of the two centres, each from its own box in the frame before;
    S = exp(-(v_p - v_g)^2 / (2 (alpha v_g)^2)) of their lengths; MCP = mean of A * S (paper, eq. 9 to 15, Alg. 2).
    A prediction that does not move has no direction: cos = 0, so A = 1/2.

    Args:
        truth: float (frames, 4), xywh in pixels.
        predicted: float (frames, 4), xywh; None or NaN where missing, which counts as the box [0, 0, 0, 0].
        alpha: tolerance of the speed, as a share of the true one; the paper's metric has 0.9.
        static: frames whose truth moves less than 1e-6 px count as 1 ("one", Alg. 2 line 5) or not at all ("exclude").

    Returns:
        MCP in [0, 1]; NaN if fewer than two frames are given, or if all are excluded.

    Raises:
        InputError: shapes or values do not fit.
        UsageError: `static` is unknown.
    """
    if static not in ("one", "exclude"):
        raise UsageError(f"mcp: static is {static!r}, wanted 'one' or 'exclude'")
    g, p = _clip(truth, predicted)
    true_motion, motion = _motion(g), _motion(_filled(p))
    true_speed, speed = np.hypot(*true_motion.T), np.hypot(*motion.T)
    moves, product = true_speed >= EPS, true_speed * speed
    cosine = np.where(product > 0, (true_motion * motion).sum(1) / np.where(product > 0, product, 1), 0.0)
    direction = (1 + np.clip(cosine, -1, 1)) / 2
    values = direction * np.exp(-((speed - true_speed) ** 2) / (2 * (alpha * np.where(moves, true_speed, 1)) ** 2))
    return _mean(values[moves] if static == "exclude" else np.where(moves, values, 1.0))


def static_box_baseline(truth: ArrayLike, alpha: float = ALPHA, static: Static = "one") -> float:
    """MCP (rmot26_proposed) of a box that stays where the truth is in the first frame; print it beside every MCP.

    0.5 * exp(-1 / (2 alpha^2)) if the truth moves in every frame, 0.2697 for alpha = 0.9; more where it rests and
    such frames count as 1.

    Args and raises as in `mcp`; NaN if fewer than two frames are given, or if all are excluded.
    """
    g, _ = _clip(truth, truth)
    return mcp(g, np.repeat(g[:1], len(g), axis=0), alpha, static)


def mcp_history(truth: ArrayLike, predicted: Predicted, alpha: float = ALPHA) -> float:
    """MCP of the deleted code (rmot26_history, metrics/mcp.py): as `mcp`, with these differences.

    Frames whose truth rests are left out; 0 if it always rests. 1e-6 is added to the denominators of the cosine and of
    the exponent. Fewer than two frames give NaN (None in the code). Args and raises as in `mcp`.
    """
    g, p = _clip(truth, predicted)
    true_motion, motion = _motion(g), _motion(_filled(p))
    true_speed, speed = np.hypot(*true_motion.T), np.hypot(*motion.T)
    cosine = (true_motion * motion).sum(1) / (speed * true_speed + EPS)
    values = (1 + cosine) / 2 * np.exp(-((speed - true_speed) ** 2) / (2 * (alpha * true_speed) ** 2 + EPS))
    moves = true_speed >= EPS
    if len(g) < 2:
        return np.nan
    return _mean(values[moves]) if moves.any() else 0.0


def velocity_error(truth: ArrayLike, predicted: Predicted) -> float:
    """Mean length of the difference of the two centres' motions, px a frame (rmot26_history, metrics/motion.py).

    The code computes in float32, we in float64. 0 if fewer than two frames are given. Args and raises as in `mcp`.
    """
    g, p = _clip(truth, predicted)
    return _mean(np.hypot(*(_motion(_filled(p)) - _motion(g)).T)) if len(g) > 1 else 0.0


def motion_recall(truth: ArrayLike, predicted: Predicted, threshold: float = 1.0) -> float:
    """Share of the frames in which the truth moves that the prediction moves in too.

    metrics/motion.py of rmot26_history. To move is to shift the centre by more than `threshold` px, in whatever
    direction. The code computes in float32, we in float64. 1 if the truth never moves, 0 if fewer than two frames are
    given. Args and raises as in `mcp`.
    """
    g, p = _clip(truth, predicted)
    if len(g) < 2:
        return 0.0
    moves, follows = (np.hypot(*_motion(boxes).T) > threshold for boxes in (g, _filled(p)))
    return float((moves & follows).sum() / moves.sum()) if moves.any() else 1.0


# Overlap


def box_iou(truth: ArrayLike, predicted: ArrayLike) -> FloatArray:
    """IoU of pairs of boxes as the released evaluator forms it: 1e-6 is added to the union (rmot26_evaluator).

    So equal boxes reach 1 - 1e-6 / area, and two empty boxes 0.

    Args:
        truth, predicted: float (..., 4), xywh in pixels; they are broadcast against each other.

    Returns:
        float64 (...,) in [0, 1).

    Raises:
        InputError: the last axis has not four values.
    """
    return _iou(truth, predicted, EPS)


def motp_all(truth: ArrayLike, predicted: Predicted) -> float:
    """Mean IoU over all frames, `MOTP_all`: the one number of the released evaluator, its average_iou.

    IoU as in `box_iou`; a missing prediction counts as 0. NaN without frames. Args and raises as in `mcp`.
    """
    g, p = _clip(truth, predicted)
    return _mean(box_iou(g, _filled(p)))


def motp_clear(truth: ArrayLike, predicted: Predicted) -> float:
    """Mean IoU over the frames where it is at least 0.5, `MOTP_clear`; 0 if there is none (rmot26_proposed).

    CLEAR's definition for a single target, with the IoU of `box_iou`. Several targets belong to
    `eval.metrics.multi_object`. NaN without frames. Args and raises as in `mcp`.
    """
    g, p = _clip(truth, predicted)
    overlaps = box_iou(g, _filled(p))
    return _mean_of_hits(overlaps, overlaps >= 0.5)


def motp_08(truth: ArrayLike, predicted: Predicted) -> float:
    """Mean IoU over the frames where it is at least 0.8, `MOTP_0.8`; 0 if there is none.

    metrics/mota.py of rmot26_history; the IoU has no 1e-6 there. The code then averages over tracks, a track without
    a hit counting 0, and leaves out
    tracks in which a prediction is missing; here those stay in. NaN without frames. Args and raises as in `mcp`.
    """
    g, p = _clip(truth, predicted)
    overlaps = _iou(g, _filled(p), 0.0)
    return _mean_of_hits(overlaps, overlaps >= 0.8)


def mota(truth: ArrayLike, predicted: Predicted) -> float:
    """(TP - FP) / frames at IoU 0.5 (rmot26_proposed): CLEAR's MOTA of one target, which cannot switch identities.

    TP are frames with an IoU (`box_iou`) of at least 0.5, FP other frames with a prediction. In [-1, 1]; NaN without
    frames. Args and raises as in `mcp`.
    """
    g, p = _clip(truth, predicted)
    hits = box_iou(g, _filled(p)) >= 0.5
    false = _present(p).sum() - hits.sum()
    return float((hits.sum() - false) / len(g)) if len(g) else np.nan


def mota_08(truth: ArrayLike, predicted: Predicted) -> float:
    """1 - (FN + FP) / frames at IoU 0.8, `MOTA_0.8`: a wrong box counts twice, a missing one once.

    metrics/mota.py of rmot26_history; IoU without the 1e-6. In [-1, 1]; 0 without frames. Args and raises as in `mcp`.
    """
    g, p = _clip(truth, predicted)
    missed = _iou(g, _filled(p), 0.0) < 0.8
    return 1.0 - float(missed.sum() + (missed & _present(p)).sum()) / len(g) if len(g) else 0.0


def robustness(truth: ArrayLike, predicted: Predicted) -> float:
    """Share of frames whose IoU is above 0 (rmot26_history, metrics/rob.py, `robustness_vot`); 0 without frames.

    Not VOT's robustness: nothing is restarted, nothing anchored. Args and raises as in `mcp`.
    """
    g, p = _clip(truth, predicted)
    return float((_iou(g, _filled(p), 0.0) > 0).sum() / len(g)) if len(g) else 0.0


def drift_rate_error(truth: ArrayLike, predicted: Predicted) -> float:
    """Share of frames with a predicted box whose IoU is 0, `DRE` (rmot26_history, metrics/dre.py, `dre_vot`).

    Frames without a prediction are in the denominator alone, so robustness + DRE + missing share = 1; 0 without
    frames. VOT's DRE divides otherwise. Args and raises as in `mcp`.
    """
    g, p = _clip(truth, predicted)
    drifts = (_iou(g, _filled(p), 0.0) <= 0) & _present(p)
    return float(drifts.sum() / len(g)) if len(g) else 0.0


# Position


def cle(truth: ArrayLike, predicted: Predicted) -> float:
    """Centre location error: mean distance of the two centres in px; NaN without frames (rmot26_proposed).

    A missing prediction lies at (0, 0) of the frame. Args and raises as in `mcp`.
    """
    return _mean(_distances(*_clip(truth, predicted)))


def nde(
    truth: ArrayLike,
    predicted: Predicted,
    normaliser: Normaliser = "box_diagonal",
    size: tuple[int, int] | None = None,
) -> float:
    """Normalised displacement error: mean of each frame's centre distance over a length of that frame.

    Args:
        truth: float (frames, 4), xywh in pixels; w and h above 0 but for "image_diagonal".
        predicted: as in `mcp`.
        normaliser: "box_diagonal", that of the true box (rmot26_proposed; also metrics/nde.py of rmot26_history, which
            leaves frames without a prediction out);
            "sqrt_area", sqrt(w h) of the true box; "image_diagonal", that of the frame.
        size: width and height of the frame in pixels, for "image_diagonal" alone.

    Returns:
        NDE >= 0; NaN without frames.

    Raises:
        InputError: shapes or values do not fit, or a true box has no such length.
        UsageError: the normaliser is unknown, or "image_diagonal" comes without a size.
    """
    g, p = _clip(truth, predicted)
    if normaliser == "box_diagonal":
        length = np.hypot(g[:, 2], g[:, 3])
    elif normaliser == "sqrt_area":
        length = np.sqrt(np.maximum(g[:, 2] * g[:, 3], 0))
    elif normaliser == "image_diagonal" and size is not None and min(size) > 0:
        length = np.full(len(g), np.hypot(*size))
    else:
        raise UsageError(
            f"nde: normaliser {normaliser!r} with the size {size}, wanted 'box_diagonal', 'sqrt_area', or "
            "'image_diagonal' with width and height"
        )
    empty = np.flatnonzero(length <= 0)
    if empty.size:
        raise InputError(f"truth, frame {empty[0]}: a box of {g[empty[0], 2:].tolist()}, wanted w and h above 0")
    return _mean(_distances(g, p) / length)


# The released evaluator's reading of an answer


def parse_predicted_output(text: str) -> list[tuple[Any, Any]]:
    """Read frames and boxes from an answer of a model as the released evaluator does (rmot26_evaluator).

    First the whole text as JSON: a list of objects, of which those with "frame" and a box under "bbox" or else
    "bbox_2d" count; neither value is looked at. If that fails, every piece of text that looks like such an object,
    written on one line with a whole number as frame.

    Args:
        text: any string.

    Returns:
        (frame, box) in the order of the text; box is a list of numbers, unless the JSON says otherwise. Empty if
        nothing is found, or if a piece of text holds something else than numbers (the evaluator then drops the whole
        answer).
    """
    with contextlib.suppress(Exception):
        items = json.loads(text)
        if isinstance(items, list):
            found = [(item["frame"], item.get("bbox") or item.get("bbox_2d")) for item in items if "frame" in item]
            return [(frame, box) for frame, box in found if box is not None]
    try:
        return [(int(frame), [float(x) for x in box.split(",")]) for frame, box in _OBJECT.findall(text)]
    except ValueError:
        return []


_OBJECT = re.compile(r'\{.*?"frame":\s*(\d+).*?"bbox(?:_2d)?":\s*\[([^\]]+)\].*?\}')


def paired_by_position(parsed: Sequence[tuple[Any, Any]], frames: int) -> FloatArray:
    """Boxes for the frames of a clip, the first parsed box for the first frame and so on (rmot26_evaluator).

    What the model says about frame numbers is ignored, so one left-out frame shifts all that follow. Boxes above
    `frames` are dropped.

    Args:
        parsed: what `parse_predicted_output` returns.
        frames: of the clip.

    Returns:
        float64 (frames, 4), xywh; NaN where there is no box of four finite numbers, which the other functions count as
        [0, 0, 0, 0], as the evaluator does (it crashes on three or five numbers).
    """
    boxes = np.full((frames, 4), np.nan)
    for row, (_, box) in zip(boxes, parsed):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            values = [float(x) for x in box]
            if len(values) == 4 and np.isfinite(values).all():
                row[:] = values
    return boxes


# The released rewards


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
    wanted = {"bbox_2d": 4, "point_2d": 2} if convention.points else {"bbox_2d": 4}
    earned = 0.0
    with contextlib.suppress(Exception):
        items = json.loads(_answer(answer))
        for item in items:
            fits = [
                key in item and isinstance(item[key], list) and len(item[key]) == size for key, size in wanted.items()
            ]
            earned += sum(fits) / len(items)
    return (1.0 if _THINK_THEN_ANSWER.fullmatch(answer) else 0.0) + earned


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
        items = json.loads(_answer(answer))
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
    box = _first_box(answer)
    if box is not None and len(np.asarray(previous)) and len(np.asarray(current)):
        with contextlib.suppress(InputError):
            motion = mcp_reward(np.asarray(previous)[0], np.asarray(current)[0], box, convention, exp)
    return format_reward(answer, convention) + accuracy_reward(answer, current, convention, points) + motion


_THINK_THEN_ANSWER = re.compile(r"<think>.*</think>\s*<answer>.*</answer>", re.DOTALL)


def _answer(text: str) -> str:
    block, end, _ = text.partition("<answer>")[2].partition("</answer>")
    if not end:
        raise ValueError("no <answer>")
    return block.strip()


def _first_box(answer: str) -> Any:
    with contextlib.suppress(Exception):
        items = json.loads(_answer(answer))
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


# Boxes of a clip


def _clip(truth: ArrayLike, predicted: Predicted) -> tuple[FloatArray, FloatArray]:
    g, p = _boxes("truth", truth), _boxes("predicted", predicted)
    if g.shape != p.shape:
        raise InputError(
            f"truth has {len(g)} frames and the prediction {len(p)}, wanted as many; give None where empty"
        )
    if not np.isfinite(g).all():
        frame = np.flatnonzero(~np.isfinite(g).all(1))[0]
        raise InputError(f"truth, frame {frame}: {g[frame].tolist()}, wanted a box; leave out frames without a truth")
    half = np.flatnonzero(~np.isfinite(p).all(1) & ~np.isnan(p).all(1))
    if half.size:
        raise InputError(f"predicted, frame {half[0]}: {p[half[0]].tolist()}, wanted four finite numbers, or None")
    return g, p


def _boxes(name: str, boxes: Predicted) -> FloatArray:
    rows: Any = boxes
    try:
        if not isinstance(boxes, np.ndarray):
            rows = [[np.nan] * 4 if box is None else box for box in rows]
        found = np.asarray(rows, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {error}; wanted numbers (frames, 4), xywh") from error
    found = found.reshape(0, 4) if found.size == 0 else found
    if found.ndim != 2 or found.shape[1] != 4:
        raise InputError(f"{name}: the shape is {found.shape}, wanted (frames, 4), xywh")
    return found


def _present(predicted: FloatArray) -> NDArray[np.bool_]:
    return ~np.isnan(predicted[:, 0])


def _filled(predicted: FloatArray) -> FloatArray:
    return np.where(_present(predicted)[:, None], predicted, 0.0)


def _centres(boxes: FloatArray) -> FloatArray:
    return boxes[:, :2] + boxes[:, 2:] / 2


def _motion(boxes: FloatArray) -> FloatArray:
    return np.diff(_centres(boxes), axis=0)


def _distances(truth: FloatArray, predicted: FloatArray) -> FloatArray:
    return np.hypot(*(_centres(truth) - _centres(_filled(predicted))).T)


def _iou(truth: ArrayLike, predicted: ArrayLike, eps: float) -> FloatArray:
    a, b = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if a.shape[-1:] != (4,) or b.shape[-1:] != (4,):
        raise InputError(f"boxes have the shapes {a.shape} and {b.shape}, wanted (..., 4), xywh")
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    width, height = np.moveaxis(np.maximum(0, high - low), -1, 0)
    inside = width * height
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - inside + eps
    return np.divide(inside, union, out=np.zeros_like(union), where=union != 0)


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _mean_of_hits(overlaps: FloatArray, hits: NDArray[np.bool_]) -> float:
    if not len(overlaps):
        return np.nan
    return _mean(overlaps[hits]) if hits.any() else 0.0
