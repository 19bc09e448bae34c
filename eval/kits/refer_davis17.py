"""The Refer-DAVIS17 kit: both families of protocols that papers use, and a strict one.

A tracker of this package answers every expression with a binary mask and a score. For family A the masks of an
annotator's expressions are merged: a pixel that several cover goes to the one with the highest score of that frame, of
equal ones to the lowest object. ReferFormer's models give a probability per pixel instead, below 0.5 background and the
highest of them else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from eval.kit import Follow, MissingResultError, Reported, Row, groups, percent_means, with_jf
from eval.kits.davis import (
    STATISTICS,
    check_ids,
    holds_one_mask,
    matched_objects,
    objects_of,
    statistics,
    write_label_maps,
)
from eval.kits.expressions import ExpressionKit, result_files, unit_name
from eval.label_maps import read_mask
from eval.metrics.davis import ANNOTATORS
from eval.scorer import score_binary_masks
from trackgpt.data.referring_video.truth import DavisMasks
from trackgpt.data.videos import Expression, Video
from trackgpt.errors import InputError

_TABLE = "TrackGPT (Zhu et al., Tracking with Human-Intent Reasoning), Table 1"
_ABLATION = "TrackGPT (Zhu et al., Tracking with Human-Intent Reasoning), Table 3"
_COLLECTED = "as printed in the system's own paper or table"


class ReferDavis17(ExpressionKit):
    """Every expression of every annotator."""

    name = "refer-davis17"
    layout = (
        "anno_0/VIDEO/FRAME.png to anno_3/..., indexed, a pixel's value is the object's id; "
        "or VIDEO/EXPRESSION/FRAME.png, 0 and 255; or both"
    )
    convention = (
        "J&F, J, F and their recalls and decays: protocol ref_davis_compat (ReferFormer, OnlineRefer and successors): "
        "the expressions of an annotator in one label map per frame, scored by DAVIS's unsupervised task, which leaves "
        "void out and matches masks to objects after the fact, so that swapped identities are forgiven; mean over the "
        "objects of an annotator, then over annotators. strict/: protocol ref_davis_strict, the same without the "
        "matching. visa/: protocol of VISA, VRS-HQ, Sa2VA and UniPixel: every expression by itself, all frames, void "
        "is background, means over expressions. Papers' rows are comparable within one protocol only; TrackGPT's paper "
        "does not say which it used."
    )
    printed = {
        "valid": (
            Reported("TrackGPT-7B", {"J&F": 63.2, "J": 59.4, "F": 67.0}, _TABLE),
            Reported("TrackGPT-13B", {"J&F": 66.5, "J": 62.7, "F": 70.4}, _TABLE),
            Reported(
                "TrackGPT-7B, ablation: all",
                {"J&F": 64.3, "J": 60.3, "F": 68.3, "J-R": 67.1, "F-R": 73.6},
                _ABLATION,
            ),
            Reported(
                "TrackGPT-7B, ablation: neither",
                {"J&F": 60.0, "J": 55.9, "F": 64.1, "J-R": 61.4, "F-R": 67.1},
                _ABLATION,
            ),
            Reported("LISA-7B by TrackGPT", {"J&F": 58.4, "J": 54.9, "F": 61.9}, _TABLE),
            Reported("LISA-13B by TrackGPT", {"J&F": 60.7, "J": 56.8, "F": 64.6}, _TABLE),
            Reported("OnlineRefer", {"J&F": 64.8, "J": 61.6, "F": 67.7}, _TABLE),
            Reported("SAMWISE", {"J&F": 70.6}, _COLLECTED),
            Reported("LISA-7B by VISA", {"visa/J&F": 64.8}, _COLLECTED),
            Reported("VISA-7B", {"visa/J&F": 69.4}, _COLLECTED),
            Reported("UniPixel-7B", {"visa/J&F": 76.4}, _COLLECTED),
        )
    }

    def remarks(self) -> list[str]:
        """How many annotators there are, where that is not four."""
        found = len({key for video in self.by_name.values() for key in by_annotator(video)})
        if found == ANNOTATORS:
            return []
        return [f"This tree has {found} expression of each object, the benchmark {ANNOTATORS}; no paper's figures."]

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Every expression of a video, then the label maps of every annotator."""
        video = self.by_name[task]
        scores = self.track(video, follow, results)
        for annotator, said in by_annotator(video).items():
            merge(video, said, results / task, results / f"anno_{annotator}" / task, scores)

    def score(self, task: str, results: Path) -> list[Row]:
        """A row for every annotator and object, then a row for every expression that has masks of its own.

        Without label maps the masks are merged as if all their scores were equal.
        """
        video = self.by_name[task]
        apart = (results / task).is_dir()
        own = list(map(_visa, super().score(task, results))) if apart else []
        if any((results / f"anno_{key}" / task).is_dir() for key in by_annotator(video)):
            rows = self._annotators(video, results)
        elif apart:
            with TemporaryDirectory() as merged:
                for key, said in by_annotator(video).items():
                    merge(video, said, results / task, Path(merged) / f"anno_{key}" / task, {})
                rows = self._annotators(video, Path(merged))
        else:
            raise MissingResultError(f"{results / task}: missing, and so is anno_0/{task}; wanted {self.layout}")
        return [*rows, *own]

    def _annotators(self, video: Video, results: Path) -> list[Row]:
        return [
            row
            for key, said in by_annotator(video).items()
            for row in _objects(video, result_files(results / f"anno_{key}" / video.name, video), key, said)
        ]

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """Means over the objects of each annotator, then over annotators; and over expressions."""
        passes = groups([row for row in rows if "J" in row.figures], "annotator")
        each = [percent_means(mine, (*STATISTICS, "strict/J", "strict/F")) for mine in passes.values()]
        mean = {name: float(np.mean([one[name] for one in each])) for name in (each[0] if each else ())}
        compat = with_jf({name: mean[name] for name in STATISTICS if name in mean})
        strict = with_jf({name: value for name, value in mean.items() if name.startswith("strict/")}, "strict/")
        return compat | strict | with_jf(percent_means(rows, ("visa/J", "visa/F")), "visa/")


