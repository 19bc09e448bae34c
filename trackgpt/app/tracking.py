"""`trackgpt track`: from a request to a run folder, with nothing lost on the way."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackgpt.app.choosing import answering, check_way
from trackgpt.app.instructions import SpokenScript, TimedInstruction, parse_instruction
from trackgpt.app.pointing import Pointing, files_in, read_pointing, refuse_missing_frames
from trackgpt.ending import INTERRUPTED, STOPPED, TerminatedError
from trackgpt.errors import NothingFoundError, TrackGPTError, UsageError

if TYPE_CHECKING:
    from trackgpt.app.live import Outputs, Printer
    from trackgpt.export.records import TrackRecord
    from trackgpt.session.ahead import Lookahead
    from trackgpt.session.playback import InstructionTracker, Playback
    from trackgpt.session.session import Session
    from trackgpt.types import Prompt
    from trackgpt.video.frames import FrameSource


class InterruptedRunError(TrackGPTError):
    """Ctrl-C or SIGTERM came; what was tracked until then is kept."""

    def __init__(self, kept: str, stopped: bool) -> None:
        super().__init__(f"{'stopped by SIGTERM' if stopped else 'interrupted'}; {kept}")
        self.exit_code = STOPPED if stopped else INTERRUPTED


@dataclass(frozen=True)
class TrackRequest:
    """What a person asked for on the command line.

    Attributes:
        model: its name; where it is empty, the request decides: nano-memory follows what is pointed at, nano reads
            words about drawn footage, and the best preset on this machine reads those about any other.
    """

    source: str
    instructions: tuple[str, ...] = ()
    model: str = ""
    output: Path | None = None
    formats: tuple[str, ...] = ("jsonl",)
    device: str = "auto"
    execution: dict[str, Any] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    rethink: str = "auto"
    guess: bool = False
    lookahead: Lookahead | None = None
    overwrite: bool = False
    strict: bool = False
    quiet: bool = False
    as_json: bool = False
    pointing: Pointing = Pointing()
    script: SpokenScript = SpokenScript()
    on_ambiguous: str = "best"
    settings: tuple[str, ...] = ()

    @property
    def words(self) -> bool:
        """Something is said in words."""
        return bool(self.instructions) or any(each.text for each in self.script.said)

    @property
    def shown(self) -> bool:
        """Something is pointed at."""
        return bool(self.pointing) or any(each.how.get("visual") for each in self.script.said)

    @property
    def first_choice(self) -> str:
        """The model to load first."""
        from trackgpt.hub import NANO_MEMORY

        return self.model or (NANO_MEMORY if self.shown else "nano")


@dataclass
class RunSummary:
    """What a run has come to so far; it is filled while frames come, so that it holds after any failure too."""

    out: Path
    frames: int = 0
    rethinks: int = 0
    warnings: int = 0
    found: bool = False
    said: str = ""
    scores: float = 0.0
    scored: int = 0

    def count(self, record: TrackRecord) -> None:
        """Take a frame's scores into the mean."""
        known = [item.score for item in record.objects if item.score is not None]
        self.scores, self.scored = self.scores + sum(known), self.scored + len(known)

    @property
    def line(self) -> str:
        """The `key=value` line that ends stdout; the score is the mean over frames and objects."""
        score = self.scores / self.scored if self.scored else math.nan
        counts = f"frames={self.frames} rethinks={self.rethinks} score={score:.3f} warnings={self.warnings}"
        return f"{counts} out={self.out}"


def run(request: TrackRequest, work: Callable[[TrackRequest, RunSummary], None] | None = None) -> int:
    """Track, write, and end stdout with one `key=value` line; returns the exit code.

    Args:
        request: what to do.
        work: does it, keeping count; `track` by default.

    Raises:
        TrackGPTError: see the error table; what was written before stays valid.
    """
    from trackgpt.export.records import STATE

    outcome = RunSummary(request.output or Path("runs"))
    try:
        (work or track)(request, outcome)
    except (KeyboardInterrupt, TerminatedError) as stop:
        kept = f"{outcome.frames} frames are kept in {outcome.out}" if outcome.frames else "nothing was tracked yet"
        if outcome.frames and (outcome.out / STATE).is_file():
            kept += ", and --resume goes on"
        raise InterruptedRunError(kept, isinstance(stop, TerminatedError)) from None
    finally:
        if outcome.frames:
            print(outcome.line, flush=True)
    if not outcome.found:
        what = f"nothing matched {outcome.said!r}" if outcome.said else "no instruction was read"
        raise NothingFoundError(f"{what} on any of {outcome.frames} frames", "NL05")
    return 1 if request.strict and outcome.warnings else 0


