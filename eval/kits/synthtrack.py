"""The SynthTrack kit: instructions of every kind on held-out synthetic videos, J&F over all frames.

Protocol "synthtrack": one instruction of each kind (explicit, implicit, multi, none) about the first frame of each test
video, 36 frames of at most 320 pixels a side. An instruction's prediction is the union of its targets' masks and its
truth the union of theirs, as in MeViS; empty against empty scores 1. "none" is right when the first answer names no
target. Variants run in the same process on the same frames:
    full             propagation and rethinking (the system)
    no-rethinking    the brain reads the first frame only
    no-propagation   Q_t is the learned embedding on every frame
    first-frame      neither: the first frame's queries on every frame
    random-object    the true masks of one object drawn from those visible in the first frame (no model)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from eval.metrics.calibration import expected_calibration_error, spearman
from eval.metrics.intervals import bootstrap_mean
from eval.metrics.masks import region_similarity, sequence_scores
from trackgpt.data.synthtrack.clips import Case, make_case
from trackgpt.data.synthtrack.scene import Expression
from trackgpt.reasoners.templates import visible_answer
from trackgpt.types import Prompt, Tracker

VARIANTS = ("full", "no-rethinking", "no-propagation", "first-frame", "random-object")
FRAMES = 36
LONGEST = 320


@dataclass(frozen=True)
class Row:
    """One instruction on one video.

    Attributes:
        j, f: means over frames, in [0, 1].
        refused: the first answer named no target.
        rethinks: frames on which the brain was asked again.
        wanted: the answer of the truth: what, in which colour, where.
        scores, ious: purport score and true IoU of the union on every frame where a target was being tracked.
    """

    video: int
    difficulty: str
    kind: str
    form: str
    wording: int
    variant: str
    text: str
    answer: str
    j: float
    f: float
    refused: bool
    rethinks: int
    frames: int
    scores: list[float]
    ious: list[float]
    wanted: str = ""

    @property
    def jf(self) -> float:
        """(J + F) / 2."""
        return (self.j + self.f) / 2


@dataclass(frozen=True)
class Followed:
    """What a tracker did with one instruction over a whole video.

    Attributes:
        masks: bool (T, height, width), the union of its targets.
        answer: what it said to the first frame.
        refused, rethinks, scores, ious: as in `Row`.
    """

    masks: np.ndarray
    answer: str = ""
    refused: bool = False
    rethinks: int = 0
    scores: tuple[float, ...] = ()
    ious: tuple[float, ...] = ()


def video_case(seed: int, video: int, split: str = "test") -> Case:
    """Video number `video` of a run's seed; the split keeps it apart from every training scene."""
    return make_case(seed * 10_000 + video, split=split, frames=FRAMES, longest=LONGEST)


def evaluate_case(video: int, case: Case, tracker: Tracker, variant: str) -> list[Row]:
    """Run every instruction of a case through a tracker."""
    rows = []
    for expression in case.expressions:
        done = follow(case.clip.frames, _truth(case, expression), expression.text, tracker)
        rows.append(_row(video, case, expression, variant, done))
    return rows


def random_object(video: int, case: Case) -> list[Row]:
    """The baseline that understands nothing but segments perfectly."""
    rng = np.random.default_rng([video, 6])
    rows = []
    for expression in case.expressions:
        visible = np.setdiff1d(np.unique(case.clip.ids[0]), [0])
        masks = case.clip.ids == (rng.choice(visible) if len(visible) else 255)
        rows.append(_row(video, case, expression, "random-object", Followed(masks)))
    return rows


