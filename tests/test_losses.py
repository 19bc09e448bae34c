"""The losses of paper section 3.5, on masks small enough to check by hand."""

import math

import numpy as np
import pytest
import torch

from eval.metrics.masks import region_similarity
from train.losses import mask_iou, mask_loss, purport_loss, text_loss, word_patch_loss

SURE = 40.0


def logits_of(mask):
    """Logits that say a mask with certainty."""
    return torch.where(mask, SURE, -SURE)


def square(n, size=4):
    """One (1, size, size) mask whose first n pixels are set."""
    flat = torch.zeros(size * size, dtype=torch.bool)
    flat[:n] = True
    return flat.view(1, size, size)


def test_a_perfect_mask_costs_nothing():
    assert mask_loss(logits_of(square(6)), square(6)).item() == pytest.approx(0, abs=1e-4)


def test_an_undecided_mask_costs_the_numbers_that_a_hand_finds():
    # Logit 0 everywhere: cross-entropy ln 2; Dice 1 - 2 * 4 * 0.5 / (16 * 0.5 + 4) = 1 - 4 / 12.
    entropy, dice = math.log(2), 2 / 3
    zero = torch.zeros(1, 4, 4)
    assert mask_loss(zero, square(4), 1.0, 0.0).item() == pytest.approx(entropy, abs=1e-5)
    assert mask_loss(zero, square(4), 0.0, 1.0).item() == pytest.approx(dice, abs=1e-3)
    assert mask_loss(zero, square(4), 3.0, 5.0).item() == pytest.approx(3 * entropy + 5 * dice, abs=1e-2)


def test_the_weights_are_the_papers_two_and_a_half():
    logits, truth = torch.linspace(-2, 3, 32).view(2, 4, 4), torch.cat([square(3), square(9)])
    parts = [mask_loss(logits, truth, *weights) for weights in ((1.0, 0.0), (0.0, 1.0))]
    assert mask_loss(logits, truth).item() == pytest.approx((2.0 * parts[0] + 0.5 * parts[1]).item(), rel=1e-6)


def test_masks_count_equally_whatever_their_size():
    zero = torch.zeros(1, 4, 4)
    both = mask_loss(torch.cat([zero, zero]), torch.cat([square(1), square(16)]))
    alone = [mask_loss(zero, square(n)).item() for n in (1, 16)]
    assert both.item() == pytest.approx(sum(alone) / 2, rel=1e-6)


def test_half_right_has_the_dice_of_its_overlap():
    # Found 8, true 8, common 4: Dice 2 * 4 / 16.
    found = torch.roll(square(8).flatten(), 4).view(1, 4, 4)
    assert mask_loss(logits_of(found), square(8), 0.0, 1.0).item() == pytest.approx(0.5, abs=1e-3)


def test_an_empty_truth_is_scored_by_cross_entropy_alone():
    empty = square(0)
    assert mask_loss(torch.zeros(1, 4, 4), empty).item() == pytest.approx(2 * math.log(2), rel=1e-5)
    assert mask_loss(logits_of(empty), empty).item() == pytest.approx(0, abs=1e-6)
    assert mask_loss(logits_of(square(16)), empty).item() == pytest.approx(2 * SURE, rel=1e-5)


def test_no_masks_at_all_cost_nothing_and_leave_the_gradient_finite():
    logits = torch.zeros(0, 4, 4, requires_grad=True)
    score = torch.zeros(0, requires_grad=True)
    truth = torch.zeros(0, 4, 4, dtype=torch.bool)
    total = mask_loss(logits, truth) + purport_loss(score, mask_iou(logits, truth))
    total.backward()
    assert total.item() == 0.0
    assert logits.grad.shape == (0, 4, 4)


def test_half_precision_logits_are_scored_in_single():
    logits = torch.full((1, 64, 64), 0.01, dtype=torch.bfloat16)
    truth = square(2048, 64)
    assert mask_loss(logits, truth).dtype == torch.float32
    assert mask_loss(logits, truth).item() == pytest.approx(mask_loss(logits.float(), truth).item())


def test_iou_is_that_of_the_evaluation():
    rng = np.random.default_rng(0)
    truth = rng.random((30, 12, 20)) < rng.random((30, 1, 1))
    found = rng.random((30, 12, 20)) < rng.random((30, 1, 1))
    truth[:2], found[1:3] = False, False
    ours = mask_iou(logits_of(torch.from_numpy(found)), torch.from_numpy(truth))
    theirs = [region_similarity(f, t) for f, t in zip(found, truth)]
    assert ours.tolist() == pytest.approx(theirs, abs=1e-6)
    assert ours[1] == 1.0  # nothing found where nothing is
    assert ours[2] == 0.0


def test_iou_numbers_that_a_hand_finds():
    found = torch.roll(square(8).flatten(), 4).view(1, 4, 4)
    assert mask_iou(logits_of(found), square(8)).tolist() == pytest.approx([4 / 12])
    assert mask_iou(torch.zeros(1, 4, 4), square(8)).tolist() == [0.0]  # a logit of 0 is not in the mask


def test_the_purport_score_is_pulled_to_the_true_iou_and_the_mask_is_not():
    logits = logits_of(torch.roll(square(8).flatten(), 4).view(1, 4, 4)).requires_grad_()
    score = torch.tensor([0.5], requires_grad=True)
    loss = purport_loss(score, mask_iou(logits, square(8)))
    assert loss.item() == pytest.approx((0.5 - 1 / 3) ** 2, rel=1e-5)
    loss.backward()
    assert score.grad.item() == pytest.approx(2 * (0.5 - 1 / 3), rel=1e-5)
    assert logits.grad is None


def test_text_loss_is_the_mean_surprise():
    assert text_loss(torch.zeros(3, 5), torch.tensor([0, 1, 4])).item() == pytest.approx(math.log(5))
    sure = torch.tensor([[SURE, 0.0], [0.0, SURE]])
    assert text_loss(sure, torch.tensor([0, 0])).item() == pytest.approx(SURE / 2, rel=1e-5)


def test_word_patch_loss_picks_the_word_of_the_same_direction():
    words, scale = torch.eye(2), torch.tensor(1.0)
    patches = torch.tensor([[7.0, 0.0]])
    # Cosines 1 and 0: -log(e / (e + 1)).
    assert word_patch_loss(patches, words, torch.tensor([0]), scale).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert word_patch_loss(patches, words, torch.tensor([1]), scale).item() == pytest.approx(math.log(1 + math.e))
