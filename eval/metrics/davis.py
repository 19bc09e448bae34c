"""J and F of label maps, one function a convention: DAVIS, Refer-DAVIS17, vos-benchmark, TrackEval.

A label map is uint8 (T, height, width): 0 is background, k the object or proposal k, and 255 in a truth marks void,
pixels that nobody labelled. The conventions differ in the frames they score, in what void means, in which ids are
objects and in whether a wrong identity is forgiven, so a number means nothing without the function's name:

| function             | frames                 | void           | objects                      | identity             |
|----------------------|------------------------|----------------|------------------------------|----------------------|
| `davis_semi`         | not the first and last | background     | 1 to highest id of frame 0   | enforced             |
| `davis_unsupervised` | all                    | left out       | the same                     | Hungarian on (J+F)/2 |
| `ref_davis_compat`   | all                    | left out       | the same                     | Hungarian on (J+F)/2 |
| `ref_davis_strict`   | all                    | left out       | the same                     | enforced             |
| `vos_benchmark`      | as semi, by default    | an object, 255 | every id of the scored truth | enforced             |
| `trackeval_jandf`    | all                    | left out       | 1 to highest id of any frame | Hungarian on J       |

An object without a pixel in any frame (an id that was skipped) scores 1 wherever the prediction has none either.

Sources: davis2017-evaluation ac7c43f, wjn922/ReferFormer 06fc218, hkchengrex/vos-benchmark acb4733,
JonathonLuiten/TrackEval 12c8791. Stored output of DAVIS's, vos-benchmark's and TrackEval's code is equal bit for bit
(`eval.parity.vos_jf`); `trackeval_combined` and `ref_davis_mean` have no stored output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from eval.metrics.masks import Overall, Scores, Summary, jf_mean, over_objects, sequence_scores, summarise
from trackgpt.errors import InputError
from trackgpt.geometry.jf import DecayMode

ByteArray = NDArray[np.uint8]
FloatArray = NDArray[np.float64]

VOID = 255
MAX_PROPOSALS = 20
ANNOTATORS = 4
_TRACKEVAL_SUCCESS = 0.5 + np.finfo(np.float64).eps


@dataclass(frozen=True)
class SequenceScores:
    """What a convention says of one sequence, a row per object.

    Attributes:
        rows: J and F of every scored frame. In the order of the objects where identity is enforced; in the order of
            the *proposals* where it is matched, as in the official tools, which then call row 0 object 1 although it
            may be another: their `M_per_object` is named wrongly after a permutation. `by_object` is named rightly.
        objects: id in the truth of every row.
        proposals: id in the prediction of every row, equal to `objects` where identity is enforced.
    """

    rows: tuple[Scores, ...]
    objects: tuple[int, ...]
    proposals: tuple[int, ...]

    @property
    def by_object(self) -> dict[int, Scores]:
        """J and F under the id that the object has in the truth, in ascending order."""
        return dict(sorted(zip(self.objects, self.rows), key=lambda pair: pair[0]))


class Percentages(NamedTuple):
    """J&F, J and F times 100, as vos-benchmark prints them."""

    jf: float
    j: float
    f: float


class TrackSummary(NamedTuple):
    """TrackEval's figures of one sequence or of several: statistics, and how many truth tracks they stand for."""

    overall: Overall
    tracks: int


def davis_semi(prediction: ByteArray, truth: ByteArray) -> SequenceScores:
    """DAVIS 2017, semi-supervised task: the first mask is given, so the first and the last frame are not scored.

    Void pixels are background and *not* left out. Objects are 1 to the highest id of the truth's first frame; an id
    that appears later is ignored, whatever the prediction says of its pixels. An object that is not predicted scores
    as an empty mask.

    Args:
        prediction: uint8 (T, height, width), ids; the first and the last frame are not read.
        truth: uint8 (T, height, width), ids, 255 is void.

    Returns:
        Rows in the order of the ids, T - 2 frames each; no row if the first frame of the truth has no object.

    Raises:
        InputError: T < 3, the stacks are not as above or differ in shape, or a scored frame of the prediction has an
            id above the number of objects, where the official tool leaves through sys.exit.

    Source: davis2017-evaluation ac7c43f, `DAVISEvaluation(task="semi-supervised")`.
    """
    _check(prediction, truth, frames=3)
    objects = _first_frame_objects(truth)
    _refuse_ids_above(prediction[1:-1], len(objects), 1, "the number of objects in the truth's first frame")
    return _identified(prediction[1:-1], truth[1:-1], objects)  # no object has the id 255, so void is background


