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

from trackgpt.errors import UsageError
from trackgpt.synthtrack.catalog import (
    BY_NAME,
    CATEGORIES,
    COLOURS,
    FACT_QUESTIONS,
    FACTS,
    HELD_OUT_PAIRS,
    THIN_FACTS,
)
from trackgpt.synthtrack.scene import SceneInstruction
from trackgpt.synthtrack.wordings import (
    FORMS,
    PLACES,
    REGIONS,
    SIDES,
    SIZES,
    TEMPLATES,
    THIN_WORDINGS,
    TRAIN_WORDINGS,
    WORDINGS,
)

MAX_TARGETS = 4
MIN_VISIBLE = 0.4
MIN_AREA = 0.002
MARGIN = 0.15
SIZE_RATIO = 1.3

# Distances in fractions of width and height depend on the frame's aspect, which is not known here: a comparison
# of distances must hold for a square frame and for a wide one.
_ASPECTS = (1.0, 16 / 9)


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
    return f"the {adjective(seen.colour)}{seen.category}"


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


def expressions(
    seen: Sequence[Seen],
    scene_kind: str,
    leader: int | None,
    split: str,
    rng: np.random.Generator,
    wording: int | None = None,
) -> list[SceneInstruction]:
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
    frame = Frame(seen)
    meanings = [meaning for find in _FINDERS for meaning in find(frame)]
    if scene_kind == "race":
        meanings += _race(frame, leader)
    meanings += _two(frame, rng)
    meanings += _absent_things(frame, rng, train)
    draws = rng.random(len(meanings)).tolist()
    spoken = []
    for meaning, draw in zip(meanings, draws, strict=True):
        count = meaning.train_wordings if train else WORDINGS
        index = int(draw * count) if wording is None else wording
        if index < count:
            spoken.append(_speak(frame, meaning, index))
    return spoken


class _Meaning(NamedTuple):
    """An instruction before its wording is chosen; targets are indices into the frame's list."""

    form: str
    table: tuple[str, ...]
    words: dict[str, str]
    targets: tuple[int, ...]
    train_wordings: int = TRAIN_WORDINGS
    absent: str = ""


class Frame:
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


def adjective(colour: str) -> str:
    """A colour as the word before a noun, with its space; "" for an actor in its own colours."""
    return "" if colour == "natural" else f"{colour} "


def _speak(frame: Frame, meaning: _Meaning, wording: int) -> SceneInstruction:
    order = tuple(sorted(meaning.targets, key=lambda index: (frame.x[index], frame.seen[index].id)))
    return SceneInstruction(
        text=meaning.table[wording].format_map(meaning.words),
        kind=FORMS[meaning.form],
        form=meaning.form,
        targets=tuple(frame.seen[index].id for index in order),
        answer=frame.answer(order) if order else answer((), meaning.absent),
        wording=wording,
    )


def _fact_wordings(fact: str) -> int:
    return THIN_WORDINGS if fact in THIN_FACTS else TRAIN_WORDINGS


def _categories(frame: Frame) -> Iterator[_Meaning]:
    for name, matches in frame.categories.items():
        if frame.sole(matches):
            yield _Meaning("category", TEMPLATES["category"], {"category": name}, (matches[0],))
        if frame.several(matches):
            words = {"category": name, "plural": BY_NAME[name].plural}
            yield _Meaning("all-category", TEMPLATES["all-category"], words, tuple(matches))


def _colours(frame: Frame) -> Iterator[_Meaning]:
    for colour, matches in frame.colours.items():
        if any(frame.seen[index].colour == "natural" for index in matches):
            continue
        words = {"colour": colour}
        if frame.sole(matches):
            yield _Meaning("colour-only", TEMPLATES["colour-only"], words, (matches[0],))
        if frame.several(matches):
            yield _Meaning("all-colour", TEMPLATES["all-colour"], words, tuple(matches))


def _colour_categories(frame: Frame) -> Iterator[_Meaning]:
    for index, one in enumerate(frame.seen):
        if one.colour == "natural" or not frame.sole(frame.with_colour(one.category, one.colour)):
            continue
        words = {"colour": one.colour, "category": one.category}
        yield _Meaning("colour-category", TEMPLATES["colour-category"], words, (index,))


