"""`python -m eval rethinking`: where asking again wins and loses, with and without knowledge of the truth.

On SynthTrack, whose truth includes the right words for every frame. Each row swaps one part of the same TrackGPT: when
it asks again (the arbiter), what it asks, and what it is answered (the reasoner).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
import typer

from eval.kits.synthtrack import TRACKED, SynthTrack
from eval.metrics.calibration import spearman
from eval.metrics.intervals import bootstrap_mean
from eval.run_folder import progress
from trackgpt.arbiter import PurportArbiter
from trackgpt.errors import UsageError
from trackgpt.hub import load_trackgpt
from trackgpt.online import Tracker
from trackgpt.synthtrack.clips import Case, seen_actors
from trackgpt.synthtrack.language import answer, is_clear
from trackgpt.synthtrack.scene import SceneInstruction
from trackgpt.systems.trackgpt import BrainReasoner, TrackGPT, as_cue
from trackgpt.track import TrackState
from trackgpt.types import Cue, Prediction, Prompt

LOST = 0.5
"""Below this IoU with the truth, the rule that knows the truth asks again."""


@dataclass
class Truth:
    """What an instruction means over a video, and how well it was followed on the frame before.

    Attributes:
        case: the video.
        said: the instruction.
        overlap: IoU of the last prediction with the truth.
    """

    case: Case
    said: SceneInstruction
    overlap: float = 1.0

    def mask(self, t: int) -> np.ndarray:
        """All targets of frame t, bool (height, width)."""
        return np.isin(self.case.clip.ids[t], np.array(self.said.targets, np.uint8))

    def look(self, t: int, seen: Prediction) -> float:
        """IoU of a prediction for frame t, empty against empty 1; it is kept as `overlap`."""
        assert seen.masks is not None
        found, wanted = seen.masks.any(0) if len(seen.masks) else np.zeros_like(self.mask(t)), self.mask(t)
        union = int((found | wanted).sum())
        self.overlap = int((found & wanted).sum()) / union if union else 1.0
        return self.overlap

    def words(self, t: int) -> str:
        """The right answer about frame t; "" where the targets cannot be made out."""
        seen = {one.id: one for one in seen_actors(self.case.scene, t, self.case.clip.ids[t])}
        clear = [seen[i] for i in self.said.targets if i in seen and is_clear(seen[i])]
        return answer(clear) if len(clear) == len(self.said.targets) else ""


class KnowingArbiter(PurportArbiter):
    """Asks again where the target is truly lost."""

    truth: Truth

    def due(self, state: TrackState, prompt: Prompt | None) -> str:
        if prompt is not None or state.record.searching:
            return super().due(state, prompt)
        return "lost" if state.active and self.truth.overlap < LOST else ""


class KnowingReasoner(BrainReasoner):
    """Is given the right words on a rethink, or from the first frame on; the queries are still the brain's own."""

    truth: Truth
    first = False

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        words = self.truth.words(state.frame)
        if not words or (prompt is not None and not self.first):
            return super().reason(frame, state, prompt)
        return as_cue(self.brain.reason(self.square(frame), self.truth.said.text, forced=words))


@dataclass(frozen=True)
class Rule:
    """A row: what is asked and when, and what is known of the truth."""

    name: str
    settings: tuple[str, ...] = ()
    knows_when: bool = False
    knows_answer: bool = False
    knows_first: bool = False


RULES = (
    Rule("never", ("enabled=false",)),
    Rule("the paper's", ("enabled=true", "ask=instruction")),
    Rule("the paper's, by name", ("enabled=true", "ask=name")),
    Rule("the score's", ("enabled=true", "ask=instruction", "floor=0.65", "cooldown=5")),
    Rule("true alarm", ("ask=instruction",), knows_when=True),
    Rule("true alarm, by name", ("ask=name",), knows_when=True),
    Rule("the paper's, true answer", ("ask=instruction",), knows_answer=True),
    Rule("true alarm, true answer", ("ask=instruction",), knows_when=True, knows_answer=True),
    Rule("right words at first, never", ("enabled=false",), knows_answer=True, knows_first=True),
)


@dataclass
class RuleFigures:
    """Videos and J of instructions by kind; frames; those asked about, in all and while the target was not lost.

    Attributes:
        scored: of every frame with a target, the lowest public score, the lowest purport score, and the IoU.
    """

    j: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in TRACKED})
    videos: dict[str, list[int]] = field(default_factory=lambda: {kind: [] for kind in TRACKED})
    frames: int = 0
    asked: int = 0
    false: int = 0
    scored: list[tuple[float, float, float]] = field(default_factory=list)


