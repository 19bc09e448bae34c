"""The losses of paper section 3.5 (L = L_text + L_mask + L_purport) and of the foundation stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Losses = dict[str, Tensor]
"""Parts of a loss by name, scalars."""


def mask_loss(
    logits: Tensor, truth: Tensor, bce: float = 2.0, dice: float = 0.5, ignored: Tensor | None = None
) -> Tensor:
    """The mean of `mask_costs` over masks; no masks at all cost 0."""
    return mean_cost(mask_costs(logits, truth, bce, dice, ignored))


def mean_cost(costs: Tensor) -> Tensor:
    """The mean of costs (n,), which over nothing would be no number and is 0 here."""
    return costs.mean() if len(costs) else costs.sum()


def mask_costs(
    logits: Tensor, truth: Tensor, bce: float = 2.0, dice: float = 0.5, ignored: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy and Dice of each mask, float32 (n,) (paper: 2.0 and 0.5; LISA's normalisation).

    LISA divides probabilities by 1000 and adds 1e-6: this is the same Dice with 1e-3 added.

    Args:
        logits: (n, h, w) float.
        truth: (n, h, w) bool. An empty truth is scored by cross-entropy alone: no overlap exists to reward.
        bce: weight of the cross-entropy.
        dice: weight of the Dice loss.
        ignored: (n, h, w) bool, pixels that neither loss reads; None for none.
    """
    counted = torch.ones_like(truth) if ignored is None else ~ignored
    target = (truth & counted).float()
    entropy = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none") * counted
    entropy_each = entropy.flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)
    prob = (logits.float().sigmoid() * counted).flatten(1)
    flat = target.flatten(1)
    overlap = 2 * (prob * flat).sum(1) + 1e-3
    dice_each = (1 - overlap / (prob.sum(1) + flat.sum(1) + 1e-3)) * (flat.sum(1) > 0)
    return bce * entropy_each + dice * dice_each


def mask_iou(logits: Tensor, truth: Tensor, ignored: Tensor | None = None) -> Tensor:
    """IoU (n,) of thresholded logits and truth, (n, h, w), outside `ignored`; empty against empty is 1, as in J."""
    counted = torch.ones_like(truth) if ignored is None else ~ignored
    found, wanted = (logits > 0) & counted, truth & counted
    union = (found | wanted).sum(dim=(1, 2))
    both = (found & wanted).sum(dim=(1, 2))
    return torch.where(union > 0, both / union.clamp(min=1), torch.ones_like(union, dtype=torch.float32))


def purport_loss(score: Tensor, iou: Tensor) -> Tensor:
    """Mean squared error of the purport score (n,) against the true IoU of the predicted mask (paper section 3.5)."""
    return F.mse_loss(score.float(), iou) if len(score) else score.float().sum()


def text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of next-token logits (n, v) at the positions whose labels (n,) are answer tokens."""
    return F.cross_entropy(logits.float(), labels)


def word_patch_loss(patches: Tensor, words: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of picking the right word for a patch by cosine, CLIP's idea cell by cell.

    Args:
        patches: (n, h) projected image tokens on some object.
        words: (m, h) word embeddings of the candidate names.
        labels: (n,) index of the right name.
        scale: learned temperature, a scalar.
    """
    cosine = F.normalize(patches.float(), dim=-1) @ F.normalize(words.float(), dim=-1).t()
    return F.cross_entropy(cosine * scale, labels)


def code_loss(written: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of codes (n, c); a batch in which no instruction has a target costs nothing."""
    return F.mse_loss(written.float(), wanted) if len(wanted) else written.sum() * 0
