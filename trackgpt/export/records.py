"""The run folder and its log: one line per frame, one line per event, and every other format is made from them.

    run.json       what ran on what, replaced as a whole
    tracks.jsonl   one line per frame: {"v":3,"take":1,"i":240,"t":8.0,"size":[480,854],"objs":[{"id":1,
                   "box":[x1,y1,x2,y2],"rle":"...","score":0.84,"state":"tracked","purport":0.84}]}; after "state" come
                   the system's own scores; an undecodable frame also has "problem", the first frame of a later take
                   also "parent", the take it goes on from; a frame that has a file of its own also has its "name"
    events.jsonl   one line per event: {"v":3,"seq":3,"take":1,"i":240,"t":8.0,"type":"rethink","reason":"purport", ...}
                   instructions as in `trackgpt.export.prompts`

    state.safetensors   of a run that is not done: the track's state after some frame, and how long the two files above
                   were then, from where `trackgpt track --resume` goes on

A take is one way through the video. A correction of what is past opens a new take and overwrites nothing: the new take
shows the frames of its parent up to its own first one. So does an answer that came late, with an event "revise".
Version 2, whose instructions had no "visual", and version 1, which had one take and "purport" in the place of "score",
are still read.

A line is written whole or not at all, and holds no wall-clock value, so that equal runs give equal bytes.
Boxes are xyxy pixels of the frame with edges; "i" counts frames of the source from 0; "t" is seconds of the source.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from trackgpt.errors import InputError, OutputError, UsageError
from trackgpt.files import refuse_existing, refuse_strangers, refuse_to_hold, write_whole, writing
from trackgpt.geometry.masks import check_rle, decode_rle, encode_rle
from trackgpt.types import Box, Prediction

State = Literal["tracked", "suspect", "absent"]
EventType = Literal[
    "start",
    "instruction",
    "answer",
    "choice",
    "rethink",
    "revise",
    "lost",
    "found",
    "undo",
    "take",
    "warn",
    "error",
    "done",
]
STATES: tuple[str, ...] = get_args(State)
NEEDED: dict[str, tuple[str, ...]] = {
    "start": (),
    "instruction": ("text",),
    "answer": ("text",),
    "choice": ("text", "boxes"),
    "rethink": ("reason", "old", "new"),
    "revise": ("first", "last"),
    "lost": (),
    "found": (),
    "undo": ("text",),
    "take": ("parent",),
    "warn": ("text",),
    "error": ("text",),
    "done": (),
}
"""The fields that an event of each type has besides the common ones; it may have more."""
EXACT = ("visual", "offered")
"""Fields of events whose numbers are not rounded, since what was shown may be shown again."""
COMMON = ("v", "seq", "take", "i", "t", "type", "id")
OF_OBJECT = ("id", "box", "rle", "score", "state")
"""Fields of an object; every other one is a score of the system's own."""
VERSION = 3
LARGEST = 2**53
"""No number of a log is larger: what JSON readers keep exactly."""
READABLE = (1, 2, 3)
TRACKS, EVENTS, RUN, MASKS = "tracks.jsonl", "events.jsonl", "run.json", "masks"
STATE, PICTURE = "state.safetensors", "picture.png"
VIDEOS = ("video.mp4", "video.part.mp4", "video.finished.mp4")
"""The overlay, and what a video that was cut short leaves (`trackgpt.video.writer`)."""
SEQUENCE = ("groundtruth.txt", "description.txt", "switch.txt", "meta_info.ini")
"""A run as a sequence of InteractTrack (`trackgpt.export.interacttrack`)."""
MADE_HERE = (TRACKS, EVENTS, RUN, STATE, PICTURE, *VIDEOS, *SEQUENCE, "coco.json", "mot.txt", "timeline.png")

R = TypeVar("R")


