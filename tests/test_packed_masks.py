"""Masks made and packed where the logits are: those of the processor's own way, one bit a pixel on the wire."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trackgpt.geometry.letterbox import fit
from trackgpt.perception.packed_masks import ComingMasks, bits_above, packed, unpacked


def smooth(targets: int, side: int) -> torch.Tensor:
    """Logits (targets, side, side) of a few blobs."""
    torch.manual_seed(side)
    coarse = torch.randn(1, targets, 6, 6)
    return 4 * F.interpolate(coarse, (side, side), mode="bicubic")[0]


@pytest.mark.parametrize("size", [(480, 854), (854, 480), (720, 1280), (100, 100), (37, 53), (5, 900)])
@pytest.mark.parametrize("threshold", [0.0, -1.5])
def test_masks_are_those_of_the_letterbox_in_all_but_one_pixel_of_ten_thousand(size, threshold):
    box, logits = fit(size, 256), smooth(3, 64)
    wanted = box.crop_above(logits.numpy(), threshold)
    found = unpacked(bits_above(logits, box, threshold).numpy(), size)
    assert found.dtype == bool
    assert found.shape == (3, *size)
    assert 0.05 < wanted.mean() < 0.95
    assert np.mean(found != wanted) <= 1e-4


def test_no_target_gives_no_mask():
    box = fit((48, 64), 256)
    assert bits_above(torch.zeros(0, 64, 64), box, 0.0).shape == (0, 48 * 64 // 8)
    masks, others = ComingMasks.of(torch.zeros(0, 64, 64), box, 0.0).land()
    assert (masks.shape, others) == ((0, 48, 64), [])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (7, 9)])
def test_packing_keeps_every_pixel_in_an_eighth_of_the_bytes(size):
    masks = torch.rand(4, *size) > 0.5
    bits = packed(masks)
    assert bits.shape == (4, -(-size[0] * size[1] // 8))
    assert np.array_equal(unpacked(bits.numpy(), size), masks.numpy())
    assert np.array_equal(bits.numpy(), np.packbits(masks.flatten(1).numpy(), axis=1))