def davis_unsupervised(prediction: ByteArray, truth: ByteArray) -> SequenceScores:
    """DAVIS 2017, unsupervised task: at most 20 proposals are matched to the objects after the fact.

    All frames are scored. Void pixels belong to neither mask: J leaves them out, and F sees an edge where a mask meets
    them. Objects are 1 to the highest id of the truth's first frame, proposals 1 to the highest id of the prediction,
    filled up with empty ones to the number of objects. The matching maximises the sum of (mean J + mean F) / 2; a
    proposal without an object costs nothing.

    Args:
        prediction: uint8 (T, height, width), ids of proposals.
        truth: uint8 (T, height, width), ids, 255 is void.

    Returns:
        One row per object, T frames each, in the order of the proposals (see `SequenceScores`).

    Raises:
        InputError: T < 1, the stacks are not as above or differ in shape, or the prediction has an id above 20, where
            the official tool leaves through sys.exit.

    Source: davis2017-evaluation ac7c43f, `DAVISEvaluation(task="unsupervised")`.
    """
    _check(prediction, truth)
    _refuse_ids_above(prediction, MAX_PROPOSALS, 0, "the number of proposals allowed")
    objects = _first_frame_objects(truth)
    proposals = range(1, max(_highest(prediction), len(objects)) + 1)
    prediction, truth = _without_void(prediction, truth)
    table = _pairwise(prediction, truth, proposals, objects)
    matched = matched_proposals(*table)
    return SequenceScores(
        rows=tuple(Scores(*np.ascontiguousarray(table[:, p, k])) for p, k in matched),
        objects=tuple(objects[k] for _, k in matched),
        proposals=tuple(proposals[p] for p, _ in matched),
    )


def matched_proposals(j: FloatArray, f: FloatArray) -> list[tuple[int, int]]:
    """The matching of DAVIS's unsupervised task: the sum of (mean J + mean F) / 2 over the pairs is the largest.

    Args:
        j: float64 (proposals, objects, T), J of every proposal with every object; no fewer proposals than objects.
        f: the same of F.

    Returns:
        (place of the proposal, place of the object), one per object, in the order of the proposals.
    """
    pairs = linear_sum_assignment(-(j.mean(axis=-1) + f.mean(axis=-1)) / 2)
    return [(int(p), int(k)) for p, k in zip(*pairs)]


def ref_davis_compat(prediction: ByteArray, truth: ByteArray) -> SequenceScores:
    """Refer-DAVIS17, protocol A, the expressions of one annotator: DAVIS's unsupervised task.

    This is what ReferFormer, OnlineRefer and their successors report, and it forgives swapped identities: a tracker
    that follows the right objects under each other's expressions scores as if it had understood. Beside it stands
    `ref_davis_strict`; over the four annotators goes `ref_davis_mean`.

    Args:
        prediction: uint8 (T, height, width), in every pixel the object whose expression has the highest score, where
            that is 0.5 or more.
        truth: uint8 (T, height, width), ids, 255 is void.

    Returns:
        As `davis_unsupervised`.

    Raises:
        InputError: as `davis_unsupervised`.

    Source: wjn922/ReferFormer 06fc218, eval_davis.py, which runs davis2017-evaluation with its default task.
    """
    return davis_unsupervised(prediction, truth)