@dataclass(frozen=True)
class ObjectRecord:
    """One object on one frame.

    Attributes:
        id: stable over the run, from 1.
        box: x1, y1, x2, y2 in pixels, or None when absent.
        rle: COCO's compressed run lengths of the mask, or None when absent or tracked by box alone.
        score: how much the system trusts it, in [0, 1], or None when it does not say.
        state: "tracked", "suspect" (below the threshold) or "absent" (not on this frame).
        own_scores: the system's own scores by name, e.g. "purport".
    """

    id: int
    box: Box | None = None
    rle: str | None = None
    score: float | None = None
    state: State = "tracked"
    own_scores: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class TrackRecord:
    """One frame of a run.

    Attributes:
        index: of the source frame, from 0.
        time: seconds of the source.
        size: height and width of the frame in pixels.
        objects: what is tracked on it, present or not.
        problem: why the frame could not be read, else "".
        take: which way through the video it belongs to, from 1.
        parent: on the first frame of a later take, the take it goes on from; else 0.
        name: of the frame's own file, where it has one ("00005.jpg"), else "".
    """

    index: int
    time: float
    size: tuple[int, int]
    objects: tuple[ObjectRecord, ...] = ()
    problem: str = ""
    take: int = 1
    parent: int = 0
    name: str = ""

    def to_json(self) -> str:
        """One line without its end; equal records give equal text."""
        objects = [
            {"id": o.id, "box": o.box, "rle": o.rle, "score": o.score, "state": o.state, **o.own_scores}
            for o in self.objects
        ]
        values = {"v": VERSION, "take": self.take, "i": self.index, "t": self.time, "size": self.size, "objs": objects}
        values |= {"problem": self.problem} if self.problem else {}
        values |= {"parent": self.parent} if self.parent else {}
        return _dump(values | ({"name": self.name} if self.name else {}))

    @classmethod
    def from_json(cls, line: str | bytes) -> TrackRecord:
        """Read what `to_json` wrote, in this version or an older one.

        Raises:
            InputError: the line is no such record; the message says what was wanted.
        """
        values = _parse(line)
        size = _pick(values, "size", _is_size, "[height, width], two whole numbers above 0")
        objects = _pick(values, "objs", lambda v: isinstance(v, list), "a list of objects")
        return cls(
            index=_pick(values, "i", _is_index, "a whole number from 0"),
            time=float(_pick(values, "t", _is_number, "seconds")),
            size=(size[0], size[1]),
            objects=tuple(_object_from(o, size, values["v"]) for o in objects),
            problem=_pick({"problem": ""} | values, "problem", lambda v: isinstance(v, str), "a text"),
            take=_take_from(values),
            parent=_pick({"parent": 0} | values, "parent", _is_index, "a whole number from 0"),
            name=_pick({"name": ""} | values, "name", _is_name, "a file's name without a folder"),
        )

    @property
    def mask_name(self) -> str:
        """The file of the frame's mask in masks/: named as the frame's own file, else by its index."""
        return f"{PurePath(self.name).stem if self.name else f'{self.index:05d}'}.png"

    def masks(self) -> np.ndarray:
        """The masks of all objects, bool (objects, height, width); empty where an object is absent."""
        height, width = self.size
        masks = np.zeros((len(self.objects), height, width), bool)
        for mask, item in zip(masks, self.objects):
            if item.rle is not None:
                mask[:] = decode_rle(item.rle, height, width)
        return masks


