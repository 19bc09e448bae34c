"""A session over a source: say something, watch results come, go back, export.

tracker = trackgpt.load("nano")
with tracker.open("race.mp4") as playback:
    playback.say("who will win the race?")
    for result in playback:
        ...
"""

from __future__ import annotations

import math
import platform
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from trackgpt.arbiter import Unasked
from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.export.exporting import check_formats, export
from trackgpt.export.prompts import read_prompts
from trackgpt.export.records import EVENTS, RUN, STATE, TRACKS, EventRecord, RunFolder, read_events, read_tracks
from trackgpt.files import writing
from trackgpt.session.ahead import EncodedSource, Lookahead, default_lookahead
from trackgpt.session.choices import Ambiguity
from trackgpt.session.late import LateTracker
from trackgpt.session.results import Reply, Result
from trackgpt.session.resuming import Mark
from trackgpt.session.session import Session, looked_at
from trackgpt.session.takes import Checkpoints
from trackgpt.settings import to_dict
from trackgpt.track import TrackState
from trackgpt.types import Prompt, VisualPrompt
from trackgpt.version import __version__, installed
from trackgpt.video.frames import FrameSource, SourceFrame
from trackgpt.video.source import open_source

if TYPE_CHECKING:
    from trackgpt.online import System
    from trackgpt.reasoners.kind_reader import KindReader

CLOSE = 1e-6
"""Seconds by which the time of a frame may miss the time it was asked for."""
RETHINKING = ("auto", "off", "async")
PACKAGES = ("torch", "transformers", "numpy", "opencv-python-headless", "av")


@dataclass(frozen=True, eq=False)
class PlannedPrompt:
    """What is to be said about a frame still to come, by index or by second of the source.

    Attributes:
        text, how: as in `Session.say`.
        summary: of it, for people.
        frame, second: when; None where the other one says it.
    """

    text: str | Prompt
    how: dict[str, Any]
    summary: str
    frame: int | None = None
    second: float | None = None

    def due(self, index: int, time: float) -> bool:
        """True on the wanted frame and after it: the frame itself may be unreadable, or left out by a stride."""
        if self.second is not None:
            return time >= self.second - CLOSE
        return index >= (self.frame or 0)

    def __str__(self) -> str:
        return f"frame {self.frame}" if self.second is None else f"second {self.second:g}"


class InstructionTracker:
    """A system ready to be told what to track; several sessions may share it.

    Args:
        model: the system.
        name: of it, for people.
        settings: "key=value" of its rules, such as "every=4" of `trackgpt.systems.qtrack.QTrackSettings`.
    """

    def __init__(self, model: System, name: str = "trackgpt", settings: Sequence[str] = ()) -> None:
        if isinstance(settings, str):
            raise UsageError(
                f"settings: wanted a list of KEY=VALUE, such as ['{settings}'], found the text {settings!r}"
            )
        self.model = model
        self.name = name
        self.settings = tuple(settings)

    @classmethod
    def from_pretrained(
        cls, model: str | Path = "nano", device: str = "auto", settings: Sequence[str] = (), **execution: Any
    ) -> InstructionTracker:
        """Load a model by its name and say how it runs (see `trackgpt.hub.load_model`)."""
        from trackgpt.hub import load_model

        return cls(load_model(model, device, **execution), str(model), settings)

    def check(self, text: str) -> str:
        """An instruction as the model will read it: without markup and control characters.

        Raises:
            UsageError: NL01 it is empty; NL02 it is too long.
        """
        return self.model.check(text)

    def session(self, rethink: str = "auto") -> Session:
        """A session that is given its frames one by one (see `Session.step`)."""
        return Session(self.stepping(rethink), self.check, reader=self.reader, finder=self.finder)

    @property
    def reader(self) -> KindReader | None:
        """What tells kinds of instructions apart where no rule does: the model's VLM; None where it has none."""
        found: KindReader | None = getattr(self.model, "reader", None)
        return found

    @property
    def finder(self) -> Callable[[np.ndarray, str], np.ndarray] | None:
        """Where the model finds words on a frame, to compare with a box beside them; None where it is not asked."""
        found: Callable[[np.ndarray, str], np.ndarray] | None = getattr(self.model, "places", None)
        return found

    def open(
        self,
        source: str | Path | int | Iterable[np.ndarray],
        *,
        out: str | Path | None = None,
        overwrite: bool = False,
        rethink: str = "auto",
        lookahead: Lookahead | None = None,
        **reading: Any,
    ) -> Playback:
        """Open a video file, folder, glob, camera index, stream URL, or any iterable of uint8 RGB arrays.

        Args:
            source: see `trackgpt.video.source.open_source`.
            out: the run folder for the log; a temporary one by default, deleted with the playback.
            overwrite: replace a run that is there.
            rethink: "off" never asks the slow model again by itself; "async" goes on while it reads.
            lookahead: how far reading and encoding run before tracking; see `default_lookahead`.
            reading: `fps`, `start`, `end`, `stride`, `max_pixels`, `allow_gaps` of `open_source`.

        Raises:
            InputError: the source cannot be read; no folder has been made then.
            OutputError: `out` exists or cannot be written.
            UsageError: there is no such way of rethinking.
        """
        frames = open_source(source, **reading)
        try:
            return Playback(self, frames, out, overwrite, rethink, lookahead, reopen=(source, reading))
        except BaseException:
            frames.close()
            raise

    def stepping(self, rethink: str) -> Any:
        """What a session steps with.

        Raises:
            UsageError: there is no such way of rethinking, or the model has no such setting.
        """
        if rethink not in RETHINKING:
            raise UsageError(f"rethink {rethink!r}: choose from {', '.join(RETHINKING)}")
        parts = self.model.tracker(settings=self.settings)
        if rethink == "off":
            return replace(parts, arbiter=Unasked(parts.arbiter))
        return LateTracker(parts) if rethink == "async" else parts


