"""What the box kits share: one target per sequence, described by a sentence or shown by a box, and a box per frame.

Result files are SEQUENCE.txt, x,y,w,h per line with commas, tabs or spaces between, and optionally SEQUENCE_time.txt
with the seconds of every frame. They lie in the folder itself, or below it in the folder of one tracker, as in toolkits
(tracking_results/TRACKER/PARAMETERS). A frame without a box is written 0,0,0,0: the toolkits of LaSOT, TNL2K and
TNLLT put the box of the frame before in its place.

A kit's name is that of its reader in `trackgpt.data`. Each convention's figures carry its name in front, as in
"lasot_matlab/AUC".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.kit import Follow, Item, MissingResultError, Row, SplitKit, alone
from eval.metrics.boxes import FrameErrors, SequenceResult, figures, sequence_result, xywh
from eval.metrics.interactive import overlaps
from trackgpt.data.box_files import read_boxes
from trackgpt.data.box_video import READERS, BoxPart, BoxSequence, BoxTruth
from trackgpt.data.mot_sequences import MotPart
from trackgpt.data.trees import entries
from trackgpt.data.videos import Video
from trackgpt.errors import InputError, UsageError
from trackgpt.types import Box, Prediction, Prompt, VisualPrompt

FloatArray = NDArray[np.float64]
Convention = Callable[[FloatArray, BoxTruth], FrameErrors]

HITS = ("success_hits", "precision_hits", "normalised_hits")
CURVES = ("success", "precision", "normalised_precision")
DEPTHS = ("*", "*/*", "*/*/*")


class BoxKit(SplitKit[Item]):
    """A kit over the sequences of a `BoxPart` or `MotPart`; a kit of its own gives `read`, `about` and the rest."""

    about = ""

    def read(self) -> BoxPart | MotPart:
        """The part of the data set."""
        raise NotImplementedError

    @cached_property
    def part(self) -> Any:
        """The sequences that are here, and the names of those that are not."""
        return self.read()

    def items(self) -> Iterable[Item]:
        """The sequences that are here."""
        return self.part.sequences

    @property
    def protocol(self) -> str:
        """What the figures mean, and over how much of the benchmark they are taken."""
        here, missing = len(self.part.sequences), len(self.part.missing)
        return self.about + (f" **Only {here} of the list's {here + missing} sequences are here.**" if missing else "")


class PromptedBoxKit(BoxKit[Item]):
    """A kit whose tracks can begin in several ways.

    Attributes:
        prompt: what begins the track, of `begins`.
        begins: what the protocol says of it.
    """

    begins: Mapping[str, str] = {}

    def __init__(self, root: Path, split: str, prompt: str = "sentence") -> None:
        super().__init__(root, split)
        self.prompt = prompt
        if prompt not in self.begins:
            raise UsageError(f"--prompt {prompt}: choose {' or '.join(self.begins)}")

    @property
    def protocol(self) -> str:
        """What the figures mean, what begins the track, and over how much of the benchmark they are taken."""
        return super().protocol + self.begins[self.prompt]


class BoxSequenceKit(PromptedBoxKit[BoxSequence]):
    """See the module; a kit of its own gives texts and `conventions`.

    Attributes:
        conventions: by name, errors of a sequence from predicted boxes, float64 (T, 4) xywh, and truth; the first is
            drawn, and its figures come first.
    """

    name = ""
    headline: tuple[str, ...] = ()
    pixels = frozenset({"fps"})
    layout = "SEQUENCE.txt, x,y,w,h per line, for every frame; 0,0,0,0 for no box"
    conventions: Mapping[str, Convention] = {}
    begins = {
        "sentence": " The sentence alone begins the track.",
        "box": " The true box of the first frame begins the track, and nothing is said.",
        "both": " The true box of the first frame and the sentence begin the track.",
    }

    def read(self) -> BoxPart:
        """The sequences, from the reader of this name."""
        return READERS[self.name](self.root, self.split)

    @property
    def baselines(self) -> Mapping[str, Callable[[str, Path], None]]:
        """first-box: the first true box, everywhere."""
        return {"first-box": self._first_box}

    def prompts(self, task: str, video: Video) -> list[Prompt]:
        """What is said or shown of a sequence, by frame: the sentence, the true box, or both, on the first frame.

        Raises:
            InputError: there is none.
        """
        if self.prompt == "box":
            return [Prompt(visual=(VisualPrompt(_first_box(task, video)),))]
        if not video.expressions:
            raise InputError(f"{task}: no sentence to begin with; only its result files can be scored")
        shown = (VisualPrompt(_first_box(task, video)),) if self.prompt == "both" else ()
        return [Prompt(video.expressions[0].text, visual=shown)]

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Say every prompt at its frame; frames before the first are not tracked and have no box."""
        sequence = self.by_name[task]
        video = needed_frames(sequence)
        prompts = self.prompts(task, video)
        first = prompts[0].frame
        said = [replace(prompt, frame=prompt.frame - first) for prompt in prompts]
        frames = (video.frame(t) for t in range(first, len(video)))
        boxes = boxes_of_one_target(alone(follow({task: said}, frames)))
        boxes[boxes.any(axis=1), :2] += sequence.origin
        write_boxes(results / f"{task}.txt", np.concatenate((np.zeros((first, 4)), boxes)))

    def _first_box(self, task: str, results: Path) -> None:
        truth = self.by_name[task].truth().boxes
        write_boxes(results / f"{task}.txt", np.repeat(truth[:1], len(truth), axis=0))

    def score(self, task: str, results: Path) -> list[Row]:
        """One row per sequence."""
        sequence = self.by_name[task]
        truth, path = sequence.truth(), result_file(results, task, self.layout)
        predicted = read_result(path, len(truth.boxes), sequence.slack)
        scored = {name: sequence_result(errors(predicted, truth)) for name, errors in self.conventions.items()}
        figures_, series = rows_of(scored)
        seen = plain_overlaps(predicted, truth)
        said = {"instruction": sequence.text()} if sequence.sentence else {}
        said |= {"note": truth.note} if truth.note else {}
        tags = {"attribute": sorted(sequence.attributes())}
        return [Row(task, task, {**figures_, **timing(path, task)}, tags, {**series, "iou": seen}, said)]

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """The figures of every convention, by its own rule of averaging."""
        return {**pooled_figures(rows, self.conventions), **pooled_timing(rows)}


