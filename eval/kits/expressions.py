"""What the referring-video kits share: one binary mask per frame for every expression of a video.

Result files are VIDEO/EXPRESSION/FRAME.png, 0 and 255, named like the frames: what the server of Refer-YouTube-VOS took
and what MeViS, ReVOS and VISA's scripts read. Several targets of one expression are one mask, their union. A kit's
name is that of its reader in `trackgpt.data`; each has its own way from rows to figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.kit import Follow, MissingResultError, Row, SplitKit, percent_means, with_jf
from eval.kits.masks import track_masks
from eval.label_maps import read_mask
from eval.scorer import score_binary_masks
from eval.submission import pack
from trackgpt.data.images import image_size
from trackgpt.data.referring_video import READERS
from trackgpt.data.videos import Expression, MaskTruth, Video
from trackgpt.errors import InputError
from trackgpt.geometry.jf import RECALL_THRESHOLD, Scores


class ExpressionKit(SplitKit[Video]):
    """See the module; a kit of its own gives texts and, where they differ, `measure`, `tags` and `summarise`.

    Attributes:
        convention: what is scored and how, for `protocol`.
        servers: splits whose results a server takes, with the folder that its zips begin with, "" for none.
        kept_back: what to do with results of a split whose truth is not here.
    """

    name = ""
    convention = ""
    headline: tuple[str, ...] = ("J&F", "J", "F")
    layout = "VIDEO/EXPRESSION/FRAME.png, 0 and 255, named like the frames"
    servers: Mapping[str, str] = {}
    kept_back = "score them where the truth is"

    def items(self) -> Iterable[Video]:
        """The videos, from the reader of this name."""
        return READERS[self.name](self.root, self.split)

    @property
    def protocol(self) -> str:
        """What is scored and how, and what this tree lacks for it."""
        return " ".join([self.convention, *self.remarks()])

    def remarks(self) -> list[str]:
        """What a reader of the figures must know of this tree."""
        blind = sum(video.masks is None for video in self.by_name.values())
        if not blind:
            return []
        return [
            f"The truth of {blind} of {len(self.by_name)} videos is kept back: their result files were found to be "
            f"whole and are not scored; {self.kept_back}."
        ]

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Every expression of a video, by itself, in one pass over the frames."""
        self.track(self.by_name[task], follow, results)

    def track(self, video: Video, follow: Follow, results: Path) -> dict[str, list[float]]:
        """Track every expression of a video and write its masks; the scores of `track_masks`."""
        said = {unit_name(video, expression): expression.text for expression in video.expressions}
        files = {unit: [results / unit / f"{image.stem}.png" for image in video.images] for unit in said}
        return track_masks(follow, said, (video.frame(t) for t in range(len(video))), files)

    def submit(self, results: Path, out: Path) -> Path | None:
        """See `eval.kit.Submits`."""
        top = self.servers.get(self.split)
        return None if top is None else pack(results, out / "submission.zip", top)

    def score(self, task: str, results: Path) -> list[Row]:
        """One row per expression."""
        video = self.by_name[task]
        if video.expressions and not (results / task).is_dir():
            raise MissingResultError(f"{results / task}: missing; wanted {self.layout}")
        return [self._row(video, expression, results) for expression in video.expressions]

    def _row(self, video: Video, expression: Expression, results: Path) -> Row:
        files = result_files(results / video.name / expression.id, video)
        figures: dict[str, float] = {}
        series: dict[str, list[float]] = {}
        if video.masks is None:
            check_masks(files, image_size(video.images[0]))
        else:
            scores, figures = self.measure(video.masks, expression, files)
            series = {"iou": scores.j.tolist()}
        tags, said = self.tags(video, expression), {"instruction": expression.text}
        return Row(video.name, unit_name(video, expression), figures, tags, series, said)

    def measure(
        self, masks: MaskTruth, expression: Expression, files: Sequence[Path]
    ) -> tuple[Scores, dict[str, float]]:
        """J and F of every frame of an expression, and the figures of its row."""
        scores = score_binary_masks((masks.mask(expression.objects, t) for t in range(len(files))), files)
        figures = {
            "J": float(np.mean(scores.j)),
            "F": float(np.mean(scores.f)),
            "J-R": float(np.mean(scores.j > RECALL_THRESHOLD)),
            "F-R": float(np.mean(scores.f > RECALL_THRESHOLD)),
        }
        return scores, figures

    def tags(self, video: Video, expression: Expression) -> dict[str, list[str]]:
        """What tables are broken down by: all that the reader says of an expression."""
        return {key: [value] for key, value in expression.tags.items()}

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """Means over expressions."""
        return with_jf(percent_means(rows, ("J", "F")))


def unit_name(video: Video, expression: Expression) -> str:
    """The name of an expression's row, which is also the folder of its masks."""
    return f"{video.name}/{expression.id}"


def result_files(folder: Path, video: Video) -> list[Path]:
    """The result files of a video, one per frame.

    Raises:
        InputError: one is missing: which, and how many.
    """
    files = [folder / f"{image.stem}.png" for image in video.images]
    lacking = [file for file in files if not file.exists()]
    if lacking:
        raise InputError(f"{lacking[0]}: missing, like {len(lacking)} of {len(files)} masks of {folder}")
    return files


def check_masks(files: Iterable[Path], size: tuple[int, int]) -> None:
    """Read masks for which there is no truth.

    Raises:
        InputError: one is no mask, or not of this (height, width).
    """
    for file in files:
        read_mask(file, size)
