"""RMOT26, the benchmark of QTrack: a question about objects of a reference frame, answered with boxes of a clip."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from eval.kit import Follow, MissingResultError, Reported, Row, SplitKit, alone, percent_means, values
from eval.kits.box_sequences import boxes_of_one_target, shown_boxes
from eval.metrics.boxes import xywh
from eval.metrics.multi_object import sequence_scores
from eval.metrics.query_mot import box_iou, clip_metrics
from eval.metrics.query_mot_answers import paired_by_position, parse_predicted_output
from eval.run_folder import write_text
from trackgpt.data import query_clips
from trackgpt.data.mot_files import MotTruth, Tracked
from trackgpt.data.query_clips import ClipObject, QueryClip, frame_number
from trackgpt.data.trees import entries, read_object
from trackgpt.errors import InputError, UsageError
from trackgpt.types import Prediction, Prompt

FloatArray = NDArray[np.float64]

SHARES = (
    *("MCP", "MCP_static_box", "MCP_skip_static", "MCP_static_box_skip_static", "MCP_history"),
    *("MOTP_all", "MOTP_0.8", "MOTP_clear", "MOTA", "MOTA_0.8", "Robustness", "DRE", "MotionRecall"),
)
LENGTHS = ("CLE", "NDE", "NDE_sqrtarea", "VelocityError")
STATIC_SHARES, STATIC_LENGTHS = ("MOTP_all", "MOTA"), ("CLE", "NDE")
BEGINS = {
    "sentence": "The question alone begins the track on the reference frame.",
    "box": "The initial boxes on the reference frame begin the track beside the question, as in the paper's prompt.",
}
STATIC = "static-box/"
"""In front of a figure of the initial box, which stays where it is."""
TOOLKIT = ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1")
_PRINTED = {  # MCP x 100, CLE in px, NDE
    "QTrack 3B": (30, 44.61, 0.39),
    "VisionReasoner 7B": (23, 428.9, 2.24),
    "Qwen2.5-VL 7B": (24, 289.2, 2.07),
    "Qwen3-VL 8B": (25, 96.0, 0.97),
    "Gemma 3 27B": (24, 58.4, 0.88),
    "InternVL 8B": (21, 117.44, 0.64),
    "gpt-5.2": (25, 94.2, 0.55),
}


class Rmot26(SplitKit[QueryClip]):
    """See the module; splits are train and test."""

    name = "rmot26"
    about = (
        "Protocol rmot26_proposed unless a figure says otherwise; no released code holds what printed the paper's "
        "tables (see eval.metrics.query_mot). Targets are given to objects by overlap with the initial boxes, which "
        "the benchmark hands out. Boxes are paired with the truth by their place in the list, as the released "
        "evaluator does; a box 0,0,0,0 or none counts as missing and lies at the corner of the frame. Means over "
        "objects, so that each trajectory weighs the same; average_iou, the released evaluator's number, and "
        "trackeval/* (HOTA, CLEAR, Identity of each clip) are means over clips. **Read MCP only beside "
        "MCP_static_box: a box that never moves scores 27 % wherever the truth moves, more than every baseline of the "
        "paper's Table 2.** static-box/* is the initial box on every frame. MOTP_all: mean IoU; MOTP_clear: of frames "
        "with IoU >= 0.5; MOTP_0.8: deleted code's, of frames with IoU >= 0.8, else 0. The paper's MOTP (QTrack 0.75) "
        "is put beside none of them, as nobody knows which it is; its MCP is multiplied by 100 here. CLE in px, NDE "
        "in diagonals of the true box."
    )
    headline = ("MCP", "MCP_static_box", "MOTP_all", "CLE", "NDE", "MOTA", "trackeval/HOTA")
    pixels = frozenset((*LENGTHS, *(STATIC + name for name in STATIC_LENGTHS)))
    layout = (
        '{"results": [{"id", "predicted_output": [{"frame", "bbox": [x, y, w, h]}]}]} in one or several .json files'
    )
    reported = tuple(
        Reported(name, dict(zip(("MCP", "CLE", "NDE"), row, strict=True)), "QTrack, Table 2 (MCP x 100)")
        for name, row in _PRINTED.items()
    )

    def __init__(self, root: Path, split: str, prompt: str = "sentence") -> None:
        super().__init__(root, split)
        self.prompt = prompt
        if prompt not in BEGINS:
            raise UsageError(f"--prompt {prompt}: choose {' or '.join(BEGINS)}")

    @property
    def protocol(self) -> str:
        """What the figures mean, and what begins a track."""
        return f"{self.about} {BEGINS[self.prompt]}"

    @property
    def baselines(self) -> Mapping[str, Callable[[str, Path], None]]:
        """static-box: the initial box on every frame; needs no image."""
        return {"static-box": self._static_box}

    def items(self) -> Iterable[QueryClip]:
        """The clips of the split."""
        return query_clips.rmot26(self.root, self.split)

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Ask the question of the reference frame and track through the frames after it."""
        clip = self.by_name[task]
        video = clip.video()
        frames = (video.frame(t) for t in range(len(video)))
        predictions = list(alone(follow({task: [self._prompt(clip)]}, frames)))
        places = {frame_number(image): t for t, image in enumerate(video.images)}
        boxes = {each.key: _at_frames(clip, each, places, found) for each, found in _of_objects(clip, predictions)}
        _write(results, clip, boxes)

    def _prompt(self, clip: QueryClip) -> Prompt:
        """What begins the track.

        Raises:
            InputError: a box is wanted that the file does not have.
        """
        if self.prompt == "sentence":
            return Prompt(clip.question)
        boxes = [each.initial_box for each in clip.objects if each.initial_box is not None]
        if len(boxes) < len(clip.objects):
            raise InputError(f"clip {clip.name}: an object without an initial box; begin with the question alone")
        return Prompt(clip.question, visual=shown_boxes(boxes))

    def _static_box(self, task: str, results: Path) -> None:
        clip = self.by_name[task]
        _write(results, clip, _static(clip))

    def score(self, task: str, results: Path) -> list[Row]:
        """A row for the clip as a whole, and one for each of its objects."""
        clip = self.by_name[task]
        found, static = _predicted(clip, results), _static(clip)
        tags, said = {"kind": [clip.kind]}, {"instruction": clip.question}
        tags |= {"scenario": [clip.scenario]} if clip.scenario else {}
        whole = _of_clip(clip, found) | {f"{STATIC}trackeval/HOTA": _of_clip(clip, static)["trackeval/HOTA"]}
        rows = [Row(task, task, whole, tags, {"iou": _overlaps(clip, found)}, said)]
        for each in clip.objects:
            known = np.isfinite(each.boxes).all(axis=1)
            if known.any():
                figures = clip_metrics(each.boxes[known], found[each.key][known])
                still = clip_metrics(each.boxes[known], static[each.key][known])
                figures |= {STATIC + name: still[name] for name in (*STATIC_SHARES, *STATIC_LENGTHS)}
                rows.append(Row(task, f"{task}/{each.key or 'object'}", _finite(figures), tags, {}, said))
        return rows

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """Means over objects, then over clips."""
        means = {name: values(rows, name) for name in (*LENGTHS, *(STATIC + name for name in STATIC_LENGTHS))}
        lengths = {name: float(found.mean()) for name, found in means.items() if len(found)}
        clips = ("average_iou", *(f"trackeval/{name}" for name in TOOLKIT), f"{STATIC}trackeval/HOTA")
        shares = percent_means(rows, (*SHARES, *(STATIC + name for name in STATIC_SHARES), *clips))
        return {**shares, **lengths}


