"""Give a nano a vision tower on a larger square, with what its smaller one has learned."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.config import TrackGPTConfig
from trackgpt.errors import UsageError
from trackgpt.reasoners.conv_tower import ConvTower, ConvTowerConfig
from trackgpt.systems.trackgpt import TrackGPT

NOISE = 0.01
"""Standard deviation of what the first merging convolution has beside the mean of 2 x 2 cells."""


def enlarge_tower(model: TrackGPT, side: int, merging: int, seed: int = 0) -> TrackGPT:
    """The same model whose brain sees squares of `side` pixels; a model that does so already is returned as it is.

    The encoder's convolutions know no side; positions are interpolated. What merges cells into tokens (see
    `ConvTower.read`) begins as the mean of 2 x 2 of them.

    Raises:
        UsageError: the model's tower is none of convolutions, or has already been merged otherwise.
    """
    tower = model.brain.vision
    if not isinstance(tower, ConvTower):
        raise UsageError(f"tower: {type(tower).__name__} cannot be enlarged; wanted the convolutions of nano")
    if (tower.config.image_size, tower.config.merging) == (side, merging):
        return model
    if tower.config.merging:
        raise UsageError(f"tower: the model merges cells already, at {tower.config.image_size} pixels; leave tower out")
    torch.manual_seed(seed)
    made = TrackGPT.from_config(with_tower(model.config, side, merging), model.brain.template.tokenizer)
    grown: ConvTower = made.brain.vision
    weights = model.state_dict()
    name = next(key for key in weights if key.endswith("vision_tower.position_embedding"))
    weights[name] = _interpolated(weights[name], grown.position_embedding.shape[1])
    made.load_state_dict(weights, strict=False)
    _begin_as_mean(grown.merging)
    return made


def with_tower(config: TrackGPTConfig, side: int, merging: int) -> TrackGPTConfig:
    """The configuration of a nano whose brain sees squares of `side` pixels; see `ConvTowerConfig` for `merging`."""
    made = copy.deepcopy(config)
    made.brain.image_side = side
    vision = {**made.brain.llava["vision_config"], "image_size": side, "merging": merging}
    tokens = (side // ConvTowerConfig(image_size=side, merging=merging).patch_size) ** 2
    made.brain.llava = {**made.brain.llava, "vision_config": vision, "image_seq_length": tokens}
    return made


def _interpolated(positions: Tensor, cells: int) -> Tensor:
    """Positions (1, n * n, c) on a grid of `cells` cells."""
    old, new = (round(count**0.5) for count in (positions.shape[1], cells))
    grid = positions.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    made = F.interpolate(grid, (new, new), mode="bilinear", align_corners=False)
    return made.permute(0, 2, 3, 1).reshape(1, cells, -1).contiguous()


@torch.no_grad()
def _begin_as_mean(units: nn.Sequential) -> None:
    for k, unit in enumerate(units):
        if k:
            nn.init.zeros_(unit.norm.weight)  # the unit's identity alone
            continue
        weight = unit.conv.weight.normal_(std=NOISE)
        each = torch.arange(len(weight))
        weight[each, each, 1:, 1:] += 0.25
