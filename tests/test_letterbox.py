"""Frames of any shape lie in the square whole, and what is found there comes back to the right pixels."""

import numpy as np
import pytest
from PIL import Image

from trackgpt.errors import InputError
from trackgpt.geometry.letterbox import MEAN_GREY, Letterbox, fit, scaled

SHAPES = [(480, 854), (854, 480), (100, 100), (1, 1000), (1000, 1), (1, 1), (37, 53), (720, 1279)]
GREY = np.array(MEAN_GREY, np.uint8)


def ramp(box: Letterbox, s: int) -> np.ndarray:
    """Masks whose value is the x, and the y, of their pixel centre in frame pixels; bilinear steps keep ramps exact."""
    centres = (np.arange(s) + 0.5) * box.side / s
    x = (centres - box.left) * box.source[1] / box.width
    y = (centres - box.top) * box.source[0] / box.height
    return np.stack([np.broadcast_to(x, (s, s)), np.broadcast_to(y[:, None], (s, s))]).astype(np.float32)


def test_a_wide_frame_is_halved_and_padded_below_as_sam_does():
    box = fit((50, 200), 100)
    assert box == Letterbox(source=(50, 200), side=100, scale=0.5, top=0, left=0, height=25, width=100)


def test_a_tall_frame_is_padded_on_both_sides_when_centred():
    box = fit((200, 50), 100, centre=True)
    assert (box.top, box.left, box.height, box.width) == (0, 37, 100, 25)


def test_half_a_pixel_rounds_up():
    assert fit((5, 8), 4).height == 3  # 2.5


@pytest.mark.parametrize("source", [(0, 10), (10, 0)])
def test_an_empty_frame_is_refused_in_words(source):
    with pytest.raises(InputError, match="at least 1 pixel"):
        fit(source, 64)


def test_a_frame_of_another_size_is_refused_in_words():
    with pytest.raises(InputError, match=r"\(4, 9, 3\), wanted \(4, 8, 3\)"):
        fit((4, 8), 8).apply(np.zeros((4, 9, 3), np.uint8))


def test_a_square_of_the_right_side_is_unchanged_and_not_shared():
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    square = fit((64, 64), 64).apply(frame)
    assert np.array_equal(square, frame)
    assert not np.shares_memory(square, frame)


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("source", SHAPES)
def test_a_square_that_is_given_is_written_whole(source, centre):
    frame = np.random.default_rng(0).integers(0, 256, (*source, 3), np.uint8)
    box = fit(source, 64, centre)
    given = np.full((64, 64, 3), 7, np.uint8)
    assert box.apply(frame, given) is given
    assert np.array_equal(given, box.apply(frame))


def test_padding_is_mean_grey_and_the_frame_starts_where_it_says():
    box = fit((2, 4), 4, centre=True)
    square = box.apply(np.full((2, 4, 3), 200, np.uint8))
    assert (square[1:3] == 200).all()
    assert (square[[0, 3]] == GREY).all()


def test_shrinking_averages_so_that_fine_stripes_turn_grey():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    square = fit((64, 64), 32).apply(stripes)
    assert (square[:, 1:-1] == 100).all()
    assert (square[:, 0] > 100).all()  # a new pixel at the edge weighs the old ones that are there


@pytest.mark.parametrize("size", [(14, 25), (24, 32), (60, 20), (41, 50), (60, 80), (144, 256)])
def test_a_frame_is_scaled_as_pillow_scales_it_for_segment_anything_within_two_levels(size):
    frame = np.random.default_rng(0).integers(0, 256, (48, 85, 3), dtype=np.uint8)
    wanted = np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    apart = np.abs(scaled(frame, *size) - wanted)
    assert apart.max() <= 2
    assert apart.mean() < 0.25


def test_a_frame_that_must_not_be_written_to_or_is_a_view_is_scaled_like_its_copy():
    frame = np.random.default_rng(0).integers(0, 256, (48, 85, 3), dtype=np.uint8)
    wanted = scaled(frame[:, ::-1].copy(), 14, 25)
    frame.flags.writeable = False
    assert np.array_equal(scaled(frame[:, ::-1], 14, 25), wanted)


def test_a_frame_of_one_colour_keeps_it_when_it_shrinks():
    frame = np.full((48, 85, 3), (1, 128, 255), np.uint8)
    assert np.array_equal(scaled(frame, 14, 25), np.full((14, 25, 3), (1, 128, 255), np.uint8))


def test_growing_interpolates_between_pixels():
    frame = np.zeros((1, 2, 3), np.uint8)
    frame[0, 1] = 200
    assert fit((1, 2), 4).apply(frame)[0, :, 0].tolist() == [0, 50, 150, 200]


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("source", SHAPES)
def test_the_whole_frame_is_always_visible(source, centre):
    box = fit(source, 64, centre)
    h, w = source
    assert max(box.height, box.width) == 64
    assert 0 <= box.top <= 64 - box.height
    assert 0 <= box.left <= 64 - box.width
    square = box.apply(np.full((h, w, 3), 255, np.uint8))
    assert (square != GREY).all(axis=-1).sum() == box.height * box.width


@pytest.mark.parametrize("s", [16, 64, 100])
@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("source", [(48, 64), (64, 48), (480, 854), (30, 30), (37, 53)])
def test_a_mask_of_any_resolution_lands_on_the_pixels_it_came_from(source, centre, s):
    h, w = source
    box = fit(source, 64, centre)
    x, y = box.crop_mask(ramp(box, s))
    near = np.ceil(max(h, w) / s)  # the outermost half pixel of a mask has no neighbour to interpolate with
    inside = np.s_[int(near) : int(h - near), int(near) : int(w - near)]
    np.testing.assert_allclose(x[inside], np.broadcast_to(np.arange(w) + 0.5, (h, w))[inside], atol=2e-2)
    np.testing.assert_allclose(y[inside], np.broadcast_to(np.arange(h)[:, None] + 0.5, (h, w))[inside], atol=2e-2)


@pytest.mark.parametrize("centre", [False, True])
def test_a_drawn_rectangle_survives_the_trip_into_the_square_and_back(centre):
    frame = np.zeros((90, 160, 3), np.uint8)
    frame[20:60, 40:120] = 255
    box = fit((90, 160), 320, centre)
    logits = box.apply(frame)[None, :, :, 0].astype(np.float32) - 127.5
    assert np.array_equal(box.crop_mask(logits)[0] > 0, frame[:, :, 0] > 0)


def test_a_mask_of_the_square_itself_comes_back_bit_for_bit():
    logits = np.random.default_rng(0).normal(size=(2, 32, 32)).astype(np.float32)
    assert np.array_equal(fit((32, 32), 32).crop_mask(logits), logits)


def test_masks_of_no_target_keep_the_size_of_the_frame():
    assert fit((48, 64), 64).crop_mask(np.zeros((0, 16, 16), np.float32)).shape == (0, 48, 64)


def test_a_sliver_of_a_frame_still_gets_its_mask():
    box = fit((1, 1000), 64)
    logits = np.full((1, 64, 64), -8, np.float32)
    logits[0, :1, 32:] = 8
    mask = box.crop_mask(logits)[0] > 0
    assert mask.shape == (1, 1000)
    assert not mask[0, :490].any()
    assert mask[0, 510:].all()


def test_what_the_model_thinks_of_the_padding_does_not_bleed_into_the_frame():
    logits = np.full((1, 16, 16), -100, np.float32)
    logits[0, :8] = 4
    assert (fit((32, 64), 64).crop_mask(logits) == 4).all()
