"""Makes SynthTrack scenes: who is there, how each moves, where the camera goes. Plain numbers, no pixels.

Motion is worked out in an isotropic world whose shorter side is 1, then seen through the camera and stored in frame
units, so that the same scene renders at any resolution. One seed and one split determine everything; the split is
mixed into the seed, so that training and test scenes never coincide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trackgpt.errors import UsageError
from trackgpt.synthtrack.catalog import BY_NAME, CATEGORIES, COLOURS, HELD_OUT_PAIRS
from trackgpt.synthtrack.scene import Actor, Scene

Event = tuple[int, str, int]

FPS = 12.0
SPLITS = ("train", "test")
DIFFICULTIES = ("easy", "medium", "hard")
ASPECTS = ((4, 3), (16, 9), (1, 1), (3, 4))
SIDES = ("right", "left", "down", "up")
TEXTURES = ("meadow", "sand", "road", "water", "wood", "brick", "sky", "wall", "night", "bokeh", "fabric", "tiles")
RACE_MARGIN = 0.06  # frame units between two runners, kept in every frame

_COUNTS = {"easy": (2, 3), "medium": (3, 5), "hard": (5, 8)}
_SPEEDS = {"easy": 0.022, "medium": 0.038, "hard": 0.06}  # world units per frame
_EXTENTS = {"small": (0.17, 0.215), "medium": (0.27, 0.335), "large": (0.40, 0.48)}
_SIZE_ODDS = {"easy": (0.2, 0.4, 0.4), "medium": (0.3, 0.4, 0.3), "hard": (0.4, 0.4, 0.2)}
_MOTIONS = ("straight", "curved", "stop-and-go", "bounce", "still")
_MOTION_EDGES = np.cumsum([0.34, 0.26, 0.14, 0.12])
_NATURAL_SHARE = 0.25
_HELD_OUT_SHARE = 0.25
_HELD_OUT = tuple(sorted(HELD_OUT_PAIRS))
_COLOURS = tuple(COLOURS)
_RIM = np.arange(12) * np.pi / 6
# The middle and twelve points of the unit circle: where a body is probed for being hidden.
_PROBE = np.concatenate([np.zeros((1, 2)), np.stack([np.cos(_RIM), np.sin(_RIM)], axis=1)]).astype(np.float32)


@dataclass(frozen=True)
class _Stage:
    """What a scene is made on: its random source, its setting, and its camera (T, 4); `room` is the world's size."""

    rng: np.random.Generator
    split: str
    frames: int
    difficulty: str
    aspect: tuple[int, int]
    room: np.ndarray
    camera: np.ndarray


@dataclass(frozen=True)
class _Look:
    """What an actor is, before it moves."""

    category: str
    colour: str
    size: str


@dataclass
class _Paths:
    """The motion of all actors: world centres (N, T, 2), extents and angles (N, T), visibility (N, T)."""

    centre: np.ndarray
    extent: np.ndarray
    angle: np.ndarray
    visible: np.ndarray


def _size(rng: np.random.Generator, difficulty: str) -> str:
    """A size class by the odds of the difficulty."""
    small, medium, _ = _SIZE_ODDS[difficulty]
    draw = rng.random()
    return "small" if draw < small else "medium" if draw < small + medium else "large"


def _colour_for(rng: np.random.Generator, category: str, split: str, avoid: frozenset[str] = frozenset()) -> str:
    """A colour, or "natural" for a glyph, that the split may show with this category."""
    if BY_NAME[category].glyph and "natural" not in avoid and rng.random() < _NATURAL_SHARE:
        return "natural"
    free = [
        colour
        for colour in _COLOURS
        if colour not in avoid and (split == "test" or (category, colour) not in HELD_OUT_PAIRS)
    ]
    return free[int(rng.integers(len(free)))]


def _held_out_look(rng: np.random.Generator) -> tuple[str, str]:
    return _HELD_OUT[int(rng.integers(len(_HELD_OUT)))]


def _first_looks(rng: np.random.Generator, count: int, split: str) -> list[tuple[str, str]]:
    """Different categories, each in a colour of its own choosing."""
    order = rng.permutation(len(CATEGORIES))[:count]
    pairs = [(CATEGORIES[k].name, _colour_for(rng, CATEGORIES[k].name, split)) for k in order]
    if split == "test":
        pairs = [_held_out_look(rng) if rng.random() < _HELD_OUT_SHARE else pair for pair in pairs]
    return pairs


