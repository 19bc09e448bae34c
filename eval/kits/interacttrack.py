"""InteractTrack, the benchmark of IMAT: a person corrects and switches the target while the video plays.

A tracker hears sentences alone, and finds out what kind of instruction each is, as it does in a session. What it
understood lies beside its boxes, in SEQUENCE_heard.txt: a line per frame, blank where nothing was said, else the kind,
and after a tab why it was refused, where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from eval.kit import Follow, Reported, Row, percent_means
from eval.kits.box_sequences import (
    BoxSequenceKit,
    FloatArray,
    boxes_of_one_target,
    needed_frames,
    plain_overlaps,
    pooled_figures,
    pooled_timing,
    result_file,
    rows_of,
    timing,
    write_boxes,
    wrong_length,
)
from eval.listening import Heard
from eval.metrics.box_conventions import interacttrack
from eval.metrics.boxes import sequence_result
from eval.metrics.interactive import (
    InteractiveFigures,
    InteractiveSequence,
    PromptStatistics,
    Segment,
    interactive_sequence,
    paper_figures,
    released_figures,
)
from eval.report import table
from eval.run_folder import write_text
from trackgpt.data.box_files import first_visible, read_interacttrack_boxes
from trackgpt.data.box_video import BoxTruth, InteractiveBoxSequence
from trackgpt.errors import InputError
from trackgpt.synthtrack.interaction import KINDS
from trackgpt.types import PROMPT_KINDS, Prediction

Item = TypeVar("Item", Segment, PromptStatistics)

FORMS = {
    "paper": partial(paper_figures, missing="zero", absent="paper"),
    "paper_strict": partial(paper_figures, missing="zero", absent="strict"),
    "paper_skip": partial(paper_figures, missing="skip", absent="paper"),
    "released": released_figures,
}
"""The interactive figures; the first is the one to publish."""
_SOURCE = "IMAT, Table 2 (the released form is the authors' code; the paper does not say which numbers it printed)"
_PRINTED = {
    "IMAT": (45.25, 41.20, 52.78, 49.63, 45.86, 49.63, 60.90),
    "VL-SAM2": (44.43, 37.72, 48.82, 46.52, 41.88, 45.73, 56.84),
    "DAM4SAM": (43.19, 37.62, 49.89, 46.58, 43.79, 48.74, 59.72),
    "SUTrack": (40.90, 38.04, 49.25, 48.38, 44.25, 47.23, 58.26),
    "Sa2VA": (44.81, 38.99, 45.50, 46.05, 24.14, 21.10, 33.39),
}
_COLUMNS = (
    *(f"released/{name}" for name in ("Interactive", "Responsiveness", "Accuracy", "Precision")),
    *(f"interacttrack_released/{name}" for name in ("AUC", "P@20", "NP@0.20")),
)


@dataclass(frozen=True)
class ResultBoxes:
    """The boxes of a result file, as written and aligned with the truth.

    Attributes:
        written: float64 (lines, 4) xywh, line by line as in the file.
        aligned: float64 (T, 4) xywh, one per line of the truth; zeros before a file that begins at `start`.
        start: the first visible frame, where tracking figures begin; None if the target is never visible.
    """

    written: FloatArray
    aligned: FloatArray
    start: int | None


class InteractTrack(BoxSequenceKit):
    """See the module."""

    name = "interacttrack"
    about = (
        "Protocol interacttrack: sentences are said at their frames, the first begins the track; what kind of "
        "instruction each is, the tracker finds out, and one that it refuses changes nothing. A frame without a box "
        "is 0,0,0,0. Headline: the paper's formulas with a missing prediction counted as 0. Interactive: mean IoU of a "
        "segment, from one prompt to the next. Responsiveness: share of switches (paper) or of all prompts (released) "
        "answered with IoU > 0.5 and above the IoU with the old target. Accuracy and Precision: share of prompts with "
        "IoU > 0.5, and their mean IoU. paper: missing = 0, frames without target not scored; paper_strict: such "
        "frames are 1 without a box and 0 with one; paper_skip: frames without a predicted box not scored; released: "
        "NorahGreen/InteractTrack@5f149d4, which skips them too and pools segments over videos. Tracking figures begin "
        "at the first visible frame: interacttrack_released counts frames without target as hits of normalised "
        "precision, interacttrack_strict as failures, interacttrack_paper not at all. Alignment defect: the released "
        "code reads files that were cut to the first visible frame by line number, so its interactive figures are "
        "shifted there; released repeats that, the paper's forms put such files back in place (cut_files counts them). "
        "after/KIND, where the data say of what kind an instruction is (SynthTrack-Interact): mean IoU from such an "
        "instruction to the next one, a missing prediction counted as 0, mean over sequences that have one. "
        "kinds/right: sentences whose kind was understood, of those whose kind the data say; kinds/refused: those that "
        "the system could not do, of all."
    )
    begins: Mapping[str, str] = {"sentence": ""}
    headline = (
        *(f"paper/{name}" for name in ("Interactive", "Responsiveness", "Accuracy", "Precision")),
        "interacttrack_paper/AUC",
    )
    pixels = frozenset({"fps", "segments", "switches", "prompts", "cut_files"})
    layout = "SEQUENCE.txt, x,y,w,h per line, for every frame or from the first visible one; 0,0,0,0 for no box"
    reported = tuple(Reported(name, dict(zip(_COLUMNS, row, strict=True)), _SOURCE) for name, row in _PRINTED.items())

    def run(self, task: str, follow: Follow, results: Path) -> None:
        """Say every sentence at its frame; frames before the first are not tracked and have no box.

        Raises:
            InputError: no sentence is about a frame of the sequence.
        """
        sequence = self.by_name[task]
        video = needed_frames(sequence)
        said = {prompt.frame: prompt.text for prompt in video.prompts if prompt.frame < len(video)}
        if not said:
            raise InputError(f"{task}: the first prompt is at frame {video.prompts[0].frame} of {len(video)}")
        first, heard = min(said), dict[int, Heard]()

        def predictions() -> Iterator[Prediction]:
            frames = (video.frame(t) for t in range(first, len(video)))
            for t, one in enumerate(follow.listen(task, {t - first: text for t, text in said.items()}, frames), first):
                if one.heard is not None:
                    heard[t] = one.heard
                yield one.seen

        boxes = boxes_of_one_target(predictions())
        write_boxes(results / f"{task}.txt", np.concatenate((np.zeros((first, 4)), boxes)))
        write_heard(results / f"{task}_heard.txt", heard, len(video))

    def score(self, task: str, results: Path) -> list[Row]:
        """One row per sequence, with a column for every number of its segments and prompts."""
        sequence = self.by_name[task]
        assert isinstance(sequence, InteractiveBoxSequence)
        truth, path = sequence.truth(), result_file(results, task, self.layout)
        result = read_result(path, truth)
        answers = {"aligned": _answers(sequence, result.aligned), "written": _answers(sequence, result.written)}
        found, series = rows_of(_tracked(result, truth))
        found["cut_files"] = float(len(result.written) < len(result.aligned))
        for name, answer in answers.items():
            series |= {**_columns(f"{name}/segment", answer.segments), **_columns(f"{name}/prompt", answer.prompts)}
        found |= _named(_all_forms([answers])) | _by_kind(sequence, answers["aligned"].segments)
        prompts = sequence.prompts()
        series |= _kinds(sequence, read_heard(path.with_name(f"{task}_heard.txt"), len(truth.boxes)))
        series["iou"] = plain_overlaps(result.aligned, truth)[prompts[0].frame :]
        said = {"instruction": " | ".join(f"{prompt.frame}: {prompt.text}" for prompt in prompts)}
        tags = {"scene": sorted(sequence.attributes())}
        return [Row(task, task, {**found, **timing(path, task)}, tags, series, said)]

    def summarise(self, rows: Sequence[Row]) -> dict[str, float]:
        """Interactive figures pooled as each form pools them, then tracking by each policy."""
        ordered = sorted(rows, key=lambda row: row.unit)
        pairs = [{name: _restored(row, name) for name in ("aligned", "written")} for row in ordered]
        forms = _all_forms(pairs)
        figures = {f"{form}/{key}": value for form, found in forms.items() for key, value in _four(found).items()}
        order = ("interacttrack_paper", "interacttrack_strict", "interacttrack_released")
        main = forms["paper"]
        counts = {"segments": main.segments, "switches": main.switches, "prompts": main.prompts}
        cut = sum(row.figures["cut_files"] for row in rows)
        kinds = percent_means(ordered, [f"after/{kind}" for kind in KINDS])
        found = {**figures, **pooled_figures(ordered, order), **kinds, **_kinds_right(ordered), **counts}
        return {**found, "cut_files": cut, **pooled_timing(rows)}

    def tables(self, rows: Sequence[Row]) -> Sequence[str]:
        """What the sentences of each kind were understood as."""
        said, heard, _ = _all_kinds(rows)
        if not len(said):
            return []
        columns = [kind for k, kind in enumerate(PROMPT_KINDS) if k in heard]
        lines = []
        for kind in (kind for k, kind in enumerate(PROMPT_KINDS) if k in said):
            mine = heard[said == PROMPT_KINDS.index(kind)]
            counts = [int((mine == PROMPT_KINDS.index(column)).sum()) for column in columns]
            lines.append([kind, *(str(count or "") for count in counts)])
        return [f"Kinds of instruction, as said (rows) and as understood (columns):\n\n{table(['', *columns], lines)}"]


def read_result(path: Path, truth: BoxTruth) -> ResultBoxes:
    """A result file of InteractTrack.

    Raises:
        InputError: a line is no box or holds NaN, or the lines are one per frame neither of the whole sequence nor of
            what follows the first visible frame.
    """
    written, frames = read_interacttrack_boxes(path), len(truth.boxes)
    odd = np.flatnonzero(np.isnan(written).any(axis=1))
    if odd.size:
        raise InputError(f"{path}: line {odd[0] + 1} holds NaN, wanted x,y,w,h; 0,0,0,0 says no box")
    start = None if truth.absent.all() else first_visible(~truth.absent)
    cut = 0 if len(written) == frames or start is None else start
    if len(written) + cut != frames:
        raise wrong_length(path, len(written), frames)
    return ResultBoxes(written, np.concatenate((np.zeros((cut, 4)), written)), start)


def write_heard(path: Path, heard: Mapping[int, Heard], frames: int) -> None:
    """Write how the sentences of a sequence were understood, by frame; see the module.

    Raises:
        OutputError: OUT02.
    """
    said = (heard.get(t) for t in range(frames))
    lines = ("" if one is None else "\t".join(filter(None, (one.kind, one.refused))) for one in said)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_heard(path: Path, frames: int) -> dict[int, Heard]:
    """What `write_heard` wrote; empty without the file, which other trackers do not give.

    Raises:
        InputError: the lines are not one per frame, or one names no kind.
    """
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) != frames:
        raise wrong_length(path, len(lines), frames)
    found = {}
    for t, line in enumerate(lines):
        kind, _, refused = line.partition("\t")
        if kind and kind not in PROMPT_KINDS:
            raise InputError(
                f"{path}: line {t + 1} is {line[:40]!r}; wanted one of {', '.join(PROMPT_KINDS)}, or nothing"
            )
        if kind:
            found[t] = Heard(kind, refused)
    return found


def _kinds(sequence: InteractiveBoxSequence, heard: Mapping[int, Heard]) -> dict[str, Sequence[float]]:
    """Of every sentence that was heard: its kind in the data, NaN where these do not say it, as a place in
    `PROMPT_KINDS`; the kind that was understood; and whether it was refused.
    """
    script = sequence.script()
    true = {} if script is None else {said.frame: float(PROMPT_KINDS.index(said.kind)) for said in script.said}
    return {
        "kinds/said": [true.get(t, np.nan) for t in heard],
        "kinds/heard": [float(PROMPT_KINDS.index(one.kind)) for one in heard.values()],
        "kinds/refused": [float(one.refused != "") for one in heard.values()],
    }


def _all_kinds(rows: Sequence[Row]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The columns of `_kinds`, of all rows, float64 (n,) each."""
    found = ([value for row in rows for value in row.series.get(f"kinds/{name}", ())] for name in ("said", "heard"))
    said, heard = (np.array(values, np.float64) for values in found)
    refused = [value for row in rows for value in row.series.get("kinds/refused", ())]
    return said, heard, np.array(refused, np.float64)