@dataclass(frozen=True)
class EventRecord:
    """Something that happened in a run.

    Attributes:
        seq: counts the events of a run from 0.
        index: of the source frame it belongs to.
        time: seconds of the source.
        type: see `NEEDED`.
        id: of the object concerned, or None.
        data: the other fields, in the order they are written.
        take: which way through the video it belongs to, from 1.
    """

    seq: int
    index: int
    time: float
    type: EventType
    id: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    take: int = 1

    @classmethod
    def of(
        cls,
        seq: int,
        type: EventType,  # noqa: A002 - the names of the file's fields
        index: int,
        time: float,
        take: int = 1,
        id: int | None = None,  # noqa: A002
        **data: Any,
    ) -> EventRecord:
        """An event as the log keeps it.

        Args:
            seq: its number in the run.
            type: see `NEEDED`, which also says what `data` must hold.
            index: of the source frame.
            time: seconds of the source.
            take: see the class.
            id: of the object concerned.
            data: further fields; arrays become lists, floats keep four decimals but for those of `EXACT`, what is not
                finite becomes null.

        Raises:
            UsageError: a field is missing or has a reserved name.
        """
        if type not in NEEDED:
            raise UsageError(f"event type {type!r} does not exist; wanted one of {', '.join(NEEDED)}")
        missing, reserved = set(NEEDED[type]) - data.keys(), data.keys() & set(COMMON)
        if missing or reserved:
            raise UsageError(f"event {type!r}: missing fields {sorted(missing)}, reserved fields {sorted(reserved)}")
        kept = {key: plain(value, None if key in EXACT else 4) for key, value in data.items()}
        return cls(seq, int(index), _rounded(time, 6), type, None if id is None else int(id), kept, take)

    def to_json(self) -> str:
        """One line without its end; equal records give equal text."""
        values: dict[str, Any] = {"v": VERSION, "seq": self.seq, "take": self.take}
        values |= {"i": self.index, "t": self.time, "type": self.type}
        if self.id is not None:
            values["id"] = self.id
        return _dump(values | dict(self.data))

    @classmethod
    def from_json(cls, line: str | bytes) -> EventRecord:
        """Read what `to_json` wrote.

        Raises:
            InputError: the line is no such record; the message says what was wanted.
        """
        values = _parse(line)
        kind = _pick(values, "type", lambda v: isinstance(v, str) and v in NEEDED, "one of " + ", ".join(NEEDED))
        for key in NEEDED[kind]:
            _pick(values, key, lambda v: True, f"a value, as {kind} events have")
        return cls(
            seq=_pick(values, "seq", _is_index, "a whole number from 0"),
            index=_pick(values, "i", _is_index, "a whole number from 0"),
            time=float(_pick(values, "t", _is_number, "seconds")),
            type=kind,
            id=_pick({"id": None} | values, "id", lambda v: v is None or _is_id(v), "a whole number from 1"),
            data={k: v for k, v in values.items() if k not in COMMON},
            take=_take_from(values),
        )


