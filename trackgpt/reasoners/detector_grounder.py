"""A detector with a fixed list of class names as a grounder: finds "the man on the black bike" among its boxes.

The words are read (`trackgpt.reasoners.expression`), the noun picks classes (`trackgpt.reasoners.nouns`), and among the
boxes of these classes decides what pixels and time can show: colours by the share of pixels, places, sizes and orders
by the boxes, relations by the boxes of both, motion by the same detector on neighbouring frames. Each of these is a fit
in [0, 1]; a candidate's score is the detector's times its fits. Words that cannot be judged are given back as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from trackgpt.geometry.boxes import box_iou
from trackgpt.reasoners.expression import Phrase, Reading, Relation, Trait, lasting, read
from trackgpt.reasoners.grounder import ALIKE, Candidate, Grounding, Nearby
from trackgpt.reasoners.nouns import WORN, Embed, matches

CREDIBLE = 0.1
"""Detections below are not looked at."""
CREDIBLE_SHARE = 0.3
"""Nor those below this share of the best score among the classes that are meant."""
MIN_FIT = 0.15
"""A candidate that fits the words less is not meant."""
ALSO = 0.4
"""For a plural: those with at least this share of the best one's score are meant, too."""
SAME_THING = 0.65
"""Boxes of different classes that overlap by more are one thing, called by the surer name."""
PROMINENCE = 0.5
"""Where no place, size or order tells candidates apart, a large one is meant: the power of its area in their order."""
WITHIN, PIECE = 0.9, 0.35
"""A box of which this share lies in a surer one of its class, with this share of its area, is a piece of it."""
NONE = frozenset(("nothing", "nobody", "none", "neither", "no"))
MAX_RIVALS = 5
MAX_NEARBY = 6
"""Neighbouring frames on which the detector is asked, for words about motion."""
MOVING = 0.1
"""What moves by this share of its size over the frames that are looked at is seen to move."""


class Detector(Protocol):
    """Finds things of a fixed list of classes.

    Attributes:
        name: for people.
        licence: of its weights; empty where that is not known.
        names: of its classes.
    """

    name: str
    licence: str
    names: tuple[str, ...]

    def detect(self, image: np.ndarray) -> list[Candidate]:
        """What it sees on an image, uint8 RGB (height, width, 3), best first; labels are of `names`."""
        ...