def ref_davis_strict(prediction: ByteArray, truth: ByteArray) -> SequenceScores:
    """Refer-DAVIS17 for one annotator with every mask held to its own expression.

    Frames, void and objects are those of `ref_davis_compat`; nothing is matched, so its mean of (J + F) / 2 is never
    above compat's.

    Args:
        prediction: uint8 (T, height, width), k where the expression of object k is thought to be.
        truth: uint8 (T, height, width), ids, 255 is void.

    Returns:
        Rows in the order of the ids, T frames each.

    Raises:
        InputError: T < 1, the stacks are not as above or differ in shape, or the prediction has an id above the number
            of objects, for which there is no expression.

    Source: ours; no paper reports it.
    """
    _check(prediction, truth)
    objects = _first_frame_objects(truth)
    _refuse_ids_above(prediction, len(objects), 0, "the number of objects in the truth's first frame")
    return _identified(*_without_void(prediction, truth), objects)


def ref_davis_mean(annotators: Sequence[Overall]) -> Overall:
    """Refer-DAVIS17, protocol A: the mean of the rows of the four annotators.

    Args:
        annotators: `over_sequences` of every annotator, four of them.

    Returns:
        The mean of each statistic.

    Raises:
        InputError: there are not four; a mean over fewer is another number.

    Source: wjn922/ReferFormer 06fc218 and its issue #30.
    """
    if len(annotators) != ANNOTATORS:
        raise InputError(f"ref_davis_mean: {len(annotators)} annotators, wanted {ANNOTATORS}; score anno_0 to anno_3")
    j, f = (np.mean([getattr(row, measure) for row in annotators], axis=0) for measure in ("j", "f"))
    jf = np.mean([row.jf for row in annotators])
    return Overall(float(jf), Summary(*map(float, j)), Summary(*map(float, f)))


def over_sequences(sequences: Iterable[SequenceScores], decay: DecayMode = "compat") -> Overall:
    """The row a DAVIS table reports: the mean over the objects of all sequences, however long each sequence is.

    Args:
        sequences: results of one convention, in the order of the list of sequences (another order can change the last
            bit).
        decay: "compat" is the official tool's, NaN or wrong for more than 256 scored frames, "fixed" is not.

    Returns:
        J&F and the statistics of J and F.

    Raises:
        InputError: there is no object.
    """
    return over_objects([row for sequence in sequences for row in sequence.rows], decay)


def vos_benchmark(prediction: ByteArray, truth: ByteArray, skip_first_and_last: bool = True) -> SequenceScores:
    """The conventions of vos-benchmark: any id of the truth is an object, from the frame where it is first seen.

    Equal to `davis_semi` where ids have no gap, all objects are there from the start and nothing is void. Otherwise:
    255 is an object like others; an id that appears late is scored; an object has no score before it is first seen in
    the truth *or the prediction* (DAVIS would give 1), so rows differ in length; an id that only the prediction has is
    ignored.

    Args:
        prediction: uint8 (T, height, width), ids.
        truth: uint8 (T, height, width), ids.
        skip_first_and_last: leave these two frames out, also from the search for ids.

    Returns:
        Rows in the order of the ids; no row if no scored frame of the truth has an object.

    Raises:
        InputError: there is no frame left to score, or the stacks are not as above or differ in shape.

    Source: hkchengrex/vos-benchmark acb4733.
    """
    _check(prediction, truth, frames=3 if skip_first_and_last else 1)
    if skip_first_and_last:
        prediction, truth = prediction[1:-1], truth[1:-1]
    objects = tuple(int(k) for k in np.flatnonzero(np.bincount(truth.ravel(), minlength=256)) if k)
    rows = []
    for k in objects:
        found, wanted = prediction == k, truth == k
        first = int(np.argmax(found.any(axis=(1, 2)) | wanted.any(axis=(1, 2))))
        rows.append(sequence_scores(found[first:], wanted[first:]))
    return SequenceScores(tuple(rows), objects, objects)


def vos_benchmark_rows(scores: SequenceScores) -> FloatArray:
    """vos-benchmark's table of one sequence.

    Returns:
        float64 (objects, 3): id, 100 * mean J, 100 * mean F.
    """
    means = [(k, np.mean(row.j) * 100, np.mean(row.f) * 100) for k, row in zip(scores.objects, scores.rows)]
    return np.array(means, np.float64).reshape(-1, 3)