class RunFolder:
    """A run folder being written; use it in a `with` block. One writer at a time.

    Args:
        path: the folder; made when absent, with its parents.
        overwrite: replace the run that is there. Only files that this package writes are removed.
        reads: files and folders that the run is made from, which must not lie in the folder.

    Raises:
        OutputError: OUT01, the folder holds something and `overwrite` is off, or what it holds is no run, or the run
            is made from it; OUT02, it cannot be written.
    """

    def __init__(self, path: str | Path, overwrite: bool = False, reads: Iterable[Path] = ()) -> None:
        self.path = Path(path)
        refuse_to_hold(self.path, reads)
        _take_over(self.path, overwrite)
        self._tracks = _Log(self.path / TRACKS)
        self._events = _Log(self.path / EVENTS)

    @classmethod
    def reopened(cls, path: str | Path, ends: tuple[int, int]) -> RunFolder:
        """Go on writing a run that was cut.

        Args:
            path: the folder.
            ends: how long its log was (see `ends`); what came later is cut off.

        Raises:
            OutputError: OUT01, another process is writing there; OUT02, it cannot be written.
            InputError: the log is shorter than that.
        """
        run = cls.__new__(cls)
        run.path = Path(path)
        refuse_a_live_run(run.path)
        run._tracks = _Log(run.path / TRACKS, ends[0])
        run._events = _Log(run.path / EVENTS, ends[1])
        return run

    @property
    def ends(self) -> tuple[int, int]:
        """How long tracks.jsonl and events.jsonl are now, in bytes."""
        return self._tracks.end, self._events.end

    def track(self, record: TrackRecord) -> None:
        """Append one frame; it is in the file when this returns.

        Raises:
            OutputError: OUT02; the lines before it stay whole.
        """
        self._tracks.append(record.to_json())

    def event(self, record: EventRecord) -> None:
        """Append one event, as `track` does."""
        self._events.append(record.to_json())

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Replace run.json as a whole: a reader finds the old or the new one, never half of one.

        Raises:
            OutputError: OUT02; the old run.json stays.
        """
        text = json.dumps(plain(facts), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        write_whole(self.path / RUN, [text, "\n"])

    def close(self) -> None:
        """Close the files; harmless when done twice."""
        self._tracks.close()
        self._events.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def record_of(
    index: int,
    time: float,
    size: tuple[int, int],
    prediction: Prediction,
    states: Sequence[State] | None = None,
) -> TrackRecord:
    """What the log keeps of a prediction.

    Args:
        index: of the source frame, from 0.
        time: seconds of the source.
        size: height and width of the frame in pixels.
        prediction: K objects; boxes are rounded to 2 decimals, scores to 4, the time to 6.
        states: K states, or None: "tracked" where present, "absent" elsewhere.

    Raises:
        UsageError: the states are not K, or call an object tracked that is not present.
    """
    guessed: list[State] = ["tracked" if present else "absent" for present in prediction.present]
    given = guessed if states is None else states
    if len(given) != len(prediction.ids):
        raise UsageError(f"frame {index}: {len(given)} states for {len(prediction.ids)} objects; wanted one each")
    objects = tuple(_object_of(prediction, k, state) for k, state in enumerate(given))
    return TrackRecord(index, _rounded(time, 6), size, objects)


def _object_of(prediction: Prediction, k: int, state: State) -> ObjectRecord:
    number, score = int(prediction.ids[k]), _score(prediction.scores[k])
    own = {name: _score(values[k]) for name, values in prediction.own_scores.items()}
    if not prediction.present[k]:
        if state != "absent":
            raise UsageError(f"object {number} is called {state} but is not present; wanted absent")
        return ObjectRecord(number, None, None, score, state, own)
    x1, y1, x2, y2 = (_rounded(v, 2) for v in prediction.boxes[k])
    box = (x1, y1, x2, y2) if math.isfinite(x1 + y1 + x2 + y2) else None
    mask = None if prediction.masks is None else prediction.masks[k]
    rle = encode_rle(mask) if mask is not None and mask.any() else None
    return ObjectRecord(number, box, rle, score, state, own)


def _score(value: float) -> float | None:
    return _rounded(value, 4) if math.isfinite(value) else None


# --- reading ---


@dataclass(frozen=True)
class Take:
    """One way through the video.

    Attributes:
        number: from 1.
        parent: the take it goes on from, 0 for the first.
        start: index of its own first frame; the frames before it are its parent's.
    """

    number: int
    parent: int = 0
    start: int = 0


def read_takes(path: str | Path) -> list[Take]:
    """The takes of a run in the order in which they were opened; `path` and errors as in `read_tracks`."""
    found: dict[int, Take] = {}
    for number, begun in _read(path, TRACKS, _take_of_line):
        if begun.number not in found:
            if found and begun.parent not in found:
                raise InputError(f"{path}, line {number}: take {begun.number} has no parent among the lines before it")
            found[begun.number] = begun
    return list(found.values())


def _take_of_line(line: bytes) -> Take:
    """The take that a frame would begin, if it is its first one; the rest of the line is not looked at."""
    values = _parse(line)
    parent = _pick({"parent": 0} | values, "parent", _is_index, "a whole number from 0")
    return Take(_take_from(values), parent, _pick(values, "i", _is_index, "a whole number from 0"))


def read_tracks(path: str | Path, take: int | None = None) -> Iterator[TrackRecord]:
    """The frames of a take, its parents' before its own, in order and one at a time.

    Args:
        path: a run folder, or its tracks.jsonl. A last line that was cut (a killed run) is left out.
        take: its number; by default the last one that was opened.

    Raises:
        InputError: the file is missing, or a line is malformed; the message names file, line and what was wanted.
        UsageError: there is no such take.
    """
    until, last = _ends(path, take), -1
    for number, record in _read(path, TRACKS, TrackRecord.from_json):
        if record.take not in until or record.index >= until[record.take]:
            continue
        if record.index <= last:
            raise InputError(f"{path}, line {number}: frame {record.index} after frame {last}; wanted a later frame")
        last = record.index
        yield record


def _ends(path: str | Path, take: int | None) -> dict[int, float]:
    """Of a take and those it goes on from: the frame before which each one's frames are shown."""
    takes = {each.number: each for each in read_takes(path)}
    if take is not None and take not in takes:
        raise UsageError(f"{path}: there is no take {take}; wanted one of {', '.join(map(str, takes)) or 'none'}")
    number = take if take is not None else next(reversed(takes), 0)
    until: dict[int, float] = {}
    end = math.inf
    while number in takes and number not in until:
        until[number] = end
        end, number = min(end, takes[number].start), takes[number].parent
    return until


