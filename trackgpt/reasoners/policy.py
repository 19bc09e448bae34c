"""A query and some frames in, trajectories out: what every policy gives, and the language in which one is asked.

A policy is the slow model of QTrack (`trackgpt.systems.qtrack`): a vision-language model that sees a reference frame
and the frames after it, and answers with the boxes of what the words mean on each of them. It holds weights, not state.
Here is everything about it that needs no weights: questions, answers as text (`parse`, `render`), and the types.
Training, evaluation and tracking use the same functions. Boxes are xyxy pixels of the frames as they were given.

There are two protocols. The paper's (QTrack, section 3.4 and appendix C.2; `paper=True`) shows two frames, the
reference and the present one, says nothing of where the objects were, and has one entry {"bbox_2d"} per object of the
present frame. Ours shows all frames of a window, says where the objects are on the reference where that is known, and
has one entry {"frame", "object_id", "bbox_2d"} per object and frame. Both have a thought in <think> and an answer in
<answer>. A window's frames are numbered from 0, the reference.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from trackgpt.reasoners.answers import Form, TrackEntry, read_json_tracks, read_track_tags
from trackgpt.reasoners.coordinates import Convention, Sizes, placed
from trackgpt.types import Box

LONGEST_ANSWER = 100_000
"""Letters of an answer; a longer one is not read."""
MOST_OBJECTS = 120
"""Objects of an answer, as in the released code; further ones are left out."""
WORDS, KNOWN = "{words}", "{known}"
"""In a template of questions: what was said, and where its objects are on the reference."""
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Where objects are on some frames.

    Attributes:
        frames: their numbers, as the question has them.
        ids: the objects' numbers, ascending; empty where nothing is meant.
        boxes: float64 (objects, frames, 4) xyxy in pixels of the frames; NaN where an object is not seen.
        form: how the answer that they come from could be read.
        spans: int64 (objects, frames, 2), where each box stands in that answer; -1 where it stands nowhere.
    """

    frames: tuple[int, ...]
    ids: tuple[int, ...] = ()
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 4)))
    form: Form = "strict"
    spans: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 2), np.int64), repr=False)

    @classmethod
    def of(
        cls,
        frames: Sequence[int],
        boxes: Mapping[int, Mapping[int, Box]],
        form: Form = "strict",
        spans: Mapping[tuple[int, int], tuple[int, int]] | None = None,
    ) -> Trajectories:
        """From the boxes of each object by frame.

        Args:
            frames: their numbers.
            boxes: by object and frame; an object without any is left out.
            form: see the class.
            spans: by (object, frame).
        """
        ids = tuple(sorted(number for number, found in boxes.items() if found))
        places, where = np.full((len(ids), len(frames), 4), np.nan), np.full((len(ids), len(frames), 2), -1, np.int64)
        for row, number in enumerate(ids):
            for column, frame in enumerate(frames):
                if frame in boxes[number]:
                    places[row, column] = boxes[number][frame]
                    where[row, column] = (spans or {}).get((number, frame), (-1, -1))
        return cls(tuple(frames), ids, places, form, where)

    @property
    def seen(self) -> np.ndarray:
        """bool (objects, frames), where an object is seen."""
        return np.isfinite(self.boxes).all(axis=2)

    def at(self, frame: int) -> dict[int, Box]:
        """The boxes on a frame by object, of those that are seen on it."""
        column = self.frames.index(frame)
        rows = ((number, self.boxes[row, column]) for row, number in enumerate(self.ids) if self.seen[row, column])
        return {number: (float(x1), float(y1), float(x2), float(y2)) for number, (x1, y1, x2, y2) in rows}


@dataclass(frozen=True)
class Query:
    """What a policy is asked to follow.

    Attributes:
        words: what a person said, cleaned.
        known: the objects that these words have named so far, with the box of each on the reference frame, or None
            where it is not seen there; empty where nothing is known yet.
    """

    words: str
    known: tuple[tuple[int, Box | None], ...] = ()


@dataclass(frozen=True, eq=False)
class PolicyAnswer:
    """What a policy answered.

    Attributes:
        trajectories: on the frames that it was asked about, which are numbered by their places in the window.
        scores: float32 (objects, frames), how sure it is of each box, 0 to 1; NaN where it cannot say.
        thought: its chain of thought, for people.
        text: what it wrote.
    """

    trajectories: Trajectories
    scores: np.ndarray
    thought: str = ""
    text: str = ""


