"""What differs between families of vision-language models, and nothing else: how one square image enters the model.

A family says how many placeholders an image takes, how its pixels are arranged, and what the model wants beside them.
The rest is the same for all: `model.model(...)` gives last hidden states after the final norm, `model.lm_head` reads
words off them. How people talk to a family is a `Conversation` (see `templates`). No image processor is used, because
several of them need torchvision; tests compare with those that do not. To add a family, write a class here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trackgpt.errors import ModelError, UsageError
from trackgpt.reasoners.templates import ROLES


class Family:
    """LLaVA 1.0 and 1.5, and the base of the others: one square of one size, one token a cell.

    Args:
        config: of the whole model, as transformers has it.
        side: side of the square image in pixels.

    Raises:
        UsageError: the model cannot take a square of this side.
    """

    def __init__(self, config: Any, side: int) -> None:
        self.config = config
        self.side = side
        self.check()

    @classmethod
    def side_of(cls, config: Any) -> int:
        """The side that a checkpoint was made for, in pixels."""
        return int(config.vision_config.image_size)

    @classmethod
    def conversation(cls, config: Any, tokenizer: Any) -> str:
        """The name of the conversation that a checkpoint was trained with (a key of `templates.CONVERSATIONS`)."""
        if ROLES in tokenizer.get_vocab():
            return "llava-chatml"  # LLaVA 1.6 34B
        return "mistral" if config.get_text_config().model_type == "mistral" else "vicuna"

    def check(self) -> None:
        """Refuse a side that the model cannot take."""
        self._refuse_unless(self.side == self.side_of(self.config), f"it takes {self.side_of(self.config)}")

    @property
    def image_id(self) -> int:
        """The id of the placeholder that one token of the image replaces."""
        return int(self.config.image_token_id)

    @property
    def image_tokens(self) -> int:
        """How many tokens one image takes."""
        return image_tokens(self.config)

    def arrange(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (b, 3, s, s) as the model takes them; the first axis starts with the b images in order."""
        return pixels

    def inputs(self, model: Any, ids: Tensor, pixels: Tensor | None, past: int) -> dict[str, Any]:
        """What the model is given beside ids.

        Args:
            model: the base model (`.model` of the whole one), asked for positions, never changed.
            ids: (b, l) with placeholders expanded.
            pixels: from `arrange`, one image a row of ids; None where the image is in the cache or there is none.
            past: length of the cache.
        """
        return {} if pixels is None else {"pixel_values": pixels}

    def _refuse_unless(self, right: bool, wanted: str) -> None:
        if not right:
            kind = self.config.model_type
            raise UsageError(f"brain.image_side: {self.side} does not suit this {kind}: {wanted}")


