"""SynthTrack's language: every instruction means what it says, by a slow and simple reading of its text."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from trackgpt.errors import UsageError
from trackgpt.synthtrack.catalog import (
    BY_NAME,
    CATEGORIES,
    COLOURS,
    FACT_QUESTIONS,
    FACTS,
    HELD_OUT_PAIRS,
    PARTS,
    THIN_FACTS,
)
from trackgpt.synthtrack.language import (
    Seen,
    answer,
    describe,
    expressions,
    reading_order,
    region,
)
from trackgpt.synthtrack.questions import corpus, describe_scene, questions
from trackgpt.synthtrack.scene import SceneInstruction
from trackgpt.synthtrack.wordings import FORMS, REGIONS, TEMPLATES

PLACES = {
    **{f"in the {name}": name for name in REGIONS},
    "on the left": "left",
    "on the right": "right",
    "at the top": "top",
    "at the bottom": "bottom",
}


COMPARISONS = {
    "which is bigger": "biggest",
    "what is larger": "biggest",
    "which is smaller": "smallest",
    "what takes up less room": "smallest",
    "which is further to the left": "leftmost",
    "which is closer to the left edge": "leftmost",
    "which is further to the right": "rightmost",
    "which is closer to the right edge": "rightmost",
    "which is further up": "highest",
    "which is closer to the top edge": "highest",
    "which is further down": "lowest",
    "which is closer to the bottom edge": "lowest",
}


def actor(
    number: int,
    category: str,
    colour: str = "natural",
    at: tuple[float, float] = (0.5, 0.5),
    side: float = 0.15,
    size: str = "medium",
    visible: float = 1.0,
) -> Seen:
    """An actor centred at `at` whose square box it fills."""
    x, y = at
    box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return Seen(number, category, colour, size, box, side * side * visible, visible)


def random_frame(rng: np.random.Generator) -> list[Seen]:
    """One to eight actors of few categories and colours, one in five partly hidden, some of them tiny."""
    pool = [CATEGORIES[int(i)].name for i in rng.integers(0, len(CATEGORIES), 4)]
    hues = ["natural", *(list(COLOURS)[int(i)] for i in rng.integers(0, len(COLOURS), 3))]
    seen = []
    for number in range(1, int(rng.integers(2, 10))):
        side = float(rng.choice([0.03, 0.08, 0.12, 0.18, 0.28]))
        at = tuple(rng.uniform(side / 2, 1 - side / 2, 2).tolist())
        size = "small" if side < 0.1 else "medium" if side < 0.15 else "large"
        visible = 1.0 if rng.random() < 0.8 else float(rng.uniform(0.1, 1))
        seen.append(actor(number, pool[int(rng.integers(4))], hues[int(rng.integers(4))], at, side, size, visible))
    return seen


@pytest.fixture(scope="module")
def frames() -> list[list[Seen]]:
    rng = np.random.default_rng(7)
    return [random_frame(rng) for _ in range(600)]


def say(
    seen: list[Seen],
    split: str = "test",
    wording: int | None = 0,
    seed: int = 0,
    kind: str = "free",
    leader: int | None = None,
) -> list[SceneInstruction]:
    """All expressions of a frame, in the seed wording unless told otherwise."""
    return expressions(seen, kind, leader, split, np.random.default_rng(seed), wording)


def texts(seen: list[Seen], form: str) -> dict[str, tuple[int, ...]]:
    """Seed-wording texts of one form and what they mean."""
    return {one.text: one.targets for one in say(seen) if one.form == form}


def centre(one: Seen) -> tuple[float, float]:
    return (one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2


def called(one: Seen, colour: str) -> bool:
    """Whether a person might use this colour word."""
    return colour in BY_NAME[one.category].looks if one.colour == "natural" else one.colour == colour


def matching(phrase: str, seen: list[Seen]) -> set[int]:
    """Ids of the actors that fit "the [size] [colour] category [place]", hidden ones included."""
    phrase = phrase.removeprefix("the ")
    found = list(seen)
    for words, place in PLACES.items():
        if phrase.endswith(f" {words}"):
            phrase, found = phrase.removesuffix(f" {words}"), [one for one in found if region(one.box) == place]
    for size in ("small", "medium", "large"):
        if phrase.startswith(f"{size} "):
            phrase, found = phrase.removeprefix(f"{size} "), [one for one in found if one.size == size]
    for colour in COLOURS:
        if phrase.startswith(f"{colour} "):
            phrase, found = phrase.removeprefix(f"{colour} "), [one for one in found if called(one, colour)]
    if phrase == "one":
        return {one.id for one in found}
    assert phrase in BY_NAME, phrase
    return {one.id for one in found if one.category == phrase}


def extreme(word: str, seen: list[Seen]) -> set[int]:
    """Ids of the actors with the extreme value a superlative names."""
    value = {
        "biggest": lambda one: -one.area,
        "smallest": lambda one: one.area,
        "leftmost": lambda one: centre(one)[0],
        "rightmost": lambda one: -centre(one)[0],
        "highest": lambda one: centre(one)[1],
        "lowest": lambda one: -centre(one)[1],
    }[word]
    return {one.id for one in seen if value(one) == min(map(value, seen))}


def related(how: str, anchor: Seen, seen: list[Seen]) -> set[int]:
    """Ids of the actors in a relation to the anchor, for a frame of 4 : 3."""
    x, y = centre(anchor)
    others = [one for one in seen if one is not anchor]
    side = {
        "left of": lambda one: centre(one)[0] < x,
        "right of": lambda one: centre(one)[0] > x,
        "above": lambda one: centre(one)[1] < y,
        "below": lambda one: centre(one)[1] > y,
    }
    if how in side:
        return {one.id for one in others if side[how](one)}
    far = {one.id: ((4 / 3 * (centre(one)[0] - x)) ** 2 + (centre(one)[1] - y) ** 2) ** 0.5 for one in others}
    best = min(far.values()) if how == "closest to" else max(far.values())
    return {number for number, distance in far.items() if distance == best}


def owners(seen: list[Seen], fact: str) -> set[int]:
    return {one.id for one in seen if fact in BY_NAME[one.category].facts}


def meant(said: SceneInstruction, seen: list[Seen], leader: int | None) -> set[int]:
    """Whom the seed wording can mean, read from its text alone."""
    text, form = said.text, said.form
    if form in ("fact", "absent-fact"):
        return owners(seen, text.removeprefix("what ").removesuffix("?"))
    if form == "all-fact":
        return owners(seen, text.removeprefix("everything that "))
    if form == "part":
        part = text.removeprefix("what has ").removesuffix("?")
        return {one.id for one in seen if part in BY_NAME[one.category].parts}
    if form == "superlative":
        return extreme(text.split()[3], seen)
    if form == "relation":
        how, anchor = re.fullmatch(r"what is (.+?) (the .+)\?", text).groups()
        named = matching(anchor, seen)
        assert len(named) == 1, f"{text}: the anchor is ambiguous"
        return related(how, next(one for one in seen if one.id in named), seen)
    if form == "odd-one-out":
        groups = Counter(BY_NAME[one.category].group for one in seen)
        return {one.id for one in seen if groups[BY_NAME[one.category].group] == 1}
    if form == "race":
        return {leader}
    if form == "all-category":
        return {one.id for one in seen if text == f"all the {BY_NAME[one.category].plural}"}
    if form == "all-colour":
        return {one.id for one in seen if called(one, text.removeprefix("everything "))}
    if form == "two":
        first, second = text.split(" and ")
        assert len(matching(first, seen)) == len(matching(second, seen)) == 1
        return matching(first, seen) | matching(second, seen)
    word, _, category = text.removeprefix("the ").partition(" ")
    if word in ("leftmost", "rightmost", "highest", "lowest"):
        return extreme(word, [one for one in seen if one.category == category])
    return matching(text, seen)


def test_every_instruction_means_exactly_its_targets(frames: list[list[Seen]]) -> None:
    count: Counter[str] = Counter()
    for seed, seen in enumerate(frames):
        leader = seen[0].id
        for said in say(seen, seed=seed, kind="race", leader=leader):
            assert meant(said, seen, leader) == set(said.targets), (said, seen)
            count[said.form] += 1
    assert set(count) == set(FORMS)
    assert min(count.values()) >= 10, count  # the rarest is the odd one out


def test_a_hidden_or_tiny_actor_is_never_a_target(frames: list[list[Seen]]) -> None:
    for seed, seen in enumerate(frames):
        dim = {one.id for one in seen if one.visible_fraction < 0.4 or one.area < 0.002}
        for said in say(seen, seed=seed, kind="race", leader=1):
            assert not dim & set(said.targets), said


def test_the_kind_follows_from_the_form_and_the_number_of_targets_from_the_kind(frames: list[list[Seen]]) -> None:
    allowed = {"explicit": {1}, "implicit": {1}, "multi": {2, 3, 4}, "none": {0}}
    for seen in frames[:200]:
        for said in say(seen, kind="race", leader=1):
            assert said.kind == FORMS[said.form]
            assert len(set(said.targets)) == len(said.targets) in allowed[said.kind]


def test_every_answer_has_one_pair_of_tokens_for_each_target_from_left_to_right(frames: list[list[Seen]]) -> None:
    for seen in frames[:200]:
        by_id = {one.id: one for one in seen}
        for said in say(seen, kind="race", leader=1):
            targets = [by_id[number] for number in said.targets]
            assert said.answer.count("<TK>") == said.answer.count("<PO>") == len(targets)
            assert [one.id for one in reading_order(targets)] == list(said.targets)
            named = re.findall(r"(the [a-z ]+?)\.? <TK>, <PO>", said.answer)
            assert named == [f"{describe(one)} in the {region(one.box)}" for one in targets]


def test_all_six_wordings_say_the_same_instructions(frames: list[list[Seen]]) -> None:
    for seen in frames[:60]:
        told = [say(seen, wording=wording, kind="race", leader=1) for wording in range(6)]
        for others in zip(*told, strict=True):
            assert len({(one.form, one.targets, one.answer) for one in others}) == 1
            assert len({one.text for one in others}) == 6
            assert [one.wording for one in others] == [0, 1, 2, 3, 4, 5]


def test_training_never_hears_a_wording_kept_for_tests(frames: list[list[Seen]]) -> None:
    rng = np.random.default_rng(0)
    kept = {text for fact, asked in FACT_QUESTIONS.items() for text in asked[3 if fact in THIN_FACTS else 5 :]}
    heard, thin = Counter(), 0
    for seen in frames:
        for said in expressions(seen, "race", 1, "train", rng):
            heard[said.wording] += 1
            assert said.text not in kept, said
            if said.form == "all-fact":
                fact = next(fact for fact in FACTS if f" {fact}" in said.text)
                thin += fact in THIN_FACTS
                assert fact not in THIN_FACTS or said.wording <= 2, said
    assert set(heard) == {0, 1, 2, 3, 4}
    assert thin > 20


def test_wordings_are_drawn_about_equally_often(frames: list[list[Seen]]) -> None:
    rng = np.random.default_rng(0)
    heard = Counter(said.wording for seen in frames for said in expressions(seen, "free", None, "test", rng))
    assert set(heard) == {0, 1, 2, 3, 4, 5}
    assert max(heard.values()) < 1.1 * min(heard.values())


def test_a_given_wording_leaves_out_thin_facts_that_lack_it_in_training() -> None:
    butterfly = [actor(1, "butterfly")]  # "was a caterpillar" and "flies" are thin
    assert {"was a caterpillar", "flies"} <= THIN_FACTS
    said = [one.text for one in say(butterfly, "train", wording=3) if one.form == "fact"]
    assert said == [FACT_QUESTIONS["is an insect"][3], FACT_QUESTIONS["is an animal"][3]]
    assert len([one for one in say(butterfly, "train", wording=2) if one.form == "fact"]) == 4


def test_every_word_of_a_test_wording_is_met_in_training() -> None:
    def words(lines: list[str]) -> set[str]:
        return set(re.findall(r"[a-z]+", " ".join(re.sub(r"\{\w+\}", "", line) for line in lines)))

    facts = [text for fact, asked in FACT_QUESTIONS.items() for text in asked[: 3 if fact in THIN_FACTS else 5]]
    names = [f"{one.name} {one.plural}" for one in CATEGORIES]
    trained = words([text for table in TEMPLATES.values() for text in table[:5]] + facts + names + list(PARTS))
    tested = words([text for table in (*TEMPLATES.values(), *FACT_QUESTIONS.values()) for text in table])
    assert tested - trained == set()


def test_training_is_never_told_that_a_held_out_pair_is_absent() -> None:
    category, colour = next((category, colour) for category, colour in sorted(HELD_OUT_PAIRS) if category == "dog")
    seen = [actor(1, "dog", "natural", (0.2, 0.5)), actor(2, "star", colour, (0.8, 0.5))]
    told: dict[str, set[str]] = {"train": set(), "test": set()}
    for split, heard in told.items():
        for seed in range(300):
            heard |= {one.text for one in say(seen, split, seed=seed) if one.form == "absent-colour-category"}
    assert f"the {colour} {category}" in told["test"]
    assert f"the {colour} {category}" not in told["train"]
    assert len(told["train"]) > 30


def test_the_same_generator_gives_the_same_expressions_and_questions(frames: list[list[Seen]]) -> None:
    for seen in frames[:30]:
        first, second = np.random.default_rng(3), np.random.default_rng(3)
        assert expressions(seen, "race", 1, "train", first) == expressions(seen, "race", 1, "train", second)
        assert questions(seen, first) == questions(seen, second)


def test_answers_read_as_agreed() -> None:
    red, white = actor(1, "dog", "red", (0.1, 0.5)), actor(2, "dog", "white", (0.9, 0.9))
    assert answer([red]) == "Sure, I track the red dog in the left. <TK>, <PO>"
    assert answer([white, red]) == (
        "Sure, I track 2 objects: the red dog in the left <TK>, <PO>; the white dog in the bottom right <TK>, <PO>"
    )
    assert answer([actor(3, "fire engine")]) == "Sure, I track the fire engine in the middle. <TK>, <PO>"
    assert answer([], "no zebra") == "I see no zebra here."
    said = {one.answer for seed in range(40) for one in say([red], seed=seed) if one.form == "absent-fact"}
    assert "I see nothing that meows here." in said


def test_an_answer_holds_at_most_four_targets() -> None:
    five = [actor(i, "dog", at=(i / 6, 0.5)) for i in range(1, 6)]
    with pytest.raises(UsageError, match="5 targets"):
        answer(five)
    assert not texts(five, "all-category")
    assert texts(five[:4], "all-category") == {"all the dogs": (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("at", "name"),
    [
        ((0.1, 0.1), "top left"),
        ((0.5, 0.2), "top"),
        ((0.5, 0.5), "middle"),
        ((0.34, 0.9), "bottom"),
        ((1.0, 0.5), "right"),
    ],
)
def test_a_region_is_the_third_that_holds_the_centre(at: tuple[float, float], name: str) -> None:
    assert region(actor(1, "dog", at=at).box) == name


def test_a_half_hidden_dog_makes_the_dog_ambiguous() -> None:
    clear = actor(1, "dog", "red", (0.2, 0.5))
    assert texts([clear], "category") == {"the dog": (1,)}
    hidden = actor(2, "dog", "blue", (0.8, 0.5), visible=0.3)
    assert not texts([clear, hidden], "category")
    assert texts([clear, hidden], "colour-category") == {"the red dog": (1,)}
    assert "what barks?" not in texts([clear, hidden], "fact")
    tiny = actor(2, "dog", "blue", (0.8, 0.5), side=0.04)
    assert not texts([clear, tiny], "category")
    assert not texts([clear, tiny], "all-category")


def test_an_untinted_apple_makes_the_red_one_ambiguous() -> None:
    seen = [actor(1, "star", "red", (0.2, 0.5)), actor(2, "apple", "natural", (0.8, 0.5))]
    assert not texts(seen, "colour-only")
    assert texts([seen[0], actor(2, "frog", "natural", (0.8, 0.5))], "colour-only") == {"the red one": (1,)}
    red_apples = [actor(1, "apple", "red", (0.2, 0.5)), seen[1]]
    assert not texts(red_apples, "colour-category")
    assert not texts(red_apples, "all-colour")


@pytest.mark.parametrize(("side", "found"), [(0.15, {"smallest": (2,), "biggest": (1,)}), (0.19, {})])
def test_a_size_superlative_needs_fifteen_percent_of_area(side: float, found: dict[str, tuple[int, ...]]) -> None:
    seen = [actor(1, "dog", at=(0.5, 0.5), side=0.2), actor(2, "cat", at=(0.55, 0.5), side=side)]
    assert texts(seen, "superlative") == {f"what is the {word} thing here?": ids for word, ids in found.items()}


def test_a_big_thing_half_hidden_leaves_the_biggest_open() -> None:
    seen = [actor(1, "dog", at=(0.3, 0.3), side=0.2), actor(2, "cat", at=(0.35, 0.3), side=0.24, visible=0.5)]
    assert not texts(seen, "superlative")


@pytest.mark.parametrize(("x", "found"), [(0.34, True), (0.36, False), (0.49, False)])
def test_left_of_needs_a_gap_and_nobody_else_on_that_side(x: float, found: bool) -> None:
    car, dog = actor(1, "car", at=(0.5, 0.5)), actor(2, "dog", at=(x, 0.5))
    assert ("what is left of the car?" in texts([car, dog], "relation")) == found
    assert "what is left of the car?" not in texts([car, dog, actor(3, "cat", at=(0.1, 0.9))], "relation")


def test_closest_holds_for_square_and_wide_frames_or_is_not_asked() -> None:
    car = actor(1, "car", at=(0.5, 0.5))
    aside, below = actor(2, "dog", at=(0.3, 0.5)), actor(3, "cat", at=(0.5, 0.75))
    assert "what is closest to the car?" not in texts([car, aside, below], "relation")
    near = actor(3, "cat", at=(0.5, 0.65))
    assert texts([car, aside, near], "relation")["what is closest to the car?"] == (3,)


def test_a_size_word_needs_a_size_that_shows() -> None:
    big, small = actor(1, "dog", at=(0.2, 0.5), side=0.2, size="large"), actor(2, "dog", at=(0.8, 0.5), size="small")
    assert texts([big, small], "size-category") == {"the large dog": (1,), "the small dog": (2,)}
    alike = actor(2, "dog", at=(0.8, 0.5), side=0.19, size="small")  # said to be small, looks as large
    assert not texts([big, alike], "size-category")


def test_the_left_dog_is_not_said_when_another_dog_is_also_left() -> None:
    left, above = actor(1, "dog", at=(0.2, 0.5)), actor(2, "dog", at=(0.25, 0.1))
    assert "the dog on the left" not in texts([left, above], "where-category")
    assert texts([left, above], "where-category")["the dog in the top left"] == (2,)
    aside = actor(2, "dog", at=(0.6, 0.1))
    assert texts([left, aside], "where-category")["the dog on the left"] == (1,)
    assert texts([left, aside], "where-category")["the leftmost dog"] == (1,)


def test_the_odd_one_out_is_not_asked_when_colours_single_out_another() -> None:
    seen = [actor(1, "dog", "red", (0.2, 0.2)), actor(2, "cat", "red", (0.5, 0.5)), actor(3, "car", "red", (0.8, 0.8))]
    assert texts(seen, "odd-one-out") == {"which one does not belong?": (3,)}
    blue_cat = actor(2, "cat", "blue", (0.5, 0.5))
    assert not texts([seen[0], blue_cat, seen[2]], "odd-one-out")


def test_only_a_race_with_a_visible_leader_asks_who_will_win() -> None:
    seen = [actor(1, "car", at=(0.2, 0.5)), actor(2, "bus", at=(0.6, 0.5)), actor(3, "dog", at=(0.9, 0.5), visible=0.2)]

    def races(kind: str, leader: int | None) -> list[tuple[str, tuple[int, ...]]]:
        return [(one.text, one.targets) for one in say(seen, kind=kind, leader=leader) if one.form == "race"]

    assert races("race", 2) == [("who will win the race?", (2,))]
    assert races("race", None) == races("race", 3) == races("race", 9) == races("free", 2) == []


def test_an_empty_frame_has_only_absent_things() -> None:
    said = say([])
    assert said
    assert {one.kind for one in said} == {"none"}
    assert describe_scene([]) == "nothing"
    assert all(reply in ("0", "no") for _, reply in questions([], np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("kind", "split", "wording"), [("parade", "test", 0), ("free", "val", 0), ("free", "train", 5), ("free", "test", 6)]
)
def test_a_split_or_wording_that_does_not_exist_is_refused(kind: str, split: str, wording: int) -> None:
    with pytest.raises(UsageError):
        expressions([], kind, None, split, np.random.default_rng(0), wording)


def test_a_scene_is_described_from_the_top_then_from_the_left() -> None:
    seen = [
        actor(1, "owl", "natural", (0.8, 0.9)),
        actor(2, "car", "white", (0.5, 0.55)),
        actor(3, "dog", "red", (0.1, 0.3)),
        actor(4, "cat", "blue", (0.15, 0.5)),
        actor(5, "bee", "pink", (0.9, 0.1), visible=0.2),
    ]
    assert describe_scene(seen) == "red dog top left; blue cat left; white car middle; owl bottom right"


def test_answers_to_questions_are_true(frames: list[list[Seen]]) -> None:
    rng, checked = np.random.default_rng(1), Counter()
    for seen in frames:
        asked = questions(seen, rng)
        assert len(asked) <= 6
        assert len({question for question, _ in asked}) == len(asked)
        for question, reply in asked:
            rule, truth = truth_of(question, seen)
            checked[rule] += 1
            assert reply == truth, (question, reply, truth, seen)
    assert len(checked) == 9
    assert min(checked.values()) > 50, checked


def truth_of(question: str, seen: list[Seen]) -> tuple[str, str]:
    """The kind of a question and its true answer, from its text alone."""
    if found := re.fullmatch(r"(.+), (the .+) or (the .+)\?", question):
        names = found.groups()[1:]
        pair = [next(one for one in seen if one.id in matching(name, seen)) for name in names]
        (best,) = extreme(COMPARISONS[found[1]], pair)
        kind = "compare size" if COMPARISONS[found[1]] in ("biggest", "smallest") else "compare side"
        return kind, names[[one.id for one in pair].index(best)]
    if found := re.fullmatch(r"how many things (?:are there|do you see)\?", question):
        return "count", str(len(seen))
    if found := re.fullmatch(r"how many (?:(\w+) things are there|things are (\w+))\?", question):
        return "count-colour", str(sum(one.colour == (found[1] or found[2]) for one in seen))
    if found := re.fullmatch(r"how many (.+) (?:are there|do you see)\?", question):
        return "count-category", str(sum(BY_NAME[one.category].plural == found[1] for one in seen))
    if found := re.fullmatch(r"(?:what colour is|do you know the colour of) (the .+)\?", question):
        (number,) = matching(found[1], seen)
        return "colour", next(one.colour for one in seen if one.id == number)
    if found := re.fullmatch(r"where (?:is|do you see) (the .+)\?", question):
        (number,) = matching(found[1], seen)
        return "where", next(region(one.box) for one in seen if one.id == number)
    if found := re.fullmatch(r"what (?:is|do you see) (.+)\?", question):
        (one,) = [one for one in seen if region(one.box) == PLACES[found[1]]]
        return "at", one.category
    found = re.fullmatch(r"(?:is there|do you see) any (.+)\?", question)
    return "there", "yes" if matching(found[1], seen) else "no"


def test_the_corpus_holds_every_template_category_fact_and_form() -> None:
    lines = list(corpus(0, 2500))
    assert len(lines) == 2500
    assert lines == list(corpus(0, 2500))
    text = "\n".join(lines)
    for category in CATEGORIES:
        assert f"all the {category.plural}\n" in text
        assert f"the {category.name} in the" in text
    for fact, asked in FACT_QUESTIONS.items():
        assert set(asked) <= set(lines)
        assert f"nothing that {fact} here" in text
    for table in TEMPLATES.values():
        for template in table:
            pattern = re.sub(r"\\{\w+\\}", r"[a-z ]+", re.escape(template))
            assert any(re.fullmatch(pattern, line) for line in lines), template
    for word in (*COLOURS, *PARTS, *REGIONS, "small", "medium", "large", "<TK>, <PO>", "Sure, I track 4 objects"):
        assert word in text, word


def test_the_language_stays_small_plain_and_lower_case() -> None:
    lines = list(corpus(1, 12000))
    assert len({word for line in lines for word in re.findall(r"[A-Za-z0-9]+", line)}) < 900
    for line in lines:
        assert re.fullmatch(r"[a-z0-9 ,;?]+|(Sure, I track|I see no).+", line), line


def test_the_catalog_has_the_agreed_groups_and_distinct_names_and_glyphs() -> None:
    assert Counter(one.group for one in CATEGORIES) == {
        "animal": 18,
        "object": 14,
        "vehicle": 12,
        "food": 10,
        "shape": 10,
    }
    assert len(BY_NAME) == 64
    assert len({one.plural for one in CATEGORIES}) == 64
    glyphs = [one.glyph for one in CATEGORIES if one.glyph]
    assert len(set(glyphs)) == 54
    assert all(len(glyph) == 1 for glyph in glyphs)
    assert all(bool(one.glyph) == (one.group != "shape") for one in CATEGORIES)
    assert all(set(one.looks) <= set(COLOURS) for one in CATEGORIES)


def test_every_emoji_category_has_two_to_four_facts_one_of_them_specific() -> None:
    holders = Counter(fact for one in CATEGORIES for fact in one.facts)
    for one in CATEGORIES:
        if one.glyph:
            assert 2 <= len(one.facts) <= 4, one.name
            assert min(holders[fact] for fact in one.facts) == 1, one.name
    assert sum(count > 1 for count in holders.values()) >= 20
    assert set(FACT_QUESTIONS) == set(FACTS)
    assert 0.13 < len(THIN_FACTS) / len(FACTS) < 0.17
    asked = [text for table in FACT_QUESTIONS.values() for text in table]
    assert len(set(asked)) == len(asked) == 6 * len(FACTS)


def test_held_out_pairs_are_about_eight_percent_and_spread_over_categories_and_colours() -> None:
    assert 0.07 < len(HELD_OUT_PAIRS) / (len(CATEGORIES) * len(COLOURS)) < 0.09
    assert max(Counter(category for category, _ in HELD_OUT_PAIRS).values()) == 1
    assert max(Counter(colour for _, colour in HELD_OUT_PAIRS).values()) <= 7
    assert {colour for _, colour in HELD_OUT_PAIRS} == set(COLOURS)