class Policy(Protocol):
    """Answers queries with trajectories.

    Attributes:
        name: for people and for run.json.
        licence: of its weights; empty where that is not known.
        most_frames: that a question may show; 0 for any number.
    """

    name: str
    licence: str
    most_frames: int

    def answer(self, frames: Sequence[np.ndarray], query: Query, paper: bool = False) -> PolicyAnswer:
        """Trajectories of what a query means.

        Args:
            frames: uint8 RGB (height, width, 3), all of one size: the reference, and those after it, in order.
            query: see there.
            paper: by the paper's protocol, with exactly two frames.
        """
        ...


# Questions


def asked_frames(count: int, query: Query, paper: bool = False) -> tuple[int, ...]:
    """The frames of a window of `count` that an answer is about.

    All of them; without the reference where it is known what is on it; the last one alone in the paper's protocol.
    """
    if paper:
        return (count - 1,)
    return tuple(range(1 if count > 1 and any(box for _, box in query.known) else 0, count))


def messages(
    count: int, query: Query, view: Sizes, convention: Convention, paper: bool = False, template: str = ""
) -> list[dict[str, Any]]:
    """The conversation that puts a query, for the chat template of a model; `count` images belong to it, in order.

    Args:
        count: of the frames, the reference included.
        query: see there.
        view: the size of the frames, and that of the copies that the model sees.
        convention: how the model writes boxes.
        paper: by the paper's protocol.
        template: a question of a model's own, with `WORDS` and `KNOWN`, which stands in our protocol behind the images
            alone; empty for the one of `question`.
    """
    image = {"type": "image"}
    own = "" if paper else template
    if paper or own:
        content: list[dict[str, str]] = [image] * count
    else:
        labels = [f"Frame {t}:" if t else "Frame 0, the reference:" for t in range(count)]
        content = [part for label in labels for part in ({"type": "text", "text": label}, image)]
    if own:
        asked = own.replace(KNOWN, _known(query, view, convention)).replace(WORDS, query.words)
    else:
        asked = question(count, query, view, convention, paper)
    return [{"role": "user", "content": [*content, {"type": "text", "text": asked}]}]


def question(count: int, query: Query, view: Sizes, convention: Convention, paper: bool = False) -> str:
    """The words behind the images; see `messages`."""
    if paper:
        return (
            f'The first image is the reference, the last one the present frame. Find "{query.words}" on the present '
            "frame. Compare the objects with one another and choose those that fit best. Think between <think> and "
            "</think>, then answer between <answer> and </answer> with a JSON list of the boxes, for example "
            '<think>...</think><answer>[{"bbox_2d": [10, 100, 200, 210]}, {"bbox_2d": [225, 296, 706, 786]}]</answer>'
        )
    first, *_, last = (*asked_frames(count, query), count - 1)
    on = f"on each of the frames {first} to {last}" if first < last else f"on frame {last}"
    further = max((number for number, _ in query.known), default=0) + 1
    numbers = f"Give further objects that are meant the numbers from {further} on. " if query.known else ""
    return (
        f'The images are frames of one video, in order. Follow "{query.words}".{_known(query, view, convention)} '
        "Think briefly between <think> and </think>. Then answer between <answer> and </answer> with a JSON list that "
        'has one entry {"frame": t, "object_id": k, "bbox_2d": [x1, y1, x2, y2]} for each object that is meant, '
        f"{on}, where it can be seen. An object keeps its number on all frames. {numbers}"
        "If no such object can be seen, answer []."
    )


def _known(query: Query, view: Sizes, convention: Convention) -> str:
    """Where the objects are on the reference, as far as that is known."""
    if not query.known:
        return ""
    places = [
        f"object {number} {'cannot be seen' if box is None else f'is at {json.dumps(written(box, view, convention))}'}"
        for number, box in query.known
    ]
    return f" On frame 0, {', '.join(places)}."


# Answers