def read_events(path: str | Path) -> Iterator[EventRecord]:
    """The events of a run, of all takes in the order they happened; `path` and errors as in `read_tracks`."""
    for _, record in _read(path, EVENTS, EventRecord.from_json):
        yield record


def events_of_take(run: str | Path, take: int | None = None) -> Iterator[EventRecord]:
    """The events that belong to the frames of a take, as `read_tracks` gives them; errors as there."""
    until = _ends(run, take)
    return (event for event in read_events(run) if event.index < until.get(event.take, 0))


def tracks_of(path: str | Path) -> Path:
    """The log itself, checked from end to end: the "jsonl" format. Errors as in `read_tracks`."""
    for _ in read_tracks(path):
        pass
    return Path(path) / TRACKS


def _read(path: str | Path, name: str, parse: Callable[[bytes], R]) -> Iterator[tuple[int, R]]:
    place = Path(path)
    place = place / name if place.is_dir() else place
    try:
        file = place.open("rb")
    except OSError as error:
        raise InputError(
            f"{place}: cannot be read ({error.strerror}); wanted a folder that `trackgpt track` wrote", "IN01"
        ) from error
    with file:
        for number, line in enumerate(file, 1):
            try:
                record = parse(line)
            except InputError as error:
                if not line.endswith(b"\n"):
                    return
                raise InputError(f"{place}, line {number}: {error}") from error
            yield number, record


def _parse(line: str | bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error}); wanted one object a line") from error
    if not isinstance(values, dict):
        raise InputError(f"a {type(values).__name__}; wanted a JSON object")
    wanted = " or ".join(map(str, READABLE))
    _pick(values, "v", lambda v: type(v) is int and v in READABLE, f"{wanted}; a newer trackgpt may have written it")
    return values


def _pick(values: Mapping[str, Any], key: str, fits: Callable[[Any], bool], wanted: str) -> Any:
    if key not in values:
        raise InputError(f'"{key}" is missing; wanted {wanted}')
    if not fits(values[key]):
        raise InputError(f'"{key}" is {str(values[key])[:40]!r}; wanted {wanted}')
    return values[key]


def _take_from(values: Mapping[str, Any]) -> int:
    if values["v"] == 1:
        return 1
    return int(_pick(values, "take", _is_id, "a whole number from 1"))


def _object_from(values: Any, size: list[int], version: int) -> ObjectRecord:
    if not isinstance(values, dict):
        raise InputError(f'"objs" holds a {type(values).__name__}; wanted objects')
    if version == 1:
        values = values | {"score": _pick(values, "purport", _is_score, "a number or null")}
    box = _pick(values, "box", lambda v: v is None or _is_box(v), "four numbers x1, y1, x2, y2 or null")
    rle = _pick(values, "rle", lambda v: v is None or isinstance(v, str), "run-length text or null")
    if rle is not None:
        check_rle(rle, *size)
    score = _pick(values, "score", _is_score, "a number or null")
    own = {name: _pick(values, name, _is_score, "a number or null") for name in values if name not in OF_OBJECT}
    return ObjectRecord(
        id=_pick(values, "id", _is_id, "a whole number from 1"),
        box=None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        rle=rle,
        score=None if score is None else float(score),
        state=_pick(values, "state", lambda v: isinstance(v, str) and v in STATES, "one of " + ", ".join(STATES)),
        own_scores={name: None if value is None else float(value) for name, value in own.items()},
    )