class DetectorGrounder:
    """Finds what words mean among the boxes of a detector; see `trackgpt.reasoners.grounder.Grounder`.

    Args:
        detector: any, of photographs or of drawn worlds.
        embed: texts to vectors, float (texts, channels); asked about nouns that the table does not know.
    """

    reads_motion, checks_every = True, 8

    def __init__(self, detector: Detector, embed: Embed | None = None) -> None:
        self.name = detector.name
        self.licence = detector.licence
        self._detector = detector
        self._embed = embed

    def later(self, words: str) -> str:
        """See `Grounder.later`."""
        return lasting(words)

    def ground(self, image: np.ndarray, words: str, nearby: Sequence[Nearby] = ()) -> Grounding:
        """What the words mean on an image, uint8 RGB (height, width, 3); see `Grounder.ground`."""
        expression = read(words, self._detector.names)
        scene = self._scene(image, expression, nearby)
        unjudged: list[str] = []
        found: list[Candidate] = []
        rivals: list[Candidate] = []
        missing: list[str] = []
        alike: list[Candidate] = []
        for phrase in expression.phrases:
            if _says_nothing(phrase):
                unjudged += phrase.unread or [words.strip()]
                continue
            judged = self._judge(phrase, scene)
            meant = _meant(judged, phrase.count)
            missing += _missing(phrase, len(meant))
            known = {one.box for one in found}
            found += [one for one in meant if one.box not in known]
            rivals += _fitting(judged)
            alike += _alike(judged, phrase.count)
            unjudged += judged.unjudged
        first = _others(alike, found)
        others = [*first, *_others(rivals if found else scene.seen, [*found, *first])][: max(MAX_RIVALS, len(first))]
        surest = tuple(sorted(found, key=lambda one: -(one.score or 0.0)))
        unread = _in_order(unjudged, words)
        return Grounding(surest, tuple(others), unread, missing=tuple(missing), alike=len(first))

    def _scene(self, image: np.ndarray, expression: Reading, nearby: Sequence[Nearby]) -> _Scene:
        seen = [one for one in self._detector.detect(image) if (one.score or 0.0) >= CREDIBLE]
        boxes = np.array([one.box for one in seen], dtype=np.float64).reshape(-1, 4)
        moves = None
        if expression.about_motion and seen:
            moves = _moves(image, boxes, nearby, self._detector)
        return _Scene(image, tuple(seen), boxes, moves)

    def _judge(self, phrase: Phrase, scene: _Scene) -> _Judged:
        """The candidates for a phrase with their fits, best first, and the words that were of no use."""
        rows, unjudged = self._pool(phrase, scene)
        unjudged += phrase.unread
        fits = np.ones(len(rows))
        part = WORN.get(phrase.noun, "")
        traits = [replace(one, part=part) if part and one.kind == "colour" else one for one in phrase.traits]
        for relation in phrase.relations:
            related = self._relation_fit(relation, scene, rows, unjudged)
            fits = fits if related is None else fits * related
        for trait in sorted(traits, key=lambda one: one.kind == "rank"):
            fit = _trait_fit(trait, traits, scene, rows, fits, phrase.count or 1)
            unjudged += [trait.said] if fit is None else []
            fits = fits if fit is None else fits * fit
        return _judged(phrase, scene, rows, fits, unjudged, self._called(phrase))

    def _pool(self, phrase: Phrase, scene: _Scene) -> tuple[np.ndarray, list[str]]:
        """Rows of the detections that a noun may mean, and the noun where no class stands for it."""
        if not phrase.noun:
            return scene.credible(np.arange(len(scene.seen))), []
        sure, guesses = self._classes(phrase.noun)
        rows = scene.credible(scene.labelled(sure))
        if not len(rows):
            rows = scene.credible(scene.labelled(guesses))
        return rows, [] if sure or guesses else [phrase.said]

    def _called(self, phrase: Phrase) -> Mapping[str, str]:
        """What a class is called where the noun says more or something else than it: "bird (for swan)"."""
        found = matches(phrase.noun, self._detector.names, self._embed) if phrase.noun else ()
        kinds = {match.name: f"{match.name} (for {phrase.said})" for match in found if match.how == "kind"}
        guesses = (match.name for match in found if match.how == "stand-in")
        return kinds | {name: f"{name} (stands in for {phrase.said})" for name in guesses}

    def _classes(self, noun: str) -> tuple[frozenset[str], frozenset[str]]:
        """The classes that a noun means, and those that only look like it."""
        found = matches(noun, self._detector.names, self._embed) if noun else ()
        guesses = frozenset(match.name for match in found if match.how == "stand-in")
        return frozenset(match.name for match in found) - guesses, guesses

    def _relation_fit(
        self, relation: Relation, scene: _Scene, rows: np.ndarray, unjudged: list[str]
    ) -> np.ndarray | None:
        """How well each candidate stands in a relation, or None where that cannot be judged, with the words for it."""
        noun = relation.other.noun
        sure, guesses = self._classes(noun)
        if noun and not sure and (not guesses or noun in WORN):
            unjudged += [*relation.other.unread, _in_words(relation)]
            return None
        other = self._judge(relation.other, scene)
        if not len(other.rows) or not len(rows):
            unjudged += [_in_words(relation)]
            return None
        unjudged += other.unjudged
        fit = _related(relation, scene.boxes[rows], scene.boxes[other.rows], other.fits)
        if not relation.sure:
            return 0.7 + 0.3 * fit / max(float(fit.max()), 1e-6)
        if relation.negated:
            fit = 1.0 - fit
        if fit.max() < MIN_FIT:
            unjudged.append(_in_words(relation))
            return None
        return fit / fit.max()


