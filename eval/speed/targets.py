"""Part "targets" of `python -m eval speed`: what more targets cost, when all share one image embedding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from eval.speed.bench import (
    SENTENCE,
    Measurement,
    PartResult,
    Workload,
    clip_of,
    cue_of,
    interleaved,
    median,
    model_of,
    without_rethinking,
)
from trackgpt.online import Tracker, follow
from trackgpt.types import Clip, Prompt

COUNTS = (1, 2, 4, 8)


def measure(workload: Workload) -> PartResult:
    """Frames/s from memory with 1, 2, 4 and 8 targets, and the time of a further target over that of a frame."""
    model, clip = model_of(workload), clip_of(workload, workload.frames)
    trackers = {count: without_rethinking(model, cue_of(model, clip.frames[0], count)) for count in COUNTS}
    runs: dict[str, Callable[[], object]] = {
        str(count): partial(_track, tracker, clip) for count, tracker in trackers.items()
    }
    seconds = {int(name): each.wall for name, each in interleaved(runs, workload.pairs).items()}
    most, how = COUNTS[-1], "frames in memory, rethinking off"
    fps = {count: workload.frames / seconds[count] for count in COUNTS}
    lines = [Measurement(f"tracker, targets {count}", fps[count], "frames/s", how) for count in COUNTS]
    further = (seconds[most] - seconds[1]) / (most - 1) / seconds[1]
    lines.append(Measurement("one target more / a frame with one", further, "", f"mean over targets 2 to {most}"))
    last = {f"fps_{count}": median(fps[count]) for count in COUNTS}
    return PartResult(lines, last | {"further_target": median(further)})


def _track(tracker: Tracker, clip: Clip) -> None:
    for _ in follow(tracker, clip.frames, [Prompt(SENTENCE)]):
        pass
