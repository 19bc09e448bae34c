"""The stage "seeing": a tower learns to name what stands in each cell, and where the whole object is.

Windows of frames at the frames' own scale teach names at a quarter of the cost of whole frames, mosaics show many
things at once, and whole frames teach places. Words are held: the language model has learned to read them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.reasoners.conv_tower import CELL, ConvTower
from trackgpt.systems.trackgpt import TrackGPT
from train.codes import CATEGORY_NAMES, COLOUR_NAMES, EXTENT, Codes
from train.config import SeeingConfig, Shape
from train.losses import Losses
from train.mosaics import DrawnSquare, cells_of, looked_up, mosaic, ordinary, token_labels, window
from train.naming import Naming

PITCH = (0.15, 0.55)
"""Distance of the sprites of a mosaic, in units of the shorter side of a whole frame."""


class SeeingStage:
    """Cells to names and boxes: the tower and the projector; the word embeddings are held."""

    weights = {
        "word_category": 1.0,
        "word_colour": 0.5,
        "word_region": 0.3,
        "background": 0.2,
        "dense_category": 1.0,
        "dense_colour": 0.3,
        "box": 2.0,
    }

    def __init__(self, model: TrackGPT, shape: Shape, seeing: SeeingConfig, device: torch.device) -> None:
        self.model, self.shape, self.config, self.device = model, shape, seeing, device
        self.tower: ConvTower = model.brain.vision
        self.naming = Naming(model).to(device)
        width = model.brain.llava.config.get_text_config().hidden_size
        self.objectness = nn.Linear(width, 1).to(device)
        self.box = nn.Linear(width, EXTENT.stop).to(device)
        self.dense = nn.Linear(self.tower.config.hidden_size, len(CATEGORY_NAMES) + len(COLOUR_NAMES)).to(device)
        self.codes = Codes()

    def sample(self, seed: int) -> list[dict[str, Any]]:
        """Pictures with labels: one whole frame, or two windows of the same cost as half a frame."""
        rng = np.random.default_rng([seed, 21])
        side, cut = self.shape.side, self.config.window
        if not cut:
            drawn = mosaic(seed, side, PITCH) if rng.random() < self.config.mosaics else ordinary(seed, side, 1)[0]
            return [self._labelled(drawn, (0, 0))]
        if rng.random() < self.config.mosaics:
            pitch = (PITCH[0] * side / cut, PITCH[1] * side / cut)
            pieces = [mosaic(2 * seed + k, cut, pitch, full=True) for k in range(2)]
            return [self._labelled(p, self._corner(rng), placed=False) for p in pieces]
        corners = [self._corner(rng) for _ in range(2)]
        frames = ordinary(seed, side, 2)
        return [
            self._labelled(window(frame, (y * CELL, x * CELL), cut), (y, x))
            for frame, (y, x) in zip(frames, corners, strict=True)
        ]

    def _corner(self, rng: np.random.Generator) -> tuple[int, int]:
        """Row and column of a window's first cell in the whole grid, where tokens begin."""
        step = self.tower.config.patch_size // CELL
        last = (self.shape.side - self.config.window) // self.tower.config.patch_size
        y, x = rng.integers(0, last + 1, 2).tolist()
        return y * step, x * step

    def _labelled(self, picture: DrawnSquare, corner: tuple[int, int], placed: bool = True) -> dict[str, Any]:
        """Labels of a picture's tokens and cells; `placed` says that its boxes are those of the whole square."""
        tokens, cells = (len(picture.frame) // step for step in (self.tower.config.patch_size, CELL))
        shown = cells_of(picture, cells)
        dense = {"dense_category": looked_up(picture.category, shown), "dense_colour": looked_up(picture.colour, shown)}
        return {"frame": picture.frame, "corner": np.array(corner)} | token_labels(picture, tokens, placed) | dense

    def modules(self) -> Iterable[nn.Module]:
        brain = self.model.brain
        brain.llava.get_input_embeddings().weight.requires_grad_(False)
        if self.config.hold:
            self.tower.encoder.requires_grad_(False)
        seeing = [part for part in brain.llava.model.children() if part is not brain.language]
        return [*seeing, self.naming, self.objectness, self.box, self.dense]

    def losses(self, samples: list[Any]) -> tuple[Losses, dict[str, float]]:
        flat = [picture for sample in samples for picture in sample]
        frames = torch.from_numpy(np.stack([picture.pop("frame") for picture in flat])).permute(0, 3, 1, 2)
        corners = torch.from_numpy(np.stack([picture.pop("corner") for picture in flat]))
        labels = {key: torch.from_numpy(np.stack([picture[key] for picture in flat])) for key in flat[0]}
        return self.batch_losses(frames.to(self.device), corners, {k: v.to(self.device) for k, v in labels.items()})

    def batch_losses(
        self, frames: Tensor, corners: Tensor, labels: dict[str, Tensor]
    ) -> tuple[Losses, dict[str, float]]:
        """Losses of squares and windows of one size.

        Args:
            frames: uint8 (n, 3, s, s).
            corners: int64 (n, 2), row and column of each one's first cell in the whole square's grid.
            labels: "category", "colour", "region" of tokens and "dense_category", "dense_colour" of cells, int64
                (n, rows, columns), -1 where nothing is named; "box" float32 (n, rows, columns, 4), NaN where unknown.
        """
        brain = self.model.brain
        if self.config.hold:
            self.tower.encoder.eval()
        with torch.set_grad_enabled(not self.config.hold):
            maps = self.tower.encoder(brain.preprocess(frames)).embedding
        read = self.tower.read(maps, self.positions(corners, maps.shape[-1]))
        tokens = brain.llava.model.multi_modal_projector(read)
        names = {key: labels[key] for key in self.naming.names}
        out, figures = self.naming.losses(self.model, tokens, names)
        there = (labels["category"].flatten() >= 0).float()
        out["background"] = F.binary_cross_entropy_with_logits(self.objectness(tokens).flatten().float(), there)
        split = self.dense(maps.permute(0, 2, 3, 1)).split([len(CATEGORY_NAMES), len(COLOUR_NAMES)], dim=-1)
        for part, key in zip(split, ("dense_category", "dense_colour"), strict=True):
            wanted = labels[key].flatten()
            out[key] = (
                F.cross_entropy(part.flatten(0, 2).float(), wanted, ignore_index=-1)
                if self._any(wanted)
                else part.sum() * 0
            )
        boxes = labels["box"].flatten(0, 2)
        known = ~boxes.isnan().any(-1)
        found = self.box(tokens).flatten(0, 1)[known]
        none = torch.zeros(len(found), dtype=torch.long)
        wanted = self.codes.referring(boxes[known].cpu(), none, none)[:, : EXTENT.stop].to(found.device)
        out["box"] = F.mse_loss(found.float(), wanted) if len(found) else found.sum()
        figures["box_mse"] = out["box"].item()
        return out, figures

    @staticmethod
    def _any(labels: Tensor) -> bool:
        return bool((labels >= 0).any())

    def positions(self, corners: Tensor, side: int) -> Tensor:
        """The whole grid's positions at windows of `side` cells, (n, side * side, channels)."""
        whole = self.tower.position_embedding
        grid = whole.reshape(*2 * [round(whole.shape[1] ** 0.5)], -1)
        at = torch.arange(side)
        return grid[(corners[:, :1] + at)[:, :, None], (corners[:, 1:] + at)[:, None, :]].flatten(1, 2)