class Sections(NamedTuple):
    """The parts of an answer.

    Attributes:
        thought: what stands in <think>, or before its end.
        answer: what stands in <answer>, or after the thought; None where the thought was cut off.
        start: where in the text the answer begins.
        tagged: the text is a thought and an answer, each in its tags, once, with nothing but spaces around them.
    """

    thought: str
    answer: str | None
    start: int
    tagged: bool


def sections(text: str) -> Sections:
    """The parts of any text, in time linear in its length."""
    places = [text.find(tag) for tag in _TAGS]
    once = all(text.count(tag) == 1 for tag in _TAGS) and places == sorted(places)
    between = text[places[1] + len(_TAGS[1]) : places[2]] if once else "?"
    around = text[: places[0]] + text[places[3] + len(_TAGS[3]) :] if once else "?"
    tagged = once and not between.strip() and not around.strip()
    before, ended, said = text.rpartition("</think>")
    thought = before.rpartition("<think>")[2].strip()
    if "<think>" in said:
        return Sections(said.partition("<think>")[2].strip(), None, len(text), False)
    head, opened, inside = said.partition("<answer>")
    start = len(before) + len(ended) + (len(head) + len(opened) if opened else 0)
    answer = (inside if opened else said).partition("</answer>")[0]
    return Sections(thought, answer, start, tagged)


def parse(text: str, frames: Sequence[int], view: Sizes, convention: Convention) -> Trajectories:
    """The trajectories that a text means: read strictly, then repaired, then none. No text raises an error.

    "strict": a JSON list as it was asked for, every entry with a frame that was asked about, a box on the image, and
    another object or frame than the others. "repaired": something else was read, in prose, cut off, or beside entries
    that mean nothing; of two boxes of one object on one frame the first counts. "unreadable": there is no answer in it.
    An entry without a frame is about the only one that was asked about, or, where an object has exactly as many as
    frames were asked about, they are in order. Entries without an object's number are numbered by their order on each
    frame. Objects without a box are left out. Tags are not looked at (see `sections`).

    Args:
        text: any string; one of more than `LONGEST_ANSWER` letters is unreadable.
        frames: numbers of the frames that were asked about, without repetitions.
        view: the size of the frames, and that of the copies that the model saw.
        convention: in which numbers it writes.
    """
    part = sections(text) if len(text) <= LONGEST_ANSWER else None
    if part is None or part.answer is None:
        return Trajectories.of(frames, {}, "unreadable")
    read = read_json_tracks(part.answer)
    boxes: dict[int, dict[int, Box]] = {}
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    said, asked = set[tuple[int, int]](), set(frames)
    for number, frame, entry in _numbered(read.entries, frames):
        known = number in boxes or len(boxes) < MOST_OBJECTS
        if frame not in asked or (number, frame) in said or not known:
            continue
        box = None if entry.numbers is None else placed(entry.numbers, convention, view)
        if entry.numbers is None or box is not None:
            said.add((number, frame))
        if box is not None:
            boxes.setdefault(number, {})[frame] = box
            spans[number, frame] = (part.start + entry.span[0], part.start + entry.span[1])
    if not said and read.entries:
        return Trajectories.of(frames, {}, "unreadable")
    form = "repaired" if read.form == "strict" and len(said) < len(read.entries) else read.form
    return Trajectories.of(frames, boxes, form, spans)


def _numbered(entries: Sequence[TrackEntry], frames: Sequence[int]) -> Iterator[tuple[int, int, TrackEntry]]:
    """Entries with the object and the frame that each is about, without those about a frame that nobody can tell."""
    without: dict[int | None, int] = {}
    for entry in entries:
        if entry.frame is None:
            without[entry.object_id] = without.get(entry.object_id, 0) + 1
    places: dict[int | None, Iterator[int]] = {
        object_id: iter(frames) for object_id, count in without.items() if count == len(frames) > 1
    }
    taken: dict[int | None, set[int]] = {}
    for entry in entries:
        if entry.object_id is not None:
            taken.setdefault(entry.frame, set()).add(entry.object_id)
    free: dict[int, int] = {}
    for entry in entries:
        frame, number = entry.frame, entry.object_id
        if frame is None:
            frame = frames[0] if len(frames) == 1 else next(places.get(number, iter(())), None)
        if frame is None:
            continue
        if number is None:
            number = free.get(frame, 1)
            while number in taken.get(frame, ()):
                number += 1
            free[frame] = number + 1
        yield number, frame, entry


