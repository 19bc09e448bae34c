"""What people say about a SynthTrack frame, and what a good tracker answers.

Everything here is a pure function of the visible actors (`Seen`) and a `numpy.random.Generator`: no pixels, no state.
Boxes are xyxy fractions of the frame's width and height, areas fractions of the frame.

An instruction is only made when a careful person would know at once what it means. Three rules hold this up:

* Every visible actor counts when matches are counted, but only a *clear* one (`is_clear`) may be a target: a
  half-hidden or tiny actor that also fits makes the instruction ambiguous, and it is dropped.
* An actor in its own colours may be called by any of its category's `looks`: it never is the target of a colour word,
  and where it could be meant the instruction is dropped.
* Comparisons need a margin (`MARGIN`): of the frame for places, of the smaller value for sizes and distances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trackgpt.data.synthtrack.catalog import (
    BY_NAME,
    CATEGORIES,
    COLOURS,
    FACT_QUESTIONS,
    FACTS,
    HELD_OUT_PAIRS,
    PARTS,
    THIN_FACTS,
)
from trackgpt.data.synthtrack.scene import Expression
from trackgpt.errors import UsageError

WORDINGS = 6
TRAIN_WORDINGS = 5
THIN_WORDINGS = 3
MAX_TARGETS = 4
MIN_VISIBLE = 0.4
MIN_AREA = 0.002
MARGIN = 0.15
SIZE_RATIO = 1.3
REGIONS = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
SIZES = ("small", "medium", "large")

# Distances in fractions of width and height depend on the frame's aspect, which is not known here: a comparison
# of distances must hold for a square frame and for a wide one.
_ASPECTS = (1.0, 16 / 9)

FORMS: dict[str, str] = {
    "category": "explicit",
    "colour-category": "explicit",
    "size-category": "explicit",
    "size-colour-category": "explicit",
    "where-category": "explicit",
    "colour-only": "explicit",
    "fact": "implicit",
    "part": "implicit",
    "superlative": "implicit",
    "relation": "implicit",
    "odd-one-out": "implicit",
    "race": "implicit",
    "all-category": "multi",
    "all-colour": "multi",
    "all-fact": "multi",
    "two": "multi",
    "absent-category": "none",
    "absent-colour-category": "none",
    "absent-fact": "none",
}

# Six wordings each; the first is the seed, the last is kept for tests. Absent things are asked for in the very words
# used for present ones, or the words alone would give the answer away. Facts are asked for in FACT_QUESTIONS.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "category": (
        "the {category}",
        "track the {category}",
        "please follow the {category}",
        "can you track the {category} in the video?",
        "find the {category} and track it",
        "could you please follow the {category} in the video?",
    ),
    "colour-category": (
        "the {colour} {category}",
        "track the {colour} {category}",
        "please follow the {category} that is {colour}",
        "can you track the {colour} {category} in the video?",
        "i see the {colour} {category}, please track it",
        "could you please find and track the {colour} {category}?",
    ),
    "size-category": (
        "the {size} {category}",
        "track the {size} {category}",
        "please follow the {category} that is {size}",
        "can you track the {size} {category} in the video?",
        "i see the {size} {category}, please track it",
        "could you please find and track the {size} {category}?",
    ),
    "size-colour-category": (
        "the {size} {colour} {category}",
        "track the {size} {colour} {category}",
        "please follow the {colour} {category} that is {size}",
        "can you track the {size} {colour} {category} in the video?",
        "i see the {size} {colour} {category}, please track it",
        "could you please find and track the {size} {colour} {category}?",
    ),
    "where-category": (
        "the {category} {place}",
        "track the {category} {place}",
        "please follow the {category} that is {place}",
        "can you track the {category} {place} of the video?",
        "look {place}, find the {category} and track it",
        "could you please track the {category} that you see {place}?",
    ),
    "most-category": (
        "the {most} {category}",
        "track the {most} {category}",
        "please follow the {category} that is furthest {towards}",
        "can you track the {category} closest to the {side} edge of the video?",
        "of all the {plural}, track the {most} one",
        "which {category} is furthest {towards}?",
    ),
    "colour-only": (
        "the {colour} one",
        "the {colour} thing",
        "track the {colour} one",
        "please follow whatever is {colour}",
        "can you track the {colour} thing in the video?",
        "could you please track the one that is {colour}?",
    ),
    "part": (
        "what has {part}?",
        "which one has {part}?",
        "track whatever has {part}",
        "something here has {part}, please track it",
        "can you track the thing with {part}?",
        "which thing here has {part}?",
    ),
    "biggest": (
        "what is the biggest thing here?",
        "which one is the largest of all?",
        "track whatever is bigger than everything else",
        "one thing is larger than all the others, please track it",
        "which object takes up the most room?",
        "which object is the biggest of all?",
    ),
    "smallest": (
        "what is the smallest thing here?",
        "which one is the tiniest of all?",
        "track whatever is smaller than everything else",
        "one thing is smaller than all the others, please track it",
        "which object takes up the least room?",
        "which object is the smallest of all?",
    ),
    "most": (
        "what is the {most} thing here?",
        "which one is furthest {towards}?",
        "track whatever is closest to the {side} edge",
        "everything else is {opposite} it, please track it",
        "which object is the {most} of all?",
        "what is closest to the {side} edge of the video?",
    ),
    "beside": (
        "what is {beside} {anchor}?",
        "which thing do you see {on} {anchor}?",
        "track whatever is {on} {anchor}",
        "look at {anchor}, then track what is {beside} it",
        "one thing is {on} {anchor}, please track it",
        "can you find the thing {on} {anchor}?",
    ),
    "closest": (
        "what is closest to {anchor}?",
        "which thing is nearest to {anchor}?",
        "track whatever is next to {anchor}",
        "look at {anchor}, then track what is nearest to it",
        "one thing is closest to {anchor}, please track it",
        "can you find the thing closest to {anchor}?",
    ),
    "furthest": (
        "what is furthest from {anchor}?",
        "which thing is the most far away from {anchor}?",
        "track whatever is furthest away from {anchor}",
        "look at {anchor}, then track what is furthest from it",
        "one thing is furthest from {anchor}, please track it",
        "can you find the thing furthest away from {anchor}?",
    ),
    "odd-one-out": (
        "which one does not belong?",
        "what is the odd one out?",
        "track the one that does not fit with the others",
        "all things but one are of the same kind, please track that one",
        "which thing is of a different kind?",
        "which one does not fit with the others?",
    ),
    "race": (
        "who will win the race?",
        "who is about to cross the line first?",
        "track the winner of this race",
        "which one is ahead of the others in this race?",
        "who is in the lead?",
        "who will cross the line ahead of the others?",
    ),
    "all-category": (
        "all the {plural}",
        "track all the {plural}",
        "please follow every {category}",
        "can you track each {category} in the video?",
        "there are several {plural}, please track them all",
        "could you please follow all the {plural} in the video?",
    ),
    "all-colour": (
        "everything {colour}",
        "track everything {colour}",
        "please follow all the {colour} things",
        "can you track each {colour} thing in the video?",
        "there are several {colour} things, please track them all",
        "could you please follow everything that is {colour}?",
    ),
    "all-fact": (
        "everything that {fact}",
        "track everything that {fact}",
        "please follow each thing that {fact}",
        "can you track every object that {fact}?",
        "more than one thing here {fact}, please track them all",
        "could you please follow everything that {fact}?",
    ),
    "two": (
        "{first} and {second}",
        "track {first} and {second}",
        "please follow both {first} and {second}",
        "can you track {first} and {second} in the video?",
        "find {first}, then {second}, and track both",
        "could you please track both {first} and {second}?",
    ),
}

_SIDES: dict[str, dict[str, str]] = {
    "left": {
        "most": "leftmost",
        "towards": "to the left",
        "side": "left",
        "opposite": "to the right of",
        "beside": "left of",
        "on": "to the left of",
    },
    "right": {
        "most": "rightmost",
        "towards": "to the right",
        "side": "right",
        "opposite": "to the left of",
        "beside": "right of",
        "on": "to the right of",
    },
    "top": {
        "most": "highest",
        "towards": "up",
        "side": "top",
        "opposite": "below",
        "beside": "above",
        "on": "above",
    },
    "bottom": {
        "most": "lowest",
        "towards": "down",
        "side": "bottom",
        "opposite": "above",
        "beside": "below",
        "on": "below",
    },
}

_PLACES = {name: f"in the {name}" for name in REGIONS} | {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}


@dataclass(frozen=True)
class Seen:
    """One actor as it is visible in the frame that is talked about.

    Attributes:
        id: the actor's label in the id map.
        category: a name of `catalog.CATEGORIES`.
        colour: a key of `catalog.COLOURS`, or "natural".
        size: "small", "medium" or "large".
        box: xyxy of its visible part, fractions of the frame's width and height.
        area: visible area, fraction of the frame.
        visible_fraction: visible area over the area it would have unhidden, in (0, 1].
    """

    id: int
    category: str
    colour: str
    size: str
    box: tuple[float, float, float, float]
    area: float
    visible_fraction: float


def is_clear(seen: Seen) -> bool:
    """Whether an actor is visible and large enough to be talked about."""
    return seen.visible_fraction >= MIN_VISIBLE and seen.area >= MIN_AREA


def region(box: Sequence[float]) -> str:
    """The cell of a 3 x 3 grid in which a box (xyxy, fractions of the frame) has its centre: one of `REGIONS`."""
    column = min(2, max(0, int((box[0] + box[2]) * 1.5)))
    row = min(2, max(0, int((box[1] + box[3]) * 1.5)))
    return REGIONS[3 * row + column]


def describe(seen: Seen) -> str:
    """The name of an actor with its colour: "the red dog", or "the dog" for one in its own colours."""
    return f"the {_adjective(seen.colour)}{seen.category}"


def answer(targets: Sequence[Seen], absent: str = "no such thing") -> str:
    """What the tracker says when these are the targets, in left-to-right order whatever their order here.

    Args:
        targets: up to four actors; none of them means that what was asked for is not in the frame.
        absent: what was not found, for an empty `targets` ("no zebra", "nothing that barks").

    Raises:
        UsageError: for more than four targets.
    """
    if len(targets) > MAX_TARGETS:
        raise UsageError(f"answer: {len(targets)} targets, at most {MAX_TARGETS} fit in an answer; choose fewer")
    if not targets:
        return f"I see {absent} here."
    named = [f"{describe(seen)} in the {region(seen.box)}" for seen in reading_order(targets)]
    if len(named) == 1:
        return f"Sure, I track {named[0]}. <TK>, <PO>"
    return f"Sure, I track {len(named)} objects: " + "; ".join(f"{name} <TK>, <PO>" for name in named)


def reading_order(seen: Sequence[Seen]) -> list[Seen]:
    """Actors from left to right by the centres of their boxes; ids decide between equals."""
    return sorted(seen, key=lambda one: (one.box[0] + one.box[2], one.id))


def describe_scene(seen: Sequence[Seen]) -> str:
    """All clear actors in raster order, by thirds of the frame from the top: "red dog top left; car middle"."""
    rows: list[list[str]] = [[], [], []]
    for one in reading_order([one for one in seen if is_clear(one)]):
        place = region(one.box)
        rows[REGIONS.index(place) // 3].append(f"{_adjective(one.colour)}{one.category} {place}")
    return "; ".join(text for row in rows for text in row) or "nothing"


def expressions(
    seen: Sequence[Seen],
    scene_kind: str,
    leader: int | None,
    split: str,
    rng: np.random.Generator,
    wording: int | None = None,
) -> list[Expression]:
    """All sensible instructions about a frame, each in one wording.

    The forms are as frequent as the frame makes them (there are many more relations than races): a caller who wants
    balance draws a kind, then a form, then an expression. Instructions that could be made without end (pairs, absent
    things) are sampled, a few of each. The same `seen` and state of `rng` give the same list; with another `wording`
    the same instructions are said in other words.

    Args:
        seen: the actors visible in the frame, at most one for an id.
        scene_kind: "free" or "race".
        leader: id of the actor ahead in a race, or None.
        split: "train" says only what training may hear: wordings 0 to 4 (0 to 2 for `THIN_FACTS`) and no pair of
            `HELD_OUT_PAIRS` among the absent things; "test" draws from everything.
        rng: draws wordings, pairs and absent things.
        wording: use this one (0 to 5) instead; instructions that lack it in this split are left out.

    Raises:
        UsageError: for an unknown scene kind or split, or a wording that the split does not have.
    """
    if scene_kind not in ("free", "race") or split not in ("train", "test"):
        raise UsageError(f"expressions: scene kind {scene_kind!r}, split {split!r}; use free or race, train or test")
    train = split == "train"
    if wording is not None and not 0 <= wording < (TRAIN_WORDINGS if train else WORDINGS):
        raise UsageError(f"expressions: wording {wording} is not one of split {split}; use 0 to 4, in test 0 to 5")
    frame = _Frame(seen)
    drafts = [draft for find in _FINDERS for draft in find(frame)]
    if scene_kind == "race":
        drafts += _race(frame, leader)
    drafts += _two(frame, rng)
    drafts += _absent_things(frame, rng, train)
    draws = rng.random(len(drafts)).tolist()
    spoken = []
    for draft, draw in zip(drafts, draws, strict=True):
        count = draft.train_wordings if train else WORDINGS
        index = int(draw * count) if wording is None else wording
        if index < count:
            spoken.append(_speak(frame, draft, index))
    return spoken


class _Draft(NamedTuple):
    """An instruction before its wording is chosen; targets are indices into the frame's list."""

    form: str
    table: tuple[str, ...]
    words: dict[str, str]
    targets: tuple[int, ...]
    train_wordings: int = TRAIN_WORDINGS
    absent: str = ""


