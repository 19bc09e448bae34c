"""What a person sees: masks, boxes, names, what was said and what was answered, drawn on a frame.

Colours are those of Okabe and Ito, which people with any colour vision tell apart; ids are always also written. Sizes
follow the frame's shorter side. Text is rendered once and kept, since most of it stays for many frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trackgpt.errors import InputError
from trackgpt.export.records import (
    RUN,
    EventRecord,
    ObjectRecord,
    State,
    TrackRecord,
    events_of_take,
    read_tracks,
)
from trackgpt.geometry.masks import resize
from trackgpt.types import Box, Prediction
from trackgpt.video.frames import DEFAULT_FPS
from trackgpt.video.writer import VideoWriter

Colour = tuple[int, int, int]
Area = tuple[int, int, int, int]
"""x, y, width and height, in pixels."""

OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)
PANEL: Colour = (16, 20, 28)
PAPER: Colour = (245, 247, 250)
GREY: Colour = (196, 200, 206)
ASKED: Colour = (240, 228, 66)
SAID: Colour = (86, 180, 233)
ANSWERED: Colour = (0, 158, 115)
FILL = 0.33
FINE = 4
"""Text and plates are drawn this many times too large and shrunk: smooth edges, even spaces between letters."""
HOLD = 0.8
"""Seconds for which a video shows that the brain was asked again."""
GLIMPSE = 0.3
"""Seconds for which it shows the numbered boxes of what could be chosen from."""
WHY = {
    "purport": "asked again: low score",
    "searching": "asked again: still looking",
    "prompt": "new instruction",
}
# Pillow's own face knows English letters alone. Where text needs more, matplotlib's DejaVu Sans is next (Latin, Greek,
# Cyrillic, Arabic), then the faces that systems have for Chinese, Japanese and Korean, looked for by name.
OTHER_FACES = ("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "msyh.ttc")


@dataclass(frozen=True)
class Patch:
    """A rendered piece of text on its plate, ready to be laid over a frame.

    Attributes:
        light: uint8 (height, width, 3), the colour times the opacity.
        through: uint8 (height, width, 3), how much of the frame shows through, 255 all of it.
    """

    light: np.ndarray
    through: np.ndarray

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.light.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.light.shape[1])


@dataclass(frozen=True)
class Drawn:
    """One object to draw; box and mask in the pixels of the frame at hand."""

    id: int
    box: tuple[float, float, float, float] | None
    mask: np.ndarray | None
    score: float | None
    state: State


def colour_of(number: int) -> Colour:
    """The RGB colour of an object id, the same in every picture; it repeats after seven."""
    return OKABE_ITO[(number - 1) % len(OKABE_ITO)]


def draw(
    frame: np.ndarray,
    result: Prediction | TrackRecord,
    instruction: str = "",
    answer: str = "",
    asked: str = "",
    choices: Sequence[Box] = (),
) -> np.ndarray:
    """Draw a result on a frame.

    Args:
        frame: uint8 RGB (height, width, 3); it is not changed. A record of another size is scaled to it.
        result: what was found on the frame.
        instruction: shown at the top.
        answer: shown at the bottom, wrapped.
        asked: why the brain was consulted on this frame ("purport", "searching", "prompt" or other words); marked when
            not empty.
        choices: boxes of what a person may choose from, in pixels of the result's frame; they are numbered from 1.

    Returns:
        uint8 RGB (height, width, 3).

    Raises:
        InputError: the frame is no uint8 RGB picture.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise InputError(f"frame has shape {frame.shape} and type {frame.dtype}; wanted uint8 (height, width, 3)")
    picture = np.array(frame, order="C")
    height, width = picture.shape[:2]
    unit = min(height, width) / 480
    items = _items(result, height, width)
    shown = [item for item in items if item.box is not None or item.mask is not None]
    for item in shown:
        _fill(picture, item)
    for item in shown:
        _outline(picture, item, unit)
    taken = _banners(picture, instruction, answer, asked, unit)
    taken += _missing(picture, [item for item in items if item.box is None and item.mask is None], unit, taken)
    for item in shown:
        taken.append(_tag(picture, item, unit, taken))
    down, across = (height / result.size[0], width / result.size[1]) if isinstance(result, TrackRecord) else (1, 1)
    for number, (x1, y1, x2, y2) in enumerate(choices, 1):
        _number(picture, number, (x1 * across, y1 * down, x2 * across, y2 * down), unit)
    return picture


