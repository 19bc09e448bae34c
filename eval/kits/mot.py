"""MOTChallenge benchmarks: HOTA, CLEAR and Identity of all objects of a class (MOT15 to MOT20, SportsMOT)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from eval.kit import Follow, Row, alone
from eval.kits.box_sequences import BoxKit, result_file
from eval.metrics.boxes import xywh
from eval.metrics.multi_object import MultiObjectScores, combined_scores, sequence_scores
from eval.run_folder import write_text
from trackgpt.data.mot_files import read_results
from trackgpt.data.mot_sequences import MotPart, MotSequence, mot
from trackgpt.data.videos import read_image
from trackgpt.types import Prediction, Prompt

PROMPT = "every person"
"""What a model is told: these benchmarks have no sentences, and score pedestrians or players."""
COUNTS = {"CLR_FP": "FP", "CLR_FN": "FN", "MT": "MT", "ML": "ML", "Frag": "Frag"}


class Mot(BoxKit[MotSequence]):
    """See the module; splits are train, val and test."""

    name = "mot"
    about = (
        "Protocol mot: TrackEval (PyPI trackeval 1.3.0) with the preprocessing of MOT17, or of MOT20 for sequences of "
        "that name. HOTA, DetA, AssA and LocA are means over the IoU thresholds 0.05 to 0.95; MOTA, MOTP and IDF1 are "
        "at IoU 0.5. The figures are TrackEval's COMBINED_SEQ: counts are summed over sequences before ratios are "
        f'formed, so long sequences weigh more. A model is told "{PROMPT}" on the first frame and cannot take up those '
        "who come later unless it asks itself again."
    )
    headline = ("HOTA", "MOTA", "IDF1", "AssA", "DetA")
    pixels = frozenset({"IDSW", *COUNTS.values()})
    layout = "SEQUENCE.txt, frame,id,x,y,w,h,score,-1,-1,-1 per line, frames from 1"

    def read(self) -> MotPart:
        """See `trackgpt.data.mot_sequences.mot`."""
        return mot(self.root, self.split)

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Track every person of the first frame."""
        images = self.by_name[task].images()
        predictions = alone(follow({task: [Prompt(PROMPT)]}, map(read_image, images)))
        write_text(results / f"{task}.txt", "".join(result_lines(predictions)))

    def score(self, task: str, results: Path) -> list[Row]:
        """One row per sequence, with every number that combining sequences needs."""
        sequence = self.by_name[task]
        path = result_file(results, task, self.layout)
        benchmark = "MOT20" if task.startswith("MOT20") else "MOT17"
        scores = sequence_scores(sequence.truth(), read_results(path, sequence.info().frames), benchmark=benchmark)
        figures, series = figures_of(scores)
        return [Row(task, task, {**scores.summary(), **figures}, {}, series)]

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """TrackEval's numbers of all sequences together."""
        whole = combined_scores({row.unit: scores_of(row) for row in rows})
        summary = {name: value * (1 if name in self.pixels else 100) for name, value in whole.summary().items()}
        identity = {name: 100 * float(whole.identity[name]) for name in ("IDP", "IDR")}
        return {**summary, **identity, **{ours: float(whole.clear[theirs]) for theirs, ours in COUNTS.items()}}


def result_lines(predictions: Iterable[Prediction]) -> Iterable[str]:
    """Lines of MOTChallenge's result format, of targets that are present."""
    for frame, prediction in enumerate(predictions, 1):
        boxes = xywh(prediction.boxes.reshape(-1, 4))
        for number, box, score, present in zip(prediction.ids, boxes, prediction.scores, prediction.present):
            if present and np.isfinite(box).all():
                yield f"{frame},{number},{','.join(f'{value:.2f}' for value in box)},{score:.4f},-1,-1,-1\n"


def figures_of(scores: MultiObjectScores) -> tuple[dict[str, float], dict[str, list[float]]]:
    """All fields as figures, "clear/MOTA", and the arrays over thresholds as series, "hota/HOTA"."""
    figures: dict[str, float] = {}
    series: dict[str, list[float]] = {}
    for part in fields(scores):
        for name, value in getattr(scores, part.name).items():
            if np.ndim(value):
                series[f"{part.name}/{name}"] = np.asarray(value).tolist()
            else:
                figures[f"{part.name}/{name}"] = float(value)
    return figures, series


def scores_of(row: Row) -> MultiObjectScores:
    """The scores that `figures_of` made a row of."""
    parts: dict[str, dict[str, Any]] = {part.name: {} for part in fields(MultiObjectScores)}
    arrays = {name: np.asarray(values, np.float64) for name, values in row.series.items()}
    for name, value in {**row.figures, **arrays}.items():
        part, _, field = name.partition("/")
        if field and part in parts:
            parts[part][field] = value
    return MultiObjectScores(**parts)