class _Frame:
    """A frame's actors with what every form needs, worked out once.

    Attributes:
        seen: all visible actors, clear or not; everything else refers to them by index.
        clear: whether each may be a target.
        x, y: centres, fractions of the frame.
        full: area of each if nothing hid it, fraction of the frame.
        categories, facts, parts: indices of all actors with each.
        colours: indices of all actors that a person might call by each colour.
    """

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.seen = list(seen)
        self.clear = [is_clear(one) for one in self.seen]
        self.x = [(one.box[0] + one.box[2]) / 2 for one in self.seen]
        self.y = [(one.box[1] + one.box[3]) / 2 for one in self.seen]
        self.full = [one.area / max(one.visible_fraction, 1e-3) for one in self.seen]
        self.categories: dict[str, list[int]] = {}
        self.facts: dict[str, list[int]] = {}
        self.parts: dict[str, list[int]] = {}
        self.colours: dict[str, list[int]] = {}
        for index, one in enumerate(self.seen):
            category = BY_NAME[one.category]
            self.categories.setdefault(one.category, []).append(index)
            for fact in category.facts:
                self.facts.setdefault(fact, []).append(index)
            for part in category.parts:
                self.parts.setdefault(part, []).append(index)
            for colour in category.looks if one.colour == "natural" else (one.colour,):
                self.colours.setdefault(colour, []).append(index)
        self._answers: dict[tuple[int, ...], str] = {}

    def sole(self, matches: Sequence[int]) -> bool:
        """Whether exactly one actor matches, and it is clear."""
        return len(matches) == 1 and self.clear[matches[0]]

    def several(self, matches: Sequence[int]) -> bool:
        """Whether as many actors match as one answer can hold, at least two, all of them clear."""
        return 2 <= len(matches) <= MAX_TARGETS and all(self.clear[index] for index in matches)

    def with_colour(self, category: str, colour: str) -> list[int]:
        """Indices of the actors of a category that a person might call by a colour."""
        coloured = self.colours.get(colour, ())
        return [index for index in self.categories.get(category, ()) if index in coloured]

    def names(self, index: int) -> list[str]:
        """Noun phrases without place or size that mean this actor and no other; the shortest first."""
        one = self.seen[index]
        found = []
        if self.sole(self.categories[one.category]):
            found.append(f"the {one.category}")
        if one.colour != "natural" and self.sole(self.with_colour(one.category, one.colour)):
            found.append(f"the {one.colour} {one.category}")
        return found

    def answer(self, targets: tuple[int, ...]) -> str:
        """The answer for these targets; many instructions of a frame share theirs."""
        if targets not in self._answers:
            self._answers[targets] = answer([self.seen[index] for index in targets])
        return self._answers[targets]


