"""Attention heads that begin as what they should become: look for the word one stands on, and copy what is there.

Word-patch training lays image tokens on the words that name what they show, in what colour and where. A head whose
query and key are the same projection of that word space already prefers the patch that shows the word being read, and
one whose output is the transpose of its value already copies. Attention found this way by chance is the long plateau
of training a small vision-language model from nothing. (After the mimetic initialisation of Trockman and Kolter, 2023.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from trackgpt.perception.box_transformer import BoxTransformer
from trackgpt.synthtrack.wordings import REGIONS
from trackgpt.systems.trackgpt import TrackGPT
from train.codes import CATEGORY_NAMES, COLOUR_NAMES

SHARPNESS = 1.5
COPY = 0.3


@torch.no_grad()
def seed_alike_layers(model: BoxTransformer) -> None:
    """Make every token of a box tracker begin by attending to those that look like itself, in place.

    Query and key of a layer become the same projection, as long as that of a normalised token.
    """
    for layer in model.layers:
        look = layer.attention.q_proj.weight
        torch.nn.init.normal_(look, std=model.config.width**-0.5)
        layer.attention.k_proj.weight.copy_(look)


@torch.no_grad()
def seed_matching_heads(model: TrackGPT, layers: tuple[int, ...] = (1, 2, 3), heads: int = 2) -> None:
    """Re-initialise the first `heads` heads of some layers of the language model as match-and-copy heads, in place.

    Queries and keys use only the slowly rotating half of each head's rotary dimensions, so that a match does not depend
    on how far apart question and image stand.
    """
    words = word_space(model)
    for layer in layers:
        attention = model.brain.language.layers[layer].self_attn
        size = attention.head_dim
        slow = torch.cat([torch.arange(size // 4, size // 2), torch.arange(3 * size // 4, size)])
        for head in range(heads):
            rows = torch.arange(head * size, (head + 1) * size)
            look = words[head * len(slow) : (head + 1) * len(slow)]
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight[rows] = 0
                projection.weight[rows[slow]] = SHARPNESS * look
            copied = words[head * size : (head + 1) * size]
            attention.v_proj.weight[rows] = copied
            attention.o_proj.weight[:, rows] = COPY * copied.t()


def word_space(model: TrackGPT) -> Tensor:
    """Orthonormal rows (n, h) spanning the embeddings of all names, the most telling directions first."""
    embedding = model.brain.llava.get_input_embeddings().weight
    template = model.brain.template
    names = [*CATEGORY_NAMES, *COLOUR_NAMES, *REGIONS]
    rows = torch.stack([embedding[template.encode(f" {name}")].mean(0) for name in names])
    rows = torch.nn.functional.normalize(rows, dim=1)
    return torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh
