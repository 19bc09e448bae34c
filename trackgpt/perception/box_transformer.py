"""A one-stream tracker of boxes: temporal tokens, words, views of the target and a search window in one transformer.

All tokens attend to each other; a centre head makes a score, an offset and a size of each cell of the search window
(OSTrack, Ye et al., ECCV 2022). Temporal tokens carry what was seen on to the next frame (ODTrack, Zheng et al., AAAI
2024), and words stand among the tokens (DUTrack, Li et al., CVPR 2025, the tracker of ReasoningTrack). Layers are those
of transformers. Candidate elimination, by which OSTrack drops cells to save time, is left out. The module holds
weights, never a track: what is handed on is an argument and a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViTConfig
from transformers.models.vit.modeling_vit import ViTLayer

from trackgpt.config import BoxTransformerConfig
from trackgpt.errors import UsageError
from trackgpt.perception.encoders import ConvEncoder
from trackgpt.perception.model_folders import CONFIG_FILE, read_folder, write_folder
from trackgpt.settings import read_json

STRIDE = 16
"""Pixels of a cell, in every layout."""
STAGES = 4
"""Of "convolutions", each of which halves the map."""
FIRST_SCORE = -2.19
"""Logit of a new tracker's scores, 0.1, so that the many cells that hold no middle do not swamp its first steps."""
LEAST_SCORE = 1e-4
"""Scores and sizes lie this far from 0 and 1, so that their losses are finite (CenterNet)."""

NANO = BoxTransformerConfig(
    stem="convolutions",
    stem_blocks=[1, 2, 4, 5],
    stem_channels=[32, 48, 96, 192],
    depth=4,
    hidden=512,
    templates=2,
    weighed=False,
    template_side=96,
    search_side=192,
    head=64,
)
"""Small enough to learn on a CPU: convolutions make the cells, as in all nano models, and four layers compare them."""
B_256 = BoxTransformerConfig(
    name="box-b-256", width=768, depth=12, heads=12, hidden=3072, vocabulary=30_522, word_width=768, head=256
)
SIZES = {
    "nano": NANO,
    "b-256": B_256,
    "b-384": replace(B_256, name="box-b-384", template_side=192, search_side=384, search_factor=5.0),
}
"""Sizes of this project by name; those of other projects follow their checkpoints (`box_checkpoints`)."""


