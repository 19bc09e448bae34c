"""Draws a contact sheet: a card for each video with frames over time, outlined targets, what was said and answered.

Everything is measured in pixels of the finished sheet and drawn `FINE` times as large, then shrunk, for smooth edges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

FINE = 2
WIDTH = 1400  # of the frames of a card
SIDE = 168
GAP = 8
PADDING = 28
MARGIN = 44
FRAME_HEIGHT = 186  # aimed at; the count of frames is chosen so that they fill the width
CARD_GAP = 24
HEAD = 104

INK: Colour = (28, 34, 44)
SOFT: Colour = (92, 100, 114)
FAINT: Colour = (208, 213, 221)
PAPER: Colour = (242, 244, 247)
CARD: Colour = (255, 255, 255)
WHITE: Colour = (255, 255, 255)

# Okabe and Ito's colours, which people with any colour vision tell apart, without yellow, which white drowns.
TARGETS: tuple[Colour, ...] = (
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)
TAGS: dict[str, tuple[Colour, Colour]] = {
    "explicit": ((220, 235, 250), (14, 72, 120)),
    "implicit": ((236, 226, 248), (84, 44, 130)),
    "multi": ((253, 236, 200), (118, 74, 0)),
    "none": ((229, 231, 235), (66, 72, 84)),
    "expression": ((217, 242, 232), (0, 90, 66)),
}
DIFFICULTIES = ("easy", "medium", "hard")
BADGE = 20
_ENDS = (";", ".", ",")
_QUERIES = re.compile(r"(?:(?<!\s)\s+)?<TK>, <PO>")


@dataclass(frozen=True)
class SheetLine:
    """One instruction: its kind, its text, the answer (or ""), the ids of its targets; kinds in `TAGS` have colours."""

    kind: str
    text: str
    answer: str
    targets: tuple[int, ...]


@dataclass(frozen=True)
class SheetRow:
    """One video of a sheet.

    Attributes:
        title: its name.
        difficulty: one of `DIFFICULTIES`, or "".
        facts: short lines for the side.
        frames: uint8 RGB pictures to show, (height, width, 3), in order.
        shown: the index of each of them.
        total: frames of the video.
        ids: uint8 (total, height, width), or None where the truth is not known.
        lines: instructions.
        events: (frame, what, id).
    """

    title: str
    difficulty: str
    facts: tuple[str, ...]
    frames: Sequence[np.ndarray]
    shown: Sequence[int]
    total: int
    ids: np.ndarray | None
    lines: tuple[SheetLine, ...]
    events: tuple[tuple[int, str, int], ...] = ()

    @property
    def numbers(self) -> dict[int, int]:
        """The number, from 1, under which each target is shown: the order in which lines name them."""
        return {target: k for k, target in enumerate(dict.fromkeys(t for one in self.lines for t in one.targets), 1)}


def columns(aspect: float) -> int:
    """How many frames of an aspect (width over height) stand side by side: 5 to 8, about `FRAME_HEIGHT` high."""
    return min(range(5, 9), key=lambda count: abs(_frame_width(count) / aspect - FRAME_HEIGHT))


def spread(total: int, aspect: float) -> list[int]:
    """Indices of the frames to show, from the first to the last."""
    return [int(index) for index in np.unique(np.linspace(0, total - 1, columns(aspect)).round())]


def _frame_width(count: int) -> float:
    return (WIDTH - GAP * (count - 1)) / count


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * FINE)


class Pen:
    """Draws on a canvas `FINE` times as large as the coordinates it is given."""

    def __init__(self, canvas: Image.Image) -> None:
        self.canvas = canvas
        self.draw = ImageDraw.Draw(canvas)

    def text(self, x: float, y: float, text: str, size: int, colour: Colour, heavy: bool = False) -> None:
        """Text with its left end at x and its capitals' middle at y."""
        place = (x * FINE, (y + 0.36 * size) * FINE)
        self.draw.text(place, text, colour, _font(size), anchor="ls", stroke_width=0.35 * FINE if heavy else 0)

    def plate(self, x: float, y: float, width: float, height: float, colour: Colour, radius: float) -> None:
        """A rounded rectangle with its top left corner at x, y."""
        box = (x * FINE, y * FINE, (x + width) * FINE - 1, (y + height) * FINE - 1)
        self.draw.rounded_rectangle(box, radius * FINE, colour)

    def badge(self, x: float, y: float, number: int, radius: float = 9) -> None:
        """A target's number on a disc of its colour about x, y."""
        for size, colour in ((radius + 1.5, WHITE), (radius, colour_of(number))):
            box = ((x - size) * FINE, (y - size) * FINE, (x + size) * FINE, (y + size) * FINE)
            self.draw.ellipse(box, colour)
        font = _font(round(1.4 * radius))
        self.draw.text((x * FINE, (y + 0.5 * radius) * FINE), str(number), WHITE, font, "ms", stroke_width=0.3 * FINE)


