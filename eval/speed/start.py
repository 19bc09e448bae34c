"""Parts "data" and "import" of `python -m eval speed`: how fast SynthTrack draws, and how long a person waits."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from eval.speed.bench import SENTENCE, Measurement, PartResult, Workload, interleaved, median
from trackgpt.errors import UsageError

ROOT = Path(__file__).parents[2]


def measure_data(workload: Workload) -> PartResult:
    """Frames/s that one process draws: scenes made anew for every 3 frames, as training samples are, and ready ones."""
    from trackgpt.synthtrack.clips import frame_size
    from trackgpt.synthtrack.render import render
    from trackgpt.synthtrack.world import make_scene

    scenes = max(1, workload.frames // 3)
    ready = [make_scene(seed, frames=24) for seed in range(scenes)]

    def fresh(side: int) -> Callable[[], None]:
        seeds = itertools.count()

        def run() -> None:
            for seed in itertools.islice(seeds, scenes):  # new ones every round, as a training sees them
                scene = make_scene(seed, frames=24)
                for t in (0, 1, 2):
                    render(scene, t, *frame_size(scene.aspect, side))

        return run

    def again(side: int) -> Callable[[], None]:
        def run() -> None:
            for scene in ready:
                for t in (0, 1, 2):
                    render(scene, t, *frame_size(scene.aspect, side))

        return run

    makers = {"scene and 3 frames": fresh, "frames of ready scenes": again}
    contestants = {f"{name}, side {side}": make(side) for name, make in makers.items() for side in (128, 256)}
    seconds = interleaved(contestants, workload.pairs)
    fps = {name: 3 * scenes / each.wall for name, each in seconds.items()}
    how = f"{3 * scenes} frames per round, one process"
    lines = [Measurement(name, values, "frames/s", how) for name, values in fps.items()]
    drawn = {side: median(fps[f"scene and 3 frames, side {side}"]) for side in (128, 256)}
    return PartResult(lines, {"data_fps_128": drawn[128], "data_fps_256": drawn[256], "data_ms_128": 1e3 / drawn[128]})


# Part "import": how long a person waits.


def measure_import(workload: Workload) -> PartResult:
    """Wall time of fresh processes: Python alone, `import trackgpt`, torch alone, and from start to the first mask."""
    first = (
        "import numpy as np, trackgpt;"
        f"model = trackgpt.load({workload.model!r}, {workload.device!r}).model;"
        f"frame = np.random.default_rng(0).integers(0, 256, ({workload.height}, {workload.width}, 3), dtype=np.uint8);"
        "tracker = model.tracker();"
        f"tracker.step(tracker.begin(), frame, trackgpt.Prompt({SENTENCE!r}))[1].masks"
    )
    programs = {"python": "pass", "package": "import trackgpt", "torch": "import torch", "mask": first}
    timed = interleaved({name: fresh_process(text) for name, text in programs.items()}, workload.pairs)
    seconds = {name: each.wall for name, each in timed.items()}
    own = 1e3 * (seconds["package"] - seconds["python"])
    beyond = seconds["mask"] - seconds["torch"]
    lines = [
        Measurement("python -c pass", 1e3 * seconds["python"], "ms", "fresh process"),
        Measurement("import trackgpt", own, "ms", "over python alone"),
        Measurement("import torch", seconds["torch"], "s", "fresh process"),
        Measurement("start to first mask", seconds["mask"], "s", "fresh process: load, read, one frame"),
        Measurement("start to first mask", beyond, "s", "over import torch"),
    ]
    last = {"import_ms": median(own), "first_mask_s": median(seconds["mask"]), "over_torch_s": median(beyond)}
    return PartResult(lines, last)


def fresh_process(program: str) -> Callable[[], None]:
    """Runs a program in a new Python process; UsageError if that fails."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def run() -> None:
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UsageError(f"speed: `python -c {program[:40]!r}...` failed: {reason}")

    return run