class LlavaNext(Family):
    """LLaVA 1.6: the whole image, then its tiles, each as large as the tower's square, and a newline token a row."""

    @classmethod
    def side_of(cls, config: Any) -> int:
        """The largest square grid of tiles that the checkpoint knows; a padded frame is a square."""
        squares = [height for height, width in config.image_grid_pinpoints if height == width]
        return max(squares, default=0)

    def check(self) -> None:
        """The side must be one of the grids, so that the model neither scales nor crops."""
        grids = [height for height, width in self.config.image_grid_pinpoints if height == width]
        self._refuse_unless(self.side in grids, f"its square grids are {grids}")

    @property
    def image_tokens(self) -> int:
        """Of the whole image, and of the grid with one newline a row."""
        whole = image_tokens(self.config)
        rows = self._cells * (self.side // self._tile)
        return whole + rows * (rows + 1)

    @property
    def _tile(self) -> int:
        return int(self.config.vision_config.image_size)

    @property
    def _cells(self) -> int:
        return self._tile // int(self.config.vision_config.patch_size)

    def arrange(self, pixels: Tensor) -> Tensor:
        """(b, 1 + n * n, 3, t, t): the whole image made small, then n rows of n tiles."""
        tile, n = self._tile, self.side // self._tile
        whole = F.interpolate(pixels, (tile, tile), mode="bicubic", antialias=True)
        tiles = pixels.unflatten(2, (n, tile)).unflatten(4, (n, tile)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        return torch.cat([whole[:, None], tiles], dim=1)

    def inputs(self, model: Any, ids: Tensor, pixels: Tensor | None, past: int) -> dict[str, Any]:
        """With the size of the image before it was tiled."""
        if pixels is None:
            return {}
        sizes = torch.full((len(pixels), 2), self.side, device=pixels.device)
        return {"pixel_values": pixels, "image_sizes": sizes}


class Qwen(Family):
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL: any multiple of a merged patch, and rotary positions in rows and columns."""

    CELLS = 16
    """Merged patches along the side where nothing else is asked for: 448 pixels in Qwen2.5-VL, 512 in Qwen3-VL."""

    @classmethod
    def side_of(cls, config: Any) -> int:
        """Nothing is trained for one size; see `CELLS`."""
        return cls.CELLS * _merged(config)

    @classmethod
    def conversation(cls, config: Any, tokenizer: Any) -> str:
        """ChatML; models before Qwen3 were trained with a system line."""
        return "chatml" if config.model_type.startswith("qwen3") else "qwen"

    def check(self) -> None:
        """The side must be a multiple of a merged patch."""
        merged = _merged(self.config)
        self._refuse_unless(self.side > 0 and self.side % merged == 0, f"it takes multiples of {merged}")

    @property
    def image_tokens(self) -> int:
        """One a merged patch."""
        return (self.side // _merged(self.config)) ** 2

    def arrange(self, pixels: Tensor) -> Tensor:
        """(b * patches, 3 * time * p * p), the four patches of a merged one together; the frame fills all of a step."""
        vision = self.config.vision_config
        p, m = vision.patch_size, vision.spatial_merge_size
        n = self.side // (p * m)
        grid = pixels.unflatten(2, (n, m, p)).unflatten(5, (n, m, p))  # (b, 3, n, m, p, n, m, p)
        patches = grid.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (b, n, n, m, m, 3, p, p)
        return patches.unsqueeze(6).expand(*[-1] * 6, vision.temporal_patch_size, -1, -1).flatten(5).flatten(0, 4)

    def inputs(self, model: Any, ids: Tensor, pixels: Tensor | None, past: int) -> dict[str, Any]:
        """With grids and positions. The model would remember the positions' offset itself; a shared model must not."""
        if pixels is None:
            return {"position_ids": self._after(ids, past)} if past else {}
        patches = self.side // self.config.vision_config.patch_size
        grid = torch.tensor([[1, patches, patches]] * len(ids), device=ids.device)
        kinds = (ids == self.image_id).int()
        positions, _ = model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grid)
        return {"pixel_values": pixels, "image_grid_thw": grid, "position_ids": positions}

    def _after(self, ids: Tensor, past: int) -> Tensor:
        """Positions (3, b, l) after one image: it took as many as it has rows, and not as many as it has tokens."""
        start = past - self.image_tokens + self.side // _merged(self.config)
        return (start + torch.arange(ids.shape[1], device=ids.device)).expand(3, len(ids), -1)


class SmolVLM(Family):
    """SmolVLM, SmolVLM2 and Idefics3, with the image whole: several cells shuffled into one token."""

    @classmethod
    def conversation(cls, config: Any, tokenizer: Any) -> str:
        """Its own: turns end with a token of their own, and a token on either side marks the whole image."""
        return "smolvlm"

    @property
    def image_tokens(self) -> int:
        """One a square of `scale_factor` cells."""
        vision = self.config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2 // self.config.scale_factor**2)

    def arrange(self, pixels: Tensor) -> Tensor:
        """(b, 1, 3, s, s): one image a row."""
        return pixels[:, None]


FAMILIES: dict[str, type[Family]] = {
    "llava": Family,
    "llava_next": LlavaNext,
    "qwen2_vl": Qwen,
    "qwen2_5_vl": Qwen,
    "qwen3_vl": Qwen,
    "smolvlm": SmolVLM,
    "idefics3": SmolVLM,
}
"""By transformers' `model_type`."""


def family_of(model_type: str, where: str = "brain.llava") -> type[Family]:
    """The family of a model.

    Raises:
        ModelError: MD06, there is none for this type.
    """
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ModelError(f"{where}: no brain of the type {model_type!r} is known here; there are {known}", "MD06")
    return FAMILIES[model_type]


def build(values: dict[str, Any]) -> Any:
    """A model with random weights from its configuration as a dictionary; without `model_type` it is a LLaVA.

    Raises:
        ModelError: MD06, see `family_of`.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    model_type = values.get("model_type", "llava")
    family_of(model_type)
    rest = {key: value for key, value in values.items() if key != "model_type"}
    return AutoModelForImageTextToText.from_config(AutoConfig.for_model(model_type, **rest))


def image_tokens(config: Any) -> int:
    """How many tokens one square of a LLaVA's tower takes: its cells, plus the class token when it is kept."""
    vision = config.vision_config
    cells = (vision.image_size // vision.patch_size) ** 2
    keeps_class = config.vision_feature_select_strategy == "full" and vision.model_type == "clip_vision_model"
    return int(cells) + int(keeps_class)


def _merged(config: Any) -> int:
    """Side in pixels of the patches that become one token."""
    return int(config.vision_config.patch_size * config.vision_config.spatial_merge_size)