def _static(clip: QueryClip) -> dict[str, FloatArray]:
    """The initial box of each object on all of its frames, float64 (frames, 4) xywh."""
    first = {each.key: each.boxes[0] if each.initial_box is None else each.initial_box for each in clip.objects}
    return {each.key: np.tile(first[each.key], (len(each.frames), 1)) for each in clip.objects}


# Running


def _of_objects(clip: QueryClip, predictions: Sequence[Prediction]) -> Iterable[tuple[ClipObject, FloatArray]]:
    """Each object's boxes, float64 (T, 4) xywh, zeros where its target is absent or no target was given to it."""
    if clip.kind == "single":
        return [(clip.objects[0], boxes_of_one_target(predictions))]
    given = _given(clip, predictions[0])
    return [(each, np.array([_box_of(p, given.get(each.key)) for p in predictions])) for each in clip.objects]


def _given(clip: QueryClip, first: Prediction) -> dict[str, int]:
    """Which target's id goes to which object: by overlap with the initial boxes, in order where there are none."""
    ids = first.ids.tolist()
    initial = [np.zeros(4) if each.initial_box is None else each.initial_box for each in clip.objects]
    boxes = np.nan_to_num(xywh(first.boxes))
    overlap = np.array([[float(box_iou(truth, box)) for box in boxes] for truth in initial]).reshape(len(initial), -1)
    pairs = zip(*linear_sum_assignment(overlap, maximize=True), strict=True)
    return {clip.objects[k].key: ids[target] for k, target in pairs}


def _box_of(prediction: Prediction, target: int | None) -> FloatArray:
    ids = prediction.ids.tolist()
    box = xywh(prediction.boxes[ids.index(target)]) if target in ids else np.full(4, np.nan)
    return box if np.isfinite(box).all() else np.zeros(4)


def _at_frames(clip: QueryClip, each: ClipObject, places: Mapping[int, int], boxes: FloatArray) -> FloatArray:
    """The boxes on the frames that have a truth."""
    lacking = [frame for frame in each.frames if frame not in places]
    if lacking:
        raise InputError(f"clip {clip.name}: no image of frame {lacking[0]} among {sorted(places)}")
    return boxes[[places[frame] for frame in each.frames]]