@dataclass(frozen=True)
class _Scene:
    """What is on an image.

    Attributes:
        image: uint8 RGB.
        seen: credible detections, best first.
        boxes: float64 (n, 4), of `seen`.
        moves: how each of them moves, or None where that is not known.
    """

    image: np.ndarray
    seen: tuple[Candidate, ...]
    boxes: np.ndarray
    moves: _Moves | None

    def labelled(self, names: frozenset[str]) -> np.ndarray:
        """Rows of the detections with one of these labels."""
        return np.array([row for row, one in enumerate(self.seen) if one.label in names], dtype=np.int64)

    def credible(self, rows: np.ndarray) -> np.ndarray:
        """Those of the rows, surest first, that are credible beside the best of them, one for each thing."""
        kept: list[int] = []
        for row in rows:
            near = kept and (box_iou(self.boxes[[row]], self.boxes[kept]).max() > SAME_THING or self._within(row, kept))
            if not near and self.score(row) >= CREDIBLE_SHARE * self.score(rows[0]):
                kept.append(int(row))
        return np.array(kept, dtype=np.int64)

    def _within(self, row: int, kept: Sequence[int]) -> bool:
        """Whether a box lies in a surer one of the same class that is not much larger: a piece of the same thing."""
        (x1, y1, x2, y2), area = self.boxes[row], float(np.prod(self.boxes[row, 2:] - self.boxes[row, :2]))
        for other in (other for other in kept if self.seen[other].label == self.seen[row].label):
            a, b, c, d = self.boxes[other]
            shared = max(0.0, min(x2, c) - max(x1, a)) * max(0.0, min(y2, d) - max(y1, b))
            if shared > WITHIN * area and area > PIECE * (c - a) * (d - b):
                return True
        return False

    def score(self, row: int) -> float:
        """A detection's score."""
        return float(self.seen[row].score or 0.0)


class _Judged(NamedTuple):
    rows: np.ndarray  # int64 (n,) of the scene's detections, best first
    fits: np.ndarray  # float64 (n,)
    candidates: tuple[Candidate, ...]
    unjudged: list[str]
    ranks: np.ndarray  # float64 (n,), what they are ordered by


def _judged(
    phrase: Phrase,
    scene: _Scene,
    rows: np.ndarray,
    fits: np.ndarray,
    unjudged: list[str],
    called: Mapping[str, str],
) -> _Judged:
    scores = np.array([scene.score(row) for row in rows]) * fits
    area = np.maximum(np.prod(scene.boxes[rows, 2:] - scene.boxes[rows, :2], axis=1), 1.0)
    told_apart = any(trait.kind in {"place", "size", "rank"} for trait in phrase.traits)
    ranks = scores * (1.0 if told_apart else area**PROMINENCE)
    order = np.argsort(-ranks, kind="stable")
    candidates = []
    for at in order:
        one = scene.seen[rows[at]]
        candidates.append(Candidate(one.box, float(scores[at]), called.get(one.label, one.label)))
    return _Judged(rows[order], fits[order], tuple(candidates), unjudged, ranks[order])


def _fitting(judged: _Judged) -> list[Candidate]:
    return [one for one, fit in zip(judged.candidates, judged.fits) if fit >= MIN_FIT]


def _meant(judged: _Judged, count: int | None) -> list[Candidate]:
    fitting = _fitting(judged)
    if count is None:
        return [one for one in fitting if (one.score or 0.0) >= ALSO * (fitting[0].score or 0.0)]
    return fitting[:count]