def colour_of(number: int) -> Colour:
    """The colour of a target's number."""
    return TARGETS[(number - 1) % len(TARGETS)]


def length(text: str, size: int) -> float:
    """The width of a text in pixels of the sheet."""
    return _font(size).getlength(text) / FINE


class _Word(NamedTuple):
    """A word, the badge behind it for a number above 0, what ends the clause, and the width of it all with a space."""

    text: str
    width: float
    number: int = 0
    end: str = ""


def _flow(words: list[_Word], width: float) -> list[list[_Word]]:
    """Words in lines of at most a width, at least one line."""
    rows: list[list[_Word]] = [[]]
    used = 0.0
    for word in words:
        if rows[-1] and used + word.width > width:
            rows.append([])
            used = 0.0
        rows[-1].append(word)
        used += word.width
    return rows


def _words(text: str, size: int, numbers: Sequence[int] = ()) -> list[_Word]:
    """The words of an answer; the word before a target's queries carries its badge, so that no line begins with one."""
    found = []
    space = length(" ", size)
    pieces = [piece.split() for piece in _QUERIES.split(text)]
    for k, words in enumerate(pieces):
        found += [_Word(word, length(word, size) + space) for word in words]
        if k + 1 < len(pieces) and k < len(numbers) and words:
            after = pieces[k + 1]
            found[-1] = _badged(words[-1], size, numbers[k], after.pop(0) if after and after[0] in _ENDS else "")
    return found


def _badged(word: str, size: int, number: int, end: str = "") -> _Word:
    return _Word(word, length(word, size) + length(f" {end}", size) + BADGE + 4, number, end)


def wrapped(text: str, size: int, width: float) -> list[str]:
    """A text in lines of at most a width."""
    return [" ".join(word.text for word in words) for words in _flow(_words(text, size), width)]


@dataclass(frozen=True)
class _Said:
    """One instruction, broken into lines for a column."""

    line: SheetLine
    asked: list[list[_Word]]
    answered: list[list[_Word]]
    after_tag: float

    @property
    def height(self) -> float:
        return 26 * len(self.asked) + 22 * len(self.answered) + 16


ASKED, ANSWERED = 18, 15


def _say(row: SheetRow, line: SheetLine, width: float) -> _Said:
    indent = max(length(one.kind, 13) for one in row.lines) + 32
    numbers = [row.numbers[target] for target in line.targets]
    asked = _words(f"\u201c{line.text}\u201d", ASKED)
    if not line.answer:
        asked += [_badged(asked.pop().text if k == 0 else "", ASKED, number) for k, number in enumerate(numbers)]
    answered = _flow(_words(line.answer, ANSWERED, numbers), width - indent) if line.answer else []
    return _Said(line, _flow(asked, width - indent), answered, indent)


@dataclass(frozen=True)
class _Card:
    """A row, measured.

    Attributes:
        columns: instructions, in two columns.
        frame: width and height of a frame.
        bars: height of the bars that show when targets are in sight.
    """

    row: SheetRow
    columns: tuple[list[_Said], list[_Said]]
    frame: tuple[float, float]
    bars: float

    @property
    def height(self) -> float:
        said = max(sum(one.height for one in column) for column in self.columns)
        return 2 * PADDING + self.frame[1] + 26 + self.bars + 14 + max(said - 16, 0)


