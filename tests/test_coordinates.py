"""Boxes in the conventions of vision-language models: numbers by hand, there and back, and what means no box."""

import math

import pytest
import torch
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor
from transformers.models.kosmos2.processing_kosmos2 import coordinate_to_patch_index, patch_index_to_coordinate

from trackgpt.reasoners.coordinates import CONVENTIONS, Sizes, placed

VIEWS = {
    "square": Sizes((640, 640), (448, 448)),
    "wide": Sizes((1920, 200), (1932, 196)),
    "tall": Sizes((90, 1600), (84, 1596)),
}
STEP = {
    "thousandths": 1 / 1000,
    "square": 1920 / 200 / 200,
    "bins": 1 / 1000,
    "rows_first_1024": 1 / 1024,
    "cells": 1 / 32,
}
"""Of a grid, as a share of the side; the other conventions are exact."""


def corners(view):
    """A box of a fifth by a quarter in each corner of the image, and one in its middle."""
    width, height = view.size
    w, h = width / 5, height / 4
    yield from ((x, y, x + w, y + h) for x in (0.0, width - w) for y in (0.0, height - h))
    yield (width / 3, height / 3, width / 2, height / 2)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_box_in_each_corner_comes_back_within_one_step_of_the_grid(name, view):
    convention = CONVENTIONS[name]
    for box in corners(view):
        numbers = convention.from_pixels(box, view)
        assert len(numbers) == convention.takes
        back = placed(numbers, convention, view)
        assert back is not None
        for edge, again, side in zip(box, back, view.size * 2, strict=True):
            assert abs(edge - again) <= STEP.get(name, 1e-9) * side


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("name", sorted(STEP))
def test_what_is_written_again_is_what_was_written(name, view):
    convention = CONVENTIONS[name]
    for box in corners(view):
        numbers = convention.from_pixels(box, view)
        back = placed(numbers, convention, view)
        if name != "cells":  # a cell's centre lies between two cells once the frame's side is rounded
            assert convention.from_pixels(back, view) == numbers
        assert placed(convention.from_pixels(back, view), convention, view) == pytest.approx(back, abs=1e-6)


WIDE = VIEWS["wide"]


@pytest.mark.parametrize(
    ("name", "numbers", "box"),
    [
        ("pixels", (192, 20, 960, 100), (192, 20, 960, 100)),
        ("seen_pixels", (966, 98, 1932, 196), (960, 100, 1920, 200)),
        ("unit", (0.5, 0.25, 1, 1), (960, 50, 1920, 200)),
        ("thousandths", (500, 250, 1000, 1000), (960, 50, 1920, 200)),
        ("square", (0, 90, 200, 100), (0, 4, 1920, 100)),  # 860 pixels lie above the image in its square
        ("bins", (0, 499, 499, 999), (0.96, 99.9, 959.04, 199.9)),
        ("rows_first_1024", (256, 512, 768, 1023), (960, 50, 1918.125, 150)),
        ("cells", (0, 1023), (30, 3.125, 1890, 196.875)),
        ("cells", (33, 35), (60, 6.25, 240, 12.5)),  # of one row: to the edges of its cells
    ],
)
def test_numbers_written_by_hand_mean_these_pixels_of_a_wide_image(name, numbers, box):
    assert placed(numbers, CONVENTIONS[name], WIDE) == pytest.approx(box, abs=1e-9)


def test_kosmos_cells_are_those_of_transformers_for_2000_boxes():
    generator = torch.Generator().manual_seed(0)
    unit, view = CONVENTIONS["cells"], Sizes((1, 1), (1, 1))
    for first, last in torch.randint(0, 1024, (2000, 2), generator=generator).tolist():
        assert unit.to_pixels((first, last), view) == pytest.approx(
            patch_index_to_coordinate(first, last, 32), abs=1e-12
        )
    for a in torch.rand(2000, 4, generator=generator, dtype=torch.float64).tolist():
        box = (min(a[0], a[2]), min(a[1], a[3]), max(a[0], a[2]), max(a[1], a[3]))
        assert unit.from_pixels(box, view) == coordinate_to_patch_index(box, 32)


def test_florence_bins_are_those_of_transformers_for_every_bin():
    class Words:
        all_special_tokens = ()

    reference, size = Florence2PostProcessor({}, Words()), (2_000, 6_000)  # their middles are whole pixels
    bins, view = CONVENTIONS["bins"], Sizes(size, size)
    for first in range(999):
        numbers = (first, 998 - first, first + 1, 999 - first)
        box = reference.dequantize(torch.tensor([numbers]), size)[0].tolist()
        assert placed(numbers, bins, view) == pytest.approx(box)
        assert bins.from_pixels(box, view) == tuple(reference.quantize(torch.tensor([box]), size)[0].tolist())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, -1e300])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_numbers_that_are_not_finite_or_huge_mean_no_box(name, bad):
    convention = CONVENTIONS[name]
    numbers = convention.from_pixels((60.0, 20.0, 600.0, 100.0), WIDE)
    for place in range(convention.takes):
        assert placed((*numbers[:place], bad, *numbers[place + 1 :]), convention, WIDE) is None


@pytest.mark.parametrize(
    ("numbers", "box"),
    [
        ((-10, -10, 50, 60), (0, 0, 50, 60)),
        ((1900, 150, 2000, 250), (1900, 150, 1920, 200)),
        ((0, 0, 3840, 400), (0, 0, 1920, 200)),
        ((0, 0, 3841, 100), None),  # more than one width outside
        ((1920, 0, 2000, 100), None),  # touches the image from outside
        ((50, 60, 50, 90), None),
        ((90, 60, 50, 90), None),
        ((10, 20, 30), None),
        ((10, 20, 30, 40, 50), None),
        ((), None),
    ],
)
def test_boxes_are_clipped_to_the_image_or_mean_nothing(numbers, box):
    assert placed(numbers, CONVENTIONS["pixels"], WIDE) == box


def test_numbers_of_pixels_read_as_parts_of_one_mean_no_box():
    assert placed((192, 20, 960, 100), CONVENTIONS["unit"], WIDE) is None
