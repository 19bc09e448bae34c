"""`python -m eval speed`: what is fast and what is not, as ratios measured side by side in one process.

A machine that others use too gives other seconds every minute, but the ratio of two things measured one right after the
other holds. So every part times its contestants in rounds (A B C, then C B A, ...) after one warm-up and reports the
median over rounds with the 10th and 90th percentiles. Threads, load and versions are recorded beside the numbers;
with a load above half a core, only the ratios are worth keeping.
"""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import ArrayLike, NDArray

from eval.run_folder import commit, write_json
from trackgpt.errors import UsageError
from trackgpt.types import Cue, Prompt

if TYPE_CHECKING:
    from trackgpt.online import ReasoningTracker
    from trackgpt.systems.trackgpt import TrackGPT
    from trackgpt.types import Clip

FloatArray = NDArray[np.float64]
SENTENCE = "track the object on the left"
RETHINK_EVERY = 50
MARKS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
BUSY = 0.5
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        model: shipped name or folder.
        device: see `trackgpt.hub.load_model`.
        pairs: rounds.
        frames: frames a round of "tracker", and renders a round of "data".
        stream: frames of "state".
        height, width: of the frames of "tracker" and "state", pixels.
        targets: how many are tracked at once.
        vit: size of the encoder of "attention", see `eval.speed.attention`.
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
    dtype: str = "float32"
    backend: str = "torch"


class Line(NamedTuple):
    """One row of the table: a quantity, its values over rounds, its unit, and how it was measured."""

    quantity: str
    values: FloatArray
    unit: str
    how: str = ""


class Part(NamedTuple):
    """What a part measured: rows for the table, and the figures of its last line."""

    lines: list[Line]
    last: dict[str, float]


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


# Part "tracker": the loop's cost over the arithmetic it cannot do without.


def measure_tracker(plan: Plan) -> Part:
    """Tracker frames/s, from memory and from an mp4 file, over bare encoder + decoder frames/s; rethinking off.

    "bare" encodes squares that are ready on the device and decodes one query per target. The tracker also scales and
    pads the frame, scales masks back to the frame's size, finds boxes and keeps the track's state. "file" decodes H.264
    as well; "log" is the whole session that `trackgpt track` runs, with masks as RLE on disk.
    """
    from trackgpt.session.ahead import default_lookahead, seen
    from trackgpt.session.session import InstructionTracker
    from trackgpt.video.source import open_source

    model, clip = _model(plan), _clip(plan, plan.frames)
    cue = _cue(model, clip.frames[0], plan.targets)
    tracker = _still(model, cue)
    bare = _bare(model, clip.frames, cue)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        _write_video(path, clip)

        def memory() -> None:
            for t, frame in enumerate(clip.frames):
                tracker.track(frame) if t else tracker.initialize(frame, Prompt(SENTENCE))

        def file() -> None:
            with open_source(path) as source:
                ahead = default_lookahead(source).over(source, tracker.perception.encode)
                for frame in ahead:
                    tracker.track(seen(frame)) if frame.index else tracker.initialize(seen(frame), Prompt(SENTENCE))
                ahead.close()

        def log() -> None:
            session = InstructionTracker(model).open(path)
            session.online = _still(model, cue)
            session.say(SENTENCE)
            for _ in session:
                pass
            session.close()

        seconds = interleaved({"bare": bare, "memory": memory, "file": file, "log": log}, plan.pairs)
    fps = {name: plan.frames / each.wall for name, each in seconds.items()}
    ratios = {name: seconds["bare"].wall / seconds[name].wall for name in ("memory", "file", "log")}
    work = {name: seconds["bare"].computed / seconds[name].computed for name in ("memory", "file")}
    size = f"{plan.width}x{plan.height}, targets {plan.targets}"
    lines = [
        Line("bare encoder + decoder", fps["bare"], "frames/s", f"squares of {model.segmenter.config.image_side}"),
        Line("tracker, frames in memory", fps["memory"], "frames/s", size),
        Line("tracker, mp4 file to masks", fps["file"], "frames/s", size),
        Line("session, mp4 file to log", fps["log"], "frames/s", size),
        Line("tracker / bare", ratios["memory"], "", "frames in memory"),
        Line("tracker from file / bare", ratios["file"], "", "mp4 file to masks"),
        Line("session from file / bare", ratios["log"], "", "mp4 file to tracks.jsonl"),
        Line("tracker / bare, computing time", work["memory"], "", "what a busy machine's clock hides"),
        Line("tracker from file / bare, computing time", work["file"], "", "decoding's threads included"),
    ]
    last = {"ratio": median(ratios["memory"]), "ratio_file": median(ratios["file"]), "fps": median(fps["file"])}
    return Part(lines, last)


def _bare(model: TrackGPT, frames: np.ndarray, cue: Cue) -> Callable[[], None]:
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


