"""J and F of expressions: one binary mask per frame says what an expression, or an instruction, means.

Masks are bool (T, height, width), index [y, x] in pixels of the original frame; an expression that means several
objects has the union of their masks. There is no void and nothing is matched after the fact. Every frame is scored, the
first and the last included, and every expression weighs the same, however long its video. Scores are fractions, except
where a docstring says percent.

A video without a prediction scores 0 in the official scripts; here the caller passes empty masks, which score 0
wherever something is to be seen.

Sources: cilinyan/VISA ec158fd (tools/eval_mevis.py, eval_davis17.py, eval_revos.py, metrics.py), checked bit for bit by
`eval.parity.vos_jf`. InsTrack (TrackGPT) has no published code: `instrack` is our reading of its table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.metrics.masks import Scores, sequence_scores, summarise
from trackgpt.errors import InputError, UsageError

BoolArray = NDArray[np.bool_]
RevosKind = Literal["referring", "reasoning"]


class ExpressionScore(NamedTuple):
    """Mean J and mean F over the frames of one expression."""

    j: float
    f: float


class MeanScore(NamedTuple):
    """J&F, J and F over expressions."""

    jf: float
    j: float
    f: float


class RevosScore(NamedTuple):
    """ReVOS's four figures of one expression: J, F, share of right pixels, robustness."""

    j: float
    f: float
    a: float
    r: float


class RevosRow(NamedTuple):
    """ReVOS's figures of a group of expressions, in percent."""

    j: float
    f: float
    a: float
    r: float
    jf: float


class RevosTable(NamedTuple):
    """ReVOS's three rows."""

    referring: RevosRow
    reasoning: RevosRow
    overall: RevosRow


class InstructionScore(NamedTuple):
    """Mean and recall (share of frames above 0.5) of J and F of one instruction."""

    j: float
    f: float
    j_recall: float
    f_recall: float


class InstrackRow(NamedTuple):
    """TrackGPT's columns of InsTrack: J&F, J, J-R, F, F-R, in [0, 1]."""

    jf: float
    j: float
    j_recall: float
    f: float
    f_recall: float


def mevis(prediction: BoolArray, truth: BoolArray) -> ExpressionScore:
    """MeViS: mean J and F over all frames of one expression.

    A frame where neither mask has a pixel scores 1, so a rightly empty answer counts; one where only one has scores 0.

    Args:
        prediction: bool (T, height, width).
        truth: bool (T, height, width), the union of the objects that are meant.

    Returns:
        J and F in [0, 1].

    Raises:
        InputError: T is 0, or the stacks are not bool, not (T, height, width) or of different shapes.

    Source: cilinyan/VISA ec158fd, tools/eval_mevis.py.
    """
    scores = _scored(prediction, truth)
    return ExpressionScore(float(np.mean(scores.j)), float(np.mean(scores.f)))


def visa(prediction: BoolArray, truth: BoolArray) -> ExpressionScore:
    """Refer-DAVIS17, protocol B (VISA, VRS-HQ, Sa2VA, UniPixel): every expression is scored as in MeViS.

    Unlike protocol A (`eval.metrics.davis.ref_davis_compat`) masks of different expressions may overlap, identity is
    enforced, void is background, and a long list of expressions about one object weighs more than a short one.

    Args:
        prediction: bool (T, height, width), the mask of one expression.
        truth: bool (T, height, width), the one object it means.

    Returns:
        J and F in [0, 1].

    Raises:
        InputError: as `mevis`.

    Source: cilinyan/VISA ec158fd, tools/eval_davis17.py.
    """
    return mevis(prediction, truth)


def over_expressions(scores: Sequence[ExpressionScore]) -> MeanScore:
    """The row of `mevis` or `visa`: means over all expressions of all videos.

    Args:
        scores: one entry an expression.

    Returns:
        J&F = (mean J + mean F) / 2, mean J, mean F, in [0, 1]; the scripts print them times 100 with 2 decimals.

    Raises:
        InputError: there is no expression.
    """
    j, f = _columns(scores, "over_expressions")
    return MeanScore((j + f) / 2, j, f)


def revos(prediction: BoolArray, truth: BoolArray, foreground: NDArray[np.bool_] | NDArray[np.uint8]) -> RevosScore:
    """ReVOS: J, F, A and R of one expression, each the mean over all frames.

    A of a frame = share of its pixels where prediction and truth agree, background included.
    R of a frame = max(0, 1 - wrong / (foreground + 1e-6)), where wrong counts the predicted pixels outside the truth
    and foreground the pixels of everything that is annotated in the video: what is hallucinated, measured against what
    could have been meant. An empty prediction has R = 1; without any foreground, one wrong pixel makes it 0.

    The official script reads predictions as they are stored, so its A and R mean this only for files of 0 and 1, not
    of 0 and 255. It also adds the masks of the objects that are meant: where two overlap, A calls the pixel wrong and
    R counts it 255 times. Here the truth is the union, so that defect is not reproduced.

    Args:
        prediction: bool (T, height, width).
        truth: bool (T, height, width), the union of the objects that are meant.
        foreground: bool (T, height, width), everything annotated in the video; or uint8, how many annotated objects
            cover a pixel, which is what the official script sums up.

    Returns:
        J, F, A and R in [0, 1].

    Raises:
        InputError: as `mevis`, or `foreground` is not bool or uint8 of the same shape.

    Source: cilinyan/VISA ec158fd, tools/eval_revos.py and tools/metrics.py, which name A and R after R2-VOS (X. Li et
    al., ICCV 2023).
    """
    scores = _scored(prediction, truth)
    if foreground.dtype not in (np.bool_, np.uint8) or foreground.shape != truth.shape:
        raise InputError(
            f"foreground is {foreground.dtype} {foreground.shape}, wanted bool or uint8 {truth.shape}; "
            "resize it to the truth"
        )
    right = [pixel_accuracy(*frame) for frame in zip(prediction, truth)]
    robust = [robustness(*frame) for frame in zip(prediction, truth, foreground)]
    return RevosScore(*(float(np.mean(values)) for values in (scores.j, scores.f, right, robust)))


