"""What differs between families of vision-language models, and nothing else: how one square image enters the model.

A family says how many placeholders an image takes, how its pixels are arranged, and what else the model wants.
The rest is the same for all: `model.model(...)` gives last hidden states after the final norm, `model.lm_head` reads
words off them. How a family is spoken to is a `ConversationFormat` (see `templates`). No image processor is used,
because several of them need torchvision; tests compare with those that do not. To add a family, write a class here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from trackgpt.errors import ModelError, UsageError
from trackgpt.reasoners.templates import ROLES


class Family:
    """LLaVA 1.0 and 1.5, and the base of the others: one square of one size, one token per cell.

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
        _check_layer(self.config)

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

    def image(self, pixels: Tensor) -> dict[str, Any]:
        """What the model is given for images: pixels from `arrange`, and what it must know about them."""
        return {"pixel_values": pixels}

    def inputs(self, ids: Tensor, pixels: Tensor | None, past: int) -> dict[str, Any]:
        """What the model is given in addition to ids.

        Args:
            ids: (b, l) with placeholders expanded.
            pixels: from `arrange`, one image per row of ids; None where the image is in the cache or there is none.
            past: length of the cache.
        """
        return {} if pixels is None else self.image(pixels)

    def project(self, model: Any, pixels: Tensor) -> Tensor:
        """Image tokens in the language model's space, (b, cells, h), of pixels from `arrange`.

        Args:
            model: the base model (`.model` of the whole one).
            pixels: one image per row.
        """
        return torch.stack(list(model.get_image_features(**self.image(pixels), return_dict=True).pooler_output))

    def positions(self, ids: Tensor, places: Tensor) -> Tensor:
        """Rotary positions of tokens ids (b, l) that stand at `places` (b, l) of their own conversation."""
        return places

    def embedded(self, words: Tensor, at: Tensor, tokens: Tensor) -> dict[str, Any]:
        """What the language model is given for words and images.

        Args:
            words: (b, l, h), the embedding of ids.
            at: (b, l) bool, where the placeholders are.
            tokens: from `project`.
        """
        return {"inputs_embeds": words.masked_scatter(at.unsqueeze(-1), tokens.to(words.dtype))}

    def _refuse_unless(self, right: bool, wanted: str) -> None:
        if not right:
            kind = self.config.model_type
            raise UsageError(f"brain.image_side: {self.side} does not suit this {kind}: {wanted}")


