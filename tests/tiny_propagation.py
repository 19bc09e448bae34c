"""A mask propagation network with random weights, small enough to follow hundreds of frames, and frames to follow."""

import numpy as np
import torch
from torch import nn

from trackgpt.config import MaskPropagationConfig
from trackgpt.perception.mask_propagation import MaskPropagation
from trackgpt.perception.nano_memory import NanoMemory, WindowSettings
from trackgpt.systems.pointed import Pointed

HEIGHT, WIDTH = 90, 120
BOX = (30.0, 24.0, 54.0, 48.0)
"""Where the square of `moving` is on frame 0."""

SETTINGS = WindowSettings(smallest=48.0, lead=0.0)


def tiny_propagation(side: int = 64, seed: int = 0) -> MaskPropagation:
    """In evaluation mode. Its masks are about half of a window, and everything that it is given changes them."""
    torch.manual_seed(seed)
    config = MaskPropagationConfig(channels=[8, 8, 16, 16], blocks=[1, 1, 1, 1], width=32, key=16, value=16, side=side)
    model = MaskPropagation(config)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    for last in (model.coarse, model.fine, model.scores[-1]):
        nn.init.normal_(last.weight, std=0.3)
    nn.init.normal_(model.nothing)
    return model.eval()


def pointed(**fields: int) -> Pointed:
    """The network as a system, with windows that fit its small frames."""
    return Pointed(NanoMemory(tiny_propagation(**fields), SETTINGS), "tiny")


def moving(count: int, step: int = 2) -> list[np.ndarray]:
    """A red square of 24 pixels that moves to the right over a background of noise."""
    background = np.random.default_rng(0).integers(0, 120, (HEIGHT, WIDTH, 3), np.uint8)
    frames = [background.copy() for _ in range(count)]
    for t, frame in enumerate(frames):
        frame[24:48, 30 + step * t : 54 + step * t] = (230, 60, 40)
    return frames


def square(x: int = 30, y: int = 24) -> np.ndarray:
    """The mask of such a square."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + 24, x : x + 24] = True
    return mask
