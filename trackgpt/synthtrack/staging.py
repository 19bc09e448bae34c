"""Makes up the scenes of domain-randomised clips: a target, look-alikes, other things, occluders and a camera.

Most clips show what a search window shows: the target large and near the middle, with the window one frame late.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from trackgpt.synthtrack.painting import Layer, Lens, Staged
from trackgpt.synthtrack.reenacted import Subject
from trackgpt.synthtrack.silhouettes import CANVAS, outline, polygon
from trackgpt.synthtrack.textures import SIDE, TextureWindow
from trackgpt.synthtrack.things import bars, rgba, screen, thing

Rng = np.random.Generator


@dataclass(frozen=True)
class Camera:
    """What moves the whole picture: float shift (T, 2) in frame sides, zoom (T,) and turn (T,) in radians."""

    shift: np.ndarray
    zoom: np.ndarray
    turn: np.ndarray


def _camera(rng: Rng, frames: int) -> Camera:
    """A pan with sway, some with shake; slow zoom and turn."""
    t = np.arange(frames)
    pan = rng.normal(0, 1, 2) * rng.choice([0, 0.005, 0.015, 0.04])
    sway = rng.normal(0, 1, 2) * rng.choice([0, 0.005, 0.02]) * np.sin(t * rng.uniform(0.3, 2))[:, None]
    shake = rng.normal(0, rng.choice([0, 0, 0, 0.006, 0.015]), (frames, 2))
    zoom, turn = np.exp(rng.normal(0, 0.015) * t), rng.normal(0, 0.012) * t
    return Camera(np.outer(t, pan) + sway + shake, zoom, turn)


def _layer(
    rng: Rng, pictures: np.ndarray, frames: int, sizes: tuple[float, float], camera: Camera, speed: float
) -> Layer:
    """Pictures on a path of their own, carried along by the camera's shift with a parallax.

    Args:
        rng: decides on the path.
        pictures: uint8 (moments, CANVAS, CANVAS, 4).
        frames: how many.
        sizes: smallest and largest, in frame sides.
        camera: of the clip.
        speed: in sizes per frame, roughly.
    """
    t = np.arange(frames)
    size = float(np.exp(rng.uniform(*np.log(sizes))))
    step = rng.normal(0, 1, 2) * speed * size * rng.choice([0.1, 0.5, 1.0, 2.0])
    sway = np.outer(np.sin(rng.uniform(0.3, 1.5) * t + rng.uniform(0, 6.28)), rng.normal(0, speed * size, 2))
    place = rng.uniform(0.15, 0.85, 2) + np.outer(t, step) + sway + camera.shift * rng.uniform(0.6, 1.4)
    grow = np.exp(rng.normal(0, rng.choice([0.01, 0.03, 0.06])) * t)
    angle = rng.uniform(-0.5, 0.5) + rng.normal(0, rng.choice([0.01, 0.05, 0.15])) * t
    g, amount = int(rng.integers(3, 6)), rng.choice([0.0, 0.03, 0.06, 0.1])
    phase, rate = rng.uniform(0, 6.28, (g, g, 2)), rng.uniform(0.2, 0.9, (g, g, 2))
    wobble = (amount * np.sin(phase + rate * t[:, None, None, None])).astype(np.float32)
    return Layer(pictures, place, size * grow, angle, wobble)


def _ground(rng: Rng, window: TextureWindow, extent: int) -> np.ndarray:
    """A texture over a whole background of that side, at its own scale or enlarged, uint8 (extent, extent, 3)."""
    picture = window.whole(rng)
    if extent > SIDE and rng.random() < 0.5:  # mirrored instead of enlarged: enlarged ones are all blurred
        reach = extent - SIDE
        return np.asarray(cv2.copyMakeBorder(picture, 0, reach, 0, reach, cv2.BORDER_REFLECT))
    return np.asarray(cv2.resize(picture, (extent, extent), interpolation=cv2.INTER_LINEAR))


def _background(rng: Rng, window: TextureWindow, side: int) -> np.ndarray:
    """A ground with regions (walls, sky) and things that stay where they are, uint8 (2 x side, 2 x side, 3)."""
    extent = 2 * side
    back = _ground(rng, window, extent)
    for _ in range(int(rng.integers(0, 4))):
        mask = np.zeros((extent, extent), np.uint8)
        curve = outline(rng) if rng.random() < 0.5 else polygon(rng)
        at = curve * side * rng.uniform(0.4, 1.6) + rng.uniform(0, extent, 2)
        cv2.fillPoly(mask, [at.astype(np.int32)], 255)
        back = cv2.copyTo(_ground(rng, window, extent), mask, back)
    for _ in range(int(rng.integers(0, 9))):
        n = int(side * rng.uniform(0.1, 0.9))
        picture = cv2.resize(thing(rng, window, 1, still=True)[0], (n, n), interpolation=cv2.INTER_AREA)
        y, x = rng.integers(0, extent - n, 2).tolist()
        alpha = cv2.extractChannel(picture, 3).astype(np.float32) / 255
        part = np.ascontiguousarray(back[y : y + n, x : x + n])
        back[y : y + n, x : x + n] = cv2.blendLinear(part, cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB), 1 - alpha, alpha)
    return np.asarray(back)


def _filled_anew(pictures: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The silhouettes of `pictures` in the colours of `colours`, as many as the longer one has."""
    count = max(len(pictures), len(colours))
    return np.stack(
        [
            rgba(np.ascontiguousarray(colours[k % len(colours), ..., :3]), np.ascontiguousarray(picture[..., 3]))
            for k, picture in ((k, pictures[k % len(pictures)]) for k in range(count))
        ]
    )


