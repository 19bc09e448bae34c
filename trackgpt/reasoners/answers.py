r"""What a vision-language model writes, to boxes as numbers: one pure function for each way of writing.

Each reads strictly first, then repairs what models get wrong (prose around, quotes, commas, an answer cut off at the
limit of tokens), and otherwise says that it could not read. No number is guessed: a box whose last number may have been
cut is none. That nothing is there is an answer, too, and another one than what cannot be read.

Time is linear in the length of the text, whatever it holds: an expression never gives back what it has taken (`*+`,
`++`, `?+`), and an attempt that fails has not gone past the places where more than two others begin.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from trackgpt.reasoners.coordinates import Numbers


class Region(NamedTuple):
    """One box of an answer.

    Attributes:
        numbers: as they are written, in the order of the model's convention; any floats, also NaN and infinite ones.
        label: what the model calls it; may be empty.
        span: where in the text the numbers stand, first character and one past the last.
    """

    numbers: Numbers
    label: str
    span: tuple[int, int]


@dataclass(frozen=True)
class ParsedAnswer:
    """What was read from an answer.

    Attributes:
        regions: in the order of the text. Empty where the model says that there is nothing, or where nothing was read.
        readable: the answer could be read.
    """

    regions: tuple[Region, ...] = ()
    readable: bool = True


UNREADABLE = ParsedAnswer(readable=False)
NOTHING = ParsedAnswer()
"""The model says that there is no such object."""

Form = Literal["strict", "repaired", "unreadable"]
"""How an answer could be read: as it was asked for, with repairs, or not at all."""


class TrackEntry(NamedTuple):
    """One box of an answer about several frames.

    Attributes:
        numbers: as they are written, any floats; None where the model says that the object is not visible.
        frame: the number of the frame as the model writes it; None where it names none.
        object_id: the number of the object as the model writes it; None where it names none.
        span: where in the text the entry stands, first character and one past the last.
    """

    numbers: Numbers | None
    frame: int | None
    object_id: int | None
    span: tuple[int, int]


@dataclass(frozen=True)
class ParsedTracks:
    """What was read from an answer about several frames.

    Attributes:
        entries: in the order of the text.
        form: "strict" where the answer is a JSON list as it was asked for; empty entries then mean that there is no
            such object.
    """

    entries: tuple[TrackEntry, ...] = ()
    form: Form = "strict"


_N = r"""["']?+\s*+([-+]?+(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][-+]?+\d++)?+)["']?+\s*+"""
_BRACKETED = rf"[\[(]\s*+{_N},\s*+{_N},\s*+{_N},\s*+{_N},?+\s*+[\])]"
_POINTS = rf"\(\s*+{_N},\s*+{_N}\)\s*+,?+\s*+\(\s*+{_N},\s*+{_N}\)"
_BOX = re.compile(f"{_BRACKETED}|{_POINTS}")

# In JSON, and in what was meant as JSON.
_LABELS = ("label", "name", "object", "phrase", "class", "category", "description")
_NAMED = rf"""["']?+(?:{"|".join(_LABELS)})["']?+\s*+:\s*+(?:"([^"\n]*+)"|'([^'\n]*+)')"""
_TOKEN = re.compile(rf"({{)|{_NAMED}|{_BRACKETED}")
_EMPTY: tuple[Any, ...] = (None, "", [], {})

# An answer about several frames: where its objects begin and end, the numbers of frame and object, and boxes.
_NUMBER_OF = r"""["']?+\s*+[:=]\s*+["']?+(\d{1,9})(?![\d.])"""
_TRACK_TOKEN = re.compile(
    rf"""(?P<opens>{{)|(?P<closes>}})|(?<!\w)frame(?:_?(?:id|index|number))?+{_NUMBER_OF}"""
    rf"""|(?<!\w)(?:(?:object_?|track_?|obj_?)?id|object){_NUMBER_OF}|(?<!\w)object_(\d{{1,9}})["']?+\s*+:"""
    rf"""|(?<!\w)(?:bbox|box)(?:_2d)?+["']?+\s*+[:=]\s*+(?P<hidden>null|none)\b|{_BRACKETED}""",
    re.IGNORECASE,
)
_MOST_NUMBER = 10**9
_DEEPEST = 100
_BOX_KEY = "bbox_2d"

# <|box_start|>(1,2),(3,4)<|box_end|>, <box>[[1, 2, 3, 4]]</box>
_TAGGED = re.compile(r"(?:<box>|<\|box_start\|>)([^<]*+)")
_REFERRED = re.compile(r"(?:<ref>|<\|object_ref_start\|>)([^<]*+)")

# Location tokens
_FLORENCE = re.compile(r"(?:<loc_\d{1,4}+>){4,}+")
_PALIGEMMA = re.compile(r"((?:<loc\d{4}>){4})(?:<seg\d{3}>)*+([^<;]*+)")
_LOCATION = re.compile(r"\d++")
_PAIR = r"<patch_index_\d{1,4}+>\s*+<patch_index_\d{1,4}+>\s*+"
_KOSMOS = re.compile(rf"<object>\s*+({_PAIR}(?:</delimiter_of_multi_objects/>\s*+{_PAIR})*+)")

_MOST_PROSE = 500
_NO_OBJECT = re.compile(
    r"^\W*+no\b|\b(?:none|null|nothing|n/a)\b|\b(?:is|are|was|were|see|find|contains?|there's)\s(?:no|not)\b"
    r"|\bnot\s(?:visible|present|found|detected|shown|in the|in this|any)"
    r"|\b(?:is|are|does|do|could)n['’]t\b|\bcan['’]t\b|\b(?:does|do|could|can) ?not\b|\bunable to\b",
    re.IGNORECASE,
)


def read_json(text: str) -> ParsedAnswer:
    """A JSON list of objects such as {"bbox_2d": [x1, y1, x2, y2], "label": "dog"}, or anything like it.

    Any list of four numbers is a box, under whatever key; so are two lists of two. Four zeros are none: models write
    them for an object that is not there. A score that the model writes down is not read: it is made up. What stands
    before the end of a chain of thought (`</think>`) is not looked at, and a thought that was cut off is no answer.
    """
    thought, ended, said = text.rpartition("</think>")
    if "<think>" in said:
        return UNREADABLE
    start = len(thought) + len(ended)
    value = _loaded(_fenced(said))
    strict = [] if value is _BROKEN else list(_of_value(value))
    scanned = [_moved(region, start) for region in _scan(said)]
    if strict:
        whole = (start, len(text))
        spans = [region.span for region in scanned] if len(scanned) == len(strict) else [whole] * len(strict)
        regions = [Region(numbers, label, span) for (numbers, label), span in zip(strict, spans)]
    else:
        regions = scanned
    if regions:
        return ParsedAnswer(tuple(region for region in regions if any(region.numbers)))
    if value is not _BROKEN and _is_empty(value):
        return NOTHING
    return NOTHING if _says_nothing(said) else UNREADABLE


_BROKEN = object()


def _fenced(text: str) -> str:
    """What stands between the first two fences of three backticks, or all of it."""
    _, opened, rest = text.partition("```")
    body = rest.partition("```")[0] if opened else text
    return body.removeprefix("json").strip()


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, parse_int=float)
    except (ValueError, RecursionError):
        return _BROKEN


