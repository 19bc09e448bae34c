"""Words to one of a detector's boxes, on drawn images and with a detector that knows what was drawn."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import pytest

from trackgpt.reasoners.detector_grounder import DetectorGrounder
from trackgpt.reasoners.grounder import Candidate, Grounder, Nearby
from trackgpt.types import Box

WIDTH, HEIGHT = 320, 240
COLOURS = {
    "red": (200, 30, 30),
    "blue": (40, 60, 200),
    "green": (40, 160, 60),
    "black": (25, 25, 25),
    "white": (235, 235, 235),
    "grey": (128, 128, 128),
    "yellow": (230, 210, 40),
    "orange": (240, 140, 30),
    "brown": (110, 70, 40),
    "pink": (245, 160, 190),
    "purple": (130, 50, 170),
}

WALL = cv2.resize(
    np.random.default_rng(0).integers(90, 170, (HEIGHT // 8, (WIDTH + 160) // 8), dtype=np.uint8),
    (WIDTH + 160, HEIGHT),
    interpolation=cv2.INTER_CUBIC,
)


class Thing(NamedTuple):
    label: str
    box: Box
    colour: str = "grey"
    score: float = 0.8
    lower: str = ""  # colour of the lower half, where another one


class Drawn:
    """A detector of images that it has drawn itself."""

    name, licence = "drawn", "Apache-2.0"
    names = ("person", "bicycle", "car", "truck", "bird", "dog", "horse", "sheep", "cow", "umbrella", "backpack")

    def __init__(self) -> None:
        self._seen: dict[bytes, list[Candidate]] = {}
        self.asked = 0

    def draw(self, *things: Thing, pan: int = 0) -> np.ndarray:
        """An image of things in front of a textured wall, of which the camera shows a part that starts at `pan`."""
        image = np.repeat(WALL[:, 80 + pan : 80 + pan + WIDTH, None], 3, axis=2)
        for one in things:
            x1, y1, x2, y2 = (round(side) for side in one.box)
            image[max(y1, 0) : y2, max(x1, 0) : x2] = COLOURS[one.colour]
            if one.lower:
                image[(y1 + y2) // 2 : y2, max(x1, 0) : x2] = COLOURS[one.lower]
        found = [Candidate(one.box, one.score, one.label) for one in things]
        self._seen[image.tobytes()] = sorted(found, key=lambda one: -(one.score or 0.0))
        return image

    def detect(self, image: np.ndarray) -> list[Candidate]:
        self.asked += 1
        return self._seen[image.tobytes()]


def at(x: float, y: float = 120, width: float = 40, height: float = 40) -> Box:
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def choose(words: str, *things: Thing) -> list[int]:
    """Which of the things are meant, by their place in the list."""
    drawn = Drawn()
    found = DetectorGrounder(drawn).ground(drawn.draw(*things), words).found
    return [next(row for row, one in enumerate(things) if one.box == each.box) for each in found]


def test_it_is_a_grounder_that_reads_motion() -> None:
    grounder: Grounder = DetectorGrounder(Drawn())
    assert (grounder.name, grounder.reads_motion) == ("drawn", True)


def test_the_surest_of_the_class_is_found_with_the_detectors_score_and_others_are_offered() -> None:
    drawn = Drawn()
    image = drawn.draw(Thing("dog", at(60), score=0.5), Thing("dog", at(200), score=0.75), Thing("cow", at(280)))
    found = DetectorGrounder(drawn).ground(image, "the dog")
    assert found.found == (Candidate(at(200), 0.75, "dog"),)
    assert [one.box for one in found.rivals] == [at(60)]
    assert found.unjudged == ()


@pytest.mark.parametrize("size", [(240, 320), (64, 900), (900, 64), (200, 200)])
def test_boxes_stay_pixels_of_the_image_in_every_corner_of_every_shape(size: tuple[int, int]) -> None:
    height, width = size
    boxes = [(x, y, x + 20.0, y + 20.0) for y in (0.0, height - 20.0) for x in (0.0, width - 20.0)]
    drawn = Drawn()
    drawn.detect = lambda image: [Candidate(box, 0.7, "dog") for box in boxes]  # type: ignore[method-assign]
    words = ("the top left dog", "the top right dog", "the bottom left dog", "the bottom right dog")
    for text, box in zip(words, boxes):
        (found,) = DetectorGrounder(drawn).ground(np.zeros((height, width, 3), np.uint8), text).found
        assert found.box == box, text


@pytest.mark.parametrize("colour", COLOURS)
def test_a_colour_decides_against_a_surer_thing_of_another_colour(colour: str) -> None:
    others = [name for name in COLOURS if name != colour and {name, colour} not in ({"orange", "brown"},)]
    for other in others:
        things = (Thing("car", at(80), other, 0.9), Thing("car", at(200), colour, 0.5))
        assert choose(f"the {colour} car", *things) == [1], other


def test_nothing_is_found_where_no_thing_of_the_class_has_the_colour() -> None:
    drawn = Drawn()
    image = drawn.draw(Thing("car", at(80), "blue"), Thing("dog", at(200), "red"))
    found = DetectorGrounder(drawn).ground(image, "the red car")
    assert found.found == ()
    assert {one.label for one in found.rivals} == {"car", "dog"}
    assert choose("the dog", Thing("cow", at(80))) == []


CROWD = tuple(Thing("sheep", at(x, width=size, height=size)) for x, size in ((40, 30), (120, 60), (200, 44), (280, 20)))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("the left sheep", 0),
        ("the sheep on the right", 3),
        ("the leftmost one", 0),
        ("the second from the left", 1),
        ("second sheep from the right", 2),
        ("the third one on the right", 1),
        ("the largest sheep", 1),
        ("the smallest", 3),
        ("the second smallest sheep", 0),
        ("the third largest sheep", 0),
        ("the sheep closest to the right edge", 3),
        ("sheep in front", 1),
        ("the sheep farthest away", 3),
    ],
)
def test_places_sizes_and_orders_are_judged_by_the_boxes(words: str, meant: int) -> None:
    assert choose(words, *CROWD) == [meant]


def test_the_larger_of_two_is_meant_where_the_words_tell_nothing_apart() -> None:
    pair = (Thing("car", at(60, width=40), score=0.6), Thing("car", at(220, width=120, height=80), score=0.4))
    assert choose("a car", *pair) == [1]
    assert choose("the left car", *pair) == [0]


def test_a_place_decides_between_things_that_stand_on_one_side_and_against_the_score() -> None:
    pair = (Thing("dog", at(220), score=0.4), Thing("dog", at(290), score=0.9))
    assert choose("the dog on the left", *pair) == [0]


def test_an_order_counts_only_what_fits_the_other_words() -> None:
    cars = tuple(Thing("car", at(x), colour) for x, colour in ((40, "blue"), (110, "red"), (180, "blue"), (260, "red")))
    assert choose("the second red car from the left", *cars) == [3]
    assert choose("the fifth car from the left", *cars) == []


def test_what_is_negated_is_not_meant() -> None:
    cars = (Thing("car", at(60), "red", 0.9), Thing("car", at(200), "blue", 0.6))
    assert choose("the car that is not red", *cars) == [1]
    assert choose("not the red one", *cars) == [1]
    pair = (Thing("dog", at(60), score=0.9), Thing("cow", at(200), score=0.6))
    assert choose("not the dog", *pair) == [1]
    dogs = (Thing("dog", at(60), score=0.9), Thing("dog", at(240), score=0.8), Thing("cow", at(150), score=0.9))
    assert choose("not the dog on the left", *dogs) == [1]
    assert choose("neither dog", *dogs) == choose("nothing", *dogs) == []


def test_words_that_name_nothing_find_nothing() -> None:
    drawn = Drawn()
    image = drawn.draw(Thing("dog", at(60)))
    for words in ("the", "!!!", "\N{DOG FACE}"):
        told = DetectorGrounder(drawn).ground(image, words)
        assert (told.found, told.unjudged) == ((), (words,))


def test_the_first_two_from_the_left_and_the_one_on_the_far_right() -> None:
    four = [Thing("person", at(40 + 70 * k), score=0.9 - 0.1 * k) for k in range(4)]
    assert choose("the first two people from the left", *four) == [0, 1]
    assert choose("the rightmost two people", *four) == [2, 3]
    assert choose("the person on the far right", *four) == [3]


def test_what_is_not_found_of_several_is_said() -> None:
    drawn = Drawn()
    image = drawn.draw(Thing("dog", at(60)))
    grounder = DetectorGrounder(drawn)
    assert grounder.ground(image, "the dog and the car").missing == ("car",)
    assert grounder.ground(image, "three dogs").missing == ("2 more dogs",)
    assert grounder.ground(image, "the dog").text == "Found dog."
    assert grounder.ground(image, "three dogs").text == "Found dog. Not found: 2 more dogs."


def test_plurals_and_numbers_give_several() -> None:
    assert sorted(choose("all the sheep", *CROWD)) == [0, 1, 2, 3]
    assert len(choose("two sheep", *CROWD)) == 2
    things = (Thing("dog", at(60)), Thing("cow", at(150)), Thing("horse", at(240)))
    assert sorted(choose("the dog and the horse", *things)) == [0, 2]
    assert sorted(choose("animals", *things)) == [0, 1, 2]


def test_clothes_are_looked_for_where_they_are_worn() -> None:
    tall = {"width": 40, "height": 120}
    pair = (
        Thing("person", at(80, **tall), "red", 0.8, lower="blue"),
        Thing("person", at(220, **tall), "blue", 0.8, lower="red"),
    )
    assert choose("a woman in a red shirt", *pair) == [0]
    assert choose("the man with red trousers", *pair) == [1]
    assert choose("blue jacket", *pair) == [1]
    assert choose("the one in blue jeans", *pair) == [0]


def test_relations_decide_between_things_of_one_class() -> None:
    walker, rider = Thing("person", at(60, 120, 30, 80), score=0.9), Thing("person", at(220, 100, 30, 80), score=0.6)
    bike = Thing("bicycle", at(220, 140, 70, 50))
    assert choose("the man on the bike", walker, rider, bike) == [1]
    assert choose("the boy riding a bicycle", walker, rider, bike) == [1]
    assert choose("the person who is not on the bike", walker, rider, bike) == [0]
    other = Thing("bicycle", at(110, 140, 60, 40), score=0.9)
    assert choose("the bike ridden by a man", other, rider, bike) == [2]
    trio = (Thing("car", at(60)), Thing("dog", at(160)), Thing("car", at(260)))
    assert choose("the car to the right of the dog", *trio) == [2]
    assert choose("what is between the cars?", *trio) == [1]


def test_a_relation_keeps_the_traits_of_the_other_thing() -> None:
    things = (
        Thing("person", at(60, 90, 30, 70), score=0.9),
        Thing("horse", at(60, 140, 60, 60), "white"),
        Thing("person", at(220, 90, 30, 70), score=0.7),
        Thing("horse", at(220, 140, 60, 60), "brown"),
    )
    assert choose("the rider on the brown horse", *things) == [2]


def test_kinds_are_found_by_their_class_and_stand_ins_say_so() -> None:
    drawn = Drawn()
    image = drawn.draw(Thing("bird", at(60)), Thing("horse", at(220)))
    grounder = DetectorGrounder(drawn)
    swan, camel = grounder.ground(image, "a swan"), grounder.ground(image, "a camel")
    assert (swan.found[0].label, swan.unjudged) == ("bird (for swan)", ())
    assert (camel.found[0].label, camel.unjudged) == ("horse (stands in for camel)", ())


def test_words_that_cannot_be_judged_are_said_in_the_order_of_the_text() -> None:
    drawn = Drawn()
    image = drawn.draw(Thing("person", at(60, height=80), "red"))
    grounder = DetectorGrounder(drawn)
    told = grounder.ground(image, "a boy in a red tshirt performing a breakdance")
    assert (len(told.found), told.unjudged) == (1, ("performing", "breakdance"))
    unknown = grounder.ground(image, "the black rifle")
    assert (unknown.found, unknown.unjudged, len(unknown.rivals)) == ((), ("rifle",), 1)
    assert grounder.ground(image, "a woman on the left wearing a yellow dress").unjudged == ()
    assert grounder.ground(image, "the man on the bike").unjudged == ("on bike",)
    assert grounder.ground(image, "the fastest person").unjudged == ("fastest",)


def test_an_embedder_finds_the_class_of_a_noun_that_no_table_knows() -> None:
    drawn = Drawn()
    image = drawn.draw(Thing("umbrella", at(60)), Thing("dog", at(200)))

    def embed(texts: list[str]) -> np.ndarray:
        return np.array([[float(text in {"brolly", "umbrella"}), float(text == "dog")] for text in texts])

    assert DetectorGrounder(drawn).ground(image, "a brolly").unjudged == ("brolly",)
    assert DetectorGrounder(drawn, embed).ground(image, "a brolly").found[0].label == "umbrella"


@pytest.mark.parametrize(
    ("words", "alike"),
    [
        ("the dog", [2, 1]),  # 40 x 40 at 0.8; then 40 x 40 at 0.7, and 40 x 40 at 0.5
        ("the red dog", []),
        ("the dog on the left", []),
        ("two dogs", [1]),
        ("all dogs", []),
        ("the car", []),  # the other one is a twentieth of its area: a root of that is its rank, and less than half
    ],
)
def test_those_that_rank_at_half_of_what_was_found_or_more_fit_about_as_well(words: str, alike: list[int]) -> None:
    detector = Drawn()
    dogs = [
        Thing("dog", at(60, 60), "red", 0.8),
        Thing("dog", at(160, 60), "blue", 0.5),
        Thing("dog", at(260, 60), "blue", 0.7),
    ]
    cars = [Thing("car", at(100, 180, 120, 60), score=0.8), Thing("car", at(260, 180, 18, 18), score=0.8)]
    found = DetectorGrounder(detector).ground(detector.draw(*dogs, *cars), words)
    assert [one.box for one in found.rivals[: found.alike]] == [dogs[number].box for number in alike]
    assert len(found.found) == {"two dogs": 2, "all dogs": 3}.get(words, 1)


def test_rivals_fit_the_words() -> None:
    drawn = Drawn()
    cars = [Thing("car", at(x), colour) for x, colour in ((50, "red"), (150, "blue"), (250, "red"))]
    found = DetectorGrounder(drawn).ground(drawn.draw(*cars), "the red car")
    assert [one.box for one in (*found.found, *found.rivals)] == [cars[0].box, cars[2].box]


def test_one_thing_with_two_names_is_one_candidate() -> None:
    drawn = Drawn()
    image = drawn.draw(Thing("horse", at(60), score=0.8), Thing("cow", at(61), score=0.5), Thing("dog", at(200)))
    found = DetectorGrounder(drawn).ground(image, "all animals")
    assert [one.label for one in found.found] == ["horse", "dog"]


def test_an_image_without_detections_gives_nothing() -> None:
    assert choose("the second red dog from the left that is moving") == []


def moving(words: str, *speeds: tuple[float, float], pan: int = 0, growth: tuple[float, ...] = ()) -> list[int]:
    """Which of some cars is meant that move by so many pixels from frame to frame, while the camera pans."""
    drawn = Drawn()

    def scene(time: int) -> np.ndarray:
        things = []
        for row, (right, down) in enumerate(speeds):
            size = 40 * (1 + (growth[row] if growth else 0.0) * time)
            x = 60 + 100 * row + (right - pan) * time
            things.append(Thing("car", at(x, 120 + down * time, size, size)))
        return drawn.draw(*things, pan=pan * time)

    image = scene(0)
    nearby = [Nearby(scene(time), time) for time in (-4, -2, 2, 4)]
    grounding = DetectorGrounder(drawn).ground(image, words, nearby)
    assert grounding.unjudged == ()
    return [round((one.box[0] + one.box[2]) / 2 - 60) // 100 for one in grounding.found]


@pytest.mark.parametrize("pan", [0, 3, -4])
def test_motion_is_judged_beside_what_the_background_does(pan: int) -> None:
    speeds = ((0.0, 0.0), (4.0, 0.0), (-2.0, 0.0))
    assert moving("the fastest car", *speeds, pan=pan) == [1]
    assert moving("the car moving to the left", *speeds, pan=pan) == [2]
    assert moving("the car driving rightwards", *speeds, pan=pan) == [1]
    assert moving("the parked car", *speeds, pan=pan) == [0]
    assert moving("the one that is not moving", *speeds, pan=pan) == [0]
    assert moving("the second fastest", *speeds, pan=pan) == [2]
    assert moving("the slowest one", *speeds, pan=pan) == [0]


def test_what_grows_comes_closer_and_what_shrinks_goes_away() -> None:
    still = ((0.0, 0.0),) * 3
    assert moving("the car coming closer", *still, growth=(-0.04, 0.0, 0.04)) == [2]
    assert moving("the car driving away", *still, growth=(-0.04, 0.0, 0.04)) == [0]


def test_other_frames_are_looked_at_only_for_words_about_motion_and_at_most_six() -> None:
    drawn = Drawn()
    image = drawn.draw(Thing("car", at(60)))
    nearby = [Nearby(drawn.draw(Thing("car", at(60 + time))), time) for time in range(1, 20)]
    grounder = DetectorGrounder(drawn)
    grounder.ground(image, "the red car", nearby)
    assert drawn.asked == 1
    grounder.ground(image, "the moving car", nearby)
    assert drawn.asked == 8