def track(request: TrackRequest, outcome: RunSummary, tracker: InstructionTracker | None = None) -> None:
    """Do what was asked, keeping count in `outcome`. Cheap refusals come first, the run folder is made last.

    Args:
        request: what to do.
        outcome: its folder is the one written to; where none was asked for, it is made here.
        tracker: a loaded model; by default the request's is loaded.
    """
    spoken = checked(request)
    with ExitStack() as stack:
        _follow(request, opened(request, spoken, outcome, stack, tracker), spoken, outcome)


def opened(
    request: TrackRequest,
    spoken: Sequence[TimedInstruction],
    outcome: RunSummary,
    stack: ExitStack,
    tracker: InstructionTracker | None = None,
) -> Playback:
    """The source and the model of a request, ready to be told what to follow, with what is to be said refused before.

    Args:
        request, outcome, tracker: see `track`.
        spoken: what is to be said.
        stack: closes what is opened.
    """
    import cv2

    from trackgpt.export.exporting import check_space, estimate
    from trackgpt.export.records import refuse_taken
    from trackgpt.files import refuse_to_hold
    from trackgpt.session.playback import Playback, files_of
    from trackgpt.video.source import open_source

    cv2.setNumThreads(1)  # frames are too small to gain by threads, which PyTorch's then wait for
    if request.output is not None:
        refuse_to_hold(outcome.out, files_of(request.source))
        refuse_taken(outcome.out, request.overwrite)
    reading = {key: value for key, value in request.reading.items() if value is not None}
    source: FrameSource | None = None
    if not _is_live(request.source):
        source = stack.enter_context(open_source(request.source, **reading))
        check_space(outcome.out, estimate(source.frames_hint or 0, *source.size, request.formats))
        _refuse_misplaced(request, spoken, source)
    tracker = tracker or loaded(request, request.first_choice)
    _refuse_impossible(request, tracker, spoken)
    if source is None:
        source = stack.enter_context(open_source(request.source, **reading))
        _refuse_misplaced(request, spoken, source)
    if not (request.guess or request.shown):
        tracker = _for_its_world(request, tracker, source)
    if request.output is None:
        outcome.out = next_folder(request.source)
    how = request.overwrite, request.rethink, request.lookahead
    return stack.enter_context(Playback(tracker, source, outcome.out, *how, reopen=(request.source, reading)))


def _follow(request: TrackRequest, playback: Playback, spoken: Sequence[TimedInstruction], outcome: RunSummary) -> None:
    from trackgpt.app.live import Outputs, Printer

    printer = Printer(request.quiet, request.as_json)
    playback.session.on_event = printer.event
    playback.session.on_choice = answering(request.on_ambiguous, printer, playback.run.path)
    playback.describe(**written_request(request))
    with Outputs(playback, request.formats, _sound(request, playback), printer.note) as outputs:
        for words in spoken:
            playback.say(words.text, words.frame, words.second, **words.how)
        watch(playback, outputs, printer, outcome)


def written_request(request: TrackRequest) -> dict[str, Any]:
    """What run.json keeps of a request, so that it can go on (`trackgpt.app.resuming`)."""
    from trackgpt.settings import to_dict
    from trackgpt.video.frames import sha256

    files = [*files_in(request.pointing), *([Path(request.script.path)] if request.script.path else [])]
    return {
        "given": request.source,
        "formats": list(request.formats),
        "instructions": list(request.instructions),
        "script": request.script.path,
        "pointing": to_dict(request.pointing),
        "files": {str(file): sha256([file], with_names=False) for file in files if file.is_file()},
        "reading": request.reading,
        "rethink": request.rethink,
        "on_ambiguous": request.on_ambiguous,
        "settings": list(request.settings),
        "guess": request.guess,
        "device": request.device,
        "execution": request.execution,
        "lookahead": None if request.lookahead is None else to_dict(request.lookahead),
    }


def watch(playback: Playback, outputs: Outputs, printer: Printer, outcome: RunSummary) -> None:
    """Track to the end: write, print and count every frame, and keep from where the run can go on."""
    from trackgpt.app.live import progress
    from trackgpt.session.resuming import Keeper

    session = playback.session
    with progress(playback.source.frames_hint, printer.quiet, printer=printer) as advance, Keeper(playback) as keeper:
        for result in playback:
            outputs.write(result)
            keeper.keep()
            for each in (*result.revised, result):
                printer.frame(each.record)
            advance(result)
            outcome.count(result.record)
            outcome.frames = session.frames
            outcome.rethinks, outcome.warnings = session.rethinks, session.warnings
    outcome.warnings, outcome.found = session.warnings, session.found
    outcome.said = session.prompts[-1].summary if session.prompts else ""