def _sizes(frame: Frame) -> Iterator[_Meaning]:
    for index, one in enumerate(frame.seen):
        if not frame.clear[index]:
            continue
        kin = frame.categories[one.category]
        if _size_shows(frame, index, kin):
            words = {"size": one.size, "category": one.category}
            yield _Meaning("size-category", TEMPLATES["size-category"], words, (index,))
        if one.colour == "natural":
            continue
        if _size_shows(frame, index, frame.with_colour(one.category, one.colour)):
            words = {"size": one.size, "colour": one.colour, "category": one.category}
            yield _Meaning("size-colour-category", TEMPLATES["size-colour-category"], words, (index,))


def _size_shows(frame: Frame, index: int, kin: Sequence[int]) -> bool:
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


def _places(frame: Frame) -> Iterator[_Meaning]:
    for name, matches in frame.categories.items():
        for index in matches:
            if not frame.clear[index]:
                continue
            place = region(frame.seen[index].box)
            if not any(might_be_in(frame, other, place) for other in matches if other != index):
                words = {"category": name, "place": PLACES[place]}
                yield _Meaning("where-category", TEMPLATES["where-category"], words, (index,))
        if len(matches) < 2:
            continue
        for side, side_words in SIDES.items():
            first = foremost(frame, matches, side)
            if first is not None:
                words = {**side_words, "category": name, "plural": BY_NAME[name].plural}
                yield _Meaning("where-category", TEMPLATES["most-category"], words, (first,))


def might_be_in(frame: Frame, index: int, place: str) -> bool:
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


def foremost(frame: Frame, among: Sequence[int], side: str) -> int | None:
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


def _facts(frame: Frame) -> Iterator[_Meaning]:
    for fact, matches in frame.facts.items():
        if frame.sole(matches):
            yield _Meaning("fact", FACT_QUESTIONS[fact], {}, (matches[0],), _fact_wordings(fact))
        if frame.several(matches):
            words, wordings = {"fact": fact}, _fact_wordings(fact)
            yield _Meaning("all-fact", TEMPLATES["all-fact"], words, tuple(matches), wordings)


def _parts(frame: Frame) -> Iterator[_Meaning]:
    for part, matches in frame.parts.items():
        if frame.sole(matches):
            yield _Meaning("part", TEMPLATES["part"], {"part": part}, (matches[0],))


def _superlatives(frame: Frame) -> Iterator[_Meaning]:
    everyone = range(len(frame.seen))
    if len(everyone) < 2:
        return
    for side, words in SIDES.items():
        first = foremost(frame, everyone, side)
        if first is not None:
            yield _Meaning("superlative", TEMPLATES["most"], words, (first,))
    for form, extreme in (("biggest", _biggest(frame)), ("smallest", _smallest(frame))):
        if extreme is not None:
            yield _Meaning("superlative", TEMPLATES[form], {}, (extreme,))


def _biggest(frame: Frame) -> int | None:
    """The actor whose visible part alone is larger by the margin than all others would be unhidden; else None."""
    areas = [one.area for one in frame.seen]
    best = max(range(len(areas)), key=areas.__getitem__)
    rivals = [full for index, full in enumerate(frame.full) if index != best]
    return best if frame.clear[best] and areas[best] >= (1 + MARGIN) * max(rivals) else None


def _smallest(frame: Frame) -> int | None:
    """The actor that would be smaller by the margin, unhidden, than what is visible of any other; else None."""
    best = min(range(len(frame.full)), key=frame.full.__getitem__)
    rivals = [one.area for index, one in enumerate(frame.seen) if index != best]
    return best if frame.clear[best] and frame.full[best] * (1 + MARGIN) <= min(rivals) else None


def _relations(frame: Frame) -> Iterator[_Meaning]:
    for anchor in range(len(frame.seen)):
        names = frame.names(anchor)
        if not names:
            continue
        for side, side_words in SIDES.items():
            target = _only_beside(frame, anchor, side)
            if target is not None:
                words = {**side_words, "anchor": names[0]}
                yield _Meaning("relation", TEMPLATES["beside"], words, (target,))
        for form, target in zip(("closest", "furthest"), _by_distance(frame, anchor), strict=True):
            if target is not None:
                yield _Meaning("relation", TEMPLATES[form], {"anchor": names[0]}, (target,))


