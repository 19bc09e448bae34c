"""The DAVIS-text kit: one referring expression an object of DAVIS-2017's validation videos, J&F over all frames.

Protocol "davis-text", MeViS-style: an object's expression is one instruction about the first frame, its prediction is
one binary mask a frame, and every frame is scored, the first and the last included. Nothing is matched after the fact:
the wrong object scores as the wrong object. Void pixels count as background. The mean is over expressions; its interval
draws whole sequences. The expressions are those of M. Bellver et al., "RefVOS: A Closer Look at Referring Expressions
for Video Object Segmentation", arXiv:2010.00263 (DAVIS17_RE_categorization.csv, one annotator), not the four annotators
of Refer-DAVIS17, so the numbers are not those of that benchmark.

Masks are DAVIS-2017's (an id a pixel) or, where only they are there, DAVIS-2016's (0 and 255). A DAVIS-2016 mask is the
union of all objects, so it says what an expression means only in a sequence with one object.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from eval.kits.synthtrack import follow
from eval.metrics.calibration import expected_calibration_error, spearman
from eval.metrics.intervals import bootstrap_mean
from eval.metrics.masks import sequence_scores
from trackgpt.errors import InputError
from trackgpt.types import Tracker

RESOLUTIONS = ("480p", "240p")
"""In the order of preference; 480p is what the benchmark uses, 240p what the sample has more of."""
_COLUMNS = ("video_id", "instance_id", "ref_exp", "ref_exp_difficulty")
_LAYOUT = "JPEGImages/480p/SEQUENCE/00000.jpg and Annotations/480p/SEQUENCE/00000.png"


@dataclass(frozen=True)
class Expression:
    """What is said of one object: sequence, id of the object in DAVIS-2017, the words, and the csv's difficulty."""

    sequence: str
    object: int
    text: str
    difficulty: str


@dataclass(frozen=True)
class Footage:
    """One sequence on disk.

    Attributes:
        name: as in DAVIS.
        resolution: "480p" or "240p".
        frames, masks: folders of frames and masks.
        union: the masks are DAVIS-2016's: 255 on every object.
        expressions: one an object, by id.
    """

    name: str
    resolution: str
    frames: Path
    masks: Path
    union: bool
    expressions: tuple[Expression, ...]


@dataclass(frozen=True)
class Row:
    """One expression followed through one sequence.

    Attributes:
        j, f: means over all frames, in [0, 1].
        refused: the first answer named no target.
        rethinks: frames on which the brain was asked again.
        scores, ious: purport score and true IoU on every frame where a target was being tracked.
    """

    sequence: str
    object: int
    resolution: str
    truth: str
    difficulty: str
    text: str
    answer: str
    j: float
    f: float
    refused: bool
    rethinks: int
    frames: int
    scores: list[float]
    ious: list[float]

    @property
    def jf(self) -> float:
        """(J + F) / 2."""
        return (self.j + self.f) / 2