def _number(picture: np.ndarray, number: int, box: Box, unit: float) -> None:
    """A numbered box of something that may be chosen: the whole outline, and the number in its middle."""
    x1, y1, x2, y2 = round(box[0]), round(box[1]), round(box[2]) - 1, round(box[3]) - 1
    thin = max(1, round(1.6 * unit))
    cv2.rectangle(picture, (x1, y1), (x2, y2), PANEL, thin + max(1, round(2 * unit)), cv2.LINE_AA)
    cv2.rectangle(picture, (x1, y1), (x2, y2), ASKED, thin, cv2.LINE_AA)
    plate = _plate(str(number), _size(unit, 26), ASKED, 0.95)
    _lay(picture, plate, round((x1 + x2 - plate.width) / 2), round((y1 + y2 - plate.height) / 2))


# --- objects ---


def _items(result: Prediction | TrackRecord, height: int, width: int) -> list[Drawn]:
    if isinstance(result, Prediction):
        items = [_of_prediction(result, k) for k in range(len(result.ids))]
        size = (height, width) if result.masks is None else result.masks.shape[1:]
    else:
        items = [_of_record(item, mask) for item, mask in zip(result.objects, result.masks())]
        size = result.size
    if size == (height, width):
        return items
    return [_scaled(item, height, width, height / size[0], width / size[1]) for item in items]


def _of_prediction(result: Prediction, k: int) -> Drawn:
    present = bool(result.present[k])
    x1, y1, x2, y2 = (float(v) for v in result.boxes[k])
    box = (x1, y1, x2, y2) if present and np.isfinite([x1, y1, x2, y2]).all() else None
    found = present and result.masks is not None and result.masks[k].any()
    mask = np.ascontiguousarray(result.masks[k], dtype=bool) if result.masks is not None and found else None
    score = float(result.scores[k]) if np.isfinite(result.scores[k]) else None
    return Drawn(int(result.ids[k]), box, mask, score, "tracked" if present else "absent")


def _of_record(item: ObjectRecord, mask: np.ndarray) -> Drawn:
    return Drawn(item.id, item.box, None if item.rle is None else mask, item.score, item.state)


def _scaled(item: Drawn, height: int, width: int, down: float, across: float) -> Drawn:
    box = None
    if item.box is not None:
        box = (item.box[0] * across, item.box[1] * down, item.box[2] * across, item.box[3] * down)
    return replace(item, box=box, mask=None if item.mask is None else resize(item.mask, height, width))


def _fill(picture: np.ndarray, item: Drawn) -> None:
    """Tint what the mask covers; only the rectangle around it is touched."""
    if item.mask is None:
        return
    x, y, width, height = cv2.boundingRect(item.mask.view(np.uint8))
    part = picture[y : y + height, x : x + width]
    tint = np.empty_like(part)
    tint[:] = colour_of(item.id)
    mixed = cv2.addWeighted(part, 1 - FILL, tint, FILL, 0)
    mask = np.ascontiguousarray(item.mask[y : y + height, x : x + width]).view(np.uint8)
    cv2.copyTo(mixed, mask, part)


def _outline(picture: np.ndarray, item: Drawn, unit: float) -> None:
    """The contour over a dark halo, so that it is crisp on any background, and the box with marked corners."""
    colour = colour_of(item.id)
    thin = max(1, round(1.6 * unit))
    halo = thin + max(1, round(2 * unit))
    if item.mask is not None:
        contours, _ = cv2.findContours(item.mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, contours, -1, _dark(colour), halo, cv2.LINE_AA)
        cv2.drawContours(picture, contours, -1, colour, thin, cv2.LINE_AA)
    if item.box is not None:
        _corners(picture, item.box, _dark(colour), halo, unit)
        _corners(picture, item.box, colour, thin, unit)