@dataclass(frozen=True)
class BoxMaps:
    """What n search windows say of the target, in g x g cells.

    Attributes:
        score: (n, g, g), whether its middle lies in the cell, inside of (0, 1).
        size: (n, 2, g, g), width and height in sides of the window, inside of (0, 1).
        offset: (n, 2, g, g), x and y of its middle from the cell's upper left corner, in cells.
        temporal: (n, t, c), what to hand on, or None.
    """

    score: Tensor
    size: Tensor
    offset: Tensor
    temporal: Tensor | None

    def boxes(self, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Boxes (n, 4) cx, cy, w, h in sides of the window, and the score (n,) of each.

        Args:
            weight: (g, g), by which scores are multiplied before the best cell is taken, and not those that are given
                back; a Hann window prefers the middle.
        """
        n, side, _ = self.score.shape
        flat = self.score.flatten(1)
        best = (flat if weight is None else flat * weight.flatten()).argmax(1)
        rows = torch.arange(n, device=best.device)
        offset, size = self.offset.flatten(2)[rows, :, best], self.size.flatten(2)[rows, :, best]
        cell = torch.stack([best % side, best // side], 1)
        return torch.cat([(cell + offset) / side, size], 1), flat[rows, best]


class BoxTransformer(nn.Module):
    """Stem, word table, transformer and centre head of a configuration.

    Attributes:
        tokenizer: of transformers, for those who give it words; None until somebody sets it. It is saved, too.

    Raises:
        UsageError: a side is no multiple of 16; heads do not divide the width; a pyramid's width is no multiple of 4.
    """

    def __init__(self, config: BoxTransformerConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.tokenizer: Any = None
        width = config.width
        self.stem = _stem(config)
        sides = {"template": config.template_side // STRIDE, "search": config.search_side // STRIDE}
        self.places = nn.ParameterDict({name: _vectors(side**2, width) for name, side in sides.items()})
        self.segments = nn.ParameterDict({name: _vectors(1, width) for name in sides} if config.segments else {})
        if config.temporal != "none":
            self.token, self.token_place = _vectors(1, width), _vectors(1, width)
        self.words = WordTable(config) if config.words else None
        layers = _layer_config(config)
        self.layers = nn.ModuleList(
            GatedLayer(layers) if config.gated else ViTLayer(layers) for _ in range(config.depth)
        )
        self.layers.apply(_begin)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = CentreHead(width, config.head)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> BoxTransformer:
        """Read a folder of `save_pretrained`; in evaluation mode, in float32, without its tokenizer.

        Raises:
            ModelError: MD01 a file is missing; MD02 a file is damaged, or the weights do not fit the configuration.
        """
        return read_folder(Path(folder), BoxTransformerConfig, cls, "a box tracker")

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config, weights and tokenizer to a folder; `dtype` stores floating weights smaller."""
        folder = Path(folder)
        write_folder(folder, self.config, self, dtype)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    def fold(self) -> None:
        """Fold the stem's convolutions for inference (see `ConvUnit.fold`); it no longer learns."""
        if isinstance(self.stem, Convolutions):
            self.stem.fold()

    def forward(
        self,
        templates: Tensor,
        search: Tensor,
        words: tuple[Tensor, Tensor] | None = None,
        temporal: Tensor | None = None,
    ) -> BoxMaps:
        """Look for n targets: `look` with `views` of the templates."""
        return self.look(self.views(templates), search, words, temporal)

    def views(self, templates: Tensor) -> Tensor:
        """Tokens (n, v * cells, c) of normalised views, (n, v, 3, template_side, template_side), at least one each."""
        return self._cells(templates.flatten(0, 1), "template").reshape(len(templates), -1, self.config.width)

    def look(
        self,
        shown: Tensor,
        search: Tensor,
        words: tuple[Tensor, Tensor] | None = None,
        temporal: Tensor | None = None,
    ) -> BoxMaps:
        """Look for n targets.

        Args:
            shown: tokens of their views, see `views`.
            search: normalised windows, (n, 3, search_side, search_side).
            words: word pieces, int64 (n, m), and which of them count, bool (n, m); None says nothing.
            temporal: what the last frame handed on, (n, t, c); None on a first frame.
        """
        n = len(shown)
        first, said = self._temporal(n, temporal), self._said(n, words)
        looked = self._cells(search, "search")
        tokens = torch.cat([first, said, shown, looked], 1)
        mask = None if words is None else _mask(tokens, first.shape[1], words[1])
        for layer in self.layers:
            tokens = layer(tokens, mask)
        tokens = self.norm(tokens)
        found, handed = tokens[:, -looked.shape[1] :], None
        if self.config.temporal != "none":
            if self.config.weighed:
                found = found * (found @ tokens[:, :1].transpose(1, 2))
            handed = tokens[:, : self.config.temporal_tokens]
        side = self.config.search_side // STRIDE
        score, size, offset = self.head(found.transpose(1, 2).reshape(n, -1, side, side))
        return BoxMaps(score[:, 0], size, offset, handed)

    def _cells(self, pixels: Tensor, kind: str) -> Tensor:
        """Tokens (n, cells, c) of squares."""
        cells: Tensor = self.stem(pixels).flatten(2).transpose(1, 2) + self.places[kind]
        return cells + self.segments[kind] if self.config.segments else cells

    def _temporal(self, n: int, handed: Tensor | None) -> Tensor:
        """The tokens in front, (n, t, c): none, or what the layout makes of what was handed on."""
        if self.config.temporal == "none":
            return self.places["search"].new_zeros(n, 0, self.config.width)
        if self.config.temporal == "handed":
            return handed if handed is not None else (self.token + self.token_place).expand(n, -1, -1)
        learned = (self.token + self.token_place).expand(n, self.config.temporal_tokens, -1)
        return learned if handed is None else learned + handed

    def _said(self, n: int, words: tuple[Tensor, Tensor] | None) -> Tensor:
        """The tokens of words, (n, m, c)."""
        if words is None:
            return self.places["search"].new_zeros(n, 0, self.config.width)
        if self.words is None:
            raise UsageError(f"{self.config.name} reads no words; leave them out")
        made: Tensor = self.words(words[0])
        return made


class WordTable(nn.Module):
    """Word pieces to tokens: a table, as any language model has one, places, a normalisation, and further places.

    The table may be that of another language model (`WordTable.adopt`), whose width a linear layer adapts. BERT's
    embeddings, which DUTrack has, are this with its token type added to the places.
    """

    def __init__(self, config: BoxTransformerConfig) -> None:
        super().__init__()
        inside = config.word_width
        self.table = nn.Embedding(config.vocabulary, inside)
        nn.init.normal_(self.table.weight, std=0.02)
        self.inner_places = _vectors(config.words, inside)
        self.norm = nn.LayerNorm(inside, eps=1e-12)
        self.adapt = nn.Linear(inside, config.width) if inside != config.width else nn.Identity()
        self.outer_places = _vectors(config.words, config.width)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 (n, m), m at most `words`, to (n, m, c)."""
        m = ids.shape[1]
        tokens: Tensor = self.adapt(self.norm(self.table(ids) + self.inner_places[:, :m]))
        return tokens + self.outer_places[:, :m]

    def adopt(self, table: Tensor) -> None:
        """Begin with the word table of another language model, (vocabulary, word_width).

        Raises:
            UsageError: it has another shape.
        """
        if table.shape != self.table.weight.shape:
            wanted = " x ".join(map(str, self.table.weight.shape))
            found = " x ".join(map(str, table.shape))
            raise UsageError(f"a word table of {found}; wanted {wanted} (vocabulary x word_width)")
        with torch.no_grad():
            self.table.weight.copy_(table)


class GatedLayer(ViTLayer):
    """Fast-iTPN's layer: a ViT's with SwiGLU, a normalisation inside of it, and scales of what is added."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        width, hidden = config.hidden_size, config.intermediate_size
        self.mlp = GatedMlp(width, hidden)
        self.attention_scale, self.mlp_scale = (nn.Parameter(torch.full((width,), 0.1)) for _ in range(2))

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """(n, m, c) to (n, m, c)."""
        attended, _ = self.attention(self.layernorm_before(hidden_states), attention_mask)
        hidden_states = hidden_states + self.attention_scale * attended
        added: Tensor = self.mlp_scale * self.mlp(self.layernorm_after(hidden_states))
        return hidden_states + added


class GatedMlp(nn.Module):
    """SwiGLU with a normalisation before its last layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(hidden, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) to (..., c)."""
        made: Tensor = self.down(self.norm(F.silu(self.gate(x)) * self.up(x)))
        return made


class Pyramid(nn.Module):
    """Fast-iTPN's stem: convolutional stages at strides 4 and 8, each halved with twice the width."""

    def __init__(self, config: BoxTransformerConfig) -> None:
        super().__init__()
        four, eight = config.width // 4, config.width // 2
        blocks = [
            nn.Sequential(*(PointwiseBlock(width) for _ in range(count)))
            for width, count in zip((four, eight), config.stem_blocks, strict=True)
        ]
        self.patch = nn.Conv2d(3, four, 4, 4)
        self.four, self.eight = blocks
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in (four, eight))
        self.merges = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, 2) for width in (four, eight))

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, s, s) to (n, c, s/16, s/16)."""
        x = self.patch(pixels)
        for blocks, norm, merge in zip((self.four, self.eight), self.norms, self.merges, strict=True):
            x = merge(_channels_last(norm, blocks(x)))
        made: Tensor = x
        return made


class PointwiseBlock(nn.Module):
    """x + an MLP of three times the width over channels, with a normalisation before and one inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inner_norm = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(3 * width, eps=1e-6)
        self.one, self.two = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c, h, w)."""
        added = F.gelu(self.one(_channels_last(self.norm, x)))
        added = self.two(_channels_last(self.inner_norm, added))
        return x + added


class Convolutions(ConvEncoder):
    """nano's image encoder as a stem; in training, too, it normalises by what it learned elsewhere."""

    def __init__(self, channels: list[int], blocks: list[int], out_channels: int | None) -> None:
        super().__init__(channels, blocks, out_channels)
        self.eval()

    def train(self, mode: bool = True) -> Convolutions:
        """Nothing in it behaves otherwise in training."""
        super().train(False)
        return self

    def forward(self, pixels: Tensor) -> Tensor:  # type: ignore[override]
        """(n, 3, s, s) to (n, c, s/16, s/16)."""
        return self.pyramid(pixels)[-1]