class Playback:
    """One source and one session. Say at least one thing, then iterate; saying more in between changes the target.

    Made by `InstructionTracker.open`. One frame is held at a time, so memory does not grow with the source.

    Attributes:
        source: what is read.
        session: the track with its takes, counts and events.
        lookahead: how far reading and encoding run before tracking.
        run: the folder the log is written to.
    """

    def __init__(
        self,
        tracker: InstructionTracker,
        source: FrameSource,
        out: str | Path | RunFolder | None = None,
        overwrite: bool = False,
        rethink: str = "auto",
        lookahead: Lookahead | None = None,
        reopen: tuple[Any, dict[str, Any]] | None = None,
    ) -> None:
        parts = tracker.stepping(rethink)
        self.source = source
        self._tracker = tracker
        self._reopen = reopen
        self._scratch: weakref.finalize[..., Playback] | None = None
        if out is None:
            folder = tempfile.mkdtemp(prefix="trackgpt-")
            self._scratch = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            out = Path(folder) / "run"
        reads = files_of(reopen[0]) if reopen else ()
        self.run = out if isinstance(out, RunFolder) else RunFolder(out, overwrite, reads)
        self.session = Session(parts, tracker.check, self.run, tracker.reader, tracker.finder)
        self.session.size = source.size
        self.lookahead = default_lookahead(source) if lookahead is None else lookahead
        perception = getattr(parts, "parts", parts).perception
        # Plain images while there is nothing to track; nothing at all where the perception encodes nothing early.
        plain = not getattr(perception, "early", True)
        self._encode = None if plain else lambda seen: perception.encode(seen) if self.session.state.active else seen
        self._coming: EncodedSource = self.lookahead.over(source, self._encode)
        self._upcoming: SourceFrame | None = None
        self._ready: deque[Result] = deque()
        self._planned: list[PlannedPrompt] = []
        self._kept = Checkpoints()
        self._given = (-1, -1.0)
        self._started = self._done = self._closed = False

    # --- what a person does ---

    def say(self, text: str | Prompt = "", frame: int | None = None, second: float | None = None, **how: Any) -> Reply:
        """Tell the tracker what to follow, in words or by pointing at it (see `Session.say`).

        Args:
            text: the instruction, or a whole prompt, which may say its `frame` itself.
            frame: the index of a frame still to come that it is about; by default the next one.
            second: the same as a time of the source: the first frame that is not before it.
            how: `kind`, `ids`, `visual`, or `box`, `points` and `mask` of one target, see `Session.read`.

        Returns:
            The answer; for a frame still to come the answer is given when it is reached, and this one is empty.

        Raises:
            UsageError: see `Session.say`; the frame has passed, none is left, or both `frame` and `second` are given.
        """
        self._must_be_open()
        timed = frame is not None or second is not None
        # What words refer to shows when they are said; until then they are taken as they are.
        plain = {"kind": "start"} if timed and not isinstance(text, Prompt) else {}
        later = timed and "choose" in how  # among what has not been found yet
        prompt = Prompt(said=f"choose {how['choose']}") if later else self.session.read(text, **plain | how)
        if isinstance(text, Prompt) and frame is None and second is None:
            frame = text.frame or None
        if prompt.chosen and frame is None and second is None and how.keys() <= {"choose"} and self.session.choice:
            self._go_back_to_choice(self.session.choice)
            with self._coming.sharing():
                return self.session.say(prompt)
        _check_moment(frame, second)
        plan = PlannedPrompt(text, how, prompt.summary, frame, second)
        timed = frame is not None or second is not None  # a whole prompt may say its frame itself
        if frame is not None and second is not None:
            raise UsageError(f"frame {frame} and second {second:g} are two moments; give one of them")
        if timed and plan.due(*self._given):
            back = f", or seek({frame}) first" if frame is not None else ""
            raise UsageError(f"{plan} has passed; say it about a frame to come{back}")
        upcoming = self._readable()
        if upcoming is None:
            raise UsageError("the source has no frame left; say what to track before it ends")
        if timed and not plan.due(upcoming.index, upcoming.time):
            begins = prompt.kind in ("start", "switch", "add", "conditional") and (prompt.text or prompt.visual)
            if begins and all(shown.finds for shown in prompt.visual):
                self.session.refuse(prompt)  # others are about targets that may still be to come
            self._planned.append(plan)
            return Reply()
        return self._say_now(plan, upcoming)

    def __iter__(self) -> Iterator[Result]:
        """The frames from here on, one `Result` each.

        Raises:
            UsageError: nothing has been said.
            InputError: the source breaks off (IN06), or has a frame too large (IN07).
            OutputError: OUT02 the log cannot be written; what was written stays valid.
        """
        self._must_be_open()
        if not self.told:
            raise UsageError("nothing to track yet; say what to follow first: playback.say('the red car')")
        while (result := self._next()) is not None:
            self._given = (result.index, result.time)
            yield result
        self._finish()

    def seek(self, index: int) -> None:
        """Go back to a frame: it is the next one to come, and the track is as it was before it, to the bit.

        Frames recorded so far stay in the log; what follows is a new take. The track is followed again from the nearest
        state that was kept on the way; what was said about this frame or later is not said again.

        Raises:
            UsageError: the frame has not been tracked yet, or the source can be read only once.
        """
        self._must_be_open()
        upcoming = self._readable() if type(index) is int else None
        if upcoming is not None and index == upcoming.index and not self.session.pending:
            return
        if type(index) is not int or index > (self._given[0] if upcoming is None else upcoming.index):
            raise UsageError(f"frame {index} has not been tracked yet; let frames pass until it comes")
        kept = self._kept.nearest(index)
        if kept is None:
            raise UsageError(f"frame {index} lies before what was tracked")
        at, state = kept
        said = self.session.heard(at, index - 1)
        self._read_from(at)
        while (frame := self._readable_before(index)) is not None:
            with self._coming.sharing():
                prompts: list[Prompt | None] = [prompt for prompt in said if prompt.frame == frame.index]
                for prompt in prompts or [None]:
                    state, _ = self.session.tracker.step(state, looked_at(frame), prompt)
        self.session.restore(state)
        if self._upcoming is not None and self._upcoming.image is None:
            frame, self._upcoming = self._upcoming, None
            self._ready.append(self.session.step(frame))
        self._kept.forget_after(index)
        self._given_before(index)

    @property
    def mark(self) -> Mark | None:
        """From where this run could go on in another process: after the last frame.

        None where it cannot: nothing has been tracked, the frame was unreadable, something has been said about the next
        one, or the source can be read only once.
        """
        last = self.session.last
        if last is None or last.problem or self.session.pending or not self._can_reread():
            return None
        return Mark(last.index, self.run.ends)

    def go_on(self, mark: Mark, later: Iterable[PlannedPrompt] = ()) -> None:
        """Go on where the run of this playback's folder was cut, before anything else is done with it.

        Args:
            mark: what was saved there; the source begins at its frame or before it.
            later: what is still to be said, in the order in which it was planned; what was due by then is left out.

        Raises:
            InputError: the log is damaged, the state is none of this system, or the source lacks the frame.
        """
        folder = self.run.path
        state = TrackState.load(folder / STATE, self.session.tracker.kinds)
        self.session.go_on(state, read_tracks(folder), read_events(folder))
        last = self.session.last
        if last is None or last.index != mark.frame:
            raise InputError(f"{folder}: its log does not end at frame {mark.frame}; start again with --overwrite")
        while (frame := self._taken()) is not None and frame.index < mark.frame:
            pass
        if frame is None or frame.index != mark.frame:
            raise InputError(f"{self.source.name}: has no frame {mark.frame}; wanted the source of {folder}")
        self._given = (last.index, last.time)
        self._planned = [plan for plan in later if not plan.due(*self._given)]
        self._started = True

    def undo(self) -> str:
        """Take back what was said last and, where the source can be read again, go back to its frame.

        A question counts as said; taking it back changes nothing (see `Session.undo`). An instruction for a frame still
        to come is taken back first.

        Returns:
            The words that were taken back; where there were none, what was shown in words.

        Raises:
            UsageError: there is nothing to take back.
        """
        self._must_be_open()
        if self._planned:
            return self._planned.pop().summary
        said = self.session.undo()
        if said.prompt.kind != "question":
            self._come_again(said.prompt.frame)
        return said.prompt.summary

    def _come_again(self, index: int) -> None:
        """Let a frame that was tracked come again, where the source can be read again."""
        if index <= self._given[0] and self._can_reread():
            self._read_from(index)
            self._kept.forget_after(index)
            self._given_before(index)

    def choose(self, *numbers: int, point: tuple[float, float] | None = None) -> Reply:
        """See `Session.choose`; where the source can be read again, the frames since then come again in a new take."""
        return self.say(choose=numbers if point is None else VisualPrompt(points=((*point, 1),)))

    def _go_back_to_choice(self, choice: Ambiguity) -> None:
        if choice.frame.index <= self._given[0] and self._can_reread():
            self.session.go_back_to_choice()
            self._come_again(choice.frame.index)

    def switch_take(self, number: int) -> int:
        """Go on as another take did: from where they part, the frames are tracked again with what was said there.

        Returns:
            The frame that comes next, which opens a new take; what of that take is still to be said is planned.

        Raises:
            UsageError: there is no such take, the same was said in it, it goes another way at a frame that has not come
                yet, or the source can be read only once.
        """
        here, there = self.session.prompts, read_prompts(self.run.path, number)
        same = 0
        while same < min(len(here), len(there)) and here[same] == there[same]:
            same += 1
        apart = [prompt.frame for prompt in (*here[same : same + 1], *there[same : same + 1])]
        if not apart:
            raise UsageError(f"take {number}: the same was said in it as here")
        upcoming = self.upcoming
        if min(apart) > (self._given[0] if upcoming is None else upcoming.index):
            raise UsageError(f"take {number}: goes another way at frame {min(apart)}; let frames pass until it comes")
        self.seek(min(apart))
        for prompt in there[same:]:
            self.say(prompt, prompt.frame)
        return min(apart)

    @property
    def told(self) -> bool:
        """Something has been said, or will be about a frame to come."""
        return bool(self.session.prompts or self._planned)

    @property
    def upcoming(self) -> SourceFrame | None:
        """The next frame that has an image, which is waited for; None at the end."""
        self._must_be_open()
        return self._readable()

    def _given_before(self, index: int) -> None:
        """Frame `index` comes next: what is said about a time before it has passed."""
        upcoming = self._readable()
        self._given = (index - 1, -1.0 if upcoming is None else upcoming.time - 2 * CLOSE)

    def snapshot(self) -> TrackState:
        """See `Session.snapshot`."""
        return self.session.snapshot()

    def restore(self, state: TrackState) -> None:
        """Go on from a snapshot with the next frame, in this playback or in another one of the same system."""
        self._must_be_open()
        self.session.restore(state)
        self._kept = Checkpoints()

    def export(self, out: str | Path, formats: Sequence[str] = ("jsonl",), overwrite: bool = False) -> dict[str, Path]:
        """Write the run so far as a folder: the log and every format asked for ("mp4", "davis", "coco", "mot", ...).

        Raises:
            OutputError: the folder exists, or cannot be written.
            UsageError: a format does not exist, mp4 is asked of a source that cannot be read twice, or the playback
                is closed and its log was temporary.
        """
        check_formats(formats)
        if not self.session.frames:
            raise UsageError("no frame has been tracked yet; iterate over the playback first")
        frames = self._frames_again() if "mp4" in formats else None
        if not self.run.path.is_dir():
            raise UsageError("the session is closed and its log is gone; export first, or open the source with out=...")
        if not (self.run.path / RUN).exists():
            self.describe()
        target = Path(out)
        if target.resolve() != self.run.path.resolve():
            reads = files_of(self._reopen[0]) if self._reopen else []
            RunFolder(target, overwrite, [*reads, self.run.path]).close()
            with writing(target):
                for file in (TRACKS, EVENTS, RUN):
                    shutil.copyfile(self.run.path / file, target / file)
        return export(target, formats, frames)

    def describe(self, **facts: Any) -> None:
        """Write run.json: versions, configuration and source, and what else is given."""
        model = {"name": self._tracker.name, "config": to_dict(self._tracker.model.config)}
        self.run.describe(_facts(self.source) | {"model": model} | facts)

    def close(self) -> None:
        """Close the source and the log; a temporary log is deleted. Closing twice is allowed."""
        self._close_files()
        if self._scratch is not None:
            self._scratch()

    def __enter__(self) -> Playback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the source and the log's files; a temporary log stays until `close`, so that it can be exported."""
        if error is not None and not self._done:
            text = str(error) if isinstance(error, Exception) else "interrupted"
            with suppress(OutputError):
                self.session.note("error", text=text)
        self._close_files()

    @property
    def on_event(self) -> Callable[[EventRecord], None]:
        """Called with every event as it happens; assign to it to listen."""
        return self.session.on_event

    @on_event.setter
    def on_event(self, listener: Callable[[EventRecord], None]) -> None:
        self.session.on_event = listener

    @property
    def on_choice(self) -> Callable[[Ambiguity], str]:
        """Called where several things fit what was said (see `Session.on_choice`); assign to it to answer."""
        return self.session.on_choice

    @on_choice.setter
    def on_choice(self, answer: Callable[[Ambiguity], str]) -> None:
        self.session.on_choice = answer

    # --- reading ---

    def _say_now(self, plan: PlannedPrompt, frame: SourceFrame) -> Reply:
        self._kept.keep(frame.index, self.session.state)
        with self._coming.sharing():
            return self.session.say(plan.text, about=frame, **plan.how)

    def _next(self) -> Result | None:
        """The next frame's result; None at the end."""
        while not self._ready and self._upcoming is None:
            if not self._pull():
                return None
        if self._ready:
            return self._ready.popleft()
        frame, self._upcoming = self._upcoming, None
        assert frame is not None
        due = [plan for plan in self._planned if plan.due(frame.index, frame.time)]
        self._planned = [plan for plan in self._planned if plan not in due]
        for plan in due:
            try:
                self._say_now(plan, frame)
            except UsageError as error:  # the frame keeps its place, and what was tracked goes on
                self.session.warn("", frame, f"{plan}: {plan.summary!r} was not heeded: {error}")
        if not self.session.pending:
            self._kept.keep(frame.index, self.session.state)
        with self._coming.sharing():
            return self.session.step(frame)

    def _readable(self) -> SourceFrame | None:
        """The next frame that has an image; those before it are recorded on the way."""
        while self._upcoming is None and self._pull():
            pass
        return self._upcoming

    def _pull(self) -> bool:
        """Take one frame from the source; False when there is none."""
        frame = self._taken()
        if frame is None:
            return False
        if not self._started:
            self._start(frame)
        if frame.image is None:
            self._ready.append(self.session.step(frame))
        else:
            self._upcoming = frame
        return True

    def _taken(self) -> SourceFrame | None:
        with self._coming.sharing():
            return next(self._coming, None)

    def _readable_before(self, index: int) -> SourceFrame | None:
        """The next frame with an image before a frame; the first one that is not before it waits its turn."""
        while (frame := self._taken()) is not None:
            if frame.index >= index:
                self._upcoming = frame
                return None
            if frame.image is not None:
                return frame
        return None

    def _read_from(self, index: int) -> None:
        """Open the source again, at a frame."""
        if not self._can_reread():
            raise UsageError(f"{self.source.name} can be read only once, so there is no way back to frame {index}")
        assert self._reopen is not None
        source, reading = self._reopen
        again = open_source(source, **{**reading, "start": index})
        self._coming.close()
        self.source.close()
        self.source, self._upcoming, self._done = again, None, False
        self._ready.clear()
        self._coming = self.lookahead.over(again, self._encode)

    def _can_reread(self) -> bool:
        once = self._reopen is None or isinstance(self._reopen[0], Iterator)
        return not once and self.source.rereadable

    def _start(self, frame: SourceFrame) -> None:
        self._started = True
        if self._scratch is None and not (self.run.path / RUN).exists():
            self.describe()
        notes = {"notes": self.source.notes} if self.source.notes else {}
        self.session.start(frame, source=self.source.name, size=self.source.size, **notes)
        if self.source.fps_note:
            self.session.warn("IN04", frame, self.source.fps_note)
        for text in self.source.warnings:
            self.session.warn("", frame, text)

    def _finish(self) -> None:
        """What is said once the source has ended."""
        if self._done:
            return
        self._done = True
        session = self.session
        for plan in self._planned:
            session.warn("", session.last, f"the source ended before {plan}, so {plan.summary!r} was never read")
        if self.source.end_note:
            session.warn("IN04", session.last, self.source.end_note)
        if not session.found and session.prompts:
            text = f"nothing matched {session.prompts[-1].summary!r} on any of {session.frames} frames"
            session.note("error", code="NL05", text=text)
        session.note("done", frames=session.frames)

    def _must_be_open(self) -> None:
        if self._closed:
            raise UsageError("the playback is closed; open the source again")

    def _close_files(self) -> None:
        self._closed = True
        with ExitStack() as closing:  # each is closed whatever another one raises
            closing.callback(self.run.close)
            closing.callback(self.source.close)
            closing.callback(self._coming.close)
            closing.callback(self.source.stop)

    def _frames_again(self) -> Iterator[tuple[int, np.ndarray]]:
        if not self._can_reread():
            raise UsageError(
                "mp4 needs the frames again, and this source can be read only once; export other formats, "
                "or write frames with trackgpt.video.writer while you iterate"
            )
        assert self._reopen is not None
        return _reread(*self._reopen)