def read_expressions(path: Path) -> dict[str, tuple[Expression, ...]]:
    """The expressions of every sequence, by object id.

    Args:
        path: refvos's csv: `video_id;instance_id;ref_exp;ref_exp_difficulty;...`, UTF-8.

    Raises:
        InputError: the file is missing, has no such columns, or a line has no text or no number for its object.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=";")
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: no column {', '.join(missing)}; wanted {';'.join(_COLUMNS)};...")
            said = [_expression(path, number, line) for number, line in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); wanted refvos's csv of expressions") from error
    by_sequence: dict[str, list[Expression]] = {}
    for expression in sorted(said, key=lambda e: (e.sequence, e.object)):
        by_sequence.setdefault(expression.sequence, []).append(expression)
    return {name: tuple(group) for name, group in by_sequence.items()}


def _expression(path: Path, number: int, line: dict[str, str]) -> Expression:
    name, key, text, difficulty = ((line[column] or "").strip() for column in _COLUMNS)
    if not name or not text or not key.isdecimal() or int(key) < 1:
        raise InputError(
            f"{path}: line {number} reads {name!r}, {key!r}, {text!r}; wanted a video, an id from 1, a text"
        )
    return Expression(name, int(key), text, difficulty)


def find_sequences(
    root: Path, said: dict[str, tuple[Expression, ...]], resolution: str = "auto"
) -> tuple[list[Footage], list[str]]:
    """The sequences that are on disk and can be scored, by name, and why others on disk were left out.

    Args:
        root: a folder in DAVIS's layout; sequences may be missing.
        said: of `read_expressions`.
        resolution: "480p", "240p", or "auto": for every sequence the better one it has.

    Raises:
        InputError: the root is missing, or holds no sequence that can be scored.
    """
    wanted = RESOLUTIONS if resolution == "auto" else (resolution,)
    places = {
        folder.name: (size, folder)
        for size in reversed(wanted)
        for folder in sorted((root / "JPEGImages" / size).glob("*"))
        if folder.is_dir()
    }
    if not places:
        raise InputError(f"{root}: no sequences of {' or '.join(wanted)}; --root is a folder with {_LAYOUT}")
    found, left_out = [], []
    for name, (size, folder) in sorted(places.items()):
        masks = root / "Annotations" / size / name
        union = _is_union(masks)
        if name not in said:
            left_out.append(f"{name}: no expression")
        elif union and len(said[name]) > 1:
            left_out.append(f"{name}: its DAVIS-2016 masks are the union of {len(said[name])} objects")
        else:
            found.append(Footage(name, size, folder, masks, union, said[name]))
    if not found:
        raise InputError(f"{root}: none of its {len(places)} sequences can be scored ({'; '.join(left_out[:3])})")
    return found, left_out


def _is_union(folder: Path) -> bool:
    """Whether masks are DAVIS-2016's: grey images of 0 and 255, where DAVIS-2017's have a palette and ids."""
    from PIL import Image

    first = min(folder.glob("*.png"), default=None)
    if first is None:
        raise InputError(f"{folder}: no masks; wanted 00000.png, 00001.png, ... beside the frames")
    with Image.open(first) as image:
        return image.mode != "P" and set(np.unique(np.asarray(image)).tolist()) <= {0, 255}


def load(sequence: Footage) -> tuple[np.ndarray, np.ndarray]:
    """Frames, uint8 RGB (T, height, width, 3), and labels, uint8 (T, height, width): ids, or 0 and 255 of a union.

    Raises:
        InputError: an image is damaged or of another size, or a frame has no mask.
    """
    from PIL import Image

    from trackgpt.video.source import open_source

    frames, labels = [], []
    with open_source(sequence.frames) as source:
        for frame in source:
            path = sequence.masks / f"{frame.name}.png"
            if frame.image is None or not path.exists():
                raise InputError(f"{sequence.frames}: frame {frame.name}: {frame.problem or f'{path} is missing'}")
            with Image.open(path) as image:
                label = np.asarray(image)
            if label.shape != frame.image.shape[:2]:
                raise InputError(f"{path}: a mask of shape {label.shape} for a frame of {frame.image.shape[:2]}")
            frames.append(frame.image)
            labels.append(label)
    return np.stack(frames), np.stack(labels)


def evaluate(
    sequence: Footage, expression: Expression, frames: np.ndarray, labels: np.ndarray, tracker: Tracker
) -> Row:
    """Follow one expression through a sequence that `load` read.

    Raises:
        InputError: the object is in none of the masks.
    """
    truth = labels == (255 if sequence.union else expression.object)
    if not truth.any():
        raise InputError(f"{sequence.masks}: object {expression.object} ({expression.text!r}) is in none of the masks")
    done = follow(frames, truth, expression.text, tracker)
    result = sequence_scores(done.masks, truth)
    return Row(
        sequence.name,
        expression.object,
        sequence.resolution,
        "DAVIS-2016" if sequence.union else "ids",
        expression.difficulty,
        expression.text,
        done.answer,
        float(np.mean(result.j)),
        float(np.mean(result.f)),
        done.refused,
        done.rethinks,
        len(done.masks),
        [round(score, 4) for score in done.scores],
        [round(iou, 4) for iou in done.ious],
    )


def summarise(rows: Sequence[Row]) -> dict[str, float]:
    """All figures of a run, in percent except counts, spearman and ece (10 bins).

    "J&F_low" and "J&F_high" are the ends of the 95 % bootstrap interval of J&F over sequences; NaN for one sequence.

    Raises:
        InputError: there are no rows.
    """
    interval = bootstrap_mean([row.jf for row in rows], seed=0, groups=[row.sequence for row in rows])
    scores = [score for row in rows for score in row.scores]
    ious = [iou for row in rows for iou in row.ious]
    return {
        "J&F": 100 * interval.mean,
        "J&F_low": 100 * interval.low,
        "J&F_high": 100 * interval.high,
        "J": 100 * float(np.mean([row.j for row in rows])),
        "F": 100 * float(np.mean([row.f for row in rows])),
        "sequences": len({row.sequence for row in rows}),
        "expressions": len(rows),
        "frames": sum(row.frames for row in rows),
        "refusal_rate": 100 * float(np.mean([row.refused for row in rows])),
        "rethink_rate": 100 * sum(row.rethinks for row in rows) / sum(row.frames for row in rows),
        "spearman": spearman(scores, ious),
        "ece": expected_calibration_error(scores, ious),
    }


def by_sequence(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of every sequence, by name and object."""
    for name in sorted({row.sequence for row in rows}):
        yield name, sorted((row for row in rows if row.sequence == name), key=lambda row: row.object)


def as_json(row: Row) -> dict[str, object]:
    """A row as plain values."""
    return asdict(row)


def from_json(values: dict[str, object]) -> Row:
    """The inverse of `as_json`; unknown fields of a newer writer are dropped."""
    names = {field.name for field in dataclasses.fields(Row)}
    return Row(**{key: value for key, value in values.items() if key in names})  # type: ignore[arg-type]
