"""`python -m eval speed`: what is fast and what is not, as ratios measured side by side in one process.

A machine that others use too gives other seconds every minute, but the ratio of two things measured one right after the
other holds. So every part times its contestants in rounds (A B C, then C B A, ...) after one warm-up and reports the
median over rounds with the 10th and 90th percentiles. Threads, load and versions are recorded with the numbers;
with a load above half a core, only the ratios are worth keeping.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import ArrayLike, NDArray

from eval.run_folder import commit, write_json
from trackgpt.errors import UsageError
from trackgpt.files import refuse_existing_file
from trackgpt.types import Cue, Prompt

if TYPE_CHECKING:
    from trackgpt.online import Tracker
    from trackgpt.systems.trackgpt import TrackGPT
    from trackgpt.track import TrackState
    from trackgpt.types import Clip

FloatArray = NDArray[np.float64]
SENTENCE = "track the object on the left"
BUSY = 0.5
"""Load average above which rates are not worth keeping."""
Figures = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """How much to measure.

    Attributes:
        model: shipped name or folder.
        device: see `trackgpt.hub.load_model`.
        pairs: rounds.
        frames: frames per round of "tracker", and renders per round of "data".
        stream: frames of "state".
        height, width: of the frames of "tracker" and "state", pixels.
        targets: how many are tracked at once.
        vit: size of the encoder of "attention", see `eval.speed.attention`.
        side: of the square that part "memory-segmenter" sees, pixels.
        dtype, backend: of the model, see `trackgpt.config.Execution`.
    """

    model: str = "nano"
    device: str = "cpu"
    pairs: int = 7
    frames: int = 48
    stream: int = 2000
    height: int = 480
    width: int = 854
    targets: int = 1
    vit: str = "b"
    side: int = 512
    dtype: str = "float32"
    backend: str = "torch"


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        vits: encoders, see `eval.speed.attention.SIZES`.
        brains: see `eval.speed.gpu_models.BRAINS`.
        frames: tracked in a round, of `height` x `width` pixels.
        every: the brain is asked again every so many frames; 33 are 3 %.
        batches: of frames encoded in one call.
        targets: numbers of them that are decoded at once.
        matmul: side of the matrices whose product is taken for the device's peak.
        pairs: rounds.
        steps: of training.
        train_batch: lessons per step.
    """

    vits: tuple[str, ...] = ("b", "l", "h")
    brains: tuple[str, ...] = ("7b", "13b")
    frames: int = 100
    height: int = 480
    width: int = 854
    every: int = 33
    batches: tuple[int, ...] = (4, 8)
    targets: tuple[int, ...] = (1, 2, 4, 8)
    matmul: int = 8192
    pairs: int = 3
    steps: int = 10
    train_batch: int = 4


@dataclass(frozen=True)
class Setting:
    """Where it is measured: the folder of the results, the device by its name, and how much."""

    out: Path
    device: str
    size: Size


class Measurement(NamedTuple):
    """One row of the table: a quantity, its values over rounds, its unit, and how it was measured."""

    quantity: str
    values: FloatArray
    unit: str
    how: str = ""


class PartResult(NamedTuple):
    """What a part measured: rows for the table, and the figures of its last line."""

    lines: list[Measurement]
    last: dict[str, float]

    def as_json(self) -> dict[str, object]:
        """Plain values; the median of a row without values is None."""
        rows = [{**row._asdict(), "median": median(row.values) if len(row.values) else None} for row in self.lines]
        return {"lines": rows, "last": self.last}


class Seconds(NamedTuple):
    """Time by the clock and time the process computed, in all its threads: float64 (rounds,) each."""

    wall: FloatArray
    computed: FloatArray


def interleaved(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Seconds of every contestant in every round.

    Each runs once unmeasured; then all run in every round, in turns first and last, so that a machine that grows slower
    favours none.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()
    for number in range(rounds):
        for name in list(contestants)[:: 1 if number % 2 == 0 else -1]:
            wall, computed = time.perf_counter(), time.process_time()
            contestants[name]()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - computed))
    return {name: Seconds(*np.array(values, np.float64).T) for name, values in seconds.items()}