def _first_box(task: str, video: Video) -> Box:
    """The true box of the first frame.

    Raises:
        InputError: the target is not on it.
    """
    box = video.boxes[0] if video.boxes is not None else np.full(4, np.nan)
    if not np.isfinite(box).all():
        raise InputError(f"{task}: the target is not on the first frame, so that no box can begin the track")
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2


def needed_frames(sequence: BoxSequence) -> Video:
    """The sequence as a video with frames.

    Raises:
        InputError: there are none, or less than boxes.
    """
    video = sequence.video()
    if not video.images:
        raise InputError(f"{sequence.images}: no frames; unpack them to run a model, or score --results without them")
    return video


# Boxes of a track


class OneTarget:
    """Of the targets of a track the one that a benchmark of one target scores.

    Among several the one with the highest score is taken on the first frame that has any, and kept by its id until a
    prompt is answered, other than by adding a target, or the id is gone.
    """

    def __init__(self) -> None:
        self._chosen: int | None = None

    def box(self, prediction: Prediction) -> FloatArray:
        """Its box on the next frame, (4,) xyxy, NaN where it is absent."""
        ids = prediction.ids.tolist()
        if self._chosen not in ids or (prediction.reason == "prompt" and prediction.verdict != "add"):
            self._chosen = _surest(prediction)
        if self._chosen not in ids:
            return np.full(4, np.nan)
        return np.asarray(prediction.boxes[ids.index(self._chosen)], np.float64)


def shown_boxes(boxes: ArrayLike) -> tuple[VisualPrompt, ...]:
    """What shows targets by their boxes (n, 4) xywh."""
    return tuple(VisualPrompt((x, y, x + w, y + h)) for x, y, w, h in np.asarray(boxes, np.float64).tolist())


def boxes_of_one_target(predictions: Iterable[Prediction]) -> FloatArray:
    """The boxes of `OneTarget` on every frame: float64 (T, 4) xywh, zeros where it is absent."""
    target = OneTarget()
    boxes = xywh(np.reshape([target.box(prediction) for prediction in predictions], (-1, 4)))
    boxes[~np.isfinite(boxes).all(axis=1)] = 0
    return boxes


def _surest(prediction: Prediction) -> int | None:
    """The id with the highest score, present ones first; None without targets."""
    if not len(prediction.ids):
        return None
    order = np.lexsort((-prediction.scores, ~prediction.present))
    return int(prediction.ids[order[0]])


def write_boxes(path: Path, boxes: FloatArray) -> None:
    """Write float64 (T, 4) xywh, a line each, to a ten-thousandth of a pixel, with the folder.

    Raises:
        OutputError: OUT02.
    """
    from eval.run_folder import write_text

    write_text(path, "".join(",".join(f"{value:.4f}" for value in box) + "\n" for box in boxes.tolist()))


# Result files