def _check_moment(frame: int | None, second: float | None) -> None:
    if frame is not None and (type(frame) is not int or frame < 0):
        raise UsageError(f"frame {frame!r}: wanted a whole number from 0")
    if second is not None and not (isinstance(second, int | float) and 0 <= second < math.inf):
        raise UsageError(f"second {second!r}: wanted a number from 0")


def files_of(source: Any) -> list[Path]:
    """The files and folders that a source is read from, as far as it names any."""
    if not isinstance(source, str | Path):
        return []
    path = Path(source).expanduser()
    if path.exists():
        return [path]
    return [Path(found) for found in glob(str(path))] if has_magic(str(path)) else []


def _reread(source: Any, reading: dict[str, Any]) -> Iterator[tuple[int, np.ndarray]]:
    with open_source(source, **reading) as again:
        for frame in again:
            if frame.image is not None:
                yield frame.index, frame.image


def _facts(source: FrameSource) -> dict[str, Any]:
    """What run.json says of versions and source; together with configuration and words enough to run it again."""
    return {
        "schema": 2,
        "trackgpt": __version__,
        "versions": {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}},
        "source": {
            "name": source.name,
            "kind": source.kind,
            "sha256": source.digest(),
            "fps": source.fps,
            "fps_note": source.fps_note,
            "size": list(source.size),
            "pixel_aspect": str(source.pixel_aspect),
            "rereadable": source.rereadable,
            "notes": [*source.notes, *source.warnings],
        },
        "boxes": "xyxy pixels of the frame, edges",
    }
