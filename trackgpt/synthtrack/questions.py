"""What else is said about a SynthTrack frame: scene descriptions, questions with answers, and a tokenizer's corpus.

Like `language`, pure functions of the visible actors and a `numpy.random.Generator`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

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
    COLOUR_NAMES,
    MARGIN,
    NAMES,
    Frame,
    Seen,
    adjective,
    answer,
    expressions,
    foremost,
    is_clear,
    might_be_in,
    reading_order,
    region,
)
from trackgpt.synthtrack.wordings import (
    PLACES,
    QUESTIONS,
    REGIONS,
    SIDES,
    SIZES,
    TEMPLATES,
    THIN_WORDINGS,
    TRAIN_WORDINGS,
)


def describe_scene(seen: Sequence[Seen]) -> str:
    """All clear actors in raster order, by thirds of the frame from the top: "red dog top left; car middle"."""
    rows: list[list[str]] = [[], [], []]
    for one in reading_order([one for one in seen if is_clear(one)]):
        place = region(one.box)
        rows[REGIONS.index(place) // 3].append(f"{adjective(one.colour)}{one.category} {place}")
    return "; ".join(text for row in rows for text in row) or "nothing"


def questions(seen: Sequence[Seen], rng: np.random.Generator) -> list[tuple[str, str]]:
    """Six question and answer pairs about a frame (fewer when little can be asked), all of different types.

    Answers are a word or two: a number in digits, a colour, a category, a region, a name, "yes" or "no". The rules of
    clearness and margins are those of `expressions`; pairs of `HELD_OUT_PAIRS` are only asked for when they are there.
    """
    frame = Frame(seen)
    asked = [pair for ask in _ASKERS for pair in ask(frame, rng)]
    order = rng.permutation(len(asked))[:6].tolist()
    return [asked[index] for index in order]


def _ask(kind: str, reply: str, rng: np.random.Generator, **words: str) -> tuple[str, str]:
    return QUESTIONS[kind][int(rng.integers(2))].format_map(words), reply


def _choose(items: Sequence[str], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]


def _ask_counts(frame: Frame, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """How many things, of a category (present or, one time in four, any), of a colour."""
    if all(frame.clear):
        yield _ask("count", str(len(frame.seen)), rng)
    anything = rng.random() < 0.25 or not frame.categories
    name = _choose(NAMES if anything else list(frame.categories), rng)
    matches = frame.categories.get(name, [])
    if all(frame.clear[index] for index in matches):
        yield _ask("count-category", str(len(matches)), rng, plural=BY_NAME[name].plural)
    anything = rng.random() < 0.25 or not frame.colours
    colour = _choose(COLOUR_NAMES if anything else list(frame.colours), rng)
    matches = frame.colours.get(colour, [])
    if all(frame.clear[index] and frame.seen[index].colour == colour for index in matches):
        yield _ask("count-colour", str(len(matches)), rng, colour=colour)


def _ask_one(frame: Frame, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """The colour of a thing, its place, and what is at a place."""
    order = rng.permutation(len(frame.seen)).tolist()
    for index in order:
        one = frame.seen[index]
        if one.colour != "natural" and frame.sole(frame.categories[one.category]):
            yield _ask("colour", one.colour, rng, name=f"the {one.category}")
            break
    for index in order:
        names = frame.names(index)
        if names:
            yield _ask("where", region(frame.seen[index].box), rng, name=_choose(names, rng))
            break
    for index in order:
        place = region(frame.seen[index].box)
        if frame.clear[index] and not any(might_be_in(frame, other, place) for other in order if other != index):
            yield _ask("at", frame.seen[index].category, rng, place=PLACES[place])
            break


def _ask_comparisons(frame: Frame, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Which of two is bigger or smaller, and which is further to a side of the frame."""
    named = [(index, names[0]) for index in range(len(frame.seen)) if (names := frame.names(index))]
    if len(named) < 2:
        return
    pick = rng.permutation(len(named))[:2].tolist()
    (one, name), (other, other_name) = named[pick[0]], named[pick[1]]
    said = {"first": name, "second": other_name}
    areas = [item.area for item in frame.seen]
    for small, large, reply in ((one, other, (name, other_name)), (other, one, (other_name, name))):
        if areas[large] >= (1 + MARGIN) * frame.full[small]:
            word = int(rng.integers(2))
            yield _ask(("smaller", "bigger")[word], reply[word], rng, **said)
    side = _choose(list(SIDES), rng)
    first = foremost(frame, (one, other), side)
    if first is not None:
        yield _ask("further", name if first == one else other_name, rng, **SIDES[side], **said)


