"""Pictures packed with sprites, and what each cell of a picture shows: samples from which a vision tower learns names.

An ordinary scene shows two to eight things and costs most of its time in painting the background. A mosaic shows dozens
on a background from a pool that is painted once, so that a tower sees ten times as many things in the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache

import cv2
import numpy as np

from trackgpt.geometry.letterbox import fit
from trackgpt.synthtrack.background import background
from trackgpt.synthtrack.catalog import BY_NAME, CATEGORIES, COLOURS, HELD_OUT_PAIRS
from trackgpt.synthtrack.clips import frame_size
from trackgpt.synthtrack.render import boxes_of, render
from trackgpt.synthtrack.scene import Actor, Scene
from trackgpt.synthtrack.world import make_scene
from train.codes import CATEGORY_NAMES, COLOUR_NAMES

CATEGORY_INDEX = {name: i for i, name in enumerate(CATEGORY_NAMES)}
COLOUR_INDEX = {name: i for i, name in enumerate(COLOUR_NAMES)}
GROUNDS = 300
"""Backgrounds in the pool of mosaics."""
MOST = 250
"""Sprites of a mosaic; ids are bytes."""
FIRST_GROUND = 60_000_000
"""Scenes from here on lend their backgrounds to mosaics."""
NAMED = 0.15
"""Share of a cell that a thing must fill to give the cell its name."""


@dataclass(frozen=True)
class DrawnSquare:
    """A square picture and the things in it.

    Attributes:
        frame: uint8 (side, side, 3) RGB.
        ids: uint8 (side, side), 0 where no thing is, else 1 + its row in the other fields.
        category, colour: int64 (n,), indices.
        boxes: float32 (n, 4), xyxy in fractions of the square; of the visible part, NaN for a thing that is hidden.
        shape: (height, width) of the frame in fractions of the square.
    """

    frame: np.ndarray
    ids: np.ndarray
    category: np.ndarray
    colour: np.ndarray
    boxes: np.ndarray
    shape: tuple[float, float]


def mosaic(seed: int, side: int, pitch: tuple[float, float], full: bool = False) -> DrawnSquare:
    """A picture packed with sprites on a jittered grid, in random order of depth, in SynthTrack's light and noise.

    Args:
        seed: determines the picture.
        side: of the square, pixels.
        pitch: least and greatest distance of the grid's points, in units of the shorter side of the frame.
        full: the picture fills its square, whatever the aspect of its background's scene.
    """
    rng = np.random.default_rng([seed, 77])
    number = int(rng.integers(GROUNDS))
    scene = _ground_scene(number, full)
    wide, high = (length / min(scene.aspect) for length in scene.aspect)
    step = float(np.exp(rng.uniform(*np.log(pitch))))
    keep = 0.93 if rng.random() < 0.7 else 0.6
    shift = rng.random(2) * step
    actors: list[Actor] = []
    for row in range(int(np.ceil(high / step)) + 1):
        for column in range(int(np.ceil(wide / step)) + 1):
            if rng.random() < keep and len(actors) < MOST:
                spot = (np.array([column, row]) + 0.5 + 0.35 * (rng.random(2) - 0.5)) * step - shift
                actors.append(_still(rng, len(actors) + 1, spot / (wide, high), step * rng.uniform(0.85, 1.3)))
    effects = {**scene.effects, "jitter": 0.0, "blur": 0.0}
    drawn = replace(scene, seed=seed, kind="free", actors=tuple(actors), effects=effects)
    size = frame_size(scene.aspect, side)
    ground = _ground(number, full, *size)
    if rng.random() < 0.5:
        ground = np.ascontiguousarray(ground[:, ::-1])
    return picture_of(drawn, *render(drawn, 0, *size, ground=ground), side)


def ordinary(seed: int, side: int, views: int = 2) -> list[DrawnSquare]:
    """Frames of one scene of the train split, drawn up to twice as large and scaled down, as inference sees them."""
    rng = np.random.default_rng([seed, 1])
    scene = make_scene(seed, frames=24)
    pictures = []
    for t in rng.choice(scene.frames, views, replace=False):
        size = frame_size(scene.aspect, round(side * rng.choice([1.0, 1.25, 1.5])))
        pictures.append(picture_of(scene, *render(scene, int(t), *size), side))
    return pictures


def picture_of(scene: Scene, rgb: np.ndarray, ids: np.ndarray, side: int) -> DrawnSquare:
    """A rendered frame and its id map in a padded square."""
    box = fit(rgb.shape[:2], side)
    square = np.zeros((side, side), np.uint8)
    square[: box.height, : box.width] = cv2.resize(ids, (box.width, box.height), interpolation=cv2.INTER_NEAREST)
    boxes = np.full((len(scene.actors), 4), np.nan, np.float32)
    for number, found in boxes_of(ids).items():
        boxes[number - 1] = found
    boxes *= np.array([box.width / rgb.shape[1], box.height / rgb.shape[0]] * 2, np.float32) / side
    category = np.array([CATEGORY_INDEX[actor.category] for actor in scene.actors], np.int64)
    colour = np.array([COLOUR_INDEX[actor.colour] for actor in scene.actors], np.int64)
    return DrawnSquare(box.apply(rgb), square, category, colour, boxes, (box.height / side, box.width / side))


def cells_of(picture: DrawnSquare, cells: int) -> np.ndarray:
    """Row of the thing that fills most of each cell of a grid, int64 (cells, cells); -1 where none fills `NAMED`."""
    step = len(picture.ids) // cells
    at = np.arange(len(picture.ids)) // step
    n = len(picture.category) + 1
    label = (at[:, None] * cells + at[None]) * n + picture.ids
    share = np.bincount(label.ravel(), minlength=cells * cells * n).reshape(cells, cells, n) / (step * step)
    best = share[..., 1:].argmax(-1) if n > 1 else np.zeros((cells, cells), np.int64)
    filled = np.take_along_axis(share, best[..., None] + 1, -1)[..., 0] if n > 1 else np.zeros((cells, cells))
    return np.where(filled > NAMED, best, -1)


def token_labels(picture: DrawnSquare, tokens: int, placed: bool = True) -> dict[str, np.ndarray]:
    """What each cell of a grid of tokens shows.

    Returns:
        "category" and "colour" int64 (tokens, tokens), -1 where there is nothing to name; "box" float32 (tokens,
        tokens, 4), of the whole thing, and "region" of its middle, as answers name it: NaN and -1 where there is
        nothing, and everywhere where the picture is not `placed` in its square.
    """
    shown = cells_of(picture, tokens)
    there = (shown >= 0) & placed
    some = picture.boxes if len(picture.boxes) else np.zeros((1, 4), np.float32)
    boxes = np.where(there[..., None], some[np.maximum(shown, 0)], np.nan)
    height, width = picture.shape
    middle = (boxes[..., 0] + boxes[..., 2]) / 2 / width, (boxes[..., 1] + boxes[..., 3]) / 2 / height
    column, row = (np.clip(3 * np.nan_to_num(part), 0, 2).astype(np.int64) for part in middle)
    return {
        "category": looked_up(picture.category, shown),
        "colour": looked_up(picture.colour, shown),
        "region": np.where(there, 3 * row + column, -1),
        "box": boxes.astype(np.float32),
    }


def looked_up(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Entries of a table by rows, -1 where the row is."""
    return np.where(rows >= 0, table[np.maximum(rows, 0)], -1) if len(table) else np.full(rows.shape, -1)


