"""Draws a contact sheet of pictures: some of each image set, what is asked for outlined, the words below.

Sizes are those of `contact_sheet`, which draws videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from data_tools.contact_sheet import (
    CARD,
    FINE,
    GAP,
    HEAD,
    INK,
    MARGIN,
    PADDING,
    PAPER,
    SIDE,
    SOFT,
    TARGETS,
    WIDTH,
    Pen,
    outline,
    wrapped,
)

COLUMNS = 5
CELL = (SIDE + WIDTH - (COLUMNS - 1) * 2 * GAP) / COLUMNS  # width
TALL = 0.75 * CELL  # height of a picture at most
LINES = 5  # of a text at most
TITLE, TEXT, NAME = 22, 15, 12
_STEP = {TEXT: 21, NAME: 17}


@dataclass(frozen=True)
class Picture:
    """A picture of a sheet.

    Attributes:
        name: of the sample.
        text: what is asked, or said.
        image: uint8 RGB (height, width, 3).
        mask: what is meant, bool (height, width); None where nothing is.
        ignored: pixels that are not scored, bool (height, width), or None.
    """

    name: str
    text: str
    image: np.ndarray
    mask: np.ndarray | None = None
    ignored: np.ndarray | None = None


@dataclass(frozen=True)
class _Cell:
    """A picture, measured: its lines of text and the size of its image in pixels of the sheet."""

    picture: Picture
    lines: list[tuple[str, int]]
    size: tuple[float, float]

    @property
    def height(self) -> float:
        return TALL + 12 + sum(_STEP[size] for _, size in self.lines) + 14


def _measure(picture: Picture) -> _Cell:
    height, width = picture.image.shape[:2]
    scale = min(CELL / width, TALL / height)
    said = wrapped(picture.text, TEXT, CELL)
    cut = [*said[: LINES - 1], f"{said[LINES - 1]} ..."] if len(said) > LINES else said
    named = [(line, NAME) for line in wrapped(picture.name, NAME, CELL)[:1]]
    return _Cell(picture, [*((line, TEXT) for line in cut), *named], (width * scale, height * scale))


def draw_pictures(title: str, subtitle: str, groups: Sequence[tuple[str, Sequence[Picture]]]) -> Image.Image:
    """Draw a sheet.

    Args:
        title: the headline.
        subtitle: a line below it.
        groups: the name of a set and some pictures of it, from the top; `COLUMNS` stand side by side.

    Returns:
        RGB, as high as the pictures need.
    """
    rows = [(name, list(_rows([_measure(one) for one in pictures]))) for name, pictures in groups]
    heights = [2 * PADDING + 38 + sum(max(cell.height for cell in row) for row in cells) for _, cells in rows]
    width = 2 * MARGIN + 2 * PADDING + SIDE + WIDTH
    height = HEAD + MARGIN + sum(heights) + 24 * (len(rows) - 1)
    canvas = Image.new("RGB", (width * FINE, round(height) * FINE), PAPER)
    pen = Pen(canvas)
    pen.text(MARGIN + 4, 48, title, 30, INK, heavy=True)
    pen.text(MARGIN + 4, 80, subtitle, 15, SOFT)
    y = float(HEAD)
    for (name, cells), tall in zip(rows, heights, strict=True):
        pen.plate(MARGIN, y, width - 2 * MARGIN, tall, CARD, 14)
        pen.text(MARGIN + PADDING, y + PADDING + 8, name, TITLE, INK, heavy=True)
        _draw_rows(pen, cells, MARGIN + PADDING, y + PADDING + 38)
        y += tall + 24
    return canvas.reduce(FINE)


def _rows(cells: Sequence[_Cell]) -> list[Sequence[_Cell]]:
    return [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]


def _draw_rows(pen: Pen, rows: Sequence[Sequence[_Cell]], left: float, y: float) -> None:
    for row in rows:
        for k, cell in enumerate(row):
            _draw_cell(pen, cell, left + k * (CELL + 2 * GAP), y)
        y += max(cell.height for cell in row)


def _draw_cell(pen: Pen, cell: _Cell, x: float, y: float) -> None:
    size = (round(cell.size[0] * FINE), round(cell.size[1] * FINE))
    picture = _marked(cell.picture, size)
    corners = Image.new("L", size, 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), 7 * FINE, 255)
    pen.canvas.paste(Image.fromarray(picture), (round(x * FINE), round((y + TALL - cell.size[1]) * FINE)), corners)
    y += TALL + 12
    for line, letters in cell.lines:
        pen.text(x, y + _STEP[letters] / 2, line, letters, INK if letters == TEXT else SOFT)
        y += _STEP[letters]


def _marked(picture: Picture, size: tuple[int, int]) -> np.ndarray:
    """A picture at a size (width, height), its mask outlined and what is ignored hatched."""
    shrink = picture.image.shape[1] > size[0]
    drawn = cv2.resize(picture.image, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
    if picture.ignored is not None:
        unscored = cv2.resize(picture.ignored.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        drawn[unscored & ((across + down) % 12 < 4)] = 255
    if picture.mask is not None and picture.mask.any():
        outline(drawn, picture.mask, TARGETS[0])
    return drawn
