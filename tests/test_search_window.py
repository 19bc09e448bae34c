"""The window that a tracker looks through: cut, pasted, moved, clipped at the frame's edge, and where it goes next."""

import numpy as np
import pytest

from trackgpt.perception.search_window import SMALLEST, Gaze, SearchWindow, extent, without_strays


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def blocks(side, *corners, size=4):
    """Logits 5 on squares with these corners (x, y), -5 elsewhere, float32 (side, side)."""
    logits = np.full((side, side), -5, np.float32)
    for x, y in corners:
        logits[y : y + size, x : x + size] = 5
    return logits


def pieces(logits, *corners):
    """Which of the squares of `blocks` are still there."""
    return [bool((logits[y : y + 4, x : x + 4] > 0).all()) for x, y in corners]


# Cut and paste


def test_a_window_as_large_as_its_side_is_the_pixels_themselves():
    image = noise(60, 80, 3)
    assert np.array_equal(SearchWindow(7, 5, 16, 16).cut(image, 16), image[5:21, 7:23])


def test_a_window_of_twice_the_side_is_the_mean_of_four_pixels():
    mask = noise(60, 80).astype(np.float32)
    means = mask[4:36, 8:40].reshape(16, 2, 16, 2).mean((1, 3))
    np.testing.assert_allclose(SearchWindow(8, 4, 32, 32).cut(mask, 16), means, atol=1e-3)


def test_logits_are_pasted_where_the_window_lies_and_nothing_elsewhere():
    logits = blocks(16, (2, 3))
    mask = SearchWindow(7, 5, 16, 16).paste(logits, 60, 80)
    wanted = np.zeros((60, 80), bool)
    wanted[8:12, 9:13] = True
    assert mask.dtype == bool
    assert np.array_equal(mask, wanted)


@pytest.mark.parametrize("window", [(10, 4, 32, 32), (10, 4, 64, 32), (0, 0, 80, 60), (64, 44, 16, 16)])
def test_a_mask_comes_back_through_a_window_of_any_shape_up_to_half_a_cell(window):
    window = SearchWindow(*window)
    mask = np.zeros((60, 80), bool)
    mask[window.y + 4 : window.y + 12, window.x + 4 : window.x + 14] = True
    back = window.paste(window.cut(mask.astype(np.float32), 64) - 0.5, 60, 80)
    around = 2 * (8 + 10)
    assert np.count_nonzero(back ^ mask) <= around / 2
    assert back[window.y + 6 : window.y + 10, window.x + 6 : window.x + 12].all()


# One window seen from another


def test_a_window_is_told_in_units_of_another():
    assert SearchWindow(8, 4, 64, 32).seen_from(SearchWindow(0, 0, 32, 64)) == (0.25, 0.0625, 2.0, 0.5)
    assert SearchWindow(8, 4, 64, 32).seen_from(SearchWindow(8, 4, 64, 32)) == (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (0, 2), (3, 2), (-5, 1), (-4, -4), (15, 15)])
def test_a_move_by_whole_cells_shifts_logits_exactly_and_fills_what_was_outside(right, down):
    side, cell = 16, 4
    logits = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    old, new = SearchWindow(80, 80, 64, 64), SearchWindow(80 + cell * right, 80 + cell * down, 64, 64)
    moved = old.moved(logits, new, -9.0)
    for y in range(side):
        for x in range(side):
            inside = 0 <= y + down < side and 0 <= x + right < side
            assert moved[y, x] == (logits[y + down, x + right] if inside else np.float32(-9))


def test_a_closer_window_shows_what_lies_at_the_same_place_of_the_frame():
    side, old, new = 32, SearchWindow(10, 20, 96, 64), SearchWindow(40, 36, 48, 24)

    def ramp(window):  # x + 3 y of the frame at the middle of every cell
        at = (np.arange(side) + 0.5) / side
        across, down = window.x + at * window.width, window.y + at * window.height
        return (across[None, :] + 3 * down[:, None]).astype(np.float32)

    step = old.width / side + 3 * old.height / side  # OpenCV places cells to a 32nd
    np.testing.assert_allclose(old.moved(ramp(old), new, 0.0), ramp(new), atol=step / 32)


# Where to look next


@pytest.mark.parametrize(
    ("middle", "wanted"),
    [((40, 30), (16, 6)), ((2, 3), (0, 0)), ((79, 59), (32, 12)), ((-50, 30), (0, 6)), ((40, 999), (16, 12))],
)
def test_a_window_is_moved_inside_the_frame_and_keeps_its_size(middle, wanted):
    window = Gaze(*middle, 24.0).window(2.0, 60, 80)
    assert (window.x, window.y, window.width, window.height) == (*wanted, 48, 48)


def test_a_window_is_never_smaller_than_the_smallest_nor_larger_than_the_frame():
    assert Gaze(40, 30, 1.0).window(2.0, 60, 80) == SearchWindow(16, 6, SMALLEST, SMALLEST)
    assert Gaze(40, 30, 35.0).window(2.0, 60, 80) == SearchWindow(5, 0, 70, 60)
    assert Gaze(3, 2, 500.0).window(2.0, 5, 7) == SearchWindow(0, 0, 7, 5)