def _camouflaged(rng: Rng, pictures: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The pictures filled with a part of the background."""
    n = len(background) // 4
    y, x = rng.integers(0, len(background) - n, 2).tolist()
    part = cv2.resize(background[y : y + n, x : x + n], (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR)
    return _filled_anew(pictures, part[None])


def _look_alike(rng: Rng, target: Layer, window: TextureWindow, camera: Camera, speed: float) -> Layer:
    """A layer that looks like the target (mirrored) or has its colours on another shape; half of them cross it."""
    frames = len(target.place)
    if rng.random() < 0.6:
        pictures = np.ascontiguousarray(target.pictures[:, :, :: int(rng.choice([-1, 1]))])
        pictures = np.roll(pictures, int(rng.integers(len(pictures))), 0)
    else:
        pictures = _filled_anew(thing(rng, window, frames), target.pictures)
    twin = _layer(rng, pictures, frames, (0.2, 0.9), camera, speed)
    twin.size = target.size * rng.uniform(0.7, 1.3)
    if frames > 2 and rng.random() < 0.5:
        meeting, way = rng.uniform(1, frames), rng.uniform(0, 6.28)
        step = target.size[0] * rng.uniform(0.5, 1.0) / meeting * np.array([np.cos(way), np.sin(way)])
        twin.place = target.place + np.outer(np.arange(frames) - meeting, step) + rng.normal(0, 0.05, 2)
    return twin


def _gap(rng: Rng, frames: int) -> tuple[int, int]:
    """First and last frame without the target: after the first frame, before the last one."""
    first = int(rng.integers(1, frames - 1))
    return first, min(frames - 2, first + int(rng.integers(0, 3)))


def _hiding(rng: Rng, target: Layer, window: TextureWindow, camera: Camera) -> Layer:
    """A wall that passes in front of the target and hides it wholly for one or more frames."""
    frames = len(target.place)
    first, last = _gap(rng, frames)
    wall = _layer(rng, screen(rng, window), frames, (0.5, 0.6), camera, 0.0)
    wall.size = np.full(frames, 1.45 * float(target.size.max()))
    wall.angle, wall.wobble, wall.known = target.angle, np.zeros_like(wall.wobble), False
    t = np.arange(frames)
    away = np.minimum(t - first, 0) + np.maximum(t - last, 0)
    way = rng.uniform(0, 6.28)
    reach = float(target.size.max()) * rng.uniform(0.9, 1.3)
    wall.place = target.place + np.outer(away * reach, [np.cos(way), np.sin(way)])
    return wall


def _absence(rng: Rng, frames: int, size: float) -> np.ndarray:
    """Shifts that take the target out of the picture and back, float (T, 2) in frame sides."""
    first, last = _gap(rng, frames)
    t, way = np.arange(frames), rng.uniform(0, 6.28)
    amount = ((t >= first) & (t <= last)).astype(float)
    if first > 1:
        amount[first - 1] = rng.uniform(0, 0.5)
    amount[last + 1] = rng.uniform(0, 0.4)
    return np.outer(amount * (0.9 + size), [np.cos(way), np.sin(way)])


def _others(
    rng: Rng, target: Layer, window: TextureWindow, camera: Camera, speed: float
) -> tuple[list[Layer], Layer | None]:
    """All layers from far to near, the target among them, and the one that looks like it."""
    frames, layers, twin = len(target.place), [target], None
    if rng.random() < 0.35:
        twin = _look_alike(rng, target, window, camera, speed)
        layers.insert(int(rng.integers(0, 2)), twin)
    for _ in range(int(rng.integers(0, 4))):
        other = _layer(rng, thing(rng, window, frames), frames, (0.15, 0.9), camera, speed)
        layers.insert(int(rng.integers(0, len(layers) + 1)), other)
    if rng.random() < 0.2:
        post = _layer(rng, bars(rng, window), frames, (0.8, 1.8), camera, speed)
        post.known = False
        layers.append(post)
    return layers, twin


def _lens(rng: Rng, frames: int, side: int) -> Lens:
    """Light and camera faults; most clips have a few of them."""
    t = np.arange(frames)[:, None]
    flicker = rng.normal(0, rng.choice([0, 0, 0, 0.05]), (frames, 1))
    gains = 1 + rng.normal(0, 0.15) + rng.normal(0, 0.02) * t + rng.normal(0, 0.06, 3) + flicker
    shade = None
    if rng.random() < 0.2:
        n = int(rng.integers(2, 6))
        light = cv2.resize(
            rng.uniform(0.4, 1.4, (n, n)).astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR
        )
        shade = cv2.merge([light] * 3)
    return Lens(
        gains=gains,
        shade=shade,
        sigma=float(rng.choice([0, 2.0, 5.0, 10.0])),
        offsets=rng.integers(0, 512, (frames, 2)),
        blur=float(rng.choice([0, 0, 0, 0.6, 1.0, 1.5])),
        soft=float(rng.choice([0, 0, 0.7, 1.2])),
        exposure=float(rng.uniform(0.2, 0.9)) if rng.random() < 0.4 else 0.0,
        quality=int(rng.integers(25, 90)) if rng.random() < 0.35 else 0,
        shadow=bool(rng.random() < 0.25),
    )


def _rates(path: np.ndarray) -> np.ndarray:
    """Change per frame of a path (T, 2); zero for a single frame."""
    return np.gradient(path, axis=0) if len(path) > 1 else np.zeros_like(path)


def _see(camera: Camera, layers: list[Layer]) -> None:
    """Zoom and turn the layers about the middle of the picture, and note how fast each moves."""
    c, s = camera.zoom * np.cos(camera.turn), camera.zoom * np.sin(camera.turn)
    for item in layers:
        x, y = (item.place - 0.5).T
        item.place = 0.5 + np.stack([c * x - s * y, s * x + c * y], 1)
        item.size, item.angle = item.size * camera.zoom, item.angle + camera.turn
        item.velocity = _rates(item.place)


def _moves(camera: Camera, follow: np.ndarray, scale: np.ndarray, side: int) -> np.ndarray:
    """From pixels of each frame to pixels of the background, float (T, 2, 3)."""
    c, s = np.cos(camera.turn) / camera.zoom, np.sin(camera.turn) / camera.zoom
    turn_back = np.stack([np.stack([c, s], 1), np.stack([-s, c], 1)], 1)
    seen = turn_back / scale[:, None, None]
    centre = np.einsum("tij,tj->ti", turn_back, follow) - 0.5 * seen.sum(2) - camera.shift + 1
    return np.concatenate([seen, side * centre[..., None]], 2)


def _follow(rng: Rng, target: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Where a search window stands and how much it enlarges, (T, 2) and (T,): one frame late and not quite exact."""
    frames = len(target.place)
    late = target.place[np.maximum(np.arange(frames) - 1, 0)] - 0.5
    jitter = rng.normal(0, rng.choice([0.004, 0.015, 0.04]), (frames, 2)) + rng.normal(0, 0.05, 2)
    return late + jitter, np.exp(rng.normal(0, rng.choice([0, 0.02, 0.06]), frames))


def stage(rng: Rng, window: TextureWindow, frames: int, side: int, subject: Subject | None = None) -> Staged:
    """Make up a scene; nothing promises that its target can be seen.

    Args:
        rng: decides on everything.
        window: where textures come from.
        frames: how many.
        side: of the frames, in pixels.
        subject: the target, which moves over its own surroundings; None for a drawn one.
    """
    camera = _camera(rng, frames)
    background = None if subject else _background(rng, window, side)
    speed = float(rng.choice([0.003, 0.015, 0.04, 0.1]))
    near = rng.random() < 0.8
    pictures = subject.pictures if subject else thing(rng, window, frames)
    if background is not None and rng.random() < 0.12:
        pictures = _camouflaged(rng, pictures, background)
    target = _layer(rng, pictures, frames, (0.45, 1.2) if near else (0.15, 0.5), camera, speed)
    if subject:
        target.angle = target.angle - target.angle[0] + rng.normal(0, 0.1)  # as it stands, nearly
        background = subject.background(rng, side, float(target.size[0]))
    assert background is not None
    layers, twin = _others(rng, target, window, camera, speed)
    gone = rng.random() if frames >= 5 else 1.0
    if gone < 0.07:
        layers.append(_hiding(rng, target, window, camera))
    _see(camera, layers)
    follow, scale = np.zeros((frames, 2)), np.ones(frames)
    if near and rng.random() < 0.94:
        follow, scale = _follow(rng, target)
    if 0.07 <= gone < 0.16:  # after the window was placed: it waits where the target would be
        away = _absence(rng, frames, float(target.size.max()))
        target.place, target.velocity = target.place + away, target.velocity + _rates(away)
    for item in layers:
        item.place = 0.5 + (item.place - follow - 0.5) * scale[:, None]
        item.size = item.size * scale
    moves = _moves(camera, follow, scale, side)
    return Staged(side, background, moves, _rates(camera.shift), layers, target, twin, _lens(rng, frames, side))