def checked(request: TrackRequest) -> list[TimedInstruction]:
    """The instructions with their moments; refuses what can be refused before anything is opened.

    Raises:
        UsageError: an unknown format or choice; NL01; nothing to track; two instructions for one moment; words and
            pointing for a shipped model, each of which takes one of the two; see also `read_pointing`.
        InputError: see `read_pointing`.
    """
    from trackgpt.export.exporting import check_formats
    from trackgpt.hub import NANO_MEMORY, REASONINGTRACK
    from trackgpt.reasoners.templates import clean_instruction

    check_formats(request.formats)
    check_way(request.on_ambiguous)
    if request.rethink not in ("auto", "off", "async"):
        raise UsageError(f"--rethink {request.rethink}: choose auto, off or async")
    if request.rethink == "async" and not _is_live(request.source):
        raise UsageError("--rethink async is for cameras and streams, which do not wait; leave it out for files")
    if not request.instructions and not request.pointing and not request.script.said:
        raise UsageError("nothing to track: say it, -i 'the red car', or point at it, --box x,y,w,h (see --help)")
    spoken = [parse_instruction(text) for text in request.instructions] + list(request.script.said)
    worded = [words for words in spoken if not words.how]
    for words in worded:
        clean_instruction(words.text)
    moments = [(words.frame or 0, words.second) for words in worded]
    for words, moment in zip(worded, moments, strict=True):
        if moments.count(moment) > 1:
            raise UsageError(
                f"{words.given} is one of two instructions for the same frame; give the others a frame "
                "(-i '240: the dog') or name all targets in one instruction"
            )
    shown = read_pointing(request.pointing, int(request.reading.get("start") or 0))
    if request.words and request.shown and request.first_choice in ("nano", NANO_MEMORY):
        raise UsageError(
            f"{request.first_choice} takes words or pointing, and both were given; leave one of them out "
            f"(-m nano is told in words, -m {NANO_MEMORY} is shown the target), or give a --grounder, which takes both"
        )
    first = min((words.frame or 0 for words in spoken if words.second is None), default=math.inf)
    if request.model.startswith(REASONINGTRACK):
        spoken, shown = _together(spoken, shown, int(request.reading.get("start") or 0))
    for each, second in shown:
        beside = second is None and first <= each.frame  # what words have begun goes on
        how = {"kind": "add" if beside else each.kind, "ids": each.ids, "visual": each.visual}
        spoken.append(TimedInstruction("", each.frame if second is None else None, second, how))
    return spoken


def _together(
    spoken: list[TimedInstruction], shown: list[tuple[Prompt, float | None]], first: int
) -> tuple[list[TimedInstruction], list[tuple[Prompt, float | None]]]:
    """Words and a box for the same moment as one instruction: a box tracker that reads is told both of one target.

    Args:
        spoken: in words, or of a script.
        shown: each with its second, or None where its frame says it.
        first: the frame of words without a moment.
    """
    joined, left = [], list(shown)
    for words in spoken:
        at = (None if words.second is not None else first if words.frame is None else words.frame, words.second)
        beside = [one for one in left if at == (one[0].frame if one[1] is None else None, one[1])]
        if words.how or not beside:
            joined.append(words)
            continue
        prompt = beside[0][0]
        left.remove(beside[0])
        how = {"kind": prompt.kind, "ids": prompt.ids, "visual": prompt.visual}
        joined.append(TimedInstruction(words.text, words.frame, words.second, how))
    return joined, left


def _refuse_misplaced(request: TrackRequest, spoken: Sequence[TimedInstruction], source: FrameSource) -> None:
    """Refuse what is shown outside of the frames of a source, whose frames are all of one size unless gaps are allowed.

    Raises:
        UsageError: there is no such frame, or what is shown does not fit it.
    """
    from trackgpt.geometry.pointing import refuse_misplaced
    from trackgpt.types import Prompt

    shown = [words for words in spoken if words.how]
    certain = source.kind in ("folder", "animation")  # the header of a video may lie
    frames = [words.frame for words in shown if words.frame is not None]
    refuse_missing_frames(frames, request.reading, source.frames_hint if certain else None)
    for words in shown if all(source.size) and not request.reading.get("allow_gaps") else ():
        if "choose" in words.how:
            continue
        try:
            refuse_misplaced(Prompt("", **words.how), source.size)
        except UsageError as error:
            when = f"frame {words.frame}" if words.second is None else f"second {words.second:g}"
            raise error.at(when) from error