def test_a_window_of_any_gaze_lies_inside_the_frame():
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width = rng.integers(1, 300, 2).tolist()
        x, y = rng.uniform(-100, 400, 2)
        window = Gaze(x, y, float(rng.uniform(0.1, 400))).window(float(rng.uniform(0.5, 4)), height, width)
        assert min(window.x, window.y) >= 0
        assert min(window.width, window.height) >= 1
        assert window.x + window.width <= width
        assert window.y + window.height <= height


def test_a_gaze_has_the_middle_of_a_box_and_its_size_of_which_a_long_one_has_more_than_its_area():
    assert Gaze.at((10.0, 20.0, 26.0, 36.0)) == Gaze(18.0, 28.0, 16.0)
    assert Gaze.at((10.0, 20.0, 30.0, 60.0)) == Gaze(20.0, 40.0, 30.0)  # 0.75 x 40, which is more than 28.3
    assert Gaze.at((5.0, 5.0, 5.0, 5.0)).size == 1.0


def test_a_gaze_stays_and_grows_by_a_tenth_while_nothing_is_seen_up_to_the_most():
    gaze = Gaze(40.0, 30.0, 10.0)
    sizes = []
    for _ in range(20):
        gaze = gaze.following(None, 30.0)
        sizes.append(gaze.size)
    assert sizes[:2] == pytest.approx([11.0, 12.1])
    assert sizes == sorted(sizes)
    assert sizes[-1] == 30.0
    assert (gaze.x, gaze.y) == (40.0, 30.0)


def test_a_gaze_goes_where_the_target_is_at_once_and_takes_its_size_slowly():
    start = Gaze(40.0, 30.0, 10.0)
    assert start.following((60.0, 60.0, 100.0, 100.0), 999.0) == Gaze(80.0, 80.0, pytest.approx(10.8), 40.0, 50.0)
    assert start.following((60.0, 60.0, 61.0, 61.0), 999.0) == Gaze(60.5, 60.5, pytest.approx(9.3), 20.5, 30.5)
    gaze = start
    for _ in range(19):  # 1.08 ^ 18 is 3.996
        gaze = gaze.following((0.0, 0.0, 40.0, 40.0), 999.0)
    assert gaze == Gaze(20.0, 20.0, pytest.approx(40.0))


def test_a_window_leads_a_moving_target_by_a_share_of_its_motion_and_half_a_size_at_the_most():
    moved = Gaze(40.0, 30.0, 30.0).following((30.0, 15.0, 60.0, 45.0), 999.0)  # 5 to the right
    assert (moved.dx, moved.dy) == (5.0, 0.0)
    assert [moved.window(1.0, 200, 200, 10, lead).x for lead in (0.0, 0.4, 1.0)] == [30, 32, 35]
    assert Gaze(100.0, 100.0, 30.0, 90.0, 0.0).window(1.0, 200, 200, 10, 1.0).x == 100  # 85 + 15
    assert moved.following(None, 999.0).dx == 0


# Masks


def test_the_extent_of_a_large_mask_leaves_a_stray_pixel_out():
    mask = np.zeros((100, 100), bool)
    mask[20:60, 10:50] = True
    assert extent(mask) == (10, 20, 50, 60)
    for y, x in ((0, 0), (99, 99), (0, 99)):
        stray = mask.copy()
        stray[y, x] = True
        assert extent(stray) == (10, 20, 50, 60)


def test_the_extent_of_a_small_mask_is_all_of_it_and_an_empty_one_has_none():
    mask = np.zeros((30, 40), bool)
    assert extent(mask) is None
    mask[7, 5] = True
    assert extent(mask) == (5, 7, 6, 8)
    mask[9, 20] = True
    assert extent(mask) == (5, 7, 21, 10)


def test_a_piece_apart_from_the_last_mask_is_dropped_and_one_that_overlaps_it_stays():
    corners = ((4, 4), (40, 40))
    logits = blocks(48, *corners)
    for k, (x, y) in enumerate(corners):
        last = blocks(24, (x // 2, y // 2), size=2)
        tidy = without_strays(logits, last)
        assert pieces(tidy, *corners) == [k == 0, k == 1]
        kept = np.zeros_like(logits, bool)
        kept[y : y + 4, x : x + 4] = True
        assert np.array_equal(tidy[kept], logits[kept])
        assert (tidy[~kept] < 0).all()


def test_two_pieces_of_the_last_mask_both_stay():
    corners = ((4, 4), (40, 40), (4, 40))
    last = blocks(24, (2, 2), (20, 20), size=2)
    assert pieces(without_strays(blocks(48, *corners), last), *corners) == [True, True, False]


def test_a_single_piece_stays_wherever_it_is():
    logits = blocks(48, (40, 40))
    assert np.array_equal(without_strays(logits, blocks(24, (2, 2), size=2)), logits)


@pytest.mark.parametrize("last", [blocks(24), blocks(24, (11, 2), size=1)])
def test_the_largest_piece_stays_where_none_overlaps_the_last_mask(last):
    logits = np.maximum(blocks(48, (1, 1), size=1), blocks(48, (20, 30), size=8))
    tidy = without_strays(logits, last)
    assert (tidy[30:38, 20:28] > 0).all()
    assert tidy[1, 1] < 0