def _alike(judged: _Judged, count: int | None) -> list[Candidate]:
    """Those that come after as many as are meant, and that fit about as well as the last of these."""
    fitting, ranks = _fitting(judged), judged.ranks[judged.fits >= MIN_FIT]
    if count is None or len(fitting) <= count:
        return []
    return [one for one, rank in zip(fitting[count:], ranks[count:]) if rank >= ALIKE * ranks[count - 1]]


def _others(offered: Iterable[Candidate], taken: Sequence[Candidate]) -> list[Candidate]:
    """Those of the candidates that are not among those taken, each once."""
    known = {one.box for one in taken}
    return list({one.box: one for one in offered if one.box not in known}.values())


def _says_nothing(phrase: Phrase) -> bool:
    """Whether a phrase names nothing ("the", a picture), or says that nothing is meant ("neither dog")."""
    bare = not (phrase.noun or phrase.traits or phrase.relations)
    return bare or bool(NONE & {word.casefold() for word in phrase.unread})


def _missing(phrase: Phrase, found: int) -> list[str]:
    """What was not found of a phrase: "ball", or "1 more children"."""
    wanted = phrase.count or 1
    if found >= wanted:
        return []
    return [f"{wanted - found} more {phrase.said}".strip() if found else phrase.said or "what is meant"]


def _in_words(relation: Relation) -> str:
    return f"{relation.said} {relation.other.said}".strip()


def _in_order(unjudged: Sequence[str], words: str) -> tuple[str, ...]:
    """Each once, in the order of the text."""
    folded = words.casefold()
    once = dict.fromkeys(word for word in unjudged if word)
    return tuple(sorted(once, key=lambda word: folded.find(word.casefold())))


# Traits: each gives the fit of every candidate, float64 (n,) in [0, 1], or None where it cannot be judged.


def _trait_fit(
    trait: Trait, traits: Sequence[Trait], scene: _Scene, rows: np.ndarray, fits: np.ndarray, count: int
) -> np.ndarray | None:
    boxes = scene.boxes[rows]
    if not len(rows):
        return np.ones(0)
    if trait.kind == "rank":
        return _rank_fit(trait, scene, rows, fits, count)
    if trait.kind == "colour":
        beside = sum(1 for one in traits if one.kind == "colour" and one.part == trait.part)
        fit = _colour_fit(scene.image, boxes, trait, beside)
        return np.clip(1.0 - fit if trait.negated else fit, 0.02, 1.0)
    if trait.kind == "motion":
        moved = _motion_fit(trait.value, scene.moves, rows)
        return None if moved is None else _compared(1.0 - moved if trait.negated else moved)
    fit = _measure(trait.value, boxes, scene.image.shape)
    fit = fit**2 if trait.kind == "place" else fit / fit.max()  # of many in a row, one on the left is the first
    return _compared(1.0 - fit if trait.negated else fit)


def _compared(fit: np.ndarray) -> np.ndarray:
    """A fit that decides between candidates: by how much the best one fits it only says a half."""
    best = max(float(fit.max()), 1e-6)
    return np.asarray(np.clip(fit / best, 0.02, 1.0) * (0.5 + 0.5 * min(best, 1.0)))


def _measure(value: str, boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """How much a place or size holds of each box, float64 (n,): places in [0, 1], sizes positive, larger = more so."""
    height, width = shape[:2]
    x = _across((boxes[:, 0] + boxes[:, 2]) / (2 * width))
    y = _across((boxes[:, 1] + boxes[:, 3]) / (2 * height))
    wide, high = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3).T
    near = 0.5 * _across(boxes[:, 3] / height) + 0.5 * np.sqrt(wide * high / (wide * high).max())
    side = np.sqrt(wide * high)
    measures = {
        "left": 1 - x,
        "right": x,
        "top": 1 - y,
        "bottom": y,
        "middle": 1 - 2 * abs(x - 0.5),
        "corner": 2 * np.minimum(abs(x - 0.5), abs(y - 0.5)),
        "front": near,
        "near": near,
        "back": 1 - near,
        "far": 1 - near,
        "large": side,
        "small": 1 / side,
        "tall": high,
        "short": 1 / high,
        "wide": wide,
        "long": np.maximum(wide, high),
    }
    return np.asarray(measures[value])