def _adjective(colour: str) -> str:
    return "" if colour == "natural" else f"{colour} "


def _speak(frame: _Frame, draft: _Draft, wording: int) -> Expression:
    order = tuple(sorted(draft.targets, key=lambda index: (frame.x[index], frame.seen[index].id)))
    return Expression(
        text=draft.table[wording].format_map(draft.words),
        kind=FORMS[draft.form],
        form=draft.form,
        targets=tuple(frame.seen[index].id for index in order),
        answer=frame.answer(order) if order else answer((), draft.absent),
        wording=wording,
    )


def _fact_wordings(fact: str) -> int:
    return THIN_WORDINGS if fact in THIN_FACTS else TRAIN_WORDINGS


def _categories(frame: _Frame) -> Iterator[_Draft]:
    for name, matches in frame.categories.items():
        if frame.sole(matches):
            yield _Draft("category", TEMPLATES["category"], {"category": name}, (matches[0],))
        if frame.several(matches):
            words = {"category": name, "plural": BY_NAME[name].plural}
            yield _Draft("all-category", TEMPLATES["all-category"], words, tuple(matches))


def _colours(frame: _Frame) -> Iterator[_Draft]:
    for colour, matches in frame.colours.items():
        if any(frame.seen[index].colour == "natural" for index in matches):
            continue
        words = {"colour": colour}
        if frame.sole(matches):
            yield _Draft("colour-only", TEMPLATES["colour-only"], words, (matches[0],))
        if frame.several(matches):
            yield _Draft("all-colour", TEMPLATES["all-colour"], words, tuple(matches))