def result_file(results: Path, name: str, wanted: str) -> Path:
    """The file of a sequence, in the folder or in the folder of one tracker below it.

    Raises:
        MissingResultError: there is none.
        InputError: there are several, of different trackers.
    """
    direct = results / f"{name}.txt"
    if direct.is_file():
        return direct
    found = sorted(path for depth in DEPTHS for path in entries(results, f"{depth}/{escape(name)}.txt"))
    if not found:
        raise MissingResultError(f"{direct}: missing; wanted {wanted}")
    if len(found) > 1:
        raise InputError(f"{results}: holds {found[0]} and {found[1]}; give the folder of one tracker as --results")
    return found[0]


def read_result(path: Path, frames: int, slack: int = 0) -> FloatArray:
    """A result file: float64 (frames, 4) xywh.

    Args:
        path: the file.
        frames: of the truth.
        slack: how many lines more are cut off.

    Raises:
        InputError: a line is no box, holds NaN or a negative size, or the lines are not one per frame.
    """
    boxes = read_boxes(path)
    odd = np.flatnonzero(np.isnan(boxes).any(axis=1) | (boxes[:, 2:] < 0).any(axis=1))
    if odd.size:
        shown = ",".join(f"{value:g}" for value in boxes[odd[0]])
        raise InputError(f"{path}: line {odd[0] + 1} is {shown}, wanted w, h >= 0 and no NaN; 0,0,0,0 says no box")
    if not frames <= len(boxes) <= frames + slack:
        raise wrong_length(path, len(boxes), frames)
    return boxes[:frames]


def wrong_length(path: Path, lines: int, frames: int) -> InputError:
    """The error of a result file that does not fit its truth."""
    where = f"ends at line {lines}" if lines < frames else f"goes on after line {frames}"
    return InputError(f"{path}: {where} ({lines} boxes for {frames} frames); wanted a line per frame; run it again")


def plain_overlaps(predicted: FloatArray, truth: BoxTruth) -> list[float]:
    """IoU of every frame without "+1", NaN where the target is absent: what scores are compared with."""
    seen = ~truth.absent & np.isfinite(truth.boxes).all(axis=1)
    return np.where(seen, overlaps(np.where(seen[:, None], truth.boxes, 0), predicted), np.nan).tolist()


def timing(result: Path, name: str) -> dict[str, float]:
    """Frames and seconds from SEQUENCE_time.txt next to a result file; empty without one.

    Raises:
        InputError: a line is no finite number of seconds.
    """
    path = result.with_name(f"{name}_time.txt")
    if not path.is_file():
        return {}
    seconds = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            seconds.append(float(line))
        except ValueError:
            seconds.append(np.nan)
        if not 0 <= seconds[-1] < np.inf:
            raise InputError(f"{path}: line {number} is {str(line[:40])[1:]}, wanted the seconds of a frame")
    return {"timed_frames": float(len(seconds)), "timed_seconds": float(sum(seconds))}


# Rows and figures


def rows_of(scored: Mapping[str, SequenceResult]) -> tuple[dict[str, float], dict[str, Sequence[float]]]:
    """Figures and series of a sequence's row: all that `pooled_figures` needs, and the first convention's curves."""
    found: dict[str, float] = {}
    series: dict[str, Sequence[float]] = {}
    for name, result in scored.items():
        percent = figures([result]).percent
        found |= {f"{name}/{key}": value / 100 for key, value in percent.items() if np.isfinite(value)}
        found[f"{name}/frames"] = float(result.frames)
        if np.isfinite(result.mean_overlap):
            found[f"{name}/mean_overlap"] = result.mean_overlap
        series |= {f"{name}/{hits}": getattr(result, hits) for hits in HITS}
    first = next(iter(scored.values()), None)
    return found, {**({curve: getattr(first, curve).tolist() for curve in CURVES} if first else {}), **series}


def pooled_figures(rows: Sequence[Row], conventions: Iterable[str]) -> dict[str, float]:
    """Figures over sequences, in percent, by each convention's rule, exact from the whole numbers of rows."""
    out: dict[str, float] = {}
    for name in conventions:
        results = [_result_of(row, name) for row in rows if f"{name}/frames" in row.figures]
        if results:
            out |= {f"{name}/{key}": value for key, value in figures(results).percent.items()}
    return out


def _result_of(row: Row, name: str) -> SequenceResult:
    hits = (tuple(int(hit) for hit in row.series[f"{name}/{each}"]) for each in HITS)
    overlap = row.figures.get(f"{name}/mean_overlap", np.nan)
    return SequenceResult(name, int(row.figures[f"{name}/frames"]), *hits, mean_overlap=overlap)


def pooled_timing(rows: Sequence[Row]) -> dict[str, float]:
    """fps over all timed frames; empty without any."""
    timed = [row.figures for row in rows if row.figures.get("timed_seconds", 0) > 0]
    seconds = sum(figures_["timed_seconds"] for figures_ in timed)
    return {"fps": sum(figures_["timed_frames"] for figures_ in timed) / seconds} if timed else {}