def vos_benchmark_overall(sequences: Iterable[SequenceScores]) -> Percentages:
    """vos-benchmark's global score: the mean over the objects of all sequences, in percent.

    Args:
        sequences: results of `vos_benchmark`, in the order of the names of the sequences.

    Raises:
        InputError: there is no object.
    """
    table = np.concatenate([vos_benchmark_rows(scores) for scores in sequences] or [np.empty((0, 3))])
    if not len(table):
        raise InputError("vos_benchmark_overall: no object was scored, wanted one or more; check the sequences")
    j, f = float(np.mean(table[:, 1].copy())), float(np.mean(table[:, 2].copy()))
    return Percentages((j + f) / 2, j, f)


def trackeval_jandf(prediction: ByteArray, truth: ByteArray) -> SequenceScores:
    """TrackEval's J&F of its DAVIS dataset: proposals are matched to objects by J alone.

    All frames are scored, void pixels belong to neither mask. Objects are 1 to the highest id of *any* frame of the
    truth, proposals 1 to the highest id of the prediction, as many as they are, filled up with empty ones to the number
    of objects.

    Args:
        prediction: uint8 (T, height, width), ids of proposals.
        truth: uint8 (T, height, width), ids, 255 is void.

    Returns:
        One row per object, T frames each, in the order of the proposals.

    Raises:
        InputError: T < 1, or the stacks are not as above or differ in shape.

    Source: JonathonLuiten/TrackEval 12c8791, `JAndF` with optim_type "J".
    """
    _check(prediction, truth)
    proposals = _highest(prediction)
    prediction, truth = _without_void(prediction, truth)
    objects = _highest(truth)
    j = _pairwise_j(prediction, truth, max(proposals, objects), objects)
    matched = [(int(p) + 1, int(k) + 1) for p, k in zip(*linear_sum_assignment(-j.mean(axis=-1)))]
    return SequenceScores(
        rows=tuple(sequence_scores(prediction == p, truth == k) for p, k in matched),
        objects=tuple(k for _, k in matched),
        proposals=tuple(p for p, _ in matched),
    )


def trackeval_summary(scores: SequenceScores, decay: DecayMode = "compat") -> TrackSummary:
    """TrackEval's figures of one sequence.

    A frame is a success above 0.5 + 2.2e-16, not above 0.5 as in DAVIS. The two differ where rounding lifts an F of
    exactly one half by a last bit.

    Args:
        scores: result of `trackeval_jandf`.
        decay: TrackEval has DAVIS's defect beyond 256 frames; "fixed" does not.

    Returns:
        Means over the objects, and their number.

    Raises:
        InputError: there is no object.
    """
    if not scores.rows:
        raise InputError("trackeval_summary: the sequence has no object, wanted one or more; leave it out")
    j = [_trackeval_statistics(row.j, decay) for row in scores.rows]
    f = [_trackeval_statistics(row.f, decay) for row in scores.rows]
    jf = jf_mean([row.mean for row in j], [row.mean for row in f])
    return TrackSummary(Overall(jf, _column_means(j), _column_means(f)), len(scores.rows))


def trackeval_combined(sequences: Sequence[TrackSummary]) -> TrackSummary:
    """TrackEval's figures of several sequences: the mean weighted by the number of truth tracks.

    Args:
        sequences: results of `trackeval_summary`.

    Returns:
        Weighted means and the sum of the tracks. One NaN decay makes the decay of all NaN.

    Raises:
        InputError: there is no sequence.
    """
    if not sequences:
        raise InputError("trackeval_combined: no sequence, wanted one or more")
    tracks = sum(row.tracks for row in sequences)
    # One after the other, as TrackEval adds: numpy's sum may take another order.
    sums = [sum(values) for values in zip(*(np.array(_flat(row.overall)) * row.tracks for row in sequences))]
    jf, *rest = (float(value / tracks) for value in sums)
    return TrackSummary(Overall(jf, Summary(*rest[:3]), Summary(*rest[3:])), tracks)