def _measure(row: SheetRow) -> _Card:
    width = (WIDTH - 32) / 2
    said = [_say(row, line, width) for line in row.lines]
    left: list[_Said] = []
    right: list[_Said] = []
    for k, one in enumerate(said):
        (left if k < (len(said) + 1) // 2 else right).append(one)
    height, across = row.frames[0].shape[:2]
    wide = _frame_width(columns(across / height))
    bars = sum(_bar_height(row, target) for target in row.numbers) if row.ids is not None else 0.0
    return _Card(row, (left, right), (wide, wide * height / across), bars)


def _bar_height(row: SheetRow, target: int) -> float:
    return 36 if any(actor == target for _, _, actor in row.events) else 20


def draw_sheet(title: str, subtitle: str, rows: Sequence[SheetRow]) -> Image.Image:
    """Draw a sheet.

    Args:
        title: the headline.
        subtitle: a line below it.
        rows: videos, from the top.

    Returns:
        RGB, as high as the rows need.
    """
    cards = [_measure(row) for row in rows]
    width = 2 * MARGIN + 2 * PADDING + SIDE + WIDTH
    height = HEAD + MARGIN + sum(card.height + CARD_GAP for card in cards) - CARD_GAP + 10
    canvas = Image.new("RGB", (width * FINE, round(height) * FINE), PAPER)
    pen = Pen(canvas)
    pen.text(MARGIN + 4, 48, title, 30, INK, heavy=True)
    pen.text(MARGIN + 4, 80, subtitle, 15, SOFT)
    y = float(HEAD)
    for card in cards:
        pen.plate(MARGIN, y, width - 2 * MARGIN, card.height, CARD, 14)
        _draw_card(pen, card, MARGIN + PADDING, y + PADDING)
        y += card.height + CARD_GAP
    return canvas.reduce(FINE)


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets one below another."""
    canvas = Image.new("RGB", (max(one.width for one in sheets), sum(one.height for one in sheets)), PAPER)
    y = 0
    for one in sheets:
        canvas.paste(one, (0, y))
        y += one.height
    return canvas


def _draw_card(pen: Pen, card: _Card, x: float, y: float) -> None:
    row = card.row
    _draw_side(pen, row, x, y)
    x += SIDE
    for k, (frame, index) in enumerate(zip(row.frames, row.shown)):
        left = x + k * (card.frame[0] + GAP)
        _draw_frame(pen, card, frame, index, left, y)
    y += card.frame[1] + 26
    if row.ids is not None:
        for target, number in row.numbers.items():
            _draw_bar(pen, row, target, number, x, y)
            y += _bar_height(row, target)
    y += 14
    for k, column in enumerate(card.columns):
        top, left = y, x + k * ((WIDTH - 32) / 2 + 32)
        for said in column:
            _draw_said(pen, said, left, top)
            top += said.height


def _draw_side(pen: Pen, row: SheetRow, x: float, y: float) -> None:
    for line in wrapped(row.title.replace("_", " "), 19, SIDE - 16):
        pen.text(x, y + 9, line, 19, INK, heavy=True)
        y += 26
    if row.difficulty in DIFFICULTIES:
        level = DIFFICULTIES.index(row.difficulty) + 1
        for k in range(3):
            pen.plate(x + 15 * k, y + 7, 10, 10, INK if k < level else FAINT, 5)
        pen.text(x + 53, y + 12, row.difficulty, 15, INK)
        y += 28
    for fact in row.facts:
        for line in wrapped(fact, 14, SIDE - 16):
            pen.text(x, y + 10, line, 14, SOFT)
            y += 21


def _draw_frame(pen: Pen, card: _Card, frame: np.ndarray, index: int, x: float, y: float) -> None:
    """One frame with its targets outlined and numbered; those out of sight are named in its corner."""
    row = card.row
    size = (round(card.frame[0] * FINE), round(card.frame[1] * FINE))
    shrink = frame.shape[1] > size[0]
    picture = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
    ids = None if row.ids is None else row.ids[index]
    if ids is not None:
        for target, number in row.numbers.items():
            outline(picture, ids == target, colour_of(number))
    corners = Image.new("L", size, 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), 7 * FINE, 255)
    pen.canvas.paste(Image.fromarray(picture), (round(x * FINE), round(y * FINE)), corners)
    gone = []
    for target, number in row.numbers.items():
        place = None if ids is None else _above(ids == target)
        if place is not None:
            across = min(max(place[0] * card.frame[0], 13), card.frame[0] - 13)
            pen.badge(x + across, y + min(max(place[1] * card.frame[1] - 9, 13), card.frame[1] - 13), number)
        elif ids is not None:
            gone.append(number)
    if gone:
        wide = 21 * len(gone) + length("out of sight", 13) + 18
        pen.plate(x + 7, y + card.frame[1] - 33, wide, 26, WHITE, 13)
        for k, number in enumerate(gone):
            pen.badge(x + 21 + 21 * k, y + card.frame[1] - 20, number, 8)
        pen.text(x + 13 + 21 * len(gone), y + card.frame[1] - 20, "out of sight", 13, INK)
    pen.text(x + 2, y + card.frame[1] + 13, f"frame {index}", 13, SOFT)


def outline(picture: np.ndarray, mask: np.ndarray, colour: Colour) -> None:
    """Draws a mask's edge in a colour between two white lines, in place."""
    size = (picture.shape[1], picture.shape[0])
    smooth = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    edges, _ = cv2.findContours((smooth > 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, edges, -1, WHITE, 4 * FINE, cv2.LINE_AA)
    cv2.drawContours(picture, edges, -1, colour, round(2.2 * FINE), cv2.LINE_AA)


def _above(mask: np.ndarray) -> tuple[float, float] | None:
    """The middle of the top edge of a mask's box, as fractions of the frame; None for an empty mask."""
    rows, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return float(across[0] + across[-1] + 1) / 2 / mask.shape[1], float(rows[0]) / mask.shape[0]


def _draw_bar(pen: Pen, row: SheetRow, target: int, number: int, x: float, y: float) -> None:
    """A target over time: a full bar where it is in sight, a thin line where not, a tick and a word at its events."""
    assert row.ids is not None
    left, right = x + 26, x + WIDTH
    step = (right - left) / row.total
    pen.badge(x + 9, y + 10, number, 8)
    pen.plate(left, y + 9, right - left, 2, FAINT, 1)
    for begin, end in _runs((row.ids == target).any(axis=(1, 2))):
        pen.plate(left + begin * step, y + 6, (end - begin) * step, 8, colour_of(number), 4)
    free = left
    for frame, what, actor in row.events:
        if actor != target:
            continue
        place = left + frame * step
        pen.plate(place - 1, y + 2, 2, 16, INK, 1)
        wide = length(f"{frame} {what}", 12)
        start = min(place - 1, right - wide)
        if start >= free:
            pen.text(start, y + 25, f"{frame} {what}", 12, SOFT)
            free = start + wide + 10


def _runs(flags: np.ndarray) -> Iterator[tuple[int, int]]:
    """Begin and end of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _draw_said(pen: Pen, said: _Said, x: float, y: float) -> None:
    paper, ink = TAGS.get(said.line.kind, TAGS["expression"])
    pen.plate(x, y + 2, length(said.line.kind, 13) + 20, 22, paper, 11)
    pen.text(x + 10, y + 13, said.line.kind, 13, ink)
    for words, size, colour, step in (
        *((words, ASKED, INK, 26) for words in said.asked),
        *((words, ANSWERED, SOFT, 22) for words in said.answered),
    ):
        place = x + said.after_tag
        for word in words:
            pen.text(place, y + step / 2, word.text, size, colour)
            if word.number:
                after = place + length(word.text, size) + 4
                pen.badge(after + 9, y + step / 2, word.number, 8)
                pen.text(after + BADGE, y + step / 2, word.end, size, colour)
            place += word.width
        y += step
