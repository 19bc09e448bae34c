"""Part "online" of `python -m eval speed`: the same track from an mp4 file, frame by frame, batched and ahead.

How equal the masks are is measured too: all pixels, where only threads differ.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from trackgpt.session.speculation import SpeculatingTracker

from eval.speed.bench import (
    SENTENCE,
    Measurement,
    PartResult,
    Workload,
    clip_of,
    cue_of,
    forced_answers,
    interleaved,
    median,
    model_of,
    rethinking_every,
    without_rethinking,
    write_video,
)
from trackgpt.online import ReasoningTracker
from trackgpt.session.ahead import Lookahead, seen
from trackgpt.types import Prediction, Prompt
from trackgpt.video.source import open_source

WAYS = {
    "frame by frame": Lookahead(),
    "batches of 4": Lookahead(batch=4),
    "ahead by 1": Lookahead(frames=1),
    "ahead by 2": Lookahead(frames=2),
    "ahead by 4": Lookahead(frames=4),
    "batches of 4, ahead by 4": Lookahead(batch=4, frames=4),
    "ahead by 4, speculating": Lookahead(frames=4, speculate=True),
}
OFTEN = 5


def measure(workload: Workload) -> PartResult:
    """Frames/s of every way, without rethinking and with the brain asked every 5 frames, over those frame by frame."""
    model, clip = model_of(workload), clip_of(workload, workload.frames)
    fixed = without_rethinking(model, cue_of(model, clip.frames[0], workload.targets))
    rethinking = rethinking_every(model, OFTEN)
    lines: list[Measurement] = []
    last: dict[str, float] = {}
    with TemporaryDirectory() as folder, forced_answers(model):
        path = Path(folder) / "clip.mp4"
        write_video(path, clip)
        for name, tracker in {"": fixed, f", brain every {OFTEN} frames": rethinking}.items():
            runs = {way: partial(track_video, tracker, path, ahead) for way, ahead in WAYS.items()}
            tracks = {way: run() for way, run in runs.items()}
            seconds = {way: each.wall for way, each in interleaved(runs, workload.pairs).items()}
            plain = seconds["frame by frame"]
            lines.append(Measurement(f"frame by frame{name}", workload.frames / plain, "frames/s", "mp4 file to masks"))
            for way in list(WAYS)[1:]:
                equal = _equal(tracks[way], tracks["frame by frame"])
                lines.append(Measurement(f"frame by frame / {way}{name}", plain / seconds[way], "", equal))
                if tracker is fixed:
                    last["x_" + way.replace(",", "").replace(" ", "_")] = median(plain / seconds[way])
    return PartResult(lines, last)


def track_video(tracker: ReasoningTracker, frames: Path | list[np.ndarray], lookahead: Lookahead) -> list[Prediction]:
    """All predictions of one track, with frames read and encoded as `lookahead` says."""
    predictions = []
    with open_source(frames) as source:
        ahead = lookahead.over(source, tracker.perception.encode)
        if lookahead.speculate:
            tracker = SpeculatingTracker(tracker, ahead.at_hand)
        for frame in ahead:
            step = tracker.track if frame.index else partial(tracker.initialize, prompt=Prompt(SENTENCE))
            predictions.append(step(seen(frame)))
        ahead.close()
    return predictions


def _equal(ours: list[Prediction], theirs: list[Prediction]) -> str:
    """How equal two tracks are, in words."""
    share = np.mean([np.mean(a.masks == b.masks) for a, b in zip(ours, theirs, strict=True)])
    scores = max(float(np.abs(a.scores - b.scores).max()) for a, b in zip(ours, theirs, strict=True))
    return f"{100 * share:.6g} % of pixels equal, scores within {scores:.1e}"
