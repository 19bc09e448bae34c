"""Names as rows of the language model's own embedding: what the tokens of an image learn to lie on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trackgpt.synthtrack.wordings import REGIONS
from trackgpt.systems.trackgpt import TrackGPT
from train.codes import CATEGORY_NAMES, COLOUR_NAMES
from train.losses import Losses, word_patch_loss


class Naming(nn.Module):
    """Names of categories, colours and regions as rows of the language model's own embedding, mean over tokens."""

    def __init__(self, model: TrackGPT) -> None:
        super().__init__()
        template = model.brain.template
        self.scale = nn.Parameter(torch.tensor(10.0))
        tables = {"category": CATEGORY_NAMES, "colour": COLOUR_NAMES, "region": REGIONS}
        self.names = {key: [template.encode(f" {name}") for name in table] for key, table in tables.items()}

    def losses(self, model: TrackGPT, tokens: Tensor, cells: dict[str, Tensor]) -> tuple[Losses, dict[str, float]]:
        """Word-patch losses of image tokens (b, cells, h) with labels (b, rows, columns), -1 where nothing is named."""
        embedding = model.brain.llava.get_input_embeddings()
        out: Losses = {}
        figures: dict[str, float] = {}
        for key, names in self.names.items():
            words = torch.stack([embedding.weight[ids].mean(0) for ids in names])
            labels = cells[key].flatten().to(tokens.device)
            patches, right = tokens.flatten(0, 1)[labels >= 0], labels[labels >= 0]
            if not len(right):
                out[f"word_{key}"] = patches.sum() * 0
                continue
            out[f"word_{key}"] = word_patch_loss(patches, words, right, self.scale)
            with torch.no_grad():
                picked = (F.normalize(patches.float(), dim=-1) @ F.normalize(words.float(), dim=-1).t()).argmax(1)
                figures[f"{key}_acc"] = (picked == right).float().mean().item()
        return out, figures