def _add_distractors(rng: np.random.Generator, pairs: list[tuple[str, str]], split: str, odds: float) -> None:
    """Turns some of the later actors into look-alikes of the first, in place.

    With probability `odds` a second actor gets the first one's category in another colour; with the same probability
    another gets its colour on its own category. In one scene of eight of those, a whole twin appears.
    """
    category, colour = pairs[0]
    if rng.random() < odds:
        twin = rng.random() < 0.125
        used = frozenset(c for k, c in pairs if k == category)
        pairs[1] = (category, colour if twin else _colour_for(rng, category, split, used))
        if len(pairs) > 4 and rng.random() < 0.4:
            used = frozenset(c for k, c in pairs if k == category)
            pairs[4] = (category, _colour_for(rng, category, split, used))
    if len(pairs) > 2 and colour != "natural" and rng.random() < odds:
        other = pairs[2][0]
        if split == "test" or (other, colour) not in HELD_OUT_PAIRS:
            pairs[2] = (other, colour)


def _looks(rng: np.random.Generator, count: int, split: str, difficulty: str) -> list[_Look]:
    """Who is in the scene, in random order."""
    pairs = _first_looks(rng, count, split)
    _add_distractors(rng, pairs, split, 0.15 if difficulty == "easy" else 0.5)
    order = rng.permutation(count)
    return [_Look(pairs[k][0], pairs[k][1], _size(rng, difficulty)) for k in order]


