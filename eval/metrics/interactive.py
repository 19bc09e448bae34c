"""InteractTrack's metrics of a person's prompts: Interactive Score, Responsiveness, Perception accuracy and precision.

Two forms, since the released code is not the paper's formulas: `released_figures` gives the numbers that
tracking/analysis_results.py prints (NorahGreen/InteractTrack@5f149d4), `paper_figures` what the paper describes, where
a tracker gains nothing by writing no box. Both pool over segments or prompts of all sequences, so a figure of the whole
set is not the mean of the figures of its sequences: keep the `InteractiveSequence` of each and pool those.

Boxes are float64 x, y, width, height in pixels; the overlap is intersection over union without any +1, 0 where the
union is not above 0. A row 0, 0, 0, 0 is "no box" in every file, as in the toolkit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trackgpt.errors import InputError, UsageError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
MissingPolicy = Literal["zero", "skip"]
AbsentPolicy = Literal["paper", "strict"]

OVERLAP_WANTED = 0.5
"""A prompt is understood if the overlap is above this."""


@dataclass(frozen=True)
class Segment:
    """The frames from one prompt up to the next, or up to the end.

    Released form: a box is a row that is not all zero, and a NaN in it makes the overlap 0.

    Attributes:
        both: frames with a box in the truth and in the prediction.
        both_overlap: sum of their overlaps.

    Paper form: a box is a finite row with w > 0 and h > 0.

    Attributes:
        present: frames with a box in the truth.
        missed: those among them without a predicted box.
        overlap: sum of the overlaps of the others.
        absent: frames of the truth's file without a box.
        silent: those among them without a predicted box.
    """

    both: int
    both_overlap: float
    present: int
    missed: int
    overlap: float
    absent: int
    silent: int


@dataclass(frozen=True)
class PromptStatistics:
    """What was there on the frame of a prompt.

    Attributes:
        frame: index, from 0.
        written: the truth and the prediction have a row that is not all zero (truth, prediction).
        usable: the same for finite rows with w > 0 and h > 0.
        overlap: of truth and prediction, 0 unless both are written.
        old_overlap: of prediction and the previous target's box, 0 unless the prediction is written; None if there is
            no such box: the prompt is no switch.
        in_truth: the truth's file has this line.
        in_all: description, truth and prediction have this line.
    """

    frame: int
    written: tuple[bool, bool]
    usable: tuple[bool, bool]
    overlap: float
    old_overlap: float | None
    in_truth: bool
    in_all: bool


@dataclass(frozen=True)
class InteractiveSequence:
    """Sufficient statistics of one sequence: plain values, so a kit can save them and pool later.

    Attributes:
        predicted: there was a result file at all; the released form leaves out sequences without.
        segments, prompts: one of each per prompt, in the order of frames.
    """

    predicted: bool
    segments: tuple[Segment, ...]
    prompts: tuple[PromptStatistics, ...]


@dataclass(frozen=True)
class InteractiveFigures:
    """The four numbers, per cent, and over how many things they are means.

    Attributes:
        form: "released", or "paper" with its policies, e.g. "paper, missing=zero, absent=paper"; print it beside.
        interactive_score: mean overlap of segments.
        responsiveness: share of prompts (paper: of switches) answered with the right target.
        perception_accuracy: share of prompts with an overlap above 0.5.
        perception_precision: mean overlap at prompts.
        segments, switches, prompts: denominators of the first, the second, and the last two.
    """

    form: str
    interactive_score: float
    responsiveness: float
    perception_accuracy: float
    perception_precision: float
    segments: int
    switches: int
    prompts: int


def interactive_sequence(
    predicted: ArrayLike | None, truth: ArrayLike, old_targets: ArrayLike, prompted: ArrayLike
) -> InteractiveSequence:
    """Compare the files of one sequence line by line, uncut.

    The files may differ in length, as the toolkit allows: a line beyond the end of one is a line without box or prompt.

    Args:
        predicted: (n, 4) the tracker's boxes; None if there is no result file.
        truth: (frames, 4) of groundtruth.txt.
        old_targets: (m, 4) of switch.txt: the box of the target before a switch, zeros elsewhere.
        prompted: bool (k,), lines of description.txt that are not blank.

    Returns:
        One segment and one prompt for each True of `prompted`; frames before the first belong to no segment.

    Raises:
        InputError: an array has another shape or dtype.
    """
    found = np.zeros((0, 4)) if predicted is None else _boxes("predictions", predicted)
    wanted, old = _boxes("truths", truth), _boxes("boxes of old targets", old_targets)
    asked = np.asarray(prompted)
    if asked.ndim != 1 or asked.dtype != np.bool_:
        raise InputError(f"prompted is {asked.dtype} {asked.shape}, wanted bool (frames,): lines with a prompt")
    in_all, in_truth = min(len(asked), len(wanted), len(found)), len(wanted)
    longest = max(len(asked), len(wanted), len(found), len(old))
    found, wanted, old = (_padded(boxes, longest) for boxes in (found, wanted, old))
    frames = _Frames(found, wanted, in_truth)
    starts = np.flatnonzero(asked)
    ends = [*starts[1:], longest]
    old_overlap = overlaps(old, found)
    prompts = [
        PromptStatistics(
            frame=int(t),
            written=(bool(frames.truth_written[t]), bool(frames.found_written[t])),
            usable=(bool(frames.truth_usable[t]), bool(frames.found_usable[t])),
            overlap=float(frames.overlap[t]) if frames.truth_written[t] and frames.found_written[t] else 0.0,
            old_overlap=_old_overlap(float(old_overlap[t]), bool(old[t].any()), bool(frames.found_written[t])),
            in_truth=bool(t < in_truth),
            in_all=bool(t < in_all),
        )
        for t in starts
    ]
    segments = tuple(frames.segment(slice(start, end)) for start, end in zip(starts, ends))
    return InteractiveSequence(predicted is not None, segments, tuple(prompts))


def released_figures(sequences: Sequence[InteractiveSequence]) -> InteractiveFigures:
    """The numbers of the released code (`evaluate_custom_metrics`), per cent.

    * Sequences without a result file are left out.
    * Interactive Score: mean over the segments of all sequences of the mean overlap of their frames with both boxes.
      Frames without one are skipped, so a tracker that writes zeros when unsure loses nothing; segments without such
      a frame are dropped.
    * Responsiveness: over all prompts, switches or not. Right if the overlap is above 0.5 and, where there is an old
      target, above the overlap with that. A prompt while the target is absent counts and is never right.
    * Perception: over prompts within all three files that have a truth; a missing prediction has the overlap 0.

    Args:
        sequences: sorted by name, as the toolkit adds up their overlaps in this order.

    Returns:
        The figures; 0 where there is nothing to average, as in the toolkit.
    """
    kept = [sequence for sequence in sequences if sequence.predicted]
    means = [segment.both_overlap / segment.both for sequence in kept for segment in sequence.segments if segment.both]
    prompts = [prompt for sequence in kept for prompt in sequence.prompts]
    right = sum(all(prompt.written) and _answered(prompt) for prompt in prompts)
    perceived = [prompt for prompt in prompts if prompt.in_all and prompt.written[0]]
    accurate = sum(prompt.overlap > OVERLAP_WANTED for prompt in perceived)
    total = _running_sum([prompt.overlap for prompt in perceived])
    return InteractiveFigures(
        form="released",
        interactive_score=float(np.mean(means) * 100) if means else 0.0,
        responsiveness=right / len(prompts) * 100 if prompts else 0.0,
        perception_accuracy=accurate / len(perceived) * 100 if perceived else 0.0,
        perception_precision=total / len(perceived) * 100 if perceived else 0.0,
        segments=len(means),
        switches=len(prompts),
        prompts=len(perceived),
    )


def paper_figures(
    sequences: Sequence[InteractiveSequence], missing: MissingPolicy = "zero", absent: AbsentPolicy = "paper"
) -> InteractiveFigures:
    """The numbers as the paper describes them, per cent.

    * Interactive Score (eq. 3): mean overlap of the frames of a segment, mean of these over the segments of a sequence,
      mean of these over sequences.
    * Responsiveness (eq. 2 and the text): over switches, that is prompts with a box of the old target. Right if the
      overlap is above 0.5 and above the overlap with the old target.
    * Perception: over all prompts; accuracy counts overlaps above 0.5, precision is their mean.

    Args:
        sequences: in any order.
        missing: what a frame with a truth and without a predicted box counts. "zero": 0, also past the end of the
            result file and in sequences without one; this is what to publish. "skip": nothing, as in the released
            Interactive Score.
        absent: what a frame without a truth counts. "paper": nothing. "strict": 1 if there is no predicted box either
            and 0 if there is one, as an overlap and as an answer to a prompt.

    Returns:
        The figures; NaN where there is nothing to average.

    Raises:
        UsageError: unknown policy.
    """
    _refuse_policies(missing, absent)
    each = [paper_values(sequence, missing, absent) for sequence in sequences]
    answered = [value for values in each for value in values.answered]
    found = [value for values in each for value in values.overlaps]
    return InteractiveFigures(
        form=f"paper, missing={missing}, absent={absent}",
        interactive_score=_percent([float(np.mean(values.segments)) for values in each if values.segments]),
        responsiveness=_percent(answered),
        perception_accuracy=_percent([value > OVERLAP_WANTED for value in found]),
        perception_precision=_percent(found),
        segments=sum(len(values.segments) for values in each),
        switches=len(answered),
        prompts=len(found),
    )


@dataclass(frozen=True)
class PaperValues:
    """What the paper's figures are means of, of one sequence.

    Attributes:
        segments: mean overlap of each segment that is scored.
        answered: whether each switch was.
        overlaps: at each prompt.
    """

    segments: tuple[float, ...]
    answered: tuple[bool, ...]
    overlaps: tuple[float, ...]


def paper_values(
    sequence: InteractiveSequence, missing: MissingPolicy = "zero", absent: AbsentPolicy = "paper"
) -> PaperValues:
    """The values of a sequence that `paper_figures` takes means of; for intervals.

    Raises:
        UsageError: unknown policy.
    """
    _refuse_policies(missing, absent)
    means = (_paper_mean(segment, missing, absent) for segment in sequence.segments)
    counted = [prompt for prompt in sequence.prompts if _counts(prompt, missing, absent)]
    return PaperValues(
        tuple(mean for mean in means if mean is not None),
        tuple(_paper_answered(prompt) for prompt in counted if prompt.old_overlap is not None),
        tuple(_paper_overlap(prompt) for prompt in counted),
    )


def overlaps(first: ArrayLike, second: ArrayLike) -> FloatArray:
    """Intersection over union row by row, as the toolkit's `calculate_iou`.

    Args:
        first, second: (rows, 4) x, y, w, h. A NaN loses every comparison, which for whole NaN rows gives 0.

    Returns:
        float64 (rows,); 0 where the union is not above 0.

    Raises:
        InputError: the shapes differ or are not (rows, 4).
    """
    a, b = _boxes("first boxes", first), _boxes("second boxes", second)
    if a.shape != b.shape:
        raise InputError(f"boxes of the shapes {a.shape} and {b.shape} cannot be compared, wanted the same rows twice")
    left = np.where(b[:, :2] > a[:, :2], b[:, :2], a[:, :2])
    right_a, right_b = a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]
    size = np.where(right_b < right_a, right_b, right_a) - left
    shared = np.where(size > 0, size, 0).prod(1)
    union = a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared
    return np.divide(shared, union, out=np.zeros(len(a)), where=union > 0)


class _Frames:
    """Truth and prediction of one sequence, every line of either, with what each form calls a box."""

    def __init__(self, found: FloatArray, wanted: FloatArray, in_truth: int) -> None:
        self.overlap = overlaps(wanted, found)
        self.truth_written, self.found_written = wanted.any(1), found.any(1)
        self.truth_usable, self.found_usable = _usable(wanted), _usable(found)
        self.in_truth = np.arange(len(wanted)) < in_truth

    def segment(self, frames: slice) -> Segment:
        both = self.truth_written[frames] & self.found_written[frames]
        present, predicted = self.truth_usable[frames], self.found_usable[frames]
        absent = ~present & self.in_truth[frames]
        return Segment(
            both=int(both.sum()),
            both_overlap=float(self.overlap[frames][both].sum()),
            present=int(present.sum()),
            missed=int((present & ~predicted).sum()),
            overlap=float(self.overlap[frames][present & predicted].sum()),
            absent=int(absent.sum()),
            silent=int((absent & ~predicted).sum()),
        )


def _boxes(what: str, boxes: ArrayLike) -> FloatArray:
    array = np.asarray(boxes, np.float64)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InputError(f"{what} have the shape {array.shape}, wanted (frames, 4): x, y, w, h, zeros for no box")
    return array


def _padded(boxes: FloatArray, length: int) -> FloatArray:
    return np.concatenate((boxes, np.zeros((length - len(boxes), 4))))


def _usable(boxes: FloatArray) -> BoolArray:
    usable: BoolArray = np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1)
    return usable


def _old_overlap(value: float, is_switch: bool, found_written: bool) -> float | None:
    if not is_switch:
        return None
    return value if found_written else 0.0


def _answered(prompt: PromptStatistics) -> bool:
    """The right target and not the old one."""
    return prompt.overlap > OVERLAP_WANTED and (prompt.old_overlap is None or prompt.overlap > prompt.old_overlap)


def _refuse_policies(missing: str, absent: str) -> None:
    if missing not in ("zero", "skip") or absent not in ("paper", "strict"):
        policies = f"missing={missing!r}, absent={absent!r}"
        raise UsageError(f"interactive metrics: {policies}, wanted missing zero or skip, absent paper or strict")


def _counts(prompt: PromptStatistics, missing: MissingPolicy, absent: AbsentPolicy) -> bool:
    has_truth, has_prediction = prompt.usable
    if not has_truth:
        return absent == "strict" and prompt.in_truth
    return has_prediction or missing == "zero"


def _paper_overlap(prompt: PromptStatistics) -> float:
    has_truth, has_prediction = prompt.usable
    if has_truth:
        return prompt.overlap if has_prediction else 0.0
    return float(not has_prediction)


def _paper_answered(prompt: PromptStatistics) -> bool:
    has_truth, has_prediction = prompt.usable
    return has_prediction and _answered(prompt) if has_truth else not has_prediction


def _paper_mean(segment: Segment, missing: MissingPolicy, absent: AbsentPolicy) -> float | None:
    frames = segment.present - (segment.missed if missing == "skip" else 0)
    total = segment.overlap
    if absent == "strict":
        frames, total = frames + segment.absent, total + segment.silent
    return total / frames if frames else None


def _percent(values: Sequence[float]) -> float:
    return float(np.mean(values) * 100) if len(values) else np.nan


def _running_sum(values: Sequence[float]) -> float:
    """From left to right, as a loop does; sum() of later Pythons corrects its rounding."""
    return float(np.add.accumulate(values)[-1]) if len(values) else 0.0