class CentreHead(nn.Module):
    """OSTrack's head: three towers of four 3 x 3 convolutions for score, offset and size (after CenterNet)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        widths = (inputs, *(channels // 2**k for k in range(4)))
        outputs = {"score": 1, "offset": 2, "size": 2}
        self.towers = nn.ModuleDict({name: _tower(widths, count) for name, count in outputs.items()})
        nn.init.constant_(self.towers["score"][-1].bias, FIRST_SCORE)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (n, c, g, g) to score (n, 1, g, g), size (n, 2, g, g) and offset (n, 2, g, g), see `BoxMaps`."""
        score, size = (
            self.towers[name](cells).sigmoid().clamp(LEAST_SCORE, 1 - LEAST_SCORE) for name in ("score", "size")
        )
        return score, size, self.towers["offset"](cells)


def is_box_transformer(folder: Path) -> bool:
    """Whether a folder holds a box tracker of `save_pretrained`.

    Raises:
        ModelError: MD02, its config.json is damaged.
    """
    file = folder / CONFIG_FILE
    return file.is_file() and read_json(file).get("kind") == BoxTransformerConfig.kind


def _stem(config: BoxTransformerConfig) -> nn.Module:
    if config.stem == "pyramid":
        return Pyramid(config)
    if config.stem == "patch":
        return nn.Conv2d(3, config.width, STRIDE, STRIDE)
    neck = None if config.stem_channels[-1] == config.width else config.width
    return Convolutions(config.stem_channels, config.stem_blocks, neck)


