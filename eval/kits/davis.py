"""The DAVIS kit: label maps of any tracker against DAVIS-2017, or DAVIS-2016, in either of its tasks.

A tracker that follows what it is shown runs the semi-supervised one: all objects of a sequence are shown on its first
frame, by their masks as the benchmark has it, by their boxes, or by a point each. Both tasks read
`<sequence>/%05d.png`, whose values are ids: those of the truth in the semi-supervised task, numbers of proposals in the
unsupervised one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from eval.kit import Follow, MissingResultError, Reported, Row, alone, percent_means, with_jf
from eval.label_maps import read_label_map
from eval.metrics.davis import MAX_PROPOSALS, VOID, matched_proposals
from eval.scorer import pairwise_label_maps, score_binary_masks, score_label_maps
from trackgpt.data.mot_files import read_seqmap
from trackgpt.data.trees import entries
from trackgpt.data.videos import read_image
from trackgpt.errors import InputError, UsageError
from trackgpt.export.davis import label_map
from trackgpt.geometry.jf import Scores, summarise
from trackgpt.geometry.masks import box_of
from trackgpt.geometry.pointing import deepest_point
from trackgpt.types import Prediction, Prompt, VisualPrompt

SEMI, UNSUPERVISED = "semi-supervised", "unsupervised"
RESOLUTIONS = ("480p", "240p")
SHOWN = {
    "mask": "",
    "box": " The tracker is shown the tight box of a mask and not the mask, which is not the benchmark's protocol.",
    "point": " The tracker is shown a mask's deepest point and not the mask, which is not the benchmark's protocol.",
}
"""What of a first mask is shown, and what the protocol says of it."""
STATISTICS = ("J", "J-R", "J-D", "F", "F-R", "F-D")
"""Figures of a row: mean, recall and decay of J and of F."""
_SEMI_TEXT = (
    "Protocol davis-semi: the first mask is given, so the first and the last frame are not scored; void is background; "
    "objects are 1 to the highest id of the truth's first frame, and identity is enforced."
)
_UNSUPERVISED_TEXT = (
    "Protocol davis-unsupervised: all frames are scored; void pixels are left out; at most 20 proposals are matched to "
    "the objects by the sum of (mean J + mean F) / 2."
)
_TABLE = "davisvideochallenge/davis2017-evaluation@ac7c43f, pytest/test_evaluation.py"
_OSVOS = {"J": 56.6, "J-R": 63.8, "J-D": 26.1, "F": 63.9, "F-R": 73.8, "F-D": 27.0}


class ObjectScores(NamedTuple):
    """J and F of every scored frame of one object of a sequence, under its id in the truth."""

    label: int
    scores: Scores


class Davis:
    """Label maps of the sequences of a set.

    Attributes:
        root: DAVIS, the folder of JPEGImages, Annotations and ImageSets.
        task: of the benchmark, "semi-supervised" or "unsupervised".
        subset: a file of ImageSets/2017 such as "val"; without these lists, every sequence that has masks.
        prompt: what of the first masks is shown, of `SHOWN`.
        resolution: "480p", the benchmark's, or "240p".
    """

    name = "davis"
    headline = ("J&F", "J", "F")
    pixels: frozenset[str] = frozenset()
    layout = "SEQUENCE/00000.png and on, indexed, a pixel's value is the object's id"

    def __init__(self, root: Path, split: str, prompt: str = "mask", resolution: str = "480p") -> None:
        self.root, self.prompt, self.resolution = root, prompt, resolution
        if prompt not in SHOWN:
            raise UsageError(f"--prompt {prompt}: choose {', '.join(SHOWN)}")
        if resolution not in RESOLUTIONS:
            raise UsageError(f"--resolution {resolution}: choose {' or '.join(RESOLUTIONS)}")
        self.task, _, self.subset = split.partition("/")
        if self.task not in (SEMI, UNSUPERVISED) or not self.subset:
            raise UsageError(f"--split {split}: wanted {SEMI}/SET or {UNSUPERVISED}/SET, such as {SEMI}/val")

    @property
    def protocol(self) -> str:
        """The task's convention."""
        means = "Means over the objects of all sequences; J-R: share of frames above 0.5, J-D: decay. Where masks are"
        grey = "DAVIS-2016's (0 and 255), they are one object, and every id of a result is it."
        small = "" if self.resolution == "480p" else f" Frames and masks are those of {self.resolution}, not of 480p."
        text = _SEMI_TEXT if self.task == SEMI else _UNSUPERVISED_TEXT
        return f"{text} {means} {grey}{SHOWN[self.prompt]}{small}"

    @property
    def reported(self) -> tuple[Reported, ...]:
        """OSVOS on the whole validation set, whose results are published for checking."""
        whole = (self.task, self.subset, self.resolution) == (SEMI, "val", "480p")
        return (Reported("OSVOS (30 sequences)", _OSVOS, _TABLE),) if whole else ()

    @property
    def baselines(self) -> Mapping[str, Callable[[str, Path], None]]:
        """first-mask: the truth of the first frame on every frame."""
        return {"first-mask": self._first_mask}

    @cached_property
    def annotations(self) -> Path:
        """The folder of the task's truth."""
        names = ("Annotations_unsupervised", "Annotations") if self.task == UNSUPERVISED else ("Annotations",)
        places = [self.root / name / self.resolution for name in names]
        found = [place for place in places if place.is_dir()]
        if not found:
            raise InputError(f"{places[0]}: missing; --data is DAVIS, the folder of JPEGImages and Annotations")
        return found[0]

    def tasks(self) -> Sequence[str]:
        """One task per sequence."""
        lists = {path.stem: path for path in entries(self.root / "ImageSets" / "2017", "*.txt")}
        if self.subset in lists:
            return read_seqmap(lists[self.subset])
        if lists:
            there = ", ".join(lists)
            raise InputError(f"{self.root}: ImageSets/2017 has no list {self.subset}.txt; it has those of {there}")
        found = [folder.name for folder in entries(self.annotations) if folder.is_dir()]
        if not found:
            raise InputError(f"{self.annotations}: no sequences; wanted SEQUENCE/00000.png")
        return found

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Show all objects on the first frame, and write a label map per frame.

        Raises:
            UsageError: in the unsupervised task nothing is shown; the tracker is told in words.
            InputError: a frame is missing; the tracker gives boxes without masks.
        """
        if self.task != SEMI:
            raise UsageError(f"davis: nothing is shown or said in the {self.task} task; score a folder with --results")
        truth = self._truth(task)
        images = [self.root / "JPEGImages" / self.resolution / task / f"{file.stem}.jpg" for file in truth]
        prompt = shown_objects(first_masks(truth[0]), self.prompt)
        maps = map(_labels, alone(follow({task: [prompt]}, map(read_image, images))))
        write_label_maps(results / task, [file.stem for file in truth], maps)

    def _first_mask(self, task: str, results: Path) -> None:
        truth = self._truth(task)
        masks = first_masks(truth[0])
        ids = np.sum([np.uint8(number) * mask for number, mask in masks.items()], axis=0, dtype=np.uint8)
        write_label_maps(results / task, [file.stem for file in truth], (ids for _ in truth))

    def _truth(self, task: str) -> list[Path]:
        files = entries(self.annotations / task, "*.png")
        if len(files) < 3:
            raise InputError(f"{self.annotations / task}: {len(files)} masks; wanted 00000.png and on, 3 or more")
        return files

    def score(self, task: str, results: Path) -> list[Row]:
        """One row per object."""
        if not (results / task).is_dir():
            raise MissingResultError(f"{results / task}: missing; wanted {self.layout}")
        every = self._truth(task)
        truth, unscored = (every[1:-1], [np.nan]) if self.task == SEMI else (every, [])
        files = [results / task / file.name for file in truth]
        for file in files:
            if not file.exists():
                raise InputError(f"{file}: missing; wanted a label map for every scored frame of {task}")
        return [
            Row(task, f"{task}/{label}", statistics(scores), {}, {"iou": [*unscored, *scores.j.tolist(), *unscored]})
            for label, scores in self._objects(every[0], truth, files)
        ]

    def _objects(self, first: Path, truth: Sequence[Path], files: Sequence[Path]) -> Iterable[ObjectScores]:
        if holds_one_mask(first):
            return [ObjectScores(1, score_binary_masks(truth, files))]
        objects = objects_of(first)
        if self.task == UNSUPERVISED:
            return (row for row, _ in matched_objects(truth, files, objects, MAX_PROPOSALS))
        check_ids(files, len(objects), "objects in the truth's first frame")
        return map(ObjectScores, objects, score_label_maps(truth, files, objects))

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """Means over objects."""
        return with_jf(percent_means(rows, STATISTICS))


def holds_one_mask(file: Path) -> bool:
    """Whether a label map is DAVIS-2016's, grey with 0 and 255, where DAVIS-2017's have a palette and ids.

    Raises:
        InputError: the file is missing or no label map.
    """
    labels = read_label_map(file)
    with Image.open(file) as image:
        return image.mode != "P" and set(np.unique(labels).tolist()) <= {0, VOID}


def first_masks(file: Path) -> dict[int, np.ndarray]:
    """The objects of a first label map that are seen on it: bool (height, width) by id; void is none.

    Raises:
        InputError: the file is missing or no label map, or shows no object.
    """
    labels = read_label_map(file)
    if holds_one_mask(file):
        masks = {1: labels > 0}
    else:
        masks = {number: labels == number for number in objects_of(file)}
    seen = {number: np.ascontiguousarray(mask) for number, mask in masks.items() if mask.any()}
    if not seen:
        raise InputError(f"{file}: shows no object, so there is nothing to follow")
    return seen


def shown_objects(masks: Mapping[int, np.ndarray], what: str) -> Prompt:
    """The prompt that begins a track of objects: their masks, bool (height, width) by id, or what of them is shown."""
    return Prompt(ids=tuple(masks), visual=tuple(_shown(mask, what) for mask in masks.values()))


def _shown(mask: np.ndarray, what: str) -> VisualPrompt:
    if what == "mask":
        return VisualPrompt(mask=mask)
    if what == "point":
        return VisualPrompt(points=((*deepest_point(mask), 1),))
    x1, y1, x2, y2 = (float(value) for value in box_of(mask))
    return VisualPrompt((x1, y1, x2, y2))


def _labels(seen: Prediction) -> np.ndarray:
    if seen.masks is None:
        raise InputError("davis: the tracker gives boxes and no masks; this kit scores masks, use a box kit")
    values, _ = label_map(seen.masks, seen.ids.tolist(), seen.scores.tolist(), *seen.masks.shape[1:])
    return values


def objects_of(first: Path) -> range:
    """The ids that DAVIS scores: 1 to the highest of the truth's first frame, void not counted."""
    labels = read_label_map(first)
    return range(1, int(labels[labels != VOID].max(initial=0)) + 1)


