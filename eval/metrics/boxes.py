"""Success, precision and normalised precision of one target's boxes: from per-frame errors to a table.

Overlap, centre error and normalised centre error of each frame (`eval.metrics.box_conventions` has one function a
toolkit) -> how many frames pass each of 21 / 51 / 51 thresholds (`sequence_result`, small integers that a kit can save)
-> mean curves and AUC, OP50, P@20, NP@0.20 over sequences (`figures`, `attribute_figures`). Toolkits disagree about
absent frames, bad boxes, float width and which sequences are averaged, so every object carries the name of its
convention, and results of two conventions are never averaged.

Boxes are float64 x, y, width, height here, as in the toolkits' files; inside the package they are xyxy: see `xywh`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trackgpt.errors import InputError, UsageError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

OVERLAP_THRESHOLDS: FloatArray = np.arange(21) * 0.05
"""0, 0.05, ..., 1, as Octave's 0:0.05:1, torch.arange and np.linspace compute them (IoU must be greater)."""
PIXEL_THRESHOLDS: FloatArray = np.arange(51.0)
"""0, 1, ..., 50 px (the centre error may be equal)."""
NORMALISED_THRESHOLDS: FloatArray = np.arange(51) / 100
"""0, 0.01, ..., 0.5 sizes of the truth (the normalised centre error may be equal)."""
NORMALISED_LINSPACE: FloatArray = np.linspace(0, 0.5, 51)
"""The same as the got10k toolkit computes them: a few differ from n / 100 in the last bit."""


CONVENTIONS: dict[str, Literal["matlab", "torch", "numpy"]] = {
    "lasot_matlab": "matlab",
    "tnllt": "matlab",
    **{f"pytracking_{dataset}": "torch" for dataset in ("lasot", "otb", "uav", "tnl2k")},
    **{f"interacttrack_{policy}": "torch" for policy in ("released", "paper", "strict")},
    "got10k_toolkit": "numpy",
}
"""The conventions and whose arithmetic their means follow; `eval.metrics.box_conventions` says what a frame counts.

matlab: float64 fractions; 2**-52 is added to the number of frames (it changes sequences of one frame); a curve that
    sums to 0 is left out of its mean; the mean of a curve is summed from left to right.
torch: float32, summed by torch, in per cent.
numpy: float64 fractions, summed by numpy; normalised errors are compared with `NORMALISED_LINSPACE`.
"""
_EPS = np.finfo(np.float64).eps


@dataclass(frozen=True)
class FrameErrors:
    """Errors of the frames of one sequence that its convention looks at.

    Attributes:
        convention: a key of `CONVENTIONS`.
        overlap: float64 (compared,), IoU; -1 or NaN fails every threshold.
        centre: float64 (compared,), distance of the centres in px; -1 passes every threshold, Inf and NaN fail.
        normalised: float64 (compared,), distance of the centres after dividing x and y by the truth's width and
            height; -1 passes every threshold, Inf and NaN fail.
        valid: bool (compared,), frames with a usable truth.
        frames: what hits are divided by; may exceed `compared`, the frames left out then count as failures.
    """

    convention: str
    overlap: FloatArray
    centre: FloatArray
    normalised: FloatArray
    valid: BoolArray
    frames: int


@dataclass(frozen=True)
class SequenceResult:
    """What a kit keeps of one sequence: integers and two plain values, so it survives JSON unchanged.

    Attributes:
        convention: a key of `CONVENTIONS`.
        frames: what hits are divided by.
        success_hits: 21 numbers of frames, IoU > 0, 0.05, ..., 1.
        precision_hits: 51 numbers of frames, centre error <= 0, 1, ..., 50 px.
        normalised_hits: 51 numbers of frames, normalised centre error <= 0, 0.01, ..., 0.5.
        mean_overlap: mean IoU of the frames with a usable truth; NaN without one. (pytracking's `avg_overlap_all`.)
    """

    convention: str
    frames: int
    success_hits: tuple[int, ...]
    precision_hits: tuple[int, ...]
    normalised_hits: tuple[int, ...]
    mean_overlap: float

    @property
    def success(self) -> NDArray[Any]:
        """(21,) share of frames in [0, 1], float32 or float64 as the toolkit keeps it."""
        return self._curve(self.success_hits)

    @property
    def precision(self) -> NDArray[Any]:
        """(51,) share of frames in [0, 1], float32 or float64 as the toolkit keeps it."""
        return self._curve(self.precision_hits)

    @property
    def normalised_precision(self) -> NDArray[Any]:
        """(51,) share of frames in [0, 1], float32 or float64 as the toolkit keeps it."""
        return self._curve(self.normalised_hits)

    def _curve(self, hits: tuple[int, ...]) -> NDArray[Any]:
        arithmetic = _arithmetic(self.convention)
        if arithmetic == "torch":
            return np.asarray(hits, np.float32) / np.float32(self.frames)
        return np.asarray(hits, np.float64) / (self.frames + (_EPS if arithmetic == "matlab" else 0))


