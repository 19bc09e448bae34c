"""Parts "pointed" and "pointed-state" of `python -m eval speed`: a memory segmenter's time and memory, from a box.

The clip is drawn; its first objects are the targets. What a frame costs does not depend on what it shows.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from eval.speed.bench import Measurement, PartResult, Workload, clip_of, interleaved, median, write_video
from eval.speed.loop import memory_slope, resident_bytes
from trackgpt.errors import UsageError
from trackgpt.geometry.masks import box_of
from trackgpt.types import Clip, Prompt, VisualPrompt


def measure(workload: Workload) -> PartResult:
    """Frames/s from an mp4 file to masks, from frames in memory, and of the whole session that writes a log."""
    from trackgpt.online import follow
    from trackgpt.session.ahead import default_lookahead
    from trackgpt.session.playback import InstructionTracker
    from trackgpt.session.session import looked_at
    from trackgpt.video.source import open_source

    system, clip = _system(workload), clip_of(workload, workload.frames)
    prompt, tracker = boxes_of(clip, workload.targets), system.tracker()

    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, clip)

        def memory() -> None:
            for _ in follow(tracker, clip.frames, [prompt]):
                pass

        def file() -> None:
            with open_source(path) as source:
                encode = tracker.perception.encode if tracker.perception.early else None
                ahead = default_lookahead(source).over(source, encode)
                with ahead.sharing():
                    for _ in follow(tracker, map(looked_at, ahead), [prompt]):
                        pass
                ahead.close()

        def log() -> None:
            with InstructionTracker(system).open(path) as playback:
                playback.say(visual=prompt.visual)
                for _ in playback:
                    pass

        seconds = interleaved({"memory": memory, "file": file, "log": log}, workload.pairs)
    size = f"{workload.width}x{workload.height}, targets {workload.targets}"
    fps = {name: workload.frames / each.wall for name, each in seconds.items()}
    rows = {"memory": "frames in memory to masks", "file": "mp4 file to masks", "log": "mp4 file to log"}
    lines = [Measurement(what, fps[name], "frames/s", size) for name, what in rows.items()]
    lines.append(Measurement("file / memory", fps["file"] / fps["memory"], "", "what reading costs"))
    return PartResult(lines, {"fps_file": median(fps["file"]), "fps_memory": median(fps["memory"])})


def measure_state(workload: Workload) -> PartResult:
    """Bytes of the state and of the process over a long stream."""
    system, clip = _system(workload), clip_of(workload, 48)
    tracker, prompt = system.tracker(), boxes_of(clip, workload.targets)
    state, sizes, resident = tracker.begin(), {}, {}
    for t in range(workload.stream):
        place = t % (2 * len(clip.frames) - 2)  # forwards and backwards in turns
        frame = clip.frames[min(place, 2 * len(clip.frames) - 2 - place)]
        state, _ = tracker.step(state, frame, None if t else prompt)
        if (t + 1) % max(1, workload.stream // 100) == 0:
            sizes[t + 1], resident[t + 1] = state.nbytes, resident_bytes()
    first, last = (sizes[sorted(sizes)[place]] for place in (len(sizes) // 4, -1))
    slope = memory_slope(resident)
    lines = [
        Measurement("state", np.array([last]), "bytes", f"after {workload.stream} frames"),
        Measurement("state, growth", np.array([last - first]), "bytes", "over the last three quarters"),
        Measurement("process, growth", np.array([round(slope, 1)]), "bytes/frame", "fit without the first quarter"),
    ]
    last_line = {"state_bytes": last, "growth_bytes": last - first, "rss_slope_bytes_per_frame": round(slope, 1)}
    return PartResult(lines, last_line)


def boxes_of(clip: Clip, targets: int) -> Prompt:
    """The boxes of the largest objects on the first frame."""
    numbers, areas = np.unique(clip.ids[0][clip.ids[0] > 0], return_counts=True)
    chosen = numbers[np.argsort(-areas, kind="stable")][:targets]
    if len(chosen) < targets:
        raise UsageError(f"--targets {targets}: the drawn clip has {len(numbers)} objects on its first frame")
    boxes = (tuple(map(float, box_of(clip.ids[0] == number))) for number in chosen)
    return Prompt(visual=tuple(VisualPrompt(box=box) for box in boxes))


def _system(workload: Workload) -> Any:
    from trackgpt.hub import load_model

    name = "nano-memory" if workload.model == "nano" else workload.model
    return load_model(name, workload.device)
