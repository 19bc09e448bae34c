"""Jointed figures that walk and dance: bones with a texture each, which swing about their joints over time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from trackgpt.synthtrack.silhouettes import CANVAS
from trackgpt.synthtrack.textures import TextureWindow, colour

Rng = np.random.Generator
_MARGIN = 5  # pixels that stay free round a figure


@dataclass(frozen=True)
class Bone:
    """A limb's piece: a tapered bar with round ends, in units of about a body's length and radians.

    Attributes:
        parent: index of the bone that it hangs on, below its own; -1 for the body.
        at: where on the parent, 0 at its start, 1 at its end.
        angle: at rest, relative to the parent; of the body to the x axis (y points down).
        length: from joint to tip.
        widths: at joint and tip.
        swing: amplitude about the rest angle.
        phase: of the swing.
        depth: bones of lower depth are drawn first.
    """

    parent: int
    at: float
    angle: float
    length: float
    widths: tuple[float, float]
    swing: float = 0.0
    phase: float = 0.0
    depth: float = 0.0


def _leg(rng: Rng, bones: list[Bone], upper: Bone, bend: float) -> None:
    """Add a limb of two bones, the lower one following the upper one's swing, and perhaps a foot or hand."""
    bones.append(upper)
    thin = upper.widths[1]
    lower = Bone(
        len(bones) - 1, 1.0, bend, upper.length * rng.uniform(0.8, 1.1), (thin, thin * rng.uniform(0.5, 1.0)),
        upper.swing * rng.uniform(0.3, 1.1), upper.phase + rng.uniform(0.6, 1.6), upper.depth,
    )  # fmt: skip
    bones.append(lower)
    if rng.random() < 0.6:
        size = lower.length * rng.uniform(0.2, 0.4)
        turn = rng.choice([-1, 1]) * rng.uniform(0.6, 1.6)
        bones.append(Bone(len(bones) - 1, 1.0, turn, size, (lower.widths[1],) * 2, 0.2, lower.phase, lower.depth))