def _ask_presence(frame: Frame, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Whether there is a category, and a coloured category; as often yes as no where the frame allows."""
    clear = [one for one, visible in zip(frame.seen, frame.clear, strict=True) if visible]
    if clear and rng.random() < 0.5:
        name = _choose([one.category for one in clear], rng)
    else:
        name = _choose(NAMES, rng)
    matches = frame.categories.get(name, [])
    if not matches or any(frame.clear[index] for index in matches):
        yield _ask("there-category", "yes" if matches else "no", rng, category=name)
    painted = [one for one in clear if one.colour != "natural"]
    if not painted:
        return
    one = painted[int(rng.integers(len(painted)))]
    if rng.random() < 0.5:
        yield _ask("there-colour-category", "yes", rng, colour=one.colour, category=one.category)
        return
    colour = _choose(COLOUR_NAMES, rng)
    if not frame.with_colour(one.category, colour) and (one.category, colour) not in HELD_OUT_PAIRS:
        yield _ask("there-colour-category", "no", rng, colour=colour, category=one.category)


_ASKERS = (_ask_counts, _ask_one, _ask_comparisons, _ask_presence)


def corpus(rng_seed: int, n: int) -> Iterator[str]:
    """Lines of text for a tokenizer: `n` of them, instructions, answers, scene descriptions, questions.

    The first 1900 lines or so go through every template and wording of both splits, every category, colour, size,
    region, fact and part; the rest is drawn from imagined frames. `n` of 2500 or more holds it all.
    """
    rng = np.random.default_rng(rng_seed)
    count = 0
    for source in (_every_line(rng), _imagined_lines(rng)):
        for line in source:
            if count >= n:
                return
            count += 1
            yield line


def _every_line(rng: np.random.Generator) -> Iterator[str]:
    for category in CATEGORIES:
        for colour in ("natural", _choose(COLOUR_NAMES, rng)):
            name = f"{adjective(colour)}{category.name}"
            yield f"all the {adjective(colour)}{category.plural}"
            yield f"Sure, I track the {name} in the {_choose(REGIONS, rng)}. <TK>, <PO>"
            yield answer((), f"no {name}")
    for fact in FACTS:
        yield from FACT_QUESTIONS[fact]
        yield TEMPLATES["all-fact"][0].format(fact=fact)
        yield answer((), f"nothing that {fact}")
    for part in PARTS:
        yield TEMPLATES["part"][0].format(part=part)
    filled = []
    for table in (*TEMPLATES.values(), *QUESTIONS.values()):
        for side in SIDES:
            filled += [template.format_map(_any_words(side, rng)) for template in table]
    for colour in COLOURS:
        filled.append(f"everything {colour}")
        filled += [f"the {size} {colour} one {PLACES[place]}" for size in SIZES for place in REGIONS]
    yield from dict.fromkeys(filled)


def _any_words(side: str, rng: np.random.Generator) -> dict[str, str]:
    """Something for every field of every template."""
    category = CATEGORIES[int(rng.integers(len(CATEGORIES)))]
    colour, other = _choose(COLOUR_NAMES, rng), _choose(NAMES, rng)
    return SIDES[side] | {
        "category": category.name,
        "plural": category.plural,
        "colour": colour,
        "size": _choose(SIZES, rng),
        "place": PLACES[_choose(REGIONS, rng)],
        "part": _choose(PARTS, rng),
        "fact": _choose(FACTS, rng),
        "name": f"the {category.name}",
        "anchor": f"the {colour} {category.name}",
        "first": f"the {colour} {category.name}",
        "second": f"the {other}",
    }


def _imagined_lines(rng: np.random.Generator) -> Iterator[str]:
    while True:
        seen = _imagine(rng)
        for expression in expressions(seen, "race", 1, "test", rng)[:: int(rng.integers(2, 6))]:
            yield expression.text
            yield expression.answer
        yield describe_scene(seen)
        for question, reply in questions(seen, rng):
            yield question
            yield reply


def _imagine(rng: np.random.Generator) -> list[Seen]:
    """One to eight clear actors of a few categories and colours, anywhere."""
    names = [_choose(NAMES, rng) for _ in range(5)]
    colours = ["natural", *(_choose(COLOUR_NAMES, rng) for _ in range(4))]
    seen = []
    for index in range(int(rng.integers(1, 9))):
        side = float(rng.uniform(0.08, 0.3))
        x, y = rng.uniform(0, 1 - side, 2).tolist()
        size = SIZES[min(2, int((side - 0.08) / 0.08))]
        box = (x, y, x + side, y + side)
        seen.append(Seen(index + 1, _choose(names, rng), _choose(colours, rng), size, box, 0.7 * side * side, 1.0))
    return seen


def knowledge(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """What a language model would know of the world before it sees any: `count` questions and answers about no frame.

    "in general, what barks?" -> "dog, fox": up to three of the categories of which a fact or a part is true, in a drawn
    order. Only wordings of the train split are used.
    """
    return [_known(rng) for _ in range(count)]


def _known(rng: np.random.Generator) -> tuple[str, str]:
    if rng.random() < 0.75:
        fact = FACTS[int(rng.integers(len(FACTS)))]
        heard = THIN_WORDINGS if fact in THIN_FACTS else TRAIN_WORDINGS
        asked = FACT_QUESTIONS[fact][int(rng.integers(heard))]
        names = [category.name for category in CATEGORIES if fact in category.facts]
    else:
        part = PARTS[int(rng.integers(len(PARTS)))]
        asked = TEMPLATES["part"][int(rng.integers(TRAIN_WORDINGS))].format(part=part)
        names = [category.name for category in CATEGORIES if part in category.parts]
    said = [names[i] for i in rng.permutation(len(names))[:3]]
    return f"in general, {asked}", ", ".join(said)
