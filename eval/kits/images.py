"""What the image kits share: one binary mask for every sentence about an image.

An image is a video of one frame to a tracker. Result files are IMAGE/EXPRESSION.png, 0 and 255, of the image's size; no
official form is known, since the official scripts score in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from eval.kit import Follow, MissingResultError, Row, SplitKit
from eval.kits.masks import track_masks
from eval.label_maps import read_mask
from eval.metrics.images import IGNORE, Overlap, ciou, giou, overlap
from trackgpt.data.images import ImageSample
from trackgpt.data.videos import Expression
from trackgpt.errors import InputError


class ImageKit(SplitKit[ImageSample]):
    """See the module; a kit of its own gives `items` and, where it differs, `expressions`, `tags` and `summarise`."""

    name = ""
    protocol = ""
    headline: tuple[str, ...] = ("gIoU", "cIoU")
    layout = "IMAGE/EXPRESSION.png, 0 and 255, of the image's size"

    def expressions(self, sample: ImageSample) -> Sequence[Expression]:
        """What is scored of an image: all that can be asked."""
        return sample.expressions

    def tags(self, expression: Expression) -> dict[str, list[str]]:
        """What tables are broken down by."""
        return {}

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Every sentence about an image, by itself."""
        sample = self.by_name[task]
        said = {f"{task}/{expression.id}": expression.text for expression in self.expressions(sample)}
        track_masks(follow, said, [sample.frame()], {unit: [results / f"{unit}.png"] for unit in said})

    def score(self, task: str, results: Path) -> list[Row]:
        """One row per sentence: its pixels, and their IoU, 1 where both masks are empty."""
        if not (results / task).is_dir():
            raise MissingResultError(f"{results / task}: missing; wanted {self.layout}")
        sample = self.by_name[task]
        return [self._row(sample, expression, results) for expression in self.expressions(sample)]

    def _row(self, sample: ImageSample, expression: Expression, results: Path) -> Row:
        file = results / sample.name / f"{expression.id}.png"
        if not file.exists():
            raise InputError(f"{file}: missing; wanted a mask of 0 and 255 for {expression.text!r}")
        counted = overlap(read_mask(file, sample.size), label_map(sample, expression))
        iou = giou([counted])
        figures = {"gIoU": iou, **{name: float(pixels) for name, pixels in counted._asdict().items()}}
        said = {"instruction": expression.text}
        return Row(sample.name, f"{sample.name}/{expression.id}", figures, self.tags(expression), {"iou": [iou]}, said)

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """GIoU and cIoU over sentences."""
        found = overlaps(rows)
        return {"gIoU": 100 * giou(found), "cIoU": 100 * ciou(found)}


def label_map(sample: ImageSample, expression: Expression) -> np.ndarray:
    """The truth of a sentence as `eval.metrics.images` takes it: uint8 (height, width) of 0, 1 and 255."""
    labels = sample.mask(expression).astype(np.uint8)
    labels[sample.ignored()] = IGNORE
    return labels


def overlaps(rows: Iterable[Row]) -> list[Overlap]:
    """The pixels that rows of this kit count."""
    return [Overlap(*(int(row.figures[name]) for name in Overlap._fields)) for row in rows]