def _across(at: np.ndarray) -> np.ndarray:
    """Where something is in the frame (0 to 1), half by the frame itself and half by the first and last of them all."""
    at = np.clip(at, 0.0, 1.0)
    spread = float(np.ptp(at))
    return at if spread < 0.05 else 0.5 * at + 0.5 * (at - at.min()) / spread


def _rank_fit(trait: Trait, scene: _Scene, rows: np.ndarray, fits: np.ndarray, count: int) -> np.ndarray | None:
    """1 for the n-th by some measure, or so many from it on, of those that fit all else; nothing for fewer."""
    if trait.value in {"fast", "slow"}:
        if scene.moves is None or np.isnan(scene.moves.speed[rows]).all():
            return None
        speed = np.nan_to_num(scene.moves.speed[rows])
        measure = speed if trait.value == "fast" else -speed
    else:
        measure = _measure(trait.value, scene.boxes[rows], scene.image.shape)
    running = fits >= 0.5 * fits.max()
    order = np.argsort(-np.where(running, measure, -np.inf), kind="stable")
    fit = np.full(len(rows), 0.1)
    if trait.nth <= int(running.sum()):
        fit[order[: int(running.sum())][trait.nth - 1 : trait.nth - 1 + count]] = 1.0
    return np.asarray(1.1 - fit) if trait.negated else fit


# Colours. Hue in degrees / 2, saturation and value 0 to 255, as OpenCV has them. A colour word covers more than its
# textbook patch: a black swan is dark grey in the sun, a white car is blueish in the shade.

_Predicate = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

_LOOKS: Mapping[str, _Predicate] = {
    "black": lambda h, s, v: (v < 60) | ((v < 85) & (s < 110)),
    "white": lambda h, s, v: (s < 60) & (v > 160),
    "grey": lambda h, s, v: (s < 55) & (v > 55) & (v < 200),
    "red": lambda h, s, v: ((h < 7) | (h > 168)) & (s > 100) & (v > 60),
    "orange": lambda h, s, v: (h >= 5) & (h < 22) & (s > 120) & (v > 130),
    "brown": lambda h, s, v: ((h < 20) | (h > 174)) & (s > 45) & (v > 30) & (v < 165),
    "yellow": lambda h, s, v: (h >= 20) & (h < 35) & (s > 85) & (v > 110),
    "green": lambda h, s, v: (h >= 35) & (h < 88) & (s > 50) & (v > 40),
    "blue": lambda h, s, v: (h >= 85) & (h < 132) & (s > 70) & (v > 45),
    "purple": lambda h, s, v: (h >= 128) & (h < 162) & (s > 45) & (v > 45),
    "pink": lambda h, s, v: ((h >= 145) | (h < 6)) & (s > 35) & (s < 190) & (v > 150),
    "tan": lambda h, s, v: (h >= 7) & (h < 28) & (s > 30) & (s < 140) & (v > 110),
    "dark": lambda h, s, v: v < 95,
    "light": lambda h, s, v: v > 150,
}

# Where a colour is looked for: left, top, right, bottom as fractions of the box, and the share that is enough.
_PARTS: Mapping[str, tuple[tuple[float, float, float, float], float]] = {
    "": ((0.15, 0.15, 0.85, 0.85), 0.3),
    "upper": ((0.25, 0.15, 0.75, 0.5), 0.3),
    "lower": ((0.25, 0.5, 0.75, 0.9), 0.3),
    "whole": ((0.25, 0.15, 0.75, 0.9), 0.3),
    "head": ((0.25, 0.0, 0.75, 0.2), 0.15),
    "feet": ((0.15, 0.85, 0.85, 1.0), 0.15),
    "accent": ((0.1, 0.1, 0.9, 0.9), 0.06),
}