def by_annotator(video: Video) -> dict[str, list[Expression]]:
    """The expressions of a video by annotator, "0" to "3", each annotator's in the order of the file."""
    found: dict[str, list[Expression]] = {}
    for expression in video.expressions:
        found.setdefault(expression.tags["annotator"], []).append(expression)
    return dict(sorted(found.items()))


def merge(
    video: Video, said: Sequence[Expression], masks: Path, folder: Path, scores: Mapping[str, Sequence[float]]
) -> None:
    """Write the label maps of one annotator, one per frame, from the masks of each of its expressions.

    Args:
        video: whose frames name the files.
        said: the annotator's expressions, one per object.
        masks: folder of EXPRESSION/FRAME.png.
        folder: where to write FRAME.png.
        scores: a score for every frame, by the unit of an expression; one that is not there has equal scores.

    Raises:
        InputError: a mask is missing or malformed.
        OutputError: OUT02.
    """
    files = [result_files(masks / expression.id, video) for expression in said]
    labels = [int(expression.objects[0]) for expression in said]
    units = [unit_name(video, expression) for expression in said]

    def maps() -> Iterator[np.ndarray]:
        for t in range(len(video)):
            ranks = [scores[unit][t] if unit in scores else 0.0 for unit in units]
            yield merged([read_mask(each[t]) for each in files], ranks, labels)

    write_label_maps(folder, [image.stem for image in video.images], maps())


def merged(masks: Sequence[np.ndarray], scores: Sequence[float], labels: Sequence[int]) -> np.ndarray:
    """One label map of several masks: a pixel goes to the highest score, of equal ones to the lowest label.

    Args:
        masks: bool (height, width) each, one or more.
        scores: of each; NaN is the lowest.
        labels: of each, 1 to 255.

    Returns:
        uint8 (height, width), 0 where no mask is.

    Raises:
        InputError: the masks differ in size.
    """
    shapes = {mask.shape for mask in masks}
    if len(shapes) != 1:
        raise InputError(f"masks of one frame have the sizes {sorted(shapes)}; wanted that of the frame")
    out = np.zeros(shapes.pop(), np.uint8)
    ranked = [(-math.inf if math.isnan(score) else score, -label, label) for score, label in zip(scores, labels)]
    for place in sorted(range(len(masks)), key=lambda index: ranked[index]):
        out[masks[place]] = labels[place]
    return out


def _objects(video: Video, files: Sequence[Path], annotator: str, said: Sequence[Expression]) -> Iterator[Row]:
    """A row for every object of one annotator's label maps."""
    assert isinstance(video.masks, DavisMasks)  # what its reader gives
    truth = video.masks.files
    texts = {int(expression.objects[0]): expression for expression in said}
    if holds_one_mask(truth[0]):
        check_ids(files, 1, "objects")
        scores = score_binary_masks((video.masks.mask(("1",), t) for t in range(len(files))), files)
        found = [(1, scores, scores)]
    else:
        objects = objects_of(truth[0])
        matched = matched_objects(truth, files, objects, len(objects))
        found = [(one.label, one.scores, strict) for one, strict in matched]
    for label, compat, strict in found:
        own = with_jf({"strict/J": float(np.mean(strict.j)), "strict/F": float(np.mean(strict.f))}, "strict/")
        tags = {"annotator": [annotator]}
        instruction = {"instruction": texts[label].text} if label in texts else {}
        if label in texts and "said" in texts[label].tags:
            tags["said"] = [texts[label].tags["said"]]
        unit = f"{video.name}/anno_{annotator}/{label}"
        yield Row(video.name, unit, {**statistics(compat), **own}, tags, {}, instruction)


def _visa(row: Row) -> Row:
    """The row of an expression by itself, under the names of VISA's protocol; it stands in no table of annotators."""
    figures = with_jf({"visa/J": row.figures["J"], "visa/F": row.figures["F"]}, "visa/")
    return replace(row, figures=figures, tags={})