def _colour_categories(frame: _Frame) -> Iterator[_Draft]:
    for index, one in enumerate(frame.seen):
        if one.colour == "natural" or not frame.sole(frame.with_colour(one.category, one.colour)):
            continue
        words = {"colour": one.colour, "category": one.category}
        yield _Draft("colour-category", TEMPLATES["colour-category"], words, (index,))


def _sizes(frame: _Frame) -> Iterator[_Draft]:
    for index, one in enumerate(frame.seen):
        if not frame.clear[index]:
            continue
        kin = frame.categories[one.category]
        if _size_shows(frame, index, kin):
            words = {"size": one.size, "category": one.category}
            yield _Draft("size-category", TEMPLATES["size-category"], words, (index,))
        if one.colour == "natural":
            continue
        if _size_shows(frame, index, frame.with_colour(one.category, one.colour)):
            words = {"size": one.size, "colour": one.colour, "category": one.category}
            yield _Draft("size-colour-category", TEMPLATES["size-colour-category"], words, (index,))


def _size_shows(frame: _Frame, index: int, kin: Sequence[int]) -> bool:
    """Whether the size word tells an actor apart from its kin, or from the rest of the frame when it has none."""
    size, full = SIZES.index(frame.seen[index].size), frame.full
    others = [other for other in kin if other != index]
    if others:
        for other in others:
            step = size - SIZES.index(frame.seen[other].size)
            small, large = (full[other], full[index]) if step > 0 else (full[index], full[other])
            if step == 0 or large < SIZE_RATIO * small:
                return False
        return True
    rest = sorted(full[other] for other in range(len(full)) if other != index)
    if not rest or size == 1:
        return False
    median = rest[len(rest) // 2]
    return full[index] >= SIZE_RATIO * median if size == 2 else full[index] * SIZE_RATIO <= median


def _places(frame: _Frame) -> Iterator[_Draft]:
    for name, matches in frame.categories.items():
        for index in matches:
            if not frame.clear[index]:
                continue
            place = region(frame.seen[index].box)
            if not any(_might_be_in(frame, other, place) for other in matches if other != index):
                words = {"category": name, "place": _PLACES[place]}
                yield _Draft("where-category", TEMPLATES["where-category"], words, (index,))
        if len(matches) < 2:
            continue
        for side, side_words in _SIDES.items():
            first = _foremost(frame, matches, side)
            if first is not None:
                words = {**side_words, "category": name, "plural": BY_NAME[name].plural}
                yield _Draft("where-category", TEMPLATES["most-category"], words, (first,))


def _might_be_in(frame: _Frame, index: int, place: str) -> bool:
    """Whether a person might say that an actor is at a place: "left" alone means any height, and edges are soft."""
    x, y, slack = frame.x[index], frame.y[index], 0.04
    low, high = 1 / 3, 2 / 3
    inside = {
        "left": x < low + slack,
        "right": x > high - slack,
        "top": y < low + slack,
        "bottom": y > high - slack,
        "middle": low - slack < x < high + slack and low - slack < y < high + slack,
    }
    return all(inside[word] for word in place.split())


def _foremost(frame: _Frame, among: Sequence[int], side: str) -> int | None:
    """The clear actor nearest to a side of the frame by a margin, both by its centre and by its box; else None."""
    centres = frame.x if side in ("left", "right") else frame.y
    edge = ("left", "top", "right", "bottom").index(side)
    sign = 1 if edge < 2 else -1
    first = min(among, key=lambda index: sign * centres[index])
    if not frame.clear[first]:
        return None
    for other in among:
        if other == first:
            continue
        gap = sign * (centres[other] - centres[first])
        if gap < MARGIN or sign * (frame.seen[other].box[edge] - frame.seen[first].box[edge]) < 0:
            return None
    return first


def _facts(frame: _Frame) -> Iterator[_Draft]:
    for fact, matches in frame.facts.items():
        if frame.sole(matches):
            yield _Draft("fact", FACT_QUESTIONS[fact], {}, (matches[0],), _fact_wordings(fact))
        if frame.several(matches):
            words, wordings = {"fact": fact}, _fact_wordings(fact)
            yield _Draft("all-fact", TEMPLATES["all-fact"], words, tuple(matches), wordings)


def _parts(frame: _Frame) -> Iterator[_Draft]:
    for part, matches in frame.parts.items():
        if frame.sole(matches):
            yield _Draft("part", TEMPLATES["part"], {"part": part}, (matches[0],))


def _superlatives(frame: _Frame) -> Iterator[_Draft]:
    everyone = range(len(frame.seen))
    if len(everyone) < 2:
        return
    for side, words in _SIDES.items():
        first = _foremost(frame, everyone, side)
        if first is not None:
            yield _Draft("superlative", TEMPLATES["most"], words, (first,))
    for form, extreme in (("biggest", _biggest(frame)), ("smallest", _smallest(frame))):
        if extreme is not None:
            yield _Draft("superlative", TEMPLATES[form], {}, (extreme,))


def _biggest(frame: _Frame) -> int | None:
    """The actor whose visible part alone is larger by the margin than all others would be unhidden; else None."""
    areas = [one.area for one in frame.seen]
    best = max(range(len(areas)), key=areas.__getitem__)
    rivals = [full for index, full in enumerate(frame.full) if index != best]
    return best if frame.clear[best] and areas[best] >= (1 + MARGIN) * max(rivals) else None


def _smallest(frame: _Frame) -> int | None:
    """The actor that would be smaller by the margin, unhidden, than what is visible of any other; else None."""
    best = min(range(len(frame.full)), key=frame.full.__getitem__)
    rivals = [one.area for index, one in enumerate(frame.seen) if index != best]
    return best if frame.clear[best] and frame.full[best] * (1 + MARGIN) <= min(rivals) else None


def _relations(frame: _Frame) -> Iterator[_Draft]:
    for anchor in range(len(frame.seen)):
        names = frame.names(anchor)
        if not names:
            continue
        for side, side_words in _SIDES.items():
            target = _only_beside(frame, anchor, side)
            if target is not None:
                words = {**side_words, "anchor": names[0]}
                yield _Draft("relation", TEMPLATES["beside"], words, (target,))
        for form, target in zip(("closest", "furthest"), _by_distance(frame, anchor), strict=True):
            if target is not None:
                yield _Draft("relation", TEMPLATES[form], {"anchor": names[0]}, (target,))


def _only_beside(frame: _Frame, anchor: int, side: str) -> int | None:
    """The clear actor on one side of the anchor by the margin, when all others are on the other side; else None."""
    centres = frame.x if side in ("left", "right") else frame.y
    sign, origin, found = (1 if side in ("left", "top") else -1), centres[anchor], -1
    for other, centre in enumerate(centres):
        gap = sign * (origin - centre)
        if other == anchor or gap <= 0:
            continue
        if found >= 0 or gap < MARGIN or not frame.clear[other]:
            return None
        found = other
    return found if found >= 0 else None


def _by_distance(frame: _Frame, anchor: int) -> tuple[int | None, int | None]:
    """The clear actors closest to and furthest from the anchor, centre to centre, by the margin in any aspect."""
    others = [other for other in range(len(frame.seen)) if other != anchor]
    if len(others) < 2:
        return None, None
    closest: set[int] = set()
    furthest: set[int] = set()
    for aspect in _ASPECTS:
        ranked = []
        for other in others:
            across, down = aspect * (frame.x[other] - frame.x[anchor]), frame.y[other] - frame.y[anchor]
            ranked.append(((across * across + down * down) ** 0.5, other))
        ranked.sort()
        closest.add(ranked[0][1] if ranked[1][0] >= (1 + MARGIN) * ranked[0][0] else -1)
        furthest.add(ranked[-1][1] if ranked[-1][0] >= (1 + MARGIN) * ranked[-2][0] else -1)
    return _agreed(frame, closest), _agreed(frame, furthest)


def _agreed(frame: _Frame, votes: set[int]) -> int | None:
    """The one clear actor that all votes name (-1 abstains), else None."""
    index = votes.pop() if len(votes) == 1 else -1
    return index if index >= 0 and frame.clear[index] else None


def _odd_one_out(frame: _Frame) -> Iterator[_Draft]:
    """The only actor of another group, unless the colours single out someone else."""
    if len(frame.seen) < 3 or not all(frame.clear):
        return
    odd = _exception([BY_NAME[one.category].group for one in frame.seen])
    by_colour = _exception([one.colour for one in frame.seen])
    if odd is not None and by_colour in (None, odd):
        yield _Draft("odd-one-out", TEMPLATES["odd-one-out"], {}, (odd,))


def _exception(values: Sequence[str]) -> int | None:
    """Index of the one value that differs while all others (two or more) are the same, else None."""
    kinds = set(values)
    if len(values) < 3 or len(kinds) != 2:
        return None
    alone = [kind for kind in kinds if values.count(kind) == 1]
    return values.index(alone[0]) if len(alone) == 1 else None


def _race(frame: _Frame, leader: int | None) -> list[_Draft]:
    return [
        _Draft("race", TEMPLATES["race"], {}, (index,))
        for index, one in enumerate(frame.seen)
        if one.id == leader and frame.clear[index]
    ]


def _two(frame: _Frame, rng: np.random.Generator) -> Iterator[_Draft]:
    """Up to three pairs of actors that can be named without place or size, in any order of speaking."""
    draws = rng.random(8).tolist()
    named = [(index, names) for index in range(len(frame.seen)) if (names := frame.names(index))]
    if len(named) < 2:
        return
    used = set()
    for turn in range(3):
        first = int(draws[2 * turn] * len(named))
        second = (first + 1 + int(draws[2 * turn + 1] * (len(named) - 1))) % len(named)
        pair = (min(first, second), max(first, second))
        if pair in used:
            continue
        used.add(pair)
        chosen = [named[first], named[second]]
        (one, name), (other, other_name) = [(i, n[int(draws[6 + k] * len(n))]) for k, (i, n) in enumerate(chosen)]
        yield _Draft("two", TEMPLATES["two"], {"first": name, "second": other_name}, (one, other))


_NAMES = [category.name for category in CATEGORIES]
_COLOUR_NAMES = list(COLOURS)
_GROUPS = {
    group: [category for category in CATEGORIES if category.group == group]
    for group in dict.fromkeys(category.group for category in CATEGORIES)
}
_GROUP_NAMES = {group: [category.name for category in members] for group, members in _GROUPS.items()}
_GROUP_FACTS = {
    group: sorted({fact for category in members for fact in category.facts}) or list(FACTS)
    for group, members in _GROUPS.items()
}


def _absent_things(frame: _Frame, rng: np.random.Generator, train: bool) -> Iterator[_Draft]:
    """Instructions about what is not there: two categories, up to three coloured ones, two facts.

    One of each is near to what is there (same group, same category, same colour), one is anything.
    """
    draws = iter(rng.random(16).tolist())

    def pick(items: Sequence[str]) -> str:
        return items[int(next(draws) * len(items))]

    here = [one.category for one in frame.seen] or _NAMES
    group = BY_NAME[pick(here)].group
    for name in dict.fromkeys((pick(_GROUP_NAMES[group]), pick(_NAMES))):
        if name not in frame.categories:
            yield _Draft("absent-category", TEMPLATES["category"], {"category": name}, (), absent=f"no {name}")
    painted = list(frame.colours) or _COLOUR_NAMES
    pairs = ((pick(here), pick(_COLOUR_NAMES)), (pick(_NAMES), pick(painted)), (pick(here), pick(painted)))
    for name, colour in dict.fromkeys(pairs):
        near = name in frame.categories or colour in frame.colours
        if not near or frame.with_colour(name, colour) or (train and (name, colour) in HELD_OUT_PAIRS):
            continue
        words, absent = {"colour": colour, "category": name}, f"no {colour} {name}"
        yield _Draft("absent-colour-category", TEMPLATES["colour-category"], words, (), absent=absent)
    for fact in dict.fromkeys((pick(_GROUP_FACTS[group]), pick(FACTS))):
        if fact not in frame.facts:
            absent, wordings = f"nothing that {fact}", _fact_wordings(fact)
            yield _Draft("absent-fact", FACT_QUESTIONS[fact], {}, (), wordings, absent)


_FINDERS: tuple[Callable[[_Frame], Iterator[_Draft]], ...] = (
    _categories,
    _colours,
    _colour_categories,
    _sizes,
    _places,
    _facts,
    _parts,
    _superlatives,
    _relations,
    _odd_one_out,
)


QUESTIONS: dict[str, tuple[str, str]] = {
    "count": ("how many things are there?", "how many things do you see?"),
    "count-category": ("how many {plural} are there?", "how many {plural} do you see?"),
    "count-colour": ("how many {colour} things are there?", "how many things are {colour}?"),
    "colour": ("what colour is {name}?", "do you know the colour of {name}?"),
    "at": ("what is {place}?", "what do you see {place}?"),
    "where": ("where is {name}?", "where do you see {name}?"),
    "bigger": ("which is bigger, {first} or {second}?", "what is larger, {first} or {second}?"),
    "smaller": ("which is smaller, {first} or {second}?", "what takes up less room, {first} or {second}?"),
    "further": (
        "which is further {towards}, {first} or {second}?",
        "which is closer to the {side} edge, {first} or {second}?",
    ),
    "there-category": ("is there any {category}?", "do you see any {category}?"),
    "there-colour-category": ("is there any {colour} {category}?", "do you see any {colour} {category}?"),
}


def questions(seen: Sequence[Seen], rng: np.random.Generator) -> list[tuple[str, str]]:
    """Six question and answer pairs about a frame (fewer when little can be asked), all of different types.

    Answers are a word or two: a number in digits, a colour, a category, a region, a name, "yes" or "no". The rules of
    clearness and margins are those of `expressions`; pairs of `HELD_OUT_PAIRS` are only asked for when they are there.
    """
    frame = _Frame(seen)
    asked = [pair for ask in _ASKERS for pair in ask(frame, rng)]
    order = rng.permutation(len(asked))[:6].tolist()
    return [asked[index] for index in order]


def _ask(kind: str, reply: str, rng: np.random.Generator, **words: str) -> tuple[str, str]:
    return QUESTIONS[kind][int(rng.integers(2))].format_map(words), reply


def _choose(items: Sequence[str], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]


def _ask_counts(frame: _Frame, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """How many things, of a category (present or, one time in four, any), of a colour."""
    if all(frame.clear):
        yield _ask("count", str(len(frame.seen)), rng)
    anything = rng.random() < 0.25 or not frame.categories
    name = _choose(_NAMES if anything else list(frame.categories), rng)
    matches = frame.categories.get(name, [])
    if all(frame.clear[index] for index in matches):
        yield _ask("count-category", str(len(matches)), rng, plural=BY_NAME[name].plural)
    anything = rng.random() < 0.25 or not frame.colours
    colour = _choose(_COLOUR_NAMES if anything else list(frame.colours), rng)
    matches = frame.colours.get(colour, [])
    if all(frame.clear[index] and frame.seen[index].colour == colour for index in matches):
        yield _ask("count-colour", str(len(matches)), rng, colour=colour)


def _ask_one(frame: _Frame, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
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
        if frame.clear[index] and not any(_might_be_in(frame, other, place) for other in order if other != index):
            yield _ask("at", frame.seen[index].category, rng, place=_PLACES[place])
            break


def _ask_comparisons(frame: _Frame, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
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
    side = _choose(list(_SIDES), rng)
    first = _foremost(frame, (one, other), side)
    if first is not None:
        yield _ask("further", name if first == one else other_name, rng, **_SIDES[side], **said)


def _ask_presence(frame: _Frame, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Whether there is a category, and a coloured category; as often yes as no where the frame allows."""
    clear = [one for one, visible in zip(frame.seen, frame.clear, strict=True) if visible]
    if clear and rng.random() < 0.5:
        name = _choose([one.category for one in clear], rng)
    else:
        name = _choose(_NAMES, rng)
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
    colour = _choose(_COLOUR_NAMES, rng)
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
        for colour in ("natural", _choose(_COLOUR_NAMES, rng)):
            name = f"{_adjective(colour)}{category.name}"
            yield f"all the {_adjective(colour)}{category.plural}"
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
        for side in _SIDES:
            filled += [template.format_map(_any_words(side, rng)) for template in table]
    for colour in COLOURS:
        filled.append(f"everything {colour}")
        filled += [f"the {size} {colour} one {_PLACES[place]}" for size in SIZES for place in REGIONS]
    yield from dict.fromkeys(filled)


def _any_words(side: str, rng: np.random.Generator) -> dict[str, str]:
    """Something for every field of every template."""
    category = CATEGORIES[int(rng.integers(len(CATEGORIES)))]
    colour, other = _choose(_COLOUR_NAMES, rng), _choose(_NAMES, rng)
    return _SIDES[side] | {
        "category": category.name,
        "plural": category.plural,
        "colour": colour,
        "size": _choose(SIZES, rng),
        "place": _PLACES[_choose(REGIONS, rng)],
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
    names = [_choose(_NAMES, rng) for _ in range(5)]
    colours = ["natural", *(_choose(_COLOUR_NAMES, rng) for _ in range(4))]
    seen = []
    for index in range(int(rng.integers(1, 9))):
        side = float(rng.uniform(0.08, 0.3))
        x, y = rng.uniform(0, 1 - side, 2).tolist()
        size = SIZES[min(2, int((side - 0.08) / 0.08))]
        box = (x, y, x + side, y + side)
        seen.append(Seen(index + 1, _choose(names, rng), _choose(colours, rng), size, box, 0.7 * side * side, 1.0))
    return seen
