"""The SynthTrack kit: instructions of every kind on held-out synthetic videos, J&F over all frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from eval.kit import Follow, MissingResultError, Reported, Row, percent_means, values, with_jf
from eval.kits.masks import track_masks, write_mask
from eval.scorer import score_binary_masks
from trackgpt.errors import InputError
from trackgpt.reasoners.templates import visible_answer
from trackgpt.synthtrack.clips import Case, make_case
from trackgpt.synthtrack.scene import SceneInstruction

FRAMES = 36
LONGEST = 320
TRACKED = ("explicit", "implicit", "multi")


class SynthTrack:
    """Instructions of every kind on held-out synthetic videos; needs no data.

    Attributes:
        seed: chooses the videos: number i is scene seed * 10,000 + i.
        count: how many videos.
        split: "test", or "train" for choosing settings without touching test.
    """

    name = "synthtrack"
    protocol = (
        "Protocol synthtrack: one instruction of each kind (explicit, implicit, multi, none) about the first frame of "
        f"each video, {FRAMES} frames of at most {LONGEST} pixels a side. A prediction is the union of its targets' "
        "masks, the truth the union of theirs, as in MeViS; all frames are scored, empty against empty is 1. J&F and "
        "the kinds are means over instructions that have a target. none_right: nothing matches, and the first answer "
        "names no target (none_empty: and the first frame has no mask). wrongly_refused: there is a target, and the "
        "first answer names none. answers_right: what, colour and place are all named as the truth names them."
    )
    headline = ("J&F", "J", "F")
    pixels: frozenset[str] = frozenset()
    layout = "VIDEO/KIND/FRAME.png, 0 and 255, such as 00000/implicit/00000.png"
    reported: tuple[Reported, ...] = ()

    def __init__(self, seed: int, count: int, split: str = "test") -> None:
        self.seed, self.count, self.split = seed, count, split

    @property
    def baselines(self) -> Mapping[str, Callable[[str, Path], None]]:
        """random-object: understands nothing and segments perfectly."""
        return {"random-object": self._random_object}

    def case(self, task: str) -> Case:
        """The video of a task with its instructions."""
        return _case(self.seed * 10_000 + int(task), self.split)

    def tasks(self) -> Sequence[str]:
        """One task per video."""
        return [f"{video:05d}" for video in range(self.count)]

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Every instruction of a video, by itself, in one pass over the frames."""
        case = self.case(task)
        said = {f"{task}/{expression.kind}": expression.text for expression in case.expressions}
        files = {unit: [results / unit / f"{name}.png" for name in _names(case)] for unit in said}
        track_masks(follow, said, case.clip.frames, files)

    def _random_object(self, task: str, results: Path) -> None:
        """The true masks of one object drawn from those visible in the first frame, for every instruction anew."""
        case, rng = self.case(task), np.random.default_rng([int(task), 6])
        for expression in case.expressions:
            visible = np.setdiff1d(np.unique(case.clip.ids[0]), [0])
            drawn = rng.choice(visible) if len(visible) else 255
            for name, ids in zip(_names(case), case.clip.ids, strict=True):
                write_mask(results / task / expression.kind / f"{name}.png", ids == drawn)

    def score(self, task: str, results: Path) -> list[Row]:
        """One row per instruction."""
        if not (results / task).is_dir():
            raise MissingResultError(f"{results / task}: missing; wanted {self.layout}")
        case = self.case(task)
        return [self._row(task, case, expression, results) for expression in case.expressions]

    def _row(self, task: str, case: Case, expression: SceneInstruction, results: Path) -> Row:
        truth = np.isin(case.clip.ids, np.array(expression.targets, np.uint8))
        files = [results / task / expression.kind / f"{name}.png" for name in _names(case)]
        scores = score_binary_masks(truth, files)
        j, f = float(np.mean(scores.j)), float(np.mean(scores.f))
        figures = {"J": j, "F": f, expression.kind: (j + f) / 2}
        if expression.kind == "none":
            figures = {"none_empty": float(scores.j[0] == 1)}
        tags = {
            "kind": [expression.kind],
            "difficulty": [f"{expression.kind}/{case.scene.difficulty}"],
            "form": [f"{expression.kind}/{expression.form}"],
        }
        said = {"instruction": expression.text, "wanted": visible_answer(expression.answer)}
        return Row(task, f"{task}/{expression.kind}", figures, tags, {"iou": scores.j.tolist()}, said)

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """See `protocol`; figures of answers only where a tracker's answers are known."""
        out = with_jf(percent_means(rows, (*TRACKED, "J", "F", "none_empty")))
        answered = [row for row in rows if "refused" in row.figures]
        nothing = [row for row in answered if "none" in row.tags["kind"]]
        tracked = [row for row in answered if "none" not in row.tags["kind"]]
        if nothing:
            out["none_right"] = 100 * float(values(nothing, "refused").mean())
        if tracked:
            out["wrongly_refused"] = 100 * float(values(tracked, "refused").mean())
            right = [row.said["answer"] == row.said["wanted"] for row in tracked]
            out["answers_right"] = 100 * float(np.mean(right))
        return out


def _names(case: Case) -> list[str]:
    return [f"{t:05d}" for t in range(len(case.clip.frames))]


@lru_cache(maxsize=2)
def _case(scene: int, split: str) -> Case:
    """A task is tracked and then scored: its video is drawn once."""
    if split not in ("test", "train"):
        raise InputError(f"split {split!r}: SynthTrack has test and train")
    return make_case(scene, split=split, frames=FRAMES, longest=LONGEST)