def _kinds_right(rows: Sequence[Row]) -> dict[str, float]:
    """Shares in percent, without those that there is nothing for."""
    said, heard, refused = _all_kinds(rows)
    known = np.isfinite(said)
    right = {"kinds/right": 100 * float(np.mean(said[known] == heard[known]))} if known.any() else {}
    return {**right, **({"kinds/refused": 100 * float(np.mean(refused))} if len(refused) else {})}


def _answers(sequence: InteractiveBoxSequence, boxes: FloatArray) -> InteractiveSequence:
    return interactive_sequence(boxes, sequence.written_boxes(), sequence.old_targets(), sequence.prompted())


def _by_kind(sequence: InteractiveBoxSequence, segments: Sequence[Segment]) -> dict[str, float]:
    """Mean IoU after the instructions of each kind; empty where the data do not say the kinds."""
    script = sequence.script()
    if script is None:
        return {}
    found: dict[str, list[float]] = {}
    for said, segment in zip(script.said, segments, strict=True):
        if segment.present:
            found.setdefault(f"after/{said.kind}", []).append(segment.overlap / segment.present)
    return {name: float(np.mean(overlaps)) for name, overlaps in found.items()}


def _tracked(result: ResultBoxes, truth: BoxTruth) -> dict[str, Any]:
    """Tracking figures by each policy, from the first visible frame on; empty if there is none, as in the toolkit."""
    if result.start is None:
        return {}
    seen = slice(result.start, None)
    return {
        f"interacttrack_{policy}": sequence_result(
            interacttrack(result.aligned[seen], truth.boxes[seen], truth.absent[seen], policy)
        )
        for policy in ("paper", "strict", "released")
    }


