"""Query-driven tracking (RMOT26, the benchmark of QTrack): motion, position and overlap of one target in one clip.

What the release contains differs from the paper, and no commit holds the code that printed the paper's tables. So every
number here says which text it follows, and none may be printed under another's name:

    rmot26_proposed   the formulas of the paper (section 5, appendix D), completed where it is silent:
                      MCP, MOTP_all, MOTP_clear, MOTA, CLE, NDE and its variants
    rmot26_history    deleted code of gaash-lab/QTrack, metrics/ at 6cca8f7: MOTP_0.8, MOTA_0.8, MCP_history,
                      Robustness, DRE, VelocityError, MotionRecall
    rmot26_evaluator  evaluation_scripts/evaluate_QTrack.py at bc746fe, the only released evaluator: `box_iou`, and how
                      it reads an answer (`eval.metrics.query_mot_answers`); its one number is `MOTP_all`
    rmot26_head, rmot26_first   the two training rewards (`eval.metrics.query_mot_rewards`)

Boxes are xywh: left, top, width, height in pixels of the original frame, without "+1"; the centre is x + w / 2,
y + h / 2. A clip is one target: truth (frames, 4) and prediction (frames, 4), paired by position in the list. A frame
without a prediction is None or a row of NaN, and counts as the box [0, 0, 0, 0], whose centre is the corner of the
image; it is no false positive. Numbers of clips are averaged by the caller, every clip with the same weight.

MCP rewards standing still: a box that never moves scores 0.5 * exp(-1 / 1.62) = 0.2697 wherever the truth moves, more
than every baseline in the paper's Table 2. So `clip_metrics` gives that number, MCP_static_box, beside every MCP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trackgpt.errors import InputError, UsageError

FloatArray = NDArray[np.float64]
Predicted = ArrayLike | Sequence[ArrayLike | None]
Static = Literal["one", "exclude"]
Normaliser = Literal["box_diagonal", "sqrt_area", "image_diagonal"]

ALPHA = 0.9
EPS = 1e-6


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
    """Mean length of the difference of the two centres' motions, px per frame (rmot26_history, metrics/motion.py).

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