def _of_value(value: Any) -> Iterator[tuple[Numbers, str]]:
    """Boxes anywhere in a JSON value, in its order, each with the label of the mapping it stands in."""
    waiting: list[tuple[Any, str]] = [(value, "")]
    while waiting:
        held, label = waiting.pop()
        if isinstance(held, dict):
            label = next((_plain(held[key]) for key in _LABELS if isinstance(held.get(key), str)), label)
            waiting += [(each, label) for each in reversed(held.values())]
        elif isinstance(held, list):
            if (numbers := _four(held)) is not None:
                yield numbers, label
            else:
                waiting += [(each, label) for each in reversed(held)]


def _four(values: list[Any]) -> Numbers | None:
    if len(values) == 2 and all(isinstance(each, list) and len(each) == 2 for each in values):
        values = [*values[0], *values[1]]
    if len(values) != 4 or not all(isinstance(v, float | str) for v in values):
        return None
    try:
        return tuple(map(float, values))
    except ValueError:  # a string that is no number
        return None


def _plain(label: str) -> str:
    """Without halves of characters, which JSON can write and no file can hold."""
    return label.encode("utf-8", "replace").decode("utf-8").strip()


def _scan(text: str) -> Iterator[Region]:
    """Boxes in brackets, and labels beside them, in a text that is no JSON as a whole."""
    found: list[tuple[Numbers, tuple[int, int]]] = []
    label = ""
    for token in _TOKEN.finditer(text):
        begins, double, single = token.group(1, 2, 3)
        if begins is not None:
            yield from (Region(numbers, label, span) for numbers, span in found)
            found, label = [], ""
        elif double is not None or single is not None:
            label = label or (double if double is not None else single).strip()
        else:
            found.append((tuple(map(float, token.group(4, 5, 6, 7))), token.span()))
    yield from (Region(numbers, label, span) for numbers, span in found)


def _moved(region: Region, by: int) -> Region:
    return region._replace(span=(region.span[0] + by, region.span[1] + by))