def pixel_accuracy(prediction: BoolArray, truth: BoolArray) -> float:
    """A of one frame, see `revos`: the share of its pixels where two masks, bool (height, width), agree."""
    return np.count_nonzero(prediction == truth) / truth.size


def robustness(prediction: BoolArray, truth: BoolArray, foreground: NDArray[np.bool_] | NDArray[np.uint8]) -> float:
    """R of one frame, see `revos`.

    Args:
        prediction: bool (height, width).
        truth: bool (height, width).
        foreground: bool or uint8 (height, width), as `revos` takes it.
    """
    wrong, annotated = np.count_nonzero(prediction & ~truth), int(foreground.sum())
    return max(1 - wrong / (annotated + 1e-6), 0.0)


def revos_table(scores: Sequence[RevosScore], kinds: Sequence[RevosKind]) -> RevosTable:
    """The three rows of ReVOS, in percent.

    Every figure of every expression is rounded to 2 decimals of a percent first; then each group is averaged; overall
    is the mean of the two groups, so that each weighs half, whatever their numbers. J&F of a group is the mean of its
    J and F.

    Args:
        scores: one entry an expression.
        kinds: the group of each, "referring" (type_id 0 of the dataset) or "reasoning" (type_id 1); the script leaves
            expressions of type_id 2 out.

    Returns:
        The rows. A group without an expression is NaN, and so is overall then.

    Raises:
        InputError: the two differ in length, or there is no expression.
        UsageError: a kind is another word.
    """
    if len(scores) != len(kinds) or not scores:
        raise InputError(f"revos_table: {len(scores)} scores and {len(kinds)} kinds, wanted as many of both, 1 or more")
    for kind in kinds:
        if kind not in ("referring", "reasoning"):
            raise UsageError(f"revos_table: kind is {kind!r}, wanted 'referring' or 'reasoning'; leave others out")
    # numpy's rounding and not Python's, which differ at halves: 1.115 becomes 1.12 in the one and 1.11 in the other.
    percent = np.round(100 * np.array(scores, np.float64), 2)
    referring = _revos_row(percent[[kind == "referring" for kind in kinds]])
    reasoning = _revos_row(percent[[kind == "reasoning" for kind in kinds]])
    return RevosTable(referring, reasoning, RevosRow(*((a + b) / 2 for a, b in zip(referring, reasoning))))


def instrack(prediction: BoolArray, truth: BoolArray) -> InstructionScore:
    """InsTrack, as we read it: one mask per instruction, all frames, mean and recall of J and of F.

    Recall is the share of the instruction's frames above 0.5; exactly 0.5 fails.

    Args:
        prediction: bool (T, height, width).
        truth: bool (T, height, width).

    Returns:
        Means and recalls in [0, 1].

    Raises:
        InputError: as `mevis`.

    Source: TrackGPT, table 2 (columns J, F, J-R, F-R); it says neither which frames nor which mean, and has no code.
    """
    scores = _scored(prediction, truth)
    j, f = summarise(scores.j), summarise(scores.f)
    return InstructionScore(j.mean, f.mean, j.recall, f.recall)


def instrack_row(scores: Sequence[InstructionScore]) -> InstrackRow:
    """InsTrack's row: means over instructions, recalls included.

    Args:
        scores: one entry an instruction.

    Raises:
        InputError: there is no instruction.
    """
    j, f, j_recall, f_recall = _columns(scores, "instrack_row")
    return InstrackRow((j + f) / 2, j, j_recall, f, f_recall)


def _scored(prediction: BoolArray, truth: BoolArray) -> Scores:
    scores = sequence_scores(prediction, truth)
    if not scores.j.size:
        raise InputError("the expression has no frame, wanted one or more; leave it out")
    return scores


def _revos_row(percent: NDArray[np.float64]) -> RevosRow:
    if not len(percent):
        return RevosRow(*[float("nan")] * 5)
    # Column by column, as the script does: a mean along an axis adds in another order.
    j, f, a, r = (float(np.mean(np.ascontiguousarray(column))) for column in percent.T)
    return RevosRow(j, f, a, r, (j + f) / 2)


def _columns(scores: Sequence[Iterable[float]], where: str) -> list[float]:
    if not scores:
        raise InputError(f"{where}: nothing was scored, wanted one entry or more; check the list of expressions")
    return [float(np.mean(column)) for column in zip(*scores)]
