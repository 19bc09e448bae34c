"""Training samples from SynthTrack, rendered on the fly: sample i of a stage is a function of its seed alone.

Worker processes call these functions; everything returned is numpy, so that it crosses processes cheaply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from trackgpt.geometry.letterbox import fit
from trackgpt.synthtrack.clips import frame_size, scene_expressions, seen_actors
from trackgpt.synthtrack.language import Seen
from trackgpt.synthtrack.questions import describe_scene, knowledge, questions
from trackgpt.synthtrack.render import render
from trackgpt.synthtrack.scene import Scene, SceneInstruction
from trackgpt.synthtrack.world import make_scene
from train.codes import CATEGORY_NAMES, COLOUR_NAMES

CATEGORY_INDEX = {name: i for i, name in enumerate(CATEGORY_NAMES)}
COLOUR_INDEX = {name: i for i, name in enumerate(COLOUR_NAMES)}


@dataclass(frozen=True)
class RenderedFrame:
    """One rendered frame in its padded square.

    Attributes:
        rgb: uint8 (height, width, 3), the frame as rendered, before scaling and padding.
        frame: uint8 (side, side, 3) RGB.
        ids: uint8 (side, side), 0 in the background and in the padding.
        seen: the visible actors, boxes in fractions of the frame.
        boxes: float32 (n, 4) of `seen`, xyxy in fractions of the padded square.
    """

    rgb: np.ndarray
    frame: np.ndarray
    ids: np.ndarray
    seen: tuple[Seen, ...]
    boxes: np.ndarray


def render_square(scene: Scene, t: int, side: int, oversample: float = 1.0) -> RenderedFrame:
    """Render frame t of a scene into a padded square, `oversample` times larger before it is scaled down."""
    size = frame_size(scene.aspect, round(side * oversample))
    rgb, ids = render(scene, t, *size)
    box = fit(size, side)
    square_ids = np.zeros((side, side), np.uint8)
    square_ids[: box.height, : box.width] = cv2.resize(ids, (box.width, box.height), interpolation=cv2.INTER_NEAREST)
    seen = seen_actors(scene, t, ids)
    scale = np.array([box.width, box.height, box.width, box.height], np.float32) / side
    boxes = np.array([s.box for s in seen], np.float32).reshape(-1, 4) * scale
    return RenderedFrame(rgb, box.apply(rgb), square_ids, seen, boxes)


def cell_labels(view: RenderedFrame, cells: int) -> dict[str, np.ndarray]:
    """What each cell of a grid over the square shows: int64 (cells, cells) indices, -1 where there is nothing to name.

    "category" and "colour" of the actor that fills at least 30 % of the cell; "region" of the frame's 3 x 3 parts.
    """
    side = view.ids.shape[0]
    step = side // cells
    best = np.full((cells, cells), 0.3, np.float32)
    labels = {name: np.full((cells, cells), -1, np.int64) for name in ("category", "colour", "region")}
    for actor in view.seen:
        share = (view.ids == actor.id).reshape(cells, step, cells, step).mean(axis=(1, 3), dtype=np.float32)
        here = share > best
        best = np.where(here, share, best)
        labels["category"][here] = CATEGORY_INDEX[actor.category]
        labels["colour"][here] = COLOUR_INDEX[actor.colour]
    height, width = (size / max(view.rgb.shape[:2]) for size in view.rgb.shape[:2])
    middle = (np.arange(cells) + 0.5) / cells
    third = np.floor(3 * middle[:, None] / height), np.floor(3 * middle[None] / width)
    inside = (third[0] < 3) & (third[1] < 3)
    labels["region"][inside] = (3 * third[0] + third[1])[inside].astype(np.int64)
    return labels


def words_sample(seed: int, side: int, views: int = 2) -> dict[str, np.ndarray]:
    """Frames with dense labels per stride-16 cell."""
    rng = np.random.default_rng([seed, 1])
    scene = make_scene(seed, frames=24)
    out: dict[str, list[np.ndarray]] = {"frames": [], "category": [], "colour": [], "region": []}
    for t in rng.choice(scene.frames, views, replace=False):
        view = render_square(scene, int(t), side, rng.choice([1.0, 1.5, 2.0]))
        out["frames"].append(view.frame)
        for name, labels in cell_labels(view, side // 16).items():
            out[name].append(labels)
    return {key: np.stack(value) for key, value in out.items()}


def masks_sample(seed: int, side: int, frames: int = 3, targets: int = 2) -> dict[str, np.ndarray]:
    """A clip of frames (I_0, I_t, I_t+1, ...) with targets named by what they are and where they were at first.

    A target may be an actor of the scene or, rarely, a category that is not there (its truth is empty).
    """
    rng = np.random.default_rng([seed, 2])
    scene = make_scene(seed, frames=32)
    times = clip_times(scene.frames, frames, rng)
    views = [render_square(scene, t, side, rng.choice([1.0, 1.5])) for t in times]
    dense = [cell_labels(view, side // 16) for view in views]
    boxes, category, colour, masks = [], [], [], []
    seen = [s for s in views[0].seen if s.visible_fraction > 0.4 and s.area > 0.002]
    picks = rng.permutation(len(seen))
    for k in range(targets):
        if k < len(picks) and rng.random() > 0.06:
            actor = seen[picks[k]]
            row = views[0].seen.index(actor)
            boxes.append(views[0].boxes[row])
            category.append(CATEGORY_INDEX[actor.category])
            colour.append(COLOUR_INDEX[actor.colour])
            masks.append([small_mask(view.ids == actor.id) for view in views])
        else:
            absent = [
                n for n in range(len(CATEGORY_NAMES)) if all(CATEGORY_INDEX[a.category] != n for a in scene.actors)
            ]
            x, y, s = rng.random(3) * [0.7, 0.7, 0.3]
            boxes.append(np.array([x, y, x + 0.1 + s, y + 0.1 + s], np.float32))
            category.append(int(rng.choice(absent)))
            colour.append(int(rng.integers(len(COLOUR_NAMES))))
            masks.append([np.zeros((side // 4, side // 4), bool)] * len(views))
    return {
        "frames": np.stack([view.frame for view in views]),
        "dense_category": np.stack([d["category"] for d in dense]),
        "dense_colour": np.stack([d["colour"] for d in dense]),
        "boxes": np.stack(boxes).astype(np.float32),
        "category": np.array(category),
        "colour": np.array(colour),
        "masks": np.stack([np.stack(m) for m in masks]),
    }


def clip_times(length: int, frames: int, rng: np.random.Generator) -> list[int]:
    """I_0 and, some way on, I_t, I_t+1, ...: what a query says of the place must be outlived as well as used.

    Half of the time they are two or three frames apart, so that queries live through more than a few frames change.
    """
    gap = int(rng.choice([1, 1, 2, 4, 8, 16]))
    step = int(rng.choice([1, 1, 2, 3]))
    step = max(1, min(step, (length - 1 - gap) // max(1, frames - 2)))
    last = gap + step * (frames - 2) if frames > 1 else 0
    first = int(rng.integers(0, length - last))
    return [first, *range(first + gap, first + last + 1, step)]


def small_mask(mask: np.ndarray) -> np.ndarray:
    """A mask at a quarter of its side: a pixel is set where more than half of its 4 x 4 block is."""
    side = mask.shape[0] // 4
    return mask.reshape(side, 4, side, 4).mean(axis=(1, 3)) > 0.5


@dataclass(frozen=True)
class Turn:
    """An instruction and its answer about a frame; target boxes are xyxy, fractions of the square, in answer order."""

    question: str
    answer: str
    boxes: np.ndarray
    category: tuple[int, ...]
    colour: tuple[int, ...]
    kind: str
    targets: tuple[int, ...]


@dataclass(frozen=True)
class LanguageSample:
    """A frame with several turns about it, and its dense labels (see `cell_labels`)."""

    frame: np.ndarray
    cells: dict[str, np.ndarray]
    turns: tuple[Turn, ...]


def language_sample(seed: int, side: int, tracks: int = 6, plain: int = 1, known: int = 4) -> LanguageSample:
    """A frame with `tracks` instructions of mixed kinds, `plain` questions, a description, and `known` facts of none.

    The facts stand for what a pretrained language model knows; instructions alone teach each far too rarely.
    """
    rng = np.random.default_rng([seed, 3])
    scene = make_scene(seed, frames=24)
    t = int(rng.integers(scene.frames))
    view = render_square(scene, t, side, rng.choice([1.0, 1.5, 2.0]))
    turns = [track_turn(e, view) for e in mixed(scene_expressions(scene, t, view.seen, rng), tracks, rng)]
    turns += [plain_turn(q, a) for q, a in questions(view.seen, rng)[:plain]]
    turns += [plain_turn(q, a) for q, a in knowledge(rng, known)]
    if view.seen:
        turns.append(plain_turn("describe the scene.", describe_scene(view.seen)))
    return LanguageSample(view.frame, cell_labels(view, side // 16), tuple(turns))


KIND_WEIGHTS = {"explicit": 3.0, "implicit": 4.0, "multi": 2.0, "none": 2.0}


def mixed(
    found: list[SceneInstruction],
    count: int,
    rng: np.random.Generator,
    weights: Mapping[str, float] = KIND_WEIGHTS,
    form_weights: Mapping[str, float] | None = None,
) -> list[SceneInstruction]:
    """`count` expressions: a kind is drawn first by its weight, then one of its forms by its own (by default 1)."""
    chosen: list[SceneInstruction] = []
    pool = list(found)
    while pool and len(chosen) < count:
        kinds = sorted({e.kind for e in pool})
        share = np.array([weights[k] for k in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=share / share.sum()))]
        forms = sorted({e.form for e in pool if e.kind == kind})
        form = forms[int(rng.integers(len(forms)))] if form_weights is None else _drawn(forms, form_weights, rng)
        options = [i for i, e in enumerate(pool) if e.kind == kind and e.form == form]
        chosen.append(pool.pop(options[int(rng.integers(len(options)))]))
    return chosen


def _drawn(forms: list[str], weights: Mapping[str, float], rng: np.random.Generator) -> str:
    share = np.array([weights.get(form, 1.0) for form in forms])
    return forms[int(rng.choice(len(forms), p=share / share.sum()))]


def track_turn(expression: SceneInstruction, view: RenderedFrame) -> Turn:
    """An expression with the boxes and kinds of its targets."""
    rows = [next(i for i, s in enumerate(view.seen) if s.id == target) for target in expression.targets]
    return Turn(
        expression.text,
        expression.answer,
        view.boxes[rows].reshape(-1, 4),
        tuple(CATEGORY_INDEX[view.seen[i].category] for i in rows),
        tuple(COLOUR_INDEX[view.seen[i].colour] for i in rows),
        expression.kind,
        expression.targets,
    )


def plain_turn(question: str, answer: str) -> Turn:
    """A question whose answer has no target."""
    return Turn(question, answer, np.zeros((0, 4), np.float32), (), (), "plain", ())


@dataclass(frozen=True)
class JoinSample:
    """A clip with instructions about its first frame: what the join stage learns from.

    Attributes:
        frames: uint8 (t, side, side, 3), I_0, I_t, I_t+1, ...
        read: uint8 (brain side, brain side, 3), the first frame as the brain sees it.
        cells: dense labels of `read` (see `cell_labels`).
        turns: instructions and answers.
        masks: bool (n, t, side / 4, side / 4), truth of every target of every turn, in order.
        misled: bool per turn: the answer names another actor than the instruction means. Its words and masks are not
            to be learned; that its purport score must be low is.
    """

    frames: np.ndarray
    read: np.ndarray
    cells: dict[str, np.ndarray]
    turns: tuple[Turn, ...]
    masks: np.ndarray
    misled: tuple[bool, ...]


def join_sample(
    seed: int, side: int, brain_side: int, frames: int = 3, tracks: int = 3, cells: int | None = None
) -> JoinSample:
    """A clip, `tracks` instructions about its first frame, and the masks of all their targets.

    `cells` are those of the brain's tokens, along a side; by default one per 16 pixels.
    """
    rng = np.random.default_rng([seed, 4])
    scene = make_scene(seed, frames=32)
    times = clip_times(scene.frames, frames, rng)
    views = [render_square(scene, t, side, rng.choice([1.0, 1.25])) for t in times]
    reading = views[0]
    chosen = mixed(scene_expressions(scene, times[0], reading.seen, rng), tracks, rng)
    turns, misled = [], []
    for expression in chosen:
        wrong = _misleading(expression, chosen, rng)
        misled.append(wrong is not None)
        turns.append(track_turn(wrong or expression, reading))
    meant = [target for e, bad in zip(chosen, misled, strict=True) for target in e.targets]
    masks = [[small_mask(view.ids == target) for view in views] for target in meant]
    grid = (len(views), side // 4, side // 4)
    square = fit(reading.rgb.shape[:2], brain_side).apply(reading.rgb)
    return JoinSample(
        np.stack([view.frame for view in views]),
        square,
        cell_labels(reading, cells or brain_side // 16),
        tuple(turns),
        np.array(masks, bool).reshape(-1, *grid),
        tuple(misled),
    )


def _misleading(
    expression: SceneInstruction, others: list[SceneInstruction], rng: np.random.Generator
) -> SceneInstruction | None:
    """The expression answered with another one's single target, for one in eight of the single-target instructions."""
    wrong = [e for e in others if len(e.targets) == 1 and e.targets != expression.targets]
    if len(expression.targets) != 1 or not wrong or rng.random() > 0.125:
        return None
    other = wrong[int(rng.integers(len(wrong)))]
    return replace(expression, answer=other.answer, targets=other.targets)