def _is_empty(value: Any) -> bool:
    """It is nothing, or a mapping or a list of mappings in which every box is nothing."""
    if isinstance(value, list) and value:
        return all(isinstance(each, dict) and _is_empty(each) for each in value)
    if isinstance(value, dict) and value:
        return any("box" in key and each in _EMPTY for key, each in value.items())
    return value in _EMPTY


def _says_nothing(text: str) -> bool:
    """A short text without numbers that says in words that there is no such object."""
    return len(text) <= _MOST_PROSE and not re.search(r"\d", text) and _NO_OBJECT.search(text) is not None


def read_json_tracks(text: str) -> ParsedTracks:
    """A JSON list of objects such as {"frame": 3, "object_id": 1, "bbox_2d": [x1, y1, x2, y2]}, or anything like it.

    Strict is a list whose entries each have "bbox_2d", four numbers or null, and may have "frame" and "object_id",
    whole numbers from 0; what else they have is not read. Anything else is repaired: any four numbers in brackets are a
    box, and its frame and object are those of the braces it stands in, or of those around them. An entry that was cut
    off before its box ended is none.
    """
    scanned = tuple(_scan_tracks(text))
    value = _loaded(text)
    strict = _strict_tracks(value)
    if strict is not None:
        same = [one[:3] for one in strict] == [one[:3] for one in scanned]
        return ParsedTracks(scanned if same else tuple(one._replace(span=(0, len(text))) for one in strict))
    if scanned:
        return ParsedTracks(scanned, "repaired")
    value = _loaded(_fenced(text))
    empty = (value is not _BROKEN and _is_empty(value)) or _says_nothing(text)
    return ParsedTracks(form="repaired" if empty else "unreadable")


def _strict_tracks(value: Any) -> list[TrackEntry] | None:
    """The entries of a JSON value that is a list as it was asked for."""
    if not isinstance(value, list):
        return None
    found = []
    for each in value:
        if not isinstance(each, dict) or _BOX_KEY not in each:
            return None
        numbers, frame, object_id = each[_BOX_KEY], each.get("frame"), each.get("object_id")
        four = numbers is None or (isinstance(numbers, list) and len(numbers) == 4 and all(map(_is_finite, numbers)))
        if not four or not all(n is None or _is_count(n) for n in (frame, object_id)):
            return None
        box = None if numbers is None else tuple(numbers)
        found.append(TrackEntry(box, _whole(frame), _whole(object_id), (0, 0)))
    return found


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _is_finite(number: Any) -> bool:
    return isinstance(number, float) and math.isfinite(number)


def _is_count(number: Any) -> bool:
    return _is_finite(number) and number.is_integer() and 0 <= number < _MOST_NUMBER


@dataclass
class _Braces:
    """What stands between two braces: the numbers of frame and object, and the boxes that wait for them."""

    frame: int | None = None
    object_id: int | None = None
    waiting: list[tuple[Numbers | None, tuple[int, int]]] = field(default_factory=list)

    def entries(self) -> Iterator[TrackEntry]:
        return (TrackEntry(numbers, self.frame, self.object_id, span) for numbers, span in self.waiting)


def _scan_tracks(text: str) -> Iterator[TrackEntry]:
    """Boxes in brackets, each with the numbers of frame and object in its braces, or around them.

    What follows more than `_DEEPEST` open braces is not read.
    """
    outer: list[_Braces] = []
    inner = _Braces()
    for token in _TRACK_TOKEN.finditer(text):
        frame, object_id, key, *numbers = token.group(3, 4, 5, 7, 8, 9, 10)
        if token["opens"]:
            if len(outer) == _DEEPEST:
                break
            yield from inner.entries()  # what a list holds in front of it
            inner.waiting = []
            outer.append(inner)
            inner = _Braces(inner.frame, inner.object_id)
        elif token["closes"]:
            yield from inner.entries()
            inner = outer.pop() if outer else _Braces()
        elif frame is not None:
            inner.frame = int(frame)
        elif object_id is not None or key is not None:
            inner.object_id = int(object_id or key)
        else:
            box = None if token["hidden"] else tuple(map(float, numbers))
            inner.waiting.append((box, token.span()))
    for braces in (*outer, inner):
        yield from braces.entries()


class TimedPoint(NamedTuple):
    """A point of an object at a time, x and y from 0 to 1000."""

    seconds: float
    object_id: int
    x: float
    y: float


_TIMED_TAG = re.compile(r'<tracks\b[^<>"]*?\bcoords\s*+=\s*+"([^">]*+)')
_TIMED_GROUP = re.compile(r"\s*+(\d{1,9}(?:\.\d{1,9})?+)((?:\s++\d{1,9}){3,})\s*+")