# A person who lies, bends or stands on their hands wears a shirt elsewhere in the box: a weaker sign.
_WORN_ANYWHERE = frozenset({"upper", "lower", "whole"})
_THIRDS = tuple((0.25, low, 0.75, low + 1 / 3) for low in (0.0, 1 / 3, 2 / 3))


def _colour_fit(image: np.ndarray, boxes: np.ndarray, trait: Trait, colours: int) -> np.ndarray:
    """How well a colour fits each box: whether there is enough of it, and rather where there is most of it.

    `colours` is how many are said of the same part.
    """
    if trait.part == "clothes":  # "in red": above or below
        parts = [_colour_fit(image, boxes, replace(trait, part=part), colours) for part in ("upper", "lower")]
        return np.maximum(*parts)
    where, enough = _PARTS[trait.part]
    enough /= colours
    looks = _LOOKS[trait.value]
    shares = np.array([_share(image, box, where, looks) for box in boxes])
    if trait.part in _WORN_ANYWHERE:
        posed = np.array([[_share(image, box, part, looks) for part in _THIRDS] for box in boxes])
        shares = np.maximum(shares, 0.7 * posed.max(axis=1))
    most = max(float(shares.max()), 1e-6)
    return np.asarray(np.clip(shares / enough, 0.0, 1.0) * np.sqrt(np.clip(shares / most, 0.0, 1.0)))


def _share(image: np.ndarray, box: np.ndarray, where: Sequence[float], looks: _Predicate) -> float:
    """The share of a part of a box that has a colour; 0 for a part outside the image."""
    height, width = image.shape[:2]
    sides = np.tile(box[2:] - box[:2], 2)
    x1, y1, x2, y2 = np.rint(np.tile(box[:2], 2) + np.asarray(where) * sides).astype(int)
    part = image[max(y1, 0) : min(max(y2, y1 + 1), height), max(x1, 0) : min(max(x2, x1 + 1), width)]
    if not part.size:
        return 0.0
    hue, saturation, value = cv2.split(cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2HSV))
    return float(looks(hue, saturation, value).mean())


# Relations: how well each of n boxes stands so to each of m others, float64 (n, m).


