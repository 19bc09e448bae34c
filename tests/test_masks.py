"""Run lengths, boxes and sizes of masks, against numbers worked out by hand and against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco

from trackgpt.errors import InputError
from trackgpt.geometry.masks import (
    area_of_rle,
    box_and_area,
    box_of,
    boxes_of,
    check_rle,
    decode_rle,
    encode_rle,
    resize,
    union,
)


def square(height: int, width: int, top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def random_masks(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = rng.integers(1, 60, (count, 2))
    return [rng.random(tuple(shape)) < rng.random() for shape in shapes]


def test_run_lengths_go_down_the_columns_and_start_with_background():
    mask = np.array([[0, 1, 1], [0, 0, 1]], bool)
    assert check_rle(encode_rle(mask), 2, 3).tolist() == [2, 1, 1, 2]


def test_any_mask_survives_the_round_trip_bit_for_bit():
    for mask in [*random_masks(200), np.zeros((5, 7), bool), np.ones((5, 7), bool), np.ones((1, 1), bool)]:
        again = decode_rle(encode_rle(mask), *mask.shape)
        assert again.dtype == bool
        np.testing.assert_array_equal(again, mask)


def test_a_mask_in_either_memory_order_gives_the_text_pycocotools_gives():
    mask = square(40, 60, 3, 5, 20)
    wanted = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert encode_rle(mask) == encode_rle(np.asfortranarray(mask)) == wanted


def test_the_area_is_counted_without_decoding():
    for mask in random_masks(50):
        assert area_of_rle(encode_rle(mask), *mask.shape) == mask.sum()


def test_long_runs_of_a_large_frame_are_read_back():
    mask = square(2160, 3840, 2000, 3000, 150)
    runs = check_rle(encode_rle(mask), 2160, 3840)
    assert runs[0] == 3000 * 2160 + 2000
    assert area_of_rle(encode_rle(mask), 2160, 3840) == 150 * 150


@pytest.mark.parametrize("counts", ["", "P", "00", "é", "abc", "111", "\x00", "é5", "ooooooooo0", " 1"])
def test_text_that_is_no_mask_of_this_size_is_refused_before_pycocotools_sees_it(counts):
    with pytest.raises(InputError, match="run-length text"):
        decode_rle(counts, 4, 4)


def test_run_lengths_of_another_size_are_refused_with_both_sizes():
    with pytest.raises(InputError, match=r"covers 35 pixels; wanted 4 x 4 = 16"):
        decode_rle(encode_rle(np.zeros((5, 7), bool)), 4, 4)


def test_every_cut_of_a_run_length_text_is_refused():
    counts = encode_rle(square(40, 60, 3, 5, 20))
    for length in range(len(counts)):
        with pytest.raises(InputError):
            decode_rle(counts[:length], 40, 60)


def test_one_pixel_at_the_origin_has_the_box_0_0_1_1():
    mask = np.zeros((4, 6), bool)
    mask[0, 0] = True
    box = box_of(mask)
    assert box.dtype == np.float32
    assert box.tolist() == [0, 0, 1, 1]


def test_the_box_touches_the_last_row_and_column_from_outside():
    assert box_of(square(10, 12, 6, 9, 4)).tolist() == [9, 6, 12, 10]


def test_an_empty_mask_has_no_box():
    assert np.isnan(box_of(np.zeros((4, 6), bool))).all()


def test_the_area_counts_the_pixels_in_the_box_and_is_0_of_an_empty_mask():
    assert box_and_area(np.zeros((4, 6), bool))[1] == 0
    for mask in random_masks(200):
        box, area = box_and_area(mask)
        assert area == mask.sum()
        assert np.array_equal(box, box_of(mask), equal_nan=True)


def test_boxes_of_no_masks_are_an_empty_table():
    assert boxes_of(np.zeros((0, 4, 6), bool)).shape == (0, 4)
    assert boxes_of(np.stack([square(4, 6, 1, 2, 2), np.zeros((4, 6), bool)]))[0].tolist() == [2, 1, 4, 3]


def test_the_union_of_no_masks_is_empty():
    assert union(np.zeros((0, 4, 6), bool)).tolist() == np.zeros((4, 6), bool).tolist()
    both = union(np.stack([square(4, 6, 0, 0, 2), square(4, 6, 1, 1, 2)]))
    assert both.sum() == 7


def test_doubling_and_halving_a_mask_gives_it_back():
    mask = random_masks(1)[0]
    height, width = mask.shape
    large = resize(mask, 2 * height, 2 * width)
    np.testing.assert_array_equal(large, np.repeat(np.repeat(mask, 2, 0), 2, 1))
    np.testing.assert_array_equal(resize(large, height, width), mask)


def test_a_resized_mask_keeps_its_centre():
    small = resize(square(90, 90, 30, 30, 30), 30, 30)
    assert box_of(small).tolist() == [10, 10, 20, 20]


def test_a_third_of_the_size_takes_the_middle_one_of_three_pixels():
    mask = np.zeros((9, 9), bool)
    mask[1::3, 1::3] = True
    assert resize(mask, 3, 3).all()


def test_a_mask_of_the_same_size_is_a_copy():
    mask = square(4, 6, 0, 0, 2)
    same = resize(mask, 4, 6)
    same[:] = False
    assert mask.sum() == 4


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_pycocotools_decodes_to_the_same_mask():
    for mask in random_masks(50):
        height, width = mask.shape
        counts = encode_rle(mask)
        theirs = coco.decode({"size": [height, width], "counts": counts.encode()})
        np.testing.assert_array_equal(decode_rle(counts, height, width), theirs.astype(bool))
