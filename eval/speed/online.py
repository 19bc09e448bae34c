"""Part "online" of `python -m eval speed`: the same track from an mp4 file, frame by frame, batched and ahead.

How equal the masks are is measured too: all pixels, where only threads differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

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
from eval.speed.speculation import speculating
from trackgpt.online import Frame, Tracker, follow
from trackgpt.session.ahead import Lookahead
from trackgpt.session.session import looked_at
from trackgpt.types import Prediction, Prompt
from trackgpt.video.source import open_source

WAYS = {
    "frame by frame": Lookahead(),
    "batches of 4": Lookahead(batch=4),
    "ahead by 1": Lookahead(frames=1),
    "ahead by 2": Lookahead(frames=2),
    "ahead by 4": Lookahead(frames=4),
    "batches of 4, ahead by 4": Lookahead(batch=4, frames=4),
}
SPECULATING = "ahead by 4, speculating"
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
            runs[SPECULATING] = partial(track_video, tracker, path, Lookahead(frames=4), speculate=True)
            tracks = {way: run() for way, run in runs.items()}
            seconds = {way: each.wall for way, each in interleaved(runs, workload.pairs).items()}
            plain = seconds["frame by frame"]
            lines.append(Measurement(f"frame by frame{name}", workload.frames / plain, "frames/s", "mp4 file to masks"))
            for way in list(runs)[1:]:
                equal = _equal(tracks[way], tracks["frame by frame"])
                lines.append(Measurement(f"frame by frame / {way}{name}", plain / seconds[way], "", equal))
                if tracker is fixed:
                    last["x_" + way.replace(",", "").replace(" ", "_")] = median(plain / seconds[way])
    return PartResult(lines, last)


def track_video(
    tracker: Tracker, frames: Path | list[np.ndarray], lookahead: Lookahead, speculate: bool = False
) -> list[Prediction]:
    """All predictions of one track, with frames read and encoded as `lookahead` says."""
    with open_source(frames) as source:
        ahead = lookahead.over(source, tracker.perception.encode)
        with ahead.sharing():
            coming: Iterator[Frame] = map(looked_at, ahead)
            if speculate:
                window = OneAhead(coming)
                tracker, coming = speculating(tracker, lambda: window.upcoming), window
            predictions = list(follow(tracker, coming, [Prompt(SENTENCE)]))
        ahead.close()
    return predictions


class OneAhead(Iterator[Frame]):
    """Frames, of which the one that comes next is known.

    Attributes:
        upcoming: the frame after the one that was given last, or None at the end.
    """

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames = frames
        self.upcoming: Frame | None = next(frames, None)

    def __next__(self) -> Frame:
        if self.upcoming is None:
            raise StopIteration
        frame, self.upcoming = self.upcoming, next(self._frames, None)
        return frame


def _equal(ours: list[Prediction], theirs: list[Prediction]) -> str:
    """How equal two tracks are, in words."""
    share = np.mean([np.mean(a.masks == b.masks) for a, b in zip(ours, theirs, strict=True)])
    scores = max(float(np.abs(a.scores - b.scores).max()) for a, b in zip(ours, theirs, strict=True))
    return f"{100 * share:.6g} % of pixels equal, scores within {scores:.1e}"
