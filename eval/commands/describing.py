"""`python -m eval describing`: what words are worth to a box tracker, and what it is worth to keep them true.

On SynthTrack, whose truth includes the right description for every frame. Every row follows the same targets from their
true first boxes with the same network; what differs is the words that it reads, and who renews them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import torch
import typer

from eval.kits.box_sequences import boxes_of_one_target
from eval.metrics.box_conventions import lasot_matlab
from eval.metrics.boxes import figures, sequence_result
from eval.metrics.intervals import bootstrap_mean
from eval.run_folder import progress
from trackgpt.errors import UsageError
from trackgpt.geometry.masks import box_of
from trackgpt.hub import load_model
from trackgpt.online import Tracker, follow_all
from trackgpt.reasoners.describer import DescriberAnswer, ParsedDescription
from trackgpt.synthtrack.clips import Case, description, make_case, seen_actors
from trackgpt.synthtrack.language import is_clear
from trackgpt.systems.reasoningtrack import DescribingReasoner, ReasoningTrack
from trackgpt.types import Box, Prompt, VisualPrompt


@dataclass(frozen=True)
class DescribedTarget:
    """What is followed.

    Attributes:
        case: the video.
        key: of the target.
        words: of an instruction about the first frame that means it alone.
        boxes: float64 (T, 4) xyxy, NaN where it cannot be seen.
        first: the box that is shown on the first frame.
        alike: whether another thing of its category is on the first frame.
    """

    case: Case
    key: int
    words: str
    boxes: np.ndarray
    first: VisualPrompt
    alike: bool

    def said(self, t: int) -> str:
        """The true description of frame t; "" where it cannot be made out."""
        return description(self.case, t, self.key)


class TrueDescriber:
    """Answers with the true description of the frame that it is asked about, which it knows by its picture."""

    name, licence, sees = "truth", "", False

    def __init__(self, target: DescribedTarget) -> None:
        self.target = target

    def describe(self, before: np.ndarray, box: Box, now: np.ndarray, words: str, last: Box) -> DescriberAnswer:
        """See `trackgpt.reasoners.describer.Describer`."""
        t = next(t for t, frame in enumerate(self.target.case.clip.frames) if np.array_equal(frame, now))
        said = self.target.said(t)
        changed = bool(said) and said != words
        return DescriberAnswer(ParsedDescription(changed, said if changed else "", readable=True), said)


@dataclass(frozen=True)
class WordsRow:
    """A row.

    Attributes:
        name: of it.
        ablation: of `trackgpt.systems.reasoningtrack.ABLATIONS`.
        settings: of the system.
        truth: the truth describes, and not the system's describer.
        first: the first words are a description of the first frame, and not the instruction.
    """

    name: str
    ablation: str = "full"
    settings: tuple[str, ...] = ()
    truth: bool = False
    first: bool = False


VALIDATION = 777_777
"""The seed of the videos of the train split that nothing is trained on."""
ALWAYS = ("arbiter.area=1", "arbiter.shift=0")
ROWS = (
    WordsRow("no words", "no-words"),
    WordsRow("the instruction's", "no-describing"),
    WordsRow("described at first", "no-describing", first=True),
    WordsRow("described when it changed"),
    WordsRow("described every 10 frames", settings=ALWAYS),
    WordsRow("true at first", "no-describing", truth=True, first=True),
    WordsRow("true every 10 frames", settings=ALWAYS, truth=True, first=True),
)


COLUMNS = (
    *("words", "AUC", "over no words, 95 %", "AUC, alike", "over no words, 95 %"),
    *("described", "tracker fps", "end-to-end fps"),
)


@dataclass
class WordsFigures:
    """AUC of every target, its video, whether it had others of its category beside it; seconds per frame, and which
    frames were described.
    """

    auc: list[float] = field(default_factory=list)
    videos: list[int] = field(default_factory=list)
    alike: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    described: list[bool] = field(default_factory=list)


def command(
    model: Annotated[str, typer.Option(help="reasoningtrack-nano, or reasoningtrack:TRACKER+DESCRIBER")],
    seed: Annotated[list[int] | None, typer.Option(help="Of videos, several times for more; else 777777")] = None,
    videos: Annotated[int, typer.Option(min=1, help="How many of each seed")] = 20,
    frames: Annotated[int, typer.Option(min=12, help="Of each video")] = 72,
    split: Annotated[str, typer.Option(help="train, or test for the last measurement")] = "train",
    loose: Annotated[
        float, typer.Option(min=0, max=1, help="How far the first box is off, in sizes of the target")
    ] = 0,
) -> None:
    """Compare who gives a box tracker its words, from none to the truth, on SynthTrack."""
    torch.set_num_threads(1)
    system = load_model(model, "cpu")
    if not isinstance(system, ReasoningTrack):
        raise UsageError(f"--model {model}: wanted reasoningtrack-nano or reasoningtrack:TRACKER+DESCRIBER")
    seeds = [start * 10_000 + number for start in seed or [VALIDATION] for number in range(videos)]
    rows = {row.name: WordsFigures() for row in ROWS}
    for scene in progress(seeds, "videos", len(seeds)):
        for target in targets_of(make_case(scene, split=split, frames=frames), loose):
            for row in ROWS:
                _measure(system, row, target, rows[row.name])
    typer.echo(table(rows))


def targets_of(case: Case, loose: float = 0.0) -> list[DescribedTarget]:
    """The things that an instruction means alone and that the first frame shows clearly, each once.

    Args:
        case: a video.
        loose: how far the first box is off, in any direction, in sizes of the target; 0 shows the true one.
    """
    first = seen_actors(case.scene, 0, case.clip.ids[0])
    found: dict[int, DescribedTarget] = {}
    for said in case.expressions:
        key = said.targets[0] if len(said.targets) == 1 else 0
        here = [one for one in first if one.id == key and is_clear(one)]
        if here and key not in found:
            boxes = np.array([box_of(ids == key) for ids in case.clip.ids], np.float64)
            alike = any(one.category == here[0].category and one.id != key for one in first)
            found[key] = DescribedTarget(case, key, said.text, boxes, shown(case, key, boxes[0], loose), alike)
    return list(found.values())


def shown(case: Case, key: int, box: np.ndarray, loose: float) -> VisualPrompt:
    """A box, float64 (4,) xyxy, as somebody draws it who is not careful: moved, and inside of the frame."""
    way = np.random.default_rng([case.scene.seed, key]).random() * 2 * np.pi
    size = float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))
    move = loose * size * np.array([np.cos(way), np.sin(way)] * 2)
    height, width = case.clip.frames[0].shape[:2]
    x1, y1, x2, y2 = (float(value) for value in np.clip(box + move, 0, [width, height] * 2))
    return VisualPrompt((x1, y1, x2, y2))


def tracker_of(system: ReasoningTrack, row: WordsRow, target: DescribedTarget) -> Tracker:
    """A tracker with the describer of a row."""
    tracker = system.tracker(row.ablation, row.settings)
    if not row.truth:
        return tracker
    return replace(tracker, reasoner=DescribingReasoner(TrueDescriber(target), None, "latest"))


def first_words(system: ReasoningTrack, row: WordsRow, target: DescribedTarget) -> str:
    """What is said of the first frame."""
    if not row.first:
        return target.words
    describer = TrueDescriber(target) if row.truth else system.describer
    frame, box = target.case.clip.frames[0], target.first.box
    assert box is not None
    return describer.describe(frame, box, frame, target.words, box).parsed.words or target.words


def _measure(system: ReasoningTrack, row: WordsRow, target: DescribedTarget, kept: WordsFigures) -> None:
    prompt = Prompt(first_words(system, row, target), visual=(target.first,))
    followed = [one for (one,) in follow_all(tracker_of(system, row, target), target.case.clip.frames, [[prompt]])]
    found = boxes_of_one_target(one.seen for one in followed)
    truth = target.boxes.copy()
    truth[:, 2:] -= truth[:, :2]
    absent = ~np.isfinite(truth).all(axis=1)
    result = figures([sequence_result(lasot_matlab(found, np.nan_to_num(truth), absent))])
    kept.auc.append(result.percent["AUC"])
    kept.videos.append(target.case.scene.seed)
    kept.alike.append(target.alike)
    kept.seconds += [one.seconds for one in followed]
    kept.described += [one.seen.reason == "describe" for one in followed]


def table(rows: dict[str, WordsFigures]) -> str:
    """A Markdown table: AUC (LaSOT's) over all targets and over those beside others of their category, with gains; how
    many frames were described; and frames per second without these, which is the tracker, and with them.
    """
    base = rows[ROWS[0].name]
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, row in rows.items():
        cells = [*_cells(row, base, lambda _: True), *_cells(row, base, bool)]
        seconds, described = np.array(row.seconds), np.array(row.described, bool)
        cells += [
            f"{100 * described.mean():.1f} %",
            f"{1 / seconds[~described].mean():.0f}",
            f"{1 / seconds.mean():.0f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    counts = f"{len(base.auc)} targets, {sum(base.alike)} of them beside others of their category"
    return "\n".join([*lines, "", counts])


def _cells(row: WordsFigures, base: WordsFigures, wanted: Callable[[bool], bool]) -> Sequence[str]:
    chosen = [k for k, alike in enumerate(row.alike) if wanted(alike)]
    if not chosen:
        return "-", "-"
    auc, gain = np.array(row.auc)[chosen], (np.array(row.auc) - np.array(base.auc))[chosen]
    spread = bootstrap_mean(gain, 0, groups=np.array(row.videos)[chosen])
    return f"{auc.mean():.1f}", f"{spread.mean:+.1f} ({spread.low:.1f} to {spread.high:.1f})"
