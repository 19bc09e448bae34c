"""A box tracker that is tiny and random, with nano's word pieces."""

from pathlib import Path
from typing import Any

import torch

from trackgpt.config import BoxTransformerConfig
from trackgpt.hub import find
from trackgpt.perception.box_tracker import BoxTracker
from trackgpt.perception.box_transformer import BoxTransformer
from trackgpt.reasoners.brain_weights import load_tokenizer

TINY = BoxTransformerConfig(
    name="tiny",
    width=32,
    depth=2,
    heads=2,
    hidden=32,
    word_width=16,
    template_side=32,
    search_side=64,
    head=16,
)


def tiny_network(seed: int = 0, **more: Any) -> BoxTransformer:
    """The same each time, in evaluation mode."""
    torch.manual_seed(seed)
    network = BoxTransformer(BoxTransformerConfig(**vars(TINY) | more)).eval()
    network.tokenizer = load_tokenizer(find("nano"), own=True)
    return network


def tiny_tracker(*settings: str, **more: Any) -> BoxTracker:
    """The perception over it."""
    return BoxTracker(tiny_network(**more)).configured(settings)


def written_tracker(folder: Path) -> Path:
    """A folder as training writes it."""
    tiny_network().save_pretrained(folder)
    return folder