def _corners(
    picture: np.ndarray, box: tuple[float, float, float, float], colour: Colour, thick: int, unit: float
) -> None:
    x1, y1, x2, y2 = round(box[0]), round(box[1]), round(box[2]) - 1, round(box[3]) - 1
    arm = int(min(18 * unit, (x2 - x1) / 3, (y2 - y1) / 3))
    for x, y, right, down in ((x1, y1, 1, 1), (x2, y1, -1, 1), (x1, y2, 1, -1), (x2, y2, -1, -1)):
        line = np.array([(x + right * arm, y), (x, y), (x, y + down * arm)], np.int32)
        cv2.polylines(picture, [line], False, colour, thick, cv2.LINE_AA)


def _tag(picture: np.ndarray, item: Drawn, unit: float, taken: list[Area]) -> Area:
    """The name plate above the box, inside it or below it: the first place where it hides nothing else."""
    parts = [str(item.id)] + ([] if item.score is None else [f"{item.score:.2f}"])
    text = " · ".join(parts) + (" ?" if item.state == "suspect" else "")
    patch = _plate(text, _size(unit, 15), colour_of(item.id), 1.0)
    left, top, bottom = _extent(item)
    gap = max(1, round(3 * unit))
    x = max(0, min(left, picture.shape[1] - patch.width))
    places = [top - patch.height - gap, top + gap, bottom + gap, bottom - gap - patch.height]
    inside = [y for y in places if 0 <= y <= picture.shape[0] - patch.height] or [max(0, top)]
    free = [y for y in inside if not any(_meet((x, y, patch.width, patch.height), area) for area in taken)]
    return _lay(picture, patch, x, (free or inside)[0])


def _extent(item: Drawn) -> tuple[int, int, int]:
    """Left, top and bottom of an object that is shown."""
    if item.box is not None:
        return round(item.box[0]), round(item.box[1]), round(item.box[3])
    assert item.mask is not None
    x, y, _, height = cv2.boundingRect(item.mask.view(np.uint8))
    return x, y, y + height


