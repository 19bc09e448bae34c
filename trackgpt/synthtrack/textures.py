"""Textures by number, for domain-randomised clips: noise, stripes, checks, gradients, spots and dead leaves.

`texture(k)` depends on k alone, so every process draws the same one, whatever it drew before; the cache only saves
time. A `TextureWindow` says which numbers a clip may use, and neighbouring seeds share nearly all of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from trackgpt.synthtrack.silhouettes import outline, polygon

Rng = np.random.Generator
SIDE = 288  # of a texture, in pixels
_PLAIN, _RICH = 101, 102  # keep the two kinds' random numbers apart


def colour(rng: Rng) -> np.ndarray:
    """An RGB colour, float32 (3,) in [0, 255]: dull more often than saturated, as in photographs."""
    base = rng.uniform(10, 245)
    return np.clip(base + rng.normal(0, rng.choice([6.0, 25.0, 70.0]), 3), 0, 255).astype(np.float32)


def noise(rng: Rng, side: int = SIDE) -> np.ndarray:
    """Noise of several octaves in [0, 1], some of it stretched, float32 (side, side)."""
    out, slope = np.zeros((side, side), np.float32), rng.uniform(0.4, 1.0)
    stretch = int(rng.choice([1, 1, 1, 3, 6]))
    for octave in range(int(rng.integers(0, 3)), int(rng.integers(4, 8))):
        n = 2**octave + 1
        grid = rng.random((n, max(2, n // stretch)), np.float32)
        if rng.random() < 0.5:
            grid = np.ascontiguousarray(grid.T)
        # Fine octaves look the same with the cheaper interpolation.
        how = cv2.INTER_CUBIC if octave < 5 else cv2.INTER_LINEAR
        out += slope**octave * cv2.resize(grid, (side, side), interpolation=how)
    low, high = float(out.min()), float(out.max())
    return (out - low) / max(high - low, 1e-6)


def toned(rng: Rng, values: np.ndarray) -> np.ndarray:
    """A field in [0, 1] in the tones of two to five colours, uint8 (height, width, 3)."""
    stops = np.sort(rng.random(int(rng.integers(2, 6))))
    tones = np.stack([colour(rng) for _ in stops])
    if rng.random() < 0.6:
        tones = tones[:1] + (tones - tones[:1]) * rng.uniform(0.1, 0.5)
    at = np.linspace(0, 1, 256)
    ramp = np.stack([np.interp(at, stops, tones[:, c]) for c in range(3)], 1)
    return np.clip(ramp, 0, 255).astype(np.uint8)[np.clip(values * 255, 0, 255).astype(np.uint8)]


def _plain_field(rng: Rng) -> np.ndarray:
    """Noise, bent stripes, checks or a gradient in [0, 1], float32 (SIDE, SIDE)."""
    kind, angle = rng.random(), rng.uniform(0, np.pi)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = x * c + y * s, y * c - x * s
    if kind < 0.58:
        return noise(rng)
    if kind < 0.75:
        bend = rng.uniform(0, 14) * noise(rng)
        return (0.5 + 0.5 * np.sin(u * (6.28 / rng.uniform(4, 50)) + bend)).astype(np.float32)
    if kind < 0.87:
        period = rng.uniform(6, 50)
        cells = (u // period + v // (period * rng.uniform(0.5, 2))) % 2
        return np.clip(0.8 * cells + 0.2 * noise(rng), 0, 1).astype(np.float32)
    return np.clip((u - u.min()) / (u.max() - u.min()) + 0.1 * (noise(rng) - 0.5), 0, 1).astype(np.float32)


def _finished(rng: Rng, picture: np.ndarray) -> np.ndarray:
    """The texture with light and shade, or softened, read-only because it is shared."""
    if rng.random() < 0.4:
        light = cv2.merge([0.5 + noise(rng)] * 3)
        picture = cv2.multiply(picture, light, dtype=cv2.CV_8U)
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 2.0))
    picture.setflags(write=False)
    return picture


@lru_cache(maxsize=96)
def plain(number: int) -> np.ndarray:
    """A texture that needs no other one, uint8 (SIDE, SIDE, 3), read-only."""
    rng = np.random.default_rng([number, _PLAIN])
    return _finished(rng, toned(rng, _plain_field(rng)))


def _spotted(rng: Rng, ground: np.ndarray) -> np.ndarray:
    """A texture with spots of one colour, uint8 (SIDE, SIDE, 3)."""
    spots = (rng.random((SIDE // 2, SIDE // 2), np.float32) < rng.uniform(0.005, 0.05)).astype(np.uint8)
    spots = cv2.dilate(spots, np.ones((int(rng.integers(1, 4)),) * 2, np.uint8))
    out = ground.copy()
    out[cv2.resize(spots, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) > 0] = colour(rng).astype(np.uint8)
    return out


def _leaves(rng: Rng, grounds: range) -> np.ndarray:
    """Dead leaves: shapes of power-law size over each other, some of them textured, uint8 (SIDE, SIDE, 3)."""
    out = plain(int(rng.choice(grounds))).copy()
    for size in np.sort(np.clip(4.0 / rng.power(1.5, int(rng.integers(20, 250))), 3, 130))[::-1]:
        x, y = rng.integers(-10, SIDE + 10, 2).tolist()
        tone, kind = colour(rng).tolist(), rng.random()
        if kind < 0.35:
            axes = (int(size), max(1, int(size * rng.uniform(0.2, 1))))
            cv2.ellipse(out, (x, y), axes, rng.uniform(0, 180), 0, 360, tone, -1, cv2.LINE_AA)
        elif kind < 0.6:
            cv2.fillPoly(out, [(polygon(rng) * size + (x, y)).astype(np.int32)], tone, cv2.LINE_AA)
        elif kind < 0.75:
            end = (int(x + rng.normal(0, 60)), int(y + rng.normal(0, 60)))
            cv2.line(out, (x, y), end, tone, int(rng.integers(1, 6)), cv2.LINE_AA)
        else:
            mask = np.zeros((SIDE, SIDE), np.uint8)
            cv2.fillPoly(mask, [(outline(rng) * size + (x, y)).astype(np.int32)], 255)
            cv2.copyTo(plain(int(rng.choice(grounds))), mask, out)
    return out


@lru_cache(maxsize=256)
def texture(number: int) -> np.ndarray:
    """The texture of a number, uint8 (SIDE, SIDE, 3), read-only.

    Richer kinds lie over plain textures from a short range, so that neighbouring numbers share them in the cache.
    """
    rng = np.random.default_rng([number, _RICH])
    grounds = range(number // 8, number // 8 + 24)
    kind = rng.random()
    if kind < 0.55:
        picture = toned(rng, _plain_field(rng))
    elif kind < 0.65:
        picture = _spotted(rng, plain(int(rng.choice(grounds))))
    else:
        picture = _leaves(rng, grounds)
    return _finished(rng, picture)


@dataclass(frozen=True)
class TextureWindow:
    """The textures that a clip may use: `count` numbers from `first`."""

    first: int
    count: int = 160

    def whole(self, rng: Rng) -> np.ndarray:
        """A texture, turned, mirrored and sometimes with its channels exchanged, uint8 (SIDE, SIDE, 3)."""
        return self._varied(rng, texture(self.first + int(rng.integers(self.count))))

    def piece(self, rng: Rng, side: int) -> np.ndarray:
        """A square of a texture at a random zoom, uint8 (side, side, 3)."""
        picture = texture(self.first + int(rng.integers(self.count)))
        n = int(rng.uniform(0.3, 1) * SIDE)
        y, x = rng.integers(SIDE - n + 1, size=2).tolist()
        cut = cv2.resize(picture[y : y + n, x : x + n], (side, side), interpolation=cv2.INTER_LINEAR)
        return self._varied(rng, cut)

    @staticmethod
    def _varied(rng: Rng, picture: np.ndarray) -> np.ndarray:
        turned = np.rot90(picture, int(rng.integers(4)))[:: int(rng.choice([-1, 1]))]
        if rng.random() < 0.3:
            turned = turned[..., rng.permutation(3)]
        return np.ascontiguousarray(turned)