def _places(rng: np.random.Generator, extents: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Starting points (N, 2) in world units, each the best of forty tries at keeping clear of those before it."""
    places = np.zeros((len(extents), 2))
    tries = rng.random((len(extents), 40, 2))
    done: list[int] = []
    for k in np.argsort(-extents):
        low = min(0.5 * float(extents[k]), 0.4)
        spots = low + tries[k] * (room - 2 * low)
        best = 0
        if done:
            gaps = np.linalg.norm(spots[:, None] - places[done], axis=2) - 0.5 * (extents[k] + extents[done])
            clear = gaps.min(axis=1)
            wide = clear > 0.02
            best = int(np.argmax(wide)) if wide.any() else int(np.argmax(clear))
        places[k] = spots[best]
        done.append(int(k))
    return places


def _fold(path: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Reflects a path (T, 2) at the walls of a box, like light between mirrors."""
    span = np.maximum(high - low, 1e-3)
    phase = np.mod(path - low, 2 * span)
    return low + np.where(phase > span, 2 * span - phase, phase)


def _margin(extent: float) -> float:
    """How near to an edge of the world a sprite's centre may come: a little of the sprite may stick out."""
    return min(0.38 * extent, 0.45)


def _steps(rng: np.random.Generator, motion: str, frames: int, speed: float) -> np.ndarray:
    """Distance gone in every frame, float (T,), 0 at the first."""
    pace = speed * (0.35 + 0.65 * rng.random())
    steps = np.full(frames, pace)
    if motion == "still":
        steps[:] = 0.0
    elif motion == "stop-and-go":
        period, phase = int(rng.integers(8, 15)), int(rng.integers(14))
        steps[np.mod(np.arange(frames) + phase, period) < period * 0.45] = 0.0
        kernel = np.array([0.25, 0.5, 0.25])
        steps = np.convolve(np.pad(steps, 1, mode="edge"), kernel, mode="valid")
    elif motion == "bounce":
        steps *= 1.3
    steps[0] = 0.0
    return np.minimum(steps, speed)


def _wander(
    rng: np.random.Generator, motion: str, start: np.ndarray, extent: float, frames: int, speed: float, room: np.ndarray
) -> np.ndarray:
    """One actor's path (T, 2) in world units, turned back at the frame's edges.

    A straight path aims at a far point, so that it rarely meets an edge; a curved one turns at a steady rate.
    """
    steps = _steps(rng, motion, frames, speed)
    low = np.full(2, _margin(extent))
    high = room - low
    aim = low + rng.random(2) * (high - low)
    if motion in ("straight", "stop-and-go"):
        aim = np.where(start < room / 2, high, low) * 0.75 + aim * 0.25
    heading = np.arctan2(*(aim - start)[::-1])
    turn = 0.0
    if motion == "curved":
        turn = (0.05 + 0.12 * rng.random()) * (1 if rng.random() < 0.5 else -1)
    angles = heading + turn * np.arange(frames)
    path = start + np.cumsum(steps[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1), axis=0)
    return _fold(path, low, high)


def _cross(
    rng: np.random.Generator, paths: np.ndarray, motions: list[str], extents: np.ndarray, stage: _Stage, count: int
) -> None:
    """Bends up to `count` paths so that each runs straight through another actor's place at some middle frame.

    Every third of them stops a little after it has passed. Works on world-unit paths (N, T, 2) in place.
    """
    total, frames = paths.shape[:2]
    speed = _SPEEDS[stage.difficulty]
    if frames < 6:
        return
    for _ in range(count):
        mover, target = (int(k) for k in rng.permutation(total)[:2])
        meet = int(frames * (0.3 + 0.4 * rng.random()))
        velocity = (paths[target, meet] - paths[mover, 0]) / meet
        pace = float(np.linalg.norm(velocity))
        if motions[mover] == "still" or pace > speed or pace < 1e-4:
            continue
        motions[mover] = "straight"
        clock = np.arange(frames)
        if rng.random() < 0.3:
            clock = np.minimum(clock, meet + int(frames * 0.35))
        low = np.full(2, _margin(float(min(extents[mover], extents[target]))))
        paths[mover] = _fold(paths[mover, 0] + velocity * clock[:, None], low, stage.room - low)


def _angles(rng: np.random.Generator, difficulty: str, frames: int, still: bool) -> np.ndarray:
    """Wobble of one sprite in degrees, float (T,)."""
    reach = {"easy": 6.0, "medium": 12.0, "hard": 22.0}[difficulty] * rng.random() * (0.4 if still else 1.0)
    period = 10.0 + 20.0 * rng.random()
    phase = 2 * np.pi * rng.random()
    return reach * np.sin(phase + 2 * np.pi * np.arange(frames) / period)


def _scales(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A slow change of size about 1, within 5 %, float (T,)."""
    reach = 0.05 * rng.random()
    return 1.0 + reach * np.sin(2 * np.pi * (rng.random() + np.arange(frames) / (30.0 + 50.0 * rng.random())))


def _camera(rng: np.random.Generator, difficulty: str, kind: str, frames: int) -> np.ndarray:
    """Camera path, float32 (T, 4): x shift, y shift (frame units), zoom factor, roll (degrees).

    Easy scenes have a fixed camera, medium ones pan and zoom slowly, hard ones also shake and roll. A race is never
    rolled nor zoomed out, and hardly panned, so that the line stays in view and the runners keep their distances.
    """
    clock = np.arange(frames)
    path = np.zeros((frames, 4))
    path[:, 2] = 1.0
    if difficulty == "easy":
        return path.astype(np.float32)
    reach = 0.05 if difficulty == "medium" else 0.08
    phase, period = rng.random(4), 24.0 + 40.0 * rng.random(4)
    swing = np.sin(2 * np.pi * (phase + clock[:, None] / period)) - np.sin(2 * np.pi * phase)
    path[:, :2] = reach * rng.random(2) * swing[:, :2]
    path[:, 2] = 1.0 + (0.04 + 0.06 * rng.random()) * (1.0 + np.sin(2 * np.pi * (phase[2] + clock / period[2]))) / 2
    if difficulty == "hard":
        shake = 0.006 * rng.random()
        path[:, :2] += shake * rng.standard_normal((frames, 2))
        path[:, 3] = 5.0 * rng.random() * swing[:, 3]
    if kind == "race":
        path[:, :2] *= 0.3
        path[:, 2] = 1.0 + 0.3 * (path[:, 2] - 1.0)
        path[:, 3] = 0.0
    return path.astype(np.float32)


def see(points: np.ndarray, camera: np.ndarray, aspect: tuple[int, int]) -> np.ndarray:
    """Where points fixed in the world appear in the frame.

    Args:
        points: (..., T, 2) places in frame units as seen by a camera at rest.
        camera: (T, 4) as in `Scene`.
        aspect: (width, height) ratio.

    Returns:
        (..., T, 2) frame units: 0.5 + zoom * roll(point - shift - 0.5), the roll counter-clockwise in square pixels.
    """
    scale = np.array(aspect, np.float64) / min(aspect)
    roll = np.deg2rad(camera[:, 3].astype(np.float64))
    offset = (points - camera[:, :2] - 0.5) * scale * camera[:, 2:3]
    x = np.cos(roll) * offset[..., 0] + np.sin(roll) * offset[..., 1]
    y = -np.sin(roll) * offset[..., 0] + np.cos(roll) * offset[..., 1]
    return 0.5 + np.stack([x, y], axis=-1) / scale


def _leave(
    rng: np.random.Generator, paths: _Paths, k: int, room: np.ndarray, speed: float, comes_back: bool
) -> list[Event]:
    """Sends actor k (index) out of the frame over its nearest edge, and back in when there is time.

    Works on frame-unit centres in place. Returns the events.
    """
    frames = paths.centre.shape[1]
    begin = int(frames * (0.06 + 0.26 * rng.random()))
    place = paths.centre[k, begin]
    edges = np.array([place[0], 1 - place[0], place[1], 1 - place[1]]) * np.repeat(room, 2)
    edge = int(np.argmin(edges))
    beyond = 0.8 * paths.extent[k].max() / room[edge // 2]
    gone = place.copy()
    gone[edge // 2] = 1 + beyond if edge % 2 else -beyond
    pace = max(speed, 0.055)
    leaving = int(np.ceil(np.linalg.norm((gone - place) * room) / pace))
    if begin + leaving >= frames:
        return []
    share = np.linspace(0, 1, leaving, endpoint=False)[:, None]
    paths.centre[k, begin : begin + leaving] = place + (gone - place) * share
    out = begin + leaving
    hidden = min(int(rng.integers(3, 8)), max(frames - out - 7, 2))
    back = out + hidden
    paths.centre[k, out:] = gone
    paths.visible[k, out:] = False
    events = [(out, "leaves", k + 1)]
    if comes_back and back + 4 < frames:
        home = np.clip(place + 0.15 * (rng.random(2) - 0.5), 0.15, 0.85)
        returning = int(np.ceil(np.linalg.norm((gone - home) * room) / pace))
        clock = np.minimum(np.arange(frames - back) / returning, 1.0)
        paths.centre[k, back:] = gone + (home - gone) * clock[:, None]
        paths.visible[k, back:] = True
        events.append((back, "returns", k + 1))
    return events


def _occlusions(paths: _Paths, depth: np.ndarray, room: np.ndarray) -> list[Event]:
    """Frames at which an actor becomes hidden by nearer ones, and comes out again.

    Approximate, without pixels: an actor counts as hidden while four fifths of thirteen probe points of its body lie
    within the bodies (discs) of nearer actors.
    """
    body = 0.38 * paths.extent
    centre = (paths.centre * room).astype(np.float32)
    events: list[Event] = []
    for k in range(len(depth)):
        nearer = np.flatnonzero(depth > depth[k])
        if len(nearer) == 0:
            continue
        points = centre[k][:, None] + body[k][:, None, None] * 0.8 * _PROBE
        gaps = points[None] - centre[nearer][:, :, None]
        covered = ((gaps**2).sum(-1) < (body[nearer] ** 2)[..., None]) & paths.visible[nearer][..., None]
        hidden = covered.any(axis=0).mean(axis=1) >= 0.8
        hidden &= paths.visible[k]
        for t in np.flatnonzero(hidden[1:] != hidden[:-1]) + 1:
            if paths.visible[k, t] and paths.visible[k, t - 1]:
                events.append((int(t), "occluded" if hidden[t] else "reappears", k + 1))
    return events


def _background(rng: np.random.Generator, finish: str) -> dict[str, float | int | str]:
    """Parameters of the background; `finish` names the side of the finish line, "" for none."""
    textures = ("meadow", "sand", "road", "water", "wood") if finish else TEXTURES
    out: dict[str, float | int | str] = {
        "texture": textures[int(rng.integers(len(textures)))],
        "seed": int(rng.integers(2**31)),
        "light": float(0.85 + 0.3 * rng.random()),
        "blobs": int(rng.integers(0, 7)),
        "strips": int(rng.integers(0, 4)),
        "finish": finish,
    }
    if finish:
        out["line"] = finish_place(finish)
    return out


def finish_place(finish: str) -> float:
    """Where the finish line's middle stands along its axis, in frame units, for a camera at rest."""
    return 0.92 if finish in ("right", "down") else 0.08


def _effects(rng: np.random.Generator, difficulty: str) -> dict[str, float]:
    """Noise (grey levels), blur (share of a frame's motion), JPEG quality (0 = none), contrast, shadow, jitter."""
    hard = {"easy": 0.0, "medium": 0.5, "hard": 1.0}[difficulty]
    draw = rng.random(8)
    return {
        "noise": float(draw[0] * (2.0 + 7.0 * hard)) if draw[1] < 0.7 else 0.0,
        "blur": float(0.7 * draw[2]) if draw[3] < 0.5 * hard else 0.0,
        "jpeg": float(np.round(35 + 55 * draw[4])) if draw[5] < 0.15 + 0.2 * hard else 0.0,
        "contrast": float(1.0 + (0.1 + 0.25 * hard) * (draw[6] - 0.5)),
        "shadow": float(draw[7] < 0.25 + 0.5 * hard),
        "jitter": float(0.06 * hard * rng.random()),
    }


def _change_look(rng: np.random.Generator, effects: dict[str, float], actors: int, frames: int) -> list[Event]:
    """Lets one actor grow brighter or darker over some frames; writes the ramp into `effects`, returns the event."""
    who = int(rng.integers(1, actors + 1))
    begin = int(frames * (0.2 + 0.4 * rng.random()))
    gain = 0.7 if rng.random() < 0.6 else 1.25
    effects.update(look_id=float(who), look_start=float(begin), look_end=float(begin + 6), look_gain=gain)
    return [(begin, "changes look", who)]


def _free_paths(stage: _Stage, looks: list[_Look]) -> tuple[_Paths, list[str]]:
    """World-unit paths of a scene without a race, and each actor's kind of motion."""
    rng, frames, room = stage.rng, stage.frames, stage.room
    speed = _SPEEDS[stage.difficulty]
    extents = np.array([_EXTENTS[look.size][0] + np.ptp(_EXTENTS[look.size]) * rng.random() for look in looks])
    starts = _places(rng, extents, room)
    motions = [_MOTIONS[int(np.searchsorted(_MOTION_EDGES, rng.random()))] for _ in looks]
    centre = np.stack(
        [_wander(rng, m, s, float(e), frames, speed, room) for m, s, e in zip(motions, starts, extents, strict=True)]
    )
    _cross(rng, centre, motions, extents, stage, {"easy": 0, "medium": 1, "hard": 3}[stage.difficulty])
    extent = extents[:, None] * np.stack([_scales(rng, frames) for _ in looks])
    angle = np.stack([_angles(rng, stage.difficulty, frames, m == "still") for m in motions])
    return _Paths(centre, extent, angle, np.ones(extent.shape, bool)), motions


def _race_progress(rng: np.random.Generator, count: int, frames: int, goal: float) -> np.ndarray:
    """How far each runner has come along the course at each frame, (count, T), in frame units.

    Runner 0 leads and ends just before `goal`. Every other one is behind the one before it by a gap that starts at
    `RACE_MARGIN` or more and may only grow.
    """
    first = RACE_MARGIN + 0.04 * rng.random(count)
    last = first + 0.07 * rng.random(count)
    first[0] = last[0] = 0.0
    clock = np.linspace(0.0, 1.0, frames)
    pace = 1.0 + 0.25 * np.sin(2 * np.pi * (rng.random() + clock * (1 + rng.random())))
    run = np.concatenate([[0.0], np.cumsum(pace[1:])])
    run = run / max(float(run[-1]), 1e-6)
    start = max(0.42, float(first.sum()) + 0.1)
    end = min(goal - 0.02, start + 0.05 * max(frames - 1, 1))
    gaps = np.cumsum(first)[:, None] * (1 - clock) + np.cumsum(last)[:, None] * clock
    return start + (end - start) * run[None] - gaps


def _race_paths(stage: _Stage, looks: list[_Look], finish: str, line: float) -> _Paths:
    """World-unit paths of runners in lanes, the first look leading and the others following in order."""
    rng, frames, room, count = stage.rng, stage.frames, stage.room, len(looks)
    axis = 0 if finish in ("right", "left") else 1
    lane = min(0.92 / count, 0.3)
    extents = np.array([min(float(np.mean(_EXTENTS[one.size])), 1.25 * lane * room[1 - axis]) for one in looks])
    along = _race_progress(rng, count, frames, line if line > 0.5 else 1.0 - line)
    across = 0.5 + (rng.permutation(count) + 0.5 - count / 2) * lane
    sway = 0.01 * np.sin(2 * np.pi * (rng.random((count, 1)) + np.linspace(0.0, 2.0, frames)))
    centre = np.zeros((count, frames, 2))
    centre[..., axis] = along if line > 0.5 else 1.0 - along
    centre[..., 1 - axis] = across[:, None] + sway
    angle = np.stack([_angles(rng, "easy", frames, False) for _ in looks])
    extent = np.repeat(extents[:, None], frames, axis=1)
    return _Paths(centre * room, extent, angle, np.ones(extent.shape, bool))


def _race_looks(rng: np.random.Generator, split: str) -> list[_Look]:
    """Two to five runners of one size; half of the races are run by one category in different colours."""
    count = int(rng.integers(2, 6))
    pairs = _first_looks(rng, count, split)
    if rng.random() < 0.5:
        category = pairs[0][0]
        for k in range(1, count):
            used = frozenset(c for name, c in pairs[:k] if name == category)
            pairs[k] = (category, _colour_for(rng, category, split, used))
    size = "medium" if count < 4 or rng.random() < 0.3 else "small"
    return [_Look(category, colour, size) for category, colour in pairs]


def _actors(
    looks: list[_Look], paths: _Paths, depth: np.ndarray, flips: np.ndarray, motions: list[str]
) -> tuple[Actor, ...]:
    return tuple(
        Actor(
            id=k + 1,
            category=look.category,
            colour=look.colour,
            size=look.size,
            depth=float(depth[k]),
            centre=paths.centre[k].astype(np.float32),
            extent=paths.extent[k].astype(np.float32),
            angle=paths.angle[k].astype(np.float32),
            flip=bool(flips[k]),
            visible=paths.visible[k].copy(),
            motion=motions[k],
        )
        for k, look in enumerate(looks)
    )


def _shuffle(rng: np.random.Generator, looks: list[_Look], paths: _Paths) -> tuple[list[_Look], _Paths]:
    """Gives the actors other numbers, so that the winner of a race is not always number 1."""
    order = rng.permutation(len(looks))
    fields = (paths.centre, paths.extent, paths.angle, paths.visible)
    return [looks[k] for k in order], _Paths(*(values[order] for values in fields))


def _check(seed: int, split: str, frames: int, difficulty: str | None, kind: str | None) -> None:
    """Raises UsageError for an argument out of range."""
    if split not in SPLITS:
        raise UsageError(f"split {split!r} is unknown; take one of {', '.join(SPLITS)}")
    if seed < 0:
        raise UsageError(f"seed is {seed}; take 0 or more")
    if frames < 1:
        raise UsageError(f"frames is {frames}; a scene needs at least 1")
    if difficulty is not None and difficulty not in DIFFICULTIES:
        raise UsageError(f"difficulty {difficulty!r} is unknown; take one of {', '.join(DIFFICULTIES)}")
    if kind not in (None, "free", "race"):
        raise UsageError(f"kind {kind!r} is unknown; take free or race")


def make_scene(
    seed: int,
    split: str = "train",
    frames: int = 24,
    difficulty: str | None = None,
    kind: str | None = None,
    aspect: tuple[int, int] | None = None,
) -> Scene:
    """Makes a whole scene from a number.

    Args:
        seed: any non-negative integer; one seed and one split give one scene.
        split: "train" never shows a pair of `catalog.HELD_OUT_PAIRS`; "test" shows one for about a quarter of actors.
        frames: number of frames, at 12 per second.
        difficulty: "easy", "medium", "hard"; drawn when None.
        kind: "free" or "race"; drawn when None, a race for 12 %.
        aspect: (width, height) ratio; drawn from `ASPECTS` when None.

    Returns:
        A scene of two to eight actors. In a race, `background["finish"]` is the side of the line ("right", "left",
        "down", "up") and the runner that leads at the start leads to the end.

    Raises:
        UsageError: an unknown split, difficulty or kind, a negative seed, or no frames.
    """
    _check(seed, split, frames, difficulty, kind)
    rng = np.random.default_rng(np.random.SeedSequence([SPLITS.index(split) + 1, seed]))
    draw = rng.random(3)
    difficulty = difficulty or DIFFICULTIES[0 if draw[0] < 0.3 else 1 if draw[0] < 0.7 else 2]
    kind = kind or ("race" if draw[1] < 0.12 else "free")
    aspect = aspect or ASPECTS[int(draw[2] * len(ASPECTS))]
    room = np.array(aspect, np.float64) / min(aspect)
    stage = _Stage(rng, split, frames, difficulty, aspect, room, _camera(rng, difficulty, kind, frames))
    effects = _effects(rng, difficulty)
    if kind == "race":
        finish = SIDES[int(np.searchsorted([0.4, 0.8, 0.9], rng.random()))]
        background = _background(rng, finish)
        actors, events = _race(stage, finish, float(background["line"]))
    else:
        background = _background(rng, "")
        actors, events = _free(stage, effects)
    return Scene(
        seed, split, frames, FPS, aspect, kind, difficulty, actors, background, stage.camera, effects, tuple(events)
    )


def _through_camera(stage: _Stage, paths: _Paths) -> None:
    """Turns world-unit paths into what the camera sees, in frame units, in place."""
    paths.centre = see(paths.centre / stage.room, stage.camera, stage.aspect)
    paths.extent = paths.extent * stage.camera[:, 2]
    paths.angle = paths.angle + stage.camera[:, 3]


def _free(stage: _Stage, effects: dict[str, float]) -> tuple[tuple[Actor, ...], list[Event]]:
    """Actors and events of a scene without a race; a change of look is written into `effects`."""
    rng, difficulty, frames = stage.rng, stage.difficulty, stage.frames
    low, high = _COUNTS[difficulty]
    looks = _looks(rng, int(rng.integers(low, high + 1)), stage.split, difficulty)
    paths, motions = _free_paths(stage, looks)
    _through_camera(stage, paths)
    depth = rng.permutation(len(looks)) + 1.0
    events: list[Event] = []
    if difficulty != "easy" and frames >= 16 and rng.random() < 0.45:
        count = 1 + int(difficulty == "hard" and rng.random() < 0.4)
        rim = np.abs(paths.centre[:, 0] - 0.5).max(axis=1) + 0.2 * rng.random(len(looks))
        for k in np.argsort(-rim)[:count]:  # rather those near an edge: their way out is short
            events += _leave(rng, paths, int(k), stage.room, _SPEEDS[difficulty], rng.random() < 0.75)
    if frames >= 12 and rng.random() < {"easy": 0.05, "medium": 0.2, "hard": 0.3}[difficulty]:
        events += _change_look(rng, effects, len(looks), frames)
    events += _occlusions(paths, depth, stage.room)
    flips = rng.random(len(looks)) < 0.5
    return _actors(looks, paths, depth, flips, motions), sorted(events)


def _race(stage: _Stage, finish: str, line: float) -> tuple[tuple[Actor, ...], list[Event]]:
    """Actors and events of a race; runners to the right are mirrored, for what has a front faces left."""
    rng = stage.rng
    looks = _race_looks(rng, stage.split)
    looks, paths = _shuffle(rng, looks, _race_paths(stage, looks, finish, line))
    _through_camera(stage, paths)
    depth = rng.permutation(len(looks)) + 1.0
    flips = np.full(len(looks), finish == "right") if finish in ("right", "left") else rng.random(len(looks)) < 0.5
    return _actors(looks, paths, depth, flips, ["race"] * len(looks)), sorted(_occlusions(paths, depth, stage.room))


def leader(scene: Scene, t: int) -> int | None:
    """The runner closest to the finish line at a frame.

    Args:
        scene: any scene.
        t: frame index.

    Returns:
        The actor's id; None when the scene is no race.
    """
    if scene.kind != "race":
        return None
    axis = 0 if scene.background["finish"] in ("right", "left") else 1
    place = np.full((1, 2), float(scene.background["line"]))
    line = see(place, scene.camera[t : t + 1], scene.aspect)[0, axis]
    return min(scene.actors, key=lambda actor: abs(float(actor.centre[t, axis]) - line)).id