def median(values: ArrayLike) -> float:
    """The median as a plain number."""
    return float(np.median(np.asarray(values, np.float64)))


PARTS = {
    "tracker": "loop:measure_tracker",
    "state": "loop:measure_state",
    "data": "start:measure_data",
    "import": "start:measure_import",
    "forced": "brain:measure",
    "naive": "brain:measure_naive",
    "scorer": "scorer:measure",
    "online": "online:measure",
    "targets": "targets:measure",
    "precision": "precision:measure",
    "memory": "memory:measure",
    "attention": "attention:measure",
    "pointed": "propagation:measure",
    "pointed-state": "propagation:measure_state",
    "memory-segmenter": "memory_segmenter:measure",
}
"""Name of the part: "module:function" in this folder, imported when the part is measured."""
ASKED = ("attention", "memory-segmenter")
"""Parts that take many minutes on a CPU: measured when they are named."""


def measure_part(name: str, workload: Workload) -> PartResult:
    """Measure one of `PARTS`."""
    module, _, function = PARTS[name].partition(":")
    found: PartResult = getattr(import_module(f"eval.speed.{module}"), function)(workload)
    return found


def command(
    only: Annotated[list[str] | None, typer.Option(help="A part, may be repeated: " + ", ".join(PARTS))] = None,
    model: Annotated[str, typer.Option(help="Shipped name or folder of a model")] = "nano",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Arithmetic threads; 0 leaves torch's choice")] = 0,
    pairs: Annotated[int, typer.Option(min=1, help="Rounds; fewer than 7 say little")] = 7,
    frames: Annotated[int, typer.Option(min=2, help="Frames per round")] = 48,
    stream: Annotated[int, typer.Option(min=10, help="Frames of part `state`")] = 2000,
    size: Annotated[tuple[int, int], typer.Option(help="Height and width of the frames")] = (480, 854),
    targets: Annotated[int, typer.Option(min=1, help="Targets tracked at once")] = 1,
    vit: Annotated[str, typer.Option(help="Encoder of part `attention`: b, l, h or tiny")] = "b",
    side: Annotated[int, typer.Option(help="Square of part `memory-segmenter`; the hub's SAM 2 sees 1024")] = 512,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, or auto: what is faster here")] = "float32",
    backend: Annotated[str, typer.Option(help="torch or onnxruntime")] = "torch",
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace that file")] = False,
) -> None:
    """Ratios measured side by side: the tracker, its state, the data, the start, the brain."""
    names = only or [name for name in PARTS if name not in ASKED]
    for name in names:
        if name not in PARTS:
            raise UsageError(f"--only {name}: no such part; choose from {', '.join(PARTS)}")
    if out is not None:
        refuse_existing_file(out, overwrite)
    workload = Workload(model, device, pairs, frames, stream, *size, targets, vit, side, dtype, backend)
    where = conditions(workload, threads)
    done: dict[str, PartResult] = {}
    for name in names:
        done[name] = measure_part(name, workload)
        if out is not None:
            write_json(out, {"conditions": where, "parts": {key: part.as_json() for key, part in done.items()}})
    show(done, where)


def conditions(workload: Workload, threads: int) -> dict[str, Any]:
    """Set the threads, and say on what the numbers were measured."""
    from importlib.metadata import version

    import cv2
    import torch

    if threads:
        torch.set_num_threads(threads)
    cv2.setNumThreads(1)  # as `trackgpt track` does
    packages = ("torch", "transformers", "numpy", "opencv-python-headless", "av")
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": workload.device,
        "load": round(os.getloadavg()[0], 2),
        "threads": {"torch": torch.get_num_threads(), "opencv": cv2.getNumThreads()},
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "commit": commit(),
        "workload": vars(workload),
    }