def command(
    model: Annotated[str, typer.Option(help="Shipped name or folder")] = "nano",
    seed: Annotated[int, typer.Option(help="Chooses the videos, as in the kit synthtrack")] = 777_777,
    videos: Annotated[int, typer.Option(min=1, help="How many")] = 40,
    split: Annotated[str, typer.Option(help="train, or test for the last measurement")] = "train",
    rule: Annotated[list[str] | None, typer.Option(help="A row of the table; by default all")] = None,
) -> None:
    """Compare rules for asking again, with and without knowledge of the truth, on SynthTrack."""
    rules = [each for each in RULES if not rule or each.name in rule]
    if not set(rule or ()) <= {each.name for each in RULES}:
        raise UsageError(f"--rule {', '.join(rule or ())}: rows are {'; '.join(each.name for each in RULES)}")
    torch.set_num_threads(1)
    loaded = load_trackgpt(model, "cpu")
    kit = SynthTrack(seed, videos, split)
    rows = {each.name: RuleFigures() for each in rules}
    for task in progress(kit.tasks(), "videos", videos):
        case = kit.case(task)
        frames = loaded.tracker().perception.encode(list(case.clip.frames))
        for said in case.expressions:
            if said.kind in TRACKED:
                for each in rules:
                    _follow(parts_of(loaded, each), Truth(case, said), frames, rows[each.name])
    typer.echo(table(rows))


def parts_of(model: TrackGPT, rule: Rule) -> Callable[[Truth], Tracker]:
    """A tracker with the parts of a row, for what is true of an instruction."""

    def made(truth: Truth) -> Tracker:
        tracker = model.tracker("full", rule.settings)
        if rule.knows_when:
            arbiter = KnowingArbiter(tracker.arbiter.config, model.config.name, model.config.score)
            arbiter.truth = truth
            tracker = replace(tracker, arbiter=arbiter)
        if rule.knows_answer:
            reasoner = KnowingReasoner(model.brain)
            reasoner.truth, reasoner.first = truth, rule.knows_first
            tracker = replace(tracker, reasoner=reasoner)
        return tracker

    return made


def _follow(made: Callable[[Truth], Tracker], truth: Truth, frames: Sequence[Any], row: RuleFigures) -> None:
    tracker, found = made(truth), []
    state = tracker.begin()
    for t, frame in enumerate(frames):
        before = truth.overlap
        state, seen = tracker.step(state, frame, Prompt(truth.said.text) if t == 0 else None)
        if t and seen.reason:
            row.asked += 1
            row.false += before >= LOST
        found.append(truth.look(t, seen))
        if len(seen.ids):
            row.scored.append((float(seen.scores.min()), float(seen.own_scores["purport"].min()), found[-1]))
    row.frames += len(frames)
    row.j[truth.said.kind].append(float(np.mean(found)))
    row.videos[truth.said.kind].append(truth.case.scene.seed)


def table(rows: dict[str, RuleFigures]) -> str:
    """A Markdown table: J in percent by kind, over all with the gain over the first row, and how often it asked.

    The last two columns are Spearman's correlation with the IoU of the public score and of the purport score.
    """
    first = next(iter(rows))
    base = np.concatenate([rows[first].j[kind] for kind in TRACKED])
    columns = [*TRACKED, "J", f"over {first}, 95 %", "asked", "of these not lost", "score's rho", "purport's rho"]
    lines = [f"| rule | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cells(row, base)) + " |")
    return "\n".join(lines)


def _cells(row: RuleFigures, base: np.ndarray) -> Iterator[str]:
    for kind in TRACKED:
        yield f"{100 * np.mean(row.j[kind]):.1f}" if row.j[kind] else "-"
    every = np.concatenate([row.j[kind] for kind in TRACKED])
    gain = every - base
    spread = bootstrap_mean(gain, 0, groups=np.concatenate([row.videos[kind] for kind in TRACKED]))
    yield f"{100 * every.mean():.1f}"
    yield f"{100 * spread.mean:+.1f} ({100 * spread.low:.1f} to {100 * spread.high:.1f})"
    yield f"{100 * row.asked / max(1, row.frames):.1f} %"
    yield f"{100 * row.false / row.asked:.0f} %" if row.asked else "-"
    score, purport, iou = np.array(row.scored, np.float64).reshape(-1, 3).T
    yield from (f"{spearman(values, iou):.2f}" if row.scored else "-" for values in (score, purport))