def measure_state(plan: Plan) -> Part:
    """Bytes of a track's state and of the process over a long generated stream, the brain asked every 50 frames."""
    model = _model(plan)
    clip = _clip(plan, 24)
    marks = [n for n in MARKS if n < plan.stream] + [plan.stream]
    sizes: dict[int, int] = {}  # at the marks only: what is kept here makes the process grow
    resident: dict[int, int] = {}
    with _forced(model):
        tracker = _scheduled(model, RETHINK_EVERY)
        for t in range(plan.stream):
            frame = clip.frames[t % len(clip.frames)]
            tracker.track(frame) if t else tracker.initialize(frame, Prompt(SENTENCE))
            if t + 1 in marks:
                sizes[t + 1] = tracker.state.nbytes
            if (t + 1) % max(1, plan.stream // 100) == 0:
                resident[t + 1] = resident_bytes()
    slope = memory_slope(resident)
    lines = [Line(f"state at frame {n}", np.array([sizes[n]]), "bytes") for n in marks]
    growth = sizes[marks[-1]] - sizes[marks[0]]
    lines.append(Line("process, resident", np.array(list(resident.values())) / 2**20, "MiB", "over the stream"))
    how = f"fit over {plan.stream} frames without the first quarter, {tracker.state.record.rethinks} rethinks"
    lines.append(Line("process, growth", np.array([round(slope, 1)]), "bytes/frame", how))
    return Part(
        lines, {"state_bytes": sizes[marks[-1]], "growth_bytes": growth, "rss_slope_bytes_per_frame": round(slope, 1)}
    )


def memory_slope(resident: Mapping[int, int]) -> float:
    """Bytes a frame: slope of a line through (frame, bytes) without the first quarter, where buffers are still made."""
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


# Part "data": how fast SynthTrack draws.


def measure_data(plan: Plan) -> Part:
    """Frames/s that one process draws: scenes made anew for every 3 frames, as training samples are, and ready ones."""
    from trackgpt.synthtrack.clips import frame_size
    from trackgpt.synthtrack.render import render
    from trackgpt.synthtrack.world import make_scene

    scenes = max(1, plan.frames // 3)
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
    seconds = interleaved(contestants, plan.pairs)
    fps = {name: 3 * scenes / each.wall for name, each in seconds.items()}
    how = f"{3 * scenes} frames a round, one process"
    lines = [Line(name, values, "frames/s", how) for name, values in fps.items()]
    drawn = {side: median(fps[f"scene and 3 frames, side {side}"]) for side in (128, 256)}
    return Part(lines, {"data_fps_128": drawn[128], "data_fps_256": drawn[256], "data_ms_128": 1e3 / drawn[128]})


# Part "import": how long a person waits.


def measure_import(plan: Plan) -> Part:
    """Wall time of fresh processes: Python alone, `import trackgpt`, torch alone, and from start to the first mask."""
    first = (
        "import numpy as np, trackgpt;"
        f"model = trackgpt.load({plan.model!r}, {plan.device!r}).model;"
        f"frame = np.random.default_rng(0).integers(0, 256, ({plan.height}, {plan.width}, 3), dtype=np.uint8);"
        f"model.tracker().initialize(frame, trackgpt.Prompt({SENTENCE!r})).masks"
    )
    programs = {"python": "pass", "package": "import trackgpt", "torch": "import torch", "mask": first}
    timed = interleaved({name: _process(text) for name, text in programs.items()}, plan.pairs)
    seconds = {name: each.wall for name, each in timed.items()}
    own = 1e3 * (seconds["package"] - seconds["python"])
    beyond = seconds["mask"] - seconds["torch"]
    lines = [
        Line("python -c pass", 1e3 * seconds["python"], "ms", "fresh process"),
        Line("import trackgpt", own, "ms", "over python alone"),
        Line("import torch", seconds["torch"], "s", "fresh process"),
        Line("start to first mask", seconds["mask"], "s", "fresh process: load, read the instruction, one frame"),
        Line("start to first mask", beyond, "s", "over import torch"),
    ]
    last = {"import_ms": median(own), "first_mask_s": median(seconds["mask"]), "over_torch_s": median(beyond)}
    return Part(lines, last)


def _process(program: str) -> Callable[[], None]:
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def run() -> None:
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UsageError(f"speed: `python -c {program[:40]!r}...` failed: {reason}")

    return run


def _of(module: str, function: str = "measure") -> Callable[[Plan], Part]:
    """A part in a module of its own, which builds on this one and is imported when it is measured."""
    return lambda plan: getattr(import_module(f"eval.commands.{module}"), function)(plan)


PARTS: dict[str, Callable[[Plan], Part]] = {
    "tracker": measure_tracker,
    "state": measure_state,
    "data": measure_data,
    "import": measure_import,
    "forced": _of("speed_brain"),
    "naive": _of("speed_brain", "measure_naive"),
    "scorer": _of("speed_scorer"),
    "online": _of("speed_online"),
    "targets": _of("speed_targets"),
    "precision": _of("speed_precision"),
    "memory": _of("speed_memory"),
    "attention": _of("speed_attention"),
}
ASKED = ("attention",)
"""Parts that take many minutes on a CPU: measured when they are named."""


def command(
    only: Annotated[list[str] | None, typer.Option(help="A part, may be repeated: " + ", ".join(PARTS))] = None,
    model: Annotated[str, typer.Option(help="Shipped name or folder of a model")] = "nano",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Arithmetic threads; 0 leaves torch's choice")] = 0,
    pairs: Annotated[int, typer.Option(min=1, help="Rounds; fewer than 7 say little")] = 7,
    frames: Annotated[int, typer.Option(min=2, help="Frames a round")] = 48,
    stream: Annotated[int, typer.Option(min=10, help="Frames of part `state`")] = 2000,
    size: Annotated[tuple[int, int], typer.Option(help="Height and width of the frames")] = (480, 854),
    targets: Annotated[int, typer.Option(min=1, help="Targets tracked at once")] = 1,
    vit: Annotated[str, typer.Option(help="Encoder of part `attention`: b, l, h or tiny")] = "b",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, or auto: what is faster here")] = "float32",
    backend: Annotated[str, typer.Option(help="torch or onnxruntime")] = "torch",
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file")] = None,
) -> None:
    """Ratios measured side by side: the tracker, its state, the data, the start, the brain."""
    names = only or [name for name in PARTS if name not in ASKED]
    for name in names:
        if name not in PARTS:
            raise UsageError(f"--only {name}: no such part; choose from {', '.join(PARTS)}")
    plan = Plan(model, device, pairs, frames, stream, *size, targets, vit, dtype, backend)
    where = conditions(plan, threads)
    done: dict[str, Part] = {}
    for name in names:
        done[name] = PARTS[name](plan)
        if out is not None:
            write_json(out, {"conditions": where, "parts": {key: _as_json(part) for key, part in done.items()}})
    _show(done, where)


def conditions(plan: Plan, threads: int) -> dict[str, Any]:
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
        "device": plan.device,
        "load": round(os.getloadavg()[0], 2),
        "threads": {"torch": torch.get_num_threads(), "opencv": cv2.getNumThreads()},
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "commit": commit(),
        "plan": vars(plan),
    }


def _as_json(part: Part) -> dict[str, object]:
    lines = [{**line._asdict(), "median": median(line.values) if len(line.values) else None} for line in part.lines]
    return {"lines": lines, "last": part.last}


def _show(done: Mapping[str, Part], where: Mapping[str, Any]) -> None:
    """The table, what it was measured on, and one line of key=value for each part."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    threads = where["threads"]
    how = ", ".join(where["plan"][name] for name in ("device", "dtype", "backend"))
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


# What parts share.


def _model(plan: Plan) -> TrackGPT:
    from trackgpt.hub import load_model

    return load_model(plan.model, plan.device, dtype=plan.dtype, backend=plan.backend)


def _clip(plan: Plan, frames: int) -> Clip:
    from trackgpt.synthtrack.render import render_clip
    from trackgpt.synthtrack.world import make_scene

    return render_clip(make_scene(1, frames=frames, aspect=(16, 9)), plan.height, plan.width)


def _write_video(path: Path, clip: Clip) -> None:
    from trackgpt.video.writer import VideoWriter

    with VideoWriter(path, clip.fps, clip.frames.shape[1:3]) as video:
        for t, frame in enumerate(clip.frames):
            video.write(frame, t / clip.fps)


@contextmanager
def _forced(model: TrackGPT) -> Iterator[None]:
    """The brain gives the template's one-target answer, so that a model that would refuse still tracks."""
    kept = model.brain.config.answer
    model.brain.config.answer = "forced"
    try:
        yield
    finally:
        model.brain.config.answer = kept


def _cue(model: TrackGPT, frame: np.ndarray, targets: int) -> Cue:
    """The queries of the template's answer about a frame, repeated for several targets."""
    with _forced(model):
        cue = model.tracker().reasoner.reason(frame, Prompt(SENTENCE))
    assert cue.referring is not None
    assert cue.purport is not None
    rows = np.resize(np.arange(cue.targets), targets)
    return replace(cue, referring=cue.referring[rows], purport=cue.purport[rows])


class _Given:
    """A reasoner whose answer is known: `Reasoner` without a brain."""

    def __init__(self, cue: Cue) -> None:
        self.cue = cue

    def reason(self, frame: np.ndarray, prompt: Prompt, before: Cue | None = None) -> Cue:
        return self.cue


def _still(model: TrackGPT, cue: Cue) -> ReasoningTracker:
    """A tracker that begins with a cue and never asks again: the fast half alone."""
    from trackgpt.arbiter import PurportArbiter

    tracker = model.tracker()
    tracker.reasoner = _Given(cue)
    tracker.arbiter = PurportArbiter(replace(model.config.rethink, enabled=False))
    return tracker


def _scheduled(model: TrackGPT, every: int) -> ReasoningTracker:
    """A tracker that asks the brain every so many frames, whatever the scores."""
    from trackgpt.arbiter import PurportArbiter, Record

    class EveryFewFrames(PurportArbiter):
        def due(self, record: Record) -> str:
            return "purport" if record.frame % every == 0 else ""

    tracker = model.tracker()
    tracker.arbiter = EveryFewFrames(model.config.rethink)
    return tracker