def follow(frames: Iterable[np.ndarray], truth: np.ndarray, text: str, tracker: Tracker) -> Followed:
    """Give an instruction about the first frame and track to the last.

    Args:
        frames: T frames, uint8 RGB (height, width, 3).
        truth: bool (T, height, width), what the instruction means; only for the IoU that scores are compared with.
        text: the instruction.
        tracker: starts anew here.
    """
    masks = np.zeros_like(truth)
    scores: list[float] = []
    ious: list[float] = []
    answer, refused, rethinks = "", False, 0
    for t, frame in enumerate(frames):
        prediction = tracker.initialize(frame, Prompt(text)) if t == 0 else tracker.track(frame)
        if t == 0:
            answer = prediction.cue.text if prediction.cue else ""
            refused = len(prediction.ids) == 0
        rethinks += int(t > 0 and prediction.reason != "")
        masks[t] = prediction.masks.any(axis=0)
        if len(prediction.scores):
            scores.append(float(prediction.scores.min()))
            ious.append(region_similarity(masks[t], truth[t]))
    return Followed(masks, answer, refused, rethinks, tuple(scores), tuple(ious))


def _truth(case: Case, expression: Expression) -> np.ndarray:
    return np.isin(case.clip.ids, np.array(expression.targets, np.uint8))


def _row(video: int, case: Case, expression: Expression, variant: str, done: Followed) -> Row:
    result = sequence_scores(done.masks, _truth(case, expression))
    return Row(
        video,
        case.scene.difficulty,
        expression.kind,
        expression.form,
        expression.wording,
        variant,
        expression.text,
        done.answer,
        float(np.mean(result.j)),
        float(np.mean(result.f)),
        done.refused,
        done.rethinks,
        len(done.masks),
        [round(score, 4) for score in done.scores],
        [round(iou, 4) for iou in done.ious],
        visible_answer(expression.answer),
    )


def summarise(rows: Iterable[Row], variant: str) -> dict[str, float]:
    """The figures of one variant, in percent except where named: J&F per kind, refusals, calibration, rethink rate."""
    mine = [row for row in rows if row.variant == variant]
    out: dict[str, float] = {}
    for kind in ("explicit", "implicit", "multi"):
        group = [row for row in mine if row.kind == kind]
        if group:
            interval = bootstrap_mean(np.array([row.jf for row in group]), seed=0)
            out[kind] = 100 * interval.mean
            out[f"{kind}_low"], out[f"{kind}_high"] = 100 * interval.low, 100 * interval.high
    tracked = [row for row in mine if row.kind != "none"]
    if tracked:
        out["J"], out["F"] = (100 * float(np.mean([getattr(row, key) for row in tracked])) for key in ("j", "f"))
        out["J&F"] = (out["J"] + out["F"]) / 2
        out["answers_right"] = 100 * float(np.mean([row.answer == row.wanted for row in tracked]))
        out["wrongly_refused"] = 100 * float(np.mean([row.refused for row in tracked]))
    nothing = [row for row in mine if row.kind == "none"]
    if nothing:
        out["none_right"] = 100 * float(np.mean([row.refused for row in nothing]))
    scores = np.array([s for row in mine for s in row.scores])
    ious = np.array([i for row in mine for i in row.ious])
    if len(scores) > 2:
        out["spearman"] = spearman(scores, ious)
        out["ece"] = expected_calibration_error(scores, ious)
    out["rethink_rate"] = 100 * sum(row.rethinks for row in mine) / max(1, sum(row.frames for row in mine))
    return out


def breakdown(rows: Iterable[Row], variant: str, key: str) -> dict[str, tuple[float, int]]:
    """J&F in percent and the number of instructions for each value of a field ("difficulty", "form", ...)."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.variant == variant and row.kind != "none":
            groups.setdefault(f"{row.kind}/{getattr(row, key)}", []).append(row.jf)
    return {name: (100 * float(np.mean(values)), len(values)) for name, values in sorted(groups.items())}


def as_json(row: Row) -> dict[str, object]:
    """A row as plain values."""
    return asdict(row)


def from_json(values: dict[str, object]) -> Row:
    """The inverse of `as_json`; unknown fields of a newer writer are dropped."""
    names = {f.name for f in dataclasses.fields(Row)}
    return Row(**{k: v for k, v in values.items() if k in names})  # type: ignore[arg-type]