def _write(results: Path, clip: QueryClip, boxes: Mapping[str, FloatArray]) -> None:
    """A clip's record in the release's format, in a file of its own, so that processes need not share one."""
    lists = {
        each.key: [
            {"frame": frame, "bbox": [round(value, 4) for value in box]}
            for frame, box in zip(each.frames, boxes[each.key].tolist(), strict=True)
        ]
        for each in clip.objects
    }
    output: Any = lists.get("") or {key: {"trajectory": entries} for key, entries in lists.items()}
    record = {"id": clip.name, "type": clip.kind, "question": clip.question, "predicted_output": output}
    write_text(results / f"{clip.name}.json", json.dumps({"results": [record]}, indent=1) + "\n")


# Reading results


def _predicted(clip: QueryClip, results: Path) -> dict[str, FloatArray]:
    """By object, float64 (frames, 4) xywh, NaN where there is no box."""
    own = results / f"{clip.name}.json"
    stored = _records(own) if own.is_file() else _all_records(results)
    if clip.name not in stored:
        raise MissingResultError(f"{results}: nothing about clip {clip.name}; wanted {Rmot26.layout}")
    path, record = stored[clip.name]
    output = record.get("predicted_output")
    found = {}
    for each in clip.objects:
        entries = output if each.key == "" else output.get(each.key) if isinstance(output, dict) else None
        found[each.key] = _boxes(path, clip, each, entries)
    return found


def _boxes(path: Path, clip: QueryClip, each: ClipObject, entries: Any) -> FloatArray:
    """The boxes of an object's list, or of the text of an answer."""
    if isinstance(entries, dict):
        entries = entries.get("trajectory")
    if not isinstance(entries, list | str):
        where = f"{path}: clip {clip.name}: {each.key or 'predicted_output'} is a {type(entries).__name__}"
        raise InputError(f'{where}, wanted a list of {{"frame": number, "bbox": [x, y, w, h]}}')
    try:
        parsed = parse_predicted_output(entries if isinstance(entries, str) else json.dumps(entries))
    except InputError as error:
        raise error.at(f"{path}: clip {clip.name}") from error
    boxes = paired_by_position(parsed, len(each.frames))
    boxes[~boxes.any(axis=1)] = np.nan
    return boxes


@lru_cache(maxsize=1)
def _all_records(results: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Every record of a results file, or of the files of a folder, by id."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in entries(results, "*.json") if results.is_dir() else [results]:
        for name, record in _records(path).items():
            if name in found:
                raise InputError(f"{path}: clip {name} is in {found[name][0]} too; wanted one result a clip")
            found[name] = record
    return found


def _records(path: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    listed = read_object(path).get("results")
    if not isinstance(listed, list) or not all(isinstance(each, dict) and "id" in each for each in listed):
        raise InputError(f'{path}: wanted {{"results": [...]}} with the "id" of every clip')
    return {str(each["id"]): (path, each) for each in listed}


# Scoring


def _of_clip(clip: QueryClip, found: Mapping[str, FloatArray]) -> dict[str, float]:
    """The released evaluator's number, and TrackEval's for all objects of the clip together."""
    means = [float(np.mean(_released_iou(each, found[each.key]))) for each in clip.objects]
    scores = sequence_scores(*_mot(clip, found), preprocess=False).summary()
    toolkit = {f"trackeval/{name}": scores[name] for name in TOOLKIT}
    return _finite({"average_iou": float(np.mean(means)), **toolkit})


def _released_iou(each: ClipObject, found: FloatArray) -> FloatArray:
    return box_iou(np.nan_to_num(each.boxes), np.nan_to_num(found))


def _mot(clip: QueryClip, found: Mapping[str, FloatArray]) -> tuple[MotTruth, Tracked]:
    """Truth and boxes by frame, objects numbered from 1."""
    frames = sorted({frame for each in clip.objects for frame in each.frames})
    sides = []
    for boxes in ({each.key: each.boxes for each in clip.objects}, found):
        ids: list[list[int]] = [[] for _ in frames]
        rows: list[list[FloatArray]] = [[] for _ in frames]
        for number, each in enumerate(clip.objects, 1):
            for frame, box in dict(zip(each.frames, boxes[each.key], strict=True)).items():
                if np.isfinite(box).all():
                    ids[frames.index(frame)].append(number)
                    rows[frames.index(frame)].append(box)
        sides.append((ids, rows))
    return MotTruth(*sides[0]), Tracked(*sides[1])


def _overlaps(clip: QueryClip, found: Mapping[str, FloatArray]) -> list[float]:
    """Mean IoU of the objects in every frame of the clip, NaN where there is no truth."""
    by_frame: dict[int, list[float]] = {}
    for each in clip.objects:
        known = np.isfinite(each.boxes).all(axis=1)
        for frame, seen, overlap in zip(each.frames, known, _released_iou(each, found[each.key]), strict=True):
            if seen:
                by_frame.setdefault(frame, []).append(float(overlap))
    means = {frame: float(np.mean(overlaps)) for frame, overlaps in by_frame.items()}
    return [means.get(frame_number(image), np.nan) for image in clip.video().images]


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if np.isfinite(value)}