def quadruped(rng: Rng) -> list[Bone]:
    """A four-legged animal from the side, with neck, head and perhaps a tail."""
    girth = rng.uniform(0.25, 0.55)
    bones = [Bone(-1, 0, rng.normal(0, 0.1), 1.0, (girth, girth * rng.uniform(0.7, 1.2)), 0.05)]
    length, width, swing = rng.uniform(0.22, 0.5), rng.uniform(0.1, 0.22), rng.uniform(0.15, 0.7)
    for k, at in enumerate((0.02, 0.98, 0.02, 0.98)):
        depth = -1.0 if k < 2 else 1.0
        phase = np.pi * ((k + k // 2) % 2) + rng.normal(0, 0.4)
        upper = Bone(0, at, np.pi / 2 + rng.normal(0, 0.1), length, (width * 1.3, width), swing, phase, depth)
        _leg(rng, bones, upper, rng.normal(0, 0.3))
    neck = rng.uniform(0.08, 0.3)
    bones.append(
        Bone(0, 1.0, -rng.uniform(0.2, 1.3), rng.uniform(0.25, 0.7), (neck * 1.4, neck), 0.15, rng.uniform(0, 6))
    )
    head = rng.uniform(0.15, 0.3)
    bones.append(
        Bone(
            len(bones) - 1,
            1.0,
            rng.uniform(0.3, 1.2),
            rng.uniform(0.15, 0.35),
            (head, head * 0.6),
            0.2,
            rng.uniform(0, 6),
        )
    )
    if rng.random() < 0.7:
        tail = rng.uniform(0.03, 0.1)
        bones.append(
            Bone(0, 0.0, np.pi + rng.normal(0, 0.7), rng.uniform(0.2, 0.6), (tail, tail * 0.7), 0.5, 1.0, -0.5)
        )
    return bones


def biped(rng: Rng) -> list[Bone]:
    """A person-like figure: torso, head, two legs and two arms."""
    breadth, lively = rng.uniform(0.25, 0.5), rng.uniform(0.15, 1.0)
    bones = [Bone(-1, 0, -np.pi / 2 + rng.normal(0, 0.15), 0.7, (breadth * rng.uniform(0.7, 1), breadth), 0.08)]
    length, width = rng.uniform(0.35, 0.6), rng.uniform(0.12, 0.22)
    for k in range(2):
        phase = np.pi * k + rng.normal(0, 0.3)
        spread = rng.normal(0, 0.12) + (k - 0.5) * rng.uniform(0, 0.4)
        leg = Bone(0, 0.0, np.pi + spread, length, (width * 1.2, width), 0.6 * lively, phase, 0.5 - k)
        _leg(rng, bones, leg, rng.normal(0, 0.2))
        reach = np.pi + (k - 0.5) * rng.uniform(0, 1.8)
        arm = Bone(0, 0.95, reach, length * 0.7, (width * 0.8, width * 0.6), 0.9 * lively, phase + np.pi, 1 - 2.0 * k)
        _leg(rng, bones, arm, rng.normal(0, 0.5))
    head = rng.uniform(0.22, 0.36)
    bones.append(Bone(0, 1.0, rng.normal(0, 0.1), 0.12 + 0.5 * head, (head * 0.6, head), 0.12, rng.uniform(0, 6), 0.2))
    return bones


def creature(rng: Rng) -> list[Bone]:
    """A body with any limbs anywhere."""
    girth = rng.uniform(0.2, 0.8)
    bones = [Bone(-1, 0, rng.uniform(0, 6.28), rng.uniform(0.1, 0.6), (girth, girth * rng.uniform(0.5, 1)), 0.1)]
    for _ in range(int(rng.integers(1, 7))):
        parent, at, angle, width = 0, rng.random(), rng.uniform(0, 6.28), rng.uniform(0.04, 0.25)
        for _ in range(int(rng.integers(1, 4))):
            swing, depth = rng.uniform(0, 0.7), rng.uniform(-1, 1)
            length = rng.uniform(0.2, 0.55)
            bones.append(Bone(parent, at, angle, length, (width, width), swing, rng.uniform(0, 6.28), depth))
            parent, at, angle, width = len(bones) - 1, 1.0, rng.normal(0, 0.6), width * rng.uniform(0.6, 1.1)
    return bones


def posed(bones: list[Bone], beat: float) -> tuple[np.ndarray, np.ndarray]:
    """Joint and tip of every bone at a moment of the swing.

    Args:
        bones: parents before children.
        beat: phase of the swing, in radians.

    Returns:
        float (bones, 2, 2): joint and tip as x, y; and float (bones,): angles to the x axis.
    """
    ends, angles = np.zeros((len(bones), 2, 2)), np.zeros(len(bones))
    for k, bone in enumerate(bones):
        angle = bone.angle + bone.swing * np.sin(beat + bone.phase)
        if bone.parent >= 0:
            angle += angles[bone.parent]
            joint, tip = ends[bone.parent]
            ends[k] = joint + bone.at * (tip - joint)
        ends[k, 1] += bone.length * np.array([np.cos(angle), np.sin(angle)])
        angles[k] = angle
    return ends, angles


def _bar(
    rgb: np.ndarray, alpha: np.ndarray, ends: np.ndarray, widths: np.ndarray, fill: np.ndarray, angle: float
) -> None:
    """Draw one bone into rgb and alpha; `ends` (2, 2) and `widths` (2,) in pixels; the fill turns with the bone."""
    low = np.maximum((ends.min(0) - widths.max() / 2 - 2).astype(int), 0)
    high = np.minimum((ends.max(0) + widths.max() / 2 + 3).astype(int), CANVAS)
    (x0, y0), (w, h) = low.tolist(), (high - low).tolist()
    bar = np.zeros((h, w), np.uint8)
    across = 0.5 * np.array([-np.sin(angle), np.cos(angle)])
    corners = [ends[0] + across * widths[0], ends[1] + across * widths[1]]
    corners += [ends[1] - across * widths[1], ends[0] - across * widths[0]]
    cv2.fillConvexPoly(bar, ((np.array(corners) - low) * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    for end, width in zip(ends, widths):
        cv2.circle(bar, ((end - low) * 16).astype(int).tolist(), int(8 * width), 255, -1, cv2.LINE_AA, 4)
    c, s = np.cos(angle), np.sin(angle)
    x, y = low - ends[0]
    move = np.array([[c, s, c * x + s * y + CANVAS / 3], [-s, c, c * y - s * x + CANVAS / 2]])
    skin = cv2.warpAffine(
        fill, move, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    part = (slice(y0, y0 + h), slice(x0, x0 + w))
    rgb[part] = cv2.copyTo(skin, bar, rgb[part].copy())
    np.maximum(alpha[part], bar, out=alpha[part])


def _fills(rng: Rng, window: TextureWindow, count: int) -> list[np.ndarray]:
    """What each bone is covered with, uint8 (CANVAS, CANVAS, 3): one texture for all, or changes from limb to limb."""
    one, fill = rng.random() < 0.35, window.piece(rng, CANVAS)
    out = []
    for _ in range(count):
        if not one and rng.random() < 0.4:
            fill = window.piece(rng, CANVAS)
            if rng.random() < 0.4:
                fill = np.full((CANVAS, CANVAS, 3), colour(rng).astype(np.uint8))
        out.append(fill)
    return out


def figure(rng: Rng, window: TextureWindow, frames: int, still: bool = False) -> np.ndarray:
    """The pictures of a moving figure that fills its canvas, uint8 (frames, CANVAS, CANVAS, 4) RGBA.

    Args:
        rng: decides on everything.
        window: where its textures come from.
        frames: how many.
        still: no swing, and a single picture.
    """
    bones = (quadruped, biped, creature)[int(rng.choice(3, p=[0.35, 0.4, 0.25]))](rng)
    if rng.random() < 0.5:  # looks the other way
        bones = [replace(b, angle=(np.pi - b.angle if b.parent < 0 else -b.angle), swing=-b.swing) for b in bones]
    rate, start = rng.uniform(0.25, 1.5), rng.uniform(0, 6.28)
    beats = [start] if still else [start + rate * k for k in range(frames)]
    poses = [posed(bones, beat) for beat in beats]
    widths = np.array([bone.widths for bone in bones])
    all_ends = np.stack([ends for ends, _ in poses])
    low = (all_ends - widths[..., None] / 2).min((0, 1, 2))
    high = (all_ends + widths[..., None] / 2).max((0, 1, 2))
    scale = (CANVAS - 2 * _MARGIN) / float((high - low).max())
    fills = _fills(rng, window, len(bones))
    order = np.argsort([bone.depth for bone in bones], kind="stable")
    out = np.empty((len(poses), CANVAS, CANVAS, 4), np.uint8)
    for k, (ends, angles) in enumerate(poses):
        rgb, alpha = fills[0].copy(), np.zeros((CANVAS, CANVAS), np.uint8)
        pixels = (ends - (low + high) / 2) * scale + CANVAS / 2
        for b in order:
            _bar(rgb, alpha, pixels[b], widths[b] * scale, fills[b], float(angles[b]))
        out[k] = cv2.merge([rgb, alpha])
    return out
