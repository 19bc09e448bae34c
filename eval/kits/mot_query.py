"""QTrack's protocol on MOTChallenge trees (appendix E): from a reference frame on, only who is asked about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.kit import Follow, Reported, Row, alone, percent_means, values
from eval.kits.box_sequences import PromptedBoxKit, result_file, shown_boxes
from eval.kits.mot import figures_of, result_lines, scores_of
from eval.metrics.multi_object import combined_scores, sequence_scores
from eval.metrics.query_mot import clip_metrics
from eval.run_folder import write_text
from trackgpt.data.mot_files import MotTruth, Tracked, read_results
from trackgpt.data.mot_sequences import MotPart, QuerySegment, mot, query_segments
from trackgpt.data.videos import read_image
from trackgpt.errors import InputError
from trackgpt.types import Prompt

MOTION = ("MCP", "MCP_static_box")
STATIC = "static-box/"
TOOLKIT = ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1")
_PRINTED = {
    "QTrack on MOT17": (69, 87, 69, 26),
    "VisionReasoner on MOT17": (64, 86, 60, 21),
    "QTrack on DanceTrack": (63, 83, 66, 35),
    "VisionReasoner on DanceTrack": (59, 85, 61, 26),
}


class MotQuery(PromptedBoxKit[QuerySegment]):
    """See the module; splits are train, val and test."""

    name = "mot-query"
    about = (
        "Protocol mot-query (QTrack, appendix E): a segment is a reference frame and those after it; only the objects "
        "that are asked about are truth, and every other box counts as false. HOTA, CLEAR and Identity are TrackEval's "
        "without preprocessing; counts are summed over segments before ratios are formed. MCP (rmot26_proposed) is the "
        "mean over objects, paired with the predicted track that overlaps each most. The authors say neither which "
        "segments nor which questions they took: questions are those of queries.json, and without it the largest "
        "pedestrian of every 30 frames, whom only a box can name. So no figure here may be compared with the paper's "
        "without saying so. **Read MCP only beside MCP_static_box**; static-box/* is the initial box on every frame."
    )
    begins = {
        "sentence": " The question alone begins the track.",
        "box": " The true boxes on the reference begin the track, beside the question where there is one.",
    }
    headline = ("HOTA", "MOTA", "MOTP", "MCP", "MCP_static_box", "static-box/HOTA")
    pixels = frozenset({"IDSW"})
    layout = "SEQUENCE-FRAME-IDS.txt, frame,id,x,y,w,h,score,-1,-1,-1 per line, the reference is frame 1"
    reported = tuple(
        Reported(name, dict(zip(("MOTA", "MOTP", "HOTA", "MCP"), row, strict=True)), "QTrack, Table 3 (x 100)")
        for name, row in _PRINTED.items()
    )

    @property
    def baselines(self) -> Mapping[str, Callable[[str, Path], None]]:
        """static-box: the true boxes of the reference on every frame; needs no image."""
        return {"static-box": self._static_box}

    def read(self) -> MotPart:
        """See `trackgpt.data.mot_sequences.mot`."""
        return mot(self.root, self.split)

    @cached_property
    def by_name(self) -> dict[str, QuerySegment]:
        """The segments by name."""
        return {each.name: each for sequence in self.part.sequences for each in query_segments(sequence)}

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Ask the question of the reference frame and track through the segment."""
        segment = self.by_name[task]
        prompt, images = self._prompt(segment), segment.sequence.images()
        shown = images[segment.frames[0] : segment.frames[-1] + 1]
        predictions = alone(follow({task: [prompt]}, map(read_image, shown)))
        write_text(results / f"{task}.txt", "".join(result_lines(predictions)))

    def _prompt(self, segment: QuerySegment) -> Prompt:
        """What begins the track.

        Raises:
            InputError: there is no question.
        """
        if self.prompt == "sentence":
            if not segment.question:
                raise InputError(f"{segment.name}: no question; begin with its true box (--prompt box)")
            return Prompt(segment.question)
        return Prompt(segment.question, visual=shown_boxes(segment.truth().boxes[0]))

    def _static_box(self, task: str, results: Path) -> None:
        segment = self.by_name[task]
        still = _still(segment.truth())
        lines = [
            f"{t},{number},{','.join(f'{value:g}' for value in box)},1,-1,-1,-1\n"
            for t, (ids, boxes) in enumerate(zip(still.ids, still.boxes, strict=True), 1)
            for number, box in zip(ids, boxes, strict=True)
        ]
        write_text(results / f"{task}.txt", "".join(lines))

    def score(self, task: str, results: Path) -> list[Row]:
        """One row per segment, with every number that combining segments needs."""
        segment = self.by_name[task]
        found = read_results(result_file(results, task, self.layout), len(segment.frames))
        truth = segment.truth()
        figures, series = figures_of(sequence_scores(truth, found, preprocess=False))
        still, still_series = figures_of(sequence_scores(truth, _still(truth), preprocess=False))
        figures |= {STATIC + name: value for name, value in still.items()} | _motion(truth, found, segment.ids)
        series |= {STATIC + name: value for name, value in still_series.items()}
        tags = {"sequence": [segment.sequence.name]}
        return [Row(task, task, figures, tags, series, {"instruction": segment.question} if segment.question else {})]

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """TrackEval's numbers of all segments together, of the tracker and of the static box; means of MCP."""
        whole = combined_scores({row.unit: scores_of(row) for row in rows}).summary()
        still = combined_scores({row.unit: scores_of(_unprefixed(row)) for row in rows}).summary()
        own = {name: 100 * whole[name] for name in TOOLKIT}
        static = {STATIC + name: 100 * still[name] for name in TOOLKIT}
        motion = percent_means(rows, MOTION) if len(values(rows, "MCP")) else {}
        return {**own, "IDSW": whole["IDSW"], **motion, **static}


def _unprefixed(row: Row) -> Row:
    """The static box's part of a row."""
    figures, series = (
        {name.removeprefix(STATIC): value for name, value in of.items() if name.startswith(STATIC)}
        for of in (row.figures, row.series)
    )
    return Row(row.task, row.unit, figures, row.tags, series, row.said)


def _still(truth: MotTruth) -> Tracked:
    """The boxes of the reference on every frame."""
    count = len(truth.ids)
    return Tracked([truth.ids[0]] * count, [truth.boxes[0]] * count)


def _motion(truth: MotTruth, found: Tracked, ids: Iterable[int]) -> dict[str, float]:
    """MCP of each object and of its static box, the means of both; empty where no object is seen on two frames."""
    tracks = {number: _track(found, number) for number in {int(n) for of in found.ids for n in np.asarray(of)}}
    scored = []
    for number in ids:
        boxes = _track(truth, number)
        seen = np.isfinite(boxes).all(axis=1)
        if seen.sum() < 2:
            continue
        options = [clip_metrics(boxes[seen], track[seen]) for track in tracks.values()]
        none = clip_metrics(boxes[seen], np.full((int(seen.sum()), 4), np.nan))
        scored.append(max(options, key=lambda figures: figures["MOTP_all"], default=none))
    return {name: float(np.mean([figures[name] for figures in scored])) for name in MOTION} if scored else {}


def _track(boxes: MotTruth | Tracked, number: int) -> NDArray[np.float64]:
    """The boxes of an object, float64 (frames, 4) xywh, NaN where it is not."""
    track = np.full((len(boxes.ids), 4), np.nan)
    for row, ids, places in zip(track, boxes.ids, boxes.boxes, strict=True):
        for place in np.flatnonzero(np.asarray(ids) == number)[:1]:
            row[:] = np.asarray(places)[place]
    return track