def _all_forms(pairs: Sequence[Mapping[str, InteractiveSequence]]) -> dict[str, InteractiveFigures]:
    """Every form's figures; the released one reads files as they are written, the others put them in place."""
    return {
        form: figures([pair["written" if form == "released" else "aligned"] for pair in pairs])
        for form, figures in FORMS.items()
    }


def _four(found: InteractiveFigures) -> dict[str, float]:
    return {
        "Interactive": found.interactive_score,
        "Responsiveness": found.responsiveness,
        "Accuracy": found.perception_accuracy,
        "Precision": found.perception_precision,
    }


def _named(forms: Mapping[str, InteractiveFigures]) -> dict[str, float]:
    """A sequence's own figures, shares in [0, 1], without those that it has nothing for."""
    named = {f"{form}/{key}": value for form, found in forms.items() for key, value in _four(found).items()}
    return {name: value / 100 for name, value in named.items() if np.isfinite(value)}


def _columns(name: str, items: Sequence[Segment] | Sequence[PromptStatistics]) -> dict[str, Sequence[float]]:
    """Plain dataclasses as columns of numbers, pairs as two columns, None as NaN; `_items` takes them back."""
    kind = Segment if name.endswith("segment") else PromptStatistics
    columns: dict[str, list[float]] = {}
    for field in fields(kind):
        values = [getattr(item, field.name) for item in items]
        if field.name in _PAIRS:
            columns |= {f"{name}/{field.name}_{i}": [float(value[i]) for value in values] for i in (0, 1)}
        else:
            columns[f"{name}/{field.name}"] = [np.nan if value is None else float(value) for value in values]
    return dict(columns)


_PAIRS = ("written", "usable")


def aligned_answers(row: Row) -> InteractiveSequence:
    """The segments and prompts of a sequence's row, as the paper's forms count them."""
    return _restored(row, "aligned")


def _restored(row: Row, name: str) -> InteractiveSequence:
    segments = _items(Segment, f"{name}/segment", row.series)
    return InteractiveSequence(True, segments, _items(PromptStatistics, f"{name}/prompt", row.series))


def _items(kind: type[Item], name: str, series: Mapping[str, Sequence[float]]) -> tuple[Item, ...]:
    columns: dict[str, list[Any]] = {}
    for field in fields(kind):
        if field.name in _PAIRS:
            first, second = (series[f"{name}/{field.name}_{i}"] for i in (0, 1))
            columns[field.name] = [(bool(a), bool(b)) for a, b in zip(first, second, strict=True)]
        else:
            columns[field.name] = [_plain(str(field.type), value) for value in series[f"{name}/{field.name}"]]
    return tuple(kind(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True))


def _plain(kind: str, value: float) -> Any:
    if kind == "int":
        return int(value)
    if kind == "bool":
        return bool(value)
    return None if np.isnan(value) else value
