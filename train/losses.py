"""The losses of paper section 3.5 (L = L_text + L_mask + L_purport) and of the foundation stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_loss(
    logits: Tensor, truth: Tensor, bce: float = 2.0, dice: float = 0.5, ignored: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy and Dice per mask, averaged over masks (paper: 2.0 and 0.5; LISA's normalisation).

    Args:
        logits: (n, h, w) float.
        truth: (n, h, w) bool. An empty truth is scored by cross-entropy alone: no overlap exists to reward. No masks at
            all cost 0.
        bce: weight of the cross-entropy.
        dice: weight of the Dice loss.
        ignored: (n, h, w) bool, pixels that neither loss reads; None for none.
    """
    if len(logits) == 0:
        return logits.float().sum()  # a mean over nothing would be NaN
    counted = torch.ones_like(truth) if ignored is None else ~ignored
    target = (truth & counted).float()
    entropy = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none") * counted
    entropy_each = entropy.flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)
    prob = (logits.float().sigmoid() * counted).flatten(1)
    flat = target.flatten(1)
    overlap = 2 * (prob * flat).sum(1) + 1e-3
    dice_each = (1 - overlap / (prob.sum(1) + flat.sum(1) + 1e-3)) * (flat.sum(1) > 0)
    return (bce * entropy_each + dice * dice_each).mean()


def mask_iou(logits: Tensor, truth: Tensor, ignored: Tensor | None = None) -> Tensor:
    """IoU (n,) of thresholded logits and truth, (n, h, w), outside `ignored`; empty against empty is 1, as in J."""
    counted = torch.ones_like(truth) if ignored is None else ~ignored
    found, wanted = (logits > 0) & counted, truth & counted
    union = (found | wanted).sum(dim=(1, 2))
    both = (found & wanted).sum(dim=(1, 2))
    return torch.where(union > 0, both / union.clamp(min=1), torch.ones_like(union, dtype=torch.float32))


def purport_loss(score: Tensor, logits: Tensor, truth: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Mean squared error of the purport score (n,) against the true IoU of the predicted mask (paper section 3.5)."""
    if len(score) == 0:
        return score.float().sum()
    return F.mse_loss(score.float(), mask_iou(logits.detach(), truth, ignored))


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
