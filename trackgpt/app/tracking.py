"""`trackgpt track`: from a request to a run folder, with a progress bar and nothing lost on the way."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackgpt.errors import NothingFoundError, TrackGPTError, UsageError

if TYPE_CHECKING:
    from trackgpt.app.session import InstructionTracker, Result, Session

AT_FRAME = re.compile(r"^(\d+): +(.*)$", re.DOTALL)
AT_SECOND = re.compile(r"^@(\d+(?:\.\d+)?): +(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """What a person asked for on the command line."""

    source: str
    instructions: tuple[str, ...]
    model: str = "nano"
    output: Path | None = None
    formats: tuple[str, ...] = ("jsonl",)
    device: str = "auto"
    seed: int = 0
    reading: dict[str, Any] = field(default_factory=dict)
    rethink: str = "auto"
    overwrite: bool = False
    strict: bool = False
    quiet: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Spoken:
    """An instruction and when it is said: at a frame, or at a second, or at the beginning."""

    text: str
    frame: int | None = None
    second: float | None = None


def parse_instruction(text: str) -> Spoken:
    """Read "TEXT", "240: TEXT" (a frame) or "@8.5: TEXT" (a second); a leading backslash turns the prefix off."""
    if text.startswith("\\"):
        return Spoken(text[1:])
    if found := AT_FRAME.match(text):
        return Spoken(found[2], frame=int(found[1]))
    if found := AT_SECOND.match(text):
        return Spoken(found[2], second=float(found[1]))
    return Spoken(text)


def run(request: Request) -> int:
    """Track and write; returns the exit code.

    Raises:
        TrackGPTError: see the error table; what was written before stays valid.
    """
    from trackgpt.app.session import InstructionTracker
    from trackgpt.export.records import EXPORTERS

    spoken = [parse_instruction(text) for text in request.instructions]
    unknown = [name for name in request.formats if name not in EXPORTERS]
    if unknown:
        raise UsageError(f"--format {unknown[0]}: no such format; choose from {', '.join(EXPORTERS)}")
    if request.rethink not in ("auto", "off"):
        raise UsageError(f"--rethink {request.rethink}: choose auto or off")
    out = request.output or _next_folder(request.source)
    tracker = InstructionTracker.from_pretrained(request.model, request.device)
    reading = {key: value for key, value in request.reading.items() if value is not None}
    source: str | int = int(request.source) if request.source.isdigit() else request.source
    with tracker.open(source, out=out, overwrite=request.overwrite, **reading) as session:
        if request.rethink == "off":
            session.online.arbiter.config = replace(session.online.arbiter.config, enabled=False)
        session.run.describe(_facts(request, session, tracker))
        return _follow(request, session, spoken, out)


def _follow(request: Request, session: Session, spoken: Sequence[Spoken], out: Path) -> int:
    warnings = frames = 0
    scores: list[float] = []
    for words in spoken:
        frame = words.frame if words.second is None else round(words.second * session.source.fps)
        reply = session.say(words.text, frame)
        if reply.text and not request.as_json:
            print(reply.text, flush=True)
    try:
        with ExitStack() as stack:
            writers = stack.enter_context(_writers(request, session, out))
            advance = stack.enter_context(_progress(request, session))
            for result in session:
                writers(result)
                advance(result)
                frames += 1
                warnings += sum(event.type == "warn" for event in result.events)
                scores += [o.purport for o in result.objects if o.purport is not None]
                if request.as_json:
                    print(session.last_record.to_json(), flush=True)
    finally:
        _finish(request, session, out, frames)
    mean = sum(scores) / len(scores) if scores else float("nan")
    print(f"frames={frames} rethinks={session.rethinks} purport={mean:.3f} warnings={warnings} out={out}")
    if not session.found:
        last = session.prompts[-1].text
        raise NothingFoundError(f"nothing matched {last!r} on any of {frames} frames", "NL05")
    return 1 if request.strict and warnings else 0


def _finish(request: Request, session: Session, out: Path, frames: int) -> None:
    """Make the formats that are drawn from the log, also from a run that was cut short."""
    from trackgpt.export.records import export

    session.run.close()
    offline = [name for name in request.formats if name in ("coco", "mot", "timeline")]
    if not frames or not offline:
        return
    failed = sys.exc_info()[0] is not None
    try:
        export(out, offline)
    except TrackGPTError:
        # The first failure is the one to report; a second one while cleaning up would hide it.
        if not failed:
            raise


@contextmanager
def _writers(request: Request, session: Session, out: Path) -> Iterator[Any]:
    """What is written while frames come: the overlay video and the indexed masks."""
    from trackgpt.export.davis import DavisWriter
    from trackgpt.export.overlay import draw
    from trackgpt.video.writer import VideoWriter

    with ExitStack() as stack:
        davis = DavisWriter(out / "masks") if "davis" in request.formats else None
        video: VideoWriter | None = None
        said = {"instruction": "", "answer": ""}

        def write(result: Result) -> None:
            nonlocal video
            asked = ""
            for event in result.events:
                if event.type in said:
                    said[event.type] = str(event.data["text"])
                asked = str(event.data["reason"]) if event.type == "rethink" else asked
            record = session.last_record
            if davis is not None:
                davis.write(record, *record.size)
            if "mp4" in request.formats and result.frame is not None:
                if video is None:
                    video = stack.enter_context(
                        VideoWriter(out / "video.mp4", session.source.fps, result.frame.shape[:2])
                    )
                video.write(draw(result.frame, record, said["instruction"], said["answer"], asked), result.time)

        yield write


@contextmanager
def _progress(request: Request, session: Session) -> Iterator[Any]:
    """A progress bar on stderr with frames per second and the purport score; silent when quiet or not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("tracking"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    ]
    console = Console(stderr=True)
    hidden = request.quiet or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden) as bar:
        task = bar.add_task("tracking", total=session.source.frames_hint, note="")

        def advance(result: Result) -> None:
            score = min((o.purport for o in result.objects if o.purport is not None), default=None)
            speed = bar.tasks[0].speed
            note = f"{speed:.0f} fps" if speed else ""
            bar.update(task, advance=1, note=note + (f"  purport {score:.2f}" if score is not None else ""))

        yield advance


def _next_folder(source: str) -> Path:
    stem = re.sub(r"[^\w.-]+", "_", Path(source.rstrip("/")).stem) or "stream"
    number = 1
    while (folder := Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return folder


def _facts(request: Request, session: Session, tracker: InstructionTracker) -> dict[str, Any]:
    """What run.json says: enough to run it again."""
    import platform
    from importlib.metadata import version

    from trackgpt import __version__
    from trackgpt.config import to_dict

    packages = ("torch", "transformers", "numpy", "opencv-python-headless", "av")
    return {
        "schema": 1,
        "trackgpt": __version__,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "model": {"name": request.model, "config": to_dict(tracker.model.config)},
        "source": {
            "name": session.source.name,
            "kind": session.source.kind,
            "sha256": session.source.digest(),
            "fps": session.source.fps,
            "fps_note": session.source.fps_note,
            "size": list(session.source.size),
        },
        "instructions": list(request.instructions),
        "reading": request.reading,
        "rethink": request.rethink,
        "device": request.device,
        "seed": request.seed,
        "boxes": "xyxy pixels of the frame, edges",
    }