def check_ids(files: Iterable[Path], most: int, what: str) -> int:
    """The highest id of label maps.

    Raises:
        InputError: it is above `most`: the file, and what there are so many of.
    """
    highest = 0
    for file in files:
        found = int(read_label_map(file).max(initial=0))
        if found > most:
            raise InputError(f"{file}: holds the id {found}; wanted 0 to {most}, the number of {what}")
        highest = max(highest, found)
    return highest


def matched_objects(
    truth: Sequence[Path], files: Sequence[Path], objects: Sequence[int], most: int
) -> Iterator[tuple[ObjectScores, Scores]]:
    """The unsupervised task of one sequence, all frames: each object with the proposal matched to it and with its own.

    Args:
        truth: label maps, a frame each.
        files: label maps of proposals, as many.
        objects: ids of the truth, 1 and on.
        most: the highest id that a proposal may have.

    Yields:
        For every object, in the order of the proposals as the official tool has its rows: its scores with the proposal
        matched to it, and with the proposal of its own id.

    Raises:
        InputError: a file is missing, malformed, or holds an id above `most`.
    """
    highest = check_ids(files, most, "proposals allowed" if most == MAX_PROPOSALS else "objects")
    proposals = range(1, max(highest, len(objects)) + 1)
    table = pairwise_label_maps(truth, files, objects, proposals, void=VOID)
    for p, k in matched_proposals(table.j, table.f):
        yield ObjectScores(objects[k], Scores(table.j[p, k], table.f[p, k])), Scores(table.j[k, k], table.f[k, k])


def write_label_maps(folder: Path, names: Iterable[str], maps: Iterable[np.ndarray]) -> None:
    """Write uint8 label maps (height, width) as PNGs with DAVIS's palette, one per name, with the folder.

    Raises:
        OutputError: OUT02.
    """
    from trackgpt.export.davis import PALETTE
    from trackgpt.files import replacing, writing

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, labels in zip(names, maps, strict=True):
        with replacing(folder / f"{name}.png") as part:
            picture = Image.fromarray(labels)
            picture.putpalette(PALETTE)
            picture.save(part, format="PNG", compress_level=1)


def statistics(scores: Scores) -> dict[str, float]:
    """Mean, recall and decay of J and of F by the names of `STATISTICS`, as DAVIS's tool computes them."""
    return dict(zip(STATISTICS, (*summarise(scores.j), *summarise(scores.f)), strict=True))