def _check(prediction: ByteArray, truth: ByteArray, frames: int = 1) -> None:
    for name, labels in (("prediction", prediction), ("truth", truth)):
        if labels.dtype != np.uint8:
            raise InputError(f"{name} has the type {labels.dtype}, wanted uint8 label maps; give every object an id")
        if labels.ndim != 3 or labels.shape != truth.shape:
            wanted = "(T, height, width)" if labels is truth else f"the truth's {truth.shape}"
            raise InputError(f"{name} has the shape {labels.shape}, wanted {wanted}; resize label maps to the truth")
    if len(truth) < frames:
        raise InputError(f"the sequence has {len(truth)} frames, wanted {frames} or more; leave it out")


def _refuse_ids_above(prediction: ByteArray, limit: int, offset: int, what: str) -> None:
    highest = prediction.max(axis=(1, 2))
    bad = np.flatnonzero(highest > limit)
    if bad.size:
        t = int(bad[0])
        raise InputError(
            f"prediction, frame {t + offset}: the id {highest[t]} is above {limit}, {what}; "
            "write the ids of the truth, 0 for background"
        )


def _highest(labels: ByteArray) -> int:
    return int(labels.max(initial=0))


def _first_frame_objects(truth: ByteArray) -> tuple[int, ...]:
    return tuple(range(1, _highest(truth[0][truth[0] != VOID]) + 1))


def _without_void(prediction: ByteArray, truth: ByteArray) -> tuple[ByteArray, ByteArray]:
    """Void pixels as background of both: for J and F that is the same as leaving them out, pixel for pixel."""
    void = truth == VOID
    return np.where(void, np.uint8(0), prediction), np.where(void, np.uint8(0), truth)


def _identified(prediction: ByteArray, truth: ByteArray, objects: tuple[int, ...]) -> SequenceScores:
    rows = tuple(sequence_scores(prediction == k, truth == k) for k in objects)
    return SequenceScores(rows, objects, objects)


def _pairwise(prediction: ByteArray, truth: ByteArray, proposals: Sequence[int], objects: Sequence[int]) -> FloatArray:
    """J and F of every proposal with every object, float64 (2, proposals, objects, T).

    Frame by frame, so that the masks of one frame are all that is held; proposals that are not there share one row.
    """
    table = np.empty((2, len(proposals), len(objects), len(truth)))
    for t, (found, wanted) in enumerate(zip(prediction, truth)):
        wanted_masks = [wanted == k for k in objects]
        nothing = None
        for row, p in enumerate(proposals):
            mask = found == p
            if mask.any():
                table[:, row, :, t] = _against(mask, wanted_masks)
            else:
                nothing = _against(mask, wanted_masks) if nothing is None else nothing
                table[:, row, :, t] = nothing
    return table


def _against(mask: NDArray[np.bool_], wanted_masks: Sequence[NDArray[np.bool_]]) -> FloatArray:
    """J and F of one mask with several, float64 (2, masks)."""
    scores = [sequence_scores(mask[None], wanted[None]) for wanted in wanted_masks]
    return np.array([(score.j[0], score.f[0]) for score in scores]).reshape(-1, 2).T


def _pairwise_j(prediction: ByteArray, truth: ByteArray, proposals: int, objects: int) -> FloatArray:
    """J of every proposal with every object, float64 (proposals, objects, T), from one joint histogram per frame."""
    table = np.empty((proposals, objects, len(truth)))
    for t, (found, wanted) in enumerate(zip(prediction, truth)):
        pairs = found.astype(np.intp).ravel() * (objects + 1) + wanted.ravel()
        counts = np.bincount(pairs, minlength=(proposals + 1) * (objects + 1)).reshape(proposals + 1, objects + 1)
        both = counts[1:, 1:]
        union = counts.sum(axis=1)[1:, None] + counts.sum(axis=0)[1:] - both
        table[..., t] = np.where(union, both / np.maximum(union, 1), 1.0)
    return table


def _trackeval_statistics(values: FloatArray, decay: DecayMode) -> Summary:
    return summarise(values, decay)._replace(recall=float(np.mean(values > _TRACKEVAL_SUCCESS)))


def _column_means(rows: Sequence[Summary]) -> Summary:
    return Summary(*(float(np.mean(column)) for column in zip(*rows)))


def _flat(overall: Overall) -> tuple[float, ...]:
    return (overall.jf, *overall.j, *overall.f)