def show(done: Mapping[str, PartResult], where: Mapping[str, Any]) -> None:
    """The table, what it was measured on, and one line of key=value for each part."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    threads = where["threads"]
    how = ", ".join(where["workload"][name] for name in ("device", "dtype", "backend"))
    busy = "; busy machine: trust ratios, not rates" if where["load"] > BUSY else ""
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    table = Table(
        title="speed",
        caption=f"{where['machine']}; {how}; load {where['load']}{busy}; threads torch {threads['torch']},"
        f" opencv {threads['opencv']}; Python {where['python']}, {versions}; commit {where['commit']}",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("part", "quantity", "median", "p10", "p90", "unit", "measured"):
        table.add_column(heading, justify="right" if heading in ("median", "p10", "p90") else "left")
    for name, part in done.items():
        for line in part.lines:
            table.add_row(name, line.quantity, *_middle(line.values), line.unit, line.how)
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for part in done.values():
        typer.echo(" ".join(f"{key}={_number(value)}" for key, value in part.last.items()))


def _middle(values: FloatArray) -> tuple[str, str, str]:
    """Median, p10 and p90; of one value only itself, of none nothing."""
    if len(values) < 2:
        return (_number(values[0]) if len(values) else "", "", "")
    low, high = np.percentile(values, [10, 90])
    return _number(median(values)), _number(low), _number(high)


def _number(value: float) -> str:
    """Whole numbers as they are, others with four significant digits."""
    return f"{value:.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"


# Shared by the parts.


def model_of(workload: Workload) -> TrackGPT:
    """Load the model that is measured."""
    from trackgpt.hub import load_trackgpt

    return load_trackgpt(workload.model, workload.device, dtype=workload.dtype, backend=workload.backend)


def clip_of(workload: Workload, frames: int) -> Clip:
    """A drawn clip of one scene, 16:9, with frames of the workload's size."""
    from trackgpt.synthtrack.render import render_clip
    from trackgpt.synthtrack.world import make_scene

    return render_clip(make_scene(1, frames=frames, aspect=(16, 9)), workload.height, workload.width)


def write_video(path: Path, clip: Clip) -> None:
    """Write a clip as H.264."""
    from trackgpt.video.writer import VideoWriter

    with VideoWriter(path, clip.fps, clip.frames.shape[1:3]) as video:
        for t, frame in enumerate(clip.frames):
            video.write(frame, t / clip.fps)


@contextmanager
def forced_answers(model: TrackGPT) -> Iterator[None]:
    """The brain gives the template's one-target answer, so that a model that would refuse still tracks."""
    kept = model.brain.config.answer
    model.brain.config.answer = "forced"
    try:
        yield
    finally:
        model.brain.config.answer = kept


def cue_of(model: TrackGPT, frame: np.ndarray, targets: int) -> Cue:
    """The queries of the template's answer about a frame, repeated for several targets."""
    with forced_answers(model):
        tracker = model.tracker()
        cue = tracker.reasoner.reason(frame, tracker.begin(), Prompt(SENTENCE))
    assert cue.referring is not None
    assert cue.purport is not None
    assert cue.confidence is not None
    rows = np.resize(np.arange(cue.targets), targets)
    return replace(cue, referring=cue.referring[rows], purport=cue.purport[rows], confidence=cue.confidence[rows])


class FixedReasoner:
    """A reasoner whose answer is known: `Reasoner` without a brain."""

    def __init__(self, cue: Cue) -> None:
        self.cue = cue

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        """The known cue, whatever is asked."""
        return self.cue


def without_rethinking(model: TrackGPT, cue: Cue) -> Tracker:
    """A tracker that begins with a cue and never asks again: perception alone."""
    return replace(model.tracker(settings=["enabled=false"]), reasoner=FixedReasoner(cue))


def rethinking_every(model: TrackGPT, every: int) -> Tracker:
    """A tracker that asks the brain every so many frames, whatever the scores."""
    from trackgpt.arbiter import PurportArbiter

    class EveryFewFrames(PurportArbiter):
        def due(self, state: TrackState, prompt: Prompt | None) -> str:
            if prompt is not None:
                return super().due(state, prompt)
            return "purport" if state.frame % every == 0 else ""

    return replace(model.tracker(), arbiter=EveryFewFrames(model.config.rethink, score=model.config.score))