def render(
    trajectories: Trajectories, view: Sizes, convention: Convention, paper: bool = False, thought: str = ""
) -> str:
    """The answer that means these trajectories; what `parse` gives for it, it gives again, to the bit.

    Numbers are written as the convention's models write them, whole pixels or whole steps of a grid, so that boxes come
    back the nearest ones that can be written.

    Args:
        trajectories: in the paper's protocol their last frame alone is written.
        view, convention: see `parse`.
        paper: by the paper's protocol.
        thought: stands in <think>; tags in it are taken out.
    """
    last = trajectories.frames[-1:]
    entries = [
        {**({} if paper else {"frame": frame, "object_id": number}), "bbox_2d": written(box, view, convention)}
        for frame in (last if paper else trajectories.frames)
        for number, box in trajectories.at(frame).items()
    ]
    plain = " ".join(re.sub("|".join(_TAGS), " ", thought).split())
    return f"<think>{plain}</think>\n<answer>{json.dumps(entries)}</answer>"


def written(box: Box, view: Sizes, convention: Convention) -> list[float | int]:
    """A box as a model writes it; one that would be empty for rounding is one step wide or high.

    Args:
        box: xyxy in pixels, on the frame.
        view, convention: see `parse`.
    """
    step = 10**-convention.digits
    numbers = [round(number, convention.digits) for number in convention.from_pixels(box, view)]
    for low, high in ((0, 2), (1, 3)):
        if numbers[low] >= numbers[high]:
            numbers[low] = max(numbers[low] - step, 0)
            numbers[high] = numbers[low] + step
    return numbers if convention.digits else [int(number) for number in numbers]


# Molmo2's tracks of points


class PointTrack(NamedTuple):
    """The way of an object.

    Attributes:
        id: of the object, from 1 as Molmo2 counts.
        seconds: ascending times of the video.
        points: x and y in pixels of the frame at each of them.
    """

    id: int
    seconds: tuple[float, ...]
    points: tuple[tuple[float, float], ...]


def parse_tracks(text: str, size: tuple[int, int]) -> tuple[PointTrack, ...]:
    """The points in `<tracks coords="seconds id x y ...;...">`, Molmo2's way of writing, x and y from 0 to 1000.

    Objects are in the order of their numbers. Points outside of the frame are left out; of two points of one object at
    one time the first counts. Any string may be given; one of more than `LONGEST_ANSWER` letters has no tracks.

    Args:
        text: an answer.
        size: width and height of the frames in pixels.
    """
    ways: dict[int, dict[float, tuple[float, float]]] = {}
    for one in read_track_tags(text) if len(text) <= LONGEST_ANSWER else ():
        if one.x <= 1000 and one.y <= 1000 and (one.object_id in ways or len(ways) < MOST_OBJECTS):
            ways.setdefault(one.object_id, {}).setdefault(one.seconds, (one.x / 1000 * size[0], one.y / 1000 * size[1]))
    return tuple(
        PointTrack(number, tuple(sorted(way)), tuple(way[t] for t in sorted(way)))
        for number, way in sorted(ways.items())
    )


def render_tracks(tracks: Iterable[PointTrack], size: tuple[int, int], label: str) -> str:
    """Tracks of points as Molmo2 writes them: tenths of seconds, three digits or four for x and y.

    Args:
        tracks: of any objects.
        size: width and height of the frames in pixels.
        label: what was asked for; brackets are taken out.
    """
    groups: dict[str, list[str]] = {}
    for track in sorted(tracks, key=lambda track: track.id):
        for seconds, point in zip(track.seconds, track.points, strict=True):
            x, y = (min(max(math.floor(p / side * 1000 + 0.5), 0), 1000) for p, side in zip(point, size, strict=True))
            groups.setdefault(f"{seconds:.1f}", []).append(f"{track.id} {x:03d} {y:03d}")
    written = (f"{seconds} {' '.join(groups[seconds])}" for seconds in sorted(groups, key=float))
    return f'<tracks coords="{";".join(written)}">{" ".join(re.sub("[<>]", " ", label).split())}</tracks>'
