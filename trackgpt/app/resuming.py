"""`trackgpt track SOURCE --resume RUN`: a run that was cut goes on, and ends as if it had not been cut.

What was asked for is read from run.json. An option that is given again must say the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackgpt.app.choosing import answering
from trackgpt.app.instructions import SpokenScript, read_script
from trackgpt.app.live import Outputs, Printer, say
from trackgpt.app.pointing import Pointing
from trackgpt.app.repairing import FILES, facts_of, make_missing
from trackgpt.app.tracking import RunSummary, TrackRequest, checked, loaded, run, watch
from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.export.davis import DavisWriter
from trackgpt.export.records import MASKS, RunFolder, plain, read_events, read_tracks, refuse_a_live_run
from trackgpt.files import writing
from trackgpt.session.ahead import Lookahead
from trackgpt.session.playback import PlannedPrompt, Playback
from trackgpt.session.resuming import Mark, read_mark
from trackgpt.settings import to_dict
from trackgpt.version import __version__
from trackgpt.video.frames import sha256
from trackgpt.video.source import open_source

if TYPE_CHECKING:
    from trackgpt.video.frames import FrameSource

FREE = ("source", "resume", "offline", "strict", "quiet", "as_json")
"""Parameters of the command that do not have to be as in the first run."""
ELSEWHERE = ("output", "overwrite")
FIELDS = {"instruction": "instructions", "format": "formats", "set": "settings"} | dict.fromkeys(
    ("perception", "grounder"), "model"
)
FIELDS |= dict.fromkeys(("batch", "ahead"), "lookahead")
"""Fields of a request that parameters of other names go into."""


def first_request(folder: Path, facts: Mapping[str, Any]) -> TrackRequest:
    """The request of a run, by its run.json.

    Raises:
        UsageError: the run was a chat.
        InputError: it is no description of a run of `trackgpt track`, or its script cannot be read.
        OutputError: OUT03, a file that it names has changed.
    """
    if facts.get("chat"):
        raise UsageError(f"{folder}: was a chat, whose words are in its log; say them again with --script {folder}")
    try:
        for name, known in facts["files"].items():
            if sha256([Path(name)], with_names=False) != known:
                raise _changed(f"{name}: is not what it was when {folder} began")
        return TrackRequest(
            source=str(facts["given"]),
            instructions=tuple(facts["instructions"]),
            script=read_script(Path(facts["script"])) if facts["script"] else SpokenScript(),
            pointing=Pointing(**{name: tuple(values) for name, values in facts["pointing"].items()}),
            model=str(facts["model"]["name"]),
            output=folder,
            formats=tuple(facts["formats"]),
            device=str(facts["device"]),
            execution=dict(facts["execution"]),
            reading=dict(facts["reading"]),
            rethink=str(facts["rethink"]),
            on_ambiguous=str(facts["on_ambiguous"]),
            settings=tuple(facts["settings"]),
            guess=bool(facts["guess"]),
            lookahead=None if facts["lookahead"] is None else Lookahead(**facts["lookahead"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{folder}: run.json is of no run that can go on ({what}); wanted one of trackgpt track"
        ) from error


def resume(folder: Path, asked: TrackRequest, given: Collection[str]) -> int:
    """Go on with a run; gives the exit code.

    Args:
        folder: of the run.
        asked: what the command line says.
        given: names of the parameters that were given on it.

    Raises:
        UsageError: an option says something else than the first run, or the run is complete.
        OutputError: OUT01, it is being written; OUT03, it cannot go on from what is there.
        InputError: the folder holds no run, or a damaged one.
    """
    facts = facts_of(folder)
    refuse_a_live_run(folder)
    first = first_request(folder, facts)
    _refuse_contradictions(first, asked, given)
    request = replace(first, source=asked.source, strict=asked.strict, quiet=asked.quiet, as_json=asked.as_json)
    if facts.get("trackgpt") != __version__:
        raise _changed(f"{folder}: is of trackgpt {facts.get('trackgpt')}, and this is {__version__}")
    if any(event.type == "done" for event in read_events(folder)):
        raise UsageError(f"{folder}: this run is complete; trackgpt repair makes what it lacks")
    mark = read_mark(folder)
    if mark is None:
        say(f"{folder}: no state was saved before the run was cut, so it starts over")
        return run(replace(request, overwrite=True))
    return run(request, partial(_go_on, facts=facts, mark=mark))


def _refuse_contradictions(first: TrackRequest, asked: TrackRequest, given: Collection[str]) -> None:
    for name in given:
        option = f"--{name.strip('_').replace('_', '-')}"
        if name in ELSEWHERE:
            raise UsageError(f"{option} beside --resume, which goes on in the run's own folder; leave it out")
        if name in FREE:
            continue
        then, now = _said(first, name), _said(asked, name)
        if then != now:
            raise UsageError(f"{option}: the run began with {_shown(then)}, not {_shown(now)}; leave it out to go on")


def _said(request: TrackRequest, name: str) -> Any:
    """What a parameter of the command says, in a request."""
    name = name.strip("_")
    for held in (request.reading, request.execution, vars(request.pointing)):
        if name in held:
            return held[name]
    value = getattr(request, FIELDS.get(name, name))
    return value.path if isinstance(value, SpokenScript) else value


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value or "none")


def _go_on(request: TrackRequest, outcome: RunSummary, facts: Mapping[str, Any], mark: Mark) -> None:
    spoken = checked(request)
    folder = outcome.out
    tracker = loaded(request, request.model)
    if plain(to_dict(tracker.model.config)) != facts["model"].get("config"):
        raise _changed(f"{request.model}: is not the model that {folder} began with")
    reading = {key: value for key, value in request.reading.items() if value is not None}
    with ExitStack() as stack:
        source = stack.enter_context(_opened(request, reading, facts, mark))
        part = RunFolder.reopened(folder, mark.ends)
        playback = stack.enter_context(
            Playback(tracker, source, part, False, request.rethink, request.lookahead, (request.source, reading))
        )
        playback.go_on(mark, [_planned(playback, words) for words in spoken])
        for record in read_tracks(folder):
            outcome.count(record)
        outcome.frames = playback.session.frames
        _clear(folder, request.formats)
        say(f"going on after frame {mark.frame}")
        printer = Printer(request.quiet, request.as_json)
        playback.session.on_event = printer.event
        playback.session.on_choice = answering(request.on_ambiguous, printer, folder)
        formats = [name for name in request.formats if name != "mp4"]
        with Outputs(playback, formats, None, printer.note) as outputs:
            watch(playback, outputs, printer, outcome)
    if "mp4" in request.formats:
        make_missing(folder, {**facts, "given": request.source}, "")
        printer.note("video.mp4 was made anew from the log, without sound")


def _opened(request: TrackRequest, reading: dict[str, Any], facts: Mapping[str, Any], mark: Mark) -> FrameSource:
    """The source from the frame of the mark or a little before it: frames are encoded in the same batches."""
    start, stride = int(reading.get("start", 0)), int(reading.get("stride", 1))
    known = facts["source"]
    batch = 1 if request.lookahead is None else request.lookahead.batch
    begin = start + (mark.frame - start) // stride // batch * batch * stride
    source = open_source(request.source, **{**reading, "start": begin})
    if not source.rereadable or source.digest() != known.get("sha256"):
        source.close()
        raise _changed(f"{request.source}: is not the source that {request.output} began with")
    return source


def _planned(playback: Playback, words: Any) -> PlannedPrompt:
    choose = words.how.get("choose")
    summary = playback.session.read(words.text, **words.how).summary if choose is None else f"choose {choose}"
    frame = words.frame if words.frame is not None or words.second is not None else 0
    return PlannedPrompt(words.text, dict(words.how), summary, frame, words.second)


def _clear(folder: Path, formats: Collection[str]) -> None:
    """Remove outputs that end too early, and make masks that the log knows of and a killed run did not write."""
    with writing(folder):
        for name in (*FILES.values(), "video.part.mp4"):
            if name != MASKS:
                (folder / name).unlink(missing_ok=True)
    if "davis" in formats:
        masks = DavisWriter(folder / MASKS)
        for record in read_tracks(folder):
            if not (masks.folder / record.mask_name).is_file():
                masks.write(record, *record.size)


def _changed(what: str) -> OutputError:
    return OutputError(f"{what}, so the run cannot go on; start again with --overwrite", "OUT03")