def _refuse_impossible(request: TrackRequest, tracker: InstructionTracker, spoken: Sequence[TimedInstruction]) -> None:
    """Refuse what the model cannot do, before a run folder is made.

    Raises:
        UsageError: it reads no words, or cannot be pointed at; NL01, NL02.
    """
    session = _begun(request, tracker, request.first_choice)
    for words in spoken:
        if "choose" in words.how:
            continue  # among what has not been found yet
        prompt = session.read(words.text, **{"kind": "start"} | dict(words.how))
        try:
            if prompt.kind != "drop" and all(shown.finds for shown in prompt.visual):
                session.refuse(replace(prompt, kind="start"))
        except UsageError as error:
            both = f"{request.first_choice} takes words or pointing, and both were given" if request.shown else ""
            raise error.at(both) if both and request.words else error from error


def _begun(request: TrackRequest, tracker: InstructionTracker, name: str) -> Session:
    """A session of a tracker.

    Raises:
        UsageError: it has no such setting.
    """
    try:
        return tracker.session()
    except UsageError as error:
        raise error.at(f"--set of {name}") if request.settings else error from error


def loaded(request: TrackRequest, model: str) -> InstructionTracker:
    """The model of that name, as the request wants it to run."""
    from trackgpt.session.playback import InstructionTracker

    return InstructionTracker.from_pretrained(model, request.device, request.settings, **request.execution)


def _for_its_world(request: TrackRequest, tracker: InstructionTracker, source: FrameSource) -> InstructionTracker:
    """A tracker that may know footage of this kind, by the first image of the source.

    Models that do not say what their world looks like (see `trackgpt.perception.known_world`) are taken as they are.

    Returns:
        The tracker itself; where it was not asked for by name and the footage is unlike its world, the best preset on
        this machine.

    Raises:
        UsageError: the footage is unlike all that the model was trained on; the line says what to do instead.
    """
    from trackgpt.app.live import say
    from trackgpt.perception.known_world import MOST_UNLIKE
    from trackgpt.presets import best_here
    from trackgpt.systems.imat import Imat
    from trackgpt.systems.qtrack import QTrack
    from trackgpt.systems.reasoningtrack import ReasoningTrack
    from trackgpt.systems.trackgpt import TrackGPT

    judges = TrackGPT | Imat | QTrack | ReasoningTrack
    found = tracker.model.unlikeness(source.first) if isinstance(tracker.model, judges) else None
    if found is None or found <= MOST_UNLIKE:
        return tracker
    if not request.model and (preset := best_here()) is not None:
        if not request.quiet:
            say(f"{source.name}: no drawn scene, so {preset.name} reads the words; -m chooses another model")
        other = loaded(request, preset.name)
        _begun(request, other, preset.name)
        return other
    name = shlex.quote(request.source)
    raise UsageError(
        f"{source.name}: {request.first_choice} was trained on drawn scenes alone and this footage is unlike them "
        f"(unlikeness {found:.2f}, wanted at most {MOST_UNLIKE:g}); for words, give a detector: trackgpt track {name} "
        f"-i 'the dog' --grounder FILE.onnx, or fetch models: trackgpt models pull small; or show the target: -m "
        f"nano-memory --box 1:x,y,w,h; --guess goes on"
    )


def next_folder(source: str) -> Path:
    """Make runs/NAME-1, or the next number that is free: two runs that begin at once get two folders.

    Raises:
        OutputError: OUT02.
    """
    from trackgpt.files import writing

    name = "stdin" if source == "-" else source.rstrip("/")
    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem) or "stream"
    for number in itertools.count(1):
        folder = Path("runs") / f"{stem}-{number}"
        with writing(folder), suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


def _is_live(source: str) -> bool:
    """A camera or a stream: frames pile up while the model loads, so it is opened last."""
    return "://" in source or (source.isdigit() and not Path(source).exists())


def _sound(request: TrackRequest, playback: Playback) -> Path | None:
    """The file to take the sound from: a video whose own clock is used."""
    file = Path(request.source).expanduser()
    fits = playback.source.kind == "file" and request.reading.get("fps") is None and file.is_file()
    return file if fits else None