def shares_of(ids: np.ndarray, number: int, cells: int) -> np.ndarray:
    """How much of each cell of a grid an id fills, float32 (cells * cells,)."""
    step = len(ids) // cells
    return (ids == number).reshape(cells, step, cells, step).mean((1, 3), dtype=np.float32).ravel()


def window(picture: DrawnSquare, corner: tuple[int, int], side: int) -> DrawnSquare:
    """A square part of a picture; boxes stay those of the whole one.

    Args:
        picture: the whole.
        corner: row and column of the part's first pixel.
        side: of the part, pixels.
    """
    y, x = corner
    part = slice(y, y + side), slice(x, x + side)
    return DrawnSquare(
        picture.frame[part], picture.ids[part], picture.category, picture.colour, picture.boxes, picture.shape
    )


def _still(rng: np.random.Generator, number: int, spot: np.ndarray, extent: float) -> Actor:
    category, colour = _look(rng)
    turn = 22.0 * rng.random()
    return Actor(
        number,
        category,
        colour,
        "small",
        float(rng.random()),
        spot[None].astype(np.float32),
        np.array([extent], np.float32),
        np.array([rng.uniform(-turn, turn)], np.float32),
        bool(rng.random() < 0.5),
        np.ones(1, bool),
        "still",
    )


def _look(rng: np.random.Generator) -> tuple[str, str]:
    """A category with a colour that the train split may show with it; a quarter of the glyphs in their own colours."""
    category = CATEGORIES[int(rng.integers(len(CATEGORIES)))].name
    if BY_NAME[category].glyph and rng.random() < 0.25:
        return category, "natural"
    allowed = [colour for colour in COLOURS if (category, colour) not in HELD_OUT_PAIRS]
    return category, allowed[int(rng.integers(len(allowed)))]


@cache
def _ground_scene(number: int, full: bool) -> Scene:
    scene = make_scene(FIRST_GROUND + number, frames=1)
    return replace(scene, aspect=(1, 1)) if full else scene


@lru_cache(maxsize=2 * GROUNDS)
def _ground(number: int, full: bool, height: int, width: int) -> np.ndarray:
    made = background(_ground_scene(number, full), 0, height, width)
    made.setflags(write=False)
    return made
