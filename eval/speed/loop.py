"""Parts "tracker" and "state" of `python -m eval speed`: what the online loop costs in time and in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

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
from trackgpt.errors import UsageError
from trackgpt.types import Cue, Prompt

if TYPE_CHECKING:
    from trackgpt.systems.trackgpt import TrackGPT

RETHINK_EVERY = 50
"""Frames between two readings of the brain in part "state"."""
MARKS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
"""Frames at which the size of the state is reported."""


def measure_tracker(workload: Workload) -> PartResult:
    """Tracker frames/s, from memory and from an mp4 file, over bare encoder + decoder frames/s; rethinking off.

    "bare" encodes squares that are ready on the device and decodes one query per target. The tracker also scales and
    pads the frame, scales masks back to the frame's size, finds boxes and keeps the track's state. "file" decodes H.264
    as well; "log" is the whole session that `trackgpt track` runs, with masks as RLE on disk.
    """
    from trackgpt.online import follow
    from trackgpt.session.ahead import default_lookahead
    from trackgpt.session.playback import InstructionTracker
    from trackgpt.session.session import looked_at
    from trackgpt.video.source import open_source

    model, clip = model_of(workload), clip_of(workload, workload.frames)
    cue = cue_of(model, clip.frames[0], workload.targets)
    tracker = without_rethinking(model, cue)
    bare = encoder_and_decoder(model, clip.frames, cue)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, clip)

        def memory() -> None:
            for _ in follow(tracker, clip.frames, [Prompt(SENTENCE)]):
                pass

        def file() -> None:
            with open_source(path) as source:
                ahead = default_lookahead(source).over(source, tracker.perception.encode)
                with ahead.sharing():
                    for _ in follow(tracker, map(looked_at, ahead), [Prompt(SENTENCE)]):
                        pass
                ahead.close()

        def log() -> None:
            playback = InstructionTracker(model).open(path)
            playback.session.tracker = tracker
            playback.say(SENTENCE)
            for _ in playback:
                pass
            playback.close()

        seconds = interleaved({"bare": bare, "memory": memory, "file": file, "log": log}, workload.pairs)
    fps = {name: workload.frames / each.wall for name, each in seconds.items()}
    ratios = {name: seconds["bare"].wall / seconds[name].wall for name in ("memory", "file", "log")}
    work = {name: seconds["bare"].computed / seconds[name].computed for name in ("memory", "file")}
    side = model.segmenter.config.image_side
    size = f"{workload.width}x{workload.height}, targets {workload.targets}"
    lines = [
        Measurement("bare encoder + decoder", fps["bare"], "frames/s", f"squares of {side}"),
        Measurement("tracker, frames in memory", fps["memory"], "frames/s", size),
        Measurement("tracker, mp4 file to masks", fps["file"], "frames/s", size),
        Measurement("session, mp4 file to log", fps["log"], "frames/s", size),
        Measurement("tracker / bare", ratios["memory"], "", "frames in memory"),
        Measurement("tracker from file / bare", ratios["file"], "", "mp4 file to masks"),
        Measurement("session from file / bare", ratios["log"], "", "mp4 file to tracks.jsonl"),
        Measurement("tracker / bare, computing time", work["memory"], "", "what a busy machine's clock hides"),
        Measurement("tracker from file / bare, computing time", work["file"], "", "decoding's threads included"),
    ]
    last = {"ratio": median(ratios["memory"]), "ratio_file": median(ratios["file"]), "fps": median(fps["file"])}
    return PartResult(lines, last)


def encoder_and_decoder(model: TrackGPT, frames: np.ndarray, cue: Cue) -> Callable[[], None]:
    """Encoder and decoder alone over frames that are ready, Q_t handed on."""
    import torch

    from trackgpt.geometry.letterbox import fit

    weight = model.segmenter.like
    box = fit(frames.shape[1:3], model.segmenter.config.image_side)
    squares = [torch.from_numpy(box.apply(frame)).permute(2, 0, 1)[None].to(weight.device) for frame in frames]
    referring, purport = (torch.from_numpy(q).to(weight) for q in (cue.referring, cue.purport))
    rows = torch.zeros(cue.targets, dtype=torch.long, device=weight.device)

    @torch.inference_mode()
    def run() -> None:
        online = None
        for square in squares:
            online = model.segmenter.decode(model.segmenter.encode(square).of(rows), referring, online, purport).online
        if weight.device.type == "cuda":
            torch.cuda.synchronize(weight.device)

    return run


# Part "state": what a long stream costs in memory.


def measure_state(workload: Workload) -> PartResult:
    """Bytes of a track's state and of the process over a long generated stream, the brain asked every 50 frames."""
    model = model_of(workload)
    clip = clip_of(workload, 24)
    marks = [n for n in MARKS if n < workload.stream] + [workload.stream]
    sizes: dict[int, int] = {}  # at the marks only: what is kept here makes the process grow
    resident: dict[int, int] = {}
    with forced_answers(model):
        tracker = rethinking_every(model, RETHINK_EVERY)
        state = tracker.begin()
        for t in range(workload.stream):
            frame = clip.frames[t % len(clip.frames)]
            state, _ = tracker.step(state, frame, None if t else Prompt(SENTENCE))
            if t + 1 in marks:
                sizes[t + 1] = state.nbytes
            if (t + 1) % max(1, workload.stream // 100) == 0:
                resident[t + 1] = resident_bytes()
    slope = memory_slope(resident)
    lines = [Measurement(f"state at frame {n}", np.array([sizes[n]]), "bytes") for n in marks]
    growth = sizes[marks[-1]] - sizes[marks[0]]
    lines.append(Measurement("process, resident", np.array(list(resident.values())) / 2**20, "MiB", "over the stream"))
    how = f"fit over {workload.stream} frames without the first quarter, {state.record.rethinks} rethinks"
    lines.append(Measurement("process, growth", np.array([round(slope, 1)]), "bytes/frame", how))
    return PartResult(
        lines, {"state_bytes": sizes[marks[-1]], "growth_bytes": growth, "rss_slope_bytes_per_frame": round(slope, 1)}
    )


def memory_slope(resident: Mapping[int, int]) -> float:
    """Bytes per frame: slope of a line fitted to (frame, bytes), without the first quarter, where buffers are made."""
    frames = np.array(sorted(resident), np.float64)
    values = np.array([resident[int(frame)] for frame in frames], np.float64)
    kept = frames > frames[-1] / 4
    if kept.sum() < 2:
        raise UsageError(
            f"speed: {len(frames)} measurements of memory are too few for a slope; use more --stream frames"
        )
    return float(np.polyfit(frames[kept], values[kept], 1)[0])


def resident_bytes() -> int:
    """Memory of this process that is in RAM; where /proc is missing, the most it ever was."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
