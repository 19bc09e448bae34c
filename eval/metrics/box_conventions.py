"""Per-frame errors of one target's boxes, one function a toolkit: how each treats absent frames and bad boxes.

All boxes are float64 x, y, width, height in pixels. The right edge is x + w - 1 and the centre x + (w - 1) / 2, so a
box of width 1 covers one pixel; only GOT-10k's overlap has no such 1. `absent` is bool, True where the target is not
visible: which number means that in a flag file differs between data sets, and `box_files.read_absent` converts.
The prediction of the first frame is replaced by the truth everywhere but in GOT-10k, which leaves that frame out.

The order of the operations is the toolkits', since the last bit depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from eval.metrics.boxes import BoolArray, FloatArray, FrameErrors
from trackgpt.errors import InputError, UsageError

PytrackingDataset = Literal["lasot", "otb", "uav", "tnl2k"]
AbsentPolicy = Literal["released", "paper", "strict"]


def lasot_matlab(predicted: ArrayLike, truth: ArrayLike, absent: ArrayLike) -> FrameErrors:
    """LaSOT's Matlab toolkit (HengLan/LaSOT_Evaluation_Toolkit@95bf38a, calc_seq_err_robust.m).

    TNL2K's own toolkit is a copy of it with the same flags (wangxiao5791509/TNL2K_evaluation_toolkit@1a96f6e).
    Absent frames are taken out, but stay in the number of frames: they fail every threshold. A predicted row with NaN,
    w <= 0 or h <= 0 becomes a copy of the row before it (not the first row, and not where the truth is NaN). A visible
    truth with x, y, w or h <= 0 or NaN has the overlap -1, a failure, and the errors -1, a hit.

    Args:
        predicted: (at least frames, 4); rows after the truth's last are cut off. NaN is allowed.
        truth: (frames, 4); NaN is allowed.
        absent: bool (frames,).

    Returns:
        Errors of the frames that are not absent; `frames` is the whole length.

    Raises:
        InputError: shapes do not fit, or fewer predictions than truths.
    """
    return _matlab("lasot_matlab", predicted, truth, absent)


def tnllt(predicted: ArrayLike, truth: ArrayLike, absent: ArrayLike) -> FrameErrors:
    """TNLLT's Matlab toolkit (Event-AHU/Open_VLTrack@fccc2c7, TNLLT_Evaluation_Toolkit): LaSOT's arithmetic.

    The one difference is in the files: TNLLT's flag 1 means present. `absent` is True where the target is NOT visible
    here as everywhere; `read_absent(path, TNLLT_ABSENT)` gives that.

    Args:
        predicted, truth, absent: as for `lasot_matlab`.

    Returns:
        As `lasot_matlab`.

    Raises:
        InputError: as `lasot_matlab`.
    """
    return _matlab("tnllt", predicted, truth, absent)


def pytracking(
    predicted: ArrayLike, truth: ArrayLike, absent: ArrayLike | None, dataset: PytrackingDataset
) -> FrameErrors:
    """pytracking (visionml/pytracking@7eb9e74, analysis/extract_results.py).

    A frame is valid if the target is not absent and the truth's four numbers are > 0. Others have the overlap -1 (a
    failure), the centre error Inf (a failure; -1, a hit, for `uav`) and the normalised error -1 (a hit); for `lasot`
    absent frames have the normalised error Inf (a failure). A prediction with w == 0 or h == 0 becomes a copy of the
    row before it.

    Args:
        predicted: (n, 4); longer ones are cut. Shorter ones are filled up with boxes 0, 0, 0, 0, but refused for
            `lasot`. Not NaN, sizes not negative.
        truth: (frames, 4); NaN for `uav` alone.
        absent: bool (frames,), for LaSOT full occlusion or out of view; None where the data set has no flags.
        dataset: whose rules; each has its own convention, `pytracking_lasot` and so on.

    Returns:
        Errors of all frames.

    Raises:
        InputError: shapes do not fit, NaN or a negative size in the predictions (the toolkit raises too), NaN in the
            truth, too few predictions or no flags for `lasot`.
        UsageError: unknown data set.
    """
    if dataset not in ("lasot", "otb", "uav", "tnl2k"):
        raise UsageError(f"pytracking: unknown data set {dataset!r}, wanted lasot, otb, uav or tnl2k")
    name = f"pytracking_{dataset}"
    if dataset == "lasot" and absent is None:
        raise InputError(f"{name}: no flags of absent frames; read full_occlusion.txt and out_of_view.txt")
    found, wanted, gone = _checked(name, predicted, truth, absent)
    bad = np.flatnonzero(np.isnan(found).any(1) | (found[:, 2:] < 0).any(1))
    if bad.size:
        raise InputError(
            f"{name}: row {bad[0]} of the predictions is {found[bad[0]].tolist()}, wanted w, h >= 0, no NaN"
        )
    if dataset != "uav":
        _refuse_nan_truth(name, wanted)
    short = len(found) < len(wanted)
    if short and dataset == "lasot":
        raise _too_short(name, found, wanted)
    found = found[: len(wanted)]
    found = _filled_up(_repaired(found, (found[:, 2:] == 0).any(1), wanted), len(wanted))
    found[0] = wanted[0]
    overlap, centre, normalised = _errors(found, wanted)
    valid = (wanted > 0).all(1) & ~gone
    overlap[~valid], normalised[~valid] = -1, -1
    centre[~valid] = -1 if dataset == "uav" else np.inf
    if dataset == "lasot":
        normalised[gone] = np.inf
    return FrameErrors(name, overlap, centre, normalised, valid, len(wanted))


def interacttrack(
    predicted: ArrayLike, truth: ArrayLike, absent: ArrayLike, absent_policy: AbsentPolicy = "released"
) -> FrameErrors:
    """InteractTrack's `int` mode (NorahGreen/InteractTrack@5f149d4, lib/test/analysis/extract_results.py).

    As `pytracking` for `tnl2k`, but only the truth's w and h must be > 0, predictions are not checked first, and they
    are filled up before rows with w == 0 or h == 0 copy the row before: what is missing at the end repeats the last
    box. Policies for frames without a valid truth:

    * `released`: overlap -1 and centre error Inf are failures, but the normalised error -1 is a hit at every threshold:
      the more frames are absent, the higher the normalised precision. Kept because published numbers have it.
    * `strict`: the defect repaired; such a frame is a failure in all three curves.
    * `paper`: such frames are not scored at all, neither above nor below the fraction line.

    Args:
        predicted: (n, 4); longer ones are cut.
        truth: (frames, 4), from the first visible frame on, as the toolkit's loader cuts it; not NaN.
        absent: bool (frames,), as `trackgpt.data.box_files.read_interacttrack_truth` derives it.
        absent_policy: see above; each has its own convention, `interacttrack_released` and so on.

    Returns:
        Errors of all frames; for `paper` of the valid ones.

    Raises:
        InputError: shapes do not fit, NaN in the truth, or a prediction that makes an overlap NaN (the toolkit raises).
        UsageError: unknown policy.
    """
    if absent_policy not in ("released", "paper", "strict"):
        raise UsageError(f"interacttrack: unknown policy {absent_policy!r}, wanted released, paper or strict")
    name = f"interacttrack_{absent_policy}"
    found, wanted, gone = _checked(name, predicted, truth, absent)
    _refuse_nan_truth(name, wanted)
    found = _filled_up(found[: len(wanted)], len(wanted))
    found = _repaired(found, (found[:, 2:] == 0).any(1), wanted)
    found[0] = wanted[0]
    overlap, centre, normalised = _errors(found, wanted)
    valid = (wanted[:, 2:] > 0).all(1) & ~gone
    overlap[~valid], centre[~valid] = -1, np.inf
    normalised[~valid] = -1 if absent_policy == "released" else np.inf
    bad = np.flatnonzero(np.isnan(overlap))
    if bad.size:
        raise InputError(f"{name}: the overlap of frame {bad[0]} is NaN; its prediction is {found[bad[0]].tolist()}")
    if absent_policy != "paper":
        return FrameErrors(name, overlap, centre, normalised, valid, len(wanted))
    return FrameErrors(name, overlap[valid], centre[valid], normalised[valid], valid[valid], int(valid.sum()))


def got10k_toolkit(predicted: ArrayLike, truth: ArrayLike) -> FrameErrors:
    """The got10k toolkit's own LaSOT experiment (got10k/toolkit@956e728): no flags, no repairs.

    Overlap without the 1 and with 2**-52 added to the union; the normalised error divides by max(1, w) and max(1, h).
    Frames whose truth is NaN are left out altogether; absent frames are frames like others. It reports the mean of the
    normalised precision curve (`Figures.normalised_precision_mean`). Its OTB experiment has the same success and
    precision where the truth has no NaN.

    Args:
        predicted: (n, 4); the longer of the two is cut. NaN is allowed and fails.
        truth: (frames, 4); NaN is allowed.

    Returns:
        Errors of the frames with a truth.

    Raises:
        InputError: shapes do not fit.
    """
    found, wanted, _ = _checked("got10k_toolkit", predicted, truth, None)
    if not len(found):
        raise InputError("got10k_toolkit: no predictions; finish the run")
    length = min(len(found), len(wanted))
    found, wanted = found[:length].copy(), wanted[:length]
    found[0] = wanted[0]
    known = ~np.isnan(wanted).any(1)
    found, wanted = found[known], wanted[known]
    apart = _centres(found) - _centres(wanted)
    centre = np.sqrt(np.sum(np.power(apart, 2), axis=1))
    normalised = np.sqrt(np.sum(np.power(apart / np.maximum(1.0, wanted[:, 2:]), 2), axis=1))
    overlap = _overlap_without_one(found, wanted)
    return FrameErrors("got10k_toolkit", overlap, centre, normalised, np.ones(len(wanted), np.bool_), len(wanted))


@dataclass(frozen=True)
class Got10kFigures:
    """GOT-10k's numbers, fractions of 1.

    Attributes:
        frames: how many frames were pooled.
        average_overlap: AO, mean overlap; NaN if one overlap is NaN or there is none.
        success_50, success_75: SR, share of frames with an overlap > 0.5 and > 0.75.
        success_curve: float64 (101,), share of frames with an overlap > 0, 0.01, ..., 1.
    """

    frames: int
    average_overlap: float
    success_50: float
    success_75: float
    success_curve: FloatArray


def got10k_overlaps(
    predicted: ArrayLike, truth: ArrayLike, cover: ArrayLike, image_size: tuple[float, float]
) -> FloatArray:
    """Overlaps of one sequence of GOT-10k (got10k/toolkit@956e728, experiments/got10k.py).

    Both boxes are clipped to the image: x and y to [0, size], then w and h to what is left. A box that begins left of
    the image keeps its width, so it moves; that is the toolkit's rule. The first frame and frames with cover 0 are left
    out. Overlap without the 1, with 2**-52 added to the union.

    Args:
        predicted: (frames, 4). NaN is allowed.
        truth: (frames, 4).
        cover: (frames,), how much of the target is visible, 0 to 8 as in cover.label; 0 = absent.
        image_size: width, height in pixels (`resolution` in meta_info.ini).

    Returns:
        float64 (scored frames,), in [0, 1] or NaN.

    Raises:
        InputError: shapes do not fit.
    """
    found, wanted, _ = _checked("got10k", predicted, truth, None)
    visible = np.asarray(cover) > 0
    if len(found) != len(wanted) or visible.shape != (len(wanted),):
        shapes = f"{len(found)} predictions, {len(wanted)} truths and cover of the shape {visible.shape}"
        raise InputError(f"got10k: {shapes}, wanted one of each per frame")
    overlap = _overlap_without_one(_clipped(found[1:], image_size), _clipped(wanted[1:], image_size))
    return overlap[visible[1:]]


def got10k_figures(overlaps: Sequence[FloatArray]) -> Got10kFigures:
    """AO and SR over all frames of all sequences, so that long sequences weigh more.

    Args:
        overlaps: one array of `got10k_overlaps` per sequence; a single one gives the numbers of that sequence.

    Returns:
        The figures; NaN without frames.

    Raises:
        InputError: no sequences.
    """
    if not len(overlaps):
        raise InputError("got10k: no sequences, wanted the overlaps of at least one")
    pooled = np.concatenate([np.asarray(values, np.float64) for values in overlaps])
    if not pooled.size:
        return Got10kFigures(0, np.nan, np.nan, np.nan, np.full(101, np.nan))
    curve = (pooled[:, None] > np.linspace(0, 1, 101)).mean(0)
    over_50, over_75 = (float(np.mean(pooled > threshold)) for threshold in (0.5, 0.75))
    return Got10kFigures(pooled.size, float(pooled.mean()), over_50, over_75, curve)


def _matlab(name: str, predicted: ArrayLike, truth: ArrayLike, absent: ArrayLike) -> FrameErrors:
    found, wanted, gone = _checked(name, predicted, truth, absent)
    if len(found) < len(wanted):
        raise _too_short(name, found, wanted)
    found = found[: len(wanted)]
    found = _repaired(found, np.isnan(found).any(1) | (found[:, 2:] <= 0).any(1), wanted)
    found[0] = wanted[0]
    overlap, centre, normalised = _errors(found[~gone], wanted[~gone])
    valid = (wanted[~gone] > 0).all(1)
    overlap[~valid], centre[~valid], normalised[~valid] = -1, -1, -1
    return FrameErrors(name, overlap, centre, normalised, valid, len(wanted))


def _checked(
    name: str, predicted: ArrayLike, truth: ArrayLike, absent: ArrayLike | None
) -> tuple[FloatArray, FloatArray, BoolArray]:
    found, wanted = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    for what, boxes in (("predictions", found), ("truths", wanted)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise InputError(f"{name}: the {what} have the shape {boxes.shape}, wanted (frames, 4): x, y, w, h")
    if not len(wanted):
        raise InputError(f"{name}: a sequence without frames, wanted at least one truth")
    gone = np.zeros(len(wanted), np.bool_) if absent is None else np.asarray(absent)
    if gone.dtype != np.bool_ or gone.shape != (len(wanted),):
        flags = f"flags of absent frames are {gone.dtype} {gone.shape}"
        raise InputError(f"{name}: {flags}, wanted bool ({len(wanted)},), True = absent; read_absent converts a file")
    return found, wanted, gone


def _too_short(name: str, found: FloatArray, wanted: FloatArray) -> InputError:
    return InputError(
        f"{name}: {len(found)} predictions for {len(wanted)} frames; finish the run, this toolkit fills none"
    )


def _refuse_nan_truth(name: str, wanted: FloatArray) -> None:
    bad = np.flatnonzero(np.isnan(wanted).any(1))
    if bad.size:
        raise InputError(f"{name}: the truth of frame {bad[0]} is {wanted[bad[0]].tolist()}, wanted no NaN")


def _repaired(found: FloatArray, bad: BoolArray, wanted: FloatArray) -> FloatArray:
    """A new array in which a bad row is a copy of the row before it, unless it is the first or its truth is NaN."""
    bad = bad & ~np.isnan(wanted[: len(found)]).any(1)
    # Of each row the last index up to it that is not bad; 0 for rows before the first good one.
    return found[np.maximum.accumulate(np.where(bad, 0, np.arange(len(found))))]


def _filled_up(found: FloatArray, frames: int) -> FloatArray:
    return np.concatenate((found, np.zeros((frames - len(found), 4))))


def _centres(boxes: FloatArray) -> FloatArray:
    return boxes[:, :2] + (boxes[:, 2:] - 1) / 2


def _errors(found: FloatArray, wanted: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Overlap, centre error and normalised centre error; rows whose truth is unusable are overwritten by the caller."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ours, truth, size = _centres(found), _centres(wanted), wanted[:, 2:]
        centre = np.sqrt(((ours - truth) ** 2).sum(1))
        normalised = np.sqrt(((ours / size - truth / size) ** 2).sum(1))
        right = np.minimum(found[:, :2] + found[:, 2:] - 1, wanted[:, :2] + wanted[:, 2:] - 1)
        shared = np.maximum(right - np.maximum(found[:, :2], wanted[:, :2]) + 1, 0).prod(1)
        overlap = shared / (found[:, 2] * found[:, 3] + wanted[:, 2] * wanted[:, 3] - shared)
    return overlap, centre, normalised


def _clipped(boxes: FloatArray, image_size: tuple[float, float]) -> FloatArray:
    size = np.asarray(image_size, np.float64)
    corner = np.clip(boxes[:, :2], 0, size)
    return np.concatenate((corner, np.clip(boxes[:, 2:], 0, size - corner)), axis=1)


def _overlap_without_one(found: FloatArray, wanted: FloatArray) -> FloatArray:
    right = np.minimum(found[:, :2] + found[:, 2:], wanted[:, :2] + wanted[:, 2:])
    shared = np.maximum(right - np.maximum(found[:, :2], wanted[:, :2]), 0).prod(1)
    union = found[:, 2:].prod(1) + wanted[:, 2:].prod(1) - shared
    # A width below 0 can make the union 0; the toolkit then divides by 2**-52 and clips.
    return np.clip(shared / (union + np.finfo(np.float64).eps), 0.0, 1.0)