def read_track_tags(text: str) -> tuple[TimedPoint, ...]:
    """Molmo2: `<tracks coords="0.0 1 635 522;0.5 1 606 490 2 511 124">label</tracks>`, seconds, then id, x, y each.

    Groups that are written otherwise are left out, and so is what is left after the last three numbers of a group.
    """
    found = []
    for tag in _TIMED_TAG.finditer(text):
        for written in re.split(r"[;\t]", tag.group(1)):
            if (group := _TIMED_GROUP.fullmatch(written)) is None:
                continue
            numbers = group.group(2).split()
            for i in range(0, len(numbers) - 2, 3):
                object_id, x, y = numbers[i : i + 3]
                found.append(TimedPoint(float(group.group(1)), int(object_id), float(x), float(y)))
    return tuple(found)


def read_box_tags(text: str) -> ParsedAnswer:
    """`<box>(x1,y1),(x2,y2)</box>`, also with [[x1, y1, x2, y2]] inside, or between <|box_start|> and <|box_end|>.

    The label is what a `<ref>` or <|object_ref_start|> before it holds. Without any such tag every box is taken that is
    written as two points or as four numbers in brackets.
    """
    inside = [span for tag in _TAGGED.finditer(text) for span in [tag.span(1)] if _BOX.search(text, *span)]
    places = inside or [(0, len(text))]
    labels = deque((each.end(), each.group(1).strip()) for each in _REFERRED.finditer(text))
    regions, label = [], ""
    for first, last in places:
        for box in _BOX.finditer(text, first, last):
            while labels and labels[0][0] <= box.start():
                label = labels.popleft()[1]
            regions.append(Region(_numbers_of(box), label, box.span()))
    return _answered(regions, text)


def _numbers_of(box: re.Match[str]) -> Numbers:
    return tuple(float(number) for number in box.groups() if number is not None)


def read_florence(text: str) -> ParsedAnswer:
    """Florence-2: a phrase and `<loc_x1><loc_y1><loc_x2><loc_y2>`, as often as the phrase has boxes.

    What is left after the last four of a run of tokens is no box.
    """
    regions, end = [], 0
    for run in _FLORENCE.finditer(text):
        label = text[max(end, text.rfind(">", end, run.start()) + 1) : run.start()].strip()
        tokens = [(float(n.group()), n.span()) for n in _LOCATION.finditer(text, *run.span())]
        for i in range(0, len(tokens) - 3, 4):
            four = tokens[i : i + 4]
            regions.append(Region(tuple(n for n, _ in four), label, (four[0][1][0], four[3][1][1])))
        end = run.end()
    return _answered(regions, text, silence_is_nothing=True)


def read_paligemma(text: str) -> ParsedAnswer:
    """PaliGemma: `<locY1><locX1><locY2><locX2> label`, with semicolons between; tokens of masks are not read."""
    regions = [
        Region(tuple(float(n) for n in _LOCATION.findall(box.group(1))), box.group(2).strip(), box.span(1))
        for box in _PALIGEMMA.finditer(text)
    ]
    return _answered(regions, text, silence_is_nothing=True)


def read_kosmos(text: str) -> ParsedAnswer:
    """Kosmos-2: `<phrase>label</phrase><object><patch_index_0044><patch_index_0863></object>`, two numbers a box.

    Several boxes of a phrase have `</delimiter_of_multi_objects/>` between them. The end of an object may be missing.
    """
    regions, end = [], 0
    for found in _KOSMOS.finditer(text):
        before = text[end : found.start()].rstrip()
        label = before[before.rfind("<phrase>") + len("<phrase>") : -len("</phrase>")] if _ends_phrase(before) else ""
        tokens = [(float(n.group()), n.span()) for n in _LOCATION.finditer(text, *found.span(1))]
        for first, last in zip(tokens[::2], tokens[1::2]):
            regions.append(Region((first[0], last[0]), label.strip(), (first[1][0], last[1][1])))
        end = found.end()
    return _answered(regions, text, silence_is_nothing=True)


def _ends_phrase(text: str) -> bool:
    return text.endswith("</phrase>") and "<phrase>" in text


def _answered(regions: list[Region], text: str, silence_is_nothing: bool = False) -> ParsedAnswer:
    """What was read, or what it means that no box was.

    Args:
        regions: all that were found.
        text: the answer.
        silence_is_nothing: a model that finds nothing may write nothing.
    """
    if regions:
        return ParsedAnswer(tuple(regions))
    return NOTHING if (silence_is_nothing and not text.strip()) or _says_nothing(text) else UNREADABLE


PARSERS: dict[str, Callable[[str], ParsedAnswer]] = {
    "json": read_json,
    "box_tags": read_box_tags,
    "florence": read_florence,
    "paligemma": read_paligemma,
    "kosmos": read_kosmos,
}
"""By the name that a template gives its way of writing."""
