"""Silhouettes for domain-randomised clips: blobs, polygons and thin parts that stick out of them."""

from __future__ import annotations

import cv2
import numpy as np

Rng = np.random.Generator
CANVAS = 192  # side in pixels of the picture of a thing


def outline(rng: Rng) -> np.ndarray:
    """A smooth closed curve round 0 that reaches radius 1, float (64, 2)."""
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    k = np.arange(1, 7)[:, None]
    waves = rng.normal(0, 1, (6, 1)) * (0.35 / k) * np.cos(k * t + rng.uniform(0, 6.28, (6, 1)))
    r = np.clip(1 + waves.sum(0), 0.15, 2)
    return np.stack([r * np.cos(t), r * np.sin(t) * rng.uniform(0.4, 1)], 1) / r.max()


def polygon(rng: Rng) -> np.ndarray:
    """A star-shaped polygon of three to nine corners in the circle of radius 1, float (corners, 2)."""
    n = int(rng.integers(3, 10))
    t = np.sort(rng.uniform(0, 2 * np.pi, n))
    r = rng.uniform(rng.choice([0.3, 0.8]), 1, n)
    return np.stack([r * np.cos(t), r * np.sin(t) * rng.uniform(0.5, 1)], 1)


def filled(points: np.ndarray, centre: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """The inside of a closed curve in [-1, 1], uint8 (CANVAS, CANVAS) alpha with soft edges."""
    alpha = np.zeros((CANVAS, CANVAS), np.uint8)
    at = ((points + centre) * (CANVAS / 2 - 6) + CANVAS / 2) * 16
    cv2.fillPoly(alpha, [at.astype(np.int32)], 255, cv2.LINE_AA, 4)
    return alpha


def spread_colours(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours carried outwards over the rim of an alpha, so that soft edges do not turn dark.

    Args:
        rgb: uint8 (height, width, 3).
        alpha: uint8 (height, width).
    """
    weight = cv2.merge([alpha.astype(np.float32) / 255] * 3)
    spread = cv2.blur(rgb * weight, (9, 9)) / np.maximum(cv2.blur(weight, (9, 9)), 1e-3)
    return np.where(weight > 0.9, rgb, np.clip(spread, 0, 255)).astype(np.uint8)


def add_thin_parts(rng: Rng, alpha: np.ndarray) -> None:
    """Draw one to four sticks, tails or loops that start near the middle, into uint8 (CANVAS, CANVAS) alpha."""
    for _ in range(int(rng.integers(1, 5))):
        angle, width = rng.uniform(0, 2 * np.pi), int(rng.integers(2, 9))
        t = np.linspace(0, 1, 12)
        bend = angle + rng.normal(0, 0.8) * t
        reach = CANVAS * rng.uniform(0.3, 0.48) * t
        line = np.stack([reach * np.cos(bend), reach * np.sin(bend)], 1) + CANVAS / 2
        cv2.polylines(alpha, [line.astype(np.int32)], False, 255, width, cv2.LINE_AA)
        if rng.random() < 0.25:
            end = np.clip(line[-1], 16, CANVAS - 16).astype(int).tolist()
            cv2.circle(alpha, end, int(rng.integers(6, 14)), 255, int(rng.choice([-1, 3])), cv2.LINE_AA)
