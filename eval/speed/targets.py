"""Part "targets" of `python -m eval speed`: what more targets cost, when all share one image embedding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from eval.speed.bench import SENTENCE, Line, Part, Plan, _clip, _cue, _model, _still, interleaved, median
from trackgpt.online import ReasoningTracker
from trackgpt.types import Clip, Prompt

COUNTS = (1, 2, 4, 8)


def measure(plan: Plan) -> Part:
    """Frames/s from memory with 1, 2, 4 and 8 targets, and the time of a further target over that of a frame."""
    model, clip = _model(plan), _clip(plan, plan.frames)
    runs: dict[str, Callable[[], object]] = {
        str(count): partial(_track, _still(model, _cue(model, clip.frames[0], count)), clip) for count in COUNTS
    }
    seconds = {int(name): each.wall for name, each in interleaved(runs, plan.pairs).items()}
    most, how = COUNTS[-1], "frames in memory, rethinking off"
    lines = [Line(f"tracker, targets {count}", plan.frames / seconds[count], "frames/s", how) for count in COUNTS]
    further = (seconds[most] - seconds[1]) / (most - 1) / seconds[1]
    lines.append(Line("one target more / a frame with one", further, "", f"mean over targets 2 to {most}"))
    last = {f"fps_{count}": median(plan.frames / seconds[count]) for count in COUNTS}
    return Part(lines, last | {"further_target": median(further)})


def _track(tracker: ReasoningTracker, clip: Clip) -> None:
    for t, frame in enumerate(clip.frames):
        tracker.track(frame) if t else tracker.initialize(frame, Prompt(SENTENCE))