def _only_beside(frame: Frame, anchor: int, side: str) -> int | None:
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


def _by_distance(frame: Frame, anchor: int) -> tuple[int | None, int | None]:
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


def _agreed(frame: Frame, votes: set[int]) -> int | None:
    """The one clear actor that all votes name (-1 abstains), else None."""
    index = votes.pop() if len(votes) == 1 else -1
    return index if index >= 0 and frame.clear[index] else None


def _odd_one_out(frame: Frame) -> Iterator[_Meaning]:
    """The only actor of another group, unless the colours single out someone else."""
    if len(frame.seen) < 3 or not all(frame.clear):
        return
    odd = _exception([BY_NAME[one.category].group for one in frame.seen])
    by_colour = _exception([one.colour for one in frame.seen])
    if odd is not None and by_colour in (None, odd):
        yield _Meaning("odd-one-out", TEMPLATES["odd-one-out"], {}, (odd,))


def _exception(values: Sequence[str]) -> int | None:
    """Index of the one value that differs while all others (two or more) are the same, else None."""
    kinds = set(values)
    if len(values) < 3 or len(kinds) != 2:
        return None
    alone = [kind for kind in kinds if values.count(kind) == 1]
    return values.index(alone[0]) if len(alone) == 1 else None


def _race(frame: Frame, leader: int | None) -> list[_Meaning]:
    return [
        _Meaning("race", TEMPLATES["race"], {}, (index,))
        for index, one in enumerate(frame.seen)
        if one.id == leader and frame.clear[index]
    ]


def _two(frame: Frame, rng: np.random.Generator) -> Iterator[_Meaning]:
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
        yield _Meaning("two", TEMPLATES["two"], {"first": name, "second": other_name}, (one, other))


NAMES = [category.name for category in CATEGORIES]
COLOUR_NAMES = list(COLOURS)
_GROUPS = {
    group: [category for category in CATEGORIES if category.group == group]
    for group in dict.fromkeys(category.group for category in CATEGORIES)
}
_GROUP_NAMES = {group: [category.name for category in members] for group, members in _GROUPS.items()}
_GROUP_FACTS = {
    group: sorted({fact for category in members for fact in category.facts}) or list(FACTS)
    for group, members in _GROUPS.items()
}


def _absent_things(frame: Frame, rng: np.random.Generator, train: bool) -> Iterator[_Meaning]:
    """Instructions about what is not there: two categories, up to three coloured ones, two facts.

    One of each is near to what is there (same group, same category, same colour), one is anything.
    """
    draws = iter(rng.random(16).tolist())

    def pick(items: Sequence[str]) -> str:
        return items[int(next(draws) * len(items))]

    here = [one.category for one in frame.seen] or NAMES
    group = BY_NAME[pick(here)].group
    for name in dict.fromkeys((pick(_GROUP_NAMES[group]), pick(NAMES))):
        if name not in frame.categories:
            yield _Meaning("absent-category", TEMPLATES["category"], {"category": name}, (), absent=f"no {name}")
    painted = list(frame.colours) or COLOUR_NAMES
    pairs = ((pick(here), pick(COLOUR_NAMES)), (pick(NAMES), pick(painted)), (pick(here), pick(painted)))
    for name, colour in dict.fromkeys(pairs):
        near = name in frame.categories or colour in frame.colours
        if not near or frame.with_colour(name, colour) or (train and (name, colour) in HELD_OUT_PAIRS):
            continue
        words, absent = {"colour": colour, "category": name}, f"no {colour} {name}"
        yield _Meaning("absent-colour-category", TEMPLATES["colour-category"], words, (), absent=absent)
    for fact in dict.fromkeys((pick(_GROUP_FACTS[group]), pick(FACTS))):
        if fact not in frame.facts:
            absent, wordings = f"nothing that {fact}", _fact_wordings(fact)
            yield _Meaning("absent-fact", FACT_QUESTIONS[fact], {}, (), wordings, absent)


_FINDERS: tuple[Callable[[Frame], Iterator[_Meaning]], ...] = (
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
