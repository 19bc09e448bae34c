"""Answers whose queries are to become fixed codes (`train.codes`): the codes of what they name, and what is lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trackgpt.reasoners.brain import Brain
from train.codes import CATEGORY, PLACE, Codes
from train.losses import Losses, code_loss, text_loss
from train.packing import Packed, packed_logits, packed_queries
from train.synthtrack_samples import Turn


def codes_of(codes: Codes, turns: Sequence[Turn]) -> tuple[Tensor, Tensor]:
    """Referring and purport code (n, 128) of every target of some turns."""
    boxes = torch.from_numpy(np.concatenate([t.boxes for t in turns]))
    kinds = torch.tensor([c for t in turns for c in t.category]), torch.tensor([c for t in turns for c in t.colour])
    return codes.referring(boxes, *kinds), codes.purport(*kinds)


def answer_losses(
    brain: Brain, hidden: Tensor, batch: Packed, referring_code: Tensor, purport_code: Tensor
) -> tuple[Losses, dict[str, float]]:
    """Losses "text", "code" and "purport_code" of packed turns, and figures of them.

    Args:
        brain: the model.
        hidden: last hidden states (b, l, h) of the turns.
        batch: the turns.
        referring_code, purport_code: of every target, (targets, 128).
    """
    logits, labels = packed_logits(brain, hidden, batch)
    referring, purport = packed_queries(brain, hidden, batch)
    losses = {
        "text": text_loss(logits, labels),
        "code": code_loss(referring, referring_code),
        "purport_code": code_loss(purport, purport_code),
    }
    with torch.no_grad():
        figures = {
            "place_mse": code_loss(referring[:, PLACE], referring_code[:, PLACE]).item(),
            "what_mse": code_loss(referring[:, CATEGORY], referring_code[:, CATEGORY]).item(),
            "token_acc": (logits.argmax(-1) == labels).float().mean().item(),
        }
    return losses, figures
