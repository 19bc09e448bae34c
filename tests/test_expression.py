"""What is read from referring expressions, and which classes of a detector their nouns may mean."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest

from trackgpt.reasoners.expression import Phrase, Reading, lasting, lasting_if_understood, read, shorter
from trackgpt.reasoners.nouns import KNOWN, is_plural, matches, singular, spelt

SHARED = Path(__file__).parents[2] / "shared" / "data"
NAMES = ("person", "bicycle", "motorcycle", "car", "truck", "bird", "cat", "dog", "horse", "sheep", "cow", "giraffe")


def only(text: str) -> Phrase:
    (phrase,) = read(text, NAMES).phrases
    return phrase


def said(phrase: Phrase) -> set[str]:
    """The traits in short: "colour yellow whole", "rank left 2", "not motion moving"."""
    named = set()
    for one in phrase.traits:
        words = ["not"] * one.negated + [one.kind, one.value, one.part, str(one.nth) if one.kind == "rank" else ""]
        named.add(" ".join(word for word in words if word))
    return named


def related(phrase: Phrase) -> list[tuple[str, str]]:
    return [("not " * one.negated + one.kind, one.other.noun) for one in phrase.relations]


TRAITS = {
    "a woman on the left wearing a yellow dress": ("woman", {"place left", "colour yellow whole"}),
    "a woman on right wearing a black dress": ("woman", {"place right", "colour black whole"}),
    "a man in black walking to the left": ("man", {"colour black clothes", "motion left"}),
    "guy in a red t-shirt": ("guy", {"colour red upper"}),
    "a man in a white helmet and blue jeans": ("man", {"colour white head", "colour blue lower"}),
    "red shirt guy on right": ("guy", {"colour red upper", "place right"}),
    "a girl on the right with blonde hair": ("girl", {"place right", "colour yellow head"}),
    "the person not wearing red": ("person", {"not colour red clothes"}),
    "a white dog with black patches": ("dog", {"colour white", "colour black accent"}),
    "a black and white coloured bike": ("bike", {"colour black", "colour white"}),
    "a brown, black and white bird": ("bird", {"colour brown", "colour black", "colour white"}),
    "the second from the left": ("", {"rank left 2"}),
    "the third one on the right": ("", {"rank right 3"}),
    "2nd truck from the right": ("truck", {"rank right 2"}),
    "the first duck closest to the bottom edge": ("duck", {"rank bottom 1"}),
    "the far left horse": ("horse", {"rank left 1"}),
    "left most person": ("person", {"rank left 1"}),
    "the second largest sheep": ("sheep", {"rank large 2"}),
    "the smallest of the dogs": ("dog", {"rank small 1"}),
    "which dog is bigger than the others?": ("dog", {"rank large 1"}),
    "person closest to the camera": ("person", {"rank near 1"}),
    "the fastest": ("", {"rank fast 1"}),
    "the slowest car in the video": ("car", {"rank slow 1"}),
    "the one in blue": ("", {"colour blue clothes"}),
    "who is on the left?": ("", {"place left"}),
    "bottom left corner": ("", {"place bottom", "place left", "place corner"}),
    "zebra in the background": ("zebra", {"place back"}),
    "the car in front": ("car", {"place front"}),
    "left half of the sandwich": ("sandwich", {"place left"}),
    "the car moving to the left": ("car", {"motion left"}),
    "a fish swimming from right to left": ("fish", {"motion left"}),
    "a snake moving rightwards": ("snake", {"motion right"}),
    "the one walking away": ("", {"motion away"}),
    "a bus coming towards the camera": ("bus", {"motion closer"}),
    "the dog that is not moving": ("dog", {"not motion moving"}),
    "a parked car": ("car", {"motion still"}),
    "an adult pig": ("pig", {"size large"}),
    "the left orange": ("orange", {"place left"}),
    "the big orange cat": ("cat", {"size large", "colour orange"}),
    "could you please track the white dog that is on the left of the video?": ("dog", {"colour white", "place left"}),
}


@pytest.mark.parametrize("text", TRAITS)
def test_noun_and_traits_of_an_expression_are_read_and_no_word_is_left(text: str) -> None:
    noun, traits = TRAITS[text]
    phrase = only(text)
    assert (phrase.noun, said(phrase), phrase.unread) == (
        (noun, traits, ()) if "patches" not in text else (noun, traits, ("patches",))
    )


RELATIONS = {
    "the man on the bike": ("man", [("on", "bike")]),
    "a boy riding a bicycle": ("boy", [("on", "bicycle")]),
    "the horse ridden by a man": ("horse", [("under", "man")]),
    "a white car to the right of another car": ("car", [("right", "car")]),
    "a duck on the left hand side of another": ("duck", [("left", "duck")]),
    "the chair in front of the bus": ("chair", [("front", "bus")]),
    "car behind bike": ("car", [("behind", "bike")]),
    "a cell phone in a girl's hand": ("cell phone", [("in", "girl")]),
    "the woman without a hat": ("woman", [("not with", "hat")]),
    "the man, not the woman": ("man", [("not", "woman")]),
    "the bike between the cars": ("bike", [("between", "car")]),
    "the dog next to the horse": ("dog", [("near", "horse")]),
    "a cardboard box held by a man": ("cardboard box", [("with", "man")]),
}


@pytest.mark.parametrize("text", RELATIONS)
def test_relations_to_another_thing_are_read(text: str) -> None:
    noun, relations = RELATIONS[text]
    phrase = only(text)
    assert (phrase.noun, related(phrase)) == (noun, relations)


def test_a_colour_belongs_to_the_noun_that_it_is_said_of() -> None:
    bottle = only("a green bottle held by a man in a blue shirt")
    assert said(bottle) == {"colour green"}
    assert said(bottle.relations[0].other) == {"colour blue upper"}


def test_counts_and_plurals_say_how_many_are_meant() -> None:
    texts = ("the dog", "two dogs", "both cats", "all the players", "dogs", "every car", "one of the dogs", "the sheep")
    assert [only(text).count for text in texts] == [1, 2, 2, None, None, None, 1, 1]


def test_two_things_joined_by_and_are_two_phrases() -> None:
    assert [one.noun for one in read("the white dog and the cat on the left").phrases] == ["dog", "cat"]


def test_words_that_say_nothing_to_the_parser_are_kept_as_they_were_written() -> None:
    assert only("a Feathered swan").unread == ("Feathered",)
    assert only("a boy in a red tshirt performing a breakdance").unread == ("performing",)
    assert only("the dog looking to the left").unread == ("looking", "to left")


def test_names_of_a_detector_are_nouns_too() -> None:
    assert read("the big Left_Valve behind the pump", ("left_valve", "pump")).phrases[0].noun == "left valve"


def test_only_words_about_motion_need_other_frames() -> None:
    assert read("a dog walking").about_motion
    assert read("the fastest").about_motion
    assert not read("the second dog from the left in a red hat").about_motion


def test_any_string_is_read_without_an_error_in_linear_time() -> None:
    dice = random.Random(0)
    words = [*sorted(KNOWN), "the", "a", "on", "left", "of", "not", "and", "'s", ",", "red", "second", "is", "wearing"]
    for turn in range(10_000):
        if turn % 2:
            text = " ".join(dice.choices(words, k=dice.randint(0, 12)))
        else:
            text = "".join(chr(dice.choice((dice.randint(0, 127), dice.randint(0, 0xD7FF)))) for _ in range(20))
        assert isinstance(read(text, NAMES), Reading)
    start = time.perf_counter()
    for text in ("a" * 10**6, "the dog and " * 10**5, "left of " * 10**5, "'s" * 10**6, " " * 10**6):
        read(text, NAMES)
    assert time.perf_counter() - start < 2.0


def how(noun: str) -> list[tuple[str, str]]:
    return [(one.name, one.how) for one in matches(noun, NAMES)]


def test_nouns_mean_classes_by_name_synonym_kind_and_member_and_stand_ins_come_last() -> None:
    assert how("dog") == [("dog", "same")]
    assert how("motorbike") == [("motorcycle", "same")]
    assert how("swan") == [("bird", "kind")]
    assert [name for name, _ in how("jockey") + how("girl") + how("umpire")] == ["person"] * 3
    assert {name for name, kind in how("animal") if kind == "member"} == set(NAMES[5:])
    assert how("bike") == [("bicycle", "member"), ("motorcycle", "member")]
    assert how("camel")[:2] == [("horse", "stand-in"), ("cow", "stand-in")]
    assert how("sedan") == [("car", "kind"), ("truck", "stand-in")]
    assert how("rifle") == []


def test_lists_of_other_detectors_are_matched_both_ways() -> None:
    assert [one.name for one in matches("person", ("Pedestrian", "Cyclist", "Car"))] == ["Pedestrian", "Cyclist"]
    assert [one.name for one in matches("automobile", ("traffic_light", "Cars"))] == ["Cars"]
    assert [one.name for one in matches("traffic light", ("traffic_light", "Cars"))] == ["traffic_light"]


def test_an_embedder_is_asked_about_nouns_that_the_table_does_not_link() -> None:
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.append(texts)
        return np.array([[1.0, 0.1], [0.0, 1.0], [1.0, 0.0]])

    assert [(one.name, one.how) for one in matches("zorb", ("dog", "hamster_ball"), embed)] == [
        ("hamster_ball", "close")
    ]
    assert asked == [["zorb", "dog", "hamster ball"]]
    assert matches("puppy", ("dog", "hamster_ball"), embed)[0].how == "kind"
    assert len(asked) == 1


def test_plurals_are_brought_to_the_singular_and_one_letter_may_be_wrong() -> None:
    plurals = ("dogs", "puppies", "buses", "people", "women", "geese", "boxes", "sheep", "scissors", "tennis rackets")
    singulars = ["dog", "puppy", "bus", "person", "woman", "goose", "box", "sheep", "scissors", "tennis racket"]
    assert [singular(one) for one in plurals] == singulars
    assert [is_plural(one) for one in ("dogs", "dog", "sheep", "people", "bus", "scissors")] == [
        *(True, False, False, True, False, False)
    ]
    assert [spelt(one) for one in ("bicyle", "peraon", "umberlla", "girafe")] == [
        *("bicycle", "person", "umbrella", "giraffe")
    ]
    assert [spelt(one) for one in ("house", "track", "coat", "trail", "played")] == [
        "house",
        "track",
        "coat",
        "trail",
        "",
    ]


@pytest.mark.skipif(not (SHARED / "refer_ytvos").is_dir(), reason="needs ../shared/data/refer_ytvos")
def test_the_head_nouns_of_real_expressions_are_known() -> None:
    davis = json.loads((SHARED / "refer_davis17/derived/davis17_val_expressions_61.json").read_text())
    heads = [read(text).phrases[0].noun for video in davis.values() for text in video.values()]
    assert len(heads) == 61
    assert set(heads) <= KNOWN
    videos = json.loads((SHARED / "refer_ytvos/meta_expressions_valid507.json").read_text())["videos"]
    texts = [one["exp"] for video in videos.values() for one in video["expressions"].values()]
    heads = [read(text).phrases[0].noun for text in texts]
    assert len(texts) == 2096
    assert sum(head in KNOWN for head in heads) / len(heads) > 0.98


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("the second person from the left", "person"),
        ("a woman on the left wearing a yellow dress", "woman in yellow"),
        ("the man on the bike", "man on bike"),
        ("the man not wearing a hat", "man"),
        ("the fastest car", "car"),
        ("who is on the left?", ""),
        ("the two dogs running", "2 dogs"),
    ],
)
def test_what_lasts_of_words_is_what_moves_along_with_the_thing(words, wanted):
    assert lasting(words) == wanted


def test_words_that_are_not_understood_are_left_whole_for_a_grounder_that_may_understand_them():
    assert lasting_if_understood("who will win the race?") == "who will win the race?"
    assert lasting_if_understood("der Hund links") == "der Hund links"
    assert lasting_if_understood("the dog on the left") == "dog"


def test_wordings_become_shorter_down_to_the_noun():
    assert shorter("the boy in a red shirt on the bike") == ("boy in red on bike", "boy in red", "boy")


def test_the_cat_but_not_the_black_one_excludes_the_black_one_once():
    (phrase,) = read("the cat but not the black one").phrases
    assert [(one.kind, one.negated) for one in phrase.relations] == [("not", False)]