def _tower(widths: Sequence[int], outputs: int) -> nn.Sequential:
    units = []
    for before, after in zip(widths, widths[1:]):
        convolution = nn.Conv2d(before, after, 3, padding=1)
        nn.init.xavier_uniform_(convolution.weight)
        units.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU()))
    last = nn.Conv2d(widths[-1], outputs, 1)
    nn.init.xavier_uniform_(last.weight)
    return nn.Sequential(*units, last)


def _layer_config(config: BoxTransformerConfig) -> ViTConfig:
    layers = ViTConfig(
        hidden_size=config.width,
        num_attention_heads=config.heads,
        intermediate_size=config.hidden,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        qkv_bias=True,
    )
    layers._attn_implementation = "sdpa"
    return layers


def _check(config: BoxTransformerConfig) -> None:
    for name in ("template_side", "search_side"):
        if getattr(config, name) % STRIDE:
            raise UsageError(f"{name} {getattr(config, name)}: wanted a multiple of {STRIDE}")
    if config.width % config.heads:
        raise UsageError(f"width {config.width}: wanted a multiple of heads, which are {config.heads}")
    if config.stem == "convolutions" and not len(config.stem_channels) == len(config.stem_blocks) == STAGES:
        raise UsageError(f"stem_channels and stem_blocks: wanted {STAGES} numbers each for convolutions")
    if config.stem == "pyramid" and config.width % 4:
        raise UsageError(f"width {config.width}: wanted a multiple of 4 for a pyramid")


def _mask(tokens: Tensor, first: int, counts: Tensor) -> Tensor | None:
    """What attention adds, (n, 1, 1, tokens): minus infinity at word pieces that only fill up; None where none do.

    Args:
        tokens: (n, tokens, c).
        first: where the word pieces begin.
        counts: which of them count, bool (n, m).
    """
    if bool(counts.all()):
        return None
    seen = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    seen[:, first : first + counts.shape[1]] = counts
    return torch.zeros_like(tokens[..., 0]).masked_fill(~seen, float("-inf"))[:, None, None]


def _begin(module: nn.Module) -> None:
    """The usual first weights of a ViT's layers."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _vectors(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, count, width), std=0.02))


def _channels_last(norm: nn.Module, x: Tensor) -> Tensor:
    """A normalisation over the channels of maps (n, c, h, w)."""
    made: Tensor = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return made
