"""A batch of samples as one picture: frames in rows, true masks outlined in the colours of their <TK>s, words below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import shorten

import cv2
import numpy as np
from PIL import Image, ImageDraw

from trackgpt.geometry.letterbox import fit
from train.sources import TrackingSample, small

CELL = 192
TEXT = 60
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (213, 94, 0), (240, 228, 66))
LINES = 4
PIXELS = 6  # a letter's width


def sheet(samples: Sequence[TrackingSample], most: int = 6) -> np.ndarray:
    """Up to `most` samples, one per row: uint8 RGB (height, width, 3)."""
    rows = [_row(sample) for sample in samples[:most]]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)


def _row(sample: TrackingSample) -> np.ndarray:
    if len(sample.frames):
        cells = [_cell(frame, on_grid(sample.masks[:, t], len(frame))) for t, frame in enumerate(sample.frames)]
    else:
        cells = [_cell(sample.read, ())]
    row = np.concatenate(cells, axis=1)
    strip = Image.new("RGB", (max(row.shape[1], 3 * CELL), TEXT), "white")
    draw = ImageDraw.Draw(strip)
    words = [sample.source, *(f"{asked} | {said}" for dialogue in sample.turns for asked, said in dialogue)]
    for line, text in enumerate(words[:LINES]):
        draw.text((4, 2 + 14 * line), shorten(text, strip.width // PIXELS, placeholder=" ..."), "black")
    row = np.pad(row, ((0, 0), (0, strip.width - row.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([row, np.asarray(strip)])


def on_grid(masks: np.ndarray, side: int) -> list[np.ndarray]:
    """Masks, bool (n, h, w), as they lie in the square; those of the decoder's grid stay as they are."""
    return [small(mask, fit(mask.shape, side)) for mask in masks]


def _cell(frame: np.ndarray, masks: Iterable[np.ndarray]) -> np.ndarray:
    picture = cv2.resize(frame, (CELL, CELL), interpolation=cv2.INTER_AREA)
    for k, mask in enumerate(masks):
        large = cv2.resize(mask.astype(np.uint8), (CELL, CELL), interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, COLOURS[k % len(COLOURS)], 2)
    return picture