class LlavaNext(Family):
    """LLaVA 1.6: the whole image, then its tiles, each as large as the tower's square, and a newline token per row."""

    @classmethod
    def side_of(cls, config: Any) -> int:
        """The largest square grid of tiles that the checkpoint knows; a padded frame is a square."""
        squares = [height for height, width in config.image_grid_pinpoints if height == width]
        return max(squares, default=0)

    def check(self) -> None:
        """The side must be one of the grids, so that the model neither scales nor crops."""
        grids = [height for height, width in self.config.image_grid_pinpoints if height == width]
        self._refuse_unless(self.side in grids, f"its square grids are {grids}")
        _check_layer(self.config)

    @property
    def image_tokens(self) -> int:
        """Of the whole image, and of the grid with one newline per row."""
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
        tile = self._tile
        whole = F.interpolate(pixels, (tile, tile), mode="bicubic", antialias=True)
        tiles = rearrange(pixels, "b c (row h) (column w) -> b (row column) c h w", h=tile, w=tile)
        return torch.cat([whole.unsqueeze(1), tiles], dim=1)

    def image(self, pixels: Tensor) -> dict[str, Any]:
        """With the size of the image before it was tiled."""
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
        """One per merged patch."""
        return (self.side // _merged(self.config)) ** 2

    def arrange(self, pixels: Tensor) -> Tensor:
        """(b * patches, 3 * time * p * p), the four patches of a merged one together; the frame fills all of a step."""
        vision = self.config.vision_config
        p, m = vision.patch_size, vision.spatial_merge_size
        layout = "b c (row r h) (column k w) -> (b row column r k) (c t h w)"
        return repeat(pixels, layout, r=m, k=m, h=p, w=p, t=vision.temporal_patch_size)

    def image(self, pixels: Tensor) -> dict[str, Any]:
        """With the grid of patches of every image."""
        patches = self.side // self.config.vision_config.patch_size
        grid = torch.tensor([[1, patches, patches]], device=pixels.device)
        return {"pixel_values": pixels, "image_grid_thw": grid.expand(len(pixels) // patches**2, -1)}

    def inputs(self, ids: Tensor, pixels: Tensor | None, past: int) -> dict[str, Any]:
        """With positions. The model would remember the positions' offset itself; a shared model must not."""
        places = past + torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        if pixels is not None:
            return self.image(pixels) | {"position_ids": self.positions(ids, places)}
        return {"position_ids": (places - self._saved).expand(3, -1, -1)} if past else {}

    def project(self, model: Any, pixels: Tensor) -> Tensor:
        """In Qwen3-VL (b, cells, (1 + d) * h): behind the tokens what is added to them after the first d layers."""
        found = model.get_image_features(**self.image(pixels), return_dict=True)
        deep = getattr(found, "deepstack_features", ())
        return torch.cat([torch.stack(list(tokens)) for tokens in (found.pooler_output, *deep)], dim=-1)

    def positions(self, ids: Tensor, places: Tensor) -> Tensor:
        """Time, row and column, (3, b, l), of rows that have one image each, in front of what is said about it."""
        image, rows = ids == self.image_id, self.side // _merged(self.config)
        first = image.int().argmax(1, keepdim=True)
        words = torch.where(places < first, places, places - self._saved)
        cell = places - first
        seen = (torch.zeros_like(cell), cell // rows, cell % rows)
        return torch.stack([torch.where(image, first + part, words) for part in seen])

    @property
    def _saved(self) -> int:
        """Positions that an image does not take: it takes as many as it has rows, and not as many as it has tokens."""
        return self.image_tokens - self.side // _merged(self.config)

    def embedded(self, words: Tensor, at: Tensor, tokens: Tensor) -> dict[str, Any]:
        """With what Qwen3-VL adds to the image's hidden states after its first layers."""
        first, *deep = tokens.split(words.shape[-1], dim=-1)
        added = [tokens.flatten(0, 1) for tokens in deep]
        given = super().embedded(words, at, first)
        return given | ({"visual_pos_masks": at, "deepstack_visual_embeds": added} if added else {})


class SmolVLM(Family):
    """SmolVLM, SmolVLM2 and Idefics3, with the image whole: several cells shuffled into one token."""

    @classmethod
    def conversation(cls, config: Any, tokenizer: Any) -> str:
        """Its own: turns end with a token of their own, and a token on either side marks the whole image."""
        return "smolvlm"

    @property
    def image_tokens(self) -> int:
        """One per square of `scale_factor` x `scale_factor` cells."""
        vision = self.config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2 // self.config.scale_factor**2)

    def arrange(self, pixels: Tensor) -> Tensor:
        """(b, 1, 3, s, s): one image per row."""
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


def _check_layer(config: Any) -> None:
    """Refuse a LLaVA whose features come from a layer that its vision tower has not."""
    given = getattr(config.vision_config, "num_hidden_layers", 0) + 1  # and what enters the first
    layers = getattr(config, "vision_feature_layer", -1)
    for layer in layers if isinstance(layers, (list, tuple)) else [layers]:
        if not -given <= layer < given:
            raise UsageError(f"vision_feature_layer: {layer} is none of the {given} outputs of the vision tower")


def _merged(config: Any) -> int:
    """Side in pixels of the patches that become one token."""
    return int(config.vision_config.patch_size * config.vision_config.spatial_merge_size)