def _meet(a: Area, b: Area) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def _missing(picture: np.ndarray, items: list[Drawn], unit: float, taken: list[Area]) -> list[Area]:
    """Grey plates for the objects that are not on the frame, above the answer: never silent."""
    gap = max(2, round(8 * unit))
    floor = min((y for x, y, width, height in taken if y > picture.shape[0] // 2), default=picture.shape[0])
    x, areas = gap, []
    for item in items:
        patch = _plate(f"{item.id} · {item.state}", _size(unit, 14), GREY, 0.82, ("disc", colour_of(item.id)))
        areas.append(_lay(picture, patch, x, floor - patch.height - gap))
        x += patch.width + gap
    return areas


# --- text ---


def _banners(picture: np.ndarray, instruction: str, answer: str, asked: str, unit: float) -> list[Area]:
    """Draw what was said, answered and marked; gives the areas this takes."""
    height, width = picture.shape[:2]
    gap, size = max(2, round(8 * unit)), _size(unit, 17)
    inside = width - 2 * gap
    areas = []
    if instruction:
        said = _panel(instruction, size, inside, max(1, int(height * 0.2 / (1.35 * size))), SAID)
        areas.append(_lay(picture, said, gap, gap))
    if asked:
        mark = _plate(WHY.get(asked, asked), _size(unit, 14), ASKED, 0.95, ("diamond", PANEL))
        beside = not instruction or said.width + gap + mark.width <= inside
        areas.append(_lay(picture, mark, width - gap - mark.width, gap if beside else 2 * gap + said.height))
    if answer:
        answered = _panel(answer, size, inside, max(1, int(height * 0.25 / (1.35 * size))), ANSWERED)
        areas.append(_lay(picture, answered, gap, height - gap - answered.height))
    return areas


def _size(unit: float, at_480: float) -> int:
    """Letter height in pixels; below 9 nothing can be read."""
    return max(9, round(at_480 * unit))


def _length(text: str, font: ImageFont.FreeTypeFont) -> float:
    """Columns that a line of text takes."""
    return font.getlength(text) / FINE


@lru_cache(maxsize=512)
def _plate(text: str, size: int, colour: Colour, opacity: float, sign: tuple[str, Colour] | None = None) -> Patch:
    """Text on a rounded plate; before it a "disc" or a "diamond" in a colour of its own, when asked."""
    font = _font(text, size)
    pad, before = round(size * 0.5), round(size * 0.95) if sign else 0
    width, height = round(_length(text, font)) + 2 * pad + before, round(size * 1.5)
    colours = np.full((height, width, 3), colour, np.uint8)
    colours = _mixed(colours, _against(colour), _ink(text, font, width, height, pad + before, height / 2))
    if sign:
        colours = _mixed(colours, sign[1], _sign(sign[0], width, height, pad + size * 0.3, size * 0.34))
    return _patch(colours, _rounded(width, height, size * 0.42) * opacity)


@lru_cache(maxsize=16)
def _panel(text: str, size: int, widest: int, lines: int, accent: Colour) -> Patch:
    """Wrapped text on a dark, rounded, half transparent panel with an accent on its left edge."""
    font = _font(text, size)
    pad, bar, step = round(size * 0.6), max(2, round(size * 0.24)), round(size * 1.35)
    rows = _wrapped(text, font, widest - 2 * pad - bar, lines)
    width = min(widest, round(max(_length(row, font) for row in rows)) + 2 * pad + bar)
    height = step * len(rows) + round(size * 0.5)
    ink = np.zeros((height, width, 1), np.float32)
    for number, row in enumerate(rows):
        middle = size * 0.25 + step * (number + 0.5)
        ink = np.maximum(ink, _ink(row, font, width, height, pad + bar, middle))
    shape = _rounded(width, height, size * 0.45)
    colours = np.full((height, width, 3), PANEL, np.uint8)
    colours[:, :bar] = accent
    opacity = shape * np.maximum(ink, 0.66)
    opacity[:, :bar] = shape[:, :bar]
    return _patch(_mixed(colours, PAPER, ink), opacity)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float, most: int) -> list[str]:
    """Lines no wider than `width`; what does not fit in `most` lines ends in an ellipsis."""
    rows, row = [], ""
    for word in _words(text, font, width):
        longer = f"{row} {word}".strip() if not word.startswith("\u200b") else row + word[1:]
        if row and _length(longer, font) > width:
            rows.append(row)
            longer = word.removeprefix("\u200b")
        row = longer
    rows.append(row)
    if len(rows) <= most:
        return rows
    last = rows[most - 1]
    while last and _length(last + "…", font) > width:
        last = last[:-1]
    return [*rows[: most - 1], last.rstrip() + "…"]


def _words(text: str, font: ImageFont.FreeTypeFont, width: float) -> Iterator[str]:
    """Captions; one that is wider than a line (or a script without spaces) in letters, each marked as joined."""
    for word in text.split():
        if _length(word, font) <= width:
            yield word
        else:
            yield word[0]
            yield from ("\u200b" + letter for letter in word[1:])


@lru_cache(maxsize=64)
def _face(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    """A face by file name, Pillow's own for an empty one; None where the system does not have it."""
    try:
        face = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None
    return face if isinstance(face, ImageFont.FreeTypeFont) else None


@lru_cache(maxsize=1)
def _faces() -> tuple[str, ...]:
    found = find_spec("matplotlib")
    place = Path(found.origin).parent if found is not None and found.origin else Path()
    return ("", str(place / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), *OTHER_FACES)


@lru_cache(maxsize=4096)
def _knows(name: str, letter: str) -> bool:
    """Whether a face has a letter: one that it lacks looks like one that no face has."""
    face = _face(name, 24)
    return face is not None and bytes(face.getmask(letter)) != bytes(face.getmask("\U0010ffff"))


@lru_cache(maxsize=512)
def _font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The face that knows most letters of the text, of equal ones the first, `FINE` times `size` pixels high."""
    letters = {letter for letter in text if not letter.isspace()}
    best = max(_faces(), key=lambda name: sum(_knows(name, letter) for letter in letters))
    face = _face(best, FINE * size)
    assert face is not None, "Pillow's own face needs FreeType, which every wheel of Pillow has"
    return face


# --- pixels ---


def _lay(picture: np.ndarray, patch: Patch, x: int, y: int) -> Area:
    """Lay a patch over the picture with its top left corner at x, y, moved inside where it would stick out."""
    height, width = picture.shape[:2]
    x, y = max(0, min(x, width - patch.width)), max(0, min(y, height - patch.height))
    part = picture[y : y + patch.height, x : x + patch.width]
    rows, columns = part.shape[:2]
    below = cv2.multiply(part, patch.through[:rows, :columns], scale=1 / 255)
    part[:] = cv2.add(below, patch.light[:rows, :columns])
    return x, y, patch.width, patch.height


def _patch(colours: np.ndarray, opacity: np.ndarray) -> Patch:
    light = np.rint(colours * opacity).astype(np.uint8)
    through = np.repeat(np.rint(255 * (1 - opacity)).astype(np.uint8), 3, axis=2)
    return Patch(light, through)


def _mixed(colours: np.ndarray, colour: Colour, ink: np.ndarray) -> np.ndarray:
    """`colour` over uint8 colours (height, width, 3) where ink, float (height, width, 1) in [0, 1], says so."""
    mixed: np.ndarray = np.rint(colours * (1 - ink) + np.array(colour) * ink).astype(np.uint8)
    return mixed


def _ink(text: str, font: ImageFont.FreeTypeFont, width: int, height: int, x: float, middle: float) -> np.ndarray:
    """One line of text, float32 (height, width, 1) in [0, 1], its small letters centred on the row `middle`."""
    canvas = Image.new("L", (FINE * width, FINE * height))
    # Capital letters, not the face's line height, are what the eye centres.
    top, bottom = font.getbbox("H", anchor="ls")[1::2]
    base = round(FINE * middle - (top + bottom) / 2)
    ImageDraw.Draw(canvas).text((FINE * x, base), text, 255, font, "ls", stroke_width=0.3 * FINE)
    return _unit(canvas)


def _rounded(width: int, height: int, radius: float) -> np.ndarray:
    """A filled rectangle with round corners, float32 (height, width, 1) in [0, 1]."""
    canvas = Image.new("L", (FINE * width, FINE * height))
    ImageDraw.Draw(canvas).rounded_rectangle((0, 0, FINE * width - 1, FINE * height - 1), FINE * radius, 255)
    return _unit(canvas)


def _sign(shape: str, width: int, height: int, x: float, radius: float) -> np.ndarray:
    """A "disc" or a "diamond" at column x in the middle row, float32 (height, width, 1) in [0, 1]."""
    canvas = Image.new("L", (FINE * width, FINE * height))
    pen, cx, cy, r = ImageDraw.Draw(canvas), FINE * x, FINE * height / 2, FINE * radius
    if shape == "disc":
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), 255)
    else:
        pen.polygon([(cx - r, cy), (cx, cy - 1.3 * r), (cx + r, cy), (cx, cy + 1.3 * r)], 255)
    return _unit(canvas)


def _unit(canvas: Image.Image) -> np.ndarray:
    """A canvas drawn `FINE` times too large, shrunk, float32 (height, width, 1) in [0, 1]."""
    return (np.asarray(canvas.reduce(FINE), np.float32) / 255)[..., None]


def _against(colour: Colour) -> Colour:
    """Black or white, whichever reads better on the colour (ITU-R BT.601 luma)."""
    return PANEL if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 110 else (255, 255, 255)


def _dark(colour: Colour) -> Colour:
    return (colour[0] // 6, colour[1] // 6, colour[2] // 6)


# --- video ---


class Captions:
    """The words of a video: the last instruction, its answer, and for a moment why the brain was asked again.

    Attributes:
        instruction: what the person said last.
        answer: what the model said to it, "" until it has.
        asked: why the brain was asked again, "" once this is `HOLD` seconds ago.
        choices: boxes of what could be chosen from, for `GLIMPSE` seconds: things move, and the boxes do not.
    """

    def __init__(self) -> None:
        self.instruction = self.answer = self.asked = ""
        self.choices: Sequence[Box] = ()
        self._until = self._offered_until = 0.0

    def hear(self, time: float, events: Iterable[EventRecord]) -> None:
        """Go on to the frame at `time`, in seconds of the source, with what happened since the one before."""
        if time > self._until:
            self.asked = ""
        if time > self._offered_until:
            self.choices = ()
        for event in events:
            if event.type == "instruction":
                self.instruction, self.answer, self.choices = str(event.data["text"]), "", ()
            elif event.type == "answer":
                self.answer = str(event.data["text"])
            elif event.type == "rethink":
                self.asked, self._until = str(event.data["reason"]), event.time + HOLD
            elif event.type == "choice":
                self.choices, self._offered_until = event.data["boxes"], event.time + GLIMPSE

    def on(self, frame: np.ndarray, result: Prediction | TrackRecord) -> np.ndarray:
        """`draw` with these words."""
        return draw(frame, result, self.instruction, self.answer, self.asked, self.choices)


def annotated(run: str | Path, frames: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[TrackRecord, np.ndarray]]:
    """The frames of a run with everything drawn on them.

    Args:
        run: a run folder, finished or cut.
        frames: pairs of source index and frame (uint8 RGB), in order; those without a record are left out.

    Yields:
        the record and the drawn frame, uint8 RGB.

    Raises:
        InputError: the run is damaged.
    """
    records, events, words = read_tracks(run), events_of_take(run), Captions()
    record, event = next(records, None), next(events, None)
    for index, frame in frames:
        while record is not None and record.index < index:
            record = next(records, None)
        if record is None:
            return
        if record.index == index:
            heard = []
            while event is not None and event.index <= index:
                heard.append(event)
                event = next(events, None)
            words.hear(record.time, heard)
            yield record, words.on(frame, record)


def export_overlay(run: str | Path, frames: Iterable[tuple[int, np.ndarray]]) -> Path:
    """Write video.mp4 into a run folder, by `VideoWriter` as while tracking: the source's own timing, and no sound.

    Args:
        run: a run folder, finished or cut.
        frames: pairs of source index and frame (uint8 RGB), in order.

    Returns:
        The file. Until it is complete the one that was there stays, and frames go to video.part.mp4.

    Raises:
        InputError: the run is damaged, or none of the frames belongs to it.
        OutputError: OUT02.
    """
    fps = _rate(run)
    drawn = annotated(run, frames)
    first = next(drawn, None)
    if first is None:
        raise InputError(f"{run}: none of the frames given belongs to this run; wanted the video it was made from")
    height, width = first[1].shape[:2]
    path, aspect = Path(run) / "video.mp4", _pixel_aspect(Path(run) / RUN)
    with VideoWriter(path, fps, (height, width), pixel_aspect=aspect, overwrite=True) as video:
        for record, picture in chain([first], drawn):
            video.write(at_size(picture, video.size), record.time)
    return video.path


def _rate(run: str | Path) -> float:
    """Frames per second of a run, from the times of its first and last frame; reads, and so checks, the whole log."""
    count, begin, end = 0, 0.0, 0.0
    for count, record in enumerate(read_tracks(run)):
        begin, end = (record.time if count == 0 else begin), record.time
    return count / (end - begin) if end > begin else DEFAULT_FPS


def _pixel_aspect(place: Path) -> Fraction:
    """Width by height of the source's pixels, from run.json; 1 where it does not say."""
    try:
        return Fraction(json.loads(place.read_text(encoding="utf-8"))["source"]["pixel_aspect"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ArithmeticError):
        return Fraction(1)


def at_size(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture in the size (height, width) that its video began with: a source may change its own."""
    if picture.shape[:2] == size:
        return picture
    return cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA)