def _is_score(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _is_id(value: Any) -> bool:
    return _is_index(value) and value >= 1


def _is_name(value: Any) -> bool:
    # A log may come from anybody, and files are written and removed under these names.
    return isinstance(value, str) and value not in (".", "..") and not re.search(r"[/\\\0]", value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_id, value))


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


# --- writing ---


def plain(value: Any, digits: int | None = None) -> Any:
    """The value in JSON's own types: arrays become lists, what is not finite null, floats keep `digits` decimals."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else _rounded(value, digits)
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, digits) for item in value]
    return str(value) if isinstance(value, Path) else value


class _Log:
    """A file of lines, each in the file whole or not at all."""

    def __init__(self, path: Path, end: int | None = None) -> None:
        self.path = path
        self.end = end or 0
        with writing(path):
            try:
                self.file = path.open("xb" if end is None else "r+b", buffering=0)
                _locked(self.file)  # for as long as it is written (see `refuse_a_live_run`)
            except FileExistsError as error:
                raise OutputError(f"{path}: another run is writing here; choose another folder", "OUT01") from error
            if self.file.seek(0, 2) < self.end:
                raise InputError(f"{path}: is shorter than when its state was saved; start again with --overwrite")
            self.file.truncate(self.end)
            self.file.seek(self.end)

    def append(self, line: str) -> None:
        # Half a surrogate pair (from an odd file name) cannot be UTF-8; written as \udc80 it is JSON and comes back.
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with writing(self.path):
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[self.file.write(rest) :]
            except OSError:
                with suppress(OSError):
                    self.file.truncate(self.end)
                    self.file.seek(self.end)
                raise
        self.end += len(data)

    def close(self) -> None:
        self.file.close()


def refuse_a_live_run(folder: Path) -> None:
    """Refuse a folder that another process is writing a run to.

    Raises:
        OutputError: OUT01.
    """
    log = folder / TRACKS
    with writing(log):
        if not log.is_file():
            return
        with log.open("rb") as file:
            free = _locked(file)
    if not free:
        raise OutputError(f"{folder}: a run is being written there; wait for it, or choose another folder", "OUT01")


def refuse_taken(out: Path, overwrite: bool) -> None:
    """Refuse a folder that a run may not be written to; nothing in it is touched.

    Raises:
        OutputError: OUT01, it holds something and `overwrite` is off, or what it holds is no run, or a run is being
            written there; OUT02, it cannot be looked into.
    """
    refuse_a_live_run(out)
    refuse_existing(out, overwrite)
    # A stranger's masks/00000.png would look like ours: without a log beside it, nothing here is a run.
    refuse_strangers(out, {*MADE_HERE, MASKS}, (TRACKS, EVENTS))


def _locked(file: Any) -> bool:
    """Lock a file until it is closed; False where another process has it. Systems without locks say True."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _take_over(path: Path, overwrite: bool) -> None:
    refuse_taken(path, overwrite)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        _clear(path, {entry.name for entry in path.iterdir()})


def _clear(path: Path, present: set[str]) -> None:
    """Remove the files of an earlier run; the log goes last, so that a clearing that is cut can be done again."""
    masks = path / MASKS
    if masks.is_symlink():
        masks.unlink()
    elif masks.is_dir():
        for name in _masks_of(path):
            for file in (masks / name, masks / f".{name}.part"):
                file.unlink(missing_ok=True)
        if not any(masks.iterdir()):
            masks.rmdir()
    parts = {f".{name}.part" for name in MADE_HERE}
    for name in sorted(present & ({*MADE_HERE} | parts), key=lambda name: (name in (TRACKS, EVENTS), name)):
        (path / name).unlink()


def _masks_of(path: Path) -> Iterator[str]:
    """Names of the masks that a run has written or was about to write, by what can be read of its log."""
    if not (path / TRACKS).is_file():
        return
    with (path / TRACKS).open("rb") as log:
        for line in log:
            with suppress(InputError):
                yield TrackRecord.from_json(line).mask_name


def _dump(values: Mapping[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _rounded(value: float, digits: int) -> float:
    return round(float(value), digits) + 0.0  # -0.0 becomes 0.0