def _related(relation: Relation, boxes: np.ndarray, others: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How well each box stands in a relation to the best of the others, float64 (n,)."""
    same = box_iou(boxes, others) > SAME_THING
    weights = weights / max(float(weights.max()), 1e-6)
    if relation.kind == "not":
        return np.asarray(1.0 - (same * weights).max(axis=1))
    if relation.kind == "between" and len(others) > 1:
        return _between(boxes, others)
    fit = np.where(same, 0.0, _geometry(relation.kind, boxes, others)) * weights
    return np.asarray(fit.max(axis=1))


class _Pair:
    """Two sets of boxes against each other; lengths in units of the two boxes' mean size. (n, m) each."""

    def __init__(self, a: np.ndarray, b: np.ndarray) -> None:
        a, b = a[:, None], b[None]
        size_a, size_b = np.maximum(a[..., 2:] - a[..., :2], 1e-3), np.maximum(b[..., 2:] - b[..., :2], 1e-3)
        mean = np.sqrt(np.sqrt(size_a.prod(-1) * size_b.prod(-1)))
        overlap = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
        self.shared = np.clip(overlap, 0, None) / np.minimum(size_a, size_b)  # by axis, of the narrower
        self.inside = np.clip(overlap, 0, None).prod(-1) / size_a.prod(-1)
        self.gap = np.hypot(*np.moveaxis(np.clip(-overlap, 0, None), -1, 0)) / mean
        apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2 / (0.5 * (size_a + size_b))
        self.right, self.below = np.moveaxis(apart, -1, 0)
        self.lower = (a[..., 3] - b[..., 3]) / np.maximum(size_a, size_b)[..., 1]


def _geometry(kind: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if kind in {"under", "below", "left", "behind"}:
        inverse = {"under": "on", "below": "above", "left": "right", "behind": "front"}[kind]
        return _geometry(inverse, b, a).T
    pair = _Pair(a, b)
    near, touch = np.exp(-pair.gap), np.exp(-4 * pair.gap)
    if kind == "on":
        return np.asarray(touch * pair.shared[..., 0] * _ramp(-pair.below))
    if kind == "above":
        return np.asarray(np.sqrt(near) * (0.3 + 0.7 * pair.shared[..., 0]) * _ramp(-pair.below - 0.3))
    if kind == "right":
        return np.asarray(np.sqrt(near) * _ramp(pair.right))
    if kind == "front":
        return np.asarray(near * _ramp(2 * pair.lower) * (0.5 + 0.5 * pair.shared[..., 0]))
    if kind == "in":
        return np.asarray(pair.inside)
    if kind == "far":
        return np.asarray(1 - near)
    if kind == "with":
        return np.asarray(touch * (0.5 + 0.5 * pair.shared.prod(-1)))
    return np.asarray(near)  # near, and between with one other alone


def _ramp(at: np.ndarray) -> np.ndarray:
    """0 at -0.5 and below, 1 at 0.5 and above."""
    return np.clip(at + 0.5, 0.0, 1.0)


def _between(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How near each box is to the middle of two of the others, beside half their distance."""
    centre, ends = (boxes[:, :2] + boxes[:, 2:]) / 2, (others[:, :2] + others[:, 2:]) / 2
    first, second = np.triu_indices(len(ends), 1)
    middle, half = (ends[first] + ends[second]) / 2, np.linalg.norm(ends[first] - ends[second], axis=1) / 2
    away = np.linalg.norm(centre[:, None] - middle[None], axis=2) / np.maximum(half, 1e-3)[None]
    return np.asarray(np.clip(1.0 - away, 0.0, 1.0).max(axis=1))


# Motion, from the same detector on neighbouring frames.


class _Moves(NamedTuple):
    """How things move over the frames that were looked at, NaN for one that was not seen on another frame.

    By their own size, and beside what the background does: a car that the camera follows moves.
    """

    right: np.ndarray  # float64 (n,)
    down: np.ndarray
    growth: np.ndarray  # of the logarithm of their size

    @property
    def speed(self) -> np.ndarray:
        return np.hypot(self.right, self.down)


def _motion_fit(value: str, moves: _Moves | None, rows: np.ndarray) -> np.ndarray | None:
    if moves is None or np.isnan(moves.right[rows]).all():
        return None
    right, down, growth = (part[rows] for part in moves)
    speed = np.hypot(right, down)
    ways = {"right": right, "left": -right, "down": down, "up": -down}
    if value in ways:
        fit = 0.5 + 0.5 * ways[value] / (speed + 0.05)
    elif value in {"closer", "away"}:
        fit = 1 / (1 + np.exp(-(growth if value == "closer" else -growth) / 0.05))
    else:
        fit = np.clip(speed / MOVING, 0.0, 1.0)
        fit = 1 - fit if value == "still" else fit
        fit = 0.4 + 0.6 * fit  # a person who stands sways, one who walks may be followed by the camera
    return np.nan_to_num(fit, nan=0.5)


def _moves(image: np.ndarray, boxes: np.ndarray, nearby: Sequence[Nearby], detector: Detector) -> _Moves | None:
    frames = _spread([one for one in nearby if one.offset and one.image.shape == image.shape])
    if not frames:
        return None
    paths = [[_sight(0, box, np.eye(2, 3))] for box in boxes]
    for side in (-1, 1):
        _follow(image, boxes, [one for one in frames if one.offset * side > 0], detector, paths)
    span = max(abs(one.offset) for one in frames)
    slopes = np.array([_slope(path) for path in paths]) * span
    size = np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1.0))
    return _Moves(_both(slopes[:, 0], slopes[:, 2]) / size, _both(slopes[:, 1], slopes[:, 3]) / size, slopes[:, 4])


def _sight(offset: int, box: np.ndarray, camera: np.ndarray) -> list[float]:
    """When and where a box was seen: its sides where they would be without the camera's motion, its size as it is."""
    corners = camera @ np.array([[box[0], box[2]], [box[1], box[3]], [1.0, 1.0]])
    size = np.log(max(box[2] - box[0], 1.0) * max(box[3] - box[1], 1.0)) / 2
    return [offset, *corners.T.ravel(), size]


def _both(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What two opposite sides of a box do alike.

    A thing that comes into the picture or swings its arms moves one side, one that comes closer moves them apart.
    """
    return np.where(low * high > 0, np.where(abs(low) < abs(high), low, high), np.where(np.isnan(low), np.nan, 0.0))


def _spread(frames: Sequence[Nearby]) -> list[Nearby]:
    """At most `MAX_NEARBY` of the frames, evenly, nearest in time first."""
    if len(frames) > MAX_NEARBY:
        frames = [frames[at] for at in np.linspace(0, len(frames) - 1, MAX_NEARBY).round().astype(int)]
    return sorted(frames, key=lambda one: abs(one.offset))


def _follow(
    image: np.ndarray,
    boxes: np.ndarray,
    frames: Sequence[Nearby],
    detector: Detector,
    paths: list[list[list[float]]],
) -> None:
    """Adds to the paths where each box is on the frames of one side in time, as if the camera had stood still."""
    last = boxes.copy()
    for frame in frames:
        seen = [one.box for one in detector.detect(frame.image) if (one.score or 0.0) >= CREDIBLE]
        there = np.array(seen, dtype=np.float64).reshape(-1, 4)
        camera = _camera(frame.image, image, there)
        for row, at in _pairs(last, there):
            last[row] = there[at]
            paths[row].append(_sight(frame.offset, there[at], camera))


def _pairs(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int]]:
    """Rows of boxes that overlap most, each at most once."""
    overlaps = box_iou(a, b)
    pairs = []
    while overlaps.size and overlaps.max() > 0.2:
        row, at = (int(one) for one in np.unravel_index(overlaps.argmax(), overlaps.shape))
        pairs.append((row, at))
        overlaps[row], overlaps[:, at] = 0, 0
    return pairs


def _slope(path: Sequence[Sequence[float]]) -> np.ndarray:
    """Change from frame to frame of the sides and of the logarithm of the size, by least squares; NaN for one sight."""
    if len(path) < 2:
        return np.full(5, np.nan)
    points = np.array(path)
    return np.asarray(np.polyfit(points[:, 0], points[:, 1:], 1)[0])


def _camera(there: np.ndarray, here: np.ndarray, things: np.ndarray) -> np.ndarray:
    """The affine map (2, 3) from one frame's pixels to another's that the background follows; at worst the identity."""
    scale = min(1.0, 320 / max(here.shape[:2]))
    grey = [cv2.resize(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), None, fx=scale, fy=scale) for one in (there, here)]
    background = np.full(grey[0].shape, 255, dtype=np.uint8)
    for x1, y1, x2, y2 in np.rint(things * scale).astype(int):
        background[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = 0
    still = np.eye(2, 3)
    points = cv2.goodFeaturesToTrack(grey[0], 200, 0.01, 5, mask=background)
    if points is None or len(points) < 8:
        return still
    moved, kept, _ = cv2.calcOpticalFlowPyrLK(grey[0], grey[1], points, None)
    kept = kept.ravel().astype(bool)
    if kept.sum() < 8:
        return still
    found, _ = cv2.estimateAffinePartial2D(points[kept] / scale, moved[kept] / scale)
    return still if found is None else np.asarray(found)