@dataclass(frozen=True)
class Figures:
    """Means over sequences, in the toolkit's own unit and float width; print `percent`.

    Attributes:
        convention: a key of `CONVENTIONS`; belongs beside every number.
        scale: 1 where the toolkit prints fractions (Matlab, got10k), 100 where it prints per cent.
        success, precision, normalised_precision: mean curves (21,), (51,), (51,), from 0 to `scale`; NaN if no
            sequence is left.
        success_sequences, precision_sequences, normalised_sequences: over how many sequences each curve is a mean.
        auc: mean of the 21 values of `success`; at most 20/21 of `scale`, since no IoU exceeds 1.
    """

    convention: str
    scale: int
    success: NDArray[Any]
    precision: NDArray[Any]
    normalised_precision: NDArray[Any]
    success_sequences: int
    precision_sequences: int
    normalised_sequences: int
    auc: float

    @property
    def op50(self) -> float:
        """Share of frames with IoU > 0.5, times `scale`."""
        return float(self.success[10])

    @property
    def op75(self) -> float:
        """Share of frames with IoU > 0.75, times `scale`."""
        return float(self.success[15])

    @property
    def precision_20(self) -> float:
        """Share of frames with a centre error of at most 20 px, times `scale`."""
        return float(self.precision[20])

    @property
    def normalised_precision_20(self) -> float:
        """Share of frames with a normalised centre error of at most 0.20, times `scale`."""
        return float(self.normalised_precision[20])

    @property
    def normalised_precision_mean(self) -> float:
        """Mean of the 51 values: what the got10k toolkit reports in the place of NP@0.20. No other toolkit does."""
        return float(np.mean(self.normalised_precision))

    @property
    def percent(self) -> dict[str, float]:
        """AUC, OP50, OP75, P@20 and NP@0.20 in per cent, whatever the toolkit's unit."""
        names = {"AUC": self.auc, "OP50": self.op50, "OP75": self.op75}
        names |= {"P@20": self.precision_20, "NP@0.20": self.normalised_precision_20}
        return {name: value * (100 // self.scale) for name, value in names.items()}


def xywh(xyxy: ArrayLike) -> FloatArray:
    """The boxes of the package as the toolkits want them.

    Args:
        xyxy: (..., 4) left, top, right, bottom, pixels with edges: one pixel at the origin is 0, 0, 1, 1.

    Returns:
        float64 (..., 4) x, y, right - left, bottom - top; NaN stays NaN. Nothing is added: a toolkit that counts pixels
        from 1 or takes x + w - 1 for the right edge does so on both boxes.

    Raises:
        InputError: the last axis does not have 4 numbers.
    """
    boxes = np.array(xyxy, np.float64)
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise InputError(f"boxes have the shape {boxes.shape}, wanted (..., 4): left, top, right, bottom")
    boxes[..., 2:] -= boxes[..., :2]
    return boxes


def sequence_result(errors: FrameErrors) -> SequenceResult:
    """Count the frames of a sequence that pass each threshold.

    Args:
        errors: of one sequence.

    Returns:
        The counts, IoU strictly above its threshold, errors at or below theirs.

    Raises:
        InputError: there is no frame to divide by.
        UsageError: the convention is unknown.
    """
    arithmetic = _arithmetic(errors.convention)
    if errors.frames < 1:
        raise InputError(f"{errors.convention}: a sequence without frames, wanted at least one that counts")
    valid = errors.overlap[errors.valid]
    sizes = NORMALISED_LINSPACE if arithmetic == "numpy" else NORMALISED_THRESHOLDS
    return SequenceResult(
        convention=errors.convention,
        frames=int(errors.frames),
        success_hits=_counts(errors.overlap[:, None] > OVERLAP_THRESHOLDS),
        precision_hits=_counts(errors.centre[:, None] <= PIXEL_THRESHOLDS),
        normalised_hits=_counts(errors.normalised[:, None] <= sizes),
        mean_overlap=float(valid.mean()) if valid.size else np.nan,
    )


def figures(results: Sequence[SequenceResult]) -> Figures:
    """Average sequences by the rule of their toolkit; every sequence weighs the same, however long it is.

    `lasot_matlab` and `tnllt` leave a sequence out of a curve's mean if that curve sums to 0, which needs a first frame
    without target (HengLan/LaSOT_Evaluation_Toolkit@95bf38a and Event-AHU/Open_VLTrack@fccc2c7, plot_draw_save.m; the
    Matlab code breaks if exactly one sequence is left, here its curve is the mean). pytracking (visionml/
    pytracking@7eb9e74) and InteractTrack (NorahGreen/InteractTrack@5f149d4) keep every sequence and average in float32;
    torch does it here too, since the last bit depends on its order of summation. got10k/toolkit@956e728 keeps all.

    Args:
        results: of one tracker, one per sequence, all of one convention.

    Returns:
        The means; NaN where no sequence is left.

    Raises:
        InputError: no results.
        UsageError: results of two conventions, or an unknown one.
    """
    if not results:
        raise InputError("no sequences to average, wanted the result of at least one")
    names = sorted({result.convention for result in results})
    if len(names) > 1:
        raise UsageError(f"results of {' and '.join(names)} cannot be averaged; score all sequences by one convention")
    arithmetic = _arithmetic(names[0])
    stacks = [
        np.stack([getattr(r, name) for r in results]) for name in ("success", "precision", "normalised_precision")
    ]
    if arithmetic == "matlab":
        stacks = [stack[stack.sum(1) > _EPS] for stack in stacks]
    curves, averaged = [_mean_curve(stack, arithmetic) for stack in stacks], [len(stack) for stack in stacks]
    scale = 100 if arithmetic == "torch" else 1
    return Figures(names[0], scale, *curves, *averaged, auc=_mean_of_curve(curves[0], arithmetic))


def attribute_figures(
    results: Sequence[SequenceResult], flags: ArrayLike, names: Sequence[str], at_least: int = 2
) -> dict[str, Figures]:
    """The table by attribute: `figures` over the sequences that have it.

    Args:
        results: one per sequence, all of one convention.
        flags: bool or 0/1 (sequences, attributes), rows in the order of `results`.
        names: the attributes, in the order of the columns.
        at_least: attributes of fewer sequences are left out; 2 as in run_tracker_performance_evaluation.m
            (HengLan/LaSOT_Evaluation_Toolkit@95bf38a).

    Returns:
        Figures by name, in the order of `names`, without those left out; `success_sequences` says how many were
        averaged.

    Raises:
        InputError: flags have another shape, or values other than 0 and 1.
        UsageError: `at_least` is below 1, or as for `figures`.
    """
    if at_least < 1:
        raise UsageError(f"attribute_figures: at_least is {at_least}, wanted 1 or more")
    table = np.asarray(flags)
    if table.shape != (len(results), len(names)):
        wanted = f"({len(results)}, {len(names)})"
        raise InputError(f"attribute flags have the shape {table.shape}, wanted {wanted}: sequences, attributes")
    if not np.isin(table, (0, 1)).all():
        raise InputError("attribute flags hold other values than 0 and 1; is a column of another file among them?")
    members = [np.flatnonzero(table[:, column]) for column in range(len(names))]
    return {name: figures([results[i] for i in m]) for name, m in zip(names, members) if len(m) >= at_least}


def _arithmetic(convention: str) -> str:
    if convention not in CONVENTIONS:
        raise UsageError(f"unknown convention {convention!r}, wanted one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[convention]


def _counts(passed: BoolArray) -> tuple[int, ...]:
    return tuple(int(n) for n in passed.sum(0))


def _mean_curve(curves: NDArray[Any], arithmetic: str) -> NDArray[Any]:
    if not len(curves):
        return np.full(curves.shape[1], np.nan)
    if arithmetic != "torch":
        return curves.mean(0)
    import torch

    mean: NDArray[Any] = (torch.from_numpy(curves).mean(0) * 100.0).numpy()
    return mean


def _mean_of_curve(curve: NDArray[Any], arithmetic: str) -> float:
    if arithmetic == "matlab":
        return float(np.add.accumulate(curve)[-1] / curve.size)
    if arithmetic == "numpy":
        return float(curve.mean())
    import torch

    return float(torch.from_numpy(curve).mean(-1))
